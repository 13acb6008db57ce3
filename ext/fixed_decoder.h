/* The decoder of fixed-layout records: a NumPy structured dtype, walked once into a flat list of steps.
 *
 *     dtype([("id", ">u4"), ("at", "M8[ms]"), ("xy", [("x", "f8"), ("y", "f8")], (2,))])
 *
 *     COPY   column id    offset 0,  4 bytes, swapped
 *     TIME   column at    offset 4,  8 bytes, times 1000
 *     LIST   column xy    offset 12, 2 values, 16 bytes apart, steps up to `end`
 *       COPY column xy[].x  offset 0 (from the value's start)
 *       COPY column xy[].y  offset 8
 *
 * A payload is one record: exactly `record_bytes` long, or refused.
 */
#ifndef PYTHIA_FIXED_DECODER_H
#define PYTHIA_FIXED_DECODER_H

#include "field_store.h"
#include "rfc3339.h"

enum {
    PF_FIXED_COPY = 1,  /* same width in record and column */
    PF_FIXED_BOOL = 2,  /* any byte but 0 is true */
    PF_FIXED_HALF = 3,  /* float16 into a float32 column */
    PF_FIXED_TIME = 4,  /* datetime64 of unit `multiply` or `divide` microseconds */
    PF_FIXED_PADDED = 5, /* 'S': bytes without the NULs at their end */
    PF_FIXED_VOID = 6,  /* 'V': all of the bytes */
    PF_FIXED_UTF32 = 7, /* 'U': code points, NULs at the end left out */
    PF_FIXED_LIST = 8,
};

typedef struct {
    uint8_t action;    /* PF_FIXED_... */
    uint8_t swap;      /* the record's bytes are of the other order */
    uint32_t column;
    uint32_t offset;   /* from the start of the record, or of the value of the enclosing list */
    uint32_t size;     /* bytes of one value */
    uint32_t count;    /* of a list: its values */
    uint32_t end;      /* of a list: index just past its steps */
    int64_t multiply;  /* of a time */
    int64_t divide;
} pf_fixed_step;

typedef struct {
    pf_decoder decoder; /* first: a pf_decoder * is a pf_fixed_decoder * */
    const pf_plan *plan;
    const pf_fixed_step *steps;
    uint32_t n_steps;
    uint64_t record_bytes;
} pf_fixed_decoder;

static inline void pf_fixed_copy(uint8_t *to, const uint8_t *from, uint32_t size, int swap) {
    uint16_t u16;
    uint32_t u32;
    uint64_t u64;
    switch (size) {
    case 1: *to = *from; break;
    case 2: memcpy(&u16, from, 2); if (swap) u16 = __builtin_bswap16(u16); memcpy(to, &u16, 2); break;
    case 4: memcpy(&u32, from, 4); if (swap) u32 = __builtin_bswap32(u32); memcpy(to, &u32, 4); break;
    default: memcpy(&u64, from, 8); if (swap) u64 = __builtin_bswap64(u64); memcpy(to, &u64, 8); break;
    }
}

/* IEEE 754 binary16 to binary32: exact for every value. */
static inline float pf_half_to_float(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t exponent = half >> 10 & 0x1F, mantissa = half & 0x3FF, bits;
    float value;
    if (exponent == 0) { /* zero or subnormal: mantissa * 2^-24 */
        value = (float)mantissa * 0x1p-24f;
        return sign ? -value : value;
    }
    bits = sign | (exponent == 31 ? 0x7F800000u : (exponent + 112) << 23) | mantissa << 13;
    memcpy(&value, &bits, 4);
    return value;
}

/* Microseconds of a datetime64.  NaT stays NaT; an instant outside the years 1 to 9999 is refused. */
static inline int pf_fixed_time(const pf_fixed_step *step, int64_t value, int64_t *micros) {
    *micros = value;
    if (value == INT64_MIN) return PF_STORED;
    if (step->divide > 1) {
        *micros = value / step->divide - (value % step->divide < 0); /* downwards, as NumPy does */
    } else if (__builtin_mul_overflow(value, step->multiply, micros)) {
        return PF_REASON_DATETIME;
    }
    return *micros < PF_DATETIME_MIN_US || *micros > PF_DATETIME_MAX_US ? PF_REASON_DATETIME : PF_STORED;
}

