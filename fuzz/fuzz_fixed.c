/* libFuzzer target: any bytes through the decoder of fixed layouts, and through that of raw bytes.  Each value is worked
 * out a second time here, the plain way; no byte beyond the payload or a column's room is touched. */
#include "batch.h"
#include "fixed_decoder.h"
#include "raw_decoder.h"

/* dtype([("n", ">u4"), ("ok", "?"), ("half", "<f2"), ("at", "M8[ms]"), ("pad", "S9"), ("text", "U3"), ("rest", "V3"),
 *        ("pairs", [("x", ">i2"), ("s", "S2")], (2,))]) */
enum { N, YES, HALF, AT, PAD, TEXT, REST, PAIRS, PAIR, X, S, COLUMNS };
enum { RECORD = 4 + 1 + 2 + 8 + 9 + 12 + 3 + 2 * 4, ROWS = 4, ROOM = 64, RAW_ROOM = 4096 };

static pf_column columns[COLUMNS] = {
    [N] = COLUMN(PF_UINT32, 0, 4, 0, YES, -1),
    [YES] = COLUMN(PF_BOOL, 0, 1, 0, HALF, -1),
    [HALF] = COLUMN(PF_FLOAT32, 0, 4, 0, AT, -1),
    [AT] = COLUMN(PF_DATETIME, 0, 8, 0, PAD, -1),
    [PAD] = COLUMN(PF_BYTES, 0, 0, 0, TEXT, -1),
    [TEXT] = COLUMN(PF_STRING, 0, 0, 0, REST, -1),
    [REST] = COLUMN(PF_BYTES, 0, 0, 0, PAIRS, -1),
    [PAIRS] = COLUMN(PF_LIST, 0, 0, 1, COLUMNS, -1),
    [PAIR] = COLUMN(PF_STRUCT, 0, 0, 2, COLUMNS, PAIRS),
    [X] = COLUMN(PF_INT16, 0, 2, 0, S, PAIRS),
    [S] = COLUMN(PF_BYTES, 0, 0, 0, COLUMNS, PAIRS),
};
static const pf_bounds no_bounds[COLUMNS];
static const pf_plan plan = {.columns = columns, .bounds = no_bounds, .n_columns = COLUMNS};
static const pf_fixed_step steps[] = {
    {.action = PF_FIXED_COPY, .swap = 1, .column = N, .offset = 0, .size = 4},
    {.action = PF_FIXED_BOOL, .column = YES, .offset = 4, .size = 1},
    {.action = PF_FIXED_HALF, .column = HALF, .offset = 5, .size = 2},
    {.action = PF_FIXED_TIME, .column = AT, .offset = 7, .size = 8, .multiply = 1000, .divide = 1},
    {.action = PF_FIXED_PADDED, .column = PAD, .offset = 15, .size = 9},
    {.action = PF_FIXED_UTF32, .column = TEXT, .offset = 24, .size = 12},
    {.action = PF_FIXED_VOID, .column = REST, .offset = 36, .size = 3},
    {.action = PF_FIXED_LIST, .column = PAIRS, .offset = 39, .size = 4, .count = 2, .end = 10},
    {.action = PF_FIXED_COPY, .swap = 1, .column = X, .offset = 0, .size = 2},
    {.action = PF_FIXED_PADDED, .column = S, .offset = 2, .size = 2},
};

static pf_fixed_decoder fixed = {.plan = &plan, .steps = steps, .n_steps = COUNT(steps), .record_bytes = RECORD};
static pf_decoder raw;
static pf_columns batch, raw_batch;
static pf_column raw_column;

static uint64_t place(pf_columns *made, pf_column *list, uint32_t n, uint32_t room) {
    fuzz_batch cursor = {.batch = *made};
    uint64_t used = 64;
    for (uint32_t c = 0; c < n; c++) {
        pf_column *node = &list[c];
        node->capacity = node->list < 0 ? made->capacity : 2 * made->capacity;
        int text = node->kind == PF_STRING || node->kind == PF_BYTES;
        if (text || node->kind == PF_LIST) node->offsets = fuzz_place(&cursor, &used, 4 * (node->capacity + 1));
        node->data_bytes = text ? room : node->capacity * node->width;
        if (node->data_bytes) node->data = fuzz_place(&cursor, &used, node->data_bytes);
    }
    return used;
}

static void make(pf_columns *made, pf_column *list, uint32_t n, uint32_t rows, uint32_t room) {
    *made = (pf_columns){.columns = list, .n_columns = n, .capacity = rows};
    uint64_t size = place(made, list, n, room);
    made->base = calloc(1, size);
    MUST(made->base);
    ASAN_POISON_MEMORY_REGION(made->base, size);
    place(made, list, n, room);
    pf_columns_reset(made);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    pf_fixed_decoder_init(&fixed);
    pf_raw_decoder_init(&raw);
    make(&batch, columns, COLUMNS, ROWS, ROOM);
    raw_column = (pf_column)COLUMN(PF_BYTES, 0, 0, 0, 1, -1);
    make(&raw_batch, &raw_column, 1, ROWS, RAW_ROOM);
    return 0;
}

