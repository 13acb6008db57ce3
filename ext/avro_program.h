/* A writer's Avro schema, resolved against the columns of a handler: what stands in a payload, one value behind the other,
 * and where each of them goes.  Built by avro_decoder.pyx from pythia_fast/avro/resolution.py; read-only afterwards. */
#ifndef PYTHIA_AVRO_PROGRAM_H
#define PYTHIA_AVRO_PROGRAM_H

#include "plan.h"

enum {
    PF_AVRO_NULL = 0,
    PF_AVRO_BOOLEAN = 1,
    PF_AVRO_LONG = 2, /* int, too: both are written alike */
    PF_AVRO_FLOAT = 3,
    PF_AVRO_DOUBLE = 4,
    PF_AVRO_BYTES = 5,
    PF_AVRO_STRING = 6,
    PF_AVRO_FIXED = 7,
    PF_AVRO_ENUM = 8,
    PF_AVRO_ARRAY = 9,
    PF_AVRO_MAP = 10,
    PF_AVRO_UNION = 11,
    PF_AVRO_RECORD = 12,
    PF_AVRO_TIMESTAMP = 13, /* a long that goes into a datetime column */
};

/* What becomes of a node's values. */
enum {
    PF_AVRO_STORE = 0,
    PF_AVRO_SKIP = 1,
    PF_AVRO_REFUSE = 2, /* a branch of a union that the column does not take */
};

typedef struct {
    const uint8_t *text;
    uint32_t size;
} pf_avro_symbol;

/* One node of the writer's schema.  Its children are nodes[children[first]] .. nodes[children[first + n - 1]]: the fields of
 * a record in the writer's order, the branches of a union, the one of an array or map. */
typedef struct {
    uint8_t op;
    uint8_t use;        /* PF_AVRO_STORE, _SKIP, _REFUSE */
    uint8_t found;      /* PF_FOUND_... of its values */
    uint8_t takes_none; /* its values take no bytes: null, fixed(0), a record of nothing else */
    uint8_t aware;      /* TIMESTAMP: an instant, and not a local time */
    int32_t column;     /* of a stored or refused value; -1 for the row's own record */
    int32_t record;     /* RECORD: index into plan->structs */
    uint32_t first, n;  /* children; ENUM: symbols */
    uint32_t absent, n_absent; /* RECORD: absents[absent ..]: fields of the Struct that the writer does not have */
    uint64_t size;      /* FIXED: bytes; TIMESTAMP: microseconds of one unit; ENUM that is skipped: its symbols */
} pf_avro_node;

/* nodes[0] is the record that is a row. */
typedef struct {
    const pf_avro_node *nodes;
    const uint32_t *children;
    const pf_avro_symbol *symbols;
    const uint32_t *absents; /* indices into the fields of a Struct */
} pf_avro_program;

#endif
