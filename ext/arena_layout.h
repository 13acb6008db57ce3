/* The arena: one anonymous shared mapping, made by the runtime before its pool exists.
 *
 *     +--------------+ 0
 *     | pf_arena     |  magic, sizes                                written once, then read only, but for signals
 *     +--------------+ workers_at
 *     | pf_worker[W] |  one queue and one set of counters a pool process
 *     +--------------+ spares_at
 *     | pf_spare[]   |  one a process that waits for a place
 *     +--------------+ names_at
 *     | pf_partition_name[PF_PARTITION_NAMES]                       what partition indices stand for
 *     +--------------+ slots_at (page aligned)
 *     | slot 0       |  header | partitions | messages | good | refusals | status | retries | columns | raw | errors (2) | output
 *     | slot 1       |
 *     | ...          |  slot_bytes each, page aligned, so that a process can map one alone
 *     +--------------+ arena_bytes
 *
 * Who writes a word is said beside it: I = the intake thread, D = the completion thread (both in the
 * runtime process), W = the pool process that the block or slot belongs to.  A word has one writer at
 * a time; where the writer changes, the state word is the hand-over: it is stored with release order
 * by the old owner and loaded with acquire order by the new one.
 *
 * Life of a slot:
 *
 *     FREE --claim(I)--> FILLING --publish(I)--> READY --take(W)--> HELD --complete(W)--> DONE --release(D)--> FREE
 *                                                  ^                |  ^ |
 *                                                  |                |  | +--spill(W)--> OUTPUT_FULL
 *                                                  +---return(D)----+  +---resume(D)--------+
 *
 * A batch some of whose rows are to be handled again later:
 *
 *     HELD --park(W)--> PARKED --wait(D)--> WAITING --recall(I)--> FILLING --requeue(I)--> READY
 *                       |    ^              |
 *     FREE <--merge(D)--+    +--reopen(D)---+
 *
 * `return` (from HELD, OUTPUT_FULL or a DONE that was not yet counted in `completed`) happens only after
 * the kernel has told the runtime that the holder is dead.  One that holds nothing may have its place given up by a
 * packet of its own instead, as the last thing it says before teardown(): it writes none of these words any more.
 *
 * A batch is published as messages; whoever owns the slot and has the time decodes them into its columns
 * (slot_decode.h): the pool process that takes it, or the intake thread, while it waits for credit or when there are few.
 */
#ifndef PYTHIA_ARENA_LAYOUT_H
#define PYTHIA_ARENA_LAYOUT_H

#include <stdint.h>
#include "decoder.h"

#define PF_ARENA_MAGIC 0x31414e4552414650ull /* the bytes PFARENA1 */
#define PF_CACHE_LINE 64
#ifndef PF_QUEUE_CAPACITY
#define PF_QUEUE_CAPACITY 64   /* power of two, above any credit; few in the stress test (scripts/stress.sh) */
#endif
#define PF_SLOT_PARTITIONS 256 /* distinct partitions one batch may hold rows of */

enum {
    PF_SLOT_FREE = 0,
    PF_SLOT_FILLING = 1,
    PF_SLOT_READY = 2,
    PF_SLOT_HELD = 3,
    PF_SLOT_DONE = 4,
    PF_SLOT_OUTPUT_FULL = 5,
    PF_SLOT_PARKED = 6,  /* as DONE, but for rows that are to be handled again */
    PF_SLOT_WAITING = 7, /* what the others gave rise to is durable; due_ns says when it goes on */
};

/* Whether a round of a batch that waits began before it was due, because the intake hurries (intake.h). */
enum {
    PF_NEVER_EARLY = 0,
    PF_EARLY = 1,     /* the one that began last did: what fails in it goes on waiting as it did before */
    PF_WAS_EARLY = 2, /* one before that did */
};

/* What a partition index stands for; entry index % PF_PARTITION_NAMES.  Written by the intake thread when
 * the partition is assigned, before any slot holds rows of it; read by pool processes.  An entry is used
 * again after that many assignments, when no row of the earlier one can be in flight any more. */
#define PF_PARTITION_NAMES 4096
#define PF_TOPIC_BYTES 4096 /* of one name: the longest path that Linux opens; pages without a name take no memory */

