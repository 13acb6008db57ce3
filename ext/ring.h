/* The arena's operations, by the thread that may call them.  Each change of a slot's state carries its name, as in
 * arena_layout.h and docs/architecture.md, and as in the model that SPIN checks (docs/model/ring.pml): a test compares
 * both, and the order of the stores in each operation (tests/ext/test_ring_model_names.py). */
#ifndef PYTHIA_RING_H
#define PYTHIA_RING_H

#include <string.h>

#include "arena_layout.h"
#include "atomics.h"
#include "journal.h"

#define PF_NO_SLOT 0xffffffffu

static inline pf_worker *pf_worker_at(pf_arena *arena, uint32_t worker) {
    return (pf_worker *)((uint8_t *)arena + arena->workers_at) + worker;
}

static inline pf_slot *pf_slot_at(pf_arena *arena, uint32_t slot) {
    return (pf_slot *)((uint8_t *)arena + arena->slots_at + (uint64_t)slot * arena->slot_bytes);
}

static inline pf_slot_partition *pf_slot_partitions(pf_arena *arena, pf_slot *slot) {
    return (pf_slot_partition *)((uint8_t *)slot + arena->partitions_at);
}

/* Entries of that table; never more than it has room for, should somebody have scribbled on it. */
static inline uint32_t pf_slot_partition_count(const pf_slot *slot) {
    uint32_t n = pf_load(&slot->n_partitions);
    return n < PF_SLOT_PARTITIONS ? n : PF_SLOT_PARTITIONS;
}

/* Messages of the slot; never more than it has room for, should somebody have scribbled on it. */
static inline uint32_t pf_slot_length(const pf_arena *arena, const pf_slot *slot) {
    return slot->messages < arena->slot_capacity ? slot->messages : arena->slot_capacity;
}

/* ---- intake thread ------------------------------------------------------------------------- */

/* The lowest free slot first: the one used last is warmest in the cache. */
static inline uint32_t pf_claim(pf_arena *arena) {
    for (uint32_t i = 0; i < arena->n_slots; i++) {
        pf_slot *slot = pf_slot_at(arena, i);
        if (pf_load(&slot->state) != PF_SLOT_FREE) continue;
        slot->messages = slot->raw_bytes = slot->crashes = slot->hurried = slot->gathered = slot->waits_from = 0;
        slot->decoded = PF_UNDECODED;
        slot->rows = slot->refused = 0;
        slot->payload_bytes = 0;
        slot->round = 1;
        slot->round_rows = slot->later_rows = 0;
        slot->journal_at = 0;
        memset(slot->journal, 0, sizeof slot->journal);
        slot->epoch = arena->epoch;
        pf_store(&slot->n_partitions, 0);
        pf_store(&slot->state, PF_SLOT_FILLING); /* transition: claim FREE -> FILLING */
        return i;
    }
    return PF_NO_SLOT;
}

/* Slots queued for or held by a worker. */
static inline uint32_t pf_in_hand(pf_arena *arena, uint32_t worker) {
    pf_worker *w = pf_worker_at(arena, worker);
    uint32_t completed = pf_load(&w->completed); /* first: it never passes `tail`, which may grow meanwhile */
    return pf_load(&w->tail) - completed;
}

/* Whether the worker may be given one more slot. */
static inline int pf_has_credit(pf_arena *arena, uint32_t worker) {
    pf_worker *w = pf_worker_at(arena, worker);
    return pf_in_hand(arena, worker) < arena->credit && w->tail - pf_load(&w->collected) < PF_QUEUE_CAPACITY;
}

static inline void pf_notify_worker(pf_worker *w) {
    pf_add(&w->signal, 1);
    if (pf_load_sc(&w->waiting)) pf_wake(&w->signal);
}

/* Into the worker's queue, READY. The caller has checked pf_has_credit. */
static inline void pf_queue_slot(pf_arena *arena, uint32_t slot_index, uint32_t worker) {
    pf_slot *slot = pf_slot_at(arena, slot_index);
    pf_worker *w = pf_worker_at(arena, worker);
    slot->worker = worker;
    slot->published_ns = pf_now_ns();
    pf_store(&slot->state, PF_SLOT_READY);
    w->queue[w->tail & (PF_QUEUE_CAPACITY - 1)] = slot_index;
    pf_store_sc(&w->tail, w->tail + 1);
    pf_notify_worker(w);
}

static inline void pf_publish(pf_arena *arena, uint32_t slot_index, uint32_t worker, uint64_t batch) {
    pf_slot_at(arena, slot_index)->batch = batch;
    pf_queue_slot(arena, slot_index, worker); /* transition: publish FILLING -> READY */
}

