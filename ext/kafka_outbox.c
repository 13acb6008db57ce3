#include "kafka_outbox.h"
#include "kafka_alone.h"

#include <stddef.h>
#include <time.h>

static const int64_t RETRY_NS = 500 * 1000 * 1000;
/* About half of what librdkafka has a batch be by default. */
static const uint64_t FIRST_GROUP_BYTES = 512 * 1024;

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* ---- what became of a record ---------------------------------------------------------------------------- */

/* A batch was too large for the topic; no fault of a record's that was not alone in it. */
static int is_too_large(int err)
{
    return err == RD_KAFKA_ERR_MSG_SIZE_TOO_LARGE || err == RD_KAFKA_ERR_RECORD_LIST_TOO_LARGE;
}

/* Errors of the record itself, which no later attempt can heal. */
static int is_permanent(int err)
{
    switch (err) {
    case 2:    /* INVALID_MSG: corrupt, or without the key that a compacted topic asks for */
    case 4:    /* INVALID_MSG_SIZE */
    case RD_KAFKA_ERR_MSG_SIZE_TOO_LARGE:
    case RD_KAFKA_ERR_RECORD_LIST_TOO_LARGE:
    case 32:   /* INVALID_TIMESTAMP */
    case RD_KAFKA_ERR_INVALID_RECORD:
    case -199: /* _BAD_MSG: our own word for headers that are not in the agreed encoding */
    case -186: /* _INVALID_ARG */
        return 1;
    default:
        return 0;
    }
}

/* The record is no part of a transaction that could be committed. */
static void lose_transaction(pf_kafka_outbox *self, uint32_t number, int err)
{
    int known = self->lost_to != RD_KAFKA_ERR_NONE && (is_permanent(self->lost_to) || !is_permanent(err));
    if (!known) /* a record that is refused is the cause of whatever else failed, though that may be told first */
        self->lost_to = err;
    self->tickets.all[number].outstanding--;
    pf_tickets_close_if_reported(&self->tickets, number);
}

/* A record that counts as outstanding is durable, or will never be: `err`. */
static void settle(pf_kafka_outbox *self, uint32_t number, uint64_t at, int err)
{
    pf_outbox_ticket *ticket = &self->tickets.all[number];
    if (err == RD_KAFKA_ERR_NONE) {
        self->delivered++;
        self->passing_error = 0;
    } else {
        pf_ticket_fail(ticket, at, err);
    }
    ticket->outstanding--;
    pf_tickets_close_if_reported(&self->tickets, number);
}

/* `err` passes: it is tried again later, as are all that follow. */
static void wait_out(pf_kafka_outbox *self, int err)
{
    self->passing_error = err;
    pf_returned_wait(&self->returned, now_ns() + RETRY_NS);
}

/* Which offset a record got that tells the one it had. */
static void note_offset(pf_kafka_outbox *self, uint32_t number, uint64_t at, int64_t target)
{
    pf_framed_record one = pf_ticket_record(&self->tickets.all[number], at);
    if (one.offset < 0 || one.topic_size == 0 || target < 0)
        return;
    const pf_kafka_topic_place *place =
        pf_places_topic(&self->places, self->api, self->client, one.topic, one.topic_size);
    if (place != NULL)
        pf_places_note(&self->places, (uint32_t)(place - self->places.topics), one.partition, one.offset, target);
}

/* ---- librdkafka's callbacks ------------------------------------------------------------------------------ */

static void on_delivery(rd_kafka_t *client, const rd_kafka_message_t *message, void *opaque)
{
    pf_kafka_outbox *self = (pf_kafka_outbox *)((char *)opaque - offsetof(pf_kafka_outbox, notes));
    uint32_t number = pf_token_ticket(message->opaque);
    uint64_t at = pf_token_at(message->opaque);
    int err = message->err;
    self->in_flight--;
    if (err == RD_KAFKA_ERR_NONE) {
        if (self->places.by_name)
            note_offset(self, number, at, message->offset);
        if (self->groups.size > 0) /* it came back before, so it was in a batch with others */
            self->groups.for_good = 1;
        settle(self, number, at, err);
    } else if (self->transactional) {
        lose_transaction(self, number, err);
    } else if (is_too_large(err) && self->groups.size != 1) {
        pf_returned_add(&self->returned, &self->tickets, number, at, 1);
        self->groups.refused = self->groups.size > 0;
        self->regrouped++;
    } else if (is_permanent(err)) {
        settle(self, number, at, err);
    } else {
        pf_returned_add(&self->returned, &self->tickets, number, at, self->groups.size > 0);
        wait_out(self, err);
    }
}

