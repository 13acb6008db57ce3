/* Rows whose keys come in another order each time.  Included by json_kernel.h where quote_bits exists.
 *
 * read_object takes the fields as they come, so with shuffled keys the processor cannot foresee what kind of
 * value comes next, and waits.  Here the quotes of the whole payload are found first, without looking at what is
 * between them; from them follows where each key's value begins and ends; then the values are read in the
 * order of the Struct, which is always the same.
 *
 * That works for flat objects in compact ASCII without escapes.  Whatever else is met, right or wrong, nothing
 * is decided here: the row is left to read_object, which also says why a bad one is bad.
 */

enum {
    SCATTER_BYTES = 1024, /* of the longest payload that is tried */
    SCATTER_KEYS = 64,
    SCATTER_ROWS = 256,   /* rows read so before the order is looked at again */
    SCATTER_PAUSE = 32,   /* rows after one that had to be left to read_object */
};

typedef struct {
    uint16_t begin, end; /* of a value */
} span;

static const uint64_t size_mask[9] = {
    0, 0xFF, 0xFFFF, 0xFFFFFF, 0xFFFFFFFF, 0xFFFFFFFFFF, 0xFFFFFFFFFFFF, 0xFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF};

/* Positions of all quotes; 0 when there is a backslash, a control character or something beyond ASCII.  Also copies
 * the payload. */
INLINE unsigned find_quotes(const context *c, uint16_t *quotes, uint8_t *copy) {
    const uint8_t *p = c->begin;
    unsigned size = (unsigned)(c->end - p), n = 0;
    uint64_t others = 0;
    for (unsigned at = 0; at < size; at += 64) {
        uint64_t other, bits;
        unsigned left = size - at;
        if (likely(left >= 64)) {
            bits = quote_bits(p + at, copy + at, &other);
        } else {
            bits = quote_bits(c->end - 64, copy + size - 64, &other) >> (64 - left);
            other >>= 64 - left;
        }
        others |= other;
        unsigned count = (unsigned)__builtin_popcountll(bits);
        /* Twelve at once, needed or not: a loop's end would be guessed wrong each time. */
        for (unsigned k = 0; k < 12; k++) {
            quotes[n + k] = (uint16_t)(at + (unsigned)_tzcnt_u64(bits));
            bits &= bits - 1;
        }
        for (unsigned k = 12; unlikely(k < count); k++) {
            quotes[n + k] = (uint16_t)(at + (unsigned)_tzcnt_u64(bits));
            bits &= bits - 1;
        }
        n += count;
    }
    return others ? 0 : n;
}

/* Read the whole payload as value i of the row's columns.  Returns 0 where it is no case for this, or not good. */
static int read_scattered(context *c, pf_json_struct *target, uint64_t i) {
    const uint8_t *const begin = c->begin;
    const pf_columns *const batch = c->batch;
    unsigned size = (unsigned)(c->end - begin);
    uint16_t quotes[SCATTER_BYTES + 16];
    uint8_t copy[SCATTER_BYTES + 64];
    span values[SCATTER_KEYS], skipped[SCATTER_KEYS];
    if (c->end - begin > SCATTER_BYTES || size < 64 || target->n_keys > SCATTER_KEYS - 1) return 0;
    unsigned n = find_quotes(c, quotes, copy), n_skipped = 0;
    memset(copy + size, 0, 64);
    if (n < 2) return 0;
    for (unsigned k = 0; k < 4; k++) quotes[n + k] = 0;

    uint64_t seen = 0;
    unsigned sound = begin[0] == '{' && begin[size - 1] == '}' && quotes[0] == 1;
    for (unsigned j = 0; j < n;) {
        unsigned opening = quotes[j], closing = quotes[j + 1], value = closing + 2;
        unsigned is_text = quotes[j + 2] == value;
        unsigned text_end = quotes[j + 3] + 1u;
        j += 2 + 2 * is_text;
        unsigned end = j < n ? quotes[j] - 1u : size - 1;
        if (unlikely(value >= end || j > n)) return 0;
        sound &= begin[closing + 1] == ':';
        sound &= begin[end] == (j < n ? ',' : '}');
        sound &= !is_text | (text_end == end);

        const uint8_t *name = begin + opening + 1;
        unsigned name_size = closing - opening - 1;
        /* Computed, not branched on: the sizes come in any order too. */
        uint64_t first = peek8(c, name) & size_mask[name_size < 8 ? name_size : 8];
        uint64_t last = load8(begin + (closing > 8 ? closing - 8 : 0)) & (0 - (uint64_t)(name_size > 8));
        uint64_t hash = pf_json_hash(first, last, name_size, target->multiplier);
        const pf_json_key *key = find_key(target, name, name_size, first, last, hash);
        span found = {(uint16_t)value, (uint16_t)end};
        if (likely(key)) {
            uint64_t bit = 1ull << (key - target->keys);
            if (unlikely(seen & bit)) return 0;
            seen |= bit;
            values[key - target->keys] = found;
        } else {
            if (target->plan->forbid_unknown || n_skipped == SCATTER_KEYS) return 0;
            skipped[n_skipped++] = found;
        }
    }
    if (unlikely(!sound)) return 0;

    /* The values are read from the copy, where a whole block can be loaded at each; the zeros behind it end any value. */
    context padded = {copy, copy + size + 64, c->batch, c->json, c->why, PF_REFUSED};
    for (uint64_t rest = seen; rest; rest &= rest - 1) {
        unsigned k = (unsigned)__builtin_ctzll(rest);
        const pf_json_key *key = &target->keys[k];
        const uint8_t *p = copy + values[k].begin;
        const pf_column *column = (const pf_column *)((const uint8_t *)batch->columns + key->column_at);
        p = read_field(&padded, target, key, column, p, i, 1);
        if (unlikely(p != copy + values[k].end)) return 0;
    }
    for (unsigned k = 0; k < n_skipped; k++)
        if (skip_value(&padded, copy + skipped[k].begin, 1) != copy + skipped[k].end) return 0;
    /* The tag's bit is the one after the fields', so it is not among those that can be missing. */
    if (unlikely(target->all[0] & ~seen)) return store_defaults(c, target, &seen, c->end, i) != NULL;
    return 1;
}

/* The row's object: scattered while that pays, else in order. */
INLINE const uint8_t *read_row(context *c, pf_json_struct *target, const uint8_t *p) {
    uint64_t i = c->batch->rows;
    if (unlikely(target->scatter > 0)) {
        target->scatter--;
        if (read_scattered(c, target, i)) return c->end;
        target->scatter = -SCATTER_PAUSE;
    }
    target->missed = 0;
    p = read_object(c, target, p, i, 1);
    if (unlikely(target->missed)) {
        if (target->scatter < 0) {
            target->scatter++;
        } else if (2 * target->missed > target->n_keys) {
            target->scatter = SCATTER_ROWS;
        }
    }
    return p;
}
