/* A null payload (a Kafka tombstone): refused, or a row of what columns have where a message lacks their field.
 *
 * Whoever decodes asks here for it, so that decoders see payloads only, and all of them agree on what such a row holds.
 */
#ifndef PYTHIA_NULL_ROW_H
#define PYTHIA_NULL_ROW_H

#include "field_store.h"

/* One more row, of a message without any field: PF_DECODED, or PF_FULL.  A field that has to be there is Optional
 * (decoders.py sees to it), so it is null. */
static int pf_null_row(const pf_plan *plan, pf_columns *batch) {
    const pf_struct *row = &plan->structs[0];
    if (batch->rows >= batch->capacity) return PF_FULL;
    for (uint32_t f = 0; f < row->n_fields; f++) {
        const pf_field *field = &row->fields[f];
        if (field->fallback == PF_DEFAULT_REQUIRED)
            pf_store_null(batch, field->column, batch->rows);
        else if (pf_store_default(plan, batch, field, batch->rows) != PF_STORED)
            return PF_FULL;
    }
    batch->rows++;
    return PF_DECODED;
}

/* What the decoder's owner wants of a null payload: as pf_decoder.decode. */
static int pf_decode_null(const pf_decoder *decoder, pf_columns *batch, pf_refusal *why) {
    if (decoder->null_rows) return pf_null_row(decoder->null_rows, batch);
    *why = (pf_refusal){PF_REASON_NULL, PF_FOUND_NONE, 0, -1, 0};
    return PF_REFUSED;
}

#endif
