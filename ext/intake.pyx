# cython: language_level=3
"""Intake: the loop that turns messages into published batches, without the GIL (ext/intake.h)."""

import os

from arena_layout cimport pf_arena
from atomics cimport pf_load64, pf_now_ns, pf_store
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from pythia_fast._ext.decoder cimport NativeDecoder, pf_decoder
from pythia_fast._ext.plan cimport pf_columns
from pythia_fast._ext.ring cimport Arena
from pythia_fast._ext.source cimport (
    PF_SOURCE_CALL,
    PF_SOURCE_END,
    PF_SOURCE_FAILED,
    PF_SOURCE_SPOOL,
    NativeSource,
    pf_incoming,
    pf_sink,
    pf_source,
)

cdef extern from "intake.h" nogil:
    enum:
        PF_NO_SLOT
        PF_UNORDERED
        PF_BY_PARTITION
        PF_BY_KEY
        PF_INTAKE_STOPPED
        PF_INTAKE_BLOCKED
        PF_INTAKE_ROOM
        PF_INTAKE_SPOOL
        PF_INTAKE_ATTENTION
        PF_SPOOLED_MOST
        PF_SPOOLED_HEAD
    uint32_t PF_GATE_OPEN
    ctypedef struct pf_token_bucket:
        pass
    ctypedef struct pf_admission:
        uint32_t gate
        pf_token_bucket rate
        uint64_t rate_waits
    ctypedef struct pf_open_batch:
        uint32_t slot
    ctypedef struct pf_intake:
        pf_sink sink
        pf_arena *arena
        pf_decoder *decoder
        pf_columns columns
        pf_open_batch *open
        uint32_t n_open, batch_rows, ordering, stop, hurry, attention, spool_errno
        pf_admission admission
        uint64_t linger_ns, patience_ns, epoch_ns, max_payload_bytes
        const char *spool_dir
        uint64_t messages, bytes, stalls, batch, decoded
    int pf_intake_append(pf_sink *sink, const pf_incoming *message)
    int pf_intake_run(pf_intake *intake, pf_source *source)
    void pf_next_epoch(pf_intake *intake)
    int pf_intake_flush(pf_intake *intake, uint64_t deadline_ns)
    void pf_signal_room(pf_arena *arena)
    void pf_bucket_init(pf_token_bucket *bucket, double rows_per_s, uint32_t most, uint32_t lanes)

END = PF_SOURCE_END
FAILED = PF_SOURCE_FAILED
CALL = PF_SOURCE_CALL
STOPPED = PF_INTAKE_STOPPED
BLOCKED = PF_INTAKE_BLOCKED
ROOM = PF_INTAKE_ROOM
SPOOL = PF_INTAKE_SPOOL
SOURCE_SPOOL = PF_SOURCE_SPOOL
ATTENTION = PF_INTAKE_ATTENTION

GATE_OPEN = PF_GATE_OPEN

ORDERINGS = {"unordered": PF_UNORDERED, "partition": PF_BY_PARTITION, "key": PF_BY_KEY}

#: `payload_at` of a message whose payload lies in the spool folder; `payload_size` of a null value.
SPOOLED = NO_PAYLOAD = 0xFFFFFFFF
SPOOLED_MOST, SPOOLED_HEAD = PF_SPOOLED_MOST, PF_SPOOLED_HEAD