/* Its rows that wait are handled once more, by a holder that finds no journal; 0: the completion thread has taken it back,
 * and hands it over again.  `early`: it is not due yet, and `due_ns` goes on telling when it would have been. */
static inline int pf_requeue(pf_arena *arena, uint32_t slot_index, uint32_t worker, int early) {
    pf_slot *slot = pf_slot_at(arena, slot_index);
    if (!pf_exchange_if(&slot->state, PF_SLOT_WAITING, PF_SLOT_FILLING)) return 0; /* transition: recall WAITING -> FILLING */
    slot->hurried = early ? PF_EARLY : slot->hurried ? PF_WAS_EARLY : PF_NEVER_EARLY;
    slot->round = slot->waits_from;
    slot->round_rows = slot->later_rows;
    slot->crashes = 0;
    slot->journal_at = 0;
    memset(slot->journal, 0, sizeof slot->journal);
    pf_add(&arena->n_waiting, (uint32_t)-1);
    pf_queue_slot(arena, slot_index, worker); /* transition: requeue FILLING -> READY */
    return 1;
}

/* ---- pool process -------------------------------------------------------------------------- */

/* Whether pf_take may find a batch. */
static inline int pf_may_take(pf_arena *arena, uint32_t worker) {
    pf_worker *w = pf_worker_at(arena, worker);
    return pf_load_sc(&w->tail) != w->taken && pf_load_sc(&arena->circuit) != PF_CIRCUIT_OPEN;
}

/* Whether the circuit lets this process have a batch.  Of several that find it half open, one gets the probe. */
static inline int pf_circuit_admits(pf_arena *arena) {
    uint32_t circuit = pf_load_sc(&arena->circuit);
    if (circuit == PF_CIRCUIT_HALF_OPEN) return pf_exchange_if(&arena->circuit, PF_CIRCUIT_HALF_OPEN, PF_CIRCUIT_OPEN);
    return circuit != PF_CIRCUIT_OPEN;
}

/* PF_NO_SLOT when the queue is empty, or the circuit open.  The rows' marks are still those of whoever held the slot
 * before; the process clears them where it has the slot mapped, which need not be here (Arena.detach_slot). */
static inline uint32_t pf_take(pf_arena *arena, uint32_t worker) {
    pf_worker *w = pf_worker_at(arena, worker);
    if (pf_load_sc(&w->tail) == w->taken || !pf_circuit_admits(arena)) return PF_NO_SLOT;
    uint32_t slot_index = w->queue[w->taken & (PF_QUEUE_CAPACITY - 1)];
    pf_slot *slot = pf_slot_at(arena, slot_index);
    slot->output_bytes = 0;
    slot->output_records = slot->error_bytes = slot->rejected = slot->retried = slot->failed = 0;
    slot->taken_ns = pf_now_ns();
    pf_store(&slot->state, PF_SLOT_HELD); /* transition: take READY -> HELD */
    pf_store(&w->taken, w->taken + 1);
    return slot_index;
}

/* Look for news until then without sleeping. Whoever sleeps is woken by a system call, and its core maybe from sleep, which
 * takes longer than the rest of a row's way. */
static inline void pf_worker_poll(pf_arena *arena, uint32_t worker, uint64_t until_ns) {
    pf_worker *w = pf_worker_at(arena, worker);
    while (!pf_may_take(arena, worker) && !pf_load_sc(&w->stop) && pf_now_ns() < until_ns) pf_relax();
}

/* Sleep until there is news for this worker: a slot, or the word to stop. */
static inline void pf_worker_sleep(pf_arena *arena, uint32_t worker, int64_t timeout_ns) {
    pf_worker *w = pf_worker_at(arena, worker);
    uint32_t seen = pf_load_sc(&w->signal);
    pf_store_sc(&w->waiting, 1);
    if (!pf_may_take(arena, worker) && !pf_load_sc(&w->stop)) pf_wait(&w->signal, seen, timeout_ns);
    pf_store_sc(&w->waiting, 0);
}

static inline void pf_notify_done(pf_arena *arena) {
    pf_add(&arena->done_signal, 1);
    if (pf_load_sc(&arena->done_waiting)) pf_wake(&arena->done_signal);
}

/* `completed` is what makes it final: a process that dies between the two stores has its batch handled again. */
static inline void pf_hand_back(pf_arena *arena, uint32_t worker, uint32_t slot_index, uint32_t state) {
    pf_worker *w = pf_worker_at(arena, worker);
    pf_slot *slot = pf_slot_at(arena, slot_index);
    slot->completed_ns = pf_now_ns();
    pf_store64(&w->batches, w->batches + 1);
    pf_store64(&w->rows, w->rows + slot->rows);
    pf_store64(&w->handler_ns, w->handler_ns + (slot->completed_ns - slot->taken_ns));
    pf_store(&slot->state, state);
    pf_store_sc(&w->completed, w->completed + 1);
    pf_notify_done(arena);
}

