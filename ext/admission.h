/* How many messages the next batch may take in: what a handler's source is held back by on purpose.
 *
 * The gate is set by the completion thread (runtime/flow.py): open, closed, or a number of messages that one batch may
 * have, which closes it again.  The rate limit is counted here.  Both are asked when a batch is opened and not for each
 * message, so a batch that is open when the gate closes is still filled and published: it belongs to what is in hand.
 */
#ifndef PYTHIA_ADMISSION_H
#define PYTHIA_ADMISSION_H

#include "atomics.h"
#include "token_bucket.h"

#define PF_GATE_CLOSED 0u
#define PF_GATE_OPEN 0xffffffffu

typedef struct {
    uint32_t gate;        /* PF_GATE_..., or messages of one batch */
    pf_token_bucket rate; /* intake thread only */
    uint64_t rate_waits;  /* times that a batch had to wait for the rate limit; read by other threads */
} pf_admission;

/* Messages that a batch of at most `most` may have; 0: it may not be opened. */
static inline uint32_t pf_admit(pf_admission *admission, uint32_t most) {
    uint32_t gate = pf_load(&admission->gate);
    if (gate == PF_GATE_CLOSED) return 0;
    if (gate < most) most = gate;
    if (admission->rate.per_ns != 0) {
        most = pf_bucket_take(&admission->rate, pf_now_ns(), most);
        if (most == 0) {
            pf_store64(&admission->rate_waits, admission->rate_waits + 1);
            return 0;
        }
    }
    if (gate == PF_GATE_OPEN || pf_exchange_if(&admission->gate, gate, PF_GATE_CLOSED)) return most;
    pf_bucket_give_back(&admission->rate, most); /* the gate was set anew meanwhile: asked again soon */
    return 0;
}

/* The batch was published without so many of the messages that it could have had. */
static inline void pf_admitted_too_many(pf_admission *admission, uint32_t messages) {
    pf_bucket_give_back(&admission->rate, messages);
}

/* Nanoseconds until pf_admit may say yes; 0: now.  UINT64_MAX: when the gate is set. */
static inline uint64_t pf_admission_wait_ns(pf_admission *admission) {
    if (pf_load(&admission->gate) == PF_GATE_CLOSED) return UINT64_MAX;
    return admission->rate.per_ns == 0 ? 0 : pf_bucket_wait_ns(&admission->rate, pf_now_ns());
}

#endif
