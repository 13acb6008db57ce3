# cython: language_level=3
"""A batch through the Arrow C data interface and its PyCapsules, without depending on any Arrow library.

https://arrow.apache.org/docs/format/CDataInterface.html (structs, format strings, release callbacks) and
https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html (capsule names, ownership).

The buffers are the batch's own but for bool, which is a byte a value here and a bit in Arrow: those are
packed into memory of the export. Each exported column holds its Regions until the consumer releases it,
which may be any thread, with or without the GIL.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid, PyCapsule_New
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.errno cimport EIO
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from pythia_fast._ext.batch_memory cimport BatchMemory, Region
from pythia_fast._ext.held_buffer cimport HeldBuffer
from pythia_fast._ext.plan cimport pf_column

cdef extern from "Python.h":
    int Py_IsInitialized() nogil

cdef extern from "column.h":
    enum:
        PF_BOOL
        PF_INT8
        PF_INT16
        PF_INT32
        PF_INT64
        PF_UINT8
        PF_UINT16
        PF_UINT32
        PF_UINT64
        PF_FLOAT32
        PF_FLOAT64
        PF_DATETIME
        PF_STRING
        PF_BYTES
        PF_RAW
        PF_LIST
        PF_STRUCT

cdef enum:
    ARROW_FLAG_NULLABLE = 2

ctypedef struct ArrowSchema:
    const char *format
    const char *name
    const char *metadata
    int64_t flags
    int64_t n_children
    ArrowSchema **children
    ArrowSchema *dictionary
    void (*release)(ArrowSchema *) noexcept nogil
    void *private_data

ctypedef struct ArrowArray:
    int64_t length
    int64_t null_count
    int64_t offset
    int64_t n_buffers
    int64_t n_children
    const void **buffers
    ArrowArray **children
    ArrowArray *dictionary
    void (*release)(ArrowArray *) noexcept nogil
    void *private_data

ctypedef struct ArrowArrayStream:
    int (*get_schema)(ArrowArrayStream *, ArrowSchema *) noexcept nogil
    int (*get_next)(ArrowArrayStream *, ArrowArray *) noexcept nogil
    const char *(*get_last_error)(ArrowArrayStream *) noexcept nogil
    void (*release)(ArrowArrayStream *) noexcept nogil
    void *private_data

# What an exported array owns. The PyObject is a list of memoryviews over Regions, and owned here.
ctypedef struct Held:
    const void *buffers[3]
    PyObject *regions
    void *packed

cdef const char **_formats = [
    NULL, b"b", b"c", b"s", b"i", b"l", b"C", b"S", b"I", b"L", b"f", b"g", b"tsu:UTC", b"u", b"z", b"z", b"+l", b"+s",
]


# -- schemas -----------------------------------------------------------------------------------

cdef void _release_schema(ArrowSchema *schema) noexcept nogil:
    cdef int64_t i
    for i in range(schema.n_children):
        if schema.children[i] != NULL:
            if schema.children[i].release != NULL:
                schema.children[i].release(schema.children[i])
            free(schema.children[i])
    free(schema.children)
    free(schema.private_data)  # the name
    schema.release = NULL


cdef int _new_schema(ArrowSchema *schema, const char *format, bytes name, bint nullable, int64_t n_children) except -1:
    """A schema node with room for its children; it can be released from here on."""
    cdef char *copy = <char *>calloc(1, len(name) + 1)
    schema.format = format
    schema.flags = ARROW_FLAG_NULLABLE if nullable else 0
    schema.release = _release_schema
    schema.private_data = copy
    if copy == NULL:
        raise MemoryError()
    memcpy(copy, <const char *>name, len(name))
    schema.name = copy
    schema.children = <ArrowSchema **>calloc(n_children + 1, sizeof(ArrowSchema *))
    if schema.children == NULL:
        raise MemoryError()
    for i in range(n_children):
        schema.children[<int64_t>i] = <ArrowSchema *>calloc(1, sizeof(ArrowSchema))
        if schema.children[<int64_t>i] == NULL:
            raise MemoryError()
        schema.n_children += 1
    return 0


cdef int _column_schema(ArrowSchema *target, schema, spec, str name) except -1:
    children = list(schema.children(spec)) if spec.n_children else []
    _new_schema(target, _formats[<int>int(spec.kind)], name.encode(), spec.nullable, len(children))
    for i, child in enumerate(children):
        inner = "item" if int(spec.kind) == PF_LIST else child.name.rpartition(".")[2]
        _column_schema(target.children[<int64_t>i], schema, child, inner)
    return 0


cdef int _batch_schema(ArrowSchema *target, schema) except -1:
    columns = list(schema.row_columns())
    _new_schema(target, b"+s", b"", False, len(columns))
    for i, spec in enumerate(columns):
        _column_schema(target.children[<int64_t>i], schema, spec, spec.name)
    return 0


# -- arrays ------------------------------------------------------------------------------------

cdef void _release_array(ArrowArray *array) noexcept nogil:
    cdef Held *held = <Held *>array.private_data
    cdef int64_t i
    for i in range(array.n_children):
        if array.children[i] != NULL:
            # A consumer may have moved a child out: then its release is NULL here and the child lives on.
            if array.children[i].release != NULL:
                array.children[i].release(array.children[i])
            free(array.children[i])
    free(array.children)
    if held != NULL:
        if held.regions != NULL and Py_IsInitialized():
            _let_go(held.regions)
        free(held.packed)
        free(held)
    array.release = NULL


cdef void _let_go(PyObject *regions) noexcept with gil:
    Py_DECREF(<object>regions)


cdef Held *_new_array(ArrowArray *array, int64_t length, int64_t n_buffers, int64_t n_children) except NULL:
    """An array node with room for its children; it can be released from here on."""
    cdef Held *held = <Held *>calloc(1, sizeof(Held))
    array.release = _release_array
    array.private_data = held
    if held == NULL:
        raise MemoryError()
    array.length = length
    array.n_buffers = n_buffers
    array.buffers = held.buffers
    array.children = <ArrowArray **>calloc(n_children + 1, sizeof(ArrowArray *))
    if array.children == NULL:
        raise MemoryError()
    for i in range(n_children):
        array.children[<int64_t>i] = <ArrowArray *>calloc(1, sizeof(ArrowArray))
        if array.children[<int64_t>i] == NULL:
            raise MemoryError()
        array.n_children += 1
    regions = []
    Py_INCREF(regions)
    held.regions = <PyObject *>regions
    return held


cdef const void *_hold(Held *held, Region region) except NULL:
    """The address of a Region, which counts as exported until the array is released."""
    (<list>held.regions).append(memoryview(region))
    return region.data


cdef int _column_array(ArrowArray *target, BatchMemory memory, schema, spec) except -1:
    cdef uint32_t index = spec.index
    cdef pf_column *column = memory._column(index)
    cdef uint64_t n = memory.count(index)
    cdef int64_t n_buffers = 3 if column.kind in (PF_STRING, PF_BYTES, PF_RAW) else 1 if column.kind == PF_STRUCT else 2
    cdef Held *held = _new_array(target, <int64_t>n, n_buffers, column.n_children)
    if column.validity:
        target.null_count = -1  # not counted; consumers do that when they need it
        held.buffers[0] = _hold(held, memory.validity(index, n))
    if column.offsets:
        held.buffers[1] = _hold(held, memory.offsets(index, n))
    if n_buffers == 3:
        held.buffers[2] = _hold(held, memory.values(index, memory.text_bytes(index)))
    elif column.kind == PF_BOOL:
        held.packed = _packed(memory.values(index, n))
        held.buffers[1] = held.packed
    elif column.width:
        held.buffers[1] = _hold(held, memory.values(index, n))
    if column.n_children:
        for i, child in enumerate(schema.children(spec)):
            _column_array(target.children[<int64_t>i], memory, schema, child)
    return 0


cdef void *_packed(source) except NULL:
    """Bools of a byte each, 0 or 1, as bits, least significant first."""
    cdef HeldBuffer held = HeldBuffer(source)
    cdef const uint8_t *values = held.bytes
    cdef uint64_t n = <uint64_t>held.size
    cdef uint8_t *bits = <uint8_t *>calloc(1, n // 8 + 1)
    cdef uint64_t i, eight
    if bits == NULL:
        raise MemoryError()
    with nogil:
        for i in range(n // 8):
            # Byte k of eight lies at bit 8k; the factor's bit 56 - 7k moves it to bit 56 + k.
            memcpy(&eight, &values[8 * i], 8)
            bits[i] = <uint8_t>((eight * <uint64_t>0x0102040810204080) >> 56)
        for i in range(n - n % 8, n):
            bits[i >> 3] |= <uint8_t>(values[i] << (i & 7))
    return bits


cdef int _batch_array(ArrowArray *target, BatchMemory memory, schema) except -1:
    columns = list(schema.row_columns())
    _new_array(target, memory.rows, 1, len(columns))
    for i, spec in enumerate(columns):
        _column_array(target.children[<int64_t>i], memory, schema, spec)
    return 0


# -- capsules ----------------------------------------------------------------------------------

cdef void _free_schema_capsule(object capsule) noexcept:
    cdef ArrowSchema *schema
    if PyCapsule_IsValid(capsule, b"arrow_schema"):
        schema = <ArrowSchema *>PyCapsule_GetPointer(capsule, b"arrow_schema")
        if schema.release != NULL:
            schema.release(schema)
        free(schema)


cdef void _free_array_capsule(object capsule) noexcept:
    cdef ArrowArray *array
    if PyCapsule_IsValid(capsule, b"arrow_array"):
        array = <ArrowArray *>PyCapsule_GetPointer(capsule, b"arrow_array")
        if array.release != NULL:
            array.release(array)
        free(array)


cdef void _free_stream_capsule(object capsule) noexcept:
    cdef ArrowArrayStream *stream
    if PyCapsule_IsValid(capsule, b"arrow_array_stream"):
        stream = <ArrowArrayStream *>PyCapsule_GetPointer(capsule, b"arrow_array_stream")
        if stream.release != NULL:
            stream.release(stream)
        free(stream)


def schema_capsule(schema):
    """The ``arrow_schema`` capsule of a pythia_fast Schema: a struct of its row columns."""
    cdef ArrowSchema *exported = <ArrowSchema *>calloc(1, sizeof(ArrowSchema))
    if exported == NULL:
        raise MemoryError()
    capsule = PyCapsule_New(exported, b"arrow_schema", _free_schema_capsule)
    _batch_schema(exported, schema)
    return capsule


def array_capsule(BatchMemory memory not None, schema):
    """The ``arrow_array`` capsule of a batch's rows, a struct array with one child a row column."""
    cdef ArrowArray *exported = <ArrowArray *>calloc(1, sizeof(ArrowArray))
    if exported == NULL:
        raise MemoryError()
    capsule = PyCapsule_New(exported, b"arrow_array", _free_array_capsule)
    _batch_array(exported, memory, schema)
    return capsule


