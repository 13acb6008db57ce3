# cython: language_level=3
"""NativeSource: what the intake thread sees of a reader."""


cdef class NativeSource:
    """Base of the compiled readers; a subclass points ``source`` at its own pf_source."""
