/* libFuzzer target: messages of any size, with keys and headers, through the intake into slots.  What a slot says of each
 * is what was given, nothing lies outside the raw region, and a message that does not fit is kept for the spool.  Then
 * the bytes around a Kafka value: headers must never be overlooked. */
#include <stdio.h>
#include <stdlib.h>

#include "intake.h"
#include "kafka_headers.h"
#include "must.h"

enum { CAPACITY = 4, RAW_BYTES = 128, SLOTS = 3, MOST = 256 };

static int decode(pf_decoder *self, pf_columns *batch, const uint8_t *payload, size_t size, pf_refusal *why) {
    (void)self;
    if (size && payload[0] == '!') {
        *why = (pf_refusal){.reason = PF_REASON_SYNTAX, .column = -1};
        return PF_REFUSED;
    }
    batch->rows++;
    return PF_DECODED;
}

static pf_arena *make_arena(void) {
    pf_arena sizes = {.magic = PF_ARENA_MAGIC, .n_workers = 1, .n_slots = SLOTS, .slot_capacity = CAPACITY, .credit = SLOTS};
    uint64_t at = (sizeof(pf_slot) + 63) & ~63ull;
    sizes.partitions_at = at;
    sizes.messages_at = at = at + PF_SLOT_PARTITIONS * sizeof(pf_slot_partition);
    sizes.good_at = at = at + CAPACITY * sizeof(pf_message);
    sizes.refusals_at = at = at + CAPACITY * sizeof(pf_message);
    sizes.status_at = at = at + CAPACITY * sizeof(pf_refused);
    sizes.raw_at = at = at + CAPACITY;
    sizes.raw_bytes = RAW_BYTES;
    sizes.slot_bytes = (at + RAW_BYTES + 63) & ~63ull;
    sizes.workers_at = (sizeof(pf_arena) + 63) & ~63ull;
    sizes.slots_at = (sizes.workers_at + sizeof(pf_worker) + 63) & ~63ull;
    sizes.arena_bytes = sizes.slots_at + SLOTS * sizes.slot_bytes;
    pf_arena *arena = aligned_alloc(64, sizes.arena_bytes);
    MUST(arena);
    memset(arena, 0, sizes.arena_bytes);
    memcpy(arena, &sizes, sizeof sizes);
    return arena;
}

static void is_same(pf_arena *arena, pf_slot *slot, uint32_t at, const uint8_t *wanted, size_t size) {
    MUST((uint64_t)at + size <= RAW_BYTES);
    MUST(size == 0 || memcmp((const uint8_t *)slot + arena->raw_at + at, wanted, size) == 0);
}

/* Take the oldest published batch, compare it with what was given, and release it; the messages compared. */
static uint32_t check_batch(pf_arena *arena, const pf_incoming *given, uint32_t n) {
    uint32_t index = pf_take(arena, 0);
    if (index == PF_NO_SLOT) return 0;
    pf_slot *slot = pf_slot_at(arena, index);
    pf_decoder decoder = {.decode = decode};
    uint32_t refused = 0;
    uint64_t bytes = 0;
    MUST(slot->messages > 0 && slot->messages <= n && slot->messages <= CAPACITY && slot->raw_bytes <= RAW_BYTES);
    pf_decode_slot(arena, slot, (pf_columns){.capacity = CAPACITY}, &decoder);
    for (uint32_t i = 0; i < slot->messages; i++) {
        const pf_message *row = &pf_slot_messages(arena, slot)[i];
        const pf_incoming *m = &given[i];
        MUST(row->offset == m->offset && row->partition == m->partition && row->key_size == m->key_size);
        MUST(row->headers_size == m->headers_size && row->timestamp_ms == m->timestamp_ms);
        MUST(row->payload_size == (m->payload ? (uint32_t)m->size : PF_NO_PAYLOAD));
        is_same(arena, slot, row->payload_at, m->payload, m->size);
        is_same(arena, slot, row->key_at, m->key, m->key_size > 0 ? (size_t)m->key_size : 0);
        is_same(arena, slot, row->headers_at, m->headers, m->headers_size);
        refused += m->payload == NULL || (m->size && m->payload[0] == '!');
        bytes += m->size;
    }
    MUST(slot->refused == refused && slot->rows + refused == slot->messages && slot->payload_bytes == bytes);
    uint32_t in_partitions = 0;
    for (uint32_t i = 0; i < slot->n_partitions; i++) in_partitions += pf_slot_partitions(arena, slot)[i].messages;
    MUST(in_partitions == slot->messages);
    uint32_t messages = slot->messages;
    pf_complete(arena, 0, index);
    pf_store(&pf_worker_at(arena, 0)->collected, pf_worker_at(arena, 0)->completed);
    pf_release(arena, index);
    return messages;
}