typedef struct {
    int32_t number;      /* the broker's own partition number */
    uint32_t topic_size;
    uint8_t topic[PF_TOPIC_BYTES];
} pf_partition_name;

/* How the handler marked one row. */
enum {
    PF_ROW_UNMARKED = 0,
    PF_ROW_REJECTED = 1, /* batch.reject: to the dead letters, with a reason */
    PF_ROW_RETRY = 2,    /* batch.retry: to be handled again */
};

/* Whether the pool processes may call the handler (runtime/circuit.py).  Zero, what an arena begins with, is yes. */
enum {
    PF_CIRCUIT_CLOSED = 0,
    PF_CIRCUIT_FAILING = 1,   /* closed, but the last call that was told of failed */
    PF_CIRCUIT_OPEN = 2,      /* no batch is taken */
    PF_CIRCUIT_HALF_OPEN = 3, /* one batch is: who takes it makes the word OPEN */
};

#define PF_SPOOLED 0xffffffffu
#define PF_SPOOLED_MOST (256u << 20) /* bytes of a payload that is kept whole in a file */
#define PF_SPOOLED_HEAD (1u << 20)   /* of one that is larger, so many are */
#define PF_NO_PAYLOAD 0xffffffffu

/* The key size of a message whose source ended within it: it has no key, and is refused. Below it those of the other
 * reasons for which a source refuses (source.h), in their order. */
#define PF_KEY_OF_CUT (-2)

/* How far the decoding of a batch has come. */
enum {
    PF_UNDECODED = 0,
    PF_IN_COLUMNS = 1, /* columns, refusals and the table of good rows are filled */
    PF_SIFTED = 2,     /* the columns have no room for all rows at once: only refusals and good rows are known */
};

/* One received message.  They stand in the order in which they came; the intake writes them, and who decodes the batch
 * writes `attempts`. */
typedef struct {
    int64_t offset;        /* Kafka offset, byte offset in a file, sequence in memory */
    int64_t timestamp_ms;  /* milliseconds since the epoch, -1 when the source has none */
    uint32_t partition;    /* index into the source's partition table */
    uint32_t payload_at;   /* from the start of the raw region; PF_SPOOLED: too large, in a file */
    uint32_t payload_size; /* PF_NO_PAYLOAD: a null value */
    uint32_t key_at;
    int32_t key_size;      /* -1: no key; PF_KEY_OF_CUT, or below: refused by its source */
    uint32_t headers_at;   /* (name size u16, name, value size i32 or -1, value)*, little endian */
    uint32_t headers_size;
    uint16_t attempts;     /* times the row has been given to a handler before, as far as the word counts */
    uint16_t deliveries;   /* times its broker delivered it before, as far as the word counts; 0 where it does not say */
} pf_message;

/* A count for one of the two words above. */
static inline uint16_t pf_count16(uint32_t count) {
    return (uint16_t)(count < UINT16_MAX ? count : UINT16_MAX);
}

/* A message that is no row. */
typedef struct {
    pf_refusal why;
    uint32_t message;      /* index into the messages */
    uint32_t reserved;
} pf_refused;

/* The word of a row in the retries region, once a batch has rows that wait: in the upper half the last round of the
 * batch that the row takes part in, in the lower one how often it was given to a handler.  A row is done in round r if
 * its round is below r.  What a holder writes for the round to come does not change who takes part in this one, so it
 * may die while it writes. */
#define PF_RETRY_ROUND_SHIFT 16
#define PF_RETRY_GIVEN_MASK 0xffffu

/* What one batch holds of one partition.  first_offset is written once, before n_partitions counts
 * the entry, so the completion thread may read it while the slot is still filling. */
typedef struct {
    uint32_t partition;
    uint32_t messages;        /* rows and refused payloads */
    int64_t first_offset;     /* nothing at or above it may be committed while the slot lives */
    int64_t next_offset;      /* where to go on once every message of the batch is done */
} pf_slot_partition;

/* How far a batch has come, for whoever goes on with it after a death: its rows are handled in order, in parts of
 * consecutive rows, and what is counted here is done for good.  See ext/journal.h. */
