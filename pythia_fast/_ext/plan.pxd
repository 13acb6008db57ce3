# The C side of a schema and of a batch's memory, shared by decoders, batches and the arena.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "column.h":
    ctypedef struct pf_column:
        uint8_t kind
        uint8_t nullable
        uint16_t width
        uint32_t n_children
        uint32_t end
        int32_t list
        uint64_t capacity
        uint64_t data
        uint64_t data_bytes
        uint64_t offsets
        uint64_t validity

    ctypedef struct pf_columns:
        uint8_t *base
        const pf_column *columns
        uint32_t n_columns
        uint32_t rows
        uint32_t capacity

    void pf_columns_reset(pf_columns *batch) nogil

cdef extern from "plan.h":
    ctypedef union pf_bound_value:
        int64_t i
        double f

    ctypedef struct pf_bounds:
        uint32_t which
        uint8_t is_float
        pf_bound_value ge
        pf_bound_value gt
        pf_bound_value le
        pf_bound_value lt
        pf_bound_value multiple_of
        uint64_t min_length
        uint64_t max_length

    ctypedef struct pf_field:
        const char *name
        uint32_t name_size
        uint32_t column
        uint8_t fallback
        uint64_t bits
        const uint8_t *bytes
        uint32_t size

    ctypedef struct pf_struct:
        const pf_field *fields
        uint32_t n_fields
        uint8_t forbid_unknown
        const char *tag_field
        uint32_t tag_field_size
        const char *tag
        uint32_t tag_size
        int64_t tag_number

    ctypedef struct pf_plan:
        const pf_column *columns
        const pf_bounds *bounds
        const int32_t *struct_of
        uint32_t n_columns
        const pf_struct *structs
        uint32_t n_structs

cdef class Plan:
    cdef pf_plan plan            # valid while this object lives; decoders keep a reference to it
    cdef readonly object schema  # pythia_fast.schema.Schema
    cdef list _kept              # the bytes objects that names and defaults point into
    cdef pf_column *_columns
    cdef pf_bounds *_bounds
    cdef int32_t *_struct_of
    cdef pf_struct *_structs
    cdef pf_field *_fields

    cdef int _fill_column(self, Py_ssize_t index, column) except -1
    cdef int _fill_bounds(self, pf_bounds *target, bounds, bint is_float) except -1
    cdef int _fill_structs(self, structs) except -1
    cdef const char *_keep(self, bytes data, uint32_t *size) except NULL

cdef class Layout:
    cdef pf_column *columns      # plan's columns with capacities and offsets; valid while this object lives
    cdef readonly Plan plan
    cdef readonly uint32_t n_columns
    cdef readonly uint32_t capacity   # rows
    cdef readonly uint64_t raw_bytes
    cdef readonly uint64_t base       # offset of the columns region in the slot
    cdef readonly uint64_t bytes      # size of the columns region

    cdef pf_columns empty_columns(self) noexcept
    cdef int _place(self) except -1
