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
 *     QUOTE_BITS          defined where quote_bits looks at 64 bytes at once (see json_scatter.h)
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

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the JSON kernel reads eight digits as one little-endian word"
#endif

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define INLINE static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline))
#define COLD static __attribute__((noinline, cold))

/* In the body of an `if`: keeps it a branch.  Moving on by a computed 0 or 1 instead would make every later load
 * wait for this one; a predicted branch lets them start at once. */
#define KEEP_BRANCH(p) __asm__ volatile("" : "+r"(p))

typedef struct {
    const uint8_t *begin, *end;
    pf_columns *batch;
    const pf_json *json;
    pf_refusal *why;
    int result;
} context;

/* ---- refusing ------------------------------------------------------------------------------ */

COLD const uint8_t *refuse(context *c, int reason, int32_t column, const uint8_t *at) {
    c->result = PF_REFUSED;
    c->why->reason = (uint8_t)reason;
    c->why->found = PF_FOUND_NONE;
    c->why->reserved = 0;
    c->why->column = column;
    c->why->at = (uint64_t)(at - c->begin);
    return NULL;
}

/* The grammar is broken at `at`: by what stands there, or because nothing does. */
COLD const uint8_t *broken(context *c, int reason, const uint8_t *at) {
    return at >= c->end ? refuse(c, PF_REASON_TRUNCATED, -1, c->end) : refuse(c, reason, -1, at);
}

COLD const uint8_t *full(context *c) {
    c->result = PF_FULL;
    return NULL;
}

/* What field_store.h answered, other than PF_STORED. */
COLD const uint8_t *not_stored(context *c, int reason, uint32_t column, const uint8_t *at) {
    return reason == PF_NO_ROOM ? full(c) : refuse(c, reason, (int32_t)column, at);
}

/* ---- words and digits ---------------------------------------------------------------------- */

INLINE uint64_t load8(const uint8_t *p) {
    uint64_t word;
    memcpy(&word, p, 8);
    return word;
}

NOINLINE uint64_t peek8_near_end(const context *c, size_t left) {
    uint64_t word = 0;
    if (left == 0) return 0;
    if (c->end - c->begin >= 8) return load8(c->end - 8) >> (64 - 8 * left);
    memcpy(&word, c->end - left, left);
    return word;
}

/* The next eight bytes, zeros beyond the end (a zero byte is no digit and no plain text). */
INLINE uint64_t peek8(const context *c, const uint8_t *p) {
    return likely(c->end - p >= 8) ? load8(p) : peek8_near_end(c, (size_t)(c->end - p));
}

#define ZEROS 0x3030303030303030ull
#define FOUR(a, b, c, d) ((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | (uint32_t)(d) << 24)
#define HIGH_BITS 0x8080808080808080ull

/* Given a word XOR ZEROS: a high bit in the first byte that is no digit (bits above it mean nothing). */
INLINE uint64_t not_digits(uint64_t word) { return ((word + 0x7676767676767676ull) | word) & HIGH_BITS; }

/* Given a word XOR ZEROS of eight digits: their value.  Three steps join neighbours: 1 + 1, 2 + 2, 4 + 4 digits. */
INLINE uint64_t eight_digits(uint64_t word) {
    word = word * 10 + (word >> 8);
    return (((word & 0x000000FF000000FFull) * 0x000F424000000064ull) +
            (((word >> 16) & 0x000000FF000000FFull) * 0x0000271000000001ull)) >> 32;
}

#ifndef SHORT_DIGITS
#define SHORT_DIGITS 8
/* The digits at the front of p[0 .. 8): how many, and their value when they are 1 to 7. */
INLINE uint64_t short_digits(const uint8_t *p, unsigned *count) {
    uint64_t word = load8(p) ^ ZEROS;
    uint64_t stops = not_digits(word);
    *count = stops ? (unsigned)__builtin_ctzll(stops) >> 3 : 8;
    return eight_digits(word << ((64 - 8 * *count) & 63));
}
#endif

static const uint64_t ten_to[20] = {
    1ull, 10ull, 100ull, 1000ull, 10000ull, 100000ull, 1000000ull, 10000000ull, 100000000ull, 1000000000ull,
    10000000000ull, 100000000000ull, 1000000000000ull, 10000000000000ull, 100000000000000ull,
    1000000000000000ull, 10000000000000000ull, 100000000000000000ull, 1000000000000000000ull,
    10000000000000000000ull};

static const double double_ten_to[23] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                         1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

INLINE const uint8_t *skip_space(const uint8_t *p, const uint8_t *end) {
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) p++;
    return p;
}

