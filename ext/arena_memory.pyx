# cython: language_level=3
"""The shared memory of one handler: its layout, computed alike in every process, and who has it mapped where.

The layout is drawn in ext/arena_layout.h.
"""

import os

from arena_layout cimport (
    PF_ARENA_MAGIC,
    PF_CACHE_LINE,
    PF_PARTITION_NAMES,
    PF_QUEUE_CAPACITY,
    PF_SLOT_PARTITIONS,
    PF_TOPIC_BYTES,
    pf_arena,
    pf_message,
    pf_partition_name,
    pf_refused,
    pf_slot,
    pf_slot_partition,
    pf_spare,
    pf_worker,
)
from cpython.buffer cimport PyBUF_WRITE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport errno
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from pythia_fast._ext.arena_memory cimport pf_slot_at, slot_of
from pythia_fast._ext.plan cimport Layout

cdef extern from "<sys/mman.h>" nogil:
    void *mmap(void *address, size_t length, int protection, int flags, int fd, int64_t offset)
    int munmap(void *address, size_t length)
    int madvise(void *address, size_t length, int advice)
    int MADV_DONTNEED
    int PROT_READ, PROT_WRITE, MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS
    void *MAP_FAILED

cdef extern from "memory_file.h":
    int pf_memory_file()
    int pf_die_with_parent()
    int pf_move_pages(uint8_t *source, uint8_t *to, size_t size)
    void pf_copy_written(int fd, uint64_t slot_at, uint64_t begin, uint64_t end, uint8_t *to, const uint8_t *source)

PAGE = os.sysconf("SC_PAGESIZE")


def die_with_parent():
    """Have the kernel kill this process when the one that started it ends (Linux; elsewhere nothing)."""
    if pf_die_with_parent() != 0:
        raise OSError(errno, "prctl(PR_SET_PDEATHSIG)")


cdef uint64_t _aligned(uint64_t value, uint64_t alignment) noexcept:
    return (value + alignment - 1) // alignment * alignment


cdef int _map(ArenaMemory self, pf_arena *sizes, int fd) except -1:
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


cdef pf_partition_name *_partition_name(ArenaMemory self, uint32_t index) noexcept:
    return <pf_partition_name *>(<uint8_t *>self.arena + self.arena.names_at) + index % PF_PARTITION_NAMES


cdef class DetachedSlot:
    """A private copy of a slot, for views that outlived their batch. Its memory goes with it."""

    cdef uint8_t *address
    cdef uint64_t size
    cdef uint64_t header  # bytes of the slot's header before the copy
    cdef bint of_arena    # it lies within the arena's own mapping, whose addresses must stay taken
    cdef ArenaMemory arena

    def __dealloc__(self):
        if self.address == NULL:
            return
        if self.of_arena:
            madvise(self.address + self.header, self.size - self.header, MADV_DONTNEED)
        else:
            munmap(self.address, self.size)


cdef class ArenaMemory:
    """The memory; what may be done with its slots is for Arena (ext/ring.pyx) to say.

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
        # Every row index once, and room for reasons and tracebacks (pool/notes.py).
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
            "refusals": self.arena.refusals_at,
            "columns": self.arena.columns_at,
            "raw": self.arena.raw_at, "errors": self.arena.errors_at, "errors_bytes": self.arena.errors_bytes,
            "output": self.arena.output_at, "output_bytes": self.arena.output_bytes,
            "slot_bytes": self.arena.slot_bytes,
        }

    def slot_address(self, uint32_t slot):
        """Where this process has mapped the slot (an int). It moves when a kept view was given its own copy."""
        slot_of(self, slot)
        return <uintptr_t>self._slot_address[slot]

    def view(self, uint32_t slot, uint64_t at, uint64_t size):
        """Writable memoryview of ``size`` bytes at ``at`` from the slot's start. Valid while the Arena lives."""
        slot_of(self, slot)
        if at > self.arena.slot_bytes or size > self.arena.slot_bytes - at:
            raise ValueError(f"bytes {at} to {at + size} are outside a slot of {self.arena.slot_bytes} bytes")
        return PyMemoryView_FromMemory(<char *>self._slot_address[slot] + at, <Py_ssize_t>size, PyBUF_WRITE)

    # -- views that outlive their batch ---------------------------------------------------------

    def detach_slot(self, uint32_t slot):
        """Give whoever still looks at the slot's memory a private copy of it, at the address they look at.

        The slot is mapped anew, elsewhere, for the batches to come; the copy lasts as long as the object that is
        returned. Only for a pool process: a view that outlived its batch then keeps its bytes and never sees another
        batch's. The slot's header, which the ring uses, stays where it is.
        """
        cdef DetachedSlot detached = DetachedSlot.__new__(DetachedSlot)
        cdef uint8_t *old
        cdef uint8_t *copy
        cdef uint8_t *fresh
        cdef uint64_t size = self.arena.slot_bytes
        cdef uint64_t header = self.arena.messages_at
        cdef int error
        slot_of(self, slot)
        old = self._slot_address[slot]
        fresh = <uint8_t *>mmap(
            NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, self.fd, self.arena.slots_at + slot * size)
        if fresh == MAP_FAILED:
            raise OSError(errno, "cannot map a slot a second time")
        copy = <uint8_t *>mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        if copy == MAP_FAILED:
            munmap(fresh, size)
            raise OSError(errno, "cannot make a private copy of a slot")
        # Whole before it takes the place of what somebody may be reading: a thread that the handler left behind.
        pf_copy_written(self.fd, self.arena.slots_at + slot * size, header, self.arena.output_at, copy, fresh)
        if pf_move_pages(copy + header, old + header, size - header) != 0:
            error = errno
            munmap(copy, size)
            munmap(fresh, size)
            raise OSError(error, "cannot put a private copy of a slot in its place")
        munmap(copy, header)
        self._slot_address[slot] = fresh
        detached.address, detached.size, detached.header = old, size, header
        detached.of_arena = old == <uint8_t *>pf_slot_at(self.arena, slot)
        detached.arena = self
        return detached

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
