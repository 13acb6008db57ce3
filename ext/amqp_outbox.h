/* Framed records on their way to RabbitMQ, straight from the memory they were written in, and what became of them.
 *
 *     tickets   buffers of records (brokers/base.py), valid until every record of theirs is settled
 *     ring      what was published on this channel and not confirmed, by publish sequence number
 *     again     records whose confirmation was refused or lost with the channel: they are published first
 *
 * The broker confirms by sequence number, one or all up to one; a message that no queue takes it returns before it
 * confirms it, without a number: its content is looked for among what is not confirmed, in the order of publishing.
 * Where two are alike, either may be meant, and it makes no difference.
 *
 * At most PF_AMQP_UNCONFIRMED messages are on their way at once, and no more is framed while PF_AMQP_OUT_BYTES wait for
 * the socket.  One thread at a time. */
#ifndef PYTHIA_AMQP_OUTBOX_H
#define PYTHIA_AMQP_OUTBOX_H

#include "amqp_stream.h"

#define PF_AMQP_UNCONFIRMED 4096u /* power of two */
#define PF_AMQP_OUT_BYTES (1u << 20)
#define PF_AMQP_RECORD_HEADER 12
#define PF_AMQP_NO_BYTES 0xffffffffu

/* Why a record is refused for good. */
enum {
    PF_AMQP_FINE = 0,
    PF_AMQP_UNROUTABLE = 1,
    PF_AMQP_TOO_LARGE = 2,
    PF_AMQP_NULL = 3,
    PF_AMQP_LONG_KEY = 4,
    PF_AMQP_LONG_HEADERS = 5,
};

typedef struct {
    uint32_t index, why;
} pf_amqp_failure;

typedef struct {
    uint64_t id; /* the publisher's own number */
    const uint8_t *records;
    size_t size, at;           /* records + at: the next one to be published */
    uint32_t index, count;     /* of that record; of all */
    uint32_t settled, in_use;
    uint32_t n_failures, room;
    pf_amqp_failure *failures;
} pf_amqp_ticket;

typedef struct {
    uint32_t ticket, index;
    size_t at;
    uint32_t waiting; /* 0: settled */
} pf_amqp_sent;

typedef struct {
    const uint8_t *key, *headers, *payload;
    uint32_t key_size, headers_size, payload_size; /* key and payload: PF_AMQP_NO_BYTES for none */
    size_t size;
} pf_amqp_record;

typedef struct {
    pf_amqp_stream stream;
    uint8_t exchange[256], routing_key[256];
    uint32_t exchange_size, routing_key_size;
    uint32_t key_routes; /* the routing key is each record's own key */
    uint32_t frame_max;
    uint64_t max_message_size;
    uint32_t publishing; /* the channel is open and confirms */
    uint32_t held;       /* the broker refused something: nothing is published until it is let go on */
    uint64_t sent_tag, low_tag; /* of this channel: published last; all up to it are settled */
    uint64_t confirmed;  /* records, in all */
    uint64_t refusals;   /* nacks, in all */
    pf_amqp_sent ring[PF_AMQP_UNCONFIRMED];
    pf_amqp_sent again[PF_AMQP_UNCONFIRMED];
    uint32_t n_again, next_again;
    pf_amqp_ticket *tickets;
    uint32_t n_tickets, next_ticket; /* next_ticket: count of those that were added */
    uint32_t *order;                 /* tickets not wholly published, oldest first */
    uint32_t n_order;
} pf_amqp_outbox;

/* The record at `at`; 0 when the buffer ends inside it. */
static inline int pf_amqp_read_record(const uint8_t *records, size_t size, size_t at, pf_amqp_record *record) {
    if (size - at < PF_AMQP_RECORD_HEADER) return 0;
    uint32_t sizes[3];
    memcpy(sizes, records + at, sizeof sizes); /* little endian, as every machine that this runs on */
    uint64_t key = sizes[0] == PF_AMQP_NO_BYTES ? 0 : sizes[0], payload = sizes[2] == PF_AMQP_NO_BYTES ? 0 : sizes[2];
    if (key + sizes[1] + payload > size - at - PF_AMQP_RECORD_HEADER) return 0;
    record->key = records + at + PF_AMQP_RECORD_HEADER;
    record->headers = record->key + key;
    record->payload = record->headers + sizes[1];
    record->key_size = sizes[0];
    record->headers_size = sizes[1];
    record->payload_size = sizes[2];
    record->size = PF_AMQP_RECORD_HEADER + (size_t)(key + sizes[1] + payload);
    return 1;
}

