/* JSON kernel: its macros, what its functions hand round, refusing, and words of digits. */
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
