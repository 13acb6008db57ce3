/* The intake thread's side: messages in, published batches out.
 *
 * A message is copied into the slot with its key and headers; the pool decodes it.  While all pool processes have
 * their hands full, so that a full batch cannot be published, the intake decodes that batch itself, and it decodes
 * batches of a few short messages.  So the work of decoding goes to whichever side has time for it
 * (docs/decisions/where-to-decode.md).
 *
 * One batch is open per lane group: one in all when rows are unordered, else one per pool process,
 * because a lane (a partition, or all keys with one hash) is handled by one process at a time and its
 * rows must stay in order.  A batch is published when it is full, when its oldest row has waited
 * `linger_ns`, or at a flush, and only to a process that has credit left; while all credit is used up
 * a lingering batch goes on filling, and a full one stalls the source, or, where lanes are partitions, its partitions.
 * A gate or a rate limit (admission.h) stalls the source in the same way, when it comes to open a batch.
 *
 * Under transactions time is cut into epochs: every batch has the number of the one in which it was opened.  When an
 * epoch is closed, all batches that are open are sealed, so whatever is read later is in batches of a later epoch, and
 * the rows of all epochs up to one are exactly those below some position of each partition.
 */
#ifndef PYTHIA_INTAKE_H
#define PYTHIA_INTAKE_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "admission.h"
#include "lane.h"
#include "slot_decode.h"
#include "source.h"

/* What pf_intake_run returns besides PF_SOURCE_END, PF_SOURCE_FAILED and PF_SOURCE_CALL. */
enum {
    PF_INTAKE_STOPPED = 16, /* stop was asked for */
    PF_INTAKE_BLOCKED = 17, /* no room for patience_ns: time to pause the source */
    PF_INTAKE_ROOM = 18,    /* room again after BLOCKED */
    PF_INTAKE_SPOOL = 19,   /* an oversize payload could not be written to the spool folder */
    PF_INTAKE_ATTENTION = 20, /* attention was asked for */
};

typedef struct {
    uint32_t slot;      /* PF_NO_SLOT: none open */
    uint32_t most;      /* messages it may have */
    uint32_t messages;
    uint32_t raw_bytes;
    uint32_t last_partition; /* entry hit last: neighbours mostly share their partition */
    uint32_t tried;          /* to decode all its messages here; slot->decoded says what came of it */
    uint64_t opened_ns;
} pf_open_batch;

typedef struct {
    pf_sink sink; /* first: the source calls back with a pointer to it */
    pf_arena *arena;
    pf_decoder *decoder;  /* for the batches that are decoded here */
    pf_columns columns;   /* where the columns of any slot lie */
    pf_open_batch *open;
    uint32_t n_open;
    uint32_t batch_rows;  /* most messages of a batch; a slot may have room for more rows that wait (gather.h) */
    uint32_t ordering;
    uint32_t last_worker; /* had the last batch: among equals it is the warmest */
    uint32_t stop;        /* set by another thread */
    uint32_t hurry;       /* set by another thread: what waits to be handled again is due now, once a slot */
    uint32_t attention;   /* set by another thread: return, so that something is done on this thread */
    pf_admission admission;
    uint64_t batch;       /* sequence number of the batch published last */
    uint64_t linger_ns;
    uint64_t patience_ns;
    uint64_t blocked_since_ns; /* 0: not blocked */
    uint64_t blocked_at;       /* `messages` then: a source that gets on, however slowly, is not blocked */
    uint32_t stalled_lane;     /* whose batch could not be opened or published */
    uint32_t paused;
    uint32_t spool_errno;
    const char *spool_dir;
    uint64_t epoch_ns;       /* how long an epoch lasts from its first message; 0: there is one epoch only */
    uint64_t epoch_began_ns; /* 0: no message of this epoch has been seen yet */
    uint64_t epoch_messages; /* `messages` when it began */
    uint64_t max_payload_bytes; /* beyond it (or the raw region) a payload goes to the spool folder */
    /* Counters, read by other threads. */
    uint64_t messages;
    uint64_t bytes;
    uint64_t stalls;
    uint64_t decoded; /* batches decoded here */
} pf_intake;