static inline void pf_amqp_put_be(pf_amqp_text *out, uint64_t value, int size) {
    uint8_t bytes[8];
    for (int i = 0; i < size; i++) bytes[i] = (uint8_t)(value >> 8 * (size - 1 - i));
    pf_amqp_put(out, bytes, (size_t)size);
}

static inline void pf_amqp_put_frame_header(pf_amqp_text *out, int type, uint16_t channel, uint64_t size) {
    pf_amqp_put_be(out, (uint64_t)type, 1);
    pf_amqp_put_be(out, channel, 2);
    pf_amqp_put_be(out, size, 4);
}

typedef struct {
    const uint8_t *name, *value;
    uint32_t name_size, value_size; /* value_size: PF_AMQP_NO_BYTES for a null */
    uint64_t size;                  /* of the whole header */
} pf_amqp_header;

/* The header at `at`; 0 when the bytes end inside it. */
static inline int pf_amqp_read_header(const uint8_t *headers, uint32_t size, uint64_t at, pf_amqp_header *header) {
    if (size - at < 2) return 0;
    uint32_t name = headers[at] | (uint32_t)headers[at + 1] << 8;
    if (size - at - 2 < (uint64_t)name + 4) return 0;
    const uint8_t *value_at = headers + at + 2 + name;
    uint32_t value = value_at[0] | (uint32_t)value_at[1] << 8 | (uint32_t)value_at[2] << 16 | (uint32_t)value_at[3] << 24;
    uint32_t bytes = value == PF_AMQP_NO_BYTES ? 0 : value;
    if (size - at - 6 - name < bytes) return 0;
    *header = (pf_amqp_header){headers + at + 2, value_at + 4, name, value, 6 + (uint64_t)name + bytes};
    return 1;
}

/* A header that RabbitMQ takes for further routing keys, and would close the channel for where it is no array of them
 * (its documentation of sender-selected distribution): one that came with a delivery tells of its first way. */
static inline int pf_amqp_routes(const pf_amqp_header *header) {
    return (header->name_size == 2 && memcmp(header->name, "CC", 2) == 0) ||
           (header->name_size == 3 && memcmp(header->name, "BCC", 3) == 0);
}

/* Headers as a field table, without those that route: strings, and void for a null.  Returns its size, or -1: a name is
 * longer than 255 bytes, or the bytes end inside a header.  `out` NULL: only measure. */
static inline int64_t pf_amqp_put_headers(pf_amqp_text *out, const uint8_t *headers, uint32_t size) {
    pf_amqp_header header;
    int64_t whole = 0;
    for (uint64_t at = 0; at < size; at += header.size) {
        if (!pf_amqp_read_header(headers, size, at, &header) || header.name_size > 255) return -1;
        if (pf_amqp_routes(&header)) continue;
        int null = header.value_size == PF_AMQP_NO_BYTES;
        whole += 1 + header.name_size + (null ? 1 : 5 + (int64_t)header.value_size);
        if (out == NULL) continue;
        pf_amqp_put_be(out, header.name_size, 1);
        pf_amqp_put(out, header.name, header.name_size);
        pf_amqp_put(out, null ? "V" : "S", 1);
        if (null) continue;
        pf_amqp_put_be(out, header.value_size, 4);
        pf_amqp_put(out, header.value, header.value_size);
    }
    return whole;
}

/* Whether these headers, which the outbox was given, are those of a message that was published with them. */
static inline int pf_amqp_same_headers(const uint8_t *headers, uint32_t size, const pf_amqp_text *published) {
    pf_amqp_header header;
    size_t matched = 0;
    for (uint64_t at = 0; at < size; at += header.size) {
        if (!pf_amqp_read_header(headers, size, at, &header)) return 0;
        if (pf_amqp_routes(&header)) continue;
        if (header.size > published->size - matched || memcmp(headers + at, published->bytes + matched, header.size) != 0)
            return 0;
        matched += header.size;
    }
    return matched == published->size;
}

