# cython: language_level=3
"""RegistryDecoder: what decoders have in common whose payloads begin with the number of their schema in a registry."""
from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free

from pythia_fast._ext.decoder cimport NativeDecoder


cdef class SchemaReader:
    """What reads payloads of one schema; a subclass says how."""

    def __cinit__(self):
        self.reader = <void *>self  # of those that have nothing to say but that they are there


cdef class RegistryDecoder(NativeDecoder):
    """A subclass points ``registry`` at its own, and sets ``ask``: what reads the schema of a number, None where there
    is none. It may raise: then it is asked again."""

    def __cinit__(self, *args, **kwargs):
        self.readers = {}

    def learn(self):
        """Ask for what reads the payload that was met last with a number not known before."""
        self._check_made()
        self.know(self.registry.asked, self.ask(self.registry.asked))

    def forget_refusals(self):
        found = {number: reader for number, reader in self.readers.items() if reader is not None}
        if len(found) < len(self.readers):
            self._set(found)

    def know(self, uint32_t number, SchemaReader reader):
        """Read what has this number with this reader, or refuse it where there is none."""
        self._set(self.readers | {number: reader})

    cdef int _check_made(self) except -1:
        if self.registry == NULL:
            raise RuntimeError(f"{type(self).__name__} was not made by its __init__")
        return 0

    cdef int _set(self, dict readers) except -1:
        cdef pf_registered *table
        cdef SchemaReader known
        cdef uint32_t n = 0
        self._check_made()
        table = <pf_registered *>calloc(len(readers) + 1, sizeof(pf_registered))
        if table == NULL:
            raise MemoryError()
        for key in sorted(readers):
            known = readers[key]
            table[n].id = key
            table[n].reader = NULL if known is None else known.reader
            n += 1
        free(self._known)
        self.readers = readers
        self._known = table
        self.registry.known = table
        self.registry.n_known = n
        return 0

    def __dealloc__(self):
        free(self._known)