/* ---- handing over ------------------------------------------------------------------------------------------ */

/* An empty payload or key is not a null one: librdkafka tells them apart by the pointer. */
static rd_kafka_message_t message_of(const pf_framed_record *one, uint32_t number, uint64_t at)
{
    return (rd_kafka_message_t){
        .payload = one->payload_size == PF_NO_BYTES ? NULL : (void *)(uintptr_t)one->payload,
        .len = (size_t)pf_bytes_of(one->payload_size),
        .key = one->key_size == PF_NO_BYTES ? NULL : (void *)(uintptr_t)one->key,
        .key_len = (size_t)pf_bytes_of(one->key_size),
        .opaque = pf_ticket_token(number, at),
    };
}

static rd_kafka_topic_t *ticket_topic(const pf_kafka_outbox *self, uint32_t number)
{
    return self->topics[self->tickets.all[number].topic];
}

/* The topic that a record names, where records choose it; else its ticket's. NULL: librdkafka knows no such name. */
static rd_kafka_topic_t *topic_of(pf_kafka_outbox *self, const pf_framed_record *one, uint32_t number)
{
    if (!self->places.by_name || one->topic_size == 0)
        return ticket_topic(self, number);
    const pf_kafka_topic_place *place =
        pf_places_topic(&self->places, self->api, self->client, one->topic, one->topic_size);
    return place == NULL ? NULL : place->topic;
}

/* librdkafka refused a record at once, which counts as outstanding.  Whether it waits, with all that follow it: for
 * room, or until what is wrong has passed. */
static int waits(pf_kafka_outbox *self, uint32_t number, uint64_t at, int err)
{
    if (err == RD_KAFKA_ERR_QUEUE_FULL)
        return 1;
    if (is_permanent(err)) {
        settle(self, number, at, err);
        return 0;
    }
    if (self->transactional) {
        lose_transaction(self, number, err);
        return 0;
    }
    wait_out(self, err);
    return 1;
}

static int lacks_key(const pf_kafka_outbox *self, const pf_framed_record *one)
{
    return self->needs_key && one->key_size == PF_NO_BYTES;
}

static void hand_over_burst(pf_kafka_outbox *self, uint32_t number, int count)
{
    self->api->produce_batch(ticket_topic(self, number), RD_KAFKA_PARTITION_ANY, 0, self->burst, count);
    for (int i = 0; i < count; i++) {
        const rd_kafka_message_t *message = &self->burst[i];
        uint64_t at = pf_token_at(message->opaque);
        if (message->err == RD_KAFKA_ERR_NONE)
            self->in_flight++;
        else if (waits(self, number, at, message->err))
            pf_returned_add(&self->returned, &self->tickets, number, at, 0);
    }
}

/* One record, which counts as outstanding: the error with which librdkafka refuses it at once, or 0. */
static int hand_over_one(pf_kafka_outbox *self, uint32_t number, uint64_t at)
{
    pf_framed_record one = pf_ticket_record(&self->tickets.all[number], at);
    rd_kafka_message_t message = message_of(&one, number, at);
    int err;
    if (pf_kafka_goes_alone(&one)) {
        err = pf_kafka_produce_alone(self->api, self->client, &one, &message, topic_of(self, &one, number));
    } else {
        self->api->produce_batch(ticket_topic(self, number), RD_KAFKA_PARTITION_ANY, 0, &message, 1);
        err = message.err;
    }
    if (err == RD_KAFKA_ERR_NONE)
        self->in_flight++;
    return err;
}

/* Hand over records of a ticket while there is room; a run of records without headers goes as one burst.
 * A record counts as outstanding before it is handed over: what is refused at once must not close the ticket. */
