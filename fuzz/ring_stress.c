/* The ring's own code (ext/ring.h, ext/intake.h) under ThreadSanitizer: threads stand for processes, every access to a
 * shared word may be delayed, and a pool process may die at any of them.
 *
 *     ring_stress SECONDS SEED
 *
 * Every round is a run of its own, of sizes drawn by chance, to its end: messages are taken in, taken, handled, spilled,
 * parked and released, while the circuit opens and closes.  Checked is that
 *   - no two holders have a slot, and a holder finds in it what the intake wrote;
 *   - every message is in just one batch that was released, and in none before a handler had it;
 *   - what a dead process had is handled again, and at the end every slot is free and every queue empty;
 *   - nobody sleeps on when there is news: no wait may run into its timeout, which is made long here.
 * ThreadSanitizer reports each pair of accesses that release and acquire do not order.
 *
 * STRESS_FAULT (a number, see scripts/stress.sh) puts a fault in, which one of these must find. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "atomics.h"

#ifndef STRESS_FAULT
#define STRESS_FAULT 0
#endif
enum { RELAXED_STORES = 1, NO_WAKE = 2, RETURN_THE_LIVING = 3, EARLY_RELEASE = 4, NO_RETURN = 5 };

#define MUST(condition)                                                                    \
    do {                                                                                   \
        if (!(condition)) {                                                                \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                \
            _exit(1);                                                                      \
        }                                                                                  \
    } while (0)

#ifndef LOST_AFTER_NS
#define LOST_AFTER_NS 10000000000ll /* a wait that nobody ends for so long was forgotten */
#endif
#define LONG_WAIT_NS 10000000ll     /* the ring's own waits that are as long or longer are expected to be ended */

static __thread uint64_t dice;
static __thread jmp_buf *grave; /* of a pool process: where its death goes to; NULL: this thread does not die */
static __thread uint32_t deadly; /* one step in so many is its last; 0: none */

/* xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled"). */
static uint32_t chance(uint32_t n) {
    dice ^= dice >> 12;
    dice ^= dice << 25;
    dice ^= dice >> 27;
    return (uint32_t)((dice * 0x2545F4914F6CDD1Dull) >> 32) % n;
}

/* Before each access to a shared word. */
static void step(void) {
    if (grave != NULL && deadly && chance(deadly) == 0) longjmp(*grave, 1);
    uint32_t what = chance(256);
    if (what < 24) sched_yield();
    else if (what == 24) {
        struct timespec nap = {0, chance(60000)};
        nanosleep(&nap, NULL);
    }
}

static void patient_wait(uint32_t *word, uint32_t seen, int64_t timeout_ns) {
    if (timeout_ns < LONG_WAIT_NS) {
        pf_wait(word, seen, timeout_ns);
        return;
    }
    uint64_t began = pf_now_ns();
    pf_wait(word, seen, LOST_AFTER_NS);
    if (pf_now_ns() - began >= LOST_AFTER_NS) {
        fprintf(stderr, "a wake-up was lost\n");
        _exit(1);
    }
}

static inline void relaxed_store(uint32_t *word, uint32_t value) { __atomic_store_n(word, value, __ATOMIC_RELAXED); }

/* The code under test says these names; a macro is not expanded within itself. */
#define pf_load(word) (step(), pf_load(word))
#define pf_load_sc(word) (step(), pf_load_sc(word))
#if STRESS_FAULT == 1
#define pf_store(word, value) (step(), relaxed_store(word, value))
#else
#define pf_store(word, value) (step(), pf_store(word, value))
#endif
#define pf_store_sc(word, value) (step(), pf_store_sc(word, value))
#define pf_add(word, n) (step(), pf_add(word, n))
#define pf_exchange_if(word, seen, value) (step(), pf_exchange_if(word, seen, value))
#define pf_wait(word, seen, timeout_ns) (step(), patient_wait(word, seen, timeout_ns))
#if STRESS_FAULT == 2
#define pf_wake(word) (step(), (void)(word))
#else
#define pf_wake(word) (step(), pf_wake(word))
#endif

#include "intake.h"

enum { MOST_PLACES = 3, MOST_SLOTS = 6, MOST_MESSAGES = 4000, RAW_BYTES = 256, CAPACITY = 4, MOST_CREDIT = 3 };
_Static_assert(MOST_CREDIT < PF_QUEUE_CAPACITY && PF_QUEUE_CAPACITY < MOST_SLOTS, "queues can be full of what is done");

