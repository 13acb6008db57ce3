/* The ring as SPIN checks it: every store of ext/ring.h that another party can see is a step, and between any two steps
 * any other party may go on, or a pool process die.  docs/model/README.md says what is left out, and why.
 *
 * An inline has the name of the C function or method it stands for; tests/ext/test_ring_model_names.py compares, for
 * each of them, the words it stores, in their order, and the transitions of slots, with the code.
 *
 * Memory is sequentially consistent here.  That the code's release and acquire pairs are enough is shown by
 * ThreadSanitizer (fuzz/ring_stress.c), and its Dekker pairs (store mine, load yours) are _sc operations. */

#ifndef WORKERS
#define WORKERS 1   /* places of the pool */
#endif
#ifndef SLOTS
#define SLOTS 2
#endif
#ifndef BATCHES
#define BATCHES 2
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef CREDIT
#define CREDIT 2
#endif
#ifndef CELLS
#define CELLS 2     /* of a queue; the code's has 64 and a credit below it */
#endif
#ifndef SPILLS
#define SPILLS 0
#endif
#ifndef PARKS
#define PARKS 0
#endif
#ifndef MERGES
#define MERGES 0    /* 1: rows that wait may move into another slot in which rows wait; with two slots */
#endif
#ifndef CIRCUIT
#define CIRCUIT 0   /* 1: the circuit is half open at first, so one batch is the probe */
#endif

/* A slot's state is a bit, so that a transition may name several it comes from. */
#define FREE 1
#define FILLING 2
#define READY 4
#define HELD 8
#define DONE 16
#define OUTPUT_FULL 32
#define PARKED 64
#define WAITING 128

/* transition NAME of slot s: that it comes from another state than it may is what the model is about. */
#define MOVE(s, NAME, FROM, TO) assert(state[s] & (FROM)); state[s] = TO

#define CLOSED 0
#define OPEN 2
#define HALF_OPEN 3

#define NONE 15     /* no slot */
#define CELL(w, at) queue[(w) * CELLS + (at) % CELLS]

/* ---- the arena ---- */
byte state[SLOTS] = FREE;
byte queue[WORKERS * CELLS] = NONE;
byte tail[WORKERS];
byte taken[WORKERS];
byte completed[WORKERS];
byte collected[WORKERS];
/* A futex word and what its only waiter remembers of it are one bit, 1: the waiter has read the word and nothing was added
 * since.  That is all that futex(2) compares, so nothing is lost with the count.  0 as well while nobody remembers. */
bit signal[WORKERS];
bit waiting[WORKERS];
bit stop[WORKERS];
bit done_signal;
bit done_waiting;
bit free_signal;
bit free_waiting;
byte n_waiting;
byte circuit = CIRCUIT * HALF_OPEN;

#define SEEN(word) word = 1
#define ADDED(word) word = 0
#define FORGOTTEN(word) word = 0

/* ---- the kernel: who sleeps in futex(2), and who is alive ---- */
bit worker_sleeps[WORKERS];
bit done_sleeps;
bit free_sleeps;
bit alive[WORKERS] = 1;
byte deaths;

/* ---- the runtime's own memory ---- */
bit posted[WORKERS];    /* completion.py: _deaths */

/* ---- what no party sees; it is for the checks ---- */
byte holder[SLOTS];     /* 1 + the place whose process has the slot in its hands */
byte batch[SLOTS];      /* a bit for each batch that it has rows of */
byte fed;
byte handled;           /* a bit a batch */
byte released;          /* a bit a batch */
byte spills;
byte parks;
byte probes;            /* batches taken while the circuit was half open */

#define ALL ((1 << BATCHES) - 1)

/* ================================ intake thread ================================ */

/* Looks over slots and places are one step: while the intake looks, FREE only comes (from the completion thread), and
 * so does credit; so what it finds is what there was at its first load, or a slot that has become free since, which the
 * free choice among the free slots has. */