/* ---- strings ------------------------------------------------------------------------------- */

INLINE int hex_digit(uint8_t ch) {
    if ((uint8_t)(ch - '0') <= 9) return ch - '0';
    ch |= 0x20;
    return (uint8_t)(ch - 'a') <= 5 ? ch - 'a' + 10 : -1;
}

NOINLINE const uint8_t *four_hex(context *c, const uint8_t *p, uint32_t *value) {
    *value = 0;
    for (int i = 0; i < 4; i++, p++) {
        int digit = p < c->end ? hex_digit(*p) : -1;
        if (digit < 0) return broken(c, PF_REASON_ESCAPE, p);
        *value = *value << 4 | (uint32_t)digit;
    }
    return p;
}

/* Read the escape at `p` (a backslash) into one code point; a pair of surrogates is one escape. */
NOINLINE const uint8_t *read_escape(context *c, const uint8_t *p, uint32_t *point) {
    const uint8_t *begin = p++;
    if (p >= c->end) return broken(c, PF_REASON_ESCAPE, p);
    switch (*p++) {
    case '"': *point = '"'; return p;
    case '\\': *point = '\\'; return p;
    case '/': *point = '/'; return p;
    case 'b': *point = '\b'; return p;
    case 'f': *point = '\f'; return p;
    case 'n': *point = '\n'; return p;
    case 'r': *point = '\r'; return p;
    case 't': *point = '\t'; return p;
    case 'u': break;
    default: return refuse(c, PF_REASON_ESCAPE, -1, begin);
    }
    p = four_hex(c, p, point);
    if (!p || *point < 0xD800 || *point > 0xDFFF) return p;
    if (*point > 0xDBFF) return refuse(c, PF_REASON_ESCAPE, -1, begin);
    if (p >= c->end || (*p == '\\' && p + 1 >= c->end)) return broken(c, PF_REASON_ESCAPE, c->end);
    if (p[0] != '\\' || p[1] != 'u') return refuse(c, PF_REASON_ESCAPE, -1, begin);
    uint32_t low;
    p = four_hex(c, p + 2, &low);
    if (!p) return NULL;
    if (low < 0xDC00 || low > 0xDFFF) return refuse(c, PF_REASON_ESCAPE, -1, begin);
    *point = 0x10000 + ((*point - 0xD800) << 10) + (low - 0xDC00);
    return p;
}

/* UTF-8 of a code point; returns its length. */
INLINE unsigned put_utf8(uint8_t out[4], uint32_t point) {
    if (point < 0x80) {
        out[0] = (uint8_t)point;
        return 1;
    }
    if (point < 0x800) {
        out[0] = (uint8_t)(0xC0 | point >> 6);
        out[1] = (uint8_t)(0x80 | (point & 0x3F));
        return 2;
    }
    if (point < 0x10000) {
        out[0] = (uint8_t)(0xE0 | point >> 12);
        out[1] = (uint8_t)(0x80 | (point >> 6 & 0x3F));
        out[2] = (uint8_t)(0x80 | (point & 0x3F));
        return 3;
    }
    out[0] = (uint8_t)(0xF0 | point >> 18);
    out[1] = (uint8_t)(0x80 | (point >> 12 & 0x3F));
    out[2] = (uint8_t)(0x80 | (point >> 6 & 0x3F));
    out[3] = (uint8_t)(0x80 | (point & 0x3F));
    return 4;
}

/* Plain bytes from `p` on, at least when less than a block is left: the count to the next special byte or the end. */
INLINE size_t plain_run(const context *c, const uint8_t *p) {
    size_t left = (size_t)(c->end - p), run = 0;
    while (left - run >= BLOCK) {
        block_mask special = block_special(p + run);
        if (special) return run + block_first(special);
        run += BLOCK;
    }
    if (left == run) return run;
    if (c->end - c->begin >= BLOCK) {
        block_mask special = block_special_last(c->end, (unsigned)(left - run));
        return special ? run + block_first(special) : left;
    }
    while (run < left && p[run] != '"' && p[run] != '\\' && p[run] >= 0x20 && p[run] < 0x80) run++;
    return run;
}

