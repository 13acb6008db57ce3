# Base of the decoders of payloads that begin with the number of their schema in a registry.
from libc.stdint cimport uint32_t

from pythia_fast._ext.decoder cimport NativeDecoder


cdef extern from "registry_frame.h":
    ctypedef struct pf_registered:
        uint32_t id
        const void *reader
    ctypedef struct pf_registry:
        const pf_registered *known
        uint32_t n_known, asked


cdef class SchemaReader:
    cdef void *reader


cdef class RegistryDecoder(NativeDecoder):
    cdef pf_registry *registry  # of the subclass' own struct
    cdef object ask
    cdef dict readers  # number -> SchemaReader or None
    cdef pf_registered *_known
    cdef int _check_made(self) except -1
    cdef int _set(self, dict readers) except -1
