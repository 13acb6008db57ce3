# cython: language_level=3
"""Arena: the shared memory of one handler, and who may do what with its slots.

The layout and the life of a slot are drawn in ext/arena_layout.h; the operations are ext/ring.h. This
module maps the memory and gives the operations to Python, one call a batch.
"""

import os
from collections import namedtuple

from cpython.buffer cimport PyBUF_WRITE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport errno
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from pythia_fast._ext.decoder cimport NativeDecoder, pf_decoder
from pythia_fast._ext.plan cimport Layout, pf_columns
from pythia_fast._ext.ring cimport pf_arena

cdef extern from "<sys/mman.h>" nogil:
    void *mmap(void *address, size_t length, int protection, int flags, int fd, int64_t offset)
    int munmap(void *address, size_t length)
    int madvise(void *address, size_t length, int advice)
    int MADV_DONTNEED
    int PROT_READ, PROT_WRITE, MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS, MAP_FIXED
    void *MAP_FAILED

cdef extern from "memory_file.h":
    int pf_memory_file()
    int pf_die_with_parent()
    void pf_copy_written(int fd, uint64_t slot_at, uint64_t begin, uint64_t end, uint8_t *to, const uint8_t *source)

cdef extern from "slot_decode.h" nogil:
    enum:
        PF_ARENA_MAGIC
        PF_QUEUE_CAPACITY
        PF_SLOT_PARTITIONS
        PF_CACHE_LINE
        PF_NO_SLOT
        PF_PARTITION_NAMES
        PF_TOPIC_BYTES
        PF_SLOT_FREE
        PF_SLOT_READY
        PF_SLOT_HELD
        PF_SLOT_DONE
        PF_SLOT_OUTPUT_FULL
        PF_SLOT_PARKED
        PF_SLOT_WAITING
        PF_UNDECODED
        PF_SIFTED
        PF_CIRCUIT_CLOSED
        PF_CIRCUIT_FAILING
        PF_CIRCUIT_OPEN
        PF_CIRCUIT_HALF_OPEN
    ctypedef struct pf_message:
        int64_t offset
    ctypedef struct pf_refusal:
        uint8_t reason
        uint8_t found
        int32_t column
        uint64_t at
    ctypedef struct pf_refused:
        pf_refusal why
        uint32_t message
    ctypedef struct pf_slot_partition:
        uint32_t partition
        uint32_t messages
        int64_t first_offset
        int64_t next_offset
    ctypedef struct pf_partition_name:
        int32_t number
        uint32_t topic_size
        uint8_t topic[4096]
    ctypedef struct pf_slot:
        uint32_t state, worker, messages, decoded, rows, refused, raw_bytes, n_partitions, epoch, crashes
        uint64_t batch, opened_ns, published_ns, payload_bytes
        uint64_t taken_ns, completed_ns, output_bytes
        uint32_t output_records, error_bytes, rejected, retried, failed, error_half, round, waits_from
        uint64_t due_ns
    ctypedef struct pf_spare:
        uint32_t place
    ctypedef struct pf_worker:
        uint32_t tail, stop, collected, taken, completed, booted
        int32_t pid
        uint64_t batches, rows, handler_ns, heartbeat_ns, began_ns
        uint32_t queue[64]
    pf_worker *pf_worker_at(pf_arena *arena, uint32_t worker)
    pf_slot *pf_slot_at(pf_arena *arena, uint32_t slot)
    void pf_decode_slot(const pf_arena *arena, pf_slot *slot, pf_columns columns, pf_decoder *decoder)
    pf_refused *pf_slot_refusals(const pf_arena *arena, pf_slot *slot)
    uint64_t pf_rows_at(const pf_arena *arena, const pf_slot *slot)
    pf_slot_partition *pf_slot_partitions(pf_arena *arena, pf_slot *slot)
    uint32_t pf_in_hand(pf_arena *arena, uint32_t worker)
    uint32_t pf_take(pf_arena *arena, uint32_t worker)
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
    uint32_t pf_load(const uint32_t *word)
    uint32_t pf_load_sc(const uint32_t *word)
    void pf_store(uint32_t *word, uint32_t value)
    void pf_store_sc(uint32_t *word, uint32_t value)
    void pf_store64(uint64_t *word, uint64_t value)
    uint64_t pf_load64(const uint64_t *word)
    uint64_t pf_now_ns()
    void pf_wait(uint32_t *word, uint32_t seen, int64_t timeout_ns)

