/* Rows whose keys come in another order each time.  Included by json_kernel.h.
 *
 * read_object takes the fields as they come, so with shuffled keys the processor cannot foresee what kind of
 * value comes next, and waits.  Here the quotes of the whole payload are found first, without looking at what is
 * between them; from them follows where each key's value begins and ends, by arithmetic that takes the same steps
 * for every key; then the values are read kind by kind, in an order that is always the same.
 *
 * That works for flat objects in compact ASCII without escapes.  Whatever else is met, right or wrong, nothing
 * is decided here: the row is left to read_object, which also says why a bad one is bad.
 */

enum {
    SCATTER_BYTES = 1024, /* of the longest payload that is tried */
    SCATTER_KEYS = 56,    /* of the Struct; SCATTER_FIELDS times 2^55 fits 64 bits */
    SCATTER_FIELDS = SCATTER_BYTES / 4, /* there is none shorter than `"":,` */
    SCATTER_NAME = 64,    /* a name is shorter */
    SCATTER_ROWS = 256,   /* rows read so before the order is looked at again */
    SCATTER_PAUSE = 32,   /* rows after one that had to be left to read_object */
    MARGIN = 64,          /* bytes that may be read on either side of the copy */
};

typedef struct {
    uint16_t begin, end; /* of a value */
} span;

/* A payload as it is read here. */
typedef struct {
    uint8_t *copy;    /* with MARGIN bytes on both sides; the last `}` is a comma, so that one ends every value */
    uint64_t size;
    const uint64_t *quotes; /* a bit for each quote, and one at `size`, as if another key came */
} row_text;

/* For a name of that size: which bytes of its first eight, and of the eight before its end, are its own and new. */
#define ALL8 ~0ull, ~0ull, ~0ull, ~0ull, ~0ull, ~0ull, ~0ull, ~0ull
static const uint64_t first_mask[SCATTER_NAME] = {
    0,    0xFF, 0xFFFF, 0xFFFFFF, 0xFFFFFFFF, 0xFFFFFFFFFF, 0xFFFFFFFFFFFF, 0xFFFFFFFFFFFFFF,
    ALL8, ALL8, ALL8,   ALL8,     ALL8,       ALL8,         ALL8};
static const uint64_t last_mask[SCATTER_NAME] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, ~0ull, ~0ull, ~0ull, ~0ull, ~0ull, ~0ull, ~0ull, ALL8, ALL8, ALL8, ALL8, ALL8, ALL8};
#undef ALL8

/* Copy the payload and mark its quotes.  Returns 0 when there is a backslash, a control character or something
 * beyond ASCII in it. */
INLINE int find_quotes(const context *c, row_text *row, uint64_t *quotes) {
    const uint8_t *const p = c->begin;
    uint64_t size = row->size, at = 0;
    other_bytes others = {0};
    for (; size - at >= 64; at += 64) quotes[at / 64] = quote_bits(p + at, row->copy + at, &others);
    quotes[at / 64] = 0;
    if (at < size) quotes[at / 64] = quote_bits(c->end - 64, row->copy + size - 64, &others) >> (64 - (size - at));
    quotes[at / 64] |= 1ull << (size - at);
    quotes[at / 64 + 1] = 0;
    memset(row->copy - 8, 0, 8);
    memset(row->copy + size, 0, MARGIN);
    row->copy[size - 1] = ',';
    return !any_other(&others);
}

/* The bits from `at` on. */
INLINE uint64_t bits_from(const uint64_t *bits, uint64_t at) {
    /* Two shifts, because one of 64 is undefined. */
    return bits[at / 64] >> (at % 64) | bits[at / 64 + 1] << 1 << (~at % 64);
}

/* The first quote at or after `at`, or something beyond `size`. */
NOINLINE uint64_t next_quote(const row_text *row, uint64_t at) {
    for (; at <= row->size; at = (at / 64 + 1) * 64) {
        uint64_t bits = row->quotes[at / 64] >> (at % 64);
        if (bits) return at + (uint64_t)__builtin_ctzll(bits);
    }
    return row->size + 1;
}

/* What the quotes say about one key: where its name begins and ends, whether its value is a text, and where the next
 * key's opening quote is. */
typedef struct {
    uint64_t name, closing, next, is_text;
} key_place;