/* memcpy for the short ends of strings: no call, no byte beyond either side. */
INLINE void copy_short(uint8_t *out, const uint8_t *p, size_t size) {
    if (size >= 16) {
        size_t at = 0;
        for (; size - at > 16; at += 16) memcpy(out + at, p + at, 16);
        memcpy(out + size - 16, p + size - 16, 16);
    } else if (size >= 8) {
        uint64_t first = load8(p), last = load8(p + size - 8);
        memcpy(out, &first, 8);
        memcpy(out + size - 8, &last, 8);
    } else if (size >= 4) {
        uint32_t first, last;
        memcpy(&first, p, 4);
        memcpy(&last, p + size - 4, 4);
        memcpy(out, &first, 4);
        memcpy(out + size - 4, &last, 4);
    } else if (size) {
        uint8_t first = p[0], middle = p[size >> 1], last = p[size - 1];
        out[0] = first;
        out[size >> 1] = middle;
        out[size - 1] = last;
    }
}

/* The rest of a string from `p` (inside it) to `out`, which has room to `limit`. */
NOINLINE const uint8_t *copy_text_rest(context *c, const uint8_t *p, uint8_t *out, const uint8_t *limit, uint8_t **stop) {
    for (;;) {
        while (c->end - p >= BLOCK && limit - out >= BLOCK) {
            block_mask special = block_copy(out, p);
            if (special) {
                unsigned n = block_first(special);
                p += n;
                out += n;
                goto at_special;
            }
            p += BLOCK;
            out += BLOCK;
        }
        size_t run = plain_run(c, p);
        if (run > (size_t)(limit - out)) return full(c);
        copy_short(out, p, run);
        p += run;
        out += run;
        if (p >= c->end) return broken(c, PF_REASON_TRUNCATED, p);
    at_special:
        if (*p == '"') {
            *stop = out;
            return p + 1;
        }
        if (*p == '\\') {
            uint32_t point;
            uint8_t bytes[4];
            p = read_escape(c, p, &point);
            if (!p) return NULL;
            unsigned size = put_utf8(bytes, point);
            if ((size_t)(limit - out) < size) return full(c);
            for (unsigned i = 0; i < size; i++) *out++ = bytes[i];
        } else if (*p < 0x20) {
            return refuse(c, PF_REASON_CONTROL, -1, p);
        } else {
            do {
                size_t size = pf_utf8_sequence(p, (size_t)(c->end - p), 0);
                if (size == 0) return refuse(c, PF_REASON_UTF8, -1, p);
                if ((size_t)(limit - out) < size) return full(c);
                for (size_t i = 0; i < size; i++) *out++ = *p++;
            } while (p < c->end && *p >= 0x80);
        }
    }
}

/* Copy the string whose first character is at `p` to `out`, which has room to `limit`; `stop` is where its copy ends. */
INLINE const uint8_t *copy_text(context *c, const uint8_t *p, uint8_t *out, const uint8_t *limit, uint8_t **stop) {
    if (likely(c->end - p >= BLOCK && limit - out >= BLOCK)) {
        block_mask special = block_copy(out, p);
        if (likely(special)) {
            unsigned n = block_first(special);
            if (likely(p[n] == '"')) {
                *stop = out + n;
                return p + n + 1;
            }
        } else {
            p += BLOCK;
            out += BLOCK;
        }
    }
    return copy_text_rest(c, p, out, limit, stop);
}

NOINLINE const uint8_t *skip_text_rest(context *c, const uint8_t *p, int *escaped) {
    for (;;) {
        p += plain_run(c, p);
        if (p >= c->end) return broken(c, PF_REASON_TRUNCATED, p);
        if (*p == '"') return p + 1;
        if (*p == '\\') {
            uint32_t point;
            *escaped = 1;
            p = read_escape(c, p, &point);
            if (!p) return NULL;
        } else if (*p < 0x20) {
            return refuse(c, PF_REASON_CONTROL, -1, p);
        } else {
            do {
                size_t size = pf_utf8_sequence(p, (size_t)(c->end - p), 0);
                if (size == 0) return refuse(c, PF_REASON_UTF8, -1, p);
                p += size;
            } while (p < c->end && *p >= 0x80);
        }
    }
}

/* Validate the string whose first character is at `p`; sets `escaped` when there is a backslash in it. */
INLINE const uint8_t *skip_text(context *c, const uint8_t *p, int *escaped) {
    if (likely(c->end - p >= BLOCK)) {
        block_mask special = block_special(p);
        if (likely(special)) {
            unsigned n = block_first(special);
            if (likely(p[n] == '"')) return p + n + 1;
            p += n;
        } else {
            p += BLOCK;
        }
    }
    return skip_text_rest(c, p, escaped);
}

/* The next character of validated text, escapes resolved; -1 at its end, and above 127 for what is not ASCII. */
INLINE int32_t next_character(context *c, const uint8_t **p, const uint8_t *end) {
    uint32_t point;
    if (*p == end) return -1;
    if (**p != '\\') return *(*p)++;
    *p = read_escape(c, *p, &point);
    return (int32_t)point;
}