/* Why a record can never be published; PF_AMQP_FINE: it can. */
static inline uint32_t pf_amqp_unpublishable(const pf_amqp_outbox *box, const pf_amqp_record *record) {
    if (record->payload_size == PF_AMQP_NO_BYTES) return PF_AMQP_NULL;
    if (record->payload_size > box->max_message_size) return PF_AMQP_TOO_LARGE;
    if (box->key_routes && record->key_size != PF_AMQP_NO_BYTES && record->key_size > 255) return PF_AMQP_LONG_KEY;
    int64_t headers = pf_amqp_put_headers(NULL, record->headers, record->headers_size);
    if (headers < 0 || headers + 64 > (int64_t)box->frame_max) return PF_AMQP_LONG_HEADERS;
    return PF_AMQP_FINE;
}

/* basic.publish with mandatory set, content header with delivery mode 2 (persistent), body. */
static inline void pf_amqp_put_publish(pf_amqp_outbox *box, const pf_amqp_record *record) {
    pf_amqp_text *out = &box->stream.out;
    uint16_t channel = box->stream.parser.channel;
    const uint8_t *key = box->key_routes ? record->key : box->routing_key;
    uint32_t key_size = box->key_routes ? record->key_size : box->routing_key_size;
    if (key_size == PF_AMQP_NO_BYTES) key_size = 0;
    pf_amqp_put_frame_header(out, PF_AMQP_METHOD, channel, 9 + (uint64_t)box->exchange_size + key_size);
    pf_amqp_put_be(out, 60u << 16 | 40u, 4);
    pf_amqp_put_be(out, 0, 2);
    pf_amqp_put_be(out, box->exchange_size, 1);
    pf_amqp_put(out, box->exchange, box->exchange_size);
    pf_amqp_put_be(out, key_size, 1);
    pf_amqp_put(out, key, key_size);
    pf_amqp_put_be(out, 1, 1);
    pf_amqp_put_be(out, PF_AMQP_FRAME_END, 1);

    int64_t headers = pf_amqp_put_headers(NULL, record->headers, record->headers_size);
    pf_amqp_put_frame_header(out, PF_AMQP_HEADER, channel, 15 + (headers ? 4 + (uint64_t)headers : 0));
    pf_amqp_put_be(out, 60u << 16, 4);
    pf_amqp_put_be(out, record->payload_size, 8);
    pf_amqp_put_be(out, headers ? 3u << 12 : 1u << 12, 2);
    if (headers) {
        pf_amqp_put_be(out, (uint64_t)headers, 4);
        pf_amqp_put_headers(out, record->headers, record->headers_size);
    }
    pf_amqp_put_be(out, 2, 1);
    pf_amqp_put_be(out, PF_AMQP_FRAME_END, 1);

    uint32_t most = box->frame_max - PF_AMQP_FRAME_AROUND;
    for (uint32_t at = 0; at < record->payload_size;) {
        uint32_t part = record->payload_size - at < most ? record->payload_size - at : most;
        pf_amqp_put_frame_header(out, PF_AMQP_BODY, channel, part);
        pf_amqp_put(out, record->payload + at, part);
        pf_amqp_put_be(out, PF_AMQP_FRAME_END, 1);
        at += part;
    }
}

/* ---- tickets -------------------------------------------------------------------------------------------- */

/* 0, or -1 when there is no memory. */
static inline int pf_amqp_outbox_add(pf_amqp_outbox *box, const uint8_t *records, size_t size, uint32_t count, uint64_t id) {
    uint32_t slot = 0;
    while (slot < box->n_tickets && box->tickets[slot].in_use) slot++;
    if (slot == box->n_tickets) {
        pf_amqp_ticket *tickets = (pf_amqp_ticket *)realloc(box->tickets, (slot + 1) * sizeof *tickets);
        if (tickets == NULL) return -1;
        box->tickets = tickets;
        uint32_t *order = (uint32_t *)realloc(box->order, (slot + 1) * sizeof *order);
        if (order == NULL) return -1;
        box->order = order;
        box->n_tickets++;
        memset(&box->tickets[slot], 0, sizeof box->tickets[slot]);
    }
    pf_amqp_ticket *ticket = &box->tickets[slot];
    free(ticket->failures);
    *ticket = (pf_amqp_ticket){.id = id, .records = records, .size = size, .count = count, .in_use = 1};
    box->order[box->n_order++] = slot;
    return 0;
}

