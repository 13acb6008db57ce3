/* The keys of a Struct in MessagePack, found by expectation: after key f the key is tried that followed f in the
 * message before, and only then the hash table is asked.  Unknown keys take part in this: the first PF_MSGPACK_POOL
 * short ones are learned by name.
 */
#ifndef PYTHIA_MSGPACK_KEYS_H
#define PYTHIA_MSGPACK_KEYS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "plan.h"

enum {
    PF_MSGPACK_POOL = 64, /* unknown keys of at most 16 bytes that one Struct remembers */
    PF_MSGPACK_NO_KEY = 0xFFFF,
};

/* A key's size and its first and last eight bytes (for a shorter one the bytes it has, then zeros): with these
 * most keys are told apart without a call. */
typedef struct {
    uint64_t head;
    uint64_t tail;
    uint64_t size;
} pf_msgpack_name;

/* A key of at most 15 bytes as it stands in a payload, length and all, so that the expected one is recognised in
 * one comparison.  A mask of 0 and a size of 0: too long. */
typedef struct {
    uint64_t words[2];
    uint64_t masks[2];
    uint64_t size;
} pf_msgpack_literal;

/* One Struct's keys: its fields in their order, then the unknown ones learned so far. */
typedef struct {
    pf_msgpack_name *names; /* n_fields + PF_MSGPACK_POOL */
    pf_msgpack_literal *literals; /* as many */
    uint16_t *next;      /* n_fields + PF_MSGPACK_POOL + 1: the key that came after key k last; the last entry: first of all */
    uint16_t *table;     /* hash -> key, PF_MSGPACK_NO_KEY where free; linear probing, at most half full */
    uint32_t table_mask;
    uint32_t n_names;    /* fields and learned keys */
} pf_msgpack_keys;

/* The name of `size` bytes; reads no byte at or behind `end`. */
static inline pf_msgpack_name pf_msgpack_name_of(const uint8_t *name, uint64_t size, const uint8_t *end) {
    pf_msgpack_name ends = {.size = size};
    if (size >= 8) {
        memcpy(&ends.head, name, 8);
        memcpy(&ends.tail, name + size - 8, 8);
    } else if (end - name >= 8) {
        memcpy(&ends.head, name, 8);
        ends.head &= (1ull << (8 * size)) - 1;
    } else {
        for (uint64_t i = 0; i < size; i++) ends.head |= (uint64_t)name[i] << (8 * i);
    }
    return ends;
}

static inline uint32_t pf_msgpack_hash(pf_msgpack_name name) {
    uint64_t mixed = (name.head ^ (name.tail << 23 | name.tail >> 41) ^ name.size) * 0x9E3779B97F4A7C15ull;
    return (uint32_t)(mixed >> 32);
}

static void pf_msgpack_set_literal(pf_msgpack_literal *literal, const uint8_t *text, uint64_t size) {
    uint8_t bytes[16] = {0}, mask[16] = {0};
    memset(literal, 0, sizeof *literal);
    if (size > 15) return;
    bytes[0] = (uint8_t)(0xA0 | size);
    memcpy(bytes + 1, text, size);
    memset(mask, 0xFF, size + 1);
    memcpy(literal->words, bytes, 16);
    memcpy(literal->masks, mask, 16);
    literal->size = size + 1;
}

/* Whether the 16 bytes at `at` begin with the literal. */
static inline int pf_msgpack_is_literal(const pf_msgpack_literal *literal, const uint8_t *at) {
    uint64_t words[2];
    memcpy(words, at, 16);
    return literal->size && ((words[0] ^ literal->words[0]) & literal->masks[0]) == 0 &&
           ((words[1] ^ literal->words[1]) & literal->masks[1]) == 0;
}

/* Whether a key is key `known`; `text` are its bytes. Up to 16 of them stand in the name whole. */
static inline int pf_msgpack_is_key(const pf_msgpack_keys *keys, const pf_struct *spec, uint32_t known,
                                    pf_msgpack_name name, const uint8_t *text) {
    const pf_msgpack_name *own = &keys->names[known];
    if (own->size != name.size || own->head != name.head || own->tail != name.tail) return 0;
    return name.size <= 16 || memcmp(spec->fields[known].name, text, name.size) == 0;
}

/* The key of that name, learned now if it can be; PF_MSGPACK_NO_KEY when it cannot. */
static uint32_t pf_msgpack_find(pf_msgpack_keys *keys, const pf_struct *spec, pf_msgpack_name name, const uint8_t *text) {
    uint32_t slot = pf_msgpack_hash(name) & keys->table_mask;
    for (; keys->table[slot] != PF_MSGPACK_NO_KEY; slot = (slot + 1) & keys->table_mask)
        if (pf_msgpack_is_key(keys, spec, keys->table[slot], name, text)) return keys->table[slot];
    if (name.size > 16 || keys->n_names == spec->n_fields + PF_MSGPACK_POOL) return PF_MSGPACK_NO_KEY;
    keys->names[keys->n_names] = name;
    pf_msgpack_set_literal(&keys->literals[keys->n_names], text, name.size);
    keys->next[keys->n_names] = PF_MSGPACK_NO_KEY;
    keys->table[slot] = (uint16_t)keys->n_names;
    return keys->n_names++;
}

static void pf_msgpack_keys_free(pf_msgpack_keys *keys) {
    free(keys->names);
    free(keys->literals);
    free(keys->next);
    free(keys->table);
}

/* The fields in their own order, until messages say otherwise; 0 when there is no memory (what there is, is freed by
 * pf_msgpack_keys_free). */
static int pf_msgpack_keys_init(pf_msgpack_keys *keys, const pf_struct *spec) {
    uint32_t slots = 4;
    while (slots < 2 * (spec->n_fields + PF_MSGPACK_POOL)) slots *= 2;
    keys->table_mask = slots - 1;
    keys->table = malloc(slots * sizeof *keys->table);
    keys->next = malloc((spec->n_fields + PF_MSGPACK_POOL + 1) * sizeof *keys->next);
    keys->names = malloc((spec->n_fields + PF_MSGPACK_POOL) * sizeof *keys->names);
    keys->literals = malloc((spec->n_fields + PF_MSGPACK_POOL) * sizeof *keys->literals);
    if (!keys->names || !keys->literals || !keys->next || !keys->table) return 0;
    for (uint32_t slot = 0; slot < slots; slot++) keys->table[slot] = PF_MSGPACK_NO_KEY;
    for (uint32_t field = 0; field < spec->n_fields; field++) {
        const pf_field *entry = &spec->fields[field];
        const uint8_t *text = (const uint8_t *)entry->name;
        keys->names[field] = pf_msgpack_name_of(text, entry->name_size, text + entry->name_size);
        pf_msgpack_set_literal(&keys->literals[field], text, entry->name_size);
        uint32_t slot = pf_msgpack_hash(keys->names[field]) & keys->table_mask;
        while (keys->table[slot] != PF_MSGPACK_NO_KEY) slot = (slot + 1) & keys->table_mask;
        keys->table[slot] = (uint16_t)field;
        keys->next[field] = field + 1 < spec->n_fields ? (uint16_t)(field + 1) : PF_MSGPACK_NO_KEY;
    }
    keys->next[spec->n_fields + PF_MSGPACK_POOL] = spec->n_fields ? 0 : PF_MSGPACK_NO_KEY;
    keys->n_names = spec->n_fields;
    return 1;
}

#endif