typedef struct {
    uint32_t rows_done;       /* rows before this one are done: their records and notes lie in the regions below */
    uint32_t suspect_end;     /* rows from rows_done to this one are in the handler's hands; 0: none are */
    uint32_t deaths;          /* holders that died while just those rows were in their hands */
    uint32_t deaths_before;   /* holders that died while more rows than those, and they too, were */
    uint64_t output_bytes;    /* used of the output region */
    uint32_t output_records;
    uint32_t error_half;      /* of the error region: where the notes are; the other one is scratch */
    uint32_t error_bytes;     /* used of that half */
    uint32_t rejected;
    uint32_t retried;
    uint32_t failed;
    uint32_t killed;          /* of the failed: those that killed their holder */
    uint32_t in_hand;         /* how many of the suspects there are at most, where that is known; 0: all may be */
} pf_progress;

typedef struct {
    _Alignas(PF_CACHE_LINE)
    uint32_t state;           /* futex word; PF_SLOT_... ; see the life above */
    uint32_t worker;          /* index of the pool process it was queued for    I */
    uint64_t batch;           /* sequence number of this batch, from 1          I */
    uint64_t opened_ns;       /* CLOCK_MONOTONIC when its first row came; written before n_partitions counts it   I */
    uint64_t published_ns;    /*                                                I */
    uint32_t messages;        /* entries at messages_at                         I */
    uint32_t raw_bytes;       /* used of the raw region                         I */
    uint32_t n_partitions;    /* entries at partitions_at                       I */
    uint32_t epoch;           /* in which it was opened (intake.h)              I */
    uint64_t payload_bytes;   /* sum over its messages                          I */
    uint32_t crashes;         /* holders that died on this batch    I at claim, D */
    uint32_t hurried;         /* PF_NEVER_EARLY, ...                                 I */
    _Alignas(PF_CACHE_LINE)
    uint32_t decoded;         /* PF_UNDECODED, ...     the owner: I while FILLING, W while HELD; so are the next two */
    uint32_t rows;            /* good rows */
    uint32_t refused;         /* messages that are none: entries at refusals_at */
    uint64_t taken_ns;        /*                                                W */
    uint64_t completed_ns;    /*                                                W */
    uint64_t output_bytes;    /* used of the output region                      W */
    uint32_t output_records;  /* records in the output region                   W */
    uint32_t error_bytes;     /* used of the error region: reasons, tracebacks  W */
    uint32_t rejected;        /*                                                W */
    uint32_t retried;         /*                                                W */
    uint32_t failed;          /*                                                W */
    uint32_t error_half;      /* of the error region: the one that error_bytes are in   W */
    uint32_t round;           /* from 1; more when rows of the batch are handled again   I */
    uint32_t waits_from;      /* rows whose word tells this round or a later one wait; 0: none did yet   I at claim, W at park, D */
    uint64_t due_ns;          /* CLOCK_MONOTONIC when a parked batch goes on             W, D */
    uint64_t first_due_ns;    /* when the first of its rows was to go on; so are the next: once it is gathered   D */
    uint64_t wait_ns;         /* the shortest time that any of its rows was to wait      D */
    uint32_t gathered;        /* 1: it holds rows that wait, and their notes, alone (gather.h)   I at claim, D */
    uint32_t round_rows;      /* most rows of one call of this round; 0: as many as a batch has          I */
    uint32_t later_rows;      /* the same of the next one, whose search for a row that kills goes on there   I at claim, W, D */
    uint32_t journal_at;      /* which progress record counts; the other one is scratch   W while HELD, D after a death */
    pf_progress journal[2];
} pf_slot;

/* One pool process' place.  Queue indices only grow; index & (PF_QUEUE_CAPACITY - 1) is the cell.
 * collected <= completed <= taken <= tail always; tail - completed slots are in the process' hands.  A cell is used
 * again only once it was collected, or the completion thread would miss a batch and meet another one twice. */
