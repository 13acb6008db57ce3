/* The JSON kernel: one payload into one row.  Included once by json_scalar.c and once by json_avx2.c,
 * which define the few operations on a block of BLOCK bytes that differ:
 *
 *     BLOCK               bytes of a block
 *     block_mask          integer with bits for the bytes of a block
 *     block_first(mask)   index of the first byte with a bit
 *     block_special(p)    bytes that end a run of plain text: `"`, `\`, controls, and all above ASCII
 *     block_copy(out, p)  copy a block and return block_special of it
 *     block_special_last(end, n)  block_special of the n bytes before end, of which a whole block may be read;
 *                                 n bytes without one give no bits, or one at n
 *     block_literal(p, k) whether PF_JSON_LITERAL bytes at p begin with key k's literal
 *     other_bytes         where quote_bits notes what else was special, zero at first; any_other tells
 *     quote_bits(p, copy, others)  bits for the quotes of 64 bytes, which are copied
 *     WIDE_DECIMAL        defined where wide_decimal reads sixteen bytes of a number at once
 *     SHORT_DIGITS        bytes that short_digits looks at
 *
 * A block is only ever loaded from inside the payload; near its end the last whole block is loaded
 * again and the bytes already read are dropped.  Functions take the place where a value begins and
 * return the place after it, or NULL with `result` (and `why`) set.
 */
#include <string.h>

#include "field_store.h"
#include "json_decoder.h"
#include "json_number.h"
#include "rfc3339.h"

#include "json_context.h"
#include "json_text.h"
#include "json_skip.h"
#include "json_digits.h"
#include "json_values.h"

NOINLINE const uint8_t *read_tag(context *c, const pf_struct *wanted, const uint8_t *p, unsigned depth) {
    const uint8_t *after = skip_value(c, p, depth);
    if (!after) return NULL;
    if (wanted->tag) {
        if (*p != '"') return wrong_type(c, -1, p, depth);
        if (text_equals(c, p + 1, after - 1, wanted->tag, wanted->tag_size)) return after;
    } else {
        pf_json_number number;
        if (*p != '-' && (uint8_t)(*p - '0') > 9) return wrong_type(c, -1, p, depth);
        pf_json_number_read(p, c->end, &number);
        if (!number.integer) return wrong_type(c, -1, p, depth);
        uint64_t magnitude = wanted->tag_number < 0 ? 0 - (uint64_t)wanted->tag_number : (uint64_t)wanted->tag_number;
        int negative = number.negative && number.magnitude != 0;
        if (!number.overflow && number.magnitude == magnitude && negative == (wanted->tag_number < 0)) return after;
    }
    return refuse(c, PF_REASON_TAG, -1, p);
}

/* Whether a payload of which no whole literal is left goes on with that of a key (which has one). */
NOINLINE int matches_near_end(const context *c, const pf_json_key *key, const uint8_t *p) {
    size_t left = (size_t)(c->end - p), size = key->literal_size;
    if (left < size) return 0;
    if (size < 8) return (peek8(c, p) ^ load8(key->literal)) << (64 - 8 * size) == 0;
    for (size_t at = 0; at + 8 < size; at += 8)
        if (load8(p + at) != load8(key->literal + at)) return 0;
    return load8(p + size - 8) == load8(key->literal + size - 8);
}

INLINE pf_json_key *find_key(const pf_json_struct *target, const uint8_t *name, size_t size, uint64_t first,
                             uint64_t last, uint64_t hash) {
    for (uint64_t at = hash >> target->shift;; at = (at + 1) & target->table_mask) {
        uint16_t k = target->table[at];
        if (k == target->n_keys) return NULL;
        pf_json_key *key = &target->keys[k];
        if (key->first == first && key->last == last && key->name_size == size &&
            (size <= 16 || memcmp(key->name, name, size) == 0))
            return key;
    }
}

NOINLINE pf_json_key *find_escaped_key(context *c, const pf_json_struct *target, const uint8_t *name, size_t size) {
    for (uint32_t k = 0; k < target->n_keys; k++)
        if (text_equals(c, name, name + size, target->keys[k].name, target->keys[k].name_size)) return &target->keys[k];
    return NULL;
}

