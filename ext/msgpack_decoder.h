/* The MessagePack decoder: one payload, one map, one row (https://github.com/msgpack/msgpack/blob/master/spec.md).
 *
 * It takes what msgspec.msgpack.decode(payload, type=Struct) takes, and refuses what that refuses, with two
 * exceptions that columns ask for: an integer outside its column's type, and a datetime whose instant in
 * UTC lies outside the years 1 to 9999, are refused.  As there: an int is taken for a float, a timestamp extension or
 * an RFC 3339 string for a datetime; bytes are never taken for a str, nor the other way round; of a key
 * that comes twice the last value counts; what belongs to no field is skipped, checked for its structure
 * but not for its UTF-8.
 *
 * msgpack_keys.h     which key this is, by expectation
 * msgpack_reader.h   heads of values, stepping over values, refusals
 * msgpack_values.h   one value into its column
 * here               a map into a row, and the decoder itself
 */
#ifndef PYTHIA_MSGPACK_DECODER_H
#define PYTHIA_MSGPACK_DECODER_H

#include <stdlib.h>

#include "msgpack_values.h"

enum { PF_MSGPACK_MAX_FIELDS = 1024 };

typedef struct {
    pf_decoder decoder; /* first: a pf_decoder * is a pf_msgpack_decoder * */
    const pf_plan *plan;
    pf_msgpack_keys *keys; /* plan->n_structs */
    uint8_t *actions;      /* plan->n_columns: PF_MSGPACK_... */
} pf_msgpack_decoder;

/* ---- Structs ------------------------------------------------------------------------------- */

/* The value of the tag field. */
static int pf_msgpack_tag(pf_msgpack_reader *reader, const pf_struct *spec, int32_t column) {
    if (reader->at == reader->end) return pf_msgpack_truncated(reader, column);
    const uint8_t *where = reader->at;
    uint8_t op = *reader->at++;
    uint64_t value = 0;
    int good = 0;
    if (spec->tag) {
        int known = pf_msgpack_str_head(reader, op, &value);
        if (known == 0) return pf_msgpack_truncated(reader, column);
        if (known > 0) {
            good = value == spec->tag_size && memcmp(reader->at, spec->tag, value) == 0;
            reader->at += value;
        }
    } else if (op <= 0x7F || op >= 0xE0) {
        good = (int8_t)op == spec->tag_number;
    } else if (op >= 0xCC && op <= 0xD3) {
        int is_signed = op >= 0xD0, size = 1 << ((op - 0xCC) & 3);
        if (!pf_msgpack_take(reader, size, &value)) return pf_msgpack_truncated(reader, column);
        int64_t number = (int64_t)value;
        if (is_signed) {
            int unused = 64 - 8 * size;
            number = (int64_t)(value << unused) >> unused;
        }
        good = number == spec->tag_number && (is_signed || value <= INT64_MAX);
    }
    return good ? PF_DECODED : pf_msgpack_refuse(reader, where, PF_REASON_TAG, column, pf_msgpack_found(op));
}

/* A key that is no field: the tag, or unknown. */
static int pf_msgpack_other_key(pf_msgpack_reader *reader, const pf_struct *spec, const uint8_t *where, const uint8_t *name,
                                uint64_t size, int32_t column) {
    if (spec->tag_field && size == spec->tag_field_size && memcmp(name, spec->tag_field, size) == 0)
        return pf_msgpack_tag(reader, spec, column);
    if (spec->forbid_unknown) return pf_msgpack_refuse(reader, where, PF_REASON_UNKNOWN_FIELD, column, PF_FOUND_NONE);
    return pf_msgpack_skip(reader, column);
}

/* Read a key.  Sets `field` to the key found, PF_MSGPACK_NO_KEY for one that was not learned; of one that is no
 * field, the value is read too. */
static int pf_msgpack_key(pf_msgpack_reader *reader, const pf_struct *spec, pf_msgpack_keys *keys, int32_t column,
                          uint32_t before, uint32_t *field) {
    uint64_t size;
    if (reader->at == reader->end) return pf_msgpack_truncated(reader, column);
    const uint8_t *where = reader->at;
    int known = pf_msgpack_str_head(reader, *reader->at++, &size);
    if (known < 0) return pf_msgpack_refuse(reader, where, PF_REASON_SYNTAX, column, pf_msgpack_found(*where));
    if (!known) return pf_msgpack_truncated(reader, column);
    const uint8_t *text = reader->at;
    pf_msgpack_name name = pf_msgpack_name_of(text, size, reader->end);
    reader->at += size;
    *field = keys->next[before];
    if (*field == PF_MSGPACK_NO_KEY || !pf_msgpack_is_key(keys, spec, *field, name, text)) {
        *field = pf_msgpack_find(keys, spec, name, text);
        if (*field != PF_MSGPACK_NO_KEY) keys->next[before] = (uint16_t)*field;
    }
    return *field < spec->n_fields ? PF_DECODED : pf_msgpack_other_key(reader, spec, where, text, size, column);
}

