/* Lanes: rows of one lane are handled by one process at a time, in the order in which they came. */
#ifndef PYTHIA_LANE_H
#define PYTHIA_LANE_H

#include <stdint.h>

enum { PF_UNORDERED = 0, PF_BY_PARTITION = 1, PF_BY_KEY = 2 };

/* FNV-1a, 64 bit (http://www.isthe.com/chongo/tech/comp/fnv/): spreads short keys well enough for lanes. */
static inline uint64_t pf_key_hash(const uint8_t *key, int32_t size) {
    uint64_t hash = 0xcbf29ce484222325ull;
    for (int32_t i = 0; i < size; i++) hash = (hash ^ key[i]) * 0x100000001b3ull;
    return hash ^ (hash >> 32);
}

/* The lane of a message: of its key's hash, or of its partition where it has none or rows are ordered by partition. */
static inline uint64_t pf_lane(uint32_t ordering, const uint8_t *key, int32_t key_size, uint32_t partition) {
    return ordering == PF_BY_KEY && key_size >= 0 ? pf_key_hash(key, key_size) : partition;
}

#endif
