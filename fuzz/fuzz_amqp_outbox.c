/* libFuzzer target: any bytes as what a RabbitMQ server answers to a publisher, and as the headers of what is published.
 * Whatever it confirms, refuses or returns, and whenever its channel ends: no record is settled twice or forgotten. */
#include "amqp_outbox.h"

#define MUST(condition)                                                        \
    do {                                                                       \
        if (!(condition)) {                                                    \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);    \
            abort();                                                           \
        }                                                                      \
    } while (0)

enum { CHANNEL = 1, RECORDS = 12, KEPT = 1 << 16 };

static pf_amqp_outbox box;

static void put_record(pf_amqp_text *to, const uint8_t *payload, uint32_t size, const uint8_t *headers, uint32_t headers_size) {
    pf_amqp_put_le(to, 1, 4);
    pf_amqp_put_le(to, headers_size, 4);
    pf_amqp_put_le(to, size, 4);
    pf_amqp_put(to, "k", 1);
    pf_amqp_put(to, headers, headers_size);
    pf_amqp_put(to, payload, size);
}

/* Records in the ring or in `again`, those not published yet, and those settled are all of them. */
static void check(void) {
    uint32_t under_way = box.n_again - box.next_again;
    for (uint64_t tag = box.low_tag + 1; tag <= box.sent_tag; tag++) under_way += box.ring[tag % PF_AMQP_UNCONFIRMED].waiting;
    const pf_amqp_ticket *ticket = &box.tickets[0];
    MUST(under_way + (ticket->count - ticket->index) + ticket->settled == ticket->count);
    MUST(ticket->n_failures <= ticket->settled);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    memset(&box, 0, sizeof box);
    MUST(pf_amqp_stream_init(&box.stream, KEPT, 0) == 0);
    box.key_routes = data[0] & 1;
    box.frame_max = 4096;
    box.max_message_size = data[0] / 2;
    uint32_t headers_size = data[1] < size - 2 ? data[1] : (uint32_t)(size - 2);
    pf_amqp_text records = {0};
    for (uint32_t i = 0; i < RECORDS; i++) put_record(&records, data, i % 3, data + 2, i % 4 ? 0 : headers_size);
    MUST(pf_amqp_outbox_check(records.bytes, records.size, RECORDS));
    MUST(!pf_amqp_outbox_check(records.bytes, records.size - 1, RECORDS));
    MUST(pf_amqp_outbox_add(&box, records.bytes, records.size, RECORDS, 7) == 0);

    pf_amqp_stream_open(&box.stream, 0, 1); /* its bytes come from here, no socket is touched */
    pf_amqp_outbox_begin(&box, CHANNEL);
    size_t at = 2;
    while (at < size && !box.stream.parser.error) {
        size_t part = data[at] % 64 + 1u < size - at ? data[at] % 64 + 1u : size - at;
        pf_amqp_outbox_fill(&box);
        check();
        if (box.stream.in_size + part <= PF_AMQP_IN_BYTES) {
            memcpy(box.stream.in + box.stream.in_size, data + at, part);
            pf_amqp_stream_came(&box.stream, part);
        }
        while (pf_amqp_outbox_take(&box) == PF_AMQP_OTHER) box.stream.other_size = 0;
        pf_amqp_stream_compact(&box.stream);
        check();
        if (data[at] > 250) pf_amqp_outbox_begin(&box, CHANNEL);
        if (data[at] % 2) box.held = 0;
        check();
        at += part;
    }
    free(box.tickets[0].failures);
    free(box.tickets);
    free(box.order);
    free(records.bytes);
    pf_amqp_stream_free(&box.stream);
    return 0;
}
