# Shared by every decoder: the one field through which a source thread reaches a decoder.
cdef extern from "decoder.h":
    ctypedef struct pf_decoder:
        pass

cdef class NativeDecoder:
    cdef pf_decoder *decoder