/* Whether validated text [p, end) with escapes in it reads `wanted`. */
NOINLINE int text_equals(context *c, const uint8_t *p, const uint8_t *end, const char *wanted, size_t size) {
    size_t at = 0;
    while (p < end) {
        uint32_t point;
        uint8_t bytes[4];
        unsigned n = 1;
        if (*p == '\\') {
            p = read_escape(c, p, &point);
            n = put_utf8(bytes, point);
        } else {
            bytes[0] = *p++;
        }
        if (size - at < n || memcmp(wanted + at, bytes, n) != 0) return 0;
        at += n;
    }
    return at == size;
}

/* ---- skipping ------------------------------------------------------------------------------ */

INLINE const uint8_t *skip_digits(context *c, const uint8_t *p) {
    for (;;) {
        uint64_t stops = not_digits(peek8(c, p) ^ ZEROS);
        if (likely(stops)) return p + (__builtin_ctzll(stops) >> 3);
        p += 8;
    }
}

INLINE const uint8_t *skip_number(context *c, const uint8_t *p) {
    if (unlikely(*p == '-')) {
        p++;
        KEEP_BRANCH(p);
    }
    const uint8_t *digits = p;
    p = skip_digits(c, p);
    if (unlikely(p == digits)) return broken(c, PF_REASON_NUMBER, p);
    if (unlikely(*digits == '0' && p - digits > 1)) return refuse(c, PF_REASON_NUMBER, -1, digits + 1);
    if (p < c->end && *p == '.') {
        digits = ++p;
        p = skip_digits(c, p);
        if (unlikely(p == digits)) return broken(c, PF_REASON_NUMBER, p);
    }
    if (unlikely(p < c->end && (*p | 0x20) == 'e')) {
        p++;
        if (p < c->end && (*p == '+' || *p == '-')) p++;
        digits = p;
        p = skip_digits(c, p);
        if (p == digits) return broken(c, PF_REASON_NUMBER, p);
    }
    return p;
}

INLINE const uint8_t *skip_word(context *c, const uint8_t *p, const char *word, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (p + i >= c->end || p[i] != (uint8_t)word[i]) return broken(c, PF_REASON_SYNTAX, p + i);
    return p + size;
}

INLINE const uint8_t *skip_scalar(context *c, const uint8_t *p) {
    int escaped;
    switch (*p) {
    case '"': return skip_text(c, p + 1, &escaped);
    case 't': return skip_word(c, p, "true", 4);
    case 'f': return skip_word(c, p, "false", 5);
    case 'n': return skip_word(c, p, "null", 4);
    case '-': case '0': case '1': case '2': case '3': case '4': case '5': case '6': case '7': case '8': case '9':
        return skip_number(c, p);
    default: return refuse(c, PF_REASON_SYNTAX, -1, p);
    }
}

/* An object's key and its colon; `p` may stand before white space. */
NOINLINE const uint8_t *skip_key(context *c, const uint8_t *p) {
    int escaped;
    p = skip_space(p, c->end);
    if (p >= c->end || *p != '"') return broken(c, PF_REASON_SYNTAX, p);
    p = skip_text(c, p + 1, &escaped);
    if (!p) return NULL;
    p = skip_space(p, c->end);
    if (p >= c->end || *p != ':') return broken(c, PF_REASON_SYNTAX, p);
    return p + 1;
}

/* Validate the array or object at `p`, itself `depth` deep.  A bit for each open one says which it is. */
NOINLINE const uint8_t *skip_nested(context *c, const uint8_t *p, unsigned depth) {
    uint64_t objects[PF_JSON_DEPTH / 64 + 1];
    unsigned open = 0;
    for (;;) { /* p stands at a value */
        if (*p == '{' || *p == '[') {
            unsigned level = depth + open;
            if (level > PF_JSON_DEPTH) return refuse(c, PF_REASON_DEPTH, -1, p);
            uint64_t bit = 1ull << (open % 64);
            int object = *p == '{';
            if (open % 64 == 0) objects[open / 64] = 0;
            objects[open / 64] = object ? objects[open / 64] | bit : objects[open / 64] & ~bit;
            open++;
            p = skip_space(p + 1, c->end);
            if (p >= c->end) return broken(c, PF_REASON_TRUNCATED, p);
            if (*p != (object ? '}' : ']')) {
                if (object) {
                    p = skip_key(c, p);
                    if (!p) return NULL;
                    p = skip_space(p, c->end);
                    if (p >= c->end) return broken(c, PF_REASON_TRUNCATED, p);
                }
                continue;
            }
            p++;
            open--;
        } else {
            p = skip_scalar(c, p);
            if (!p) return NULL;
        }
        for (;;) { /* p stands after a value */
            if (open == 0) return p;
            int object = (int)(objects[(open - 1) / 64] >> ((open - 1) % 64) & 1);
            p = skip_space(p, c->end);
            if (p < c->end && *p == ',') {
                p++;
                if (object) {
                    p = skip_key(c, p);
                    if (!p) return NULL;
                }
                p = skip_space(p, c->end);
                if (p >= c->end) return broken(c, PF_REASON_TRUNCATED, p);
                break;
            }
            if (p >= c->end || *p != (object ? '}' : ']')) return broken(c, PF_REASON_SYNTAX, p);
            p++;
            open--;
        }
    }
}

