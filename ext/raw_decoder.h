/* The decoder of decoder="raw", of which the payload as it came is the value of column 0; and that of messages that are
 * only handed on. */
#ifndef PYTHIA_RAW_DECODER_H
#define PYTHIA_RAW_DECODER_H

#include "decoder.h"

static int pf_raw_decode(pf_decoder *self, pf_columns *batch, const uint8_t *payload, size_t size, pf_refusal *why) {
    const pf_column *node = &batch->columns[0];
    int32_t *offsets = pf_column_offsets(batch, 0);
    uint64_t begin = (uint64_t)offsets[batch->rows];
    uint64_t limit = node->data_bytes < INT32_MAX ? node->data_bytes : INT32_MAX;
    if (batch->rows >= batch->capacity || begin > limit || size > limit - begin) return PF_FULL;
    if (size) memcpy((uint8_t *)pf_column_data(batch, 0) + begin, payload, size);
    offsets[++batch->rows] = (int32_t)(begin + size);
    return PF_DECODED;
}

static inline void pf_raw_decoder_init(pf_decoder *self) {
    self->decode = pf_raw_decode;
}

/* That of messages that are only handed on: every one is a row, and the column stays empty, for what is handed on is read
 * from the raw region. */
static int pf_verbatim_decode(pf_decoder *self, pf_columns *batch, const uint8_t *payload, size_t size, pf_refusal *why) {
    int32_t *offsets = pf_column_offsets(batch, 0);
    if (batch->rows >= batch->capacity) return PF_FULL;
    offsets[batch->rows + 1] = offsets[batch->rows];
    batch->rows++;
    return PF_DECODED;
}

static inline void pf_verbatim_decoder_init(pf_decoder *self) {
    self->decode = pf_verbatim_decode;
}

#endif
