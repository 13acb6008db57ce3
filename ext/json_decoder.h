/* The JSON decoder: a pf_plan prepared for reading keys, and what it has learned about their order.
 *
 * For every Struct there is one pf_json_key a field, with the bytes `"name":` as they stand in compact
 * JSON.  A key remembers which key came after it the last time; so in a stream of like messages the next
 * key is found by one comparison with what is expected, and the lookup table is asked only when the
 * order changes.  Keys that the Struct does not have are learned too, into a small pool.
 *
 * Learning writes to this object only, and never changes an answer.
 */
#ifndef PYTHIA_JSON_DECODER_H
#define PYTHIA_JSON_DECODER_H

#include "decoder.h"
#include "plan.h"

#define PF_JSON_DEPTH 1024       /* arrays and objects inside one another, the row's own object included */
#define PF_JSON_LITERAL 32       /* a key with its quotes and colon that is longer is looked up each time */
#define PF_JSON_POOL 64          /* unknown keys that one Struct remembers; a power of two */
#define PF_JSON_POOL_PROBES 8
#define PF_JSON_SEEN_WORDS 17    /* 1024 fields and one bit for every key that is none */

/* What to do with the value of a key. */
enum {
    PF_JSON_NEVER = 0,   /* stands where no key was learned; its literal is in no valid JSON */
    PF_JSON_SKIP = 1,    /* unknown key: check the value, keep nothing */
    PF_JSON_TAG = 2,     /* the Struct's tag */
    PF_JSON_VALUE = 3,   /* any column: nullable, bounded, narrow, nested */
    PF_JSON_INT64 = 4,   /* columns that are just that, without bitmap and bounds */
    PF_JSON_FLOAT64 = 5,
    PF_JSON_STRING = 6,
    PF_JSON_BOOL = 7,
};

typedef struct pf_json_key pf_json_key;
struct pf_json_key {
    _Alignas(32) uint8_t literal[PF_JSON_LITERAL]; /* `"name":`, then zeros */
    pf_json_key *next;   /* the key that came after this one last */
    uint32_t mask;       /* a bit for every byte of the literal */
    uint8_t literal_size; /* 0: too long, or never written so (a quote or backslash in the name) */
    uint8_t action;      /* PF_JSON_... */
    uint16_t seen_word;  /* the key's bit in the set of keys seen; all keys that are no field share one */
    uint64_t seen_bit;
    uint32_t column;
    uint32_t column_at;  /* byte offset of the column in the array of columns */
    uint32_t name_size;
    uint32_t short_size; /* name_size, but for a name of which first and last are not all: what none has */
    const char *name;    /* of a pooled key: into its own literal */
    uint64_t first;      /* first and last eight bytes of the name, see pf_json_name_ends */
    uint64_t last;
};

/* The kinds of values that json_scatter.h reads one after the other. */
enum { PF_JSON_READ_INT64, PF_JSON_READ_FLOAT64, PF_JSON_READ_STRING, PF_JSON_READ_OTHER, PF_JSON_READ_KINDS };

typedef struct {
    uint32_t key;        /* index into keys */
    uint32_t column_at;  /* as the key's */
} pf_json_reading;

typedef struct {
    const pf_struct *plan;
    pf_json_key *keys;       /* the fields in their order, then the tag, then one that no name equals */
    uint32_t n_keys;
    uint32_t seen_words;
    uint64_t all[PF_JSON_SEEN_WORDS]; /* a bit for every field */
    uint16_t *table;         /* hash -> index into keys, n_keys where free; linear probing */
    uint32_t table_mask;
    uint32_t shift;
    uint64_t multiplier;
    uint32_t missed;         /* keys of this row that were not the expected ones */
    int32_t scatter;         /* rows yet to be read by json_scatter.h; below 0: rows until it is tried again */
    pf_json_reading *readings; /* all keys, those of a kind together */
    uint32_t readings_end[PF_JSON_READ_KINDS]; /* index just past the last one of the kind */
    pf_json_key head;        /* before the first key */
    pf_json_key unknown;     /* an unknown key that cannot be learned */
    pf_json_key pool[PF_JSON_POOL];
} pf_json_struct;

typedef struct {
    pf_decoder decoder; /* first: a pf_decoder * is cast back to this */
    const pf_plan *plan;
    pf_json_struct *structs;
} pf_json;

typedef int (*pf_json_decode)(pf_decoder *, pf_columns *, const uint8_t *, size_t, pf_refusal *);

/* Prepare `plan` (which must outlive the result) for the kernel `decode`.  NULL when memory is short. */
pf_json *pf_json_new(const pf_plan *plan, pf_json_decode decode);
void pf_json_free(pf_json *json);

/* The two kernels: one source, json_kernel.h, compiled twice. */
int pf_json_decode_scalar(pf_decoder *self, pf_columns *batch, const uint8_t *payload, size_t size, pf_refusal *why);
#if defined(__x86_64__)
int pf_json_decode_avx2(pf_decoder *self, pf_columns *batch, const uint8_t *payload, size_t size, pf_refusal *why);
#endif
/* The kernel of that name, "scalar" or "avx2"; NULL when this processor cannot run it. */
pf_json_decode pf_json_kernel(const char *simd);

/* The pool's key of that name, made when it is not there; `"name":` fits PF_JSON_LITERAL. */
pf_json_key *pf_json_learn_unknown(pf_json_struct *target, const uint8_t *name, size_t size, uint64_t hash);

/* Names up to 16 bytes are told apart by these two words and the size. */
static inline uint64_t pf_json_hash(uint64_t first, uint64_t last, uint64_t size, uint64_t multiplier) {
    return ((first ^ (last * 0x9E3779B97F4A7C15ull)) + size) * multiplier;
}

static inline void pf_json_name_ends(const uint8_t *name, size_t size, uint64_t *first, uint64_t *last) {
    *first = 0;
    *last = 0;
    memcpy(first, name, size < 8 ? size : 8);
    if (size > 8) memcpy(last, name + size - 8, 8);
}

#endif
