# Shared by every reader: the one field through which the intake thread reaches a source.
cdef extern from "source.h":
    ctypedef struct pf_source:
        pass

cdef class NativeSource:
    cdef pf_source *source
