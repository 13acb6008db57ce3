# cython: language_level=3
"""Arena: who may do what with the slots of one handler's shared memory.

The life of a slot is drawn in ext/arena_layout.h; the operations are ext/ring.h. This module gives them to Python, one
call a batch.
"""

from collections import namedtuple

from arena_layout cimport (
    PF_CIRCUIT_CLOSED,
    PF_CIRCUIT_FAILING,
    PF_CIRCUIT_HALF_OPEN,
    PF_CIRCUIT_OPEN,
    PF_EARLY,
    PF_QUEUE_CAPACITY,
    PF_ROW_UNMARKED,
    PF_SIFTED,
    PF_SLOT_FILLING,
    PF_SLOT_FREE,
    PF_SLOT_OUTPUT_FULL,
    PF_SLOT_PARKED,
    PF_SLOT_READY,
    PF_SLOT_WAITING,
    PF_UNDECODED,
    pf_arena,
    pf_refused,
    pf_slot,
    pf_slot_partition,
    pf_worker,
)
from atomics cimport pf_load, pf_load64, pf_load_sc, pf_now_ns, pf_store, pf_store64, pf_store_sc, pf_wait
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from pythia_fast._ext.arena_memory cimport ArenaMemory, pf_slot_at, slot_of
from pythia_fast._ext.decoder cimport NativeDecoder, pf_decoder
from pythia_fast._ext.plan cimport pf_columns

cdef extern from "slot_decode.h" nogil:
    enum:
        PF_NO_SLOT
    pf_worker *pf_worker_at(pf_arena *arena, uint32_t worker)
    int pf_decode_slot(const pf_arena *arena, pf_slot *slot, pf_columns columns, pf_decoder *decoder)
    pf_refused *pf_slot_refusals(const pf_arena *arena, pf_slot *slot)
    uint64_t pf_rows_at(const pf_arena *arena, const pf_slot *slot)
    pf_slot_partition *pf_slot_partitions(pf_arena *arena, pf_slot *slot)
    uint32_t pf_slot_partition_count(const pf_slot *slot)
    uint32_t pf_slot_length(const pf_arena *arena, const pf_slot *slot)
    uint32_t pf_in_hand(pf_arena *arena, uint32_t worker)
    uint32_t pf_take(pf_arena *arena, uint32_t worker)
    void pf_worker_poll(pf_arena *arena, uint32_t worker, uint64_t until_ns)
    void pf_worker_sleep(pf_arena *arena, uint32_t worker, int64_t timeout_ns)
    void pf_complete(pf_arena *arena, uint32_t worker, uint32_t slot)
    void pf_park(pf_arena *arena, uint32_t worker, uint32_t slot, uint64_t due_ns)
    void pf_wait_until_due(pf_arena *arena, uint32_t slot)
    void pf_spill(pf_arena *arena, uint32_t slot)
    void pf_resume(pf_arena *arena, uint32_t slot)
    void pf_release(pf_arena *arena, uint32_t slot)
    void pf_return(pf_arena *arena, uint32_t worker)
    void pf_progress_forget_output(pf_slot *slot)
    void pf_signal_room(pf_arena *arena)
    void pf_set_circuit(pf_arena *arena, uint32_t circuit)
    void pf_notify_done(pf_arena *arena)
    void pf_notify_worker(pf_worker *worker)

#: What the circuit word says.
CIRCUIT_CLOSED, CIRCUIT_FAILING = PF_CIRCUIT_CLOSED, PF_CIRCUIT_FAILING
CIRCUIT_OPEN, CIRCUIT_HALF_OPEN = PF_CIRCUIT_OPEN, PF_CIRCUIT_HALF_OPEN

#: What a slot holds, read once when the batch is completed (counts, and CLOCK_MONOTONIC nanoseconds).
SlotFacts = namedtuple(
    "SlotFacts",
    "batch worker rows refused rejected retried failed payload_bytes output_bytes output_records error_at error_bytes "
    "crashes round gathered opened_ns published_ns taken_ns completed_ns",
)

#: One pool process' counters (nanoseconds are of CLOCK_MONOTONIC).
WorkerFacts = namedtuple("WorkerFacts", "pid booted in_hand batches rows handler_ns heartbeat_ns began_ns")


def monotonic_ns():
    """CLOCK_MONOTONIC, as the arena's time stamps count it."""
    return pf_now_ns()


