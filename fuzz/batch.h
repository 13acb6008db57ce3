/* What the fuzz targets share: a plan with every kind of column, a batch in memory of its own, and checks
 * that hold for every batch whatever was decoded into it. */
#ifndef PYTHIA_FUZZ_BATCH_H
#define PYTHIA_FUZZ_BATCH_H

#include <stdio.h>
#include <stdlib.h>
#include <sanitizer/asan_interface.h>
#include <string.h>

#include "decoder.h"
#include "must.h"
#include "plan.h"
#include "utf8.h"

enum {
    ID, PRICE, NAME, OK, SMALL, BIG, RATIO, WHEN, DATA, RAW, TAGS, TAG, INNER, INNER_X, INNER_Y, ITEMS, ITEM, ITEM_SKU,
    ITEM_COUNTS, ITEM_COUNT, N_COLUMNS
};

#define COLUMN(kind_, nullable_, width_, children_, end_, list_) \
    {.kind = kind_, .nullable = nullable_, .width = width_, .n_children = children_, .end = end_, .list = list_}

static const pf_column fuzz_columns[N_COLUMNS] = {
    [ID] = COLUMN(PF_INT64, 0, 8, 0, PRICE, -1),
    [PRICE] = COLUMN(PF_FLOAT64, 0, 8, 0, NAME, -1),
    [NAME] = COLUMN(PF_STRING, 0, 0, 0, OK, -1),
    [OK] = COLUMN(PF_BOOL, 0, 1, 0, SMALL, -1),
    [SMALL] = COLUMN(PF_INT8, 0, 1, 0, BIG, -1),
    [BIG] = COLUMN(PF_UINT64, PF_NULLABLE, 8, 0, RATIO, -1),
    [RATIO] = COLUMN(PF_FLOAT32, 0, 4, 0, WHEN, -1),
    [WHEN] = COLUMN(PF_DATETIME, PF_NULLABLE, 8, 0, DATA, -1),
    [DATA] = COLUMN(PF_BYTES, 0, 0, 0, RAW, -1),
    [RAW] = COLUMN(PF_RAW, 0, 0, 0, TAGS, -1),
    [TAGS] = COLUMN(PF_LIST, 0, 0, 1, INNER, -1),
    [TAG] = COLUMN(PF_STRING, 0, 0, 0, INNER, TAGS),
    [INNER] = COLUMN(PF_STRUCT, PF_NULLABLE, 0, 2, ITEMS, -1),
    [INNER_X] = COLUMN(PF_INT64, PF_NULLABLE_ABOVE, 8, 0, INNER_Y, -1),
    [INNER_Y] = COLUMN(PF_STRING, PF_NULLABLE, 0, 0, ITEMS, -1),
    [ITEMS] = COLUMN(PF_LIST, PF_NULLABLE, 0, 1, N_COLUMNS, -1),
    [ITEM] = COLUMN(PF_STRUCT, 0, 0, 2, N_COLUMNS, ITEMS),
    [ITEM_SKU] = COLUMN(PF_STRING, 0, 0, 0, ITEM_COUNTS, ITEMS),
    [ITEM_COUNTS] = COLUMN(PF_LIST, 0, 0, 1, N_COLUMNS, ITEMS),
    [ITEM_COUNT] = COLUMN(PF_INT32, PF_NULLABLE, 4, 0, N_COLUMNS, ITEM_COUNTS),
};

static const pf_bounds fuzz_bounds[N_COLUMNS] = {
    [SMALL] = {.which = PF_BOUND_GE | PF_BOUND_LT, .ge.i = -5, .lt.i = 100},
    [RATIO] = {.which = PF_BOUND_LE, .is_float = 1, .le.f = 1e30},
    [INNER_Y] = {.which = PF_BOUND_MAX_LENGTH, .max_length = 5},
    [TAGS] = {.which = PF_BOUND_MAX_LENGTH, .max_length = 6},
};

#define FIELD(name_, column_, ...) {.name = name_, .name_size = sizeof name_ - 1, .column = column_, __VA_ARGS__}