/* Validate the value at `p` (p < end), which stands in a container `depth` deep. */
INLINE const uint8_t *skip_value(context *c, const uint8_t *p, unsigned depth) {
    return *p == '{' || *p == '[' ? skip_nested(c, p, depth + 1) : skip_scalar(c, p);
}

/* A value of another type than the column's, or no value at all. */
COLD const uint8_t *wrong_type(context *c, int32_t column, const uint8_t *p, unsigned depth) {
    const uint8_t *stop = skip_value(c, p, depth);
    if (!stop) return NULL;
    uint8_t found = PF_FOUND_INT;
    switch (*p) {
    case '"': found = PF_FOUND_STR; break;
    case '{': found = PF_FOUND_OBJECT; break;
    case '[': found = PF_FOUND_ARRAY; break;
    case 'n': found = PF_FOUND_NULL; break;
    case 't': case 'f': found = PF_FOUND_BOOL; break;
    default:
        for (const uint8_t *at = p; at < stop; at++)
            if (*at == '.' || (*at | 0x20) == 'e') found = PF_FOUND_FLOAT;
    }
    refuse(c, PF_REASON_TYPE, column, p);
    c->why->found = found;
    return NULL;
}

/* ---- numbers ------------------------------------------------------------------------------- */

enum {
    INTEGER = 0,
    TOO_LARGE = 1,  /* above UINT64_MAX */
    NO_INTEGER = 2, /* no digits, or a leading zero; a float is only known by what follows */
};

/* Digits from `p` on; `magnitude` is valid for INTEGER. */
INLINE const uint8_t *read_magnitude(context *c, const uint8_t *p, uint64_t *magnitude, int *what) {
    uint64_t word = peek8(c, p) ^ ZEROS;
    uint64_t stops = not_digits(word);
    int zero_first = (word & 0xFF) == 0;
    *what = INTEGER;
    if (stops) {
        unsigned n = (unsigned)__builtin_ctzll(stops) >> 3;
        if (unlikely(n == 0 || (zero_first && n > 1))) {
            *what = NO_INTEGER;
            return p;
        }
        *magnitude = eight_digits(word << (64 - 8 * n));
        return p + n;
    }
    if (unlikely(zero_first)) {
        *what = NO_INTEGER;
        return p;
    }
    uint64_t value = eight_digits(word);
    p += 8;
    word = peek8(c, p) ^ ZEROS;
    stops = not_digits(word);
    if (likely(stops)) {
        unsigned n = (unsigned)__builtin_ctzll(stops) >> 3;
        /* Two shifts, because one of 64 is undefined. */
        *magnitude = value * ten_to[n] + eight_digits(word << 1 << (63 - 8 * n));
        return p + n;
    }
    value = value * 100000000 + eight_digits(word);
    p += 8;
    for (; p < c->end && (uint8_t)(*p - '0') <= 9; p++) {
        if (unlikely(__builtin_mul_overflow(value, (uint64_t)10, &value) ||
                     __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value)))
            *what = TOO_LARGE;
    }
    *magnitude = value;
    return p;
}

/* Any number as a double, the long way. */
NOINLINE const uint8_t *read_long_double(context *c, int32_t column, const uint8_t *p, unsigned depth, double *value) {
    pf_json_number number;
    if (*p != '-' && (uint8_t)(*p - '0') > 9) return wrong_type(c, column, p, depth);
    const uint8_t *stop = pf_json_number_read(p, c->end, &number);
    if (stop) return broken(c, PF_REASON_NUMBER, stop);
    *value = pf_json_number_double(&number);
    if (*value - *value != 0.0) return refuse(c, PF_REASON_RANGE, column, p);
    return number.end;
}

/* A number as a double.  Up to 19 digits without an exponent are settled here: exactly, where both the
 * digits and the power of ten are doubles (William Clinger, "How to Read Floating Point Numbers
 * Accurately", 1990), else by pf_json_decimal_double. */