cdef class Intake:
    """One source, one decoder, one arena.

    Parameters:
        ordering: "unordered", "partition" or "key".
        linger_ns: longest time a row waits for its batch to fill.
        patience_ns: how long the source may be stalled before ``run`` says BLOCKED.
        max_payload_bytes: a larger payload is refused, its bytes kept in ``spool_dir`` until dead-lettered.
        rows_per_s: most messages taken in a second, in the long run; 0: as many as come.
        epoch_ns: how long an epoch lasts from its first message; 0: batches have no epochs.
        batch_rows: most messages of a batch; 0: as many as a slot has room for.
    """

    cdef pf_intake intake
    cdef Arena arena
    cdef NativeDecoder decoder
    cdef NativeSource source
    cdef bytes _spool_dir

    def __init__(self, Arena arena not None, NativeDecoder decoder not None, NativeSource source not None, *,
                 ordering, linger_ns, spool_dir, max_payload_bytes, patience_ns=1_000_000_000, double rows_per_s=0,
                 uint64_t epoch_ns=0, uint32_t batch_rows=0):
        cdef uint32_t lane
        if self.intake.open != NULL:
            raise RuntimeError("an Intake is made once")
        if source.source == NULL or decoder.decoder == NULL:
            raise ValueError("the source or the decoder is not open")
        self.arena, self.decoder, self.source = arena, decoder, source
        self._spool_dir = os.fsencode(spool_dir)
        self.intake.sink.append = pf_intake_append
        self.intake.arena = arena.arena
        self.intake.decoder = decoder.decoder
        self.intake.ordering = ORDERINGS[ordering]
        self.intake.n_open = 1 if self.intake.ordering == PF_UNORDERED else arena.arena.n_workers
        self.intake.batch_rows = min(batch_rows or arena.arena.slot_capacity, arena.arena.slot_capacity)
        self.intake.linger_ns = linger_ns
        self.intake.patience_ns = patience_ns
        self.intake.epoch_ns = epoch_ns
        self.intake.max_payload_bytes = max_payload_bytes
        self.intake.spool_dir = self._spool_dir
        self.intake.open = <pf_open_batch *>calloc(self.intake.n_open, sizeof(pf_open_batch))
        if self.intake.open == NULL:
            raise MemoryError()
        for lane in range(self.intake.n_open):
            self.intake.open[lane].slot = PF_NO_SLOT
        self.intake.columns = arena.layout.empty_columns()
        self.intake.admission.gate = PF_GATE_OPEN
        pf_bucket_init(&self.intake.admission.rate, rows_per_s, self.intake.batch_rows, self.intake.n_open)

    def __dealloc__(self):
        free(self.intake.open)

    def run(self):
        """Take in messages until Python is needed; returns why, END to ATTENTION."""
        cdef int outcome
        with nogil:
            outcome = pf_intake_run(&self.intake, self.source.source)
        return outcome

    def flush(self, double timeout):
        """Close the epoch, publish every open batch, and what waited long enough to be handled again.

        False when ``timeout`` seconds were not enough. Only while run() is not running.
        """
        cdef uint64_t deadline_ns = pf_now_ns() + <uint64_t>(timeout * 1e9)
        cdef int done
        with nogil:
            done = pf_intake_flush(&self.intake, deadline_ns)
        return done != 0

    def stop(self):
        """Make run() return STOPPED soon. Any thread."""
        pf_store(&self.intake.stop, 1)
        self.wake()

    def attend(self):
        """Make run() return ATTENTION soon. Any thread."""
        pf_store(&self.intake.attention, 1)
        self.wake()

    def next_epoch(self):
        """Close the epoch; the number of the next one. Only while run() is not running."""
        pf_next_epoch(&self.intake)
        return self.arena.epoch

    def wake(self):
        """Make run() look around. Any thread."""
        if self.source.source.wake != NULL:
            self.source.source.wake(self.source.source)

    def hurry(self, bint hurry):
        """Whether batches that wait to be handled again are due now. Any thread."""
        pf_store(&self.intake.hurry, hurry)

    def admit(self, uint32_t gate):
        """Let batches be opened as they come (GATE_OPEN), none (0), or one of at most so many messages. Any thread."""
        pf_store(&self.intake.admission.gate, gate)
        pf_signal_room(self.arena.arena)
        self.wake()

    def spool_error(self):
        """The errno that made run() return SPOOL, which is thereby forgotten: the next run() tries again."""
        error = self.intake.spool_errno
        self.intake.spool_errno = 0
        return error

    @property
    def messages(self):
        return pf_load64(&self.intake.messages)

    @property
    def bytes(self):
        return pf_load64(&self.intake.bytes)

    @property
    def decoded(self):
        """Batches decoded here: those that waited for credit, and small ones; the pool decoded the others."""
        return pf_load64(&self.intake.decoded)

    @property
    def stalls(self):
        return pf_load64(&self.intake.stalls)

    @property
    def rate_waits(self):
        """Times that a batch had to wait for the rate limit."""
        return pf_load64(&self.intake.admission.rate_waits)

    @property
    def published(self):
        return pf_load64(&self.intake.batch)