/* Read a map into the fields of Struct `index`; `column` is its node, -1 for the row itself. */
static int pf_msgpack_struct(pf_msgpack_reader *reader, uint32_t index, int32_t column, uint64_t i) {
    const pf_struct *spec = &reader->plan->structs[index];
    pf_msgpack_keys *keys = &reader->keys[index];
    uint64_t seen[PF_MSGPACK_MAX_FIELDS / 64];
    uint32_t n_words = (spec->n_fields + 63) / 64, n_seen = 0;
    for (uint32_t w = 0; w < n_words; w++) seen[w] = 0;

    const uint8_t *map_at = reader->at;
    uint8_t op = *reader->at++;
    uint64_t count;
    int known = pf_msgpack_map_head(reader, op, &count);
    if (known < 0) return pf_msgpack_wrong_type(reader, map_at, column);
    if (!known) return pf_msgpack_truncated(reader, column);

    uint32_t before = spec->n_fields + PF_MSGPACK_POOL;
    /* Keys that may be expected: any, unless an unknown one has to be refused or may be the tag. */
    uint32_t expectable = spec->tag_field || spec->forbid_unknown ? spec->n_fields : PF_MSGPACK_NO_KEY;
    for (uint64_t n = 0; n < count; n++) {
        const uint8_t *where = reader->at;
        uint32_t field = keys->next[before];
        if (field < expectable && pf_msgpack_left(reader) >= 16 && pf_msgpack_is_literal(&keys->literals[field], where)) {
            reader->at += keys->literals[field].size;
            if (field >= spec->n_fields) {
                int result = pf_msgpack_skip(reader, column);
                if (result != PF_DECODED) return result;
            }
        } else {
            int result = pf_msgpack_key(reader, spec, keys, column, before, &field);
            if (result != PF_DECODED) return result;
        }
        if (field != PF_MSGPACK_NO_KEY) before = field;
        if (field >= spec->n_fields) continue;
        int result = pf_msgpack_value(reader, spec->fields[field].column, i);
        if (result != PF_DECODED) return result;
        uint64_t bit = 1ull << (field & 63);
        n_seen += !(seen[field >> 6] & bit);
        seen[field >> 6] |= bit;
    }

    if (n_seen == spec->n_fields) return PF_DECODED;
    for (uint32_t field = 0; field < spec->n_fields; field++) {
        if (seen[field >> 6] >> (field & 63) & 1) continue;
        int stored = pf_store_default(reader->plan, reader->batch, &spec->fields[field], i);
        if (stored != PF_STORED) return pf_msgpack_stored(reader, map_at, stored, spec->fields[field].column, PF_FOUND_NONE);
    }
    return PF_DECODED;
}

static int pf_msgpack_decode(pf_decoder *self, pf_columns *batch, const uint8_t *payload, size_t size, pf_refusal *why) {
    const pf_msgpack_decoder *decoder = (const pf_msgpack_decoder *)self;
    pf_msgpack_reader reader = {
        decoder->plan, decoder->keys, decoder->actions, batch, payload, payload, payload + size, why};
    if (batch->rows >= batch->capacity) return PF_FULL;
    if (size == 0) return pf_msgpack_refuse(&reader, payload, PF_REASON_EMPTY, -1, PF_FOUND_NONE);
    int result = pf_msgpack_struct(&reader, 0, -1, batch->rows);
    if (result != PF_DECODED) return result;
    if (reader.at != reader.end) return pf_msgpack_refuse(&reader, reader.at, PF_REASON_TRAILING, -1, PF_FOUND_NONE);
    batch->rows++;
    return PF_DECODED;
}

/* ---- making one ---------------------------------------------------------------------------- */

static void pf_msgpack_decoder_free(pf_msgpack_decoder *decoder) {
    if (decoder == NULL) return;
    for (uint32_t s = 0; decoder->keys && s < decoder->plan->n_structs; s++) pf_msgpack_keys_free(&decoder->keys[s]);
    free(decoder->keys);
    free(decoder->actions);
    free(decoder);
}

/* NULL when there is no memory.  The plan must outlive the decoder. */
static pf_decoder *pf_msgpack_decoder_new(const pf_plan *plan) {
    pf_msgpack_decoder *decoder = calloc(1, sizeof *decoder);
    if (decoder == NULL) return NULL;
    decoder->decoder.decode = pf_msgpack_decode;
    decoder->plan = plan;
    decoder->keys = calloc(plan->n_structs, sizeof *decoder->keys);
    decoder->actions = calloc(plan->n_columns + 1, 1);
    for (uint32_t c = 0; decoder->actions && c < plan->n_columns; c++)
        decoder->actions[c] = pf_msgpack_action(&plan->columns[c], &plan->bounds[c]);
    int whole = decoder->keys != NULL && decoder->actions != NULL;
    for (uint32_t s = 0; whole && s < plan->n_structs; s++) whole = pf_msgpack_keys_init(&decoder->keys[s], &plan->structs[s]);
    if (!whole) {
        pf_msgpack_decoder_free(decoder);
        return NULL;
    }
    return &decoder->decoder;
}

#endif