INLINE const uint8_t *read_double(context *c, int32_t column, const uint8_t *begin, unsigned depth, double *value) {
    const uint8_t *p = begin;
    int negative = 0;
    if (unlikely(*p == '-')) {
        negative = 1;
        p++;
        KEEP_BRANCH(p);
    }
#ifdef WIDE_DECIMAL
    if (likely(c->end - p >= 16)) {
        unsigned whole, size;
        uint64_t digits = wide_decimal(p, &whole, &size);
        if (likely(whole - 1 < 15 && size < 16 && size != whole + 1 && (*p != '0' || whole == 1) && (p[size] | 0x20) != 'e')) {
            unsigned fraction = size == whole ? 0 : size - whole - 1;
            double result = (double)digits / double_ten_to[fraction];
            *value = negative && (digits != 0 || size != whole) ? -result : result; /* the integer -0 is 0.0 */
            return p + size;
        }
    }
#endif
    uint64_t word = peek8(c, p) ^ ZEROS;
    uint64_t stops = not_digits(word);
    int zero_first = (word & 0xFF) == 0;
    uint64_t mantissa = 0;
    unsigned digits = 0;
    if (unlikely(!stops)) {
        mantissa = eight_digits(word);
        p += 8;
        digits = 8;
        word = peek8(c, p) ^ ZEROS;
        stops = not_digits(word);
        if (unlikely(!stops)) return read_long_double(c, column, begin, depth, value);
    }
    unsigned first = (unsigned)__builtin_ctzll(stops) >> 3;
    digits += first;
    if (unlikely(digits == 0 || (zero_first && digits > 1))) return read_long_double(c, column, begin, depth, value);
    /* Two shifts, because one of 64 is undefined. */
    mantissa = mantissa * ten_to[first] + eight_digits(word << 1 << (63 - 8 * first));
    p += first;
    if (p < c->end && *p == '.') {
        p++;
        word = peek8(c, p) ^ ZEROS;
        stops = not_digits(word);
        unsigned fraction;
        if (likely(stops)) {
            fraction = (unsigned)__builtin_ctzll(stops) >> 3;
            if (unlikely(fraction == 0)) return broken(c, PF_REASON_NUMBER, p);
            mantissa = mantissa * ten_to[fraction] + eight_digits(word << (64 - 8 * fraction));
            p += fraction;
        } else {
            uint64_t eight = eight_digits(word);
            p += 8;
            word = peek8(c, p) ^ ZEROS;
            stops = not_digits(word);
            if (unlikely(!stops)) return read_long_double(c, column, begin, depth, value);
            unsigned more = (unsigned)__builtin_ctzll(stops) >> 3;
            fraction = 8 + more;
            p += more;
            mantissa = (mantissa * 100000000 + eight) * ten_to[more] + eight_digits(word << 1 << (63 - 8 * more));
        }
        if (unlikely(digits + fraction > 19)) return read_long_double(c, column, begin, depth, value);
        if (unlikely(p < c->end && (*p | 0x20) == 'e')) return read_long_double(c, column, begin, depth, value);
        double result;
        if (likely(mantissa <= 1ull << 53)) {
            result = (double)mantissa / double_ten_to[fraction];
        } else if (!pf_json_decimal_double(mantissa, -(int64_t)fraction, &result)) {
            return read_long_double(c, column, begin, depth, value);
        }
        *value = negative ? -result : result;
        return p;
    }
    if (unlikely(p < c->end && (*p | 0x20) == 'e')) return read_long_double(c, column, begin, depth, value);
    *value = negative ? (double)-(int64_t)mantissa : (double)mantissa; /* the integer -0 is 0.0 */
    return p;
}

/* ---- values of any column ------------------------------------------------------------------ */

static const uint8_t *read_object(context *c, pf_json_struct *target, const uint8_t *p, uint64_t i, unsigned depth);
static const uint8_t *read_value(context *c, uint32_t column, const uint8_t *p, uint64_t i, unsigned depth);

NOINLINE const uint8_t *read_integer_column(context *c, uint32_t column, const uint8_t *begin, uint64_t i, unsigned depth) {
    uint64_t magnitude;
    int what, negative = *begin == '-';
    const uint8_t *p = read_magnitude(c, begin + negative, &magnitude, &what);
    if (unlikely(what == NO_INTEGER || (p < c->end && (*p == '.' || (*p | 0x20) == 'e'))))
        return wrong_type(c, (int32_t)column, begin, depth);
    if (unlikely(what == TOO_LARGE || (negative && magnitude > 1ull << 63)))
        return refuse(c, PF_REASON_RANGE, (int32_t)column, begin);
    int stored = negative ? pf_store_int(c->json->plan, c->batch, column, i, (int64_t)(0 - magnitude))
                          : pf_store_uint(c->json->plan, c->batch, column, i, magnitude);
    return likely(stored == PF_STORED) ? p : not_stored(c, stored, column, begin);
}

