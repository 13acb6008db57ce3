/* Storing one decoded value: room, range, msgspec.Meta bounds, validity, defaults.
 *
 * `i` is the row for a column at row level, and the index into the list's values below a list.  A
 * column keeps no fill count of its own: where value i of a string or list begins is offsets[i], which
 * the value before it wrote.  So a value may be stored twice (duplicate key: last wins) and a half
 * written row costs nothing to drop.
 *
 * Every function returns PF_STORED, PF_NO_ROOM, or the PF_REASON_... for which the row is refused.
 * A decoder checks `rows < capacity` once a row and pf_list_has_room once a list value; nothing else
 * of fixed width needs a check.
 */
#ifndef PYTHIA_FIELD_STORE_H
#define PYTHIA_FIELD_STORE_H

#include <math.h>

#include "decoder.h"
#include "plan.h"
#include "utf8.h"

enum {
    PF_STORED = 0,
    PF_NO_ROOM = 255, /* no PF_REASON_... is that high */
};

static inline void pf_mark_valid(const pf_columns *batch, uint32_t column, uint64_t i) {
    if (batch->columns[column].nullable) pf_set_validity(batch, column, i, 1);
}

static inline int pf_has_offsets(uint8_t kind) {
    return kind == PF_STRING || kind == PF_BYTES || kind == PF_RAW || kind == PF_LIST;
}

/* ---- numbers ------------------------------------------------------------------------------- */

static inline int pf_int_within(const pf_bounds *bounds, int64_t value) {
    if (bounds->which == 0) return 1;
    if ((bounds->which & PF_BOUND_GE) && value < bounds->ge.i) return 0;
    if ((bounds->which & PF_BOUND_GT) && value <= bounds->gt.i) return 0;
    if ((bounds->which & PF_BOUND_LE) && value > bounds->le.i) return 0;
    if ((bounds->which & PF_BOUND_LT) && value >= bounds->lt.i) return 0;
    /* x % -1 overflows for the smallest int64; every integer is a multiple of 1 and of -1 anyway. */
    if ((bounds->which & PF_BOUND_MULTIPLE_OF) && bounds->multiple_of.i > 1 && value % bounds->multiple_of.i) return 0;
    return 1;
}

/* A value above INT64_MAX is above every bound that an int64 can state. */
static inline int pf_uint_within(const pf_bounds *bounds, uint64_t value) {
    if (value <= INT64_MAX) return pf_int_within(bounds, (int64_t)value);
    if (bounds->which & (PF_BOUND_LE | PF_BOUND_LT)) return 0;
    if ((bounds->which & PF_BOUND_MULTIPLE_OF) && bounds->multiple_of.i > 1 && value % (uint64_t)bounds->multiple_of.i) return 0;
    return 1;
}

/* Written so that NaN fails every bound, as it does in msgspec. */
static inline int pf_float_within(const pf_bounds *bounds, double value) {
    if (bounds->which == 0) return 1;
    if ((bounds->which & PF_BOUND_GE) && !(value >= bounds->ge.f)) return 0;
    if ((bounds->which & PF_BOUND_GT) && !(value > bounds->gt.f)) return 0;
    if ((bounds->which & PF_BOUND_LE) && !(value <= bounds->le.f)) return 0;
    if ((bounds->which & PF_BOUND_LT) && !(value < bounds->lt.f)) return 0;
    if ((bounds->which & PF_BOUND_MULTIPLE_OF) && value != 0.0 && !(fmod(value, bounds->multiple_of.f) == 0.0)) return 0;
    return 1;
}

/* Store a finite or non-finite double in a float32 or float64 column. */
static inline int pf_store_float(const pf_plan *plan, const pf_columns *batch, uint32_t column, uint64_t i, double value) {
    if (!pf_float_within(&plan->bounds[column], value)) return PF_REASON_CONSTRAINT;
    if (batch->columns[column].kind == PF_FLOAT64) {
        ((double *)pf_column_data(batch, column))[i] = value;
    } else {
        float narrow = (float)value;
        if (isinf(narrow) && !isinf(value)) return PF_REASON_RANGE;
        ((float *)pf_column_data(batch, column))[i] = narrow;
    }
    pf_mark_valid(batch, column, i);
    return PF_STORED;
}