cdef pf_worker *_worker(Arena self, uint32_t worker) except NULL:
    if worker >= self.arena.n_workers:
        raise IndexError(f"worker {worker} of {self.arena.n_workers}")
    return pf_worker_at(self.arena, worker)


cdef class Arena(ArenaMemory):
    """The slots of one handler, and a queue for each pool process. ArenaMemory says what it is made of."""

    # -- pool process --------------------------------------------------------------------------

    def booted(self, uint32_t worker, int pid):
        """This process is ready for batches."""
        w = _worker(self, worker)
        w.pid = pid
        pf_store64(&w.heartbeat_ns, pf_now_ns())
        pf_store(&w.booted, 1)

    def take(self, uint32_t worker, double timeout, double busy_poll=0.0):
        """The next slot of the worker's queue, now held by it. None: ``timeout`` seconds passed, or it is to stop.

        For the first ``busy_poll`` seconds of them the process does not sleep.

        While the circuit is open none is taken; of a half-open one this may be the probe.
        """
        cdef pf_worker *w = _worker(self, worker)
        cdef uint32_t slot = pf_take(self.arena, worker)
        cdef uint64_t now
        cdef uint64_t deadline
        if slot == PF_NO_SLOT and timeout > 0:
            with nogil:
                now = pf_now_ns()
                deadline = now + <uint64_t>(timeout * 1e9)
                if busy_poll > 0:
                    pf_worker_poll(self.arena, worker, now + <uint64_t>(min(busy_poll, timeout) * 1e9))
                    slot = pf_take(self.arena, worker)
                    now = pf_now_ns()
                # A sleep may end early for no reason.
                while slot == PF_NO_SLOT and now < deadline and not pf_load_sc(&w.stop):
                    pf_worker_sleep(self.arena, worker, <int64_t>(deadline - now))
                    slot = pf_take(self.arena, worker)
                    now = pf_now_ns()
        pf_store64(&w.heartbeat_ns, pf_now_ns())
        if slot == PF_NO_SLOT:
            return None
        # Not where the arena lies: once detached, those bytes are the private ones of a view that was kept.
        memset(self._slot_address[slot] + self.arena.status_at, PF_ROW_UNMARKED,
               pf_slot_length(self.arena, pf_slot_at(self.arena, slot)))
        return slot

    def call_begins(self, uint32_t worker):
        """The clock of batch_deadline starts (pool/call_clock.py)."""
        pf_store64(&_worker(self, worker).began_ns, pf_now_ns())

    def call_ends(self, uint32_t worker):
        """It stands."""
        pf_store64(&_worker(self, worker).began_ns, 0)

    @property
    def circuit(self):
        """CIRCUIT_...: whether the pool processes may call the handler."""
        return pf_load(&self.arena.circuit)

    @property
    def failed_probes(self):
        """Probes of the open circuit that failed, one after the other; known to processes that follow as well."""
        return pf_load(&self.arena.failed_probes)

    def stopped(self, uint32_t worker):
        """The worker was told to leave; it still empties its queue."""
        return pf_load_sc(&_worker(self, worker).stop) != 0

    def complete(self, uint32_t worker, uint32_t slot, uint64_t output_bytes, uint32_t output_records,
                 uint32_t error_half, uint32_t error_bytes, uint32_t rejected, uint32_t retried, uint32_t failed,
                 uint64_t due_ns=0):
        """Hand the slot back with what became of it. ``due_ns``: CLOCK_MONOTONIC when the rows that wait are handled
        again; 0: there are none."""
        _worker(self, worker)
        s = slot_of(self, slot)
        s.output_bytes, s.output_records = output_bytes, output_records
        s.error_half, s.error_bytes = error_half & 1, error_bytes
        s.rejected, s.retried, s.failed = rejected, retried, failed
        if due_ns:
            pf_park(self.arena, worker, slot, due_ns)
        else:
            pf_complete(self.arena, worker, slot)

    def spill(self, uint32_t slot, uint64_t output_bytes, uint32_t output_records):
        """The output region is full: have it emptied. Returns when it is."""
        s = slot_of(self, slot)
        s.output_bytes, s.output_records = output_bytes, output_records
        pf_spill(self.arena, slot)
        while pf_load(&s.state) == PF_SLOT_OUTPUT_FULL:
            with nogil:
                pf_wait(&s.state, PF_SLOT_OUTPUT_FULL, 100000000)
        s.output_bytes = 0
        s.output_records = 0

    def round(self, uint32_t slot):
        """Which time it is, from 1, that rows of the batch are handled."""
        return slot_of(self, slot).round

    def early_due_ns(self, uint32_t slot):
        """CLOCK_MONOTONIC when this round of the batch would have been due, if it began before that; else 0."""
        s = slot_of(self, slot)
        return s.due_ns if s.hurried == PF_EARLY else 0

    def parked_before(self, uint32_t slot):
        """[(slot, waits_from, due_ns)] of the batches of the same process that came before this one and have rows that
        wait. Asked by the holder of ``slot``, to whose queue alone they come back: nobody writes these meanwhile but
        the completion thread, which says so (gather.changes)."""
        cdef pf_slot *mine = slot_of(self, slot)
        cdef pf_slot *other
        cdef uint32_t i, state
        found = []
        for i in range(self.arena.n_slots):
            other = pf_slot_at(self.arena, i)
            state = pf_load(&other.state)
            if state not in (PF_SLOT_PARKED, PF_SLOT_WAITING, PF_SLOT_FILLING, PF_SLOT_READY) or other.waits_from == 0:
                continue
            if other.worker == mine.worker and other.batch < mine.batch:
                found.append((i, other.waits_from, other.due_ns))
        return found

    def crashes(self, uint32_t slot):
        """Holders that have died on the batch in this slot."""
        return slot_of(self, slot).crashes

    def facts(self, uint32_t slot):
        """SlotFacts of a slot that this process holds."""
        s = slot_of(self, slot)
        return SlotFacts(
            s.batch, s.worker, s.rows, s.refused, s.rejected, s.retried, s.failed, s.payload_bytes, s.output_bytes,
            s.output_records, self.arena.errors_at + (s.error_half & 1) * self.arena.errors_bytes, s.error_bytes,
            s.crashes, s.round, s.gathered, s.opened_ns, s.published_ns, s.taken_ns, s.completed_ns,
        )

    def decode(self, uint32_t slot, NativeDecoder decoder not None):
        """Decode the batch of a slot that this process holds, unless the intake has. False: its rows are known, but its
        columns have no room for all of them at once."""
        cdef pf_slot *s = slot_of(self, slot)
        cdef pf_columns columns = self.layout.empty_columns()
        cdef bint is_decoded = s.decoded != PF_UNDECODED
        while not is_decoded:
            with nogil:
                # Through the mapping that handlers look at: it moves (detach_slot).
                is_decoded = pf_decode_slot(self.arena, <pf_slot *>self._slot_address[slot], columns, decoder.decoder)
            if not is_decoded:
                decoder.learn()
        return s.decoded != PF_SIFTED

    def rows(self, uint32_t slot):
        """Rows of a batch that is decoded."""
        return slot_of(self, slot).rows

    def rows_at(self, uint32_t slot):
        """Where the messages of those rows stand, in bytes from the slot's start."""
        return pf_rows_at(self.arena, slot_of(self, slot))

    # -- completion thread ---------------------------------------------------------------------

    def wait_done(self, uint32_t seen, double timeout):
        """Sleep until more than ``seen`` completions were signalled, or ``timeout`` seconds; the count now."""
        with nogil:
            pf_store_sc(&self.arena.done_waiting, 1)
            if pf_load_sc(&self.arena.done_signal) == seen:
                pf_wait(&self.arena.done_signal, seen, <int64_t>(timeout * 1e9))
            pf_store_sc(&self.arena.done_waiting, 0)
        return pf_load_sc(&self.arena.done_signal)

    def wake_done(self):
        """Wake the completion thread for something that is not a completion."""
        pf_notify_done(self.arena)

    def set_circuit(self, uint32_t circuit, uint32_t failed_probes=0):
        """Let the pool processes take batches (CIRCUIT_CLOSED, CIRCUIT_FAILING), none, or one as a probe, of which so
        many failed before, one after the other."""
        pf_store(&self.arena.failed_probes, failed_probes)
        pf_set_circuit(self.arena, circuit)

    def collect(self):
        """Slots completed since the last call, in each worker's order."""
        cdef pf_worker *w
        cdef uint32_t worker, at, completed
        found = []
        for worker in range(self.arena.n_workers):
            w = pf_worker_at(self.arena, worker)
            at = w.collected
            completed = pf_load_sc(&w.completed)
            while at != completed:
                found.append(w.queue[at & (PF_QUEUE_CAPACITY - 1)])
                at += 1
            pf_store(&w.collected, at)
        if found:
            pf_signal_room(self.arena)
        return found

    def spilled(self):
        """Slots whose holder waits for the output region to be emptied."""
        cdef pf_worker *w
        cdef uint32_t worker, completed, slot
        found = []
        for worker in range(self.arena.n_workers):
            w = pf_worker_at(self.arena, worker)
            completed = pf_load_sc(&w.completed)
            if pf_load(&w.taken) == completed:
                continue
            slot = w.queue[completed & (PF_QUEUE_CAPACITY - 1)]
            if pf_load(&pf_slot_at(self.arena, slot).state) == PF_SLOT_OUTPUT_FULL:
                found.append(slot)
        return found

    def slot_in_hand(self, uint32_t worker):
        """The slot that the worker has taken and not completed, or None."""
        w = _worker(self, worker)
        completed = pf_load_sc(&w.completed)
        return None if pf_load(&w.taken) == completed else w.queue[completed & (PF_QUEUE_CAPACITY - 1)]

    def resume(self, uint32_t slot):
        """The spilled records are delivered: let the holder go on."""
        slot_of(self, slot)
        pf_resume(self.arena, slot)

    def forget_output(self, uint32_t slot):
        """The spilled records of a holder that died meanwhile are delivered: the next one must not send them again."""
        pf_progress_forget_output(slot_of(self, slot))

    def parked(self, uint32_t slot):
        """Whether a collected batch has rows that wait."""
        return pf_load(&slot_of(self, slot).state) == PF_SLOT_PARKED

    def wait_until_due(self, uint32_t slot):
        """What the other rows of a parked batch gave rise to is durable: it goes on when it is due."""
        slot_of(self, slot)
        pf_wait_until_due(self.arena, slot)

    def release(self, uint32_t slot):
        """The batch is done with for good."""
        slot_of(self, slot)
        pf_release(self.arena, slot)

    def return_taken(self, uint32_t worker):
        """The worker's process is dead: what it had taken waits for its successor."""
        _worker(self, worker)
        pf_return(self.arena, worker)

    def partitions(self, uint32_t slot):
        """[(partition index, messages, first offset, next offset)] of the batch in the slot."""
        s = slot_of(self, slot)
        table = pf_slot_partitions(self.arena, s)
        return [
            (table[i].partition, table[i].messages, table[i].first_offset, table[i].next_offset)
            for i in range(pf_slot_partition_count(s))
        ]

    def live(self):
        """[(partition index, first offset)] of every batch that is not released yet, open ones included."""
        cdef uint32_t slot, i
        cdef pf_slot *s
        cdef pf_slot_partition *table
        found = []
        for slot in range(self.arena.n_slots):
            s = pf_slot_at(self.arena, slot)
            if pf_load(&s.state) == PF_SLOT_FREE:
                continue
            table = pf_slot_partitions(self.arena, s)
            for i in range(pf_slot_partition_count(s)):
                found.append((table[i].partition, table[i].first_offset))
        return found

    def in_hand(self, double seconds):
        """Whether there is a batch that need not wait for longer than that until its rows are handled."""
        cdef uint32_t slot, state
        cdef uint64_t latest = pf_now_ns() + <uint64_t>(seconds * 1e9)
        cdef pf_slot *s
        for slot in range(self.arena.n_slots):
            s = pf_slot_at(self.arena, slot)
            state = pf_load(&s.state)
            if state != PF_SLOT_FREE and (state != PF_SLOT_WAITING or s.due_ns <= latest):
                return True
        return False

    def waits_past(self, partitions, double seconds):
        """Whether a batch with rows of these partitions (indices) waits to be handled again for longer than that, and
        is not due at once while the intake hurries, for it has had its early round."""
        cdef uint32_t slot, i
        cdef uint64_t latest = pf_now_ns() + <uint64_t>(max(seconds, 0.0) * 1e9)
        cdef pf_slot *s
        cdef pf_slot_partition *table
        for slot in range(self.arena.n_slots):
            s = pf_slot_at(self.arena, slot)
            if pf_load(&s.state) != PF_SLOT_WAITING or not s.hurried or s.due_ns <= latest:
                continue
            table = pf_slot_partitions(self.arena, s)
            for i in range(pf_slot_partition_count(s)):
                if table[i].partition in partitions:
                    return True
        return False

    @property
    def epoch(self):
        """The epoch in which batches are opened now."""
        return pf_load(&self.arena.epoch)

    def set_void_below(self, epoch):
        """Batches of epochs below this one need not be handled; None: no batch that there is need be."""
        pf_store(&self.arena.void_below, 0xffffffff if epoch is None else <uint32_t>epoch)

    def is_void(self, uint32_t slot):
        """Whether what comes of the batch is dropped: its transaction was aborted, and its rows are read again."""
        return slot_of(self, slot).epoch < pf_load(&self.arena.void_below)

    def epoch_of(self, uint32_t slot):
        """The epoch in which a published batch was opened."""
        return slot_of(self, slot).epoch

    def oldest_epoch(self, uint32_t since):
        """The lowest epoch, of those from ``since`` on, of a batch that is not released; None: there is no batch.

        To be read after ``epoch``: then no batch of an earlier one is missed.
        """
        cdef uint32_t slot, oldest = 0
        cdef bint found = False
        cdef pf_slot *s
        for slot in range(self.arena.n_slots):
            s = pf_slot_at(self.arena, slot)
            if pf_load(&s.state) == PF_SLOT_FREE or pf_load(&s.n_partitions) == 0 or s.epoch < since:
                continue
            if not found or s.epoch < oldest:
                oldest = s.epoch
            found = True
        return oldest if found else None

    def batches(self, uint32_t since, uint32_t until, *, bint untaken=False):
        """How many batches of these epochs, both included, are not released. To be read after ``epoch``.

        ``untaken``: only those that a process is still to take, for their first round or another one.
        """
        cdef uint32_t slot, state, count = 0
        cdef pf_slot *s
        for slot in range(self.arena.n_slots):
            s = pf_slot_at(self.arena, slot)
            state = pf_load(&s.state)
            if state == PF_SLOT_FREE or pf_load(&s.n_partitions) == 0 or not since <= s.epoch <= until:
                continue
            if not untaken or state in (PF_SLOT_READY, PF_SLOT_WAITING) or (state == PF_SLOT_FILLING and s.waits_from):
                count += 1
        return count

    def moving(self, uint32_t since, uint32_t until, slots, workers, bint bound):
        """Whether a batch of these epochs may come back from the pool by itself: one that is none of ``slots``, which
        have come, and not queued, or to be queued again, behind what the processes of ``workers`` wait with. To be read
        after ``epoch``. ``bound``: a batch is handled again by the process of its lane, and by no other.
        """
        cdef uint32_t slot, state
        cdef pf_slot *s
        cdef uint64_t now = pf_now_ns()
        for slot in range(self.arena.n_slots):
            s = pf_slot_at(self.arena, slot)
            state = pf_load(&s.state)
            if state == PF_SLOT_FREE or pf_load(&s.n_partitions) == 0 or not since <= s.epoch <= until:
                continue
            if slot in slots or (state == PF_SLOT_READY and s.worker in workers):
                continue
            if state == PF_SLOT_FILLING and s.waits_from == 0:
                continue  # it may be kept from its process by those that wait
            if state == PF_SLOT_WAITING and s.due_ns <= now:
                if s.worker in workers if bound else len(workers) == self.arena.n_workers:
                    continue
            return True
        return False

    def states(self):
        """The state word of every slot."""
        return [pf_load(&pf_slot_at(self.arena, slot).state) for slot in range(self.arena.n_slots)]

    def in_flight(self):
        """Batches queued or held."""
        return sum(pf_in_hand(self.arena, worker) for worker in range(self.arena.n_workers))

    def stop_worker(self, uint32_t worker):
        """Tell the worker to leave once its queue is empty."""
        w = _worker(self, worker)
        pf_store_sc(&w.stop, 1)
        pf_notify_worker(w)

    def worker_facts(self, uint32_t worker):
        """WorkerFacts of one pool process."""
        w = _worker(self, worker)
        return WorkerFacts(
            w.pid, bool(pf_load(&w.booted)), pf_in_hand(self.arena, worker), pf_load64(&w.batches),
            pf_load64(&w.rows), pf_load64(&w.handler_ns), pf_load64(&w.heartbeat_ns), pf_load64(&w.began_ns),
        )

    def refusals(self, uint32_t slot):
        """[(message, reason, found, column, at)] of the refused messages of a slot, first come first."""
        cdef pf_slot *s = slot_of(self, slot)
        cdef pf_refused *table = pf_slot_refusals(self.arena, s)
        cdef uint32_t i
        return [
            (table[i].message, table[i].why.reason, table[i].why.found, table[i].why.column, table[i].why.at)
            for i in range(s.refused)
        ]
