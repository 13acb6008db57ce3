/* libFuzzer target: any bytes as rows of a string, a number, a time, bytes, lists and a Struct, into a region of any size. */
#include "batch.h"
#include "row_encoder.h"

static const pf_pow10 powers[] = {
#include "out/powers.inc"
};

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    MUST(sizeof powers == sizeof pf_pow10_table);
    memcpy(pf_pow10_table, powers, sizeof powers);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    size_t region_bytes = data[0] * 4u;
    int msgpack = data[1] & 1;
    int64_t rows = (int64_t)(size - 2) / 16, at = 0;
    int32_t *offsets = malloc((size_t)(rows + 1) * sizeof *offsets);
    int32_t *ones = malloc((size_t)(rows + 1) * sizeof *ones); /* of values that are there or absent */
    uint8_t *region = malloc(region_bytes + 1);
    MUST(offsets != NULL && ones != NULL && region != NULL);
    for (int64_t i = 0; i <= rows; i++) {
        offsets[i] = (int32_t)(16 * i);
        ones[i] = i > rows / 2;
    }
    const uint8_t *values = data + 2, *prefix = (const uint8_t *)"\"v\":";
    pf_out_column columns[] = {
        {.end = 1, .kind = PF_OUT_STRING, .spans = PF_SPANS_OFFSETS32, .data = values, .offsets = offsets, .prefix = prefix, .prefix_size = 4},
        {.end = 2, .kind = PF_OUT_INT64, .data = values, .stride = 16, .valid_bits = values, .prefix = prefix, .prefix_size = 4},
        {.end = 3, .kind = PF_OUT_UINT16, .data = values + 8, .stride = 16, .prefix = prefix, .prefix_size = 4},
        {.end = 4, .kind = PF_OUT_FLOAT32, .data = values + 4, .stride = 16, .prefix = prefix, .prefix_size = 4},
        {.end = 5, .kind = PF_OUT_BYTES, .spans = PF_SPANS_OFFSETS32, .data = values, .offsets = offsets, .prefix = prefix, .prefix_size = 4},
        {.end = 6, .kind = PF_OUT_DATETIME, .data = values + 8, .stride = 16, .valid_bytes = values, .valid_stride = 16, .prefix = prefix, .prefix_size = 4},
        {.end = 9, .kind = PF_OUT_STRUCT, .valid_bytes = values, .valid_stride = 16, .prefix = prefix, .prefix_size = 4},
        {.end = 8, .kind = PF_OUT_UINT8, .data = values, .stride = 16, .prefix = prefix, .prefix_size = 4},
        {.end = 9, .kind = PF_OUT_ENCODED, .spans = PF_SPANS_OFFSETS32, .data = (const uint8_t *)"1", .offsets = ones, .prefix = prefix, .prefix_size = 4},
        {.end = 11, .kind = PF_OUT_LIST, .offsets = offsets, .valid_bits = values, .prefix = prefix, .prefix_size = 4},
        {.end = 11, .kind = PF_OUT_INT8, .data = values, .stride = 1},
    };
    while (at < rows) {
        pf_encoded encoded = {0};
        int code = pf_encode_rows(columns, 11, &columns[1], msgpack, at, rows, region, region_bytes, &encoded);
        MUST(encoded.bytes <= region_bytes && encoded.row - at == (int64_t)encoded.records);
        uint64_t read = 0;
        for (uint64_t r = 0; r < encoded.records; r++) {
            uint32_t sizes[3];
            MUST(read + sizeof sizes <= encoded.bytes);
            memcpy(sizes, region + read, sizeof sizes);
            read += sizeof sizes + (sizes[0] == PF_NO_BYTES ? 0 : sizes[0]) + sizes[1];
            MUST(read + sizes[2] <= encoded.bytes);
            if (!msgpack) MUST(pf_utf8_valid_prefix(region + read, sizes[2]) == sizes[2]);
            read += sizes[2];
        }
        MUST(read == encoded.bytes);
        MUST(code == PF_ENCODE_DONE ? encoded.row == rows : encoded.row < rows);
        at = encoded.row + (encoded.records == 0); /* a row that fails or never fits is left out */
    }
    free(offsets);
    free(ones);
    free(region);
    return 0;
}
