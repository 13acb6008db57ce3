/* libFuzzer target: any bytes through the Avro decoder, bare and behind the number of a schema: it must keep every batch
 * sound, touch no byte beyond the payload (its allocation ends with it), and answer the same in both ways. */
#include "batch.h"
#include "avro_decoder.h"

/* The writer's schema, node by node. */
enum {
    ROW_, ID_, PRICE_, SKIPPED_MAP, MAP_ITEMS, MAP_ITEM, NAME_, OK_, SMALL_, BIG_, BIG_NULL, BIG_LONG, BIG_BYTES, RATIO_, WHEN_,
    WHEN_NULL, WHEN_TIME, DATA_, TAGS_, TAG_, INNER_, INNER_NULL, INNER_RECORD, Y_, Y_NULL, Y_STRING, X_, SELF, SELF_NULL,
    SELF_RECORD, SELF_ENUM, NOTHINGS, NOTHING, ITEMS_, ITEMS_NULL, ITEMS_ARRAY, ITEM_, SKU_, COUNTS_, COUNT_, COUNT_NULL,
    COUNT_LONG, N_NODES
};

static const uint32_t children[] = {
    /* 0: the row */ ID_, PRICE_, SKIPPED_MAP, NAME_, OK_, SMALL_, BIG_, RATIO_, WHEN_, DATA_, TAGS_, INNER_, NOTHINGS, ITEMS_,
    /* 14 */ MAP_ITEMS, MAP_ITEM,
    /* 16 */ BIG_NULL, BIG_LONG, BIG_BYTES,
    /* 19 */ WHEN_NULL, WHEN_TIME,
    /* 21 */ TAG_,
    /* 22 */ INNER_NULL, INNER_RECORD,
    /* 24 */ Y_, X_, SELF,
    /* 27 */ Y_NULL, Y_STRING,
    /* 29 */ SELF_NULL, SELF_RECORD,
    /* 31 */ SELF, SELF_ENUM,
    /* 33 */ NOTHING,
    /* 34 */ ITEMS_NULL, ITEMS_ARRAY,
    /* 36 */ ITEM_,
    /* 37 */ SKU_, COUNTS_,
    /* 39 */ COUNT_,
    /* 40 */ COUNT_NULL, COUNT_LONG,
};

#define TO(column_) .column = column_, .record = -1
#define STEPPED_OVER .use = PF_AVRO_SKIP, .column = -1, .record = -1
#define OF(first_, n_) .first = first_, .n = n_

static const pf_avro_node nodes[N_NODES] = {
    [ROW_] = {.op = PF_AVRO_RECORD, .column = -1, .record = 0, OF(0, 14), .absent = 0, .n_absent = 1},
    [ID_] = {.op = PF_AVRO_LONG, TO(ID)},
    [PRICE_] = {.op = PF_AVRO_DOUBLE, TO(PRICE)},
    [SKIPPED_MAP] = {.op = PF_AVRO_MAP, STEPPED_OVER, OF(14, 1)},
    [MAP_ITEMS] = {.op = PF_AVRO_ARRAY, STEPPED_OVER, OF(15, 1)},
    [MAP_ITEM] = {.op = PF_AVRO_BYTES, STEPPED_OVER},
    [NAME_] = {.op = PF_AVRO_STRING, TO(NAME)},
    [OK_] = {.op = PF_AVRO_BOOLEAN, TO(OK)},
    [SMALL_] = {.op = PF_AVRO_LONG, TO(SMALL)},
    [BIG_] = {.op = PF_AVRO_UNION, TO(BIG), OF(16, 3)},
    [BIG_NULL] = {.op = PF_AVRO_NULL, TO(BIG), .takes_none = 1},
    [BIG_LONG] = {.op = PF_AVRO_LONG, TO(BIG)},
    [BIG_BYTES] = {.op = PF_AVRO_BYTES, .use = PF_AVRO_REFUSE, .found = PF_FOUND_BYTES, TO(BIG)},
    [RATIO_] = {.op = PF_AVRO_FLOAT, TO(RATIO)},
    [WHEN_] = {.op = PF_AVRO_UNION, TO(WHEN), OF(19, 2)},
    [WHEN_NULL] = {.op = PF_AVRO_NULL, TO(WHEN), .takes_none = 1},
    [WHEN_TIME] = {.op = PF_AVRO_TIMESTAMP, TO(WHEN), .aware = 1, .size = 1000},
    [DATA_] = {.op = PF_AVRO_FIXED, TO(DATA), .size = 3},
    [TAGS_] = {.op = PF_AVRO_ARRAY, TO(TAGS), OF(21, 1)},
    [TAG_] = {.op = PF_AVRO_ENUM, TO(TAG), OF(0, 3)},
    [INNER_] = {.op = PF_AVRO_UNION, TO(INNER), OF(22, 2)},
    [INNER_NULL] = {.op = PF_AVRO_NULL, TO(INNER), .takes_none = 1},
    [INNER_RECORD] = {.op = PF_AVRO_RECORD, .column = INNER, .record = 1, OF(24, 3)},
    [Y_] = {.op = PF_AVRO_UNION, TO(INNER_Y), OF(27, 2)},
    [Y_NULL] = {.op = PF_AVRO_NULL, TO(INNER_Y), .takes_none = 1},
    [Y_STRING] = {.op = PF_AVRO_STRING, TO(INNER_Y)},
    [X_] = {.op = PF_AVRO_LONG, TO(INNER_X)},
    [SELF] = {.op = PF_AVRO_UNION, STEPPED_OVER, OF(29, 2)},
    [SELF_NULL] = {.op = PF_AVRO_NULL, STEPPED_OVER, .takes_none = 1},
    [SELF_RECORD] = {.op = PF_AVRO_RECORD, STEPPED_OVER, OF(31, 2)},
    [SELF_ENUM] = {.op = PF_AVRO_ENUM, STEPPED_OVER, .size = 2},
    [NOTHINGS] = {.op = PF_AVRO_ARRAY, STEPPED_OVER, OF(33, 1)},
    [NOTHING] = {.op = PF_AVRO_NULL, STEPPED_OVER, .takes_none = 1},
    [ITEMS_] = {.op = PF_AVRO_UNION, TO(ITEMS), OF(34, 2)},
    [ITEMS_NULL] = {.op = PF_AVRO_NULL, TO(ITEMS), .takes_none = 1},
    [ITEMS_ARRAY] = {.op = PF_AVRO_ARRAY, TO(ITEMS), OF(36, 1)},
    [ITEM_] = {.op = PF_AVRO_RECORD, .column = ITEM, .record = 2, OF(37, 2)},
    [SKU_] = {.op = PF_AVRO_STRING, TO(ITEM_SKU)},
    [COUNTS_] = {.op = PF_AVRO_ARRAY, TO(ITEM_COUNTS), OF(39, 1)},
    [COUNT_] = {.op = PF_AVRO_UNION, TO(ITEM_COUNT), OF(40, 2)},
    [COUNT_NULL] = {.op = PF_AVRO_NULL, TO(ITEM_COUNT), .takes_none = 1},
    [COUNT_LONG] = {.op = PF_AVRO_LONG, TO(ITEM_COUNT)},
};