typedef struct {
    uint64_t number, check; /* of the message; the check shows torn or foreign bytes */
} payload;

#define CHECK_OF(number) (((number) + 1) * 0x9E3779B97F4A7C15ull)

static pf_arena *arena;
static uint32_t n_messages;
static uint64_t round_seed;
static uint32_t holder[MOST_SLOTS];     /* 1 + the place; changed by exchange: two holders are seen at once */
static uint8_t handled[MOST_MESSAGES];  /* written by holders, which the ring orders */
static uint8_t released[MOST_MESSAGES]; /* completion thread */

/* Completion._deaths, and what it launches. */
static pthread_mutex_t deaths_lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t dead[MOST_PLACES]; /* 1: died, not buried */
static pthread_t processes[MOST_PLACES];
static uint32_t launches[MOST_PLACES];
static uint32_t deaths_left; /* processes that are launched while there are some may die, one step in so many */

static struct {
    uint64_t rounds, messages, batches, deaths, returned, spills, parks, probes;
} seen_so_far;

/* ---- a decoder and a source ---- */

static int decode(pf_decoder *self, pf_columns *batch, const uint8_t *bytes, size_t size, pf_refusal *why) {
    (void)self;
    (void)why;
    payload read;
    MUST(size == sizeof read);
    memcpy(&read, bytes, size);
    MUST(read.check == CHECK_OF(read.number));
    batch->rows++;
    return PF_DECODED;
}

typedef struct {
    pf_source source;
    uint64_t next;
} counting_source;

static int poll_source(pf_source *self, pf_sink *sink, uint32_t most, int64_t timeout_us) {
    (void)timeout_us;
    counting_source *source = (counting_source *)self;
    for (uint32_t i = 0; i < most; i++) {
        if (source->next == n_messages) return i ? PF_SOURCE_MORE : PF_SOURCE_END;
        payload made = {source->next, CHECK_OF(source->next)};
        pf_incoming message = {.payload = (const uint8_t *)&made, .size = sizeof made, .key_size = -1,
                               .partition = (uint32_t)(source->next % 3), .offset = (int64_t)source->next,
                               .next_offset = (int64_t)source->next + 1, .timestamp_ms = -1};
        if (sink->append(sink, &message) != PF_APPENDED) return PF_SOURCE_STALLED;
        source->next++;
    }
    return PF_SOURCE_MORE;
}

/* ---- pool process ---- */