PAGE = os.sysconf("SC_PAGESIZE")

#: What the circuit word says.
CIRCUIT_CLOSED, CIRCUIT_FAILING = PF_CIRCUIT_CLOSED, PF_CIRCUIT_FAILING
CIRCUIT_OPEN, CIRCUIT_HALF_OPEN = PF_CIRCUIT_OPEN, PF_CIRCUIT_HALF_OPEN

#: What a slot holds, read once when the batch is completed (counts, and CLOCK_MONOTONIC nanoseconds).
SlotFacts = namedtuple(
    "SlotFacts",
    "batch worker rows refused rejected retried failed payload_bytes output_bytes output_records error_at error_bytes "
    "crashes round opened_ns published_ns taken_ns completed_ns",
)

#: One pool process' counters (nanoseconds are of CLOCK_MONOTONIC).
WorkerFacts = namedtuple("WorkerFacts", "pid booted in_hand batches rows handler_ns heartbeat_ns began_ns")


def die_with_parent():
    """Have the kernel kill this process when the one that started it ends (Linux; elsewhere nothing)."""
    if pf_die_with_parent() != 0:
        raise OSError(errno, "prctl(PR_SET_PDEATHSIG)")


def monotonic_ns():
    """CLOCK_MONOTONIC, as the arena's time stamps count it."""
    return pf_now_ns()


cdef uint64_t _aligned(uint64_t value, uint64_t alignment) noexcept:
    return (value + alignment - 1) // alignment * alignment


cdef int _map(Arena self, pf_arena *sizes, int fd) except -1:
    cdef void *memory
    cdef uint32_t i
    self.fd = fd if fd >= 0 else pf_memory_file()
    if self.fd < 0:
        raise OSError(errno, "no anonymous memory file for the arena")
    if fd < 0:
        os.ftruncate(self.fd, sizes.arena_bytes)
    memory = mmap(NULL, sizes.arena_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, self.fd, 0)
    if memory == MAP_FAILED:
        raise OSError(errno, f"cannot map an arena of {sizes.arena_bytes} bytes")
    self.arena = <pf_arena *>memory
    self._slot_address = <uint8_t **>calloc(sizes.n_slots, sizeof(uint8_t *))
    if self._slot_address == NULL:
        raise MemoryError()
    for i in range(sizes.n_slots):
        self._slot_address[i] = <uint8_t *>memory + sizes.slots_at + i * sizes.slot_bytes
    if fd < 0:
        memcpy(self.arena, sizes, sizeof(pf_arena))
    # Everything before the first word that changes is the layout.
    elif memcmp(self.arena, sizes, <size_t>(<uint8_t *>&sizes.done_signal - <uint8_t *>sizes)) != 0:
        raise ValueError("the inherited arena has another layout than this process computed")
    return 0


cdef pf_slot *_slot(Arena self, uint32_t slot) except NULL:
    if slot >= self.arena.n_slots:
        raise IndexError(f"slot {slot} of {self.arena.n_slots}")
    return pf_slot_at(self.arena, slot)


cdef pf_partition_name *_partition_name(Arena self, uint32_t index) noexcept:
    return <pf_partition_name *>(<uint8_t *>self.arena + self.arena.names_at) + index % PF_PARTITION_NAMES


cdef pf_worker *_worker(Arena self, uint32_t worker) except NULL:
    if worker >= self.arena.n_workers:
        raise IndexError(f"worker {worker} of {self.arena.n_workers}")
    return pf_worker_at(self.arena, worker)


cdef class DetachedSlot:
    """A private copy of a slot, for views that outlived their batch. Its memory goes with it."""

    cdef uint8_t *address
    cdef uint64_t size
    cdef uint64_t header  # bytes of the slot's header before the copy
    cdef bint of_arena    # it lies within the arena's own mapping, whose addresses must stay taken
    cdef Arena arena

    def __dealloc__(self):
        if self.address == NULL:
            return
        if self.of_arena:
            madvise(self.address + self.header, self.size - self.header, MADV_DONTNEED)
        else:
            munmap(self.address, self.size)