static inline int pf_amqp_fail(pf_amqp_outbox *box, uint32_t slot, uint32_t index, uint32_t why) {
    pf_amqp_ticket *ticket = &box->tickets[slot];
    if (ticket->n_failures == ticket->room) {
        uint32_t room = 2 * ticket->room + 8;
        pf_amqp_failure *grown = (pf_amqp_failure *)realloc(ticket->failures, room * sizeof *grown);
        if (grown == NULL) return 0;
        ticket->failures = grown;
        ticket->room = room;
    }
    ticket->failures[ticket->n_failures++] = (pf_amqp_failure){index, why};
    ticket->settled++;
    return 1;
}

/* ---- publishing ----------------------------------------------------------------------------------------- */

static inline int pf_amqp_may_publish(const pf_amqp_outbox *box) {
    return box->publishing && !box->held && box->sent_tag - box->low_tag < PF_AMQP_UNCONFIRMED && !box->stream.out.failed &&
           pf_amqp_stream_unsent(&box->stream) < PF_AMQP_OUT_BYTES;
}

/* Publish one record, or refuse it; 0 when there is no memory to note that. */
static inline int pf_amqp_publish(pf_amqp_outbox *box, uint32_t slot, uint32_t index, size_t at) {
    pf_amqp_record record = {0};
    const pf_amqp_ticket *ticket = &box->tickets[slot];
    pf_amqp_read_record(ticket->records, ticket->size, at, &record); /* whole: pf_amqp_outbox_check has read it */
    uint32_t why = pf_amqp_unpublishable(box, &record);
    if (why) return pf_amqp_fail(box, slot, index, why);
    pf_amqp_put_publish(box, &record);
    box->ring[++box->sent_tag % PF_AMQP_UNCONFIRMED] = (pf_amqp_sent){slot, index, at, 1};
    return 1;
}

/* Whether a buffer holds exactly so many whole records. */
static inline int pf_amqp_outbox_check(const uint8_t *records, size_t size, uint32_t count) {
    pf_amqp_record record = {0};
    size_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (!pf_amqp_read_record(records, size, at, &record)) return 0;
        at += record.size;
    }
    return at == size;
}

/* Frame as much as may be on its way now. */
static inline void pf_amqp_outbox_fill(pf_amqp_outbox *box) {
    while (box->next_again < box->n_again && pf_amqp_may_publish(box)) {
        const pf_amqp_sent *sent = &box->again[box->next_again];
        if (!pf_amqp_publish(box, sent->ticket, sent->index, sent->at)) return;
        if (++box->next_again == box->n_again) box->next_again = box->n_again = 0;
    }
    while (box->n_order && box->n_again == 0 && pf_amqp_may_publish(box)) {
        uint32_t slot = box->order[0];
        pf_amqp_ticket *ticket = &box->tickets[slot];
        if (ticket->index < ticket->count) {
            pf_amqp_record record = {0};
            pf_amqp_read_record(ticket->records, ticket->size, ticket->at, &record);
            if (!pf_amqp_publish(box, slot, ticket->index, ticket->at)) return;
            ticket->at += record.size;
            ticket->index++;
        }
        if (ticket->index == ticket->count)
            memmove(box->order, box->order + 1, --box->n_order * sizeof *box->order);
    }
}

/* ---- confirmations -------------------------------------------------------------------------------------- */

/* Publish it again.  There is room: whatever is in `again` was taken out of the ring, and only what is in neither is
 * published while `again` holds something. */
static inline void pf_amqp_send_again(pf_amqp_outbox *box, pf_amqp_sent sent) {
    if (box->n_again == PF_AMQP_UNCONFIRMED) {
        memmove(box->again, box->again + box->next_again, (box->n_again - box->next_again) * sizeof *box->again);
        box->n_again -= box->next_again;
        box->next_again = 0;
    }
    box->again[box->n_again++] = sent;
}

