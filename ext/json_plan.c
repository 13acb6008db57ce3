/* Building a pf_json from a plan. */
#include <stdlib.h>

#include "json_decoder.h"

static uint8_t action_of(const pf_plan *plan, uint32_t column) {
    const pf_column *node = &plan->columns[column];
    if (node->nullable || plan->bounds[column].which) return PF_JSON_VALUE;
    switch (node->kind) {
    case PF_INT64: return PF_JSON_INT64;
    case PF_FLOAT64: return PF_JSON_FLOAT64;
    case PF_STRING: return PF_JSON_STRING;
    case PF_BOOL: return PF_JSON_BOOL;
    default: return PF_JSON_VALUE;
    }
}

static void set_bit(pf_json_key *key, uint32_t bit) {
    key->seen_word = (uint16_t)(bit / 64);
    key->seen_bit = 1ull << (bit % 64);
}

/* Control characters: whatever equals this literal is no JSON. */
static void set_no_literal(pf_json_key *key) {
    memset(key->literal, 1, PF_JSON_LITERAL);
    key->mask = UINT32_MAX;
}

static void set_literal(pf_json_key *key, const uint8_t *name, size_t size) {
    set_no_literal(key);
    key->literal_size = 0;
    if (size + 3 > PF_JSON_LITERAL) return;
    for (size_t i = 0; i < size; i++)
        if (name[i] < 0x20 || name[i] == '"' || name[i] == '\\') return;
    memset(key->literal, 0, PF_JSON_LITERAL);
    key->literal[0] = '"';
    memcpy(key->literal + 1, name, size);
    key->literal[size + 1] = '"';
    key->literal[size + 2] = ':';
    key->literal_size = (uint8_t)(size + 3);
    key->mask = (uint32_t)((1ull << key->literal_size) - 1);
}

static void set_name(pf_json_key *key, const char *name, uint32_t size) {
    key->name = name;
    key->name_size = size;
    key->short_size = size <= 16 ? size : UINT32_MAX;
    pf_json_name_ends((const uint8_t *)name, size, &key->first, &key->last);
    set_literal(key, (const uint8_t *)name, size);
}

/* The key that stands where none was learned: should a payload match it, it is refused. */
static void set_never(pf_json_key *key) {
    set_no_literal(key);
    key->literal_size = PF_JSON_LITERAL;
    key->short_size = UINT32_MAX;
    key->action = PF_JSON_NEVER;
}

static uint32_t fill_table(pf_json_struct *target) {
    uint32_t collisions = 0;
    for (uint32_t at = 0; at <= target->table_mask; at++) target->table[at] = (uint16_t)target->n_keys;
    for (uint32_t k = 0; k < target->n_keys; k++) {
        const pf_json_key *key = &target->keys[k];
        uint64_t at = pf_json_hash(key->first, key->last, key->name_size, target->multiplier) >> target->shift;
        while (target->table[at] != target->n_keys) {
            at = (at + 1) & target->table_mask;
            collisions++;
        }
        target->table[at] = (uint16_t)k;
    }
    return collisions;
}

/* Try a few odd multipliers and keep the one with the fewest collisions. */
static void choose_multiplier(pf_json_struct *target) {
    uint64_t candidate = 0xD6E8FEB86659FD93ull, best = candidate;
    uint32_t fewest = UINT32_MAX;
    for (int attempt = 0; attempt < 128 && fewest > 0; attempt++) {
        target->multiplier = candidate;
        uint32_t collisions = fill_table(target);
        if (collisions < fewest) {
            fewest = collisions;
            best = candidate;
        }
        candidate = (candidate * 6364136223846793005ull + 1442695040888963407ull) | 1;
    }
    target->multiplier = best;
    fill_table(target);
}

static unsigned reading_of(const pf_json_key *key) {
    switch (key->action) {
    case PF_JSON_INT64: return PF_JSON_READ_INT64;
    case PF_JSON_FLOAT64: return PF_JSON_READ_FLOAT64;
    case PF_JSON_STRING: return PF_JSON_READ_STRING;
    default: return PF_JSON_READ_OTHER;
    }
}

static void sort_readings(pf_json_struct *target) {
    uint32_t n = 0;
    for (unsigned kind = 0; kind < PF_JSON_READ_KINDS; kind++) {
        for (uint32_t k = 0; k < target->n_keys; k++)
            if (reading_of(&target->keys[k]) == kind)
                target->readings[n++] = (pf_json_reading){k, target->keys[k].column_at};
        target->readings_end[kind] = n;
    }
}

