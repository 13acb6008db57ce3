# cython: language_level=3
"""Plan and Layout: a schema as the C structs that decoders read.

A Plan owns a ``pf_plan`` (ext/plan.h), built once from ``pythia_fast.schema.Schema``. A Layout adds the
capacities and offsets that one batch's memory has; both are read only afterwards, and forked processes
share them.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport INT32_MAX, int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from pythia_fast.schema import Kind, Schema, describe

cdef extern from "plan.h":
    enum:
        PF_BOUND_GE
        PF_BOUND_GT
        PF_BOUND_LE
        PF_BOUND_LT
        PF_BOUND_MULTIPLE_OF
        PF_BOUND_MIN_LENGTH
        PF_BOUND_MAX_LENGTH
        PF_BOUND_TZ_AWARE
        PF_BOUND_TZ_NAIVE
    enum:
        PF_NOT_NULLABLE
        PF_NULLABLE
        PF_NULLABLE_ABOVE
    enum:
        PF_FLOAT32
        PF_FLOAT64
        PF_STRING
        PF_BYTES
        PF_RAW
        PF_LIST
        PF_STRUCT

cdef enum:
    ALIGNMENT = 64  # Arrow's advice for buffers, and a cache line


cdef class Plan:
    """The compiled form of a schema; ``Plan(schema)`` takes a Schema or anything ``describe`` takes."""

    def __init__(self, source):
        cdef Py_ssize_t n_fields
        schema = source if isinstance(source, Schema) else describe(source)
        if self._columns != NULL:
            raise RuntimeError("a Plan is built once")
        self.schema = schema
        self._kept = []
        n_fields = sum(len(struct.fields) for struct in schema.structs)
        self._columns = <pf_column *>calloc(len(schema.columns) + 1, sizeof(pf_column))
        self._bounds = <pf_bounds *>calloc(len(schema.columns) + 1, sizeof(pf_bounds))
        self._struct_of = <int32_t *>calloc(len(schema.columns) + 1, sizeof(int32_t))
        self._structs = <pf_struct *>calloc(len(schema.structs) + 1, sizeof(pf_struct))
        self._fields = <pf_field *>calloc(n_fields + 1, sizeof(pf_field))
        if not (self._columns and self._bounds and self._struct_of and self._structs and self._fields):
            raise MemoryError()
        for index, column in enumerate(schema.columns):
            self._fill_column(index, column)
        self._fill_structs(schema.structs)
        self.plan.columns = self._columns
        self.plan.bounds = self._bounds
        self.plan.struct_of = self._struct_of
        self.plan.n_columns = <uint32_t>len(schema.columns)
        self.plan.structs = self._structs
        self.plan.n_structs = <uint32_t>len(schema.structs)

    def __dealloc__(self):
        free(self._columns)
        free(self._bounds)
        free(self._struct_of)
        free(self._structs)
        free(self._fields)

    def __reduce__(self):
        return Plan, (self.schema,)

    cdef int _fill_column(self, Py_ssize_t index, column) except -1:
        cdef pf_column *target = &self._columns[index]
        target.kind = <uint8_t>int(column.kind)
        target.nullable = PF_NULLABLE if column.optional else PF_NULLABLE_ABOVE if column.nullable else PF_NOT_NULLABLE
        target.width = <uint16_t>column.width
        target.n_children = column.n_children
        target.end = column.end
        target.list = column.list
        self._struct_of[index] = column.struct
        self._fill_bounds(&self._bounds[index], column.bounds, target.kind in (PF_FLOAT32, PF_FLOAT64))
        return 0

    cdef int _fill_bounds(self, pf_bounds *target, bounds, bint is_float) except -1:
        target.is_float = is_float
        if bounds.ge is not None:
            target.which |= PF_BOUND_GE
            _set_bound(&target.ge, bounds.ge, is_float)
        if bounds.gt is not None:
            target.which |= PF_BOUND_GT
            _set_bound(&target.gt, bounds.gt, is_float)
        if bounds.le is not None:
            target.which |= PF_BOUND_LE
            _set_bound(&target.le, bounds.le, is_float)
        if bounds.lt is not None:
            target.which |= PF_BOUND_LT
            _set_bound(&target.lt, bounds.lt, is_float)
        if bounds.multiple_of is not None:
            target.which |= PF_BOUND_MULTIPLE_OF
            _set_bound(&target.multiple_of, bounds.multiple_of, is_float)
        if bounds.min_length is not None:
            target.which |= PF_BOUND_MIN_LENGTH
            target.min_length = bounds.min_length
        if bounds.max_length is not None:
            target.which |= PF_BOUND_MAX_LENGTH
            target.max_length = bounds.max_length
        if bounds.tz is not None:
            target.which |= PF_BOUND_TZ_AWARE if bounds.tz else PF_BOUND_TZ_NAIVE
        return 0

    cdef int _fill_structs(self, structs) except -1:
        cdef pf_field *field = self._fields
        cdef pf_struct *target
        for index, spec in enumerate(structs):
            target = &self._structs[<Py_ssize_t>index]
            target.fields = field
            target.n_fields = <uint32_t>len(spec.fields)
            target.forbid_unknown = spec.forbid_unknown
            if spec.tag_field is not None:
                target.tag_field = self._keep(spec.tag_field.encode(), &target.tag_field_size)
                if isinstance(spec.tag, str):
                    target.tag = self._keep(spec.tag.encode(), &target.tag_size)
                else:
                    target.tag_number = spec.tag
            for entry in spec.fields:
                field.name = self._keep(entry.name.encode(), &field.name_size)
                field.column = entry.column
                field.fallback = <uint8_t>int(entry.fallback)
                field.bits = entry.bits
                field.bytes = <const uint8_t *>self._keep(entry.data, &field.size)
                field += 1
        return 0

    cdef const char *_keep(self, bytes data, uint32_t *size) except NULL:
        """Pin ``data`` to this object's life; its address and size."""
        self._kept.append(data)
        size[0] = <uint32_t>PyBytes_GET_SIZE(data)
        return PyBytes_AS_STRING(data)

    def describe(self):
        """The C structs read back as plain dicts, one a column: what the decoders really see."""
        rows = []
        for index in range(self.plan.n_columns):
            column = &self.plan.columns[<Py_ssize_t>index]
            bounds = &self.plan.bounds[<Py_ssize_t>index]
            rows.append({
                "kind": Kind(column.kind), "nullable": bool(column.nullable),
                "optional": column.nullable == PF_NULLABLE, "width": column.width,
                "n_children": column.n_children, "end": column.end, "list": column.list,
                "struct": self.plan.struct_of[<Py_ssize_t>index], "bounds": bounds.which,
            })
        return rows

    def describe_structs(self):
        """The C structs read back: per Struct its fields' keys, columns and fallbacks."""
        cdef const pf_field *field
        cdef const pf_struct *spec
        structs = []
        for index in range(self.plan.n_structs):
            spec = &self.plan.structs[<Py_ssize_t>index]
            fields = []
            for at in range(spec.n_fields):
                field = &spec.fields[<Py_ssize_t>at]
                fields.append({
                    "name": field.name[:field.name_size], "column": field.column, "fallback": field.fallback,
                    "bits": field.bits, "bytes": field.bytes[:field.size],
                })
            structs.append({
                "fields": fields, "forbid_unknown": bool(spec.forbid_unknown),
                "tag_field": None if spec.tag_field == NULL else spec.tag_field[:spec.tag_field_size],
                "tag": spec.tag_number if spec.tag == NULL else spec.tag[:spec.tag_size],
            })
        return structs


