/* Payloads that begin with the number of their schema in a registry: which schemas a decoder knows, and where the payload
 * goes on. */
#ifndef PYTHIA_REGISTRY_FRAME_H
#define PYTHIA_REGISTRY_FRAME_H

#include "decoder.h"

/* A zero, and the number of the schema, big-endian
 * (https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/, "Wire format"). */
enum { PF_REGISTRY_FRAME = 5 };

/* A schema of the registry: what reads that which was written with it, NULL where nothing does. */
typedef struct {
    uint32_t id;
    const void *reader;
} pf_registered;

typedef struct {
    const pf_registered *known; /* in the order of their ids */
    uint32_t n_known;
    uint32_t asked; /* the id for which PF_UNKNOWN was the answer */
} pf_registry;

/* The schema of this number; NULL: it was never asked for. */
static inline const pf_registered *pf_registry_find(const pf_registry *registry, uint32_t id) {
    uint32_t low = 0, high = registry->n_known;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (registry->known[middle].id == id) return &registry->known[middle];
        if (registry->known[middle].id < id) low = middle + 1;
        else high = middle;
    }
    return NULL;
}

/* What reads this payload: PF_DECODED, with *reader set; PF_REFUSED, with *why; PF_UNKNOWN, with registry->asked. */
static inline int pf_registry_reader(pf_registry *registry, const uint8_t *payload, size_t size, const void **reader,
                                     pf_refusal *why) {
    if (size < PF_REGISTRY_FRAME || payload[0] != 0) {
        *why = (pf_refusal){.reason = size ? PF_REASON_FRAME : PF_REASON_EMPTY, .column = -1};
        return PF_REFUSED;
    }
    uint32_t id = (uint32_t)payload[1] << 24 | (uint32_t)payload[2] << 16 | (uint32_t)payload[3] << 8 | payload[4];
    const pf_registered *found = pf_registry_find(registry, id);
    if (found == NULL) {
        registry->asked = id;
        return PF_UNKNOWN;
    }
    if (found->reader == NULL) {
        *why = (pf_refusal){.reason = PF_REASON_WRITER_SCHEMA, .column = -1, .at = id};
        return PF_REFUSED;
    }
    *reader = found->reader;
    return PF_DECODED;
}

#endif
