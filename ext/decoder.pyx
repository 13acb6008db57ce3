# cython: language_level=3
"""NativeDecoder: what a source thread sees of a decoder."""
from pythia_fast._ext.plan cimport Plan


cdef class NativeDecoder:
    """Base of the compiled decoders; a subclass points ``decoder`` at its own pf_decoder."""

    def make_rows_of_nulls(self, Plan plan not None):
        """From now on a null payload is a row, of what columns have where a message lacks their field.

        ``plan``: that of the decoder's columns; each field of a row has a default, or is Optional.
        """
        if self.decoder == NULL:
            raise ValueError("the decoder was not initialised")
        self.null_rows = plan
        self.decoder.null_rows = &plan.plan

    def learn(self):
        """Ask for what the decoder needs to go on after PF_UNKNOWN. Only decoders that give that answer have this."""
        raise NotImplementedError(f"{type(self).__name__} has all that it needs")

    def forget_refusals(self):
        """What could not be learned is asked for again: rows are decoded again that were rows to another process."""
