/* UTF-8: validation and counting (RFC 3629: no surrogates, no overlong forms, nothing above U+10FFFF). */
#ifndef PYTHIA_UTF8_H
#define PYTHIA_UTF8_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Bytes from text[at] on that are ASCII; reads eight at a time, never past `size`. */
static inline size_t pf_ascii_run(const uint8_t *text, size_t size, size_t at) {
    const uint64_t high_bits = 0x8080808080808080ull;
    size_t begin = at;
    while (size - at >= 8) {
        uint64_t word;
        memcpy(&word, text + at, 8);
        if (word & high_bits) break;
        at += 8;
    }
    while (at < size && text[at] < 0x80) at++;
    return at - begin;
}

/* Length of the well-formed sequence that begins at text[at] (a non-ASCII byte), 0 when there is none. */
static inline size_t pf_utf8_sequence(const uint8_t *text, size_t size, size_t at) {
    const uint8_t *s = text + at;
    size_t left = size - at;
    uint8_t lead = s[0];
    if (lead >= 0xC2 && lead <= 0xDF) return left >= 2 && (s[1] & 0xC0) == 0x80 ? 2 : 0;
    if ((lead & 0xF0) == 0xE0) {
        if (left < 3 || (s[1] & 0xC0) != 0x80 || (s[2] & 0xC0) != 0x80) return 0;
        if (lead == 0xE0 && s[1] < 0xA0) return 0; /* overlong */
        if (lead == 0xED && s[1] > 0x9F) return 0; /* surrogate */
        return 3;
    }
    if (lead >= 0xF0 && lead <= 0xF4) {
        if (left < 4 || (s[1] & 0xC0) != 0x80 || (s[2] & 0xC0) != 0x80 || (s[3] & 0xC0) != 0x80) return 0;
        if (lead == 0xF0 && s[1] < 0x90) return 0; /* overlong */
        if (lead == 0xF4 && s[1] > 0x8F) return 0; /* above U+10FFFF */
        return 4;
    }
    return 0;
}

/* Whether text of 8 to 32 bytes is ASCII: loads that may overlap instead of a loop. */
static inline int pf_is_short_ascii(const uint8_t *text, size_t size) {
    uint64_t first, second, third, last;
    size_t middle = size / 2 - 4;
    memcpy(&first, text, 8);
    memcpy(&second, text + (size >= 16 ? 8 : middle), 8);
    memcpy(&third, text + (size >= 16 ? size - 16 : middle), 8);
    memcpy(&last, text + size - 8, 8);
    return ((first | second | third | last) & 0x8080808080808080ull) == 0;
}

/* Length of the valid part at the front: `size` when all of it is UTF-8, else the offset of the first bad byte. */
static inline size_t pf_utf8_valid_prefix(const uint8_t *text, size_t size) {
    if (size >= 8 && size <= 32 && pf_is_short_ascii(text, size)) return size;
    size_t at = 0;
    for (;;) {
        at += pf_ascii_run(text, size, at);
        if (at == size) return size;
        size_t length = pf_utf8_sequence(text, size, at);
        if (length == 0) return at;
        at += length;
    }
}

/* Code points of valid UTF-8: every byte that is not a continuation byte starts one. */
static inline size_t pf_utf8_length(const uint8_t *text, size_t size) {
    size_t count = 0;
    for (size_t i = 0; i < size; i++) count += (text[i] & 0xC0) != 0x80;
    return count;
}

#endif