/* A key and its value that are too long for one word of bits.  Where quotes are wanting, no comma is before `next`. */
NOINLINE key_place place_long_key(const row_text *row, uint64_t name) {
    key_place place = {name, next_quote(row, name), 0, 0};
    place.next = next_quote(row, place.closing + 1);
    place.is_text = place.next == place.closing + 2;
    if (place.is_text) place.next = next_quote(row, next_quote(row, place.next + 1) + 1);
    if (place.closing - name >= SCATTER_NAME) place.next = row->size + 1;
    return place;
}

INLINE key_place place_key(const row_text *row, uint64_t name) {
    uint64_t closing = bits_from(row->quotes, name), second = closing & (closing - 1);
    uint64_t third = second & (second - 1), fourth = third & (third - 1);
    if (unlikely(!second)) return place_long_key(row, name);
    uint64_t name_size = (uint64_t)__builtin_ctzll(closing), is_text = second >> name_size >> 2 & 1;
    /* Chosen by a mask: the compiler would make a branch of ?: */
    uint64_t next = second ^ ((second ^ fourth) & (0 - is_text));
    if (unlikely(!next)) return place_long_key(row, name);
    return (key_place){name, name + name_size, name + (uint64_t)__builtin_ctzll(next), is_text};
}

/* Where the values lie. */
typedef struct {
    uint64_t seen; /* a bit for each key */
    span values[SCATTER_KEYS];
    span *skipped_end;
    span skipped[SCATTER_FIELDS]; /* unknown keys' values that are no texts (those are sound) */
} row_values;

/* The key of that name the long way, or `n_keys`. */
NOINLINE uint64_t look_up(const pf_json_struct *target, const uint8_t *name, uint64_t size) {
    uint64_t first = load8(name) & first_mask[size], last = load8(name + size - 8) & last_mask[size];
    uint64_t hash = pf_json_hash(first, last, size, target->multiplier);
    const pf_json_key *key = find_key(target, name, size, first, last, hash);
    return key ? (uint64_t)(key - target->keys) : target->n_keys;
}

/* Find all keys.  Where all are the Struct's, no branch depends on which comes when. */
NOINLINE int find_values(const pf_json_struct *target, const row_text *row, row_values *found) {
    const row_text text = *row;
    const uint64_t multiplier = target->multiplier, shift = target->shift;
    const pf_json_key *const keys = target->keys;
    const uint16_t *const table = target->table;
    uint64_t seen = 0, sum = 0, opening = 1;
    found->skipped_end = found->skipped;
    do {
        key_place place = place_key(&text, opening + 1);
        uint64_t name_size = place.closing - place.name, end = place.next - 1;
        const uint8_t *const name = text.copy + place.name;
        if (unlikely(text.copy[place.closing + 1] != ':' || text.copy[end] != ',')) return 0;
        opening = place.next;

        uint64_t first = load8(name) & first_mask[name_size], last = load8(name + name_size - 8) & last_mask[name_size];
        uint64_t k = table[pf_json_hash(first, last, name_size, multiplier) >> shift];
        span value = {(uint16_t)(place.closing + 2), (uint16_t)end};
        if (unlikely((keys[k].first ^ first) | (keys[k].last ^ last) | (keys[k].short_size ^ name_size))) {
            if (k != target->n_keys) k = look_up(target, name, name_size);
            if (k == target->n_keys) {
                if (target->plan->forbid_unknown || (place.is_text & (text.copy[end - 1] != '"'))) return 0;
                *found->skipped_end = value;
                found->skipped_end += !place.is_text;
                continue;
            }
        }
        found->values[k] = value;
        seen |= 1ull << k;
        sum += 1ull << k;
    } while (opening < text.size);
    found->seen = seen;
    return sum == seen; /* else a key came twice: a sum of different bits is what they are together */
}

INLINE int read_scattered_int64(context *c, const uint8_t *p, const uint8_t *end, int64_t *out) {
    unsigned count;
    uint64_t number = short_digits(p, &count);
    if (likely(p + count == end && count - 1 < SHORT_DIGITS - 1 && (*p != '0' || count == 1))) {
        *out = (int64_t)number;
        return 1;
    }
    return read_int64(c, 0, p, 1, out) == end;
}

