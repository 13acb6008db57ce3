/* Field tables of AMQP 0-9-1, as they come in a message's headers, turned into what pf_message keeps: (name size u16,
 * name, value size i32 or -1, value)*, little endian.
 *
 * A string or byte array keeps its bytes; a number, a bool and a timestamp become their text, void becomes a null value,
 * and an array or a table within the table becomes JSON.  So a header set by any client reads like one of Kafka's.
 * Types: AMQP 0-9-1, section 4.2.5.5, with the letters that RabbitMQ uses where it differs (its "errata" page).
 *
 * Every read is checked against the end of the bytes it is in, which a table's or string's own size can only narrow. */
#ifndef PYTHIA_AMQP_TABLE_H
#define PYTHIA_AMQP_TABLE_H

#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PF_AMQP_DEPTH 32 /* tables within tables; RabbitMQ itself would take more */

/* Bytes that are read from front to end; `bad` once one was wanted beyond the end, and then every read gives 0. */
typedef struct {
    const uint8_t *at, *end;
    int bad;
} pf_amqp_bytes;

static inline size_t pf_amqp_left(const pf_amqp_bytes *in) {
    return (size_t)(in->end - in->at);
}

/* The next `size` bytes; NULL (and bad) when there are fewer. */
static inline const uint8_t *pf_amqp_take(pf_amqp_bytes *in, uint64_t size) {
    if (in->bad || size > pf_amqp_left(in)) {
        in->bad = 1;
        return NULL;
    }
    const uint8_t *taken = in->at;
    in->at += size;
    return taken;
}

/* An unsigned integer of `size` bytes in network order. */
static inline uint64_t pf_amqp_uint(pf_amqp_bytes *in, int size) {
    const uint8_t *taken = pf_amqp_take(in, (uint64_t)size);
    uint64_t value = 0;
    for (int i = 0; taken != NULL && i < size; i++) value = value << 8 | taken[i];
    return value;
}

static inline int64_t pf_amqp_int(pf_amqp_bytes *in, int size) {
    int shift = 64 - 8 * size;
    return (int64_t)(pf_amqp_uint(in, size) << shift) >> shift;
}

/* The bytes that follow their own size, which has `size_bytes` bytes. */
static inline pf_amqp_bytes pf_amqp_sized(pf_amqp_bytes *in, int size_bytes) {
    uint64_t size = pf_amqp_uint(in, size_bytes);
    const uint8_t *taken = pf_amqp_take(in, size);
    if (taken == NULL) return (pf_amqp_bytes){in->end, in->end, 1};
    return (pf_amqp_bytes){taken, taken + size, 0};
}

/* Bytes that grow as they are written; `failed` once there was no memory, and then nothing is added. */
typedef struct {
    uint8_t *bytes;
    size_t size, room;
    int failed;
} pf_amqp_text;

/* Room for so many more; NULL (and failed) where there is none. */
static inline uint8_t *pf_amqp_room(pf_amqp_text *out, size_t more) {
    if (out->failed) return NULL;
    if (more > out->room - out->size) {
        size_t room = 2 * out->room + more + 256;
        uint8_t *grown = (uint8_t *)realloc(out->bytes, room);
        if (grown == NULL) {
            out->failed = 1;
            return NULL;
        }
        out->bytes = grown;
        out->room = room;
    }
    return out->bytes + out->size;
}

#define PF_AMQP_ROOM_KEPT (1u << 20) /* what one large message needed is not held for ever */

static inline void pf_amqp_empty(pf_amqp_text *out) {
    out->size = 0;
    if (out->room <= PF_AMQP_ROOM_KEPT) return;
    free(out->bytes);
    out->bytes = NULL;
    out->room = 0;
}

static inline void pf_amqp_put(pf_amqp_text *out, const void *bytes, size_t size) {
    uint8_t *to = size ? pf_amqp_room(out, size) : NULL;
    if (to == NULL) return;
    memcpy(to, bytes, size);
    out->size += size;
}

static inline void pf_amqp_put_le(pf_amqp_text *out, uint64_t value, int size) {
    uint8_t *to = pf_amqp_room(out, 8);
    if (to == NULL) return;
    for (int i = 0; i < size; i++) to[i] = (uint8_t)(value >> 8 * i);
    out->size += (size_t)size;
}

