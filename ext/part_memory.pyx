# cython: language_level=3
"""PartMemory: where some rows of a batch are decoded once more, in memory of the pool process that is used again.

The payloads, keys and headers stay where they are, in the slot: only the columns and the table of messages are made.
"""

from arena_layout cimport PF_NO_PAYLOAD, pf_count16, pf_message
from libc.stdint cimport INT32_MAX, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memset

from pythia_fast._ext.batch_memory cimport BatchMemory, OwnedMemory
from pythia_fast._ext.decoder cimport PF_DECODED, PF_FULL, PF_REFUSED, PF_UNKNOWN, NativeDecoder, pf_decoder, pf_refusal
from pythia_fast._ext.held_buffer cimport HeldBuffer
from pythia_fast._ext.plan cimport Layout, Plan, pf_columns, pf_columns_reset

cdef extern from "null_row.h" nogil:
    int pf_decode_null(const pf_decoder *decoder, pf_columns *batch, pf_refusal *why)

cdef enum:
    ALIGNMENT = 64


cdef class PartMemory:
    """Memory for parts of batches, one part at a time.

    Parameters:
        plan: of the columns.
        capacity: most rows of a part.
        raw_bytes: room that each column of texts has.
    """

    cdef Layout layout
    cdef uint64_t status_at
    cdef uint64_t bytes
    cdef OwnedMemory memory
    cdef BatchMemory last  # the part that was made last

    def __init__(self, Plan plan not None, uint32_t capacity, uint64_t raw_bytes):
        self.status_at = _aligned(<uint64_t>capacity * sizeof(pf_message))
        self.layout = Layout(
            plan, capacity, min(raw_bytes, <uint64_t>INT32_MAX), _aligned(self.status_at + <uint64_t>capacity))
        self.bytes = self.layout.base + self.layout.bytes

    def decode(self, BatchMemory whole not None, NativeDecoder decoder not None, rows, uint32_t attempts):
        """The rows of ``whole``, which have been given to a handler ``attempts`` times before. None: there is no room
        for their columns. What was made here before is gone then, but for views that are still looked at.

        Raises IndexError for a row that the batch does not have, MemoryError.
        """
        cdef HeldBuffer held = HeldBuffer(rows, sizeof(uint32_t))
        cdef const uint32_t *chosen = <const uint32_t *>held.bytes
        cdef Py_ssize_t i, n = <Py_ssize_t>held.items
        cdef BatchMemory part
        cdef pf_columns columns
        cdef int outcome = PF_UNKNOWN
        if n > self.layout.capacity:
            raise IndexError(f"{n} rows in memory for {self.layout.capacity}")
        for i in range(n):
            if chosen[i] >= whole.rows:
                raise IndexError(f"row {chosen[i]} of {whole.rows}")
        if self.last is not None:
            self.last.close()
            if self.last.kept():
                self.memory = None  # those who look at it keep it
        if self.memory is None:
            self.memory = OwnedMemory(self.bytes)
        part = BatchMemory(
            self.layout, <uintptr_t>self.memory.base, 0, 0, self.status_at, whole.raw_at, whole.raw_bytes, self.memory)
        part.raw_of = whole
        self.last = part
        columns = self.layout.empty_columns()
        columns.base = part.base
        decoder.forget_refusals()
        while outcome == PF_UNKNOWN:
            with nogil:
                outcome = _decode(
                    part, whole, columns, decoder.decoder, chosen, n, attempts)
            if outcome == PF_UNKNOWN:
                decoder.learn()
        if outcome == PF_FULL:
            return None
        if outcome != PF_DECODED:
            raise RuntimeError("a payload that was a row is refused when it is decoded again")
        part.rows = <uint32_t>n
        return part


cdef int _decode(
    BatchMemory part, BatchMemory whole, pf_columns columns, pf_decoder *decoder, const uint32_t *rows,
    Py_ssize_t n, uint32_t attempts,
) noexcept nogil:
    cdef const pf_message *table = <const pf_message *>(whole.base + whole.messages_at)
    cdef pf_message *messages = <pf_message *>(part.base + part.messages_at)
    cdef const uint8_t *raw = whole.base + whole.raw_at
    cdef pf_refusal why
    cdef Py_ssize_t i
    cdef int outcome
    pf_columns_reset(&columns)
    memset(part.base + part.status_at, 0, <size_t>n)
    for i in range(n):
        messages[i] = table[rows[i]]
        messages[i].attempts = pf_count16(attempts)
        if messages[i].payload_size == PF_NO_PAYLOAD:
            outcome = pf_decode_null(decoder, &columns, &why)
        elif <uint64_t>messages[i].payload_at + messages[i].payload_size > whole.raw_bytes:
            return PF_REFUSED  # cannot come from the intake: somebody has scribbled on the slot
        else:
            outcome = decoder.decode(
                decoder, &columns, raw + messages[i].payload_at, messages[i].payload_size, &why)
        if outcome != PF_DECODED:
            return outcome
    return PF_DECODED


cdef inline uint64_t _aligned(uint64_t at) noexcept:
    return (at + (ALIGNMENT - 1)) & ~<uint64_t>(ALIGNMENT - 1)
