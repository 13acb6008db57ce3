# cython: language_level=3
"""BatchMemory: where one batch lies, in a slot of the arena or in memory of its own.

    base + messages_at   pf_message[capacity]    of the good rows (ext/arena_layout.h)
         + status_at     uint8[capacity]         what became of each row
         + layout        the columns             offsets count from base
         + raw_at        payloads, keys, headers

Nothing here copies. What is handed out is a Region, a named span that counts who looks at it, so that a
view kept beyond its batch can be named.
"""

from arena_layout cimport (
    PF_NO_PAYLOAD,
    PF_ROW_REJECTED,
    PF_ROW_RETRY,
    PF_ROW_UNMARKED,
    pf_count16,
    pf_message,
)
from cpython.buffer cimport (
    PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from pythia_fast._ext.decoder cimport (
    PF_DECODED,
    PF_FULL,
    PF_REFUSED,
    PF_UNKNOWN,
    NativeDecoder,
    pf_decoder,
    pf_refusal,
)
from pythia_fast._ext.held_buffer cimport HeldBuffer
from pythia_fast._ext.plan cimport Layout, Plan, pf_column, pf_columns, pf_columns_reset

from pythia_fast.errors import BATCH_IS_OVER, HandlerError

cdef extern from "null_row.h" nogil:
    int pf_decode_null(const pf_decoder *decoder, pf_columns *batch, pf_refusal *why)

ROW_UNMARKED = PF_ROW_UNMARKED
ROW_REJECTED = PF_ROW_REJECTED
ROW_RETRY = PF_ROW_RETRY
NO_PAYLOAD = <uint32_t>PF_NO_PAYLOAD  # payload_size of a null value

cdef enum:
    ALIGNMENT = 64


cdef class Region:
    """A span of a batch's memory, read through the buffer protocol.

    ``exports`` counts the buffers (arrays, memoryviews, Arrow exports) that look at it now.
    """

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        # Who looks at it already goes on: the memory stays for them.
        if self.closed and self.exports == 0:
            raise HandlerError(BATCH_IS_OVER)
        PyBuffer_FillInfo(buffer, self, self.data, self.size, not self.writable, flags)
        self.exports += 1

    def __releasebuffer__(self, Py_buffer *buffer):
        self.exports -= 1

    def __len__(self):
        return self.size

    @property
    def address(self):
        return <uintptr_t>self.data


cdef class OwnedMemory:
    """Zeroed memory of one process; ``base`` is 64-byte aligned. Freed with the last Region over it."""

    def __cinit__(self, uint64_t size):
        self.allocation = calloc(1, size + ALIGNMENT)
        if self.allocation == NULL:
            raise MemoryError(f"no {size} bytes for a batch")
        self.base = <uint8_t *>((<uintptr_t>self.allocation + ALIGNMENT - 1) & ~<uintptr_t>(ALIGNMENT - 1))

    def __dealloc__(self):
        free(self.allocation)


cdef class BatchMemory:
    """The memory of one batch.

    Parameters:
        layout: where the columns lie; its base must be the one that the memory was made with.
        address: start of the slot, as an integer.
        rows: good rows in it.
        messages_at, status_at, raw_at: offsets of the regions from ``address``.
        raw_bytes: size of the raw region.
        owner: kept alive as long as anything looks at the memory.
    """

    def __init__(self, Layout layout not None, uintptr_t address, uint32_t rows, uint64_t messages_at,
                 uint64_t status_at, uint64_t raw_at, uint64_t raw_bytes, owner=None):
        if rows > layout.capacity:
            raise ValueError(f"{rows} rows in a layout for {layout.capacity}")
        self.layout = layout
        self.base = <uint8_t *>address
        self.rows = rows
        self.messages_at = messages_at
        self.status_at = status_at
        self.raw_at = raw_at
        self.raw_bytes = raw_bytes
        self.owner = owner
        self.regions = []

    cdef Region _region(self, str name, uint64_t at, uint64_t size, bint writable=False):
        cdef Region region
        if self.closed:
            raise HandlerError(BATCH_IS_OVER)
        region = Region.__new__(Region)
        region.name = name
        region.data = self.base + at
        region.size = <Py_ssize_t>size
        region.owner = self.owner
        region.writable = writable
        self.regions.append(region)
        return region

    cdef pf_column *_column(self, uint32_t index) except NULL:
        if self.closed:
            raise HandlerError(BATCH_IS_OVER)
        if index >= self.layout.n_columns:
            raise IndexError(f"column {index} of {self.layout.n_columns}")
        return &self.layout.columns[index]

    def count(self, uint32_t index):
        """Values of a column: the rows at row level, else what its list holds."""
        cdef int32_t parent = self._column(index).list
        cdef pf_column *column
        if parent < 0:
            return self.rows
        column = &self.layout.columns[parent]
        return (<int32_t *>(self.base + column.offsets))[<uint64_t>self.count(parent)]

    def values(self, uint32_t index, uint64_t count):
        """The values of a fixed-width column, or the bytes of a string column."""
        cdef pf_column *column = self._column(index)
        cdef uint64_t size = count * (column.width if column.width else 1)
        if size > column.data_bytes:
            raise ValueError(f"{size} bytes asked of a column of {column.data_bytes}")
        return self._region(self._name(index), column.data, size)

    def text_bytes(self, uint32_t index):
        """Bytes that the values of a string, bytes or raw column take together."""
        cdef pf_column *column = self._column(index)
        if column.offsets == 0 or column.data == 0:
            raise ValueError("the column has no text")
        return (<int32_t *>(self.base + column.offsets))[<uint64_t>self.count(index)]

    def offsets(self, uint32_t index, uint64_t count):
        """int32[count + 1]: where each string or list begins and ends."""
        cdef pf_column *column = self._column(index)
        if not column.offsets or count > column.capacity:
            raise ValueError("the column has no such offsets")
        return self._region(self._name(index), column.offsets, (count + 1) * sizeof(int32_t))

    def validity(self, uint32_t index, uint64_t count):
        """The bitmap of a nullable column, least significant bit first; None for any other column."""
        cdef pf_column *column = self._column(index)
        if not column.validity:
            return None
        if count > column.capacity:
            raise ValueError("the column has no such values")
        return self._region(self._name(index), column.validity, (count + 7) // 8)

    cdef str _name(self, uint32_t index):
        return self.layout.plan.schema.columns[index].name

    def messages(self):
        """The pf_message table of the good rows; see MESSAGE in batch.py for its dtype."""
        return self._region("messages", self.messages_at, <uint64_t>self.rows * sizeof(pf_message))

    def status(self):
        """uint8[rows], writable: ROW_UNMARKED, ROW_REJECTED or ROW_RETRY."""
        return self._region("status", self.status_at, self.rows, True)

    def raw(self, str name):
        """The raw region under the name of what is to be read from it."""
        if self.raw_of is not None:
            return self.raw_of.raw(name)
        return self._region(name, self.raw_at, self.raw_bytes)

    def close(self):
        """Hand out nothing any more: whoever asks from now on gets HandlerError.

        Before ``kept`` is asked for the last time: a thread that the handler left behind may read on meanwhile.
        """
        cdef Region region
        self.closed = True
        for region in self.regions:
            region.closed = True

    def hand_over(self, owner):
        """Have what is still looked at keep ``owner`` alive."""
        cdef Region region
        for region in self.regions:
            if region.exports > 0:
                region.owner = owner

    def kept(self):
        """Names of the columns and regions that something still looks at."""
        cdef Region region
        return sorted({region.name for region in self.regions if region.exports > 0})


# -- decoding into memory of its own -----------------------------------------------------------

class ColumnTooLargeError(ValueError):
    """Payloads whose values do not fit one batch, though the payloads do."""


ctypedef struct pf_given:
    const uint8_t *data  # NULL: a null value
    size_t size
    const uint8_t *key
    int32_t key_size
    const uint8_t *headers
    uint32_t headers_size
    int64_t timestamp_ms


cdef class _Payloads:
    """Pointers to payloads, keys and headers that stay valid while this object lives."""

    cdef pf_given *given
    cdef Py_ssize_t n
    cdef uint64_t total
    cdef Py_buffer *buffers
    cdef Py_ssize_t n_buffers
    cdef list kept

    def __cinit__(self, list payloads, keys, headers, timestamps):
        cdef Py_ssize_t i
        self.n = len(payloads)
        for extra in (keys, headers, timestamps):  # list items are read without bounds checks below
            if extra is not None and len(extra) != self.n:
                raise ValueError(f"{len(extra)} keys, headers or timestamps for {self.n} payloads")
        self.kept = [payloads, keys, headers]
        self.given = <pf_given *>calloc(self.n + 1, sizeof(pf_given))
        self.buffers = <Py_buffer *>calloc(self.n + 1, sizeof(Py_buffer))
        if self.given == NULL or self.buffers == NULL:
            raise MemoryError()
        for i in range(self.n):
            self._payload(i, payloads[i])
            self._extras(&self.given[i], i, keys, headers, timestamps)

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.n_buffers):
            PyBuffer_Release(&self.buffers[i])
        free(self.buffers)
        free(self.given)

    cdef int _payload(self, Py_ssize_t i, payload) except -1:
        cdef pf_given *target = &self.given[i]
        cdef Py_buffer *buffer
        if payload is None:
            return 0
        if PyBytes_CheckExact(payload):
            target.data = <const uint8_t *>PyBytes_AS_STRING(payload)
            target.size = <size_t>PyBytes_GET_SIZE(payload)
        else:
            if not PyObject_CheckBuffer(payload):
                advice = "; encode it first" if isinstance(payload, str) else ""
                raise TypeError(f"payload {i} is {type(payload).__name__}, not bytes{advice}")
            buffer = &self.buffers[self.n_buffers]
            try:
                PyObject_GetBuffer(payload, buffer, PyBUF_SIMPLE)
            except BufferError as error:
                raise TypeError(f"payload {i} cannot be read as bytes: {error}; give bytes(payload)") from None
            self.n_buffers += 1
            # An empty buffer may have no address, and an address is what tells it from a null value.
            target.data = <const uint8_t *>(buffer.buf if buffer.buf != NULL else PyBytes_AS_STRING(b""))
            target.size = <size_t>buffer.len
        self.total += target.size
        return 0

    cdef int _extras(self, pf_given *target, Py_ssize_t i, keys, headers, timestamps) except -1:
        cdef bytes key, header
        target.key_size = -1
        target.timestamp_ms = -1
        if keys is not None and keys[i] is not None:
            key = keys[i]
            if PyBytes_GET_SIZE(key) > INT32_MAX:
                raise ValueError(f"key {i} is longer than 2 GiB")
            target.key = <const uint8_t *>PyBytes_AS_STRING(key)
            target.key_size = <int32_t>PyBytes_GET_SIZE(key)
            self.total += target.key_size
        if headers is not None and headers[i] is not None:
            header = headers[i]
            if PyBytes_GET_SIZE(header) > INT32_MAX:
                raise ValueError(f"headers {i} are longer than 2 GiB")
            target.headers = <const uint8_t *>PyBytes_AS_STRING(header)
            target.headers_size = <uint32_t>PyBytes_GET_SIZE(header)
            self.total += target.headers_size
        if timestamps is not None:
            target.timestamp_ms = timestamps[i]
        return 0


def decode_private(Plan plan not None, NativeDecoder decoder not None, list payloads not None, keys=None,
                   headers=None, timestamps=None):
    """Decode payloads into memory of this process.

    Parameters:
        payloads: bytes-like objects; None is a null value, which is refused unless the decoder makes rows of them.
        keys: None or a list of bytes or None; headers: None or a list of encoded headers or None;
            timestamps: None or a list of milliseconds since the epoch.

    Returns (BatchMemory, refusals): refusals are (index, reason, found, column, at) tuples.
    Raises TypeError for a payload that is not bytes-like, ValueError when a column or all payloads
    together exceed the 2 GiB that one batch can address.
    """
    cdef _Payloads given = _Payloads(payloads, keys, headers, timestamps)
    cdef Layout layout
    cdef uint64_t raw_bytes, text_bytes, longest_default, messages_at, status_at, columns_at, raw_at
    cdef Py_ssize_t capacity = given.n if given.n else 1
    if given.n > INT32_MAX or given.total > INT32_MAX:
        raise ValueError(
            f"{given.n} payloads of {given.total} bytes: one batch holds at most 2 GiB; decode them in parts")
    raw_bytes = given.total if given.total else 1
    # Defaults take room that no payload paid for.
    longest_default = max([len(f.data) for s in plan.schema.structs for f in s.fields], default=0)
    text_bytes = min(raw_bytes + longest_default * <uint64_t>capacity, <uint64_t>INT32_MAX)
    messages_at = 0
    status_at = _aligned(<uint64_t>capacity * sizeof(pf_message))
    columns_at = _aligned(status_at + <uint64_t>capacity)
    while True:
        layout = Layout(plan, capacity, text_bytes, columns_at)
        raw_at = _aligned(columns_at + layout.bytes)
        memory = OwnedMemory(raw_at + raw_bytes)
        batch = BatchMemory(
            layout, <uintptr_t>(<OwnedMemory>memory).base, 0, messages_at, status_at, raw_at, raw_bytes, memory)
        refusals = _decode_into(batch, decoder, given)
        if refusals is not None:
            return batch, refusals
        if text_bytes == INT32_MAX:
            raise ColumnTooLargeError("a column would hold more than 2 GiB; decode fewer payloads at a time")
        text_bytes = min(text_bytes * 2, <uint64_t>INT32_MAX)


def decode_rows(BatchMemory whole not None, NativeDecoder decoder not None, rows, uint32_t attempts):
    """Some rows of a batch once more, in memory of their own, with their keys, headers and positions.

    ``attempts``: how often they have been given to a handler before. Raises IndexError for a row that the
    batch does not have, ColumnTooLargeError.
    """
    cdef pf_message *table = <pf_message *>(whole.base + whole.messages_at)
    cdef const char *raw = <const char *>(whole.base + whole.raw_at)
    cdef pf_message *source
    cdef pf_message *target
    cdef HeldBuffer held = HeldBuffer(rows, sizeof(uint32_t))
    cdef const uint32_t *chosen = <const uint32_t *>held.bytes
    cdef size_t i
    cdef BatchMemory part
    payloads, keys, headers, timestamps = [], [], [], []
    for i in range(held.items):
        if chosen[i] >= whole.rows:
            raise IndexError(f"row {chosen[i]} of {whole.rows}")
        source = table + chosen[i]
        null = source.payload_size == PF_NO_PAYLOAD
        payloads.append(None if null else raw[source.payload_at:source.payload_at + source.payload_size])
        keys.append(None if source.key_size < 0 else raw[source.key_at:source.key_at + <uint32_t>source.key_size])
        headers.append(raw[source.headers_at:source.headers_at + source.headers_size])
        timestamps.append(source.timestamp_ms)
    decoder.forget_refusals()
    part, refusals = decode_private(whole.layout.plan, decoder, payloads, keys, headers, timestamps)
    if refusals:
        raise RuntimeError(f"a payload that was a row is refused when it is decoded again: {refusals[0]}")
    for i in range(held.items):
        target = <pf_message *>(part.base + part.messages_at) + i
        target.offset = (table + chosen[i]).offset
        target.partition = (table + chosen[i]).partition
        target.attempts = pf_count16(attempts)
        target.deliveries = (table + chosen[i]).deliveries
    return part


cdef object _decode_into(BatchMemory memory, NativeDecoder native, _Payloads given):
    """Fill `memory`; the refusals, or None when a column was too small."""
    cdef pf_decoder *decoder = native.decoder
    cdef pf_refusal *whys = <pf_refusal *>calloc(given.n + 1, sizeof(pf_refusal))
    cdef pf_columns columns = memory.layout.empty_columns()
    cdef uint64_t used = 0
    cdef Py_ssize_t i = 0
    cdef int outcome = PF_DECODED
    if whys == NULL:
        raise MemoryError()
    columns.base = memory.base
    try:
        pf_columns_reset(&columns)
        while i < given.n and outcome != PF_FULL:
            with nogil:
                while i < given.n:
                    outcome = _decode_one(decoder, &columns, &given.given[i], &whys[i])
                    if outcome == PF_FULL or outcome == PF_UNKNOWN:
                        break
                    if outcome == PF_DECODED:
                        _keep_message(memory, columns.rows - 1, i, &given.given[i], &used)
                    i += 1
            if outcome == PF_UNKNOWN:
                native.learn()
        if outcome == PF_FULL:
            return None
        memory.rows = columns.rows
        return [
            (i, whys[i].reason, whys[i].found, whys[i].column, whys[i].at) for i in range(given.n) if whys[i].reason
        ]
    finally:
        free(whys)


cdef int _decode_one(
    pf_decoder *decoder, pf_columns *columns, pf_given *given, pf_refusal *why
) noexcept nogil:
    cdef int outcome
    if given.data == NULL:
        outcome = pf_decode_null(decoder, columns, why)
    else:
        outcome = decoder.decode(decoder, columns, given.data, given.size, why)
    if outcome != PF_REFUSED:
        why.reason = 0  # a decoder may have noted something on its way to success
    return outcome


cdef void _keep_message(
    BatchMemory memory, uint32_t row, Py_ssize_t index, pf_given *given, uint64_t *used
) noexcept nogil:
    cdef pf_message *message = <pf_message *>(memory.base + memory.messages_at) + row
    cdef uint8_t *raw = memory.base + memory.raw_at
    message.offset = index
    message.timestamp_ms = given.timestamp_ms
    message.partition = 0
    message.attempts = 0
    message.deliveries = 0
    message.payload_at = <uint32_t>used[0]
    message.payload_size = <uint32_t>given.size if given.data != NULL else PF_NO_PAYLOAD
    if given.size:
        memcpy(raw + used[0], given.data, given.size)
    used[0] += given.size
    message.key_at = <uint32_t>used[0]
    message.key_size = given.key_size
    if given.key_size > 0:
        memcpy(raw + used[0], given.key, <size_t>given.key_size)
        used[0] += <uint64_t>given.key_size
    message.headers_at = <uint32_t>used[0]
    message.headers_size = given.headers_size
    if given.headers_size:
        memcpy(raw + used[0], given.headers, given.headers_size)
        used[0] += given.headers_size


cdef inline uint64_t _aligned(uint64_t at) noexcept:
    return (at + (ALIGNMENT - 1)) & ~<uint64_t>(ALIGNMENT - 1)