/* The key at `p`, which is not the one expected after `previous`; learns it.  Returns the place after the colon. */
NOINLINE const uint8_t *read_key(context *c, pf_json_struct *target, pf_json_key *previous, const uint8_t *p,
                                 pf_json_key **found) {
    int escaped = 0;
    p = skip_space(p, c->end);
    if (unlikely(p >= c->end || *p != '"')) return broken(c, PF_REASON_SYNTAX, p);
    const uint8_t *name = p + 1;
    const uint8_t *after = skip_text(c, name, &escaped);
    if (unlikely(!after)) return NULL;
    size_t size = (size_t)(after - 1 - name);
    int compact = !escaped && after < c->end && *after == ':';
    pf_json_key *key;
    if (likely(!escaped)) {
        uint64_t word = peek8(c, name);
        uint64_t first = size >= 8 ? word : word & ((1ull << (8 * size)) - 1);
        uint64_t last = size > 8 ? load8(name + size - 8) : 0;
        uint64_t hash = pf_json_hash(first, last, size, target->multiplier);
        key = find_key(target, name, size, first, last, hash);
        if (!key && compact && size + 3 <= PF_JSON_LITERAL && !target->plan->forbid_unknown)
            key = pf_json_learn_unknown(target, name, size, hash);
    } else {
        key = find_escaped_key(c, target, name, size);
    }
    if (unlikely(!key)) {
        if (target->plan->forbid_unknown) return refuse(c, PF_REASON_UNKNOWN_FIELD, -1, p);
        key = &target->unknown;
    }
    if (compact && key->literal_size) previous->next = key;
    target->missed++;
    *found = key;
    after = skip_space(after, c->end);
    if (unlikely(after >= c->end || *after != ':')) return broken(c, PF_REASON_SYNTAX, after);
    return after + 1;
}

NOINLINE const uint8_t *store_defaults(context *c, const pf_json_struct *target, const uint64_t *seen, const uint8_t *p,
                                       uint64_t i) {
    for (uint32_t w = 0; w < target->seen_words; w++) {
        for (uint64_t missing = target->all[w] & ~seen[w]; missing; missing &= missing - 1) {
            const pf_field *field = &target->plan->fields[64 * w + (uint32_t)__builtin_ctzll(missing)];
            int stored = pf_store_default(c->json->plan, c->batch, field, i);
            if (stored != PF_STORED) return not_stored(c, stored, field->column, p - 1);
        }
    }
    return p;
}

/* What follows the value that began at `value` is neither a comma nor the end of the object. */
COLD const uint8_t *after_value(context *c, const pf_json_key *key, const uint8_t *value, const uint8_t *p, unsigned depth) {
    if (key->action == PF_JSON_INT64 && p < c->end && (*p == '.' || (*p | 0x20) == 'e'))
        return wrong_type(c, (int32_t)key->column, value, depth);
    return broken(c, PF_REASON_SYNTAX, p);
}

/* Any int64; the short positive ones are read where this is called. */
NOINLINE const uint8_t *read_int64(context *c, uint32_t column, const uint8_t *begin, unsigned depth, int64_t *value) {
    uint64_t magnitude;
    int what, negative = *begin == '-';
    const uint8_t *p = read_magnitude(c, begin + negative, &magnitude, &what);
    if (unlikely(what == NO_INTEGER || (p < c->end && (*p == '.' || (*p | 0x20) == 'e'))))
        return wrong_type(c, (int32_t)column, begin, depth);
    if (unlikely(what == TOO_LARGE || magnitude > (uint64_t)INT64_MAX + (uint64_t)negative))
        return refuse(c, PF_REASON_RANGE, (int32_t)column, begin);
    *value = (int64_t)(negative ? 0 - magnitude : magnitude);
    return p;
}

NOINLINE const uint8_t *first_key_or_end(const uint8_t *p, const uint8_t *end) {
    p = skip_space(p, end);
    return p < end && *p == '}' ? NULL : p;
}

/* Store the value at `p` (p < end) of a key that was found. */
INLINE const uint8_t *read_field(context *c, const pf_json_struct *target, const pf_json_key *key, const pf_column *column,
                                 const uint8_t *p, uint64_t i, unsigned depth) {
    const uint8_t *const end = c->end;
    uint8_t *const base = c->batch->base;
    switch (key->action) {
    case PF_JSON_INT64: {
        int64_t *out = (int64_t *)(base + column->data) + i;
        unsigned count;
        if (likely(end - p >= SHORT_DIGITS)) {
            uint64_t number = short_digits(p, &count);
            if (likely(count - 1 < SHORT_DIGITS - 1 && (*p != '0' || count == 1))) {
                *out = (int64_t)number;
                return p + count;
            }
        }
        return read_int64(c, key->column, p, depth, out);
    }
    case PF_JSON_FLOAT64:
        return read_double(c, (int32_t)key->column, p, depth, (double *)(base + column->data) + i);
    case PF_JSON_STRING: {
        if (unlikely(*p != '"')) return wrong_type(c, (int32_t)key->column, p, depth);
        int32_t *offsets = (int32_t *)(base + column->offsets) + i;
        uint64_t begin = (uint64_t)offsets[0];
        uint8_t *stop, *out = base + column->data;
        p = copy_text(c, p + 1, out + begin, out + column->data_bytes, &stop);
        if (likely(p)) offsets[1] = (int32_t)(stop - out);
        return p;
    }
    case PF_JSON_SKIP:
        return skip_value(c, p, depth);
    case PF_JSON_BOOL:
        if (likely(end - p >= 5)) {
            uint32_t word;
            int is_false = *p == 'f';
            memcpy(&word, p + is_false, 4);
            if (likely(word == (is_false ? FOUR('a', 'l', 's', 'e') : FOUR('t', 'r', 'u', 'e')))) {
                (base + column->data)[i] = (uint8_t)!is_false;
                return p + 4 + is_false;
            }
        }
        return read_value(c, key->column, p, i, depth);
    case PF_JSON_VALUE:
        return read_value(c, key->column, p, i, depth);
    case PF_JSON_TAG:
        return read_tag(c, target->plan, p, depth);
    case PF_JSON_NEVER:
        return refuse(c, PF_REASON_SYNTAX, -1, p - PF_JSON_LITERAL);
    default:
        __builtin_unreachable();
    }
}