static const pf_field fuzz_row_fields[] = {
    FIELD("id", ID, .fallback = PF_DEFAULT_REQUIRED),
    FIELD("price", PRICE, .fallback = PF_DEFAULT_BITS, .bits = 0x3FF0000000000000u),
    FIELD("name", NAME, .fallback = PF_DEFAULT_BYTES, .bytes = (const uint8_t *)"none", .size = 4),
    FIELD("ok", OK, .fallback = PF_DEFAULT_BITS, .bits = 1),
    FIELD("small", SMALL, .fallback = PF_DEFAULT_BITS, .bits = 7),
    FIELD("big", BIG, .fallback = PF_DEFAULT_NULL),
    FIELD("ratio", RATIO, .fallback = PF_DEFAULT_BITS),
    FIELD("when", WHEN, .fallback = PF_DEFAULT_NULL),
    FIELD("data", DATA, .fallback = PF_DEFAULT_BYTES, .bytes = (const uint8_t *)"", .size = 0),
    FIELD("raw", RAW, .fallback = PF_DEFAULT_BYTES, .bytes = (const uint8_t *)"1", .size = 1),
    FIELD("tags", TAGS, .fallback = PF_DEFAULT_EMPTY),
    FIELD("inner", INNER, .fallback = PF_DEFAULT_NULL),
    FIELD("items", ITEMS, .fallback = PF_DEFAULT_NULL),
};

static const pf_field fuzz_inner_fields[] = {
    FIELD("x", INNER_X, .fallback = PF_DEFAULT_REQUIRED),
    FIELD("a name that is longer than one block is", INNER_Y, .fallback = PF_DEFAULT_NULL),
};

static const pf_field fuzz_item_fields[] = {
    FIELD("sku", ITEM_SKU, .fallback = PF_DEFAULT_REQUIRED),
    FIELD("counts", ITEM_COUNTS, .fallback = PF_DEFAULT_EMPTY),
};

#define COUNT(array) (uint32_t)(sizeof array / sizeof *array)

static const pf_struct fuzz_structs[] = {
    {.fields = fuzz_row_fields, .n_fields = COUNT(fuzz_row_fields), .tag_field = "type", .tag_field_size = 4,
     .tag = "order", .tag_size = 5},
    {.fields = fuzz_inner_fields, .n_fields = COUNT(fuzz_inner_fields), .forbid_unknown = 1},
    {.fields = fuzz_item_fields, .n_fields = COUNT(fuzz_item_fields), .tag_field = "k", .tag_field_size = 1,
     .tag_number = -3},
};

static const int32_t fuzz_struct_of[N_COLUMNS] = {
    -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 1, -1, -1, -1, 2, -1, -1, -1,
};

static const pf_plan fuzz_plan = {
    .columns = fuzz_columns, .bounds = fuzz_bounds, .struct_of = fuzz_struct_of, .n_columns = N_COLUMNS,
    .structs = fuzz_structs, .n_structs = COUNT(fuzz_structs),
};

typedef struct {
    pf_columns batch;
    pf_column columns[N_COLUMNS];
} fuzz_batch;

static void fuzz_check_value(const pf_columns *batch, uint32_t column, uint64_t i);

/* Give `size` bytes at the end of the batch's memory to one buffer, with poison after them, so that
 * AddressSanitizer sees a write past any buffer. */
static uint64_t fuzz_place(fuzz_batch *made, uint64_t *used, uint64_t size) {
    uint64_t at = (*used + 63) & ~63ull;
    *used = at + size + 64;
    if (made->batch.base) ASAN_UNPOISON_MEMORY_REGION(made->batch.base + at, size);
    return at;
}

static uint64_t fuzz_place_columns(fuzz_batch *made, uint32_t bytes) {
    uint64_t used = 64;
    for (uint32_t c = 0; c < N_COLUMNS; c++) {
        pf_column *node = &made->columns[c];
        *node = fuzz_columns[c];
        node->capacity = node->list < 0 ? made->batch.capacity : bytes;
        int text = node->kind == PF_STRING || node->kind == PF_BYTES || node->kind == PF_RAW;
        if (text || node->kind == PF_LIST) node->offsets = fuzz_place(made, &used, 4 * (node->capacity + 1));
        node->data_bytes = text ? bytes : node->capacity * node->width;
        if (node->data_bytes) node->data = fuzz_place(made, &used, node->data_bytes);
        if (node->nullable) node->validity = fuzz_place(made, &used, (node->capacity + 7) / 8);
    }
    return used;
}