static inline void pf_complete(pf_arena *arena, uint32_t worker, uint32_t slot_index) {
    pf_hand_back(arena, worker, slot_index, PF_SLOT_DONE); /* transition: complete HELD -> DONE */
}

/* Out of the queue, until `due_ns`. */
static inline void pf_park(pf_arena *arena, uint32_t worker, uint32_t slot_index, uint64_t due_ns) {
    pf_slot *slot = pf_slot_at(arena, slot_index);
    slot->waits_from = slot->round + 1;
    slot->due_ns = due_ns;
    pf_hand_back(arena, worker, slot_index, PF_SLOT_PARKED); /* transition: park HELD -> PARKED */
}

/* What the output region holds is complete records; take them away. */
static inline void pf_spill(pf_arena *arena, uint32_t slot_index) {
    pf_store(&pf_slot_at(arena, slot_index)->state, PF_SLOT_OUTPUT_FULL); /* transition: spill HELD -> OUTPUT_FULL */
    pf_notify_done(arena);
}

/* ---- completion thread --------------------------------------------------------------------- */

/* The processes that sleep look at the circuit again. */
static inline void pf_set_circuit(pf_arena *arena, uint32_t circuit) {
    pf_store_sc(&arena->circuit, circuit);
    for (uint32_t i = 0; i < arena->n_workers; i++) pf_notify_worker(pf_worker_at(arena, i));
}

/* A completion was seen, so credit came back: the intake may go on before the slot itself is free. */
static inline void pf_signal_room(pf_arena *arena) {
    pf_add(&arena->free_signal, 1);
    if (pf_load_sc(&arena->free_waiting)) pf_wake(&arena->free_signal);
}

/* The records are durable, the region is empty again, for a next holder too. */
static inline void pf_resume(pf_arena *arena, uint32_t slot_index) {
    pf_slot *slot = pf_slot_at(arena, slot_index);
    pf_progress_forget_output(slot);
    pf_store(&slot->state, PF_SLOT_HELD); /* transition: resume OUTPUT_FULL -> HELD */
    pf_wake(&slot->state);
}

/* After outputs and dead letters of the rows that are done are durable: the next round begins when it is due. */
static inline void pf_wait_until_due(pf_arena *arena, uint32_t slot_index) {
    pf_add(&arena->n_waiting, 1);
    pf_store(&pf_slot_at(arena, slot_index)->state, PF_SLOT_WAITING); /* transition: wait PARKED -> WAITING */
    pf_signal_room(arena);
}

/* After outputs and dead letters of the batch are durable. */
static inline void pf_release(pf_arena *arena, uint32_t slot_index) {
    pf_store(&pf_slot_at(arena, slot_index)->state, PF_SLOT_FREE); /* transition: release DONE -> FREE */
    pf_signal_room(arena);
}

/* Everything a dead process had taken but not completed is READY again, in the same order,
 * in the same queue: whoever takes its place goes on where it stopped. */
static inline void pf_return(pf_arena *arena, uint32_t worker) {
    pf_worker *w = pf_worker_at(arena, worker);
    uint32_t held = w->taken - w->completed;
    if (held > PF_QUEUE_CAPACITY) held = 0; /* a handler has written over the counters */
    for (uint32_t at = w->completed; at != w->completed + held; at++) {
        pf_slot *slot = pf_slot_at(arena, w->queue[at & (PF_QUEUE_CAPACITY - 1)]);
        slot->crashes++;
        pf_progress_bury(slot);
        slot->decoded = PF_UNDECODED; /* whatever killed the process may have written there */
        pf_store(&slot->state, PF_SLOT_READY); /* transition: return HELD|DONE|OUTPUT_FULL|PARKED -> READY */
    }
    /* It may have died between HELD and the store of `taken`. */
    if (w->taken != pf_load_sc(&w->tail)) { /* the intake may queue more meanwhile */
        pf_slot *slot = pf_slot_at(arena, w->queue[w->taken & (PF_QUEUE_CAPACITY - 1)]);
        if (pf_load(&slot->state) != PF_SLOT_READY)
            pf_store(&slot->state, PF_SLOT_READY); /* transition: return HELD -> READY */
    }
    pf_store(&w->waiting, 0);
    pf_store(&w->booted, 0);
    pf_store64(&w->began_ns, 0);
    pf_store_sc(&w->taken, w->completed);
}

#endif
