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
    case 87:   /* INVALID_RECORD */
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

static void send_again_later(pf_kafka_outbox *self, uint32_t number, uint64_t at)
{
    if (self->n_retries == self->retries_room &&
        pf_grow((void **)&self->retries, &self->retries_room, sizeof *self->retries) < 0)
        abort();
    if (self->n_retries == 0)
        self->retry_at_ns = now_ns() + RETRY_NS;
    self->retries[self->n_retries++] = (pf_outbox_retry){.ticket = number, .at = at};
}

/* `err` says what became of a record that counts as outstanding. */
static void report(pf_kafka_outbox *self, uint32_t number, uint64_t at, int err)
{
    pf_outbox_ticket *ticket = &self->tickets.all[number];
    if (err != RD_KAFKA_ERR_NONE && !is_permanent(err)) {
        if (self->transactional && err != RD_KAFKA_ERR_QUEUE_FULL) {
            lose_transaction(self, number, err);
            return;
        }
        self->passing_error = err;
        send_again_later(self, number, at);
        return;
    }
    if (err == RD_KAFKA_ERR_NONE) {
        self->delivered++;
        self->passing_error = 0;
    } else {
        pf_ticket_fail(ticket, at, err);
    }
    ticket->outstanding--;
    pf_tickets_close_if_reported(&self->tickets, number);
}