#define FREE_SLOT(i) (state[i] == FREE)
#define HAS_CREDIT(w) (tail[w] - completed[w] < CREDIT && tail[w] - collected[w] < CELLS)
#if SLOTS == 1
#define HAS_FREE_SLOT (state[0] == FREE)
#define IS_WAITING (n_waiting > 0 && state[0] == WAITING)
#elif SLOTS == 2
#define HAS_FREE_SLOT (state[0] == FREE || state[1] == FREE)
#define IS_WAITING (n_waiting > 0 && (state[0] == WAITING || state[1] == WAITING))
#else
#define HAS_FREE_SLOT (state[0] == FREE || state[1] == FREE || state[2] == FREE)
#define IS_WAITING (n_waiting > 0 && (state[0] == WAITING || state[1] == WAITING || state[2] == WAITING))
#endif
#if WORKERS == 1
#define ANY_CREDIT HAS_CREDIT(0)
#else
#define ANY_CREDIT (HAS_CREDIT(0) || HAS_CREDIT(1))
#endif

inline any_free_slot(s) {
    if
    :: state[0] == FREE -> s = 0
#if SLOTS > 1
    :: state[1] == FREE -> s = 1
#endif
#if SLOTS > 2
    :: state[2] == FREE -> s = 2
#endif
    fi
}

inline any_waiting_slot(s) {
    if
    :: state[0] == WAITING -> s = 0
#if SLOTS > 1
    :: state[1] == WAITING -> s = 1
#endif
#if SLOTS > 2
    :: state[2] == WAITING -> s = 2
#endif
    fi
}

/* Any that has credit: which of them is the intake's policy, not the ring's. */
inline pf_worker_for(w) {
    if
    :: HAS_CREDIT(0) -> w = 0
#if WORKERS > 1
    :: HAS_CREDIT(1) -> w = 1
#endif
    fi
}

inline pf_claim(s) {
    atomic { any_free_slot(s); MOVE(s, claim, FREE, FILLING) }
}

/* The load of `waiting` and the wake are one step: a wake that comes later than the load only wakes somebody who looks
 * around and sleeps again. */
inline pf_notify_worker(w) {
    ADDED(signal[w]);
    atomic { if :: waiting[w] -> worker_sleeps[w] = 0 :: else fi }
}

/* The state and the cell are one step with what comes before: nobody looks at either until `tail` counts the cell. */
inline pf_queue_slot(s, w) {
    tail[w]++;
    pf_notify_worker(w)
}

inline pf_publish(s, w) {
    atomic { batch[s] = 1 << fed; fed++; MOVE(s, publish, FILLING, READY); CELL(w, tail[w]) = s };
    pf_queue_slot(s, w)
}

/* `s` is NONE where the completion thread has taken it back meanwhile. */
inline pf_requeue(s, w) {
    atomic { if :: state[s] == WAITING -> MOVE(s, recall, WAITING, FILLING) :: else -> s = NONE fi };
    if
    :: s != NONE ->
        n_waiting--;
        atomic { MOVE(s, requeue, FILLING, READY); CELL(w, tail[w]) = s };
        pf_queue_slot(s, w)
    :: else
    fi
}

/* `seen` of the code was read at `look`. */
inline pf_wait_for_room(room) {
    free_waiting = 1;
    if
    :: room
    :: else ->
        atomic { if :: free_signal -> free_sleeps = 1 :: else fi };
        !free_sleeps
    fi;
    atomic { free_waiting = 0; FORGOTTEN(free_signal) }
}

inline stop_worker(w) {
    stop[w] = 1;
    pf_notify_worker(w)
}