NOINLINE const uint8_t *read_text_column(context *c, uint32_t column, const uint8_t *p, uint64_t i) {
    uint64_t room;
    uint8_t *stop, *out = pf_text_space(c->batch, column, i, &room);
    const uint8_t *after = copy_text(c, p + 1, out, out + room, &stop);
    if (!after) return NULL;
    int stored = pf_text_close(c->json->plan, c->batch, column, i, (uint64_t)(stop - out));
    return likely(stored == PF_STORED) ? after : not_stored(c, stored, column, p);
}

/* msgspec's base64: the standard alphabet, padded, no white space; bits beyond the last byte are not looked at. */
INLINE int base64_value(int32_t ch) {
    if (ch >= 'A' && ch <= 'Z') return ch - 'A';
    if (ch >= 'a' && ch <= 'z') return ch - 'a' + 26;
    if (ch >= '0' && ch <= '9') return ch - '0' + 52;
    return ch == '+' ? 62 : ch == '/' ? 63 : -1;
}

NOINLINE const uint8_t *read_bytes_column(context *c, uint32_t column, const uint8_t *p, uint64_t i) {
    int escaped = 0;
    const uint8_t *after = skip_text(c, p + 1, &escaped);
    if (!after) return NULL;
    uint64_t room;
    uint8_t *out = pf_text_space(c->batch, column, i, &room);
    const uint8_t *at = p + 1, *end = after - 1;
    uint64_t size = 0;
    for (;;) {
        int32_t ch[4];
        ch[0] = next_character(c, &at, end);
        if (ch[0] < 0) break;
        for (int k = 1; k < 4; k++) ch[k] = next_character(c, &at, end);
        int padding = ch[3] == '=' && at == end ? (ch[2] == '=' ? 2 : 1) : 0;
        uint32_t bits = 0;
        for (int k = 0; k < 4; k++) {
            int value = k < 4 - padding ? base64_value(ch[k]) : 0;
            if (value < 0) return refuse(c, PF_REASON_BASE64, (int32_t)column, p);
            bits = bits << 6 | (uint32_t)value;
        }
        if (room - size < 3u - (unsigned)padding) return full(c);
        for (int k = 0; k < 3 - padding; k++) out[size++] = (uint8_t)(bits >> (16 - 8 * k));
    }
    int stored = pf_text_close(c->json->plan, c->batch, column, i, size);
    return likely(stored == PF_STORED) ? after : not_stored(c, stored, column, p);
}

NOINLINE const uint8_t *read_datetime_column(context *c, uint32_t column, const uint8_t *p, uint64_t i) {
    int escaped = 0, aware;
    int64_t micros;
    const uint8_t *after = skip_text(c, p + 1, &escaped);
    if (!after) return NULL;
    const uint8_t *text = p + 1;
    size_t size = (size_t)(after - 1 - text);
    uint8_t plain[64];
    if (unlikely(escaped)) {
        /* Escapes resolved into a buffer that every datetime fits, because the digits of the fraction
         * (from index 20) that do not matter, all after the seventh, are dropped. */
        size_t used = 0;
        int fraction = 1;
        const uint8_t *at = text, *end = after - 1;
        for (int32_t ch; (ch = next_character(c, &at, end)) >= 0;) {
            int digit = ch >= '0' && ch <= '9';
            if (used >= 20) fraction &= digit;
            if (used == 27 && fraction) continue;
            if (ch > 127 || used == sizeof plain) return refuse(c, PF_REASON_DATETIME, (int32_t)column, p);
            plain[used++] = (uint8_t)ch;
        }
        text = plain;
        size = used;
    }
    if (!pf_rfc3339_parse(text, size, &micros, &aware)) return refuse(c, PF_REASON_DATETIME, (int32_t)column, p);
    int stored = pf_store_datetime(c->json->plan, c->batch, column, i, micros, aware);
    return likely(stored == PF_STORED) ? after : not_stored(c, stored, column, p);
}

