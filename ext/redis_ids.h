/* The ids of one stream's entries that were handed on and are not acknowledged yet, in the order of their offsets.
 *
 *     acked ......... sent ......... committed ......... end
 *       |  XACK is on its way |  done  |   being handled    |
 *
 * A chain of blocks: the intake thread appends at `end`, the keeper's thread (which acknowledges) takes off the front and
 * frees the blocks.  Nothing below `end` is written any more, and a block is freed only once `end` lies in a later one,
 * so they need no lock.  It holds no more than what the arena holds and what waits for the next XACK. */
#ifndef PYTHIA_REDIS_IDS_H
#define PYTHIA_REDIS_IDS_H

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#define PF_REDIS_IDS_BLOCK 4096

typedef struct {
    uint64_t ms, seq;
} pf_redis_id;

typedef struct pf_redis_ids_block pf_redis_ids_block;
struct pf_redis_ids_block {
    pf_redis_ids_block *_Atomic next;
    int64_t first; /* position of ids[0] */
    pf_redis_id ids[PF_REDIS_IDS_BLOCK];
};

typedef struct {
    /* The intake thread's. */
    pf_redis_ids_block *tail;
    _Atomic int64_t end; /* position of the next entry */
    /* The keeper's. */
    pf_redis_ids_block *head; /* has the id at `acked`, or ends there */
    int64_t acked;
    int64_t sent;
} pf_redis_ids;

static inline int pf_redis_ids_init(pf_redis_ids *self)
{
    *self = (pf_redis_ids){.head = calloc(1, sizeof(pf_redis_ids_block))};
    self->tail = self->head;
    return self->head == NULL;
}

static inline void pf_redis_ids_free(pf_redis_ids *self)
{
    while (self->head != NULL) {
        pf_redis_ids_block *next = atomic_load(&self->head->next);
        free(self->head);
        self->head = next;
    }
}

static inline int64_t pf_redis_ids_end(pf_redis_ids *self)
{
    return atomic_load_explicit(&self->end, memory_order_acquire);
}

static inline int pf_redis_ids_is_full(const pf_redis_ids_block *block, int64_t position)
{
    return position - block->first >= PF_REDIS_IDS_BLOCK;
}

/* Room for one more; 0 when there is no memory. */
static inline int pf_redis_ids_reserve(pf_redis_ids *self)
{
    int64_t end = atomic_load_explicit(&self->end, memory_order_relaxed);
    if (!pf_redis_ids_is_full(self->tail, end) || atomic_load_explicit(&self->tail->next, memory_order_relaxed) != NULL)
        return 1;
    pf_redis_ids_block *block = malloc(sizeof *block);
    if (block == NULL)
        return 0;
    atomic_init(&block->next, NULL);
    block->first = end;
    atomic_store_explicit(&self->tail->next, block, memory_order_release);
    return 1;
}

/* After pf_redis_ids_reserve. */
static inline void pf_redis_ids_append(pf_redis_ids *self, uint64_t ms, uint64_t seq)
{
    int64_t end = atomic_load_explicit(&self->end, memory_order_relaxed);
    if (pf_redis_ids_is_full(self->tail, end))
        self->tail = atomic_load_explicit(&self->tail->next, memory_order_relaxed);
    self->tail->ids[end - self->tail->first] = (pf_redis_id){ms, seq};
    atomic_store_explicit(&self->end, end + 1, memory_order_release);
}

/* The id at a position from `acked` to below `end`; `*block`: where to begin to look, NULL or that of a lower position. */
static inline pf_redis_id pf_redis_ids_at(const pf_redis_ids *self, const pf_redis_ids_block **block, int64_t position)
{
    if (*block == NULL)
        *block = self->head;
    while (pf_redis_ids_is_full(*block, position))
        *block = atomic_load_explicit(&(*block)->next, memory_order_acquire);
    return (*block)->ids[position - (*block)->first];
}

/* Everything below `position`, which is at most `end`, is acknowledged. */
static inline void pf_redis_ids_drop(pf_redis_ids *self, int64_t position)
{
    int64_t end = pf_redis_ids_end(self);
    self->acked = position;
    while (pf_redis_ids_is_full(self->head, position) && end - self->head->first > PF_REDIS_IDS_BLOCK) {
        pf_redis_ids_block *next = atomic_load_explicit(&self->head->next, memory_order_acquire);
        free(self->head);
        self->head = next;
    }
}

#endif
