# cython: language_level=3
"""What a file sink writes, and where a file cut off by a kill ends well. The loops are C, in file_lines.h."""

from cpython.bytearray cimport PyByteArray_AS_STRING
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from pythia_fast._ext.held_buffer cimport HeldBuffer


cdef extern from "file_lines.h" nogil:
    enum:
        PF_UNWRITABLE_BREAK
        PF_UNWRITABLE_EMPTY
        PF_UNWRITABLE_NULL
        PF_UNWRITABLE_LARGE
        PF_WRITE_FRAMES
        PF_WRITE_LINES
        PF_WRITE_RECORDS

    ctypedef struct pf_unwritable:
        uint32_t index
        uint32_t reason

    ctypedef struct pf_written:
        size_t bytes
        uint32_t records
        uint32_t unwritable

    uint32_t pf_read_u32(const uint8_t *at)

    int pf_write_payloads(
        const uint8_t *records, size_t size, int form, uint8_t *into, uint32_t count, pf_unwritable *unwritable,
        pf_written *result
    )

REASONS = {
    PF_UNWRITABLE_EMPTY: "an empty payload would be an empty line, which is no record",
    PF_UNWRITABLE_BREAK: "a payload with a line break cannot be one line of a file",
    PF_UNWRITABLE_NULL: "a null payload has no place in a file",
    PF_UNWRITABLE_LARGE: "the record is larger than the 4 GiB that a frame can say",
}


FORMS = {"ndjson": PF_WRITE_LINES, "msgpack-frames": PF_WRITE_FRAMES, "records": PF_WRITE_RECORDS}


def payload_bytes(records, uint32_t count, str form not None):
    cdef int native_form = FORMS[form]
    cdef HeldBuffer held = HeldBuffer(records)
    cdef size_t size = held.size
    cdef bytearray written = bytearray(size + (4 * <size_t>count if native_form == PF_WRITE_RECORDS else 0))
    cdef uint8_t *into = <uint8_t *>PyByteArray_AS_STRING(written)
    cdef pf_written result
    cdef uint32_t i
    cdef int failed
    if size == 0:
        if count:
            raise ValueError(f"{count} records announced, none given")
        return written, []
    cdef pf_unwritable *unwritable = <pf_unwritable *>malloc(max(count, 1) * sizeof(pf_unwritable))
    if unwritable == NULL:
        raise MemoryError
    try:
        with nogil:
            failed = pf_write_payloads(held.bytes, size, native_form, into, count, unwritable, &result)
        if failed or result.records != count:
            raise ValueError(f"{size} bytes are not the {count} framed records that were announced")
        refused = [(unwritable[i].index, REASONS[unwritable[i].reason]) for i in range(result.unwritable)]
    finally:
        free(unwritable)
    del written[result.bytes:]
    return written, refused


def whole_frames(content):
    cdef HeldBuffer held = HeldBuffer(content)
    cdef uint64_t size = <uint64_t>held.size
    cdef uint64_t at = 0
    cdef uint64_t frame
    cdef const uint8_t *start = held.bytes
    with nogil:
        while size - at >= 4:
            frame = 4 + <uint64_t>pf_read_u32(start + at)
            if frame > size - at:
                break
            at += frame
    return at