/* Store an integer in any integer or float column: PF_REASON_TYPE for a column of another kind. */
static inline int pf_store_int(const pf_plan *plan, const pf_columns *batch, uint32_t column, uint64_t i, int64_t value) {
    uint8_t kind = batch->columns[column].kind;
    void *data = pf_column_data(batch, column);
    if (kind == PF_FLOAT64 || kind == PF_FLOAT32) return pf_store_float(plan, batch, column, i, (double)value);
    if (kind < PF_INT8 || kind > PF_UINT64) return PF_REASON_TYPE;
    switch (kind) {
    case PF_INT64: ((int64_t *)data)[i] = value; break;
    case PF_INT32: ((int32_t *)data)[i] = (int32_t)value; if ((int32_t)value != value) return PF_REASON_RANGE; break;
    case PF_INT16: ((int16_t *)data)[i] = (int16_t)value; if ((int16_t)value != value) return PF_REASON_RANGE; break;
    case PF_INT8: ((int8_t *)data)[i] = (int8_t)value; if ((int8_t)value != value) return PF_REASON_RANGE; break;
    case PF_UINT64: ((uint64_t *)data)[i] = (uint64_t)value; if (value < 0) return PF_REASON_RANGE; break;
    case PF_UINT32: ((uint32_t *)data)[i] = (uint32_t)value; if ((uint32_t)value != value) return PF_REASON_RANGE; break;
    case PF_UINT16: ((uint16_t *)data)[i] = (uint16_t)value; if ((uint16_t)value != value) return PF_REASON_RANGE; break;
    case PF_UINT8: ((uint8_t *)data)[i] = (uint8_t)value; if ((uint8_t)value != value) return PF_REASON_RANGE; break;
    }
    if (!pf_int_within(&plan->bounds[column], value)) return PF_REASON_CONSTRAINT;
    pf_mark_valid(batch, column, i);
    return PF_STORED;
}

/* The same for an integer that may lie above INT64_MAX. */
static inline int pf_store_uint(const pf_plan *plan, const pf_columns *batch, uint32_t column, uint64_t i, uint64_t value) {
    uint8_t kind = batch->columns[column].kind;
    if (value <= INT64_MAX) return pf_store_int(plan, batch, column, i, (int64_t)value);
    if (kind == PF_FLOAT64 || kind == PF_FLOAT32) return pf_store_float(plan, batch, column, i, (double)value);
    if (kind < PF_INT8 || kind > PF_UINT64) return PF_REASON_TYPE;
    if (kind != PF_UINT64) return PF_REASON_RANGE;
    if (!pf_uint_within(&plan->bounds[column], value)) return PF_REASON_CONSTRAINT;
    ((uint64_t *)pf_column_data(batch, column))[i] = value;
    pf_mark_valid(batch, column, i);
    return PF_STORED;
}

static inline int pf_store_bool(const pf_columns *batch, uint32_t column, uint64_t i, int value) {
    if (batch->columns[column].kind != PF_BOOL) return PF_REASON_TYPE;
    ((uint8_t *)pf_column_data(batch, column))[i] = value != 0;
    pf_mark_valid(batch, column, i);
    return PF_STORED;
}

/* `aware`: the text carried an offset. */
static inline int pf_store_datetime(const pf_plan *plan, const pf_columns *batch, uint32_t column, uint64_t i,
                                    int64_t micros, int aware) {
    uint32_t which = plan->bounds[column].which;
    if (((which & PF_BOUND_TZ_AWARE) && !aware) || ((which & PF_BOUND_TZ_NAIVE) && aware)) return PF_REASON_CONSTRAINT;
    ((int64_t *)pf_column_data(batch, column))[i] = micros;
    pf_mark_valid(batch, column, i);
    return PF_STORED;
}

/* ---- strings, bytes, raw ------------------------------------------------------------------- */

/* Where value i begins, and how many bytes fit there. */
static inline uint8_t *pf_text_space(const pf_columns *batch, uint32_t column, uint64_t i, uint64_t *room) {
    const pf_column *node = &batch->columns[column];
    uint64_t begin = (uint64_t)pf_column_offsets(batch, column)[i];
    uint64_t limit = node->data_bytes < INT32_MAX ? node->data_bytes : INT32_MAX;
    *room = limit > begin ? limit - begin : 0;
    return (uint8_t *)pf_column_data(batch, column) + begin;
}

static inline int pf_length_within(const pf_bounds *bounds, uint64_t length) {
    if ((bounds->which & PF_BOUND_MIN_LENGTH) && length < bounds->min_length) return 0;
    if ((bounds->which & PF_BOUND_MAX_LENGTH) && length > bounds->max_length) return 0;
    return 1;
}

/* End value i, of which `size` bytes stand at pf_text_space (valid UTF-8 for a string). */
static inline int pf_text_close(const pf_plan *plan, const pf_columns *batch, uint32_t column, uint64_t i, uint64_t size) {
    const pf_bounds *bounds = &plan->bounds[column];
    int32_t *offsets = pf_column_offsets(batch, column);
    if (bounds->which & (PF_BOUND_MIN_LENGTH | PF_BOUND_MAX_LENGTH)) {
        const uint8_t *text = (const uint8_t *)pf_column_data(batch, column) + offsets[i];
        uint64_t length = batch->columns[column].kind == PF_STRING ? pf_utf8_length(text, size) : size;
        if (!pf_length_within(bounds, length)) return PF_REASON_CONSTRAINT;
    }
    offsets[i + 1] = offsets[i] + (int32_t)size;
    pf_mark_valid(batch, column, i);
    return PF_STORED;
}