static inline void pf_amqp_put_text(pf_amqp_text *out, const char *text) {
    pf_amqp_put(out, text, strlen(text));
}

/* A string of JSON.  Bytes from 0x80 on are kept: clients send UTF-8. */
static inline void pf_amqp_put_quoted(pf_amqp_text *out, pf_amqp_bytes text) {
    pf_amqp_put(out, "\"", 1);
    for (; text.at < text.end; text.at++) {
        char escaped[8];
        if (*text.at == '"' || *text.at == '\\') {
            pf_amqp_put(out, "\\", 1);
            pf_amqp_put(out, text.at, 1);
        } else if (*text.at < 0x20) {
            snprintf(escaped, sizeof escaped, "\\u%04x", *text.at);
            pf_amqp_put(out, escaped, 6);
        } else {
            pf_amqp_put(out, text.at, 1);
        }
    }
    pf_amqp_put(out, "\"", 1);
}

/* The shortest text that reads back as the same number. */
static inline void pf_amqp_put_double(pf_amqp_text *out, double value, int digits, int most) {
    char text[32];
    for (; digits <= most; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (digits == most || strtod(text, NULL) == value) break;
    }
    pf_amqp_put_text(out, text);
}

/* value * 10^-scale, exactly. */
static inline void pf_amqp_put_decimal(pf_amqp_text *out, int64_t value, unsigned scale) {
    char digits[16];
    int size = snprintf(digits, sizeof digits, "%" PRId64, value < 0 ? -value : value);
    if (value < 0) pf_amqp_put(out, "-", 1);
    int whole = size - (int)scale;
    if (whole <= 0) pf_amqp_put_text(out, "0");
    else pf_amqp_put(out, digits, (size_t)whole);
    if (scale == 0) return;
    pf_amqp_put(out, ".", 1);
    for (int i = whole; i < 0; i++) pf_amqp_put(out, "0", 1);
    pf_amqp_put(out, digits + (whole > 0 ? whole : 0), (size_t)(size - (whole > 0 ? whole : 0)));
}

static inline double pf_amqp_real(pf_amqp_bytes *in, int size) {
    uint64_t bits = pf_amqp_uint(in, size);
    if (size == 8) {
        double value;
        memcpy(&value, &bits, sizeof value);
        return value;
    }
    uint32_t narrow = (uint32_t)bits;
    float value;
    memcpy(&value, &narrow, sizeof value);
    return value;
}

/* Whether a header is to be read as a number, and which. */
typedef struct {
    int64_t value;
    int is_number;
} pf_amqp_number;

static inline void pf_amqp_put_number(pf_amqp_text *out, pf_amqp_number *number, int64_t value) {
    char text[24];
    *number = (pf_amqp_number){value, 1};
    snprintf(text, sizeof text, "%" PRId64, value);
    pf_amqp_put_text(out, text);
}

static void pf_amqp_put_array(pf_amqp_text *out, pf_amqp_bytes items, int depth, int *bad);
static void pf_amqp_put_object(pf_amqp_text *out, pf_amqp_bytes fields, int depth, int *bad);

/* One value behind its type's letter.  `depth` 0: a header's own value, whose strings stand as they are; further in it is
 * JSON.  Returns 0 for a null. */
