# cython: language_level=3
"""FramedDecoder: payloads behind the number of a schema, read by another decoder (kernel: ext/framed_decoder.h)."""
from pythia_fast._ext.decoder cimport NativeDecoder, pf_decoder
from pythia_fast._ext.registry_decoder cimport RegistryDecoder, pf_registry


cdef extern from "framed_decoder.h":
    ctypedef struct pf_framed_decoder:
        pf_decoder decoder
        pf_registry registry
    void pf_framed_decoder_init(pf_framed_decoder *self, pf_decoder *inner, int skips_frame) noexcept nogil


cdef class FramedDecoder(RegistryDecoder):
    """Decodes payloads whose schema can be read, and refuses the others.

    Parameters:
        inner: the decoder of what stands behind the frame; it belongs to this one from here on.
        skips_frame: whether it gets the payload without the frame.
        ask: a SchemaReader for the number of a schema, None where there is none or it is of another kind. It may raise:
            then it is asked again.
    """

    cdef pf_framed_decoder native
    cdef NativeDecoder inner

    def __init__(self, NativeDecoder inner not None, *, bint skips_frame, ask):
        if inner.decoder == NULL:
            raise ValueError("the inner decoder decodes nothing")
        self.inner = inner
        self.ask = ask
        pf_framed_decoder_init(&self.native, inner.decoder, skips_frame)
        self.registry = &self.native.registry
        self.decoder = &self.native.decoder