static void hand_over_ticket(pf_kafka_outbox *self, uint32_t number)
{
    pf_outbox_ticket *ticket = &self->tickets.all[number];
    while (ticket->at < ticket->size && self->in_flight < self->limit && self->returned.count == 0) {
        uint64_t at = ticket->at;
        pf_framed_record one = pf_ticket_record(ticket, at);
        if (lacks_key(self, &one)) {
            ticket->outstanding++;
            ticket->at = one.next;
            settle(self, number, at, RD_KAFKA_ERR_INVALID_RECORD);
            continue;
        }
        if (pf_kafka_goes_alone(&one)) {
            ticket->outstanding++;
            ticket->at = one.next;
            int err = hand_over_one(self, number, at);
            if (err != RD_KAFKA_ERR_NONE && waits(self, number, at, err))
                pf_returned_add(&self->returned, &self->tickets, number, at, 0);
            continue;
        }
        uint32_t room = self->limit - self->in_flight;
        uint32_t count = 0;
        do {
            self->burst[count++] = message_of(&one, number, ticket->at);
            ticket->at = one.next;
            if (ticket->at == ticket->size)
                break;
            one = pf_ticket_record(ticket, ticket->at);
        } while (!pf_kafka_goes_alone(&one) && !lacks_key(self, &one) && count < PF_OUTBOX_BURST && count < room);
        ticket->outstanding += count;
        hand_over_burst(self, number, (int)count);
    }
}

/* About what a record takes in a batch, beside its bytes. */
enum { RECORD_OVERHEAD = 70 };

static uint64_t batch_bytes(const pf_framed_record *one)
{
    return pf_bytes_of(one->payload_size) + pf_bytes_of(one->key_size) + one->headers_size + RECORD_OVERHEAD;
}

/* Let records that wait in tickets come as if they had come back, so that they go in a group. */
static void group_from_tickets(pf_kafka_outbox *self)
{
    uint64_t bytes = 0;
    while (self->tickets.waiting_first != PF_OUTBOX_NONE && bytes <= self->groups.bytes) {
        uint32_t number = self->tickets.waiting_first;
        pf_outbox_ticket *ticket = &self->tickets.all[number];
        uint32_t next = ticket->next; /* a ticket that is done with is in another list */
        while (ticket->at < ticket->size && bytes <= self->groups.bytes) {
            uint64_t at = ticket->at;
            pf_framed_record one = pf_ticket_record(ticket, at);
            ticket->outstanding++;
            ticket->at = one.next;
            if (lacks_key(self, &one)) {
                settle(self, number, at, RD_KAFKA_ERR_INVALID_RECORD);
                continue;
            }
            pf_returned_add(&self->returned, &self->tickets, number, at, 1);
            bytes += batch_bytes(&one);
        }
        if (ticket->at == ticket->size)
            self->tickets.waiting_first = next;
    }
}

/* How many of the returned records go now: those before the first of a group, or as many of that as may go at once. */
static uint32_t count_next(pf_kafka_outbox *self)
{
    const pf_kafka_returned *returned = &self->returned;
    uint32_t in_group = returned->records[0].in_group, count = 0;
    uint64_t bytes = 0;
    for (; count < returned->count && returned->records[count].in_group == in_group; count++) {
        const pf_returned_record *again = &returned->records[count];
        pf_framed_record one = pf_ticket_record(&self->tickets.all[again->ticket], again->at);
        bytes += batch_bytes(&one);
        if (in_group && count > 0 && bytes > self->groups.bytes)
            break;
    }
    return count;
}

/* Hand over what came back.  A group waits until all is reported that was handed over before: so it is no larger than
 * it was made, nothing passes it, and a single record is alone in its batch.  Whether others must wait. */
static int hand_over_returned(pf_kafka_outbox *self)
{
    pf_kafka_returned *returned = &self->returned;
    pf_outbox_groups *groups = &self->groups;
    if (groups->size > 0 && self->in_flight > 0)
        return 1;
    if (groups->refused)
        groups->bytes /= 2;
    groups->size = 0;
    groups->refused = 0;
    if (groups->for_good && returned->count == 0) {
        if (self->in_flight > 0)
            return 1;
        group_from_tickets(self);
    }
    if (returned->count == 0) {
        if (!groups->for_good) /* what came back was refused alone, which says nothing of batches */
            groups->bytes = FIRST_GROUP_BYTES;
        return 0;
    }
    if (returned->not_before_ns > 0 && now_ns() < returned->not_before_ns)
        return 1;
    pf_returned_sort(returned);
    int in_group = returned->records[0].in_group != 0;
    if (in_group && self->in_flight > 0)
        return 1;
    returned->not_before_ns = 0;
    uint32_t count = count_next(self), done = 0;
    for (; done < count && self->in_flight < self->limit; done++) {
        pf_returned_record again = returned->records[done];
        int err = hand_over_one(self, again.ticket, again.at);
        if (err == RD_KAFKA_ERR_QUEUE_FULL && self->in_flight == 0) /* the record is larger than the whole queue */
            settle(self, again.ticket, again.at, err);
        else if (err != RD_KAFKA_ERR_NONE && waits(self, again.ticket, again.at, err))
            break;
    }
    if (in_group)
        groups->size = self->in_flight;
    pf_returned_drop(returned, done);
    return in_group || returned->count > 0;
}