/* Copy without a call for the sizes that most strings have: two moves that may overlap. */
static inline void pf_copy(uint8_t *to, const uint8_t *from, uint64_t size) {
    if (size > 32) {
        memcpy(to, from, size);
    } else if (size >= 16) {
        memcpy(to, from, 16);
        memcpy(to + size - 16, from + size - 16, 16);
    } else if (size >= 8) {
        memcpy(to, from, 8);
        memcpy(to + size - 8, from + size - 8, 8);
    } else if (size >= 4) {
        memcpy(to, from, 4);
        memcpy(to + size - 4, from + size - 4, 4);
    } else if (size) {
        to[0] = from[0];
        to[size / 2] = from[size / 2];
        to[size - 1] = from[size - 1];
    }
}

/* Copy `size` bytes in as value i; a string must have been validated before. */
static inline int pf_store_text(const pf_plan *plan, const pf_columns *batch, uint32_t column, uint64_t i,
                                const uint8_t *text, uint64_t size) {
    uint64_t room;
    uint8_t *space = pf_text_space(batch, column, i, &room);
    if (size > room) return PF_NO_ROOM;
    pf_copy(space, text, size);
    return pf_text_close(plan, batch, column, i, size);
}

/* ---- lists and structs --------------------------------------------------------------------- */

/* Index of the first value of list i in its child column. */
static inline uint64_t pf_list_begin(const pf_columns *batch, uint32_t list, uint64_t i) {
    return (uint64_t)pf_column_offsets(batch, list)[i];
}

/* Whether value k of the list's child column may be written.  A Struct's fields hold as many values as
 * the Struct does. */
static inline int pf_list_has_room(const pf_columns *batch, uint32_t list, uint64_t k) {
    return k < batch->columns[list + 1].capacity && k < INT32_MAX;
}

/* End list i, whose values are pf_list_begin .. end. */
static inline int pf_list_close(const pf_plan *plan, const pf_columns *batch, uint32_t list, uint64_t i, uint64_t end) {
    int32_t *offsets = pf_column_offsets(batch, list);
    if (!pf_length_within(&plan->bounds[list], end - (uint64_t)offsets[i])) return PF_REASON_CONSTRAINT;
    offsets[i + 1] = (int32_t)end;
    pf_mark_valid(batch, list, i);
    return PF_STORED;
}

/* ---- null and defaults --------------------------------------------------------------------- */

/* Store null in a nullable column: in a Struct, all of its fields become null (below a list of it there
 * are then no values).  The bytes under a null are zero, so that a batch never shows an older one's. */
static inline void pf_store_null(const pf_columns *batch, uint32_t column, uint64_t i) {
    uint32_t end = batch->columns[column].end;
    for (uint32_t c = column; c < end;) {
        const pf_column *node = &batch->columns[c];
        if (node->nullable) pf_set_validity(batch, c, i, 0);
        if (pf_has_offsets(node->kind)) {
            int32_t *offsets = pf_column_offsets(batch, c);
            offsets[i + 1] = offsets[i];
        } else if (node->width) {
            memset((uint8_t *)pf_column_data(batch, c) + i * node->width, 0, node->width);
        }
        c = node->kind == PF_LIST ? node->end : c + 1;
    }
}

/* Store what a field has when its key is absent. */
static int pf_store_default(const pf_plan *plan, const pf_columns *batch, const pf_field *field, uint64_t i) {
    uint32_t column = field->column;
    switch (field->fallback) {
    case PF_DEFAULT_NULL:
        pf_store_null(batch, column, i);
        return PF_STORED;
    case PF_DEFAULT_BITS:
        switch (batch->columns[column].width) {
        case 1: ((uint8_t *)pf_column_data(batch, column))[i] = (uint8_t)field->bits; break;
        case 2: ((uint16_t *)pf_column_data(batch, column))[i] = (uint16_t)field->bits; break;
        case 4: ((uint32_t *)pf_column_data(batch, column))[i] = (uint32_t)field->bits; break;
        default: ((uint64_t *)pf_column_data(batch, column))[i] = field->bits; break;
        }
        break;
    case PF_DEFAULT_BYTES: {
        /* Bounds are not asked of a default, as in msgspec. */
        uint64_t room;
        uint8_t *space = pf_text_space(batch, column, i, &room);
        int32_t *offsets = pf_column_offsets(batch, column);
        if (field->size > room) return PF_NO_ROOM;
        if (field->size) memcpy(space, field->bytes, field->size);
        offsets[i + 1] = offsets[i] + (int32_t)field->size;
        break;
    }
    case PF_DEFAULT_EMPTY: {
        int32_t *offsets = pf_column_offsets(batch, column);
        offsets[i + 1] = offsets[i];
        break;
    }
    case PF_DEFAULT_STRUCT: {
        const pf_struct *nested = &plan->structs[plan->struct_of[column]];
        for (uint32_t f = 0; f < nested->n_fields; f++) {
            int result = pf_store_default(plan, batch, &nested->fields[f], i);
            if (result != PF_STORED) return result;
        }
        break;
    }
    default:
        return PF_REASON_MISSING;
    }
    pf_mark_valid(batch, column, i);
    return PF_STORED;
}

#endif