static const pf_avro_symbol symbols[] = {{(const uint8_t *)"A", 1}, {(const uint8_t *)"BB", 2}, {(const uint8_t *)"", 0}};
static const uint32_t absents[] = {9}; /* raw */
static const pf_avro_program program = {.nodes = nodes, .children = children, .symbols = symbols, .absents = absents};
static const pf_registered known[] = {{.id = 7, .reader = &program}, {.id = 9, .reader = NULL}, {.id = 1u << 31, .reader = &program}};

static pf_avro_decoder bare = {.decoder.decode = pf_avro_decode, .plan = &fuzz_plan, .program = &program};
static pf_avro_decoder registered = {.decoder.decode = pf_avro_decode, .plan = &fuzz_plan,
                                     .registry = {.known = known, .n_known = 3}};
static fuzz_batch *batch, *small, *framed_batch;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    batch = fuzz_batch_new(8, 1 << 16);
    framed_batch = fuzz_batch_new(1, 1 << 16);
    small = fuzz_batch_new(2, 40);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > 4096) return 0;
    enum { FRAME = PF_REGISTRY_FRAME };
    /* Each in an allocation of just its size. */
    uint8_t *payload = malloc(size ? size : 1), *framed = malloc(size + FRAME);
    MUST(payload && framed);
    if (size) memcpy(payload, data, size);
    memcpy(framed, size & 1 ? "\x00\x00\x00\x00\x07" : "\x00\x80\x00\x00\x00", FRAME);
    if (size) memcpy(framed + FRAME, data, size);
    pf_refusal why = {0}, other = {0};
    if (batch->batch.rows == batch->batch.capacity) pf_columns_reset(&batch->batch);
    int outcome = fuzz_decode(&bare.decoder, batch, payload, size, &why);

    pf_columns_reset(&framed_batch->batch);
    MUST(fuzz_decode(&registered.decoder, framed_batch, framed, size + FRAME, &other) == outcome);
    if (outcome == PF_REFUSED) MUST(why.reason == other.reason && why.at + FRAME == other.at && why.column == other.column);
    if (outcome == PF_DECODED)
        for (uint32_t c = 0; c < N_COLUMNS; c = fuzz_columns[c].end)
            fuzz_same_value(&batch->batch, &framed_batch->batch, c, batch->batch.rows - 1u, 0);

    if (small->batch.rows == small->batch.capacity) pf_columns_reset(&small->batch);
    int result = fuzz_decode(&bare.decoder, small, payload, size, &other);
    if (outcome == PF_DECODED) MUST(result != PF_REFUSED);
    if (outcome == PF_REFUSED) MUST(result != PF_DECODED);

    /* As it is: with whatever number it has in front. */
    pf_columns_reset(&framed_batch->batch);
    int given = registered.decoder.decode(&registered.decoder, &framed_batch->batch, payload, size, &other);
    MUST(framed_batch->batch.rows == (given == PF_DECODED));
    if (given == PF_UNKNOWN)
        MUST(size >= FRAME && payload[0] == 0 && pf_registry_find(&registered.registry, registered.registry.asked) == NULL);
    free(payload);
    free(framed);
    return 0;
}
