/* libFuzzer target: any bytes through every JSON kernel.  They must agree, keep every batch sound, touch no byte
 * beyond the payload (its allocation ends with it), and answer the same whatever key order they have learned. */
#include "batch.h"
#include "json_decoder.h"

enum { KERNELS = 2 };

static fuzz_batch *batches[KERNELS], *small, *fresh_batch;
static pf_json *decoders[KERNELS];

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    const char *names[KERNELS] = {"scalar", "avx2"};
    for (int k = 0; k < KERNELS; k++) {
        pf_json_decode kernel = pf_json_kernel(names[k]);
        decoders[k] = pf_json_new(&fuzz_plan, kernel ? kernel : pf_json_kernel("scalar"));
        MUST(decoders[k]);
        batches[k] = fuzz_batch_new(8, 1 << 16);
    }
    fresh_batch = fuzz_batch_new(1, 1 << 16);
    small = fuzz_batch_new(2, 40);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > 4096) return 0;
    uint8_t *payload = malloc(size ? size : 1); /* an empty payload still has an address */
    MUST(payload);
    if (size) memcpy(payload, data, size);
    pf_refusal why[KERNELS], other;
    int outcome[KERNELS];
    for (int k = 0; k < KERNELS; k++) {
        decoders[k]->structs[0].scatter = size % 2 ? 1 : 0; /* both ways to read a row, whatever came before */
        if (batches[k]->batch.rows == batches[k]->batch.capacity) pf_columns_reset(&batches[k]->batch);
        outcome[k] = fuzz_decode(&decoders[k]->decoder, batches[k], payload, size, &why[k]);
        MUST(outcome[k] == outcome[0]);
    }
    uint64_t last = batches[0]->batch.rows - 1u;
    if (outcome[0] == PF_REFUSED) MUST(memcmp(&why[0], &why[1], sizeof why[0]) == 0);
    if (outcome[0] == PF_DECODED)
        for (uint32_t c = 0; c < N_COLUMNS; c = fuzz_columns[c].end)
            fuzz_same_value(&batches[0]->batch, &batches[1]->batch, c, last, last);

    pf_json *fresh = pf_json_new(&fuzz_plan, decoders[1]->decoder.decode);
    MUST(fresh);
    pf_columns_reset(&fresh_batch->batch);
    MUST(fuzz_decode(&fresh->decoder, fresh_batch, payload, size, &other) == outcome[0]);
    if (outcome[0] == PF_REFUSED) MUST(memcmp(&why[0], &other, sizeof other) == 0);
    if (outcome[0] == PF_DECODED)
        for (uint32_t c = 0; c < N_COLUMNS; c = fuzz_columns[c].end)
            fuzz_same_value(&batches[0]->batch, &fresh_batch->batch, c, last, 0);
    pf_json_free(fresh);

    if (small->batch.rows == small->batch.capacity) pf_columns_reset(&small->batch);
    for (int k = 0; k < KERNELS; k++) {
        int result = fuzz_decode(&decoders[k]->decoder, small, payload, size, &other);
        /* Without room it may not get as far as what is wrong, but a good payload stays good. */
        if (outcome[0] == PF_DECODED) MUST(result != PF_REFUSED);
        if (outcome[0] == PF_REFUSED) MUST(result != PF_DECODED);
    }
    free(payload);
    return 0;
}