static inline uint32_t pf_lane_of(const pf_intake *in, const pf_incoming *m) {
    if (in->n_open == 1) return 0;
    return (uint32_t)(pf_lane(in->ordering, m->key, m->key_size, m->partition) % in->n_open);
}

static int pf_has_free_slot(pf_arena *arena) {
    for (uint32_t i = 0; i < arena->n_slots; i++)
        if (pf_load(&pf_slot_at(arena, i)->state) == PF_SLOT_FREE) return 1;
    return 0;
}

/* Nobody else claims, so a slot that is free stays so until what is admitted to it is known. */
static int pf_open(pf_intake *in, pf_open_batch *open) {
    if (!pf_has_free_slot(in->arena)) return 0;
    uint32_t most = pf_admit(&in->admission, in->batch_rows);
    if (most == 0) return 0;
    *open = (pf_open_batch){.slot = pf_claim(in->arena), .most = most};
    return 1;
}

/* The process the open batch of `lane` may go to now; PF_NO_SLOT while none has credit. */
static uint32_t pf_worker_for(pf_intake *in, uint32_t lane) {
    pf_arena *arena = in->arena;
    if (in->ordering != PF_UNORDERED) return pf_has_credit(arena, lane) ? lane : PF_NO_SLOT;
    uint32_t best = PF_NO_SLOT, least = arena->credit;
    for (uint32_t i = 0; i < arena->n_workers; i++) {
        uint32_t worker = (in->last_worker + i) % arena->n_workers;
        uint32_t in_hand = pf_in_hand(arena, worker);
        if (in_hand < least && pf_has_credit(arena, worker)) {
            least = in_hand;
            best = worker;
            if (in_hand == 0) break;
        }
    }
    if (best != PF_NO_SLOT) in->last_worker = best;
    return best;
}

/* Decode an open batch in this thread, where the decoder knows all that it needs. */
static void pf_decode_open(pf_intake *in, pf_open_batch *open) {
    pf_slot *slot = pf_slot_at(in->arena, open->slot);
    slot->messages = open->messages;
    slot->decoded = PF_UNDECODED;
    open->tried = 1;
    if (!pf_decode_slot(in->arena, slot, in->columns, in->decoder)) return;
    pf_store64(&in->decoded, in->decoded + 1);
}

/* A few messages are decoded before they are published: where rows trickle in, the pool process has been asleep and
 * its caches are cold, while ours have just seen the message. */
#define PF_DECODE_FIRST 16
#define PF_DECODE_FIRST_BYTES 8192

static int pf_publish_open(pf_intake *in, uint32_t lane) {
    pf_open_batch *open = &in->open[lane];
    uint32_t worker = pf_worker_for(in, lane);
    if (worker == PF_NO_SLOT) return 0;
    pf_slot *slot = pf_slot_at(in->arena, open->slot);
    slot->messages = open->messages;
    if (!open->tried) slot->decoded = PF_UNDECODED;
    if (!open->tried && open->messages <= PF_DECODE_FIRST && open->raw_bytes <= PF_DECODE_FIRST_BYTES)
        pf_decode_open(in, open);
    slot->raw_bytes = open->raw_bytes;
    pf_publish(in->arena, open->slot, worker, ++in->batch);
    pf_admitted_too_many(&in->admission, open->most - open->messages);
    open->slot = PF_NO_SLOT;
    return 1;
}

