/* The JSON kernel with AVX2, 32 bytes at a time: pf_json_kernel hands it out only to processors that have it. */
#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,bmi,bmi2"))), apply_to = function)
#else
#pragma GCC target("avx2,bmi,bmi2")
#endif

#include <immintrin.h>
#include <stdint.h>

#include "json_decoder.h"

#define BLOCK 32
typedef uint32_t block_mask;

static inline unsigned block_first(block_mask mask) { return (unsigned)__builtin_ctz(mask); }

/* As signed bytes, controls and everything above ASCII are below the space. */
static inline block_mask block_special_of(__m256i bytes) {
    __m256i quotes = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8('"'));
    __m256i backslashes = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8('\\'));
    __m256i others = _mm256_cmpgt_epi8(_mm256_set1_epi8(' '), bytes);
    return (block_mask)_mm256_movemask_epi8(_mm256_or_si256(_mm256_or_si256(quotes, backslashes), others));
}

static inline block_mask block_special(const uint8_t *p) {
    return block_special_of(_mm256_loadu_si256((const __m256i *)p));
}

static inline block_mask block_special_last(const uint8_t *end, unsigned n) {
    return block_special(end - 32) >> (32 - n);
}

static inline block_mask block_copy(uint8_t *out, const uint8_t *p) {
    __m256i bytes = _mm256_loadu_si256((const __m256i *)p);
    _mm256_storeu_si256((__m256i *)out, bytes);
    return block_special_of(bytes);
}

typedef struct {
    __m256i bytes;
} other_bytes;

static inline int any_other(const other_bytes *others) { return _mm256_movemask_epi8(others->bytes) != 0; }

/* A bit for each quote in 64 bytes, which are copied; `others` is told of whatever else is special. */
static inline __attribute__((always_inline)) uint64_t quote_bits(const uint8_t *p, uint8_t *copy, other_bytes *others) {
    __m256i low = _mm256_loadu_si256((const __m256i *)p), high = _mm256_loadu_si256((const __m256i *)(p + 32));
    __m256i quote = _mm256_set1_epi8('"'), backslash = _mm256_set1_epi8('\\'), space = _mm256_set1_epi8(' ');
    _mm256_storeu_si256((__m256i *)copy, low);
    _mm256_storeu_si256((__m256i *)(copy + 32), high);
    __m256i backslashes = _mm256_or_si256(_mm256_cmpeq_epi8(low, backslash), _mm256_cmpeq_epi8(high, backslash));
    __m256i outside = _mm256_or_si256(_mm256_cmpgt_epi8(space, low), _mm256_cmpgt_epi8(space, high));
    others->bytes = _mm256_or_si256(others->bytes, _mm256_or_si256(backslashes, outside));
    return (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(low, quote)) |
           (uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(high, quote)) << 32;
}

static inline int block_literal(const uint8_t *p, const pf_json_key *key) {
    __m256i bytes = _mm256_loadu_si256((const __m256i *)p);
    __m256i equal = _mm256_cmpeq_epi8(bytes, _mm256_load_si256((const __m256i *)key->literal));
    return (~(uint32_t)_mm256_movemask_epi8(equal) & key->mask) == 0;
}

/* A shuffle mask at right_align + n moves the first n bytes to the right end; zeros come in at the left. */
static const int8_t right_align[32] = {-128, -128, -128, -128, -128, -128, -128, -128, -128, -128, -128,
                                       -128, -128, -128, -128, -128, 0,    1,    2,    3,    4,    5,
                                       6,    7,    8,    9,    10,   11,   12,   13,   14,   15};

static inline __m128i alignment(unsigned n) { return _mm_loadu_si128((const __m128i *)(right_align + n)); }

/* Value of sixteen digits (bytes 0 to 9): neighbours are joined four times. */
static inline uint64_t join_digits(__m128i digits) {
    __m128i pairs = _mm_maddubs_epi16(digits, _mm_set1_epi16(1 << 8 | 10));
    __m128i fours = _mm_madd_epi16(pairs, _mm_set1_epi32(1 << 16 | 100));
    __m128i eights = _mm_madd_epi16(_mm_packus_epi32(fours, fours), _mm_set1_epi32(1 << 16 | 10000));
    uint64_t halves = (uint64_t)_mm_cvtsi128_si64(eights);
    return (halves & 0xFFFFFFFFu) * 100000000 + (halves >> 32);
}

/* Bits for the bytes of `values` that are above 9, and one beyond the sixteenth. */
static inline uint32_t above_nine(__m128i values) {
    __m128i nine = _mm_set1_epi8(9);
    return ~(uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_max_epu8(values, nine), nine));
}

#define WIDE_DECIMAL 1
#define SHORT_DIGITS 16

/* The digits at the front of p[0 .. 16): how many (up to 16), and their value. */
static inline __attribute__((always_inline)) uint64_t short_digits(const uint8_t *p, unsigned *count) {
    __m128i values = _mm_sub_epi8(_mm_loadu_si128((const __m128i *)p), _mm_set1_epi8('0'));
    *count = (unsigned)__builtin_ctz(above_nine(values));
    return join_digits(_mm_shuffle_epi8(values, alignment(*count)));
}

/* The same for digits with at most one point among them.  `whole` digits stand before it (all, when there is
 * none); `size` bytes are digits and point, 16 at most. */
static inline uint64_t wide_decimal(const uint8_t *p, unsigned *whole, unsigned *size) {
    __m128i values = _mm_sub_epi8(_mm_loadu_si128((const __m128i *)p), _mm_set1_epi8('0'));
    uint32_t stops = above_nine(values);
    *whole = (unsigned)__builtin_ctz(stops);
    uint32_t later = stops & (stops - 1);
    unsigned end = later & 0xFFFF ? (unsigned)__builtin_ctz(later) : 16;
    int point = *whole < 16 && p[*whole] == '.';
    *size = point ? end : *whole;
    /* What stands before the point moves one byte further to the right, over the point. */
    __m128i after = alignment(*size);
    __m128i before = _mm_subs_epi8(after, _mm_set1_epi8((char)point));
    __m128i is_after = _mm_cmpgt_epi8(after, _mm_set1_epi8((char)*whole));
    return join_digits(_mm_shuffle_epi8(values, _mm_blendv_epi8(before, after, is_after)));
}

#include "json_kernel.h"

int pf_json_decode_avx2(pf_decoder *self, pf_columns *batch, const uint8_t *payload, size_t size, pf_refusal *why) {
    return decode_payload(self, batch, payload, size, why);
}

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else
typedef int pf_json_avx2_is_for_x86_64;
#endif
