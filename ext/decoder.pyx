# cython: language_level=3
"""NativeDecoder: what a source thread sees of a decoder."""


cdef class NativeDecoder:
    """Base of the compiled decoders; a subclass points ``decoder`` at its own pf_decoder."""
