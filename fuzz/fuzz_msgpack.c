/* libFuzzer target: any bytes through the MessagePack decoder, which must keep every batch sound, touch no byte
 * beyond the payload (its allocation ends with it), and answer the same whatever key order it has learned. */
#include "batch.h"
#include "msgpack_decoder.h"

static fuzz_batch *batch, *small, *fresh_batch;
static pf_decoder *decoder;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    decoder = pf_msgpack_decoder_new(&fuzz_plan);
    MUST(decoder);
    batch = fuzz_batch_new(8, 1 << 16);
    fresh_batch = fuzz_batch_new(1, 1 << 16);
    small = fuzz_batch_new(2, 40);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > 4096) return 0;
    uint8_t *payload = malloc(size ? size : 1);
    MUST(payload);
    if (size) memcpy(payload, data, size);
    pf_refusal why = {0}, other = {0};
    if (batch->batch.rows == batch->batch.capacity) pf_columns_reset(&batch->batch);
    int outcome = fuzz_decode(decoder, batch, payload, size, &why);

    pf_decoder *fresh = pf_msgpack_decoder_new(&fuzz_plan);
    MUST(fresh);
    pf_columns_reset(&fresh_batch->batch);
    MUST(fuzz_decode(fresh, fresh_batch, payload, size, &other) == outcome);
    if (outcome == PF_REFUSED) MUST(why.reason == other.reason && why.at == other.at && why.column == other.column);
    if (outcome == PF_DECODED)
        for (uint32_t c = 0; c < N_COLUMNS; c = fuzz_columns[c].end)
            fuzz_same_value(&batch->batch, &fresh_batch->batch, c, batch->batch.rows - 1u, 0);
    pf_msgpack_decoder_free((pf_msgpack_decoder *)fresh);

    if (small->batch.rows == small->batch.capacity) pf_columns_reset(&small->batch);
    int result = fuzz_decode(decoder, small, payload, size, &other);
    if (outcome == PF_DECODED) MUST(result != PF_REFUSED);
    if (outcome == PF_REFUSED) MUST(result != PF_DECODED);
    free(payload);
    return 0;
}
