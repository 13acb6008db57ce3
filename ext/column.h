/* Columns: where one batch's values lie, and how far each column has been filled.
 *
 * A schema is a tree of columns, stored flat in depth-first order: the fields of a nested Struct and
 * the values of a list follow their parent.  Every buffer is laid out as Arrow lays it out
 * (https://arrow.apache.org/docs/format/Columnar.html), with one exception: a bool is one byte, so
 * that NumPy can view it; the Arrow export packs it.
 *
 *     fixed width   data[capacity]
 *     string/bytes  offsets[capacity + 1] int32, data bytes
 *     list          offsets[capacity + 1] int32; the child column holds the values
 *     struct        no buffer of its own: its fields are its children
 *     nullable      validity bitmap, least significant bit first, 1 = has a value
 *
 * All positions are byte offsets from the start of a slot, so the same description serves every
 * process whatever address the slot is mapped at.
 */
#ifndef PYTHIA_COLUMN_H
#define PYTHIA_COLUMN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    PF_BOOL = 1,
    PF_INT8 = 2,
    PF_INT16 = 3,
    PF_INT32 = 4,
    PF_INT64 = 5,
    PF_UINT8 = 6,
    PF_UINT16 = 7,
    PF_UINT32 = 8,
    PF_UINT64 = 9,
    PF_FLOAT32 = 10,
    PF_FLOAT64 = 11,
    PF_DATETIME = 12, /* int64, microseconds since 1970-01-01T00:00:00Z */
    PF_STRING = 13,   /* UTF-8 */
    PF_BYTES = 14,
    PF_RAW = 15,      /* the undecoded source bytes of one value (msgspec.Raw) */
    PF_LIST = 16,
    PF_STRUCT = 17,
};

/* Values of pf_column.nullable: every non-zero one has a validity bitmap. */
enum {
    PF_NOT_NULLABLE = 0,
    PF_NULLABLE = 1,       /* null is a value of this column itself */
    PF_NULLABLE_ABOVE = 2, /* null only with the Optional Struct that it is a field of: null in its own place is refused */
};

/* One node of the column tree.  Fixed for the life of a handler. */
typedef struct {
    uint8_t kind;
    uint8_t nullable;    /* PF_NOT_NULLABLE, or one of the two that have a validity bitmap */
    uint16_t width;      /* bytes a value; 0 for string, bytes, raw, list and struct */
    uint32_t n_children; /* 1 for a list, the number of fields for a struct, else 0 */
    uint32_t end;        /* index just past this column's last descendant: next sibling */
    int32_t list;        /* index of the nearest enclosing list column, -1 at row level */
    uint64_t capacity;   /* values that fit (rows at row level) */
    uint64_t data;       /* offset of the values */
    uint64_t data_bytes; /* bytes that fit at `data`; at most INT32_MAX where int32 offsets count them */
    uint64_t offsets;    /* offset of int32[capacity + 1]; 0 when the kind has none */
    uint64_t validity;   /* offset of the bitmap; 0 when not nullable */
} pf_column;

/* The open batch's columns as a decoder writes them.  Private to the writing thread. */
typedef struct {
    uint8_t *base;            /* start of the slot */
    const pf_column *columns; /* n_columns nodes, depth first */
    uint32_t n_columns;
    uint32_t rows;            /* complete rows; the row being decoded has this index */
    uint32_t capacity;        /* rows that fit */
} pf_columns;

static inline void *pf_column_data(const pf_columns *batch, uint32_t column) {
    return batch->base + batch->columns[column].data;
}

static inline int32_t *pf_column_offsets(const pf_columns *batch, uint32_t column) {
    return (int32_t *)(batch->base + batch->columns[column].offsets);
}

static inline void pf_set_validity(const pf_columns *batch, uint32_t column, uint64_t index, int valid) {
    uint8_t *byte = batch->base + batch->columns[column].validity + (index >> 3);
    uint8_t bit = (uint8_t)(1u << (index & 7));
    *byte = valid ? (uint8_t)(*byte | bit) : (uint8_t)(*byte & ~bit);
}

/* Start an empty batch: every offsets array begins with 0. */
static inline void pf_columns_reset(pf_columns *batch) {
    batch->rows = 0;
    for (uint32_t i = 0; i < batch->n_columns; i++)
        if (batch->columns[i].offsets) pf_column_offsets(batch, i)[0] = 0;
}

#endif