/* The slot's entry for a partition; NULL when the table is full. */
static pf_slot_partition *pf_partition_entry(pf_intake *in, pf_open_batch *open, pf_slot *slot, const pf_incoming *m) {
    pf_slot_partition *table = pf_slot_partitions(in->arena, slot);
    uint32_t n = pf_slot_partition_count(slot);
    if (open->last_partition < n && table[open->last_partition].partition == m->partition) return &table[open->last_partition];
    for (uint32_t i = 0; i < n; i++)
        if (table[i].partition == m->partition) {
            open->last_partition = i;
            return &table[i];
        }
    if (n == PF_SLOT_PARTITIONS) return NULL;
    if (n == 0) { /* before the entry: whoever sees that by the last batch's count knows it for another one (oldest.h) */
        open->opened_ns = pf_now_ns();
        pf_store64(&slot->opened_ns, open->opened_ns);
        __atomic_thread_fence(__ATOMIC_RELEASE);
    }
    table[n] = (pf_slot_partition){m->partition, 0, m->offset, m->offset};
    open->last_partition = n;
    pf_store(&slot->n_partitions, n + 1); /* release: other threads may read the entry now */
    return &table[n];
}

static int pf_write_whole(int fd, const uint8_t *bytes, size_t size) {
    while (size) {
        ssize_t n = write(fd, bytes, size);
        if (n < 0 && errno == EINTR) continue;
        if (n == 0) errno = EIO; /* POSIX leaves open what that means */
        if (n <= 0) return 0;
        bytes += n;
        size -= (size_t)n;
    }
    return 1;
}

/* An oversize message outlives its arrival in a file of its own, named by batch slot and place, until its
 * dead letter is durable: one record as brokers/framing.py has it, key and headers included.  Of a payload that no dead
 * letter can hold (it is one text in memory on its way) only the beginning is kept. */
static int pf_spool(pf_intake *in, uint32_t slot, uint32_t index, const pf_incoming *m) {
    char path[4096];
    if ((size_t)snprintf(path, sizeof path, "%s/oversize-%u-%u", in->spool_dir, slot, index) >= sizeof path) {
        in->spool_errno = ENAMETOOLONG;
        return 0;
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        in->spool_errno = (uint32_t)errno;
        return 0;
    }
    uint32_t key_size = m->key_size < 0 ? 0 : (uint32_t)m->key_size;
    size_t kept = m->size <= PF_SPOOLED_MOST ? m->size : PF_SPOOLED_HEAD;
    uint32_t sizes[3] = {m->key_size < 0 ? PF_NO_PAYLOAD : key_size, m->headers_size,
                         m->payload == NULL ? PF_NO_PAYLOAD : (uint32_t)kept};
    int written = pf_write_whole(fd, (const uint8_t *)sizes, sizeof sizes) && pf_write_whole(fd, m->key, key_size) &&
                  pf_write_whole(fd, m->headers, m->headers_size) && pf_write_whole(fd, m->payload, kept);
    if (!written) {
        in->spool_errno = (uint32_t)errno;
        unlink(path);
    }
    close(fd);
    return written;
}

static inline uint32_t pf_copy_in(uint8_t *raw, uint32_t *used, const uint8_t *bytes, size_t size) {
    uint32_t at = *used;
    if (size) memcpy(raw + at, bytes, size);
    *used = at + (uint32_t)size;
    return at;
}

/* The size of a payload, or the largest number that is one: only a payload that is in no slot can be as large. */
static inline uint32_t pf_size32(size_t size) {
    return size < PF_NO_PAYLOAD ? (uint32_t)size : PF_NO_PAYLOAD - 1;
}

static inline int pf_stalled(pf_intake *in, uint32_t lane) {
    in->stalled_lane = lane;
    return PF_STALLED;
}

/* The process of this lane has its hands full.  Where a lane is whole partitions, those of other lanes may go on; by key
 * they may not: one partition's rows are in many lanes, and one left behind would be passed by its partition's position. */
static inline int pf_lane_stalled(pf_intake *in, uint32_t lane) {
    in->stalled_lane = lane;
    return in->ordering == PF_BY_PARTITION && in->n_open > 1 ? PF_PARTITION_STALLED : PF_STALLED;
}