static int pf_amqp_put_value(pf_amqp_text *out, pf_amqp_bytes *in, int depth, pf_amqp_number *number) {
    pf_amqp_bytes part;
    double real;
    uint64_t scale;
    char text[24];
    *number = (pf_amqp_number){0, 0};
    switch (pf_amqp_uint(in, 1)) {
    case 'b': pf_amqp_put_number(out, number, pf_amqp_int(in, 1)); break;
    case 'B': pf_amqp_put_number(out, number, (int64_t)pf_amqp_uint(in, 1)); break;
    case 's': case 'U': pf_amqp_put_number(out, number, pf_amqp_int(in, 2)); break;
    case 'u': pf_amqp_put_number(out, number, (int64_t)pf_amqp_uint(in, 2)); break;
    case 'I': pf_amqp_put_number(out, number, pf_amqp_int(in, 4)); break;
    case 'i': pf_amqp_put_number(out, number, (int64_t)pf_amqp_uint(in, 4)); break;
    case 'l': case 'L': pf_amqp_put_number(out, number, pf_amqp_int(in, 8)); break;
    case 'T':
        snprintf(text, sizeof text, "%" PRIu64, pf_amqp_uint(in, 8));
        pf_amqp_put_text(out, text);
        break;
    case 't': pf_amqp_put_text(out, pf_amqp_uint(in, 1) ? "true" : "false"); break;
    case 'f': case 'd':
        real = pf_amqp_real(in, in->at[-1] == 'f' ? 4 : 8);
        if (depth > 0 && !isfinite(real)) pf_amqp_put_text(out, "null");
        else pf_amqp_put_double(out, real, 6, 17);
        break;
    case 'D':
        scale = pf_amqp_uint(in, 1);
        pf_amqp_put_decimal(out, pf_amqp_int(in, 4), (unsigned)scale);
        break;
    case 'S': case 'x':
        part = pf_amqp_sized(in, 4);
        if (depth > 0) pf_amqp_put_quoted(out, part);
        else pf_amqp_put(out, part.at, pf_amqp_left(&part));
        break;
    case 'A':
        part = pf_amqp_sized(in, 4);
        pf_amqp_put_array(out, part, depth + 1, &in->bad);
        break;
    case 'F':
        part = pf_amqp_sized(in, 4);
        pf_amqp_put_object(out, part, depth + 1, &in->bad);
        break;
    case 'V':
        if (depth > 0) pf_amqp_put_text(out, "null");
        return 0;
    default: in->bad = 1;
    }
    return 1;
}

static void pf_amqp_put_array(pf_amqp_text *out, pf_amqp_bytes items, int depth, int *bad) {
    pf_amqp_number number;
    if (depth > PF_AMQP_DEPTH) items.bad = 1;
    pf_amqp_put(out, "[", 1);
    for (int more = 0; !items.bad && items.at < items.end; more = 1) {
        if (more) pf_amqp_put(out, ",", 1);
        pf_amqp_put_value(out, &items, depth, &number);
    }
    pf_amqp_put(out, "]", 1);
    *bad |= items.bad;
}

static void pf_amqp_put_object(pf_amqp_text *out, pf_amqp_bytes fields, int depth, int *bad) {
    pf_amqp_number number;
    if (depth > PF_AMQP_DEPTH) fields.bad = 1;
    pf_amqp_put(out, "{", 1);
    for (int more = 0; !fields.bad && fields.at < fields.end; more = 1) {
        if (more) pf_amqp_put(out, ",", 1);
        pf_amqp_put_quoted(out, pf_amqp_sized(&fields, 1));
        pf_amqp_put(out, ":", 1);
        pf_amqp_put_value(out, &fields, depth, &number);
    }
    pf_amqp_put(out, "}", 1);
    *bad |= fields.bad;
}

#define PF_AMQP_DELIVERY_COUNT "x-delivery-count" /* set by quorum queues: how often it was delivered before */

/* All fields of a table as headers.  `deliveries`: set to the number that a quorum queue put there.  0: the bytes are no
 * table. */
static int pf_amqp_encode_headers(pf_amqp_text *out, pf_amqp_bytes fields, int64_t *deliveries) {
    while (!fields.bad && fields.at < fields.end) {
        pf_amqp_number number;
        pf_amqp_bytes name = pf_amqp_sized(&fields, 1);
        size_t name_size = pf_amqp_left(&name);
        pf_amqp_put_le(out, name_size, 2);
        pf_amqp_put(out, name.at, name_size);
        size_t size_at = out->size;
        pf_amqp_put_le(out, UINT32_MAX, 4);
        if (pf_amqp_put_value(out, &fields, 0, &number) && !out->failed && !fields.bad) {
            uint32_t size = (uint32_t)(out->size - size_at - 4);
            for (int i = 0; i < 4; i++) out->bytes[size_at + (size_t)i] = (uint8_t)(size >> 8 * i);
        }
        if (number.is_number && name_size == sizeof PF_AMQP_DELIVERY_COUNT - 1 &&
            memcmp(name.at, PF_AMQP_DELIVERY_COUNT, name_size) == 0)
            *deliveries = number.value;
    }
    return !fields.bad;
}

#endif
