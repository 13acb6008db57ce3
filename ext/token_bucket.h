/* A token bucket: how many rows may be taken now, so that they are `per_ns` of them a nanosecond in the long run.
 *
 * Pure: the caller tells the time.  Tokens are taken a batch at a time, `grain` of them or fewer, and those of a batch
 * that was not filled are given back.  What nobody takes is kept up to `burst`; the rest is lost, so that a source which
 * was quiet is not made up for afterwards.
 */
#ifndef PYTHIA_TOKEN_BUCKET_H
#define PYTHIA_TOKEN_BUCKET_H

#include <stdint.h>

typedef struct {
    double per_ns;        /* tokens that come in a nanosecond; 0: there is no limit */
    double burst;
    double tokens;
    uint32_t grain;       /* tokens of one batch: it is waited for that many */
    uint64_t refilled_ns; /* when `tokens` was counted; 0: never */
} pf_token_bucket;

#define PF_BUCKET_BURST_S 0.1  /* tokens of so many seconds are kept: a hundredth of ten seconds */
#define PF_BUCKET_GRAIN_S 0.02 /* and a batch gets those of so many: few beside the burst */

/* `lanes`: batches that are filled side by side, each with tokens of its own. */
static inline void pf_bucket_init(pf_token_bucket *bucket, double rows_per_s, uint32_t most, uint32_t lanes) {
    *bucket = (pf_token_bucket){.per_ns = rows_per_s * 1e-9};
    double grain = rows_per_s * PF_BUCKET_GRAIN_S / lanes;
    bucket->grain = grain < 1 ? 1 : grain > most ? most : (uint32_t)grain;
    bucket->burst = rows_per_s * PF_BUCKET_BURST_S;
    if (bucket->burst < bucket->grain) bucket->burst = bucket->grain;
}

static inline void pf_bucket_refill(pf_token_bucket *bucket, uint64_t now_ns) {
    if (bucket->refilled_ns == 0) bucket->tokens = bucket->burst;
    else if (now_ns > bucket->refilled_ns) bucket->tokens += (double)(now_ns - bucket->refilled_ns) * bucket->per_ns;
    if (bucket->tokens > bucket->burst) bucket->tokens = bucket->burst;
    bucket->refilled_ns = now_ns;
}

/* Nanoseconds until a batch can have its tokens; 0: now. */
static inline uint64_t pf_bucket_wait_ns(pf_token_bucket *bucket, uint64_t now_ns) {
    if (bucket->per_ns == 0) return 0;
    pf_bucket_refill(bucket, now_ns);
    double missing = bucket->grain - bucket->tokens;
    if (missing <= 0) return 0;
    double wait_ns = missing / bucket->per_ns;
    return wait_ns < 1e18 ? (uint64_t)wait_ns + 1 : (uint64_t)1e18;
}

/* The rows that a batch of at most `most` may have; 0: none yet. */
static inline uint32_t pf_bucket_take(pf_token_bucket *bucket, uint64_t now_ns, uint32_t most) {
    if (bucket->per_ns == 0) return most;
    if (pf_bucket_wait_ns(bucket, now_ns) > 0) return 0;
    uint32_t rows = most < bucket->grain ? most : bucket->grain;
    bucket->tokens -= rows;
    return rows;
}

/* Of the rows that were taken so many did not come. */
static inline void pf_bucket_give_back(pf_token_bucket *bucket, uint32_t rows) {
    if (bucket->per_ns != 0) bucket->tokens += rows;
}

#endif
