/* The JSON kernel in plain C, eight bytes at a time in a 64-bit word: for every processor. */
#include <stdint.h>
#include <string.h>

#include "json_decoder.h"

#define BLOCK 8
typedef uint64_t block_mask;

static inline unsigned block_first(block_mask mask) { return (unsigned)__builtin_ctzll(mask) >> 3; }

/* High bits mark the bytes.  A borrow can mark a byte above a true hit, never one below, so the first is right. */
static inline block_mask block_special_of(uint64_t word) {
    const uint64_t ones = 0x0101010101010101ull, highs = 0x8080808080808080ull;
    uint64_t quotes = word ^ (ones * '"'), backslashes = word ^ (ones * '\\');
    uint64_t hits = ((quotes - ones) & ~quotes) | ((backslashes - ones) & ~backslashes) |
                    ((word - ones * 0x20) & ~word) | word;
    return hits & highs;
}

static inline block_mask block_special(const uint8_t *p) {
    uint64_t word;
    memcpy(&word, p, 8);
    return block_special_of(word);
}

/* The bytes before are shifted out of the word, not out of the mask: they could have marked what follows them. */
static inline block_mask block_special_last(const uint8_t *end, unsigned n) {
    uint64_t word;
    memcpy(&word, end - 8, 8);
    return block_special_of(word >> (8 * (8 - n)));
}

static inline block_mask block_copy(uint8_t *out, const uint8_t *p) {
    uint64_t word;
    memcpy(&word, p, 8);
    memcpy(out, &word, 8);
    return block_special_of(word);
}

/* High bits that tell of bytes above ASCII, and, as long as there are none, of backslashes and controls. */
typedef struct {
    uint64_t above, special;
} other_bytes;

static inline int any_other(const other_bytes *others) { return (others->above | others->special) != 0; }

/* A bit for each quote in 64 bytes, which are copied; `others` is told of whatever else is special.  Sums of two
 * ASCII bytes do not overflow into the next; what becomes of others does not matter, they are told anyway. */
static inline __attribute__((always_inline)) uint64_t quote_bits(const uint8_t *p, uint8_t *copy, other_bytes *others) {
    const uint64_t ones = 0x0101010101010101ull, highs = 0x8080808080808080ull;
    uint64_t quotes = 0, above = 0, plain = highs;
    for (unsigned k = 0; k < 8; k++) {
        uint64_t word;
        memcpy(&word, p + 8 * k, 8);
        memcpy(copy + 8 * k, &word, 8);
        above |= word;
        plain &= ((word ^ (ones * '\\')) + ones * 0x7F) & (word + ones * 0x60);
        uint64_t marks = ~((word ^ (ones * '"')) + ones * 0x7F) & highs;
        quotes |= (marks * 0x0002040810204081ull) >> 56 << (8 * k); /* the high bits of eight bytes, together */
    }
    others->above |= above & highs;
    others->special |= plain ^ highs;
    return quotes;
}

static inline int word_differs(const uint8_t *a, const uint8_t *b) { return memcmp(a, b, 8) != 0; }

static inline int block_literal(const uint8_t *p, const pf_json_key *key) {
    unsigned size = key->literal_size;
    uint64_t word, wanted;
    if (size <= 8) {
        memcpy(&word, p, 8);
        memcpy(&wanted, key->literal, 8);
        return (word ^ wanted) << (64 - 8 * size) == 0;
    }
    if (word_differs(p, key->literal) || word_differs(p + size - 8, key->literal + size - 8)) return 0;
    if (size > 16 && word_differs(p + 8, key->literal + 8)) return 0;
    return size <= 24 || !word_differs(p + 16, key->literal + 16);
}

#include "json_kernel.h"

int pf_json_decode_scalar(pf_decoder *self, pf_columns *batch, const uint8_t *payload, size_t size, pf_refusal *why) {
    return decode_payload(self, batch, payload, size, why);
}