static void is_text(const pf_columns *of, uint32_t column, uint64_t i, const uint8_t *wanted, size_t size) {
    const int32_t *offsets = pf_column_offsets(of, column) + i;
    MUST((size_t)(offsets[1] - offsets[0]) == size);
    MUST(size == 0 || memcmp((const uint8_t *)pf_column_data(of, column) + offsets[0], wanted, size) == 0);
}

static size_t without_nuls(const uint8_t *at, size_t size) {
    while (size && at[size - 1] == 0) size--;
    return size;
}

/* UTF-8 of code points, each by itself; -1 when one is none. */
static int as_utf8(const uint8_t *at, uint8_t *into) {
    uint32_t codes[3];
    int used = 0, n = 3;
    memcpy(codes, at, sizeof codes);
    while (n && codes[n - 1] == 0) n--;
    for (int i = 0; i < n; i++) {
        uint32_t code = codes[i];
        if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return -1;
        if (code < 0x80) into[used++] = (uint8_t)code;
        else if (code < 0x800) {
            into[used++] = (uint8_t)(0xC0 | code >> 6);
            into[used++] = (uint8_t)(0x80 | (code & 63));
        } else if (code < 0x10000) {
            into[used++] = (uint8_t)(0xE0 | code >> 12);
            into[used++] = (uint8_t)(0x80 | (code >> 6 & 63));
            into[used++] = (uint8_t)(0x80 | (code & 63));
        } else {
            into[used++] = (uint8_t)(0xF0 | code >> 18);
            into[used++] = (uint8_t)(0x80 | (code >> 12 & 63));
            into[used++] = (uint8_t)(0x80 | (code >> 6 & 63));
            into[used++] = (uint8_t)(0x80 | (code & 63));
        }
    }
    return used;
}

static void check_record(const uint8_t *p, uint32_t row) {
    uint8_t text[12];
    int64_t at;
    memcpy(&at, p + 7, 8);
    MUST(((uint32_t *)pf_column_data(&batch, N))[row] ==
         ((uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]));
    MUST(((uint8_t *)pf_column_data(&batch, YES))[row] == (p[4] != 0));
    MUST(((int64_t *)pf_column_data(&batch, AT))[row] == (at == INT64_MIN ? INT64_MIN : at * 1000));
    is_text(&batch, PAD, row, p + 15, without_nuls(p + 15, 9));
    is_text(&batch, TEXT, row, text, (size_t)as_utf8(p + 24, text));
    is_text(&batch, REST, row, p + 36, 3);
    for (uint32_t k = 0; k < 2; k++) {
        const uint8_t *pair = p + 39 + 4 * k;
        MUST(((int16_t *)pf_column_data(&batch, X))[2 * row + k] == (int16_t)((uint16_t)pair[0] << 8 | pair[1]));
        is_text(&batch, S, 2 * row + k, pair + 2, without_nuls(pair + 2, 2));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > RAW_ROOM) return 0;
    uint8_t *payload = malloc(size ? size : 1), text[12];
    pf_refusal why = {0};
    MUST(payload);
    if (size) memcpy(payload, data, size);

    if (batch.rows == batch.capacity) pf_columns_reset(&batch);
    uint32_t row = batch.rows;
    int outcome = pf_fixed_decode(&fixed.decoder, &batch, payload, size, &why);
    MUST(batch.rows == row + (outcome == PF_DECODED));
    if (size != RECORD) {
        MUST(outcome == PF_REFUSED && why.reason == (size ? PF_REASON_LENGTH : PF_REASON_EMPTY) && why.at <= size);
    } else {
        int64_t at;
        memcpy(&at, payload + 7, 8);
        int good_time = at == INT64_MIN || (at >= PF_DATETIME_MIN_US / 1000 && at <= PF_DATETIME_MAX_US / 1000);
        int good = good_time && as_utf8(payload + 24, text) >= 0;
        MUST(outcome == (good ? PF_DECODED : PF_REFUSED));
        if (good) check_record(payload, row);
        else MUST(why.reason == (good_time ? PF_REASON_CODE_POINT : PF_REASON_DATETIME) && why.at <= size);
    }

    if (raw_batch.rows == raw_batch.capacity) pf_columns_reset(&raw_batch);
    row = raw_batch.rows;
    outcome = pf_raw_decode(&raw, &raw_batch, payload, size, &why);
    if (outcome == PF_FULL) {
        MUST(row > 0); /* an empty batch has room for each of these */
        pf_columns_reset(&raw_batch);
        row = 0;
        outcome = pf_raw_decode(&raw, &raw_batch, payload, size, &why);
    }
    MUST(outcome == PF_DECODED && raw_batch.rows == row + 1);
    is_text(&raw_batch, 0, row, payload, size);
    free(payload);
    return 0;
}
