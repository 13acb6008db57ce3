# cython: language_level=3
"""MsgpackDecoder: one MessagePack map a payload (kernel: ext/msgpack_decoder.h)."""
from pythia_fast._ext.decoder cimport NativeDecoder, pf_decoder
from pythia_fast._ext.plan cimport Plan, pf_plan


cdef extern from "msgpack_decoder.h":
    ctypedef struct pf_msgpack_decoder:
        pass
    pf_decoder *pf_msgpack_decoder_new(const pf_plan *plan) noexcept nogil
    void pf_msgpack_decoder_free(pf_msgpack_decoder *decoder) noexcept nogil


cdef class MsgpackDecoder(NativeDecoder):
    """Decodes what ``msgspec.msgpack.decode(payload, type=Struct)`` takes, and refuses what it refuses.

    An integer outside its column's type is refused as well, and so is a datetime whose instant in UTC
    lies outside the years 1 to 9999. Values of unknown keys are checked for their structure only.

    ``plan``: of a Struct. Raises MemoryError.
    """

    cdef Plan plan

    def __init__(self, Plan plan not None):
        if self.decoder != NULL:
            raise RuntimeError("a decoder is built once")
        self.plan = plan
        self.decoder = pf_msgpack_decoder_new(&plan.plan)
        if self.decoder == NULL:
            raise MemoryError("no memory for a MessagePack decoder")

    def __dealloc__(self):
        pf_msgpack_decoder_free(<pf_msgpack_decoder *>self.decoder)