NOINLINE const uint8_t *read_list_column(context *c, uint32_t column, const uint8_t *begin, uint64_t i, unsigned depth) {
    uint64_t value = pf_list_begin(c->batch, column, i);
    if (depth > PF_JSON_DEPTH) return refuse(c, PF_REASON_DEPTH, (int32_t)column, begin);
    const uint8_t *p = skip_space(begin + 1, c->end);
    if (p < c->end && *p == ']') {
        p++;
    } else {
        for (;;) {
            if (p >= c->end) return broken(c, PF_REASON_TRUNCATED, p);
            if (!pf_list_has_room(c->batch, column, value)) return full(c);
            p = read_value(c, column + 1, p, value, depth);
            if (!p) return NULL;
            value++;
            p = skip_space(p, c->end);
            if (p < c->end && *p == ',') {
                p = skip_space(p + 1, c->end);
                continue;
            }
            if (p < c->end && *p == ']') {
                p++;
                break;
            }
            return broken(c, PF_REASON_SYNTAX, p);
        }
    }
    int stored = pf_list_close(c->json->plan, c->batch, column, i, value);
    return likely(stored == PF_STORED) ? p : not_stored(c, stored, column, begin);
}

/* Store the value at `p` (p < end, no white space) as value i of a column; the container around it is `depth` deep. */
NOINLINE const uint8_t *read_value(context *c, uint32_t column, const uint8_t *p, uint64_t i, unsigned depth) {
    const pf_columns *batch = c->batch;
    const pf_column *node = &batch->columns[column];
    if (unlikely(*p == 'n' && node->nullable == PF_NULLABLE)) {
        p = skip_word(c, p, "null", 4);
        if (p) pf_store_null(batch, column, i);
        return p;
    }
    switch (node->kind) {
    case PF_BOOL: {
        const uint8_t *after = NULL;
        if (*p == 't') {
            after = skip_word(c, p, "true", 4);
        } else if (*p == 'f') {
            after = skip_word(c, p, "false", 5);
        } else {
            break;
        }
        if (after) pf_store_bool(batch, column, i, *p == 't');
        return after;
    }
    case PF_INT8: case PF_INT16: case PF_INT32: case PF_INT64:
    case PF_UINT8: case PF_UINT16: case PF_UINT32: case PF_UINT64:
        return read_integer_column(c, column, p, i, depth);
    case PF_FLOAT32:
    case PF_FLOAT64: {
        double value;
        const uint8_t *after = read_double(c, (int32_t)column, p, depth, &value);
        if (!after) return NULL;
        int stored = pf_store_float(c->json->plan, batch, column, i, value);
        return likely(stored == PF_STORED) ? after : not_stored(c, stored, column, p);
    }
    case PF_STRING:
        if (*p == '"') return read_text_column(c, column, p, i);
        break;
    case PF_BYTES:
        if (*p == '"') return read_bytes_column(c, column, p, i);
        break;
    case PF_DATETIME:
        if (*p == '"') return read_datetime_column(c, column, p, i);
        break;
    case PF_RAW: {
        const uint8_t *after = skip_value(c, p, depth);
        if (!after) return NULL;
        int stored = pf_store_text(c->json->plan, batch, column, i, p, (uint64_t)(after - p));
        return likely(stored == PF_STORED) ? after : not_stored(c, stored, column, p);
    }
    case PF_LIST:
        if (*p == '[') return read_list_column(c, column, p, i, depth + 1);
        break;
    case PF_STRUCT:
        if (*p == '{') {
            if (depth + 1 > PF_JSON_DEPTH) return refuse(c, PF_REASON_DEPTH, (int32_t)column, p);
            p = read_object(c, &c->json->structs[c->json->plan->struct_of[column]], p + 1, i, depth + 1);
            if (p) pf_mark_valid(batch, column, i);
            return p;
        }
        break;
    }
    return wrong_type(c, (int32_t)column, p, depth);
}

/* ---- objects ------------------------------------------------------------------------------- */

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
        if (k == PF_JSON_NO_KEY) return NULL;
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

#ifdef QUOTE_BITS
#include "json_scatter.h"
#else
INLINE const uint8_t *read_row(context *c, pf_json_struct *target, const uint8_t *p) {
    return read_object(c, target, p, c->batch->rows, 1);
}
#endif

INLINE int decode_payload(pf_decoder *self, pf_columns *batch, const uint8_t *payload, size_t size, pf_refusal *why) {
    const pf_json *json = (const pf_json *)self;
    context c = {payload, payload + size, batch, json, why, PF_REFUSED};
    if (unlikely(batch->rows >= batch->capacity)) return PF_FULL;
    if (unlikely(payload == NULL || size == 0)) {
        c.begin = c.end = payload;
        refuse(&c, payload == NULL ? PF_REASON_NULL : PF_REASON_EMPTY, -1, payload);
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
