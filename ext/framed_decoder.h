/* The decoder of payloads that another decoder reads once their schema in a registry is known to be one it can read. */
#ifndef PYTHIA_FRAMED_DECODER_H
#define PYTHIA_FRAMED_DECODER_H

#include "registry_frame.h"

typedef struct {
    pf_decoder decoder; /* first: a pf_decoder * is a pf_framed_decoder * */
    pf_decoder *inner;
    size_t skip; /* bytes that `inner` does not get: the frame, or none */
    pf_registry registry;
} pf_framed_decoder;

static int pf_framed_decode(pf_decoder *self, pf_columns *batch, const uint8_t *payload, size_t size, pf_refusal *why) {
    pf_framed_decoder *decoder = (pf_framed_decoder *)self;
    const void *reader;
    int framed = pf_registry_reader(&decoder->registry, payload, size, &reader, why);
    if (framed != PF_DECODED) return framed;
    int result = decoder->inner->decode(decoder->inner, batch, payload + decoder->skip, size - decoder->skip, why);
    if (result == PF_REFUSED) why->at += decoder->skip;
    return result;
}

static inline void pf_framed_decoder_init(pf_framed_decoder *self, pf_decoder *inner, int skips_frame) {
    self->decoder.decode = pf_framed_decode;
    self->inner = inner;
    self->skip = skips_frame ? PF_REGISTRY_FRAME : 0;
}

#endif
