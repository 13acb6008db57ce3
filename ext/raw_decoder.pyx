# cython: language_level=3
"""RawDecoder: the payload as it came, in one column of bytes. VerbatimDecoder: messages that are only handed on."""
from pythia_fast._ext.decoder cimport NativeDecoder, pf_decoder


cdef extern from "raw_decoder.h":
    void pf_raw_decoder_init(pf_decoder *decoder) noexcept nogil
    void pf_verbatim_decoder_init(pf_decoder *decoder) noexcept nogil


cdef class RawDecoder(NativeDecoder):
    """Copies each payload into column 0 and refuses none: an empty payload is an empty value.

    ``plan``: its only column is ``payload``, of bytes.
    """

    cdef pf_decoder native
    cdef object plan

    def __init__(self, plan):
        self.plan = plan
        pf_raw_decoder_init(&self.native)
        self.decoder = &self.native


cdef class VerbatimDecoder(NativeDecoder):
    """Makes a row of every message, and copies none: for handlers that hand messages on as they are.

    ``plan``: as of RawDecoder. The column stays empty.
    """

    cdef pf_decoder native
    cdef object plan

    def __init__(self, plan):
        self.plan = plan
        pf_verbatim_decoder_init(&self.native)
        self.decoder = &self.native
