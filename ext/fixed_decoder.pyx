# cython: language_level=3
"""FixedDecoder: records of one NumPy structured dtype (kernel: ext/fixed_decoder.h)."""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from pythia_fast._ext.decoder cimport NativeDecoder, pf_decoder
from pythia_fast._ext.plan cimport Plan, pf_plan

import numpy as np

from pythia_fast.errors import SchemaError

cdef extern from "fixed_decoder.h":
    enum:
        PF_FIXED_COPY
        PF_FIXED_BOOL
        PF_FIXED_HALF
        PF_FIXED_TIME
        PF_FIXED_PADDED
        PF_FIXED_VOID
        PF_FIXED_UTF32
        PF_FIXED_LIST

    ctypedef struct pf_fixed_step:
        uint8_t action
        uint8_t swap
        uint32_t column
        uint32_t offset
        uint32_t size
        uint32_t count
        uint32_t end
        int64_t multiply
        int64_t divide

    ctypedef struct pf_fixed_decoder:
        pf_decoder decoder
        const pf_plan *plan
        const pf_fixed_step *steps
        uint32_t n_steps
        uint64_t record_bytes

    void pf_fixed_decoder_init(pf_fixed_decoder *decoder) noexcept nogil

cdef dict _MICROSECONDS = {"s": (1000000, 1), "ms": (1000, 1), "us": (1, 1), "ns": (1, 1000)}
cdef dict _ACTIONS = {
    "b": PF_FIXED_BOOL, "M": PF_FIXED_TIME, "S": PF_FIXED_PADDED, "V": PF_FIXED_VOID, "U": PF_FIXED_UTF32,
}


cdef class FixedDecoder(NativeDecoder):
    """Decodes payloads that are one record of ``plan.schema.source``, a structured dtype, and nothing else.

    A payload of another length is refused, and so is a datetime outside the years 1 to 9999 (NaT is kept)
    and a 'U' field with something that is no code point. 'S' fields lose the NULs at their end, as in NumPy.

    Raises SchemaError for a dtype without bytes or with records of 2 GiB and more.
    """

    cdef Plan plan
    cdef pf_fixed_decoder native
    cdef pf_fixed_step *steps

    def __init__(self, Plan plan not None):
        dtype = plan.schema.source
        if self.steps != NULL:
            raise RuntimeError("a decoder is built once")
        if not isinstance(dtype, np.dtype) or dtype.names is None:
            raise SchemaError(f"a fixed layout needs a structured dtype, not {plan.schema.name}")
        if not 0 < dtype.itemsize < 1 << 31:
            raise SchemaError(f"records of {dtype.itemsize} bytes; a fixed layout has from 1 byte to 2 GiB")
        described = []
        _describe_fields(described, dtype, 0, 0)
        self.plan = plan
        self.steps = <pf_fixed_step *>PyMem_Malloc(len(described) * sizeof(pf_fixed_step))
        if self.steps == NULL:
            raise MemoryError()
        memset(self.steps, 0, len(described) * sizeof(pf_fixed_step))
        for index, step in enumerate(described):
            self._fill(&self.steps[<Py_ssize_t>index], step)
        self.native.plan = &plan.plan
        self.native.steps = self.steps
        self.native.n_steps = <uint32_t>len(described)
        self.native.record_bytes = dtype.itemsize
        pf_fixed_decoder_init(&self.native)
        self.decoder = &self.native.decoder

    def __dealloc__(self):
        PyMem_Free(self.steps)

    cdef int _fill(self, pf_fixed_step *target, step) except -1:
        target.action, target.swap, target.column, target.offset, target.size, target.count, target.end, unit = step
        target.multiply, target.divide = _MICROSECONDS[unit]
        return 0


cdef object _describe_fields(list steps, dtype, uint64_t offset, uint32_t column):
    """Append the steps of a dtype's fields; the index of the column after them. Columns stand in the order in
    which schema.describe makes them."""
    for name in dtype.names:
        field, at = dtype.fields[name][:2]
        column = _describe(steps, field, offset + at, column)
    return column


cdef object _describe(list steps, dtype, uint64_t offset, uint32_t column):
    cdef Py_ssize_t here
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        inner = np.dtype((base, shape[1:])) if len(shape) > 1 else base
        here = len(steps)
        steps.append(None)
        after = _describe(steps, inner, 0, column + 1)
        steps[here] = (PF_FIXED_LIST, False, column, offset, inner.itemsize, shape[0], len(steps), "us")
        return after
    if dtype.names is not None:
        return _describe_fields(steps, dtype, offset, column + 1)
    action = PF_FIXED_HALF if dtype.newbyteorder("=") == np.float16 else _ACTIONS.get(dtype.kind, PF_FIXED_COPY)
    unit = np.datetime_data(dtype)[0] if dtype.kind == "M" else "us"
    steps.append((action, not dtype.isnative, column, offset, dtype.itemsize, 0, 0, unit))
    return column + 1