cdef class Arena:
    """Shared memory for one handler: its slots, and a queue for each pool process.

    Parameters:
        layout: a Layout for (capacity, raw_bytes); replaced by one whose offsets count from a slot's start.
        n_workers: pool processes.
        credit: slots a pool process may have in hand and queued; 1 to 63.
        n_slots: slots in all.
        output_bytes: room a slot has for encoded results.
        n_spares: processes that may wait for a place.

    The memory has no name: it is inherited by fork, or through ``fd``. Raises OSError when the kernel
    gives none, ValueError for sizes that make no sense.
    """

    def __cinit__(self):
        self.fd = -1

    def __init__(self, plan, *, capacity, raw_bytes, n_workers, credit, n_slots, output_bytes, n_spares=0,
                 fd=-1):
        cdef uint64_t at
        cdef pf_arena sizes
        if n_workers < 1 or n_slots < 1:
            raise ValueError("an arena needs at least one pool process and one slot")
        if not 1 <= credit < PF_QUEUE_CAPACITY:
            raise ValueError(f"credit must be from 1 to {PF_QUEUE_CAPACITY - 1} batches, not {credit}")
        memset(&sizes, 0, sizeof(sizes))
        sizes.magic = PF_ARENA_MAGIC
        sizes.n_workers, sizes.n_slots, sizes.slot_capacity, sizes.credit = n_workers, n_slots, capacity, credit
        sizes.n_spares = n_spares
        at = _aligned(sizeof(pf_slot), PF_CACHE_LINE)
        sizes.partitions_at = at
        # A page of its own for what handlers look at: detach_slot() takes it away from under the header.
        at = _aligned(at + PF_SLOT_PARTITIONS * sizeof(pf_slot_partition), PAGE)
        sizes.messages_at = at
        at = _aligned(at + <uint64_t>capacity * sizeof(pf_message), PF_CACHE_LINE)
        sizes.good_at = at
        at = _aligned(at + <uint64_t>capacity * sizeof(pf_message), PF_CACHE_LINE)
        sizes.refusals_at = at
        at = _aligned(at + <uint64_t>capacity * sizeof(pf_refused), PF_CACHE_LINE)
        sizes.status_at = at
        at = _aligned(at + <uint64_t>capacity, PF_CACHE_LINE)
        sizes.retries_at = at
        at = _aligned(at + <uint64_t>capacity * sizeof(uint32_t), PF_CACHE_LINE)
        sizes.columns_at = at
        self.layout = Layout(plan, capacity, raw_bytes, at)
        at = _aligned(at + self.layout.bytes, PF_CACHE_LINE)
        sizes.raw_at, sizes.raw_bytes = at, raw_bytes
        at = _aligned(at + sizes.raw_bytes, PF_CACHE_LINE)
        # Every row index once, and room for reasons and tracebacks (runtime/notes.py).
        sizes.errors_at, sizes.errors_bytes = at, 65536 + 4 * <uint64_t>capacity
        at = _aligned(at + 2 * sizes.errors_bytes, PF_CACHE_LINE)
        sizes.output_at, sizes.output_bytes = at, output_bytes
        sizes.slot_bytes = _aligned(at + sizes.output_bytes, PAGE)
        sizes.workers_at = _aligned(sizeof(pf_arena), PF_CACHE_LINE)
        sizes.spares_at = _aligned(sizes.workers_at + <uint64_t>n_workers * sizeof(pf_worker), PF_CACHE_LINE)
        sizes.names_at = _aligned(sizes.spares_at + <uint64_t>n_spares * sizeof(pf_spare), PF_CACHE_LINE)
        at = sizes.names_at + PF_PARTITION_NAMES * sizeof(pf_partition_name)
        sizes.slots_at = _aligned(at, PAGE)
        sizes.arena_bytes = sizes.slots_at + <uint64_t>n_slots * sizes.slot_bytes
        _map(self, &sizes, fd)

    def __dealloc__(self):
        if self.arena != NULL:
            munmap(self.arena, self.arena.arena_bytes)
        self.close()
        free(self._slot_address)

    def close(self):
        """Close the descriptor. The memory stays until the last reference to this object is gone."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    # -- sizes ---------------------------------------------------------------------------------

    @property
    def bytes(self):
        return self.arena.arena_bytes

    @property
    def n_slots(self):
        return self.arena.n_slots

    @property
    def n_workers(self):
        return self.arena.n_workers

    @property
    def n_spares(self):
        return self.arena.n_spares

    @property
    def capacity(self):
        return self.arena.slot_capacity

    @property
    def credit(self):
        return self.arena.credit

    @property
    def raw_bytes(self):
        return self.arena.raw_bytes

    @property
    def offsets(self):
        """Where the regions of a slot begin, in bytes from the slot's start, and how long the last two are.

        There are two halves of errors, one behind the other, of ``errors_bytes`` each.
        """
        return {
            "messages": self.arena.messages_at, "status": self.arena.status_at, "retries": self.arena.retries_at,
            "columns": self.arena.columns_at,
            "raw": self.arena.raw_at, "errors": self.arena.errors_at, "errors_bytes": self.arena.errors_bytes,
            "output": self.arena.output_at, "output_bytes": self.arena.output_bytes,
            "slot_bytes": self.arena.slot_bytes,
        }

    def slot_address(self, uint32_t slot):
        """Where this process has mapped the slot (an int). It moves when a kept view was given its own copy."""
        _slot(self, slot)
        return <uintptr_t>self._slot_address[slot]

    def view(self, uint32_t slot, uint64_t at, uint64_t size):
        """Writable memoryview of ``size`` bytes at ``at`` from the slot's start. Valid while the Arena lives."""
        _slot(self, slot)
        if at > self.arena.slot_bytes or size > self.arena.slot_bytes - at:
            raise ValueError(f"bytes {at} to {at + size} are outside a slot of {self.arena.slot_bytes} bytes")
        return PyMemoryView_FromMemory(<char *>self._slot_address[slot] + at, <Py_ssize_t>size, PyBUF_WRITE)

    # -- what partition indices stand for ------------------------------------------------------

    def name_partition(self, uint32_t index, str topic not None, int32_t number):
        """Tell the pool which partition of which topic an index stands for. Intake thread, before its first row.

        Raises ValueError for a name of more than 4,096 bytes.
        """
        cdef bytes name = topic.encode("utf-8", "surrogateescape")
        cdef pf_partition_name *entry = _partition_name(self, index)
        if len(name) > PF_TOPIC_BYTES:
            raise ValueError(f"the name {topic!r} has {len(name)} bytes, more than {PF_TOPIC_BYTES}")
        memcpy(entry.topic, <const char *>name, <size_t>len(name))
        entry.number, entry.topic_size = number, <uint32_t>len(name)

    def partition_name(self, uint32_t index):
        """(topic, partition number) of a partition index that a live slot holds rows of."""
        cdef pf_partition_name *entry = _partition_name(self, index)
        name = (<const char *>entry.topic)[:entry.topic_size]
        return name.decode("utf-8", "surrogateescape"), entry.number

    # -- pool process --------------------------------------------------------------------------

    def booted(self, uint32_t worker, int pid):
        """This process is ready for batches."""
        w = _worker(self, worker)
        w.pid = pid
        pf_store64(&w.heartbeat_ns, pf_now_ns())
        pf_store(&w.booted, 1)

    def take(self, uint32_t worker, double timeout):
        """The next slot of the worker's queue, now held by it. None: ``timeout`` seconds passed, or it is to stop.

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
                # A sleep may end early for no reason.
                while slot == PF_NO_SLOT and now < deadline and not pf_load_sc(&w.stop):
                    pf_worker_sleep(self.arena, worker, <int64_t>(deadline - now))
                    slot = pf_take(self.arena, worker)
                    now = pf_now_ns()
        pf_store64(&w.heartbeat_ns, pf_now_ns())
        return None if slot == PF_NO_SLOT else slot

    def call_begins(self, uint32_t worker):
        """The handler is called now: the clock of batch_deadline starts."""
        pf_store64(&_worker(self, worker).began_ns, pf_now_ns())

    def call_ends(self, uint32_t worker):
        """The handler is back."""
        pf_store64(&_worker(self, worker).began_ns, 0)

    @property
    def circuit(self):
        """CIRCUIT_...: whether the pool processes may call the handler."""
        return pf_load(&self.arena.circuit)

    def stopped(self, uint32_t worker):
        """The worker was told to leave; it still empties its queue."""
        return pf_load_sc(&_worker(self, worker).stop) != 0

    def complete(self, uint32_t worker, uint32_t slot, uint64_t output_bytes, uint32_t output_records,
                 uint32_t error_half, uint32_t error_bytes, uint32_t rejected, uint32_t retried, uint32_t failed,
                 uint64_t due_ns=0):
        """Hand the slot back with what became of it. ``due_ns``: CLOCK_MONOTONIC when the rows that wait are handled
        again; 0: there are none."""
        _worker(self, worker)
        s = _slot(self, slot)
        s.output_bytes, s.output_records = output_bytes, output_records
        s.error_half, s.error_bytes = error_half & 1, error_bytes
        s.rejected, s.retried, s.failed = rejected, retried, failed
        if due_ns:
            pf_park(self.arena, worker, slot, due_ns)
        else:
            pf_complete(self.arena, worker, slot)

    def spill(self, uint32_t slot, uint64_t output_bytes, uint32_t output_records):
        """The output region is full: have it emptied. Returns when it is."""
        s = _slot(self, slot)
        s.output_bytes, s.output_records = output_bytes, output_records
        pf_spill(self.arena, slot)
        while pf_load(&s.state) == PF_SLOT_OUTPUT_FULL:
            with nogil:
                pf_wait(&s.state, PF_SLOT_OUTPUT_FULL, 100000000)
        s.output_bytes = 0
        s.output_records = 0

    def round(self, uint32_t slot):
        """Which time it is, from 1, that rows of the batch are handled."""
        return _slot(self, slot).round

    def parked_before(self, uint32_t slot):
        """[(slot, waits_from, due_ns)] of the batches of the same process that came before this one and have rows that
        wait. Asked by the holder of ``slot``, to whose queue alone they come back: nobody writes these meanwhile."""
        cdef pf_slot *mine = _slot(self, slot)
        cdef pf_slot *other
        cdef uint32_t i, state
        found = []
        for i in range(self.arena.n_slots):
            other = pf_slot_at(self.arena, i)
            state = pf_load(&other.state)
            if state != PF_SLOT_PARKED and state != PF_SLOT_WAITING and state != PF_SLOT_READY:
                continue
            if other.worker != mine.worker or other.batch >= mine.batch:
                continue
            if state != PF_SLOT_READY or other.round > 1:
                found.append((i, other.waits_from, other.due_ns))
        return found

    def crashes(self, uint32_t slot):
        """Holders that have died on the batch in this slot."""
        return _slot(self, slot).crashes

    def facts(self, uint32_t slot):
        """SlotFacts of a slot that this process holds."""
        s = _slot(self, slot)
        return SlotFacts(
            s.batch, s.worker, s.rows, s.refused, s.rejected, s.retried, s.failed, s.payload_bytes, s.output_bytes,
            s.output_records, self.arena.errors_at + (s.error_half & 1) * self.arena.errors_bytes, s.error_bytes,
            s.crashes, s.round, s.opened_ns, s.published_ns, s.taken_ns, s.completed_ns,
        )

    def decode(self, uint32_t slot, NativeDecoder decoder not None):
        """Decode the batch of a slot that this process holds, unless the intake has. False: its rows are known, but its
        columns have no room for all of them at once."""
        cdef pf_slot *s = _slot(self, slot)
        cdef pf_columns columns = self.layout.empty_columns()
        if s.decoded == PF_UNDECODED:
            with nogil:
                # Through the mapping that handlers look at: it moves (detach_slot).
                pf_decode_slot(self.arena, <pf_slot *>self._slot_address[slot], columns, decoder.decoder)
        return s.decoded != PF_SIFTED

    def rows(self, uint32_t slot):
        """Rows of a batch that is decoded."""
        return _slot(self, slot).rows

    def rows_at(self, uint32_t slot):
        """Where the messages of those rows stand, in bytes from the slot's start."""
        return pf_rows_at(self.arena, _slot(self, slot))

    def detach_slot(self, uint32_t slot):
        """Give whoever still looks at the slot's memory a private copy of it, at the address they look at.

        The slot is mapped anew, elsewhere, for the batches to come; the copy lasts as long as the object that is
        returned. Only for a pool process: a view that outlived its batch then keeps its bytes and never sees another
        batch's. The slot's header, which the ring uses, stays where it is.
        """
        cdef DetachedSlot detached = DetachedSlot.__new__(DetachedSlot)
        cdef uint8_t *old
        cdef void *copy
        cdef uint8_t *fresh
        cdef uint64_t size = self.arena.slot_bytes
        cdef uint64_t header = self.arena.messages_at
        _slot(self, slot)
        old = self._slot_address[slot]
        fresh = <uint8_t *>mmap(
            NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, self.fd, self.arena.slots_at + slot * size)
        if fresh == MAP_FAILED:
            raise OSError(errno, "cannot map a slot a second time")
        copy = mmap(
            old + header, size - header, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)
        if copy == MAP_FAILED:
            munmap(fresh, size)
            raise OSError(errno, "cannot make a private copy of a slot")
        pf_copy_written(self.fd, self.arena.slots_at + slot * size, header, self.arena.output_at, old, fresh)
        self._slot_address[slot] = fresh
        detached.address, detached.size, detached.header = old, size, header
        detached.of_arena = old == <uint8_t *>pf_slot_at(self.arena, slot)
        detached.arena = self
        return detached

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

    def set_circuit(self, uint32_t circuit):
        """Let the pool processes take batches (CIRCUIT_CLOSED, CIRCUIT_FAILING), none, or one as a probe."""
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
        _slot(self, slot)
        pf_resume(self.arena, slot)

    def forget_output(self, uint32_t slot):
        """The spilled records of a holder that died meanwhile are delivered: the next one must not send them again."""
        pf_progress_forget_output(_slot(self, slot))

    def parked(self, uint32_t slot):
        """Whether a collected batch has rows that wait."""
        return pf_load(&_slot(self, slot).state) == PF_SLOT_PARKED

    def wait_until_due(self, uint32_t slot):
        """What the other rows of a parked batch gave rise to is durable: it goes on when it is due."""
        _slot(self, slot)
        pf_wait_until_due(self.arena, slot)

    def release(self, uint32_t slot):
        """The batch is done with for good."""
        _slot(self, slot)
        pf_release(self.arena, slot)

    def return_taken(self, uint32_t worker):
        """The worker's process is dead: what it had taken waits for its successor."""
        _worker(self, worker)
        pf_return(self.arena, worker)

    def partitions(self, uint32_t slot):
        """[(partition index, messages, first offset, next offset)] of the batch in the slot."""
        s = _slot(self, slot)
        table = pf_slot_partitions(self.arena, s)
        return [
            (table[i].partition, table[i].messages, table[i].first_offset, table[i].next_offset)
            for i in range(pf_load(&s.n_partitions))
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
            for i in range(pf_load(&s.n_partitions)):
                found.append((table[i].partition, table[i].first_offset))
        return found

    @property
    def epoch(self):
        """The epoch in which batches are opened now."""
        return pf_load(&self.arena.epoch)

    def epoch_of(self, uint32_t slot):
        """The epoch in which a published batch was opened."""
        return _slot(self, slot).epoch

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
            if not untaken or state == PF_SLOT_READY or state == PF_SLOT_WAITING:
                count += 1
        return count

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
        cdef pf_slot *s = _slot(self, slot)
        cdef pf_refused *table = pf_slot_refusals(self.arena, s)
        cdef uint32_t i
        return [
            (table[i].message, table[i].why.reason, table[i].why.found, table[i].why.column, table[i].why.at)
            for i in range(s.refused)
        ]