/* A batch of `capacity` rows and `bytes` bytes a column of text (and as many values a list). */
static fuzz_batch *fuzz_batch_new(uint32_t capacity, uint32_t bytes) {
    fuzz_batch *made = calloc(1, sizeof *made);
    MUST(made);
    made->batch.columns = made->columns;
    made->batch.n_columns = N_COLUMNS;
    made->batch.capacity = capacity;
    uint64_t size = fuzz_place_columns(made, bytes);
    made->batch.base = calloc(1, size);
    MUST(made->batch.base);
    ASAN_POISON_MEMORY_REGION(made->batch.base, size);
    fuzz_place_columns(made, bytes);
    pf_columns_reset(&made->batch);
    return made;
}

static int fuzz_is_valid(const pf_columns *batch, uint32_t column, uint64_t i) {
    const pf_column *node = &batch->columns[column];
    return !node->nullable || ((batch->base + node->validity)[i / 8] >> (i % 8) & 1);
}

/* The columns from begin to end that are side by side: the fields of a Struct, or of the row. */
static void fuzz_check_fields(const pf_columns *batch, uint32_t begin, uint32_t end, uint64_t i) {
    for (uint32_t c = begin; c < end; c = batch->columns[c].end) fuzz_check_value(batch, c, i);
}

static void fuzz_check_value(const pf_columns *batch, uint32_t column, uint64_t i) {
    const pf_column *node = &batch->columns[column];
    MUST(i < node->capacity);
    if (node->kind == PF_BOOL) MUST((batch->base + node->data)[i] <= 1);
    if (node->offsets) {
        const int32_t *offsets = pf_column_offsets(batch, column);
        MUST(offsets[0] == 0 && offsets[i] >= 0 && offsets[i] <= offsets[i + 1]);
        if (!fuzz_is_valid(batch, column, i)) MUST(offsets[i] == offsets[i + 1]);
        if (node->kind == PF_LIST) {
            for (int32_t k = offsets[i]; k < offsets[i + 1]; k++) fuzz_check_value(batch, column + 1, (uint64_t)k);
            return;
        }
        MUST((uint64_t)offsets[i + 1] <= node->data_bytes);
        const uint8_t *text = batch->base + node->data + offsets[i];
        size_t size = (size_t)(offsets[i + 1] - offsets[i]);
        if (node->kind == PF_STRING && size) MUST(pf_utf8_valid_prefix(text, size) == size);
    }
    if (node->kind == PF_STRUCT) fuzz_check_fields(batch, column + 1, node->end, i);
}

static void fuzz_same_value(const pf_columns *a, const pf_columns *b, uint32_t column, uint64_t i, uint64_t j) {
    const pf_column *left = &a->columns[column], *right = &b->columns[column];
    MUST(fuzz_is_valid(a, column, i) == fuzz_is_valid(b, column, j));
    if (left->width)
        MUST(memcmp(a->base + left->data + i * left->width, b->base + right->data + j * right->width, left->width) == 0);
    if (left->offsets) {
        const int32_t *x = pf_column_offsets(a, column) + i, *y = pf_column_offsets(b, column) + j;
        int32_t size = x[1] - x[0];
        MUST(size == y[1] - y[0]);
        if (left->kind == PF_LIST) {
            for (int32_t k = 0; k < size; k++) fuzz_same_value(a, b, column + 1, (uint64_t)(x[0] + k), (uint64_t)(y[0] + k));
            return;
        }
        if (size) MUST(memcmp(a->base + left->data + x[0], b->base + right->data + y[0], (size_t)size) == 0);
    }
    if (left->kind == PF_STRUCT)
        for (uint32_t c = column + 1; c < left->end; c = a->columns[c].end) fuzz_same_value(a, b, c, i, j);
}

/* Decode one payload that lies in an allocation of just its size; check the row or the refusal. */
static int fuzz_decode(pf_decoder *decoder, fuzz_batch *into, const uint8_t *payload, size_t size, pf_refusal *why) {
    uint32_t rows = into->batch.rows;
    int outcome = decoder->decode(decoder, &into->batch, payload, size, why);
    MUST(into->batch.rows == rows + (outcome == PF_DECODED));
    if (outcome == PF_DECODED) {
        fuzz_check_fields(&into->batch, 0, N_COLUMNS, rows);
    } else if (outcome == PF_REFUSED) {
        MUST(why->reason != PF_REASON_NONE && why->at <= size && why->column < N_COLUMNS);
    } else {
        MUST(outcome == PF_FULL);
    }
    return outcome;
}

#endif