active proctype intake() {
    byte open = NONE, s = NONE, w;

look:
    SEEN(free_signal);
    /* pf_publish_due */
    do
    :: atomic { IS_WAITING && ANY_CREDIT -> any_waiting_slot(s); pf_worker_for(w) };
        pf_requeue(s, w);
        atomic { s = NONE; w = 0 }
    :: else -> break
    od;
    /* source->poll: a message a batch.  It may append several before the intake looks for due batches again. */
append:
    if
    :: atomic { open == NONE && fed == BATCHES -> FORGOTTEN(free_signal); goto drain }
    :: open == NONE && fed < BATCHES ->
        if
        :: HAS_FREE_SLOT -> pf_claim(open)
        :: else -> pf_wait_for_room(HAS_FREE_SLOT); goto look
        fi
    :: else
    fi;
    if
    :: atomic { ANY_CREDIT -> pf_worker_for(w) };
        pf_publish(open, w);
        atomic { open = NONE; w = 0 };
#if PARKS
        if
        :: goto look
        :: goto append
        fi
#else
        goto append
#endif
    :: else -> pf_wait_for_room(ANY_CREDIT); goto look
    fi;

    /* _drain of runtime/handler_run.py looks around by the clock until nothing is live. */
drain:
    do
    :: atomic { IS_WAITING && ANY_CREDIT -> any_waiting_slot(s); pf_worker_for(w) };
        pf_requeue(s, w);
        atomic { s = NONE; w = 0 }
    :: released == ALL -> break
    od;
    assert(state[0] == FREE);
#if SLOTS > 1
    assert(state[1] == FREE);
#endif
#if SLOTS > 2
    assert(state[2] == FREE);
#endif
    assert(n_waiting == 0);
    /* Supervisor.stop_all: each place's stop_worker */
    stop_worker(0);
#if WORKERS > 1
    stop_worker(1)
#endif
}

/* ================================ pool process ================================ */

#define MAY_TAKE(w) (tail[w] != taken[w] && circuit != OPEN)
#define MAY_SERVE(w) (MAY_TAKE(w) || stop[w])

/* The circuit's word and the exchange: one step, as the exchange is in the code.  Between its load and the exchange the
 * word may change, and then the exchange fails, which is what a look after the change finds. */
inline pf_circuit_admits() {
    atomic {
        MAY_TAKE(w);
        if
        :: circuit == HALF_OPEN -> circuit = OPEN; probes++; assert(probes <= 1 + DEATHS)
        :: circuit == CLOSED
        fi
    }
}


inline pf_take(w, s) {
    atomic {
        s = CELL(w, taken[w]);
        assert(s != NONE && holder[s] == 0);
        MOVE(s, take, READY, HELD);
        holder[s] = w + 1
    };
    taken[w]++
}

inline pf_notify_done() {
    ADDED(done_signal);
    atomic { if :: done_waiting -> done_sleeps = 0 :: else fi }
}

inline pf_hand_back(w, s) {
    atomic { completed[w]++; holder[s] = 0; s = NONE };
    pf_notify_done()
}

/* The handler writes into the slot until here; it is the holder's alone. */
#define HANDLED(w, s) assert(holder[s] == w + 1); handled = handled | batch[s]

inline pf_complete(w, s) {
    atomic { HANDLED(w, s); MOVE(s, complete, HELD, DONE) };
    pf_hand_back(w, s)
}

inline pf_park(w, s) {
    atomic { HANDLED(w, s); MOVE(s, park, HELD, PARKED) };
    pf_hand_back(w, s)
}

/* The holder waits for another state; it is woken or looks every 100 ms, so what it does is to wait until it is so. */
inline pf_spill(s) {
    MOVE(s, spill, HELD, OUTPUT_FULL);
    pf_notify_done();
    state[s] != OUTPUT_FULL
}

/* The read of `signal` and the store of `waiting` are one step: a signal between them has its news in place, for the
 * look behind them to find.  That look is one step as well: each of the words changes before the signal is given, and
 * `stop` only when no batch is left.  The look that found nothing before costs or spares a sleep, no more. */
inline pf_worker_sleep(w) {
    atomic { !MAY_SERVE(w) -> SEEN(signal[w]); waiting[w] = 1 };
    if
    :: MAY_SERVE(w)
    :: else ->
        atomic { if :: signal[w] -> worker_sleeps[w] = 1 :: else fi };
        !worker_sleeps[w]
    fi;
    atomic { waiting[w] = 0; FORGOTTEN(signal[w]) }
}