static void hand_over(pf_kafka_outbox *self)
{
    if (self->held)
        return;
    do {
        if (hand_over_returned(self))
            continue;
        while (self->tickets.waiting_first != PF_OUTBOX_NONE && self->in_flight < self->limit) {
            uint32_t number = self->tickets.waiting_first, next = self->tickets.all[number].next;
            hand_over_ticket(self, number);
            if (self->tickets.all[number].at < self->tickets.all[number].size)
                break;
            self->tickets.waiting_first = next;
        }
        /* With nothing on its way no report will come that could wake those that wait for room. */
    } while (self->in_flight == 0 && self->returned.count > 0 && self->returned.not_before_ns == 0);
}

void pf_kafka_outbox_poll(pf_kafka_outbox *self, int timeout_ms)
{
    hand_over(self);
    if (self->tickets.done_first != PF_OUTBOX_NONE)
        timeout_ms = 0;
    if (self->returned.count > 0 && self->returned.not_before_ns > 0) {
        int64_t left_ms = (self->returned.not_before_ns - now_ns()) / 1000000 + 1;
        if (left_ms < timeout_ms)
            timeout_ms = left_ms < 0 ? 0 : (int)left_ms;
    }
    if (self->api->poll(self->client, timeout_ms) > 0)
        hand_over(self);
}

void pf_kafka_outbox_abandon(pf_kafka_outbox *self)
{
    while (self->tickets.waiting_first != PF_OUTBOX_NONE) {
        uint32_t number = self->tickets.waiting_first;
        self->tickets.waiting_first = self->tickets.all[number].next;
        self->tickets.all[number].at = self->tickets.all[number].size;
        pf_tickets_close_if_reported(&self->tickets, number);
    }
    for (uint32_t i = 0; i < self->returned.count; i++) {
        uint32_t number = self->returned.records[i].ticket;
        self->tickets.all[number].outstanding--;
        pf_tickets_close_if_reported(&self->tickets, number);
    }
    self->returned.count = 0;
}

/* ---- life ------------------------------------------------------------------------------------------------------ */

int pf_kafka_outbox_init(pf_kafka_outbox *self, const pf_rdkafka *api)
{
    memset(self, 0, sizeof *self);
    self->api = api;
    self->tickets.free_first = self->tickets.waiting_first = self->tickets.done_first = PF_OUTBOX_NONE;
    self->groups.bytes = FIRST_GROUP_BYTES;
    return pf_kafka_notes_init(&self->notes, api);
}

void pf_kafka_outbox_configure(pf_kafka_outbox *self, rd_kafka_conf_t *conf)
{
    pf_kafka_notes_configure(&self->notes, conf);
    self->api->conf_set_dr_msg_cb(conf, on_delivery);
}

void pf_kafka_outbox_attach(pf_kafka_outbox *self, rd_kafka_t *client, uint32_t limit)
{
    self->client = client;
    self->limit = limit;
    self->api->set_log_queue(client, NULL);
}

void pf_kafka_outbox_detach(pf_kafka_outbox *self)
{
    for (uint32_t i = 0; i < PF_OUTBOX_TOPICS; i++) {
        if (self->topics[i] != NULL)
            self->api->topic_destroy(self->topics[i]);
        self->topics[i] = NULL;
    }
    pf_places_free(&self->places, self->api);
    if (self->answers != NULL)
        self->api->queue_destroy(self->answers);
    self->answers = NULL;
    if (self->client != NULL)
        self->api->destroy(self->client);
    self->client = NULL;
}

void pf_kafka_outbox_release(pf_kafka_outbox *self)
{
    pf_kafka_outbox_detach(self);
    pf_tickets_free(&self->tickets);
    free(self->returned.records);
    memset(&self->returned, 0, sizeof self->returned);
    pf_kafka_notes_destroy(&self->notes);
}