static int build_struct(const pf_plan *plan, const pf_struct *source, pf_json_struct *target) {
    target->plan = source;
    target->n_keys = source->n_fields + (source->tag_field != NULL);
    target->keys = aligned_alloc(32, (target->n_keys + 1) * sizeof *target->keys);
    uint32_t bits = 3;
    /* So roomy where json_scatter.h may ask that keys without collisions are found in a few tries. */
    while ((1u << bits) < (target->n_keys < 64 ? 16 : 4) * target->n_keys) bits++;
    target->table_mask = (1u << bits) - 1;
    target->shift = 64 - bits;
    target->table = malloc((1u << bits) * sizeof *target->table);
    target->readings = malloc((target->n_keys + 1) * sizeof *target->readings);
    if (!target->keys || !target->table || !target->readings) return 0;
    memset(target->keys, 0, (target->n_keys + 1) * sizeof *target->keys);

    pf_json_key *never = &target->keys[target->n_keys]; /* the one key more than there are */
    set_never(never);
    never->next = never;
    for (uint32_t f = 0; f < source->n_fields; f++) {
        pf_json_key *key = &target->keys[f];
        set_name(key, source->fields[f].name, source->fields[f].name_size);
        key->action = action_of(plan, source->fields[f].column);
        set_bit(key, f);
        key->column = source->fields[f].column;
        key->column_at = key->column * (uint32_t)sizeof(pf_column);
        target->all[f / 64] |= 1ull << (f % 64);
    }
    if (source->tag_field) {
        pf_json_key *key = &target->keys[source->n_fields];
        set_name(key, source->tag_field, source->tag_field_size);
        key->action = PF_JSON_TAG;
        set_bit(key, source->n_fields);
    }
    target->seen_words = source->n_fields / 64 + 1;
    /* First guess: tag, then the fields in the order of the Struct.  Only keys with a literal are ever expected. */
    pf_json_key *previous = &target->head;
    target->head.next = never;
    for (uint32_t k = 0; k < target->n_keys; k++) {
        pf_json_key *key = &target->keys[source->tag_field ? (k + source->n_fields) % target->n_keys : k];
        key->next = never;
        if (key->literal_size) {
            previous->next = key;
            previous = key;
        }
    }
    target->unknown.action = PF_JSON_SKIP;
    set_bit(&target->unknown, source->n_fields);
    target->unknown.next = never;
    choose_multiplier(target);
    sort_readings(target);
    return 1;
}

pf_json *pf_json_new(const pf_plan *plan, pf_json_decode decode) {
    pf_json *json = calloc(1, sizeof *json);
    if (!json) return NULL;
    json->decoder.decode = decode;
    json->plan = plan;
    json->structs = aligned_alloc(32, plan->n_structs * sizeof *json->structs);
    if (json->structs) {
        memset(json->structs, 0, plan->n_structs * sizeof *json->structs);
        uint32_t built = 0;
        while (built < plan->n_structs && build_struct(plan, &plan->structs[built], &json->structs[built])) built++;
        if (built == plan->n_structs) return json;
    }
    pf_json_free(json);
    return NULL;
}

void pf_json_free(pf_json *json) {
    if (!json) return;
    for (uint32_t s = 0; json->structs && s < json->plan->n_structs; s++) {
        free(json->structs[s].keys);
        free(json->structs[s].table);
        free(json->structs[s].readings);
    }
    free(json->structs);
    free(json);
}

pf_json_key *pf_json_learn_unknown(pf_json_struct *target, const uint8_t *name, size_t size, uint64_t hash) {
    uint32_t at = (uint32_t)(hash >> 40);
    pf_json_key *free_key = &target->pool[at % PF_JSON_POOL];
    for (uint32_t probe = 0; probe < PF_JSON_POOL_PROBES; probe++) {
        pf_json_key *key = &target->pool[(at + probe) % PF_JSON_POOL];
        if (key->literal_size == 0) {
            free_key = key;
            break;
        }
        if (key->name_size == size && memcmp(key->literal + 1, name, size) == 0) return key;
    }
    set_literal(free_key, name, size); /* never without one: the caller looked at the size, and the name is unescaped */
    free_key->name = (const char *)free_key->literal + 1;
    free_key->name_size = (uint32_t)size;
    free_key->action = PF_JSON_SKIP;
    free_key->seen_word = target->unknown.seen_word;
    free_key->seen_bit = target->unknown.seen_bit;
    free_key->next = &target->keys[target->n_keys];
    return free_key;
}

pf_json_decode pf_json_kernel(const char *simd) {
    if (strcmp(simd, "scalar") == 0) return pf_json_decode_scalar;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (strcmp(simd, "avx2") == 0 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
        __builtin_cpu_supports("bmi2"))
        return pf_json_decode_avx2;
#endif
    return NULL;
}