typedef struct {
    _Alignas(PF_CACHE_LINE)
    uint32_t tail;            /* slots queued                                   I */
    uint32_t stop;            /* 1 = leave once the queue is empty    main thread */
    uint32_t signal;          /* futex word: added to by I and D whenever there is news for W */
    uint32_t collected;       /* completions that the completion thread has seen  D */
    _Alignas(PF_CACHE_LINE)
    uint32_t taken;           /*                                                W, D after a death */
    uint32_t completed;       /*                                                W */
    uint32_t waiting;         /* 1 while asleep on `signal`                     W */
    uint32_t booted;          /* 1 once setup() has returned                    W */
    int32_t pid;              /*                                                W */
    _Alignas(PF_CACHE_LINE)
    uint64_t batches;         /* counters for metrics                           W */
    uint64_t rows;
    uint64_t handler_ns;
    uint64_t heartbeat_ns;    /* CLOCK_MONOTONIC of its last sign of life       W */
    uint64_t began_ns;        /* CLOCK_MONOTONIC when the call in hand began (pool/call_clock.py); 0: none. W, D after a death */
    _Alignas(PF_CACHE_LINE)
    uint32_t queue[PF_QUEUE_CAPACITY]; /*                                       I */
} pf_worker;

/* A process that has run setup() and waits for one of its pool to die. */
#define PF_SPARE_WAITS 0u
#define PF_SPARE_LEAVES 0xffffffffu

typedef struct {
    _Alignas(PF_CACHE_LINE)
    uint32_t place;           /* futex word: PF_SPARE_..., or the place to take + 1    who gives it, see pool/places.py */
    uint32_t up;              /* 1 while it waits                                      the spare */
} pf_spare;

typedef struct {
    _Alignas(PF_CACHE_LINE)
    uint64_t magic;
    uint64_t arena_bytes;
    uint32_t n_workers;
    uint32_t n_slots;
    uint32_t slot_capacity;   /* messages a slot can hold */
    uint32_t credit;          /* slots one pool process may have in hand and in its queue */
    uint32_t n_spares;
    uint64_t slot_bytes;
    uint64_t workers_at;
    uint64_t spares_at;
    uint64_t names_at;
    uint64_t slots_at;
    uint64_t partitions_at;   /* from here on: offsets within a slot */
    uint64_t messages_at;
    uint64_t good_at;         /* the messages that are rows, copied when some are not; else messages_at has just them */
    uint64_t refusals_at;
    uint64_t status_at;
    uint64_t retries_at;
    uint64_t columns_at;
    uint64_t raw_at;
    uint64_t raw_bytes;
    uint64_t errors_at;
    uint64_t errors_bytes;    /* of each of the two halves */
    uint64_t output_at;
    uint64_t output_bytes;
    _Alignas(PF_CACHE_LINE)
    uint32_t done_signal;     /* futex word: completions and spills so far, every W adds */
    uint32_t done_waiting;    /* 1 while the completion thread sleeps           D */
    _Alignas(PF_CACHE_LINE)
    uint32_t free_signal;     /* futex word: releases and collections so far    D */
    uint32_t free_waiting;    /* 1 while the intake thread sleeps               I */
    uint32_t n_waiting;       /* batches in state WAITING       D adds, I and D subtract */
    uint32_t epoch;           /* in which batches are opened now (intake.h)     I */
    _Alignas(PF_CACHE_LINE)
    uint32_t circuit;         /* PF_CIRCUIT_...; on a line that is hardly ever written     D; W takes the probe */
    uint32_t void_below;      /* batches of epochs below come to nothing: they are not handled   D; I at a rewind */
    uint32_t gathers;         /* odd while slots that wait are changed (gather.h)       D */
    uint32_t failed_probes;   /* of the circuit, one after the other; written before it is half open     D */
} pf_arena;

_Static_assert(sizeof(pf_message) == 48, "pf_message is part of the shared layout");
_Static_assert(sizeof(pf_slot_partition) == 24, "pf_slot_partition is part of the shared layout");
_Static_assert(sizeof(pf_progress) == 56, "pf_progress is part of the shared layout");
_Static_assert(sizeof(pf_refused) == 24, "pf_refused is part of the shared layout");
_Static_assert(sizeof(pf_slot) % PF_CACHE_LINE == 0, "slots must not share cache lines");

#endif