static void take_in(const uint8_t *data, size_t size) {
    pf_arena *arena = make_arena();
    pf_decoder decoder = {.decode = decode};
    pf_open_batch open = {.slot = PF_NO_SLOT};
    pf_intake in = {.sink = {pf_intake_append}, .arena = arena, .decoder = &decoder, .columns = {.capacity = CAPACITY},
                    .batch_rows = CAPACITY, .open = &open, .n_open = 1, .ordering = PF_UNORDERED, .admission = {.gate = PF_GATE_OPEN},
                    .spool_dir = "/nonexistent", .max_payload_bytes = RAW_BYTES - 16};
    static pf_incoming given[MOST];
    uint32_t n = 0, checked = 0;
    /* Each message: sizes of payload, key and headers, then their bytes, which may overlap those of the next. */
    for (size_t at = 0; at + 3 <= size && n < MOST; at += 3) {
        size_t left = size - at - 3;
        size_t payload = data[at] == 255 ? 0 : data[at], key = data[at + 1] % 64, headers = data[at + 2] % 64;
        pf_incoming m = {.payload = data[at] == 255 ? NULL : data + at + 3, .size = payload < left ? payload : left,
                         .key = data + at + 3, .key_size = data[at + 1] >= 128 ? -1 : (int32_t)(key < left ? key : left),
                         .headers = data + at + 3, .headers_size = (uint32_t)(headers < left ? headers : left),
                         .partition = data[at] % 3u, .offset = (int64_t)at, .next_offset = (int64_t)at + 1,
                         .timestamp_ms = (int64_t)data[at + 2]};
        size_t rest = (m.key_size > 0 ? (size_t)m.key_size : 0) + m.headers_size;
        int oversize = m.size > in.max_payload_bytes || m.size + rest > RAW_BYTES;
        in.spool_errno = 0;
        given[n] = m;
        int outcome = in.sink.append(&in.sink, &m);
        if (outcome == PF_STALLED && !in.spool_errno) { /* every slot is taken */
            uint32_t more = check_batch(arena, given + checked, n - checked);
            MUST(more > 0);
            checked += more;
            outcome = in.sink.append(&in.sink, &m);
        }
        MUST(oversize ? outcome == PF_STALLED && in.spool_errno == ENOENT : outcome == PF_APPENDED);
        if (outcome == PF_APPENDED) n++;
    }
    while (!pf_intake_flush(&in, 0) || pf_in_hand(arena, 0)) {
        uint32_t more = check_batch(arena, given + checked, n - checked);
        MUST(more > 0);
        checked += more;
    }
    MUST(checked == n);
    free(arena);
}

/* A record of Kafka's format 2 ends with its value's size, the value, the number of headers and the headers. */
static void look_for_headers(const uint8_t *data, size_t size) {
    uint8_t *record = malloc(32 + size);
    MUST(record);
    size_t at = 16, value = size - 1;
    memset(record, data[0], at);
    for (uint64_t rest = (uint64_t)value << 1; at == 16 || rest; rest >>= 7)
        record[at++] = (uint8_t)((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0));
    memcpy(record + at, data + 1, value);
    record[at + value] = data[0] % 4 ? data[0] : 0;
    int none = pf_kafka_surely_has_no_headers(record + at, value);
    MUST(none == (value > 0 && record[at + value] == 0));
    /* In formats 0 and 1 the size stands big endian, and what follows is another message: nothing can be said. */
    for (int i = 0; i < 4; i++) record[16 + i] = (uint8_t)(value >> 8 * (3 - i));
    memcpy(record + 20, data + 1, value);
    record[20 + value] = 0;
    MUST(!pf_kafka_surely_has_no_headers(record + 20, value));
    free(record);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1 || size > 4096) return 0;
    uint8_t *bytes = malloc(size);
    MUST(bytes);
    memcpy(bytes, data, size);
    take_in(bytes, size);
    look_for_headers(bytes, size);
    free(bytes);
    return 0;
}