/* Store the object whose first byte after `{` is at `p` as value i of a Struct's columns.  `depth` is its own. */
static const uint8_t *read_object(context *c, pf_json_struct *target, const uint8_t *p, uint64_t i, unsigned depth) {
    const uint8_t *const end = c->end;
    const pf_column *const columns = c->batch->columns;
    pf_json_key *key = &target->head;
    uint64_t seen[PF_JSON_SEEN_WORDS];
    seen[0] = 0;
    for (uint32_t w = 1; unlikely(w < target->seen_words); w++) seen[w] = 0;
    if (unlikely(p < end && *p != '"')) {
        const uint8_t *first = first_key_or_end(p, end);
        if (!first) {
            p = skip_space(p, end) + 1;
            goto closed;
        }
        p = first;
    }
    for (;;) { /* p stands where a key begins, perhaps after white space */
        pf_json_key *expected = key->next;
        /* More than a literal left: so there is a byte after the colon too. */
        if (likely(end - p > PF_JSON_LITERAL && block_literal(p, expected))) {
            p += expected->literal_size;
            key = expected;
        } else {
            if (end - p <= PF_JSON_LITERAL && matches_near_end(c, expected, p)) {
                p += expected->literal_size;
                key = expected;
            } else {
                p = read_key(c, target, key, p, &key);
                if (unlikely(!p)) return NULL;
            }
            if (unlikely(p >= end)) return broken(c, PF_REASON_TRUNCATED, p);
        }
        if (unlikely(*p <= ' ')) {
            p = skip_space(p, end);
            if (p >= end) return broken(c, PF_REASON_TRUNCATED, p);
        }
        seen[key->seen_word] |= key->seen_bit;
        const uint8_t *const value = p;
        const pf_column *const column = (const pf_column *)((const uint8_t *)columns + key->column_at);
        p = read_field(c, target, key, column, p, i, depth);
        if (unlikely(!p)) return NULL;
        if (unlikely(p >= end || *p != ',')) {
            if (unlikely(p >= end || *p != '}')) {
                p = skip_space(p, end);
                if (p >= end || (*p != ',' && *p != '}')) return after_value(c, key, value, p, depth);
            }
            if (*p++ == '}') break;
        } else {
            p++;
        }
        if (unlikely(p < end && *p == ' ')) {
            p++;
            KEEP_BRANCH(p);
        }
    }
closed:
    for (uint32_t w = 0; w < target->seen_words; w++)
        if (unlikely(target->all[w] & ~seen[w])) return store_defaults(c, target, seen, p, i);
    return p;
}

#include "json_scatter.h"

INLINE int decode_payload(pf_decoder *self, pf_columns *batch, const uint8_t *payload, size_t size, pf_refusal *why) {
    const pf_json *json = (const pf_json *)self;
    context c = {payload, payload + size, batch, json, why, PF_REFUSED};
    if (unlikely(batch->rows >= batch->capacity)) return PF_FULL;
    if (unlikely(size == 0)) {
        refuse(&c, PF_REASON_EMPTY, -1, payload);
        return PF_REFUSED;
    }
    const uint8_t *p = payload;
    if (unlikely(*p != '{')) {
        p = skip_space(p, c.end);
        if (p >= c.end) {
            broken(&c, PF_REASON_TRUNCATED, p);
            return PF_REFUSED;
        }
        if (*p != '{') {
            wrong_type(&c, -1, p, 0);
            return PF_REFUSED;
        }
    }
    p = read_row(&c, &json->structs[0], p + 1);
    if (unlikely(!p)) return c.result;
    if (unlikely(p != c.end)) {
        p = skip_space(p, c.end);
        if (p != c.end) {
            refuse(&c, PF_REASON_TRAILING, -1, p);
            return PF_REFUSED;
        }
    }
    batch->rows++;
    return PF_DECODED;
}
