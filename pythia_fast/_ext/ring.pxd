# The arena as other compiled modules see it.
from pythia_fast._ext.arena_memory cimport ArenaMemory

cdef class Arena(ArenaMemory):
    pass