proctype process(byte w) {
    byte s = NONE;

launched:
    {
        do
#if CIRCUIT
        :: pf_circuit_admits();
#else
        :: tail[w] != taken[w] ->
#endif
            pf_take(w, s);
            do
            :: atomic { spills < SPILLS -> spills++ };
                pf_spill(s)
            :: pf_complete(w, s); break
            :: atomic { parks < PARKS -> parks++ }; pf_park(w, s); break
            od
        :: !MAY_TAKE(w) && stop[w] -> break
        :: pf_worker_sleep(w)
        od
    } unless {
        /* Dead.  The kernel closes what it had, the nursery reaps it and the supervisor says so: Completion.post_death. */
        atomic { !alive[w] -> s = NONE; worker_sleeps[w] = 0; FORGOTTEN(signal[w]); posted[w] = 1 };
        pf_notify_done();
        !posted[w];
        goto launched
    }
}

/* Any process may die between any two of its steps; or none ever again, so that a process that sleeps for good is not
 * saved by a death. */
active proctype kernel() {
end_spared:
    do
    :: atomic { deaths < DEATHS && alive[0] && !posted[0] -> deaths++; alive[0] = 0 }
#if WORKERS > 1
    :: atomic { deaths < DEATHS && alive[1] && !posted[1] -> deaths++; alive[1] = 0 }
#endif
    :: deaths < DEATHS -> deaths = DEATHS
    od
}

/* ================================ completion thread ================================ */

inline pf_signal_room() {
    ADDED(free_signal);
    atomic { if :: free_waiting -> free_sleeps = 0 :: else fi }
}

inline pf_set_circuit(word) {
    circuit = word;
    pf_notify_worker(0);
#if WORKERS > 1
    pf_notify_worker(1)
#endif
}

inline pf_resume(s) {
    MOVE(s, resume, OUTPUT_FULL, HELD)
}

inline pf_wait_until_due(s) {
    n_waiting++;
    MOVE(s, wait, PARKED, WAITING);
    pf_signal_room()
}

#if MERGES
/* `got`: the intake was not quicker. */
inline pf_reopen(s, got) {
    atomic { if :: state[s] == WAITING -> MOVE(s, reopen, WAITING, PARKED); got = 1 :: else fi };
    if
    :: got -> n_waiting--
    :: else
    fi
}

/* What waits is to be handled once more: in the slot `into`, which this thread has, too. */
inline pf_merge(s, into) {
    atomic {
        assert(state[into] == PARKED && !(batch[into] & batch[s]));
        batch[into] = batch[into] | batch[s];
        handled = handled & ~batch[into];
        batch[s] = 0;
        MOVE(s, merge, PARKED, FREE)
    }
}
#endif

inline pf_release(s) {
    atomic {
        assert((handled & batch[s]) == batch[s]);
        assert(!(released & batch[s]));
        released = released | batch[s];
        handled = handled & ~batch[s];
        batch[s] = 0;
        MOVE(s, release, DONE, FREE)
    };
    pf_signal_room()
}

/* One step: the process is dead, the next one is not launched, and of all that is written here the intake reads only
 * `waiting`, which may cost a wake-up of nobody. */
inline pf_return(w, at) {
    d_step {
        assert(!alive[w]);
        at = completed[w];
        do
        :: at != taken[w] ->
            assert(holder[CELL(w, at)] == w + 1);
            holder[CELL(w, at)] = 0;
            MOVE(CELL(w, at), return, HELD|DONE|OUTPUT_FULL|PARKED, READY);
            at++
        :: else -> break
        od;
        if
        :: taken[w] != tail[w] && state[CELL(w, taken[w])] != READY ->
            holder[CELL(w, taken[w])] = 0;
            MOVE(CELL(w, taken[w]), return, HELD, READY)
        :: else
        fi;
        waiting[w] = 0;
        taken[w] = completed[w];
        at = 0
    }
}

#if SLOTS == 1
#define NOTHING_PENDING (!pending[0])
#elif SLOTS == 2
#define NOTHING_PENDING (!pending[0] && !pending[1])
#else
#define NOTHING_PENDING (!pending[0] && !pending[1] && !pending[2])
#endif

/* With something pending it sleeps a millisecond at most: then it goes on without a signal.  Whether it looks at the word
 * before futex(2) does makes no difference.  It looks at nothing else between its steps here, so who notifies finds it
 * before or behind all of them. */
