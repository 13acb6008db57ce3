/* Which row has been in hand for longest: asked by the thread that watches a run, which owns no slot.
 *
 * The scan reads words that others write.  What it tells of a slot is of one batch all the same: `opened_ns` is written
 * before `n_partitions` counts the first entry and differs from batch to batch, so a slot that changed hands during the
 * look is known by it, and looked at again.
 */
#ifndef PYTHIA_OLDEST_H
#define PYTHIA_OLDEST_H

#include "ring.h"

typedef struct {
    uint32_t slot;
    uint32_t state;
    uint32_t worker;       /* of a batch that was published */
    uint32_t partition;    /* of its first row */
    int64_t first_offset;
    uint64_t opened_ns;    /* CLOCK_MONOTONIC when that row was taken in */
    uint64_t due_ns;       /* of a batch that is parked */
    uint32_t rows;         /* once it is decoded */
    uint32_t round;        /* that it is in, or waits for: rows whose word tells that one or a later one are not done */
} pf_oldest_row;

/* 0: the slot holds no row. */
static int pf_look_at_slot(pf_arena *arena, uint32_t index, pf_oldest_row *seen) {
    pf_slot *slot = pf_slot_at(arena, index);
    for (;;) {
        uint32_t state = pf_load(&slot->state);
        if (state == PF_SLOT_FREE || pf_load(&slot->n_partitions) == 0) return 0;
        uint64_t opened_ns = pf_load64(&slot->opened_ns);
        int waits = state == PF_SLOT_PARKED || state == PF_SLOT_WAITING;
        const pf_slot_partition *first = pf_slot_partitions(arena, slot);
        *seen = (pf_oldest_row){
            index, state, slot->worker, first->partition, first->first_offset, opened_ns,
            slot->due_ns, slot->rows, waits ? slot->waits_from : slot->round,
        };
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (pf_load(&slot->n_partitions) != 0 && pf_load64(&slot->opened_ns) == opened_ns) return 1;
    }
}

/* 0: there is no row in hand. */
static int pf_oldest(pf_arena *arena, pf_oldest_row *oldest) {
    pf_oldest_row seen;
    int found = 0;
    *oldest = (pf_oldest_row){0};
    for (uint32_t i = 0; i < arena->n_slots; i++)
        if (pf_look_at_slot(arena, i, &seen) && (!found || seen.opened_ns < oldest->opened_ns)) {
            *oldest = seen;
            found = 1;
        }
    return found;
}

#endif