/* Four moves; from memcpy of 64 bytes the compiler makes a loop. */
INLINE void copy_64(uint8_t *out, const uint8_t *p) {
    for (unsigned at = 0; at < 64; at += 16) memcpy(out + at, p + at, 16);
}

/* The text between the quotes at `p` and before `end`, in which nothing is special. */
INLINE int read_scattered_text(const uint8_t *p, const uint8_t *end, uint8_t *data, uint64_t data_bytes,
                               int32_t *offsets) {
    if (unlikely(*p != '"' || end[-1] != '"')) return 0;
    uint64_t begin = (uint64_t)offsets[0], size = (uint64_t)(end - p) - 2, room = data_bytes - begin;
    uint8_t *out = data + begin;
    p++;
    if (likely(room >= size + 64)) {
        copy_64(out, p);
        for (uint64_t at = 64; unlikely(at < size); at += 64) copy_64(out + at, p + at);
    } else {
        if (room < size) return 0;
        memcpy(out, p, size);
    }
    offsets[1] = (int32_t)(begin + size);
    return 1;
}

/* Read the whole payload as value i of the row's columns.  Returns 0 where it is no case for this, or not good. */
static int read_scattered(context *c, pf_json_struct *target, uint64_t i) {
    uint8_t space[MARGIN + SCATTER_BYTES + MARGIN];
    uint64_t quotes[SCATTER_BYTES / 64 + 2];
    row_text row = {space + MARGIN, (uint64_t)(c->end - c->begin), quotes};
    row_values found;
    if (c->end - c->begin > SCATTER_BYTES || row.size < 64 || target->n_keys > SCATTER_KEYS) return 0;
    if (c->begin[0] != '{' || c->begin[1] != '"' || c->end[-1] != '}') return 0;
    if (!find_quotes(c, &row, quotes) || !find_values(target, &row, &found)) return 0;

    /* The values are read from the copy, where a whole block can be loaded at each. */
    context padded = {row.copy, row.copy + row.size + MARGIN, c->batch, c->json, c->why, PF_REFUSED};
    uint8_t *const base = c->batch->base;
    const uint8_t *const columns = (const uint8_t *)c->batch->columns;
    const pf_json_reading *reading = target->readings;
/* For each key of that kind in the row: where its value begins and ends, and its column. */
#define FOR_EACH(kind)                                                                                                \
    for (const pf_json_reading *stop = target->readings + target->readings_end[kind]; reading < stop; reading++)      \
        if (likely(found.seen >> reading->key & 1))
#define VALUE (row.copy + found.values[reading->key].begin)
#define VALUE_END (row.copy + found.values[reading->key].end)
#define COLUMN ((const pf_column *)(columns + reading->column_at))
    FOR_EACH(PF_JSON_READ_INT64) {
        if (unlikely(!read_scattered_int64(&padded, VALUE, VALUE_END, (int64_t *)(base + COLUMN->data) + i))) return 0;
    }
    FOR_EACH(PF_JSON_READ_FLOAT64) {
        if (unlikely(read_double(&padded, 0, VALUE, 1, (double *)(base + COLUMN->data) + i) != VALUE_END)) return 0;
    }
    FOR_EACH(PF_JSON_READ_STRING) {
        int32_t *offsets = (int32_t *)(base + COLUMN->offsets) + i;
        uint8_t *data = base + COLUMN->data;
        if (unlikely(!read_scattered_text(VALUE, VALUE_END, data, COLUMN->data_bytes, offsets))) return 0;
    }
    FOR_EACH(PF_JSON_READ_OTHER) {
        const pf_json_key *key = &target->keys[reading->key];
        if (unlikely(read_field(&padded, target, key, COLUMN, VALUE, i, 1) != VALUE_END)) return 0;
    }
#undef FOR_EACH
#undef VALUE
#undef VALUE_END
#undef COLUMN
    for (const span *value = found.skipped; value < found.skipped_end; value++)
        if (unlikely(skip_value(&padded, row.copy + value->begin, 1) != row.copy + value->end)) return 0;
    /* The tag's bit is the one after the fields', so it is not among those that can be missing. */
    if (unlikely(target->all[0] & ~found.seen)) return store_defaults(c, target, &found.seen, c->end, i) != NULL;
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