/* Code points to UTF-8, into the column's own room. */
static int pf_fixed_utf32(const pf_plan *plan, const pf_columns *batch, const pf_fixed_step *step, uint64_t i, const uint8_t *at) {
    uint64_t room, used = 0;
    uint8_t *space = pf_text_space(batch, step->column, i, &room);
    uint32_t n = step->size / 4, code;
    for (; n; n--) { /* the NULs at the end only fill the field up */
        memcpy(&code, at + 4 * (n - 1), 4);
        if (code) break;
    }
    for (uint32_t c = 0; c < n; c++) {
        pf_fixed_copy((uint8_t *)&code, at + 4 * c, 4, step->swap);
        if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return PF_REASON_CODE_POINT;
        uint32_t size = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
        if (room - used < size) return PF_NO_ROOM;
        static const uint8_t lead[5] = {0, 0x00, 0xC0, 0xE0, 0xF0};
        for (uint32_t b = size - 1; b > 0; b--, code >>= 6) space[used + b] = (uint8_t)(0x80 | (code & 0x3F));
        space[used] = (uint8_t)(lead[size] | code);
        used += size;
    }
    return pf_text_close(plan, batch, step->column, i, used);
}

/* Run the steps from .. to on the record part that begins at `base`; `i` is the row or list value. */
static int pf_fixed_run(const pf_fixed_decoder *self, const pf_columns *batch, uint32_t from, uint32_t to,
                        const uint8_t *base, uint64_t i, const pf_fixed_step **failed) {
    for (uint32_t s = from; s < to; s++) {
        const pf_fixed_step *step = &self->steps[s];
        const uint8_t *at = base + step->offset;
        uint8_t *data = pf_column_data(batch, step->column);
        int stored = PF_STORED;
        switch (step->action) {
        case PF_FIXED_COPY:
            pf_fixed_copy(data + i * step->size, at, step->size, step->swap);
            break;
        case PF_FIXED_BOOL:
            data[i] = *at != 0;
            break;
        case PF_FIXED_HALF: {
            uint16_t half;
            pf_fixed_copy((uint8_t *)&half, at, 2, step->swap);
            ((float *)data)[i] = pf_half_to_float(half);
            break;
        }
        case PF_FIXED_TIME: {
            int64_t value;
            pf_fixed_copy((uint8_t *)&value, at, 8, step->swap);
            stored = pf_fixed_time(step, value, (int64_t *)data + i);
            break;
        }
        case PF_FIXED_PADDED: {
            uint32_t size = step->size;
            uint64_t word;
            for (; size >= 8; size -= 8) {
                memcpy(&word, at + size - 8, 8);
                if (word) break;
            }
            while (size && at[size - 1] == 0) size--;
            stored = pf_store_text(self->plan, batch, step->column, i, at, size);
            break;
        }
        case PF_FIXED_VOID:
            stored = pf_store_text(self->plan, batch, step->column, i, at, step->size);
            break;
        case PF_FIXED_UTF32:
            stored = pf_fixed_utf32(self->plan, batch, step, i, at);
            break;
        default: {
            uint64_t k = pf_list_begin(batch, step->column, i);
            for (uint32_t n = 0; n < step->count; n++, k++) {
                if (!pf_list_has_room(batch, step->column, k)) return PF_NO_ROOM;
                stored = pf_fixed_run(self, batch, s + 1, step->end, at + (uint64_t)n * step->size, k, failed);
                if (stored != PF_STORED) return stored;
            }
            stored = pf_list_close(self->plan, batch, step->column, i, k);
            s = step->end - 1;
        }
        }
        if (stored != PF_STORED) {
            *failed = step;
            return stored;
        }
    }
    return PF_STORED;
}

static int pf_fixed_decode(pf_decoder *decoder, pf_columns *batch, const uint8_t *payload, size_t size, pf_refusal *why) {
    const pf_fixed_decoder *self = (const pf_fixed_decoder *)decoder;
    const pf_fixed_step *failed = NULL;
    if (batch->rows >= batch->capacity) return PF_FULL;
    if (size != self->record_bytes) {
        uint8_t reason = size ? PF_REASON_LENGTH : PF_REASON_EMPTY;
        *why = (pf_refusal){.reason = reason, .column = -1, .at = size < self->record_bytes ? size : self->record_bytes};
        return PF_REFUSED;
    }
    int stored = pf_fixed_run(self, batch, 0, self->n_steps, payload, batch->rows, &failed);
    if (stored == PF_NO_ROOM) return PF_FULL;
    if (stored != PF_STORED) {
        *why = (pf_refusal){.reason = (uint8_t)stored, .column = (int32_t)failed->column, .at = failed->offset};
        return PF_REFUSED;
    }
    batch->rows++;
    return PF_DECODED;
}

static inline void pf_fixed_decoder_init(pf_fixed_decoder *self) { self->decoder.decode = pf_fixed_decode; }

#endif