static void send_again_in_groups(pf_kafka_outbox *self, uint32_t number, uint64_t at)
{
    pf_outbox_groups *groups = &self->groups;
    if (groups->count == groups->room &&
        pf_grow((void **)&groups->records, &groups->room, sizeof *groups->records) < 0)
        abort();
    groups->records[groups->count++] = (pf_outbox_retry){.ticket = number, .at = at};
    groups->refused = groups->size > 0;
    self->regrouped++;
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
    self->in_flight--;
    if (self->places.by_name && message->err == RD_KAFKA_ERR_NONE)
        note_offset(self, number, at, message->offset);
    if (self->transactional && message->err != RD_KAFKA_ERR_NONE)
        lose_transaction(self, number, message->err);
    else if (is_too_large(message->err) && self->groups.size != 1)
        send_again_in_groups(self, number, at);
    else
        report(self, number, at, message->err);
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

/* The topic that a record names, where records choose it; else that of its ticket. NULL: librdkafka knows no such name. */
static rd_kafka_topic_t *topic_of(pf_kafka_outbox *self, const pf_framed_record *one, uint32_t number)
{
    if (!self->places.by_name || one->topic_size == 0)
        return self->tickets.all[number].topic;
    const pf_kafka_topic_place *place =
        pf_places_topic(&self->places, self->api, self->client, one->topic, one->topic_size);
    return place == NULL ? NULL : place->topic;
}

static void hand_over_burst(pf_kafka_outbox *self, uint32_t number, int count)
{
    self->api->produce_batch(self->tickets.all[number].topic, RD_KAFKA_PARTITION_ANY, 0, self->burst, count);
    for (int i = 0; i < count; i++) {
        const rd_kafka_message_t *message = &self->burst[i];
        if (message->err == RD_KAFKA_ERR_NONE)
            self->in_flight++;
        else
            report(self, number, pf_token_at(message->opaque), message->err);
    }
}

/* One record that goes alone, or that is sent again: it counts as outstanding already. */
static void hand_over_one(pf_kafka_outbox *self, uint32_t number, uint64_t at)
{
    pf_framed_record one = pf_ticket_record(&self->tickets.all[number], at);
    rd_kafka_message_t message = message_of(&one, number, at);
    if (!pf_kafka_goes_alone(&one)) {
        self->burst[0] = message;
        hand_over_burst(self, number, 1);
        return;
    }
    int err = pf_kafka_produce_alone(self->api, self->client, &one, &message, topic_of(self, &one, number));
    if (err == RD_KAFKA_ERR_NONE)
        self->in_flight++;
    else
        report(self, number, at, err);
}

/* The next record of a ticket that keeps the order in which records were published: while librdkafka has no room, it and
 * all that follow wait where they are, instead of being sent again later.  0: it waits. */
static int hand_over_in_order(pf_kafka_outbox *self, uint32_t number, const pf_framed_record *one)
{
    pf_outbox_ticket *ticket = &self->tickets.all[number];
    uint64_t at = ticket->at;
    rd_kafka_message_t message = message_of(one, number, at);
    int err = pf_kafka_produce_alone(self->api, self->client, one, &message, topic_of(self, one, number));
    if (err == RD_KAFKA_ERR_QUEUE_FULL)
        return 0;
    ticket->outstanding++;
    ticket->at = one->next;
    if (err == RD_KAFKA_ERR_NONE)
        self->in_flight++;
    else
        report(self, number, at, err);
    return 1;
}

/* Hand over records of a ticket while there is room; a run of records without headers goes as one burst.
 * A record counts as outstanding before it is handed over: what is refused at once must not close the ticket. */
static void hand_over_ticket(pf_kafka_outbox *self, uint32_t number)
{
    pf_outbox_ticket *ticket = &self->tickets.all[number];
    while (ticket->at < ticket->size && self->in_flight < self->limit) {
        uint64_t at = ticket->at;
        pf_framed_record one = pf_ticket_record(ticket, at);
        if (self->places.by_name) {
            if (self->n_retries > 0 || !hand_over_in_order(self, number, &one))
                return;
            ticket = &self->tickets.all[number];
            continue;
        }
        if (pf_kafka_goes_alone(&one)) {
            ticket->outstanding++;
            ticket->at = one.next;
            hand_over_one(self, number, at);
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
        } while (!pf_kafka_goes_alone(&one) && count < PF_OUTBOX_BURST && count < room);
        ticket->outstanding += count;
        hand_over_burst(self, number, (int)count);
    }
}

static void hand_over_retries(pf_kafka_outbox *self)
{
    if (self->n_retries == 0 || now_ns() < self->retry_at_ns)
        return;
    uint32_t count = self->n_retries, done = 0;
    pf_outbox_retry *retries = self->retries;
    self->retries = NULL; /* what fails again goes to a new list */
    self->n_retries = self->retries_room = 0;
    for (; done < count && self->in_flight < self->limit; done++) {
        if (self->places.by_name && self->n_retries > 0)
            break; /* the one before failed again, and this one would pass it */
        hand_over_one(self, retries[done].ticket, retries[done].at);
    }
    for (; done < count; done++)
        send_again_later(self, retries[done].ticket, retries[done].at);
    free(retries);
}

/* About what a record takes in a batch, beside its bytes. */
enum { RECORD_OVERHEAD = 70 };

/* Hand over the next group of records that came back, once what was handed over before is reported: so a group is no
 * larger than it was made, and a single record is alone in its batch.  Whether others must wait. */
static int hand_over_group(pf_kafka_outbox *self)
{
    pf_outbox_groups *groups = &self->groups;
    if (groups->count == 0 && groups->size == 0)
        return 0;
    if (self->in_flight > 0)
        return 1;
    if (groups->refused)
        groups->bytes /= 2;
    groups->size = 0;
    groups->refused = 0;
    if (groups->next == groups->count) {
        groups->next = groups->count = 0;
        return 0;
    }
    uint32_t first = groups->next;
    for (uint64_t bytes = 0; groups->next < groups->count && groups->size < self->limit; groups->next++) {
        const pf_outbox_retry *again = &groups->records[groups->next];
        pf_framed_record one = pf_ticket_record(&self->tickets.all[again->ticket], again->at);
        bytes += pf_bytes_of(one.payload_size) + pf_bytes_of(one.key_size) + one.headers_size + RECORD_OVERHEAD;
        if (groups->size > 0 && bytes > groups->bytes)
            break;
        groups->size++;
    }
    for (uint32_t i = first; i < groups->next; i++)
        hand_over_one(self, groups->records[i].ticket, groups->records[i].at);
    return 1;
}

static void hand_over(pf_kafka_outbox *self)
{
    if (hand_over_group(self))
        return;
    hand_over_retries(self);
    if (self->places.by_name && self->n_retries > 0)
        return; /* what follows them would pass them */
    while (self->tickets.waiting_first != PF_OUTBOX_NONE && self->in_flight < self->limit) {
        uint32_t number = self->tickets.waiting_first, next = self->tickets.all[number].next;
        hand_over_ticket(self, number);
        if (self->tickets.all[number].at < self->tickets.all[number].size)
            return;
        self->tickets.waiting_first = next;
    }
}

void pf_kafka_outbox_poll(pf_kafka_outbox *self, int timeout_ms)
{
    hand_over(self);
    if (self->tickets.done_first != PF_OUTBOX_NONE)
        timeout_ms = 0;
    if (self->n_retries > 0) {
        int64_t left_ms = (self->retry_at_ns - now_ns()) / 1000000 + 1;
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
    for (uint32_t i = 0; i < self->n_retries; i++) {
        uint32_t number = self->retries[i].ticket;
        self->tickets.all[number].outstanding--;
        pf_tickets_close_if_reported(&self->tickets, number);
    }
    self->n_retries = 0;
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

void pf_kafka_outbox_release(pf_kafka_outbox *self)
{
    for (uint32_t i = 0; i < PF_OUTBOX_TOPICS; i++) {
        if (self->topics[i] != NULL)
            self->api->topic_destroy(self->topics[i]);
        self->topics[i] = NULL;
    }
    pf_places_free(&self->places, self->api);
    if (self->client != NULL)
        self->api->destroy(self->client);
    self->client = NULL;
    pf_tickets_free(&self->tickets);
    free(self->retries);
    free(self->groups.records);
    self->retries = NULL;
    self->groups.records = NULL;
    self->groups.next = self->groups.count = 0;
    self->n_retries = 0;
    pf_kafka_notes_destroy(&self->notes);
}