static int pf_intake_append(pf_sink *sink, const pf_incoming *m) {
    pf_intake *in = (pf_intake *)sink;
    pf_arena *arena = in->arena;
    uint32_t lane = pf_lane_of(in, m);
    pf_open_batch *open = &in->open[lane];
    size_t key_size = m->key_size > 0 ? (size_t)m->key_size : 0;
    size_t rest = key_size + m->headers_size;
    int oversize = m->size > in->max_payload_bytes || m->size + rest > arena->raw_bytes;
    size_t need = oversize ? 0 : m->size + rest;

    for (;;) {
        if (open->slot == PF_NO_SLOT && !pf_open(in, open)) return pf_stalled(in, lane);
        uint32_t index = open->messages;
        pf_slot *slot = pf_slot_at(arena, open->slot);
        pf_slot_partition *entry = NULL;
        if (index < open->most && open->raw_bytes + need <= arena->raw_bytes)
            entry = pf_partition_entry(in, open, slot, m);
        if (entry == NULL) {
            if (!pf_publish_open(in, lane)) return pf_lane_stalled(in, lane);
            continue;
        }
        if (oversize && !pf_spool(in, open->slot, index, m)) return pf_stalled(in, lane);

        uint8_t *raw = (uint8_t *)slot + arena->raw_at;
        pf_message *row = &pf_slot_messages(arena, slot)[index];
        row->offset = m->offset;
        row->timestamp_ms = m->timestamp_ms;
        row->partition = m->partition;
        row->payload_size = m->payload == NULL ? PF_NO_PAYLOAD : pf_size32(m->size);
        row->payload_at = oversize ? PF_SPOOLED : pf_copy_in(raw, &open->raw_bytes, m->payload, m->size);
        row->key_size = m->cut ? PF_KEY_OF_CUT + PF_CUT - m->cut : oversize ? -1 : m->key_size;
        row->key_at = pf_copy_in(raw, &open->raw_bytes, m->key, oversize ? 0 : key_size);
        row->headers_size = oversize ? 0 : m->headers_size;
        row->headers_at = pf_copy_in(raw, &open->raw_bytes, m->headers, row->headers_size);
        row->attempts = 0;
        row->deliveries = pf_count16(m->deliveries);
        entry->messages++;
        entry->next_offset = m->next_offset;
        slot->payload_bytes += m->size;
        open->messages = index + 1;
        open->tried = 0;
        pf_store64(&in->messages, in->messages + 1);
        pf_store64(&in->bytes, in->bytes + m->size);
        if (open->messages == open->most) pf_publish_open(in, lane);
        return PF_APPENDED;
    }
}

/* Close the epoch.  The batches that are open are full from here on, so they are published as soon as may be; those
 * without a message go over to the next epoch. */
static void pf_next_epoch(pf_intake *in) {
    pf_arena *arena = in->arena;
    uint32_t next = arena->epoch + 1;
    for (uint32_t lane = 0; lane < in->n_open; lane++) {
        pf_open_batch *open = &in->open[lane];
        if (open->slot == PF_NO_SLOT) continue;
        if (open->messages == 0) {
            pf_slot_at(arena, open->slot)->epoch = next;
            continue;
        }
        pf_admitted_too_many(&in->admission, open->most - open->messages);
        open->most = open->messages;
    }
    in->epoch_messages = in->messages;
    in->epoch_began_ns = 0;
    pf_store(&arena->epoch, next); /* release: who reads it sees every batch of the epochs before */
}

/* Close an epoch that has lasted long enough; the time until it will have. */
static int64_t pf_turn_epoch(pf_intake *in) {
    if (in->epoch_ns == 0 || in->messages == in->epoch_messages) return INT64_MAX;
    uint64_t now = pf_now_ns();
    if (in->epoch_began_ns == 0) in->epoch_began_ns = now;
    int64_t left = (int64_t)(in->epoch_began_ns + in->epoch_ns - now);
    if (left > 0) return left;
    pf_next_epoch(in);
    return INT64_MAX;
}