cdef int _set_bound(pf_bound_value *target, value, bint is_float) except -1:
    if is_float:
        target.f = value
    else:
        target.i = value
    return 0


cdef class Layout:
    """Where each column of a batch lies.

    Parameters:
        plan: the schema.
        capacity: rows that fit.
        raw_bytes: size of the raw region, all payloads of the batch together. A string column gets as
            much room, because a decoded string is never longer than its text, and a list column room for
            as many values, because each takes at least a byte. Only pages that are written to take
            memory.
        base: offset of the columns region from the start of the slot; 64-byte aligned.

    Raises ValueError for sizes that int32 offsets cannot reach.
    """

    def __init__(self, Plan plan not None, capacity, raw_bytes, base=0):
        if self.columns != NULL:
            raise RuntimeError("a Layout is built once")
        if not 1 <= capacity <= INT32_MAX:
            raise ValueError(f"capacity must be from 1 to {INT32_MAX} rows, not {capacity}")
        if not 1 <= raw_bytes <= INT32_MAX:
            raise ValueError(f"raw_bytes must be from 1 to {INT32_MAX}, not {raw_bytes}")
        if base < 0 or base % ALIGNMENT:
            raise ValueError(f"base must be a multiple of {ALIGNMENT}, not {base}")
        self.plan = plan
        self.n_columns = plan.plan.n_columns
        self.capacity = capacity
        self.raw_bytes = raw_bytes
        self.base = base
        self.columns = <pf_column *>calloc(self.n_columns + 1, sizeof(pf_column))
        if self.columns == NULL:
            raise MemoryError()
        self._place()

    def __dealloc__(self):
        free(self.columns)

    cdef pf_columns empty_columns(self) noexcept:
        """The columns as a decoder is given them, without a base and without rows."""
        cdef pf_columns columns
        columns.base = NULL
        columns.columns = self.columns
        columns.n_columns = self.n_columns
        columns.rows = 0
        columns.capacity = self.capacity
        return columns

    cdef int _place(self) except -1:
        cdef uint64_t at = self.base if self.base else ALIGNMENT  # offset 0 means "has none" in pf_column
        cdef uint64_t list_capacity = self.raw_bytes
        cdef pf_column *column
        for index in range(self.n_columns):
            column = &self.columns[<Py_ssize_t>index]
            column[0] = self.plan.plan.columns[<Py_ssize_t>index]
            column.capacity = self.capacity if column.list < 0 else list_capacity
            if column.nullable:
                column.validity = at
                at = _aligned(at + (column.capacity + 7) // 8)
            if column.kind in (PF_STRING, PF_BYTES, PF_RAW, PF_LIST):
                column.offsets = at
                at = _aligned(at + (column.capacity + 1) * sizeof(int32_t))
            if column.kind in (PF_STRING, PF_BYTES, PF_RAW):
                column.data_bytes = self.raw_bytes
            elif column.width:
                column.data_bytes = column.capacity * column.width
            if column.data_bytes:
                column.data = at
                at = _aligned(at + column.data_bytes)
        self.bytes = at - self.base
        return 0

    def describe(self):
        """One dict a column: name, capacity and the offsets of its buffers (None where it has none)."""
        rows = []
        for index, spec in enumerate(self.plan.schema.columns):
            column = &self.columns[<Py_ssize_t>index]
            rows.append({
                "name": spec.name, "capacity": column.capacity, "data": column.data or None,
                "data_bytes": column.data_bytes, "offsets": column.offsets or None,
                "validity": column.validity or None,
            })
        return rows


cdef inline uint64_t _aligned(uint64_t at) noexcept:
    return (at + (ALIGNMENT - 1)) & ~<uint64_t>(ALIGNMENT - 1)
