# cython: language_level=3
"""NativeDecoder: what a source thread sees of a decoder."""


cdef class NativeDecoder:
    """Base of the compiled decoders; a subclass points ``decoder`` at its own pf_decoder."""

    def learn(self):
        """Ask for what the decoder needs to go on after PF_UNKNOWN. Only decoders that give that answer have this."""
        raise NotImplementedError(f"{type(self).__name__} has all that it needs")

    def forget_refusals(self):
        """What could not be learned is asked for again: rows are decoded again that were rows to another process."""