inline wait_done() {
    atomic { done_waiting = 1; if :: done_signal && NOTHING_PENDING -> done_sleeps = 1 :: else fi };
end_asleep:
    atomic { !done_sleeps -> done_waiting = 0; SEEN(done_signal) }
}

/* One step a place: `completed` is loaded once, and the cells below it and `collected` are nobody else's. */
inline collect_place(w, found) {
    d_step {
        do
        :: collected[w] != completed[w] ->
            assert(state[CELL(w, collected[w])] & (DONE | PARKED));
            assert(!pending[CELL(w, collected[w])]);
            pending[CELL(w, collected[w])] = state[CELL(w, collected[w])];
            CELL(w, collected[w]) = NONE; /* not in the code: what is left there counts for nothing */
            collected[w]++;
            found = 1
        :: else -> break
        od
    }
}

/* One step a place: OUTPUT_FULL stays until this thread changes it, so a later look finds what an earlier one did. */
inline spilled_place(w) {
    d_step {
        if
        :: taken[w] != completed[w] && state[CELL(w, completed[w])] == OUTPUT_FULL && !pending[CELL(w, completed[w])] ->
            pending[CELL(w, completed[w])] = OUTPUT_FULL
        :: else
        fi
    }
}

#define BURIED_PLACE(w, s) (posted[w] && taken[w] != completed[w] && CELL(w, completed[w]) == s)
#if WORKERS == 1
#define BURIED(s) BURIED_PLACE(0, s)
#else
#define BURIED(s) (BURIED_PLACE(0, s) || BURIED_PLACE(1, s))
#endif

/* All records and dead letters of the slot are durable. */
inline settle(s) {
    if
    :: pending[s] == OUTPUT_FULL ->
        pending[s] = 0;
        if
        :: !BURIED(s) -> pf_resume(s)
        :: else
        fi
    :: pending[s] == PARKED -> pending[s] = 0;
#if MERGES
        if
        :: state[1 - s] == WAITING -> pf_reopen(1 - s, found)
        :: true /* their times are too far apart */
        fi;
        if
        :: found -> pf_merge(s, 1 - s); pf_wait_until_due(1 - s); found = 0
        :: else -> pf_wait_until_due(s)
        fi
#else
        pf_wait_until_due(s)
#endif
    :: pending[s] == DONE -> pending[s] = 0; pf_release(s)
    fi
}

#define MUST_WAIT(w) (taken[w] != completed[w] && pending[CELL(w, completed[w])])

inline bury(w, at) {
    if
    :: atomic { posted[w] && !MUST_WAIT(w) -> pf_return(w, at) };
#if CIRCUIT
        if
        :: circuit != CLOSED -> pf_set_circuit(HALF_OPEN)
        :: else
        fi;
#endif
        atomic { alive[w] = 1; posted[w] = 0 }  /* launch */
    :: else
    fi
}

active proctype completion() {
    byte pending[SLOTS]; /* completion.py: _pending; the state a slot came with, 0: nothing is */
    byte at;
    bit found;
    bit late;            /* one delivery of a run comes in a later turn than it could */

    do
    ::  wait_done();
        collect_place(0, found);
#if WORKERS > 1
        collect_place(1, found);
#endif
        if
        :: atomic { found -> found = 0 };
            pf_signal_room();
#if CIRCUIT
            if  /* the probe came back */
            :: circuit != CLOSED -> probes = 0; pf_set_circuit(CLOSED)
            :: else
            fi
#endif
        :: else
        fi;
#if SPILLS
        spilled_place(0);
#if WORKERS > 1
        spilled_place(1);
#endif
#endif
        do
        :: at < SLOTS && !pending[at] -> at++
        :: at < SLOTS && pending[at] -> settle(at); at++
        :: at < SLOTS && pending[at] && !late -> late = 1; at++
        :: at == SLOTS -> at = 0; break
        od;
#if WORKERS == 1
        bury(0, at)
#else
        if
        :: !posted[0] && !posted[1] /* `_deaths` is looked at once */
        :: else -> bury(0, at); bury(1, at)
        fi
#endif
    od
}

init {
    atomic {
        run process(0);
#if WORKERS > 1
        run process(1)
#endif
    }
}