/* The oldest batch that waits to be handled again, is due, and whose process has credit; PF_NO_SLOT: none.  `next`:
 * nanoseconds until another one is due. */
static uint32_t pf_oldest_due(pf_intake *in, uint64_t now, int64_t *next) {
    pf_arena *arena = in->arena;
    uint32_t oldest = PF_NO_SLOT;
    for (uint32_t i = 0; i < arena->n_slots; i++) {
        pf_slot *slot = pf_slot_at(arena, i);
        if (pf_load(&slot->state) != PF_SLOT_WAITING) continue;
        if (slot->due_ns > now && !(pf_load(&in->hurry) && !slot->hurried)) {
            int64_t left = (int64_t)(slot->due_ns - now);
            if (left < *next) *next = left;
            continue;
        }
        if (pf_worker_for(in, slot->worker) == PF_NO_SLOT) continue; /* looked at again when credit comes back */
        if (oldest == PF_NO_SLOT || slot->batch < pf_slot_at(arena, oldest)->batch) oldest = i;
    }
    return oldest;
}

/* Queue what waited long enough to be handled again, in the order in which it came, so that batches of one lane stay
 * in theirs; the time until the next one is due. */
static int64_t pf_requeue_due(pf_intake *in) {
    int64_t next = INT64_MAX;
    if (pf_load(&in->arena->n_waiting) == 0) return next;
    uint64_t now = pf_now_ns();
    uint32_t slot;
    while ((slot = pf_oldest_due(in, now, &next)) != PF_NO_SLOT) {
        /* Early once: whatever the rows wait for is not there sooner for being asked again and again. */
        int early = pf_slot_at(in->arena, slot)->due_ns > now;
        pf_requeue(in->arena, slot, pf_worker_for(in, pf_slot_at(in->arena, slot)->worker), early);
    }
    return next;
}

/* Publish what has lingered long enough; the time until the next one is due. */
static int64_t pf_publish_due(pf_intake *in) {
    int64_t next = INT64_MAX;
    uint64_t now = 0;
    for (uint32_t lane = 0; lane < in->n_open; lane++) {
        pf_open_batch *open = &in->open[lane];
        if (open->slot == PF_NO_SLOT || open->messages == 0) continue;
        if (now == 0) now = pf_now_ns();
        int64_t left = (int64_t)(open->opened_ns + in->linger_ns - now);
        if (left <= 0 || open->messages == open->most) {
            if (pf_publish_open(in, lane)) continue;
            left = 1000000; /* no credit: it goes on filling; look again when woken, or in a millisecond */
        }
        if (left < next) next = left;
    }
    return next;
}

static int pf_has_room(pf_intake *in, uint32_t lane) {
    if (in->open[lane].slot != PF_NO_SLOT) return pf_worker_for(in, lane) != PF_NO_SLOT;
    return pf_admission_wait_ns(&in->admission) == 0 && pf_has_free_slot(in->arena);
}

#define PF_LONGEST_WAIT_NS 100000000ll /* 100 ms: how late a stop word without a wake-up is seen */

/* Sleep until `lane` can go on, woken by the completion thread at every completion and release, and whenever a batch
 * begins to wait for its next round.  `seen`: the signal, read before the intake last looked for such batches: one that
 * came after that look ends the sleep, however full the arena is. */
static void pf_wait_for_room(pf_intake *in, uint32_t lane, uint32_t seen, int64_t timeout_ns) {
    pf_arena *arena = in->arena;
    pf_store_sc(&arena->free_waiting, 1);
    if (!pf_has_room(in, lane)) pf_wait(&arena->free_signal, seen, timeout_ns);
    pf_store_sc(&arena->free_waiting, 0);
}