def stream_capsule(BatchMemory memory not None, schema):
    """The ``arrow_array_stream`` capsule of a batch: a stream of one record batch."""
    cdef ArrowArrayStream *stream = <ArrowArrayStream *>calloc(1, sizeof(ArrowArrayStream))
    if stream == NULL:
        raise MemoryError()
    capsule = PyCapsule_New(stream, b"arrow_array_stream", _free_stream_capsule)
    source = _Source(schema)
    _batch_array(&source.array, memory, schema)  # now: what is kept of a stream counts as a view of the batch
    Py_INCREF(source)
    stream.private_data = <void *>source
    stream.get_schema = _stream_schema
    stream.get_next = _stream_next
    stream.get_last_error = _stream_error
    stream.release = _stream_release
    return capsule


cdef class _Source:
    """What a stream still has to give."""

    cdef ArrowArray array  # released once it is given: that ends a stream
    cdef object schema
    cdef bytes error

    def __init__(self, schema):
        self.schema = schema

    def __dealloc__(self):
        if self.array.release != NULL:
            self.array.release(&self.array)


cdef int _stream_schema(ArrowArrayStream *stream, ArrowSchema *target) noexcept with gil:
    source = <_Source>stream.private_data
    memset(target, 0, sizeof(ArrowSchema))
    try:
        _batch_schema(target, source.schema)
    except BaseException as error:
        source.error = str(error).encode()
        if target.release != NULL:
            target.release(target)
        return EIO
    return 0


cdef int _stream_next(ArrowArrayStream *stream, ArrowArray *target) noexcept with gil:
    source = <_Source>stream.private_data
    target[0] = source.array
    source.array.release = NULL
    return 0


cdef const char *_stream_error(ArrowArrayStream *stream) noexcept with gil:
    source = <_Source>stream.private_data
    return NULL if source.error is None else PyBytes_AS_STRING(source.error)


cdef void _stream_release(ArrowArrayStream *stream) noexcept nogil:
    if Py_IsInitialized():
        _let_go(<PyObject *>stream.private_data)
    stream.release = NULL