static inline void pf_amqp_settle(pf_amqp_outbox *box, uint64_t tag, int refused) {
    pf_amqp_sent *sent = &box->ring[tag % PF_AMQP_UNCONFIRMED];
    if (!sent->waiting) return;
    sent->waiting = 0;
    if (refused) {
        box->refusals++;
        box->held = 1;
        pf_amqp_send_again(box, *sent);
    } else {
        box->confirmed++;
        box->tickets[sent->ticket].settled++;
    }
}

static inline void pf_amqp_outbox_confirm(pf_amqp_outbox *box, uint64_t tag, int multiple, int refused) {
    if (tag > box->sent_tag) return;
    for (uint64_t t = multiple ? box->low_tag + 1 : tag; t > box->low_tag && t <= tag; t++) pf_amqp_settle(box, t, refused);
    while (box->low_tag < box->sent_tag && !box->ring[(box->low_tag + 1) % PF_AMQP_UNCONFIRMED].waiting) box->low_tag++;
}

static inline int pf_amqp_same(const pf_amqp_outbox *box, const pf_amqp_record *record) {
    const pf_amqp_content *content = &box->stream.parser.content;
    uint32_t key_size = record->key_size == PF_AMQP_NO_BYTES ? 0 : record->key_size;
    if (box->key_routes && (key_size != content->key_size || memcmp(record->key, content->key, key_size) != 0)) return 0;
    return record->payload_size == content->body_size &&
           pf_amqp_same_headers(record->headers, record->headers_size, &box->stream.parser.headers) &&
           memcmp(record->payload, content->body, (size_t)content->kept) == 0;
}

/* A message came back: no queue takes it.  Its confirmation, which follows, then finds nothing to settle. */
static inline void pf_amqp_outbox_returned(pf_amqp_outbox *box) {
    for (uint64_t tag = box->low_tag + 1; tag <= box->sent_tag; tag++) {
        pf_amqp_sent *sent = &box->ring[tag % PF_AMQP_UNCONFIRMED];
        pf_amqp_record record = {0};
        if (!sent->waiting) continue;
        const pf_amqp_ticket *ticket = &box->tickets[sent->ticket];
        pf_amqp_read_record(ticket->records, ticket->size, sent->at, &record);
        if (!pf_amqp_same(box, &record)) continue;
        if (pf_amqp_fail(box, sent->ticket, sent->index, PF_AMQP_UNROUTABLE)) sent->waiting = 0;
        return;
    }
}

/* The channel begins, or is gone: what was not confirmed is published again, in its order and before anything else. */
static inline void pf_amqp_outbox_begin(pf_amqp_outbox *box, uint16_t channel) {
    static const pf_amqp_sent nothing;
    pf_amqp_sent *kept = box->again + box->next_again;
    uint32_t n_kept = box->n_again - box->next_again, lost = 0;
    for (uint64_t tag = box->low_tag + 1; tag <= box->sent_tag; tag++)
        if (box->ring[tag % PF_AMQP_UNCONFIRMED].waiting) lost++;
    /* lost + kept never exceed the ring: records leave `again` only into it. */
    memmove(box->again + lost, kept, n_kept * sizeof *kept);
    uint32_t at = 0;
    for (uint64_t tag = box->low_tag + 1; tag <= box->sent_tag; tag++) {
        pf_amqp_sent *sent = &box->ring[tag % PF_AMQP_UNCONFIRMED];
        if (sent->waiting) box->again[at++] = *sent;
        *sent = nothing;
    }
    box->next_again = 0;
    box->n_again = lost + n_kept;
    box->sent_tag = box->low_tag = 0;
    box->stream.parser.channel = channel;
    box->stream.parser.stage = PF_AMQP_IDLE;
    box->publishing = channel != 0;
    box->held = 0;
}

/* Take in what has come; returns what pf_amqp_stream_next found last: MORE, OTHER or BROKEN. */
static inline int pf_amqp_outbox_take(pf_amqp_outbox *box) {
    for (;;) {
        const pf_amqp_content *content = &box->stream.parser.content;
        int outcome = pf_amqp_stream_next(&box->stream);
        if (outcome == PF_AMQP_CONFIRMED) pf_amqp_outbox_confirm(box, content->tag, content->multiple, content->refused);
        else if (outcome == PF_AMQP_RETURNED) pf_amqp_outbox_returned(box);
        else if (outcome != PF_AMQP_TAKEN && outcome != PF_AMQP_DELIVERED) return outcome;
    }
}

#endif