/* Longest sleep of a stalled lane: until it is admitted, if that is what it waits for. */
static int64_t pf_stall_ns(pf_intake *in, uint32_t lane) {
    if (in->open[lane].slot != PF_NO_SLOT) return PF_LONGEST_WAIT_NS;
    uint64_t left = pf_admission_wait_ns(&in->admission);
    return left == 0 || left > PF_LONGEST_WAIT_NS ? PF_LONGEST_WAIT_NS : (int64_t)left;
}

/* Decode the full batch that waits for credit, if that is what `lane` waits for; 1 when time was spent on it. */
static int pf_decode_waiting(pf_intake *in, uint32_t lane) {
    pf_open_batch *open = &in->open[lane];
    if (open->slot == PF_NO_SLOT || open->tried) return 0;
    pf_decode_open(in, open);
    return 1;
}

#define PF_FLUSH_WAIT_NS 10000000ll    /* 10 ms: how far past its deadline a flush may run */

static int pf_intake_run(pf_intake *in, pf_source *source) {
    pf_punctual_timeouts();
    for (;;) {
        if (pf_load(&in->stop)) return PF_INTAKE_STOPPED;
        if (pf_load(&in->attention)) {
            pf_store(&in->attention, 0);
            return PF_INTAKE_ATTENTION;
        }
        /* Not left to the next message: the one that found no room may have gone with its partition, and a paused
         * source has no other. */
        if (in->paused && pf_has_room(in, in->stalled_lane)) {
            in->paused = 0;
            in->blocked_since_ns = 0;
            return PF_INTAKE_ROOM;
        }
        uint32_t seen = pf_load_sc(&in->arena->free_signal);
        int64_t turn_ns = pf_turn_epoch(in); /* until something is due, whatever comes in */
        int64_t again_ns = pf_requeue_due(in);
        if (turn_ns > again_ns) turn_ns = again_ns;
        int64_t wait_ns = pf_publish_due(in);
        if (wait_ns > turn_ns) wait_ns = turn_ns;
        if (wait_ns > PF_LONGEST_WAIT_NS) wait_ns = PF_LONGEST_WAIT_NS;
        int outcome = source->poll(source, &in->sink, in->batch_rows, (wait_ns + 999) / 1000);
        switch (outcome) {
        case PF_SOURCE_MORE:
            in->blocked_since_ns = 0;
            break;
        case PF_SOURCE_IDLE:
            break;
        case PF_SOURCE_STALLED: {
            if (in->spool_errno) return PF_INTAKE_SPOOL;
            pf_store64(&in->stalls, in->stalls + 1);
            uint64_t now = pf_now_ns();
            if (in->blocked_since_ns == 0 || in->blocked_at != in->messages) {
                in->blocked_since_ns = now;
                in->blocked_at = in->messages;
            }
            if (!in->paused && now - in->blocked_since_ns > in->patience_ns) {
                in->paused = 1;
                return PF_INTAKE_BLOCKED;
            }
            if (!pf_decode_waiting(in, in->stalled_lane)) {
                int64_t stall_ns = pf_stall_ns(in, in->stalled_lane);
                pf_wait_for_room(in, in->stalled_lane, seen, turn_ns < stall_ns ? turn_ns : stall_ns);
            }
            break;
        }
        default:
            return outcome;
        }
    }
}

/* Publish every open batch, waiting for credit until `deadline_ns`; 1 when nothing is left open.  Closes the epoch. */
static int pf_intake_flush(pf_intake *in, uint64_t deadline_ns) {
    if (in->epoch_ns != 0 && in->messages != in->epoch_messages) pf_next_epoch(in);
    pf_requeue_due(in);
    for (uint32_t lane = 0; lane < in->n_open; lane++) {
        pf_open_batch *open = &in->open[lane];
        while (open->slot != PF_NO_SLOT && open->messages > 0) {
            uint32_t seen = pf_load_sc(&in->arena->free_signal);
            if (pf_publish_open(in, lane)) break;
            if (pf_now_ns() >= deadline_ns) return 0;
            pf_wait_for_room(in, lane, seen, PF_FLUSH_WAIT_NS);
        }
    }
    return 1;
}

#endif
