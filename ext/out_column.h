/* Columns of results as the encoder reads them, and the memory that it writes to.
 *
 * A result is a tree of columns, stored flat in depth-first order, as a batch's is (ext/column.h): the fields of a
 * Struct and the values of a list follow their parent.
 */
#ifndef PYTHIA_OUT_COLUMN_H
#define PYTHIA_OUT_COLUMN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    PF_OUT_BOOL = 1, /* one byte a value */
    PF_OUT_BOOL_BITS = 2, /* Arrow bitmap */
    PF_OUT_INT8 = 3,
    PF_OUT_INT16 = 4,
    PF_OUT_INT32 = 5,
    PF_OUT_INT64 = 6,
    PF_OUT_UINT8 = 7,
    PF_OUT_UINT16 = 8,
    PF_OUT_UINT32 = 9,
    PF_OUT_UINT64 = 10,
    PF_OUT_FLOAT32 = 11,
    PF_OUT_FLOAT64 = 12,
    PF_OUT_DATETIME = 13, /* int64 microseconds, INT64_MIN is null */
    PF_OUT_STRING = 14,
    PF_OUT_BYTES = 15,
    PF_OUT_ENCODED = 16, /* values that are JSON or MessagePack already; an empty one is absent, with its name */
    PF_OUT_LIST = 17,    /* the values follow, in one column */
    PF_OUT_STRUCT = 18,  /* the fields follow, a column each */
};

/* Where the bytes of a string, bytes or encoded value are found. */
enum {
    PF_SPANS_OFFSETS32 = 1, /* int32 offsets[rows + 1] into data */
    PF_SPANS_OFFSETS64 = 2,
    PF_SPANS_POINTERS = 3,  /* pf_span[rows] */
};

typedef struct {
    const uint8_t *bytes;
    int64_t size; /* -1: null */
} pf_span;

typedef struct {
    uint8_t kind;
    uint8_t spans;            /* PF_SPANS_..., 0 for fixed width */
    uint32_t end;             /* index just past this column's last descendant: next sibling */
    const uint8_t *data;      /* value 0; for PF_OUT_BOOL_BITS the bitmap */
    int64_t stride;           /* bytes from value to value; bit offset of value 0 for PF_OUT_BOOL_BITS */
    const void *offsets;      /* int32, int64 or pf_span, as `spans` says; int32 of a list */
    const uint8_t *valid_bytes; /* one byte a value, 0 = null; NULL: none */
    int64_t valid_stride;
    const uint8_t *valid_bits; /* bitmap, 1 = has a value; NULL: none */
    int64_t valid_bit_offset;
    const uint8_t *prefix;    /* what stands before the value in its object: its name, in JSON with the colon */
    uint32_t prefix_size;
} pf_out_column;

enum {
    PF_ENCODE_DONE = 0,
    PF_ENCODE_FULL = 1,     /* no room for row `row` */
    PF_ENCODE_UTF8 = 2,     /* string of row `row`, column `column` is not UTF-8 */
    PF_ENCODE_DATETIME = 3, /* datetime outside the years 1 to 9999 */
    PF_ENCODE_SIZE = 4,     /* value larger than a record can say (4 GiB) */
};

typedef struct {
    uint8_t *begin;
    uint8_t *at;
    uint8_t *end;
} pf_out;

typedef struct {
    int64_t row;     /* first row not written */
    int32_t column;  /* column of the failure */
    uint64_t bytes;  /* written to the region */
    uint64_t records;
} pf_encoded;

static inline int pf_out_room(const pf_out *out, uint64_t size) { return (uint64_t)(out->end - out->at) >= size; }

static inline int pf_put(pf_out *out, const void *bytes, uint64_t size) {
    if (!pf_out_room(out, size)) return PF_ENCODE_FULL;
    if (size) memcpy(out->at, bytes, size);
    out->at += size;
    return PF_ENCODE_DONE;
}

static inline void pf_put_u32_le(uint8_t *at, uint32_t value) {
    for (int i = 0; i < 4; i++) at[i] = (uint8_t)(value >> (8 * i));
}

static inline void pf_put_be(uint8_t *at, uint64_t value, int size) {
    for (int i = 0; i < size; i++) at[i] = (uint8_t)(value >> (8 * (size - 1 - i)));
}

/* ---- reading a column ---------------------------------------------------------------------- */

static inline int pf_out_is_null(const pf_out_column *column, int64_t row) {
    if (column->valid_bytes && !column->valid_bytes[row * column->valid_stride]) return 1;
    if (column->valid_bits) {
        int64_t bit = row + column->valid_bit_offset;
        if (!(column->valid_bits[bit >> 3] >> (bit & 7) & 1)) return 1;
    }
    return 0;
}

/* The bytes of value `row`; size -1 when it is null. */
static inline pf_span pf_out_span(const pf_out_column *column, int64_t row) {
    if (column->spans == PF_SPANS_POINTERS) return ((const pf_span *)column->offsets)[row];
    if (column->spans == PF_SPANS_OFFSETS32) {
        const int32_t *offsets = column->offsets;
        return (pf_span){column->data + offsets[row], (int64_t)offsets[row + 1] - offsets[row]};
    }
    const int64_t *offsets = column->offsets;
    return (pf_span){column->data + offsets[row], offsets[row + 1] - offsets[row]};
}

#define PF_OUT_AS(type) (memcpy(&(type), at, sizeof(type)), (type))

/* Integer value of a column of signed or bool kind / of unsigned kind.  Values may stand unaligned. */
static inline int64_t pf_out_int(const pf_out_column *column, int64_t row) {
    const uint8_t *at = column->data + row * column->stride;
    int8_t i8; int16_t i16; int32_t i32; int64_t i64;
    switch (column->kind) {
    case PF_OUT_INT8: return PF_OUT_AS(i8);
    case PF_OUT_INT16: return PF_OUT_AS(i16);
    case PF_OUT_INT32: return PF_OUT_AS(i32);
    default: return PF_OUT_AS(i64);
    }
}

static inline uint64_t pf_out_uint(const pf_out_column *column, int64_t row) {
    const uint8_t *at = column->data + row * column->stride;
    uint8_t u8; uint16_t u16; uint32_t u32; uint64_t u64;
    switch (column->kind) {
    case PF_OUT_UINT8: return PF_OUT_AS(u8);
    case PF_OUT_UINT16: return PF_OUT_AS(u16);
    case PF_OUT_UINT32: return PF_OUT_AS(u32);
    default: return PF_OUT_AS(u64);
    }
}

static inline double pf_out_float(const pf_out_column *column, int64_t row) {
    const uint8_t *at = column->data + row * column->stride;
    float f32; double f64;
    return column->kind == PF_OUT_FLOAT32 ? (double)PF_OUT_AS(f32) : PF_OUT_AS(f64);
}

static inline int pf_out_bool(const pf_out_column *column, int64_t row) {
    if (column->kind == PF_OUT_BOOL) return column->data[row * column->stride] != 0;
    int64_t bit = row + column->stride;
    return column->data[bit >> 3] >> (bit & 7) & 1;
}

#endif
