/* Which of an entry's fields become what: payload, key, headers.
 *
 *     entry 1526919030474-55: data=..., trace=...
 *       payload = the field that was named; else `data`, else `body`, else the only one
 *       key     = the field that was named; else none
 *       headers = redis-id=1526919030474-55, then all fields that are neither
 *
 * With columns the fields are the message: the payload is a JSON object made of them, in which fields of the schema that
 * are numbers stand bare and all others as strings.  The handler's JSON decoder makes columns of it, so there is one way
 * in which text becomes a number, one set of refusals, and a dead letter that a person can read.  Only what is written
 * like a number (or true, false) stands bare: anything else stays a string, which the decoder then refuses for a column
 * of numbers, by name. */
#ifndef PYTHIA_REDIS_FIELDS_H
#define PYTHIA_REDIS_FIELDS_H

#include "resp.h"
#include "source.h"

enum { PF_REDIS_NUMBER, PF_REDIS_BOOL };

typedef struct {
    uint8_t *name;
    size_t size;
    uint32_t kind;
} pf_redis_column;

typedef struct {
    /* Names; NULL: not given. */
    uint8_t *payload;
    size_t payload_size;
    uint8_t *key;
    size_t key_size;
    uint32_t as_columns;
    pf_redis_column *columns; /* those that are no strings */
    uint32_t n_columns;
    /* Scratch. */
    uint8_t *headers, *json;
    size_t headers_room, json_room;
} pf_redis_fields;

/* Fill payload, key and headers of `to`; what it points to is the entry's, or valid until the next call.  0: no memory. */
int pf_redis_fields_map(pf_redis_fields *self, const pf_resp_event *entry, pf_incoming *to);

void pf_redis_fields_free(pf_redis_fields *self);

#endif
