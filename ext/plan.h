/* A msgspec.Struct compiled for the decoders: which key goes to which column, and what each column
 * asks of its value.  Built once by plan.pyx from schema.py's description; read-only afterwards. */
#ifndef PYTHIA_PLAN_H
#define PYTHIA_PLAN_H

#include "column.h"

enum {
    PF_DEFAULT_REQUIRED = 0, /* a missing key refuses the row */
    PF_DEFAULT_NULL = 1,     /* None */
    PF_DEFAULT_BITS = 2,     /* `bits`, the value as stored (bool, ints, floats, datetime) */
    PF_DEFAULT_BYTES = 3,    /* `bytes`, `size`: string, bytes, raw */
    PF_DEFAULT_EMPTY = 4,    /* empty list */
    PF_DEFAULT_STRUCT = 5,   /* nested Struct, every field of it at its own default */
};

/* Bounds from msgspec.Meta; a bit of `which` says which of them apply. */
enum {
    PF_BOUND_GE = 1,
    PF_BOUND_GT = 2,
    PF_BOUND_LE = 4,
    PF_BOUND_LT = 8,
    PF_BOUND_MULTIPLE_OF = 16,
    PF_BOUND_MIN_LENGTH = 32, /* code points of a string, bytes of bytes, values of a list */
    PF_BOUND_MAX_LENGTH = 64,
    PF_BOUND_TZ_AWARE = 128,  /* datetime must carry an offset */
    PF_BOUND_TZ_NAIVE = 256,  /* datetime must not */
};

typedef union {
    int64_t i;
    double f;
} pf_bound_value;

typedef struct {
    uint32_t which;
    uint8_t is_float;         /* bounds below are doubles (float fields), else int64 */
    pf_bound_value ge, gt, le, lt, multiple_of;
    uint64_t min_length, max_length;
} pf_bounds;

typedef struct {
    const char *name;         /* the key as it stands in the payload, UTF-8 (renames applied) */
    uint32_t name_size;
    uint32_t column;          /* index into columns */
    uint8_t fallback;         /* PF_DEFAULT_... */
    uint64_t bits;
    const uint8_t *bytes;
    uint32_t size;
} pf_field;

/* One Struct.  The row itself is structs[0]; a nested Struct is found through struct_of[column]. */
typedef struct {
    const pf_field *fields;   /* n_fields, in the order of the Struct, which is also column order */
    uint32_t n_fields;        /* at most 1024 */
    uint8_t forbid_unknown;
    const char *tag_field;    /* NULL when the Struct has no tag */
    uint32_t tag_field_size;
    const char *tag;          /* expected value; NULL when the tag is an integer */
    uint32_t tag_size;
    int64_t tag_number;
} pf_struct;

typedef struct {
    const pf_column *columns; /* n_columns, depth first; the row's own Struct has no node */
    const pf_bounds *bounds;  /* n_columns, parallel to columns */
    const int32_t *struct_of; /* n_columns: index into structs for PF_STRUCT nodes, else -1 */
    uint32_t n_columns;
    const pf_struct *structs;
    uint32_t n_structs;
} pf_plan;

#endif