static void hold(uint32_t slot, uint32_t place) {
    uint32_t nobody = 0;
    MUST(__atomic_compare_exchange_n(&holder[slot], &nobody, place + 1, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}

static void let_go(uint32_t slot) { __atomic_store_n(&holder[slot], 0, __ATOMIC_RELAXED); }

static void handle(pf_decoder *decoder, uint32_t place, uint32_t index) {
    pf_slot *slot = pf_slot_at(arena, index);
    if (slot->decoded == PF_UNDECODED) pf_decode_slot(arena, slot, (pf_columns){.capacity = CAPACITY}, decoder);
    hold(index, place);
    MUST(slot->rows == slot->messages && slot->rows > 0 && slot->worker == place);
    pf_progress_begin(slot, slot->rows, 0, 0);
    uint64_t *output = (uint64_t *)((uint8_t *)slot + arena->output_at);
    for (uint32_t row = 0; row < slot->rows; row++) {
        payload read;
        memcpy(&read, (uint8_t *)slot + arena->raw_at + pf_slot_messages(arena, slot)[row].payload_at, sizeof read);
        MUST(read.number < n_messages && read.check == CHECK_OF(read.number));
        handled[read.number] = 1;
        output[row] = read.number;
        if (chance(8) == 0) { /* the output region is full */
            slot->output_records = row + 1;
            pf_spill(arena, index);
            while (pf_load(&slot->state) == PF_SLOT_OUTPUT_FULL) pf_wait(&slot->state, PF_SLOT_OUTPUT_FULL, LOST_AFTER_NS);
            MUST(output[row] == UINT64_MAX); /* what the completion thread writes when it has emptied it */
            memset(output, 0, sizeof *output * CAPACITY);
            output[row] = read.number;
        }
    }
    slot->output_records = slot->rows;
    int again = slot->round < 4 && chance(6) == 0;
    let_go(index); /* from its store of `completed` on the slot is the completion thread's; a death before is looked at there */
    if (again) pf_park(arena, place, index, pf_now_ns() + chance(300000));
    else pf_complete(arena, place, index);
}

static void *process(void *argument) {
    uint32_t place = (uint32_t)(uintptr_t)argument;
    pf_worker *w = pf_worker_at(arena, place);
    pf_decoder decoder = {.decode = decode};
    jmp_buf here;
    dice = round_seed * 1000003 + place * 101 + launches[place] * 7919 + 1;
    deadly = 0;
    pthread_mutex_lock(&deaths_lock);
    if (deaths_left) deadly = 40 + chance(400);
    pthread_mutex_unlock(&deaths_lock);
    if (setjmp(here) == 0) {
        grave = &here;
        while (!pf_load_sc(&w->stop) || pf_load_sc(&w->tail) != w->taken) {
            uint32_t slot = pf_take(arena, place);
            if (slot == PF_NO_SLOT) pf_worker_sleep(arena, place, LOST_AFTER_NS);
            else handle(&decoder, place, slot);
        }
        grave = NULL;
        return NULL;
    }
    grave = NULL; /* dead.  The lock is what waitpid(2) and the nursery's message are: they come after all it did. */
    pthread_mutex_lock(&deaths_lock);
    if (deaths_left) deaths_left--;
    dead[place] = 1;
    pthread_mutex_unlock(&deaths_lock);
    pf_notify_done(arena);
    return NULL;
}

static void launch(uint32_t place) {
    launches[place]++;
    MUST(pthread_create(&processes[place], NULL, process, (void *)(uintptr_t)place) == 0);
}

/* ---- completion thread: runtime/completion.py and the methods of ext/ring.pyx, in C ---- */

typedef struct {
    uint32_t state; /* it came with; 0: nothing is pending */
    uint32_t turns; /* until its records are durable */
} pending_slot;

static int is_dead(uint32_t place) {
    pthread_mutex_lock(&deaths_lock);
    int is = (int)dead[place];
    pthread_mutex_unlock(&deaths_lock);
    return is;
}

static uint32_t in_hand_of(uint32_t place) {
    pf_worker *w = pf_worker_at(arena, place);
    uint32_t completed = pf_load_sc(&w->completed);
    return pf_load(&w->taken) == completed ? PF_NO_SLOT : w->queue[completed & (PF_QUEUE_CAPACITY - 1)];
}

static int buried_later(uint32_t slot) {
    for (uint32_t p = 0; p < arena->n_workers; p++)
        if (is_dead(p) && in_hand_of(p) == slot) return 1;
    return 0;
}

static void note_release(pf_slot *slot) {
    for (uint32_t i = 0; i < slot->messages; i++) {
        int64_t number = pf_slot_messages(arena, slot)[i].offset;
        MUST(number >= 0 && number < n_messages && handled[number] && !released[number]);
        released[number] = 1;
    }
    seen_so_far.batches++;
}

static void settle(uint32_t index, pending_slot *pending) {
    pf_slot *slot = pf_slot_at(arena, index);
    uint64_t *output = (uint64_t *)((uint8_t *)slot + arena->output_at);
    uint32_t state = pending->state;
    pending->state = 0;
    if (state == PF_SLOT_OUTPUT_FULL) {
        seen_so_far.spills++;
        if (buried_later(index)) {
            pf_progress_forget_output(slot);
            return;
        }
        output[slot->output_records - 1] = UINT64_MAX;
        pf_resume(arena, index);
        return;
    }
    MUST(slot->output_records == slot->rows);
    if (state == PF_SLOT_PARKED) {
        seen_so_far.parks++;
        pf_wait_until_due(arena, index);
    } else {
        note_release(slot);
        pf_release(arena, index);
    }
}

static void bury(uint32_t place, pending_slot *pending) {
    uint32_t slot = in_hand_of(place);
    if (slot != PF_NO_SLOT && pending[slot].state) return;
    pf_worker *w = pf_worker_at(arena, place);
    MUST(pthread_join(processes[place], NULL) == 0);
    seen_so_far.deaths++;
    seen_so_far.returned += w->taken - w->completed;
    if (slot != PF_NO_SLOT) let_go(slot);
    if (STRESS_FAULT != NO_RETURN) pf_return(arena, place);
    if (pf_load(&arena->circuit) != PF_CIRCUIT_CLOSED) pf_set_circuit(arena, PF_CIRCUIT_HALF_OPEN); /* perhaps it had the probe */
    pthread_mutex_lock(&deaths_lock);
    dead[place] = 0;
    pthread_mutex_unlock(&deaths_lock);
    launch(place);
}

/* Opens the circuit now and then, tries a probe, and closes it when a batch came back. */
static void turn_circuit(uint32_t collected) {
    uint32_t circuit = pf_load(&arena->circuit);
    static uint32_t probing;
    if (circuit == PF_CIRCUIT_CLOSED) {
        probing = 0;
        if (chance(40) == 0) pf_set_circuit(arena, PF_CIRCUIT_OPEN);
    } else if (!probing) {
        if (chance(3) == 0) {
            probing = 1;
            seen_so_far.probes++;
            pf_set_circuit(arena, PF_CIRCUIT_HALF_OPEN);
        }
    } else if (collected || chance(50) == 0) {
        probing = 0;
        pf_set_circuit(arena, PF_CIRCUIT_CLOSED);
    }
}

static uint32_t completion_stop;

static void *completion(void *unused) {
    (void)unused;
    pending_slot pending[MOST_SLOTS] = {{0, 0}};
    uint32_t seen = 0, found[MOST_SLOTS];
    dice = round_seed * 31 + 5;
    while (!pf_load(&completion_stop)) {
        uint32_t busy = pf_load(&arena->circuit) != PF_CIRCUIT_CLOSED;
        for (uint32_t s = 0; s < arena->n_slots; s++) busy |= pending[s].state;
        pf_store_sc(&arena->done_waiting, 1); /* Arena.wait_done */
        if (pf_load_sc(&arena->done_signal) == seen) pf_wait(&arena->done_signal, seen, busy ? 100000 : LOST_AFTER_NS);
        pf_store_sc(&arena->done_waiting, 0);
        seen = pf_load_sc(&arena->done_signal);
        uint32_t n = 0; /* Arena.collect */
        for (uint32_t p = 0; p < arena->n_workers; p++) {
            pf_worker *w = pf_worker_at(arena, p);
            uint32_t at = w->collected, completed = pf_load_sc(&w->completed);
            for (; at != completed; at++) found[n++] = w->queue[at & (PF_QUEUE_CAPACITY - 1)];
            pf_store(&w->collected, at);
        }
        if (n) pf_signal_room(arena);
        for (uint32_t i = 0; i < n; i++) {
            uint32_t state = pf_load(&pf_slot_at(arena, found[i])->state);
            MUST(pending[found[i]].state == 0 && (state == PF_SLOT_DONE || state == PF_SLOT_PARKED));
            pending[found[i]] = (pending_slot){state, chance(3)};
            if (STRESS_FAULT == EARLY_RELEASE && state == PF_SLOT_DONE && chance(20) == 0) pf_release(arena, found[i]);
        }
        for (uint32_t p = 0; p < arena->n_workers; p++) { /* Arena.spilled */
            uint32_t slot = in_hand_of(p);
            if (slot == PF_NO_SLOT || pending[slot].state) continue;
            if (pf_load(&pf_slot_at(arena, slot)->state) == PF_SLOT_OUTPUT_FULL)
                pending[slot] = (pending_slot){PF_SLOT_OUTPUT_FULL, chance(3)};
        }
        for (uint32_t s = 0; s < arena->n_slots; s++)
            if (pending[s].state && pending[s].turns-- == 0) settle(s, &pending[s]);
        for (uint32_t p = 0; p < arena->n_workers; p++)
            if (is_dead(p)) bury(p, pending);
        if (STRESS_FAULT == RETURN_THE_LIVING && chance(50) == 0) pf_return(arena, 0);
        turn_circuit(n);
    }
    return NULL;
}

/* ---- a run ---- */

static uint64_t aligned(uint64_t value) { return (value + 63) & ~63ull; }

static void make_arena(uint32_t places, uint32_t slots, uint32_t credit) {
    pf_arena sizes = {.magic = PF_ARENA_MAGIC, .n_workers = places, .n_slots = slots, .slot_capacity = CAPACITY, .credit = credit};
    uint64_t at = aligned(sizeof(pf_slot));
    sizes.partitions_at = at;
    sizes.messages_at = at = aligned(at + PF_SLOT_PARTITIONS * sizeof(pf_slot_partition));
    sizes.good_at = at = aligned(at + CAPACITY * sizeof(pf_message));
    sizes.refusals_at = at = aligned(at + CAPACITY * sizeof(pf_message));
    sizes.status_at = at = aligned(at + CAPACITY * sizeof(pf_refused));
    sizes.raw_at = at = aligned(at + CAPACITY);
    sizes.raw_bytes = RAW_BYTES;
    sizes.output_at = at = aligned(at + RAW_BYTES);
    sizes.output_bytes = CAPACITY * sizeof(uint64_t);
    sizes.slot_bytes = aligned(at + sizes.output_bytes);
    sizes.workers_at = aligned(sizeof(pf_arena));
    sizes.slots_at = aligned(sizes.workers_at + places * sizeof(pf_worker));
    sizes.arena_bytes = sizes.slots_at + slots * sizes.slot_bytes;
    arena = mmap(NULL, sizes.arena_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    MUST(arena != MAP_FAILED);
    memcpy(arena, &sizes, sizeof sizes);
}

static int all_is_free(void) {
    for (uint32_t s = 0; s < arena->n_slots; s++)
        if (pf_load(&pf_slot_at(arena, s)->state) != PF_SLOT_FREE) return 0;
    return 1;
}

static void run_once(void) {
    pthread_t completing;
    pf_decoder decoder = {.decode = decode};
    pf_open_batch open = {.slot = PF_NO_SLOT};
    counting_source source = {.source = {.poll = poll_source}};
    make_arena(1 + chance(MOST_PLACES), 1 + chance(MOST_SLOTS), 1 + chance(MOST_CREDIT));
    n_messages = 200 + chance(800);
    memset(handled, 0, sizeof handled);
    memset(released, 0, sizeof released);
    memset(launches, 0, sizeof launches);
    completion_stop = 0;
    deaths_left = chance(4) ? chance(40) : 0;
    pf_intake intake = {.sink = {pf_intake_append}, .arena = arena, .decoder = &decoder, .columns = {.capacity = CAPACITY},
                        .batch_rows = CAPACITY, .open = &open, .n_open = 1, .ordering = PF_UNORDERED, .admission = {.gate = PF_GATE_OPEN},
                        .linger_ns = chance(100000), .patience_ns = UINT64_MAX / 2, .max_payload_bytes = RAW_BYTES};
    MUST(pthread_create(&completing, NULL, completion, NULL) == 0);
    for (uint32_t p = 0; p < arena->n_workers; p++) launch(p);
    MUST(pf_intake_run(&intake, &source.source) == PF_SOURCE_END);
    /* HandlerRun._drain looks by the clock; here, too, but not for ever. */
    uint64_t began = pf_now_ns();
    while (!(pf_intake_flush(&intake, pf_now_ns() + 1000000) && all_is_free())) {
        MUST(pf_now_ns() - began < 3 * LOST_AFTER_NS);
        struct timespec nap = {0, 200000};
        nanosleep(&nap, NULL);
    }
    pf_store(&completion_stop, 1);
    pf_notify_done(arena);
    pthread_join(completing, NULL);
    for (uint32_t p = 0; p < arena->n_workers; p++) {
        pf_worker *w = pf_worker_at(arena, p);
        pf_store_sc(&w->stop, 1);
        pf_notify_worker(w);
        pthread_join(processes[p], NULL); /* it may have died at its last step: nobody is launched any more */
        dead[p] = 0;
        MUST(w->tail == w->completed && w->completed == w->collected);
    }
    for (uint32_t i = 0; i < n_messages; i++) MUST(released[i]);
    MUST(arena->n_waiting == 0);
    seen_so_far.messages += n_messages;
    munmap(arena, arena->arena_bytes);
}

int main(int argc, char **argv) {
    uint64_t seconds = argc > 1 ? strtoull(argv[1], NULL, 10) : 10;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    uint64_t began = pf_now_ns();
    do {
        round_seed = seed + seen_so_far.rounds;
        dice = round_seed * 0x9E3779B97F4A7C15ull | 1;
        run_once();
        seen_so_far.rounds++;
    } while (pf_now_ns() - began < seconds * 1000000000ull);
    printf("%llu runs, %llu messages in %llu batches, %llu deaths, %llu batches returned, %llu spills, %llu parked, "
           "%llu probes: nothing found\n",
           (unsigned long long)seen_so_far.rounds, (unsigned long long)seen_so_far.messages,
           (unsigned long long)seen_so_far.batches, (unsigned long long)seen_so_far.deaths,
           (unsigned long long)seen_so_far.returned, (unsigned long long)seen_so_far.spills,
           (unsigned long long)seen_so_far.parks, (unsigned long long)seen_so_far.probes);
    return 0;
}
