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

static inline block_mask block_drop(block_mask mask, unsigned n) { return mask >> n; }

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

static inline block_mask block_copy(uint8_t *out, const uint8_t *p) {
    __m256i bytes = _mm256_loadu_si256((const __m256i *)p);
    _mm256_storeu_si256((__m256i *)out, bytes);
    return block_special_of(bytes);
}

static inline int block_literal(const uint8_t *p, const pf_json_key *key) {
    __m256i bytes = _mm256_loadu_si256((const __m256i *)p);
    __m256i equal = _mm256_cmpeq_epi8(bytes, _mm256_load_si256((const __m256i *)key->literal));
    return (~(uint32_t)_mm256_movemask_epi8(equal) & key->mask) == 0;
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
