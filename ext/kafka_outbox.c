#include "kafka_outbox.h"

#include <errno.h>
#include <time.h>

#define RECORD_HEADER 12
#define NO_BYTES 0xFFFFFFFFu
#define AT_BITS 40 /* of the opaque: byte offset; the rest is the ticket number */

_Static_assert(sizeof(void *) == 8, "an opaque holds a ticket number and a byte offset");

static const int64_t RETRY_NS = 500 * 1000 * 1000;
/* About half of what librdkafka has a batch be by default. */
static const uint64_t FIRST_GROUP_BYTES = 512 * 1024;

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* ---- framing ---------------------------------------------------------------------------------------- */

typedef struct {
    const uint8_t *key, *headers, *payload;
    uint32_t key_size, headers_size, payload_size; /* NO_BYTES: null */
    uint64_t next;                                 /* where the next record begins */
} record;

static uint32_t load_u32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint64_t size_of(uint32_t framed)
{
    return framed == NO_BYTES ? 0 : framed;
}

/* 0 when no whole record begins at `at`. */
static int find_record(const uint8_t *records, uint64_t size, uint64_t at, record *to)
{
    if (size - at < RECORD_HEADER)
        return 0;
    to->key_size = load_u32(records + at);
    to->headers_size = load_u32(records + at + 4);
    to->payload_size = load_u32(records + at + 8);
    uint64_t key_at = at + RECORD_HEADER;
    uint64_t headers_at = key_at + size_of(to->key_size);
    uint64_t payload_at = headers_at + to->headers_size;
    to->next = payload_at + size_of(to->payload_size);
    if (to->next > size)
        return 0;
    to->key = records + key_at;
    to->headers = records + headers_at;
    to->payload = records + payload_at;
    return 1;
}

/* A record of a ticket: its framing was checked when the ticket was added, and nobody writes there since. */
static record record_of(const pf_outbox_ticket *ticket, uint64_t at)
{
    record one;
    if (!find_record(ticket->records, ticket->size, at, &one))
        abort();
    return one;
}

uint32_t pf_kafka_outbox_index(const pf_outbox_ticket *ticket, uint64_t at)
{
    uint32_t index = 0;
    for (uint64_t here = 0; here < at; here = record_of(ticket, here).next)
        index++;
    return index;
}

/* librdkafka's headers from our encoding; NULL where the encoding ends inside a header. */
static rd_kafka_headers_t *make_headers(const pf_rdkafka *api, const uint8_t *at, uint32_t size)
{
    rd_kafka_headers_t *headers = api->headers_new(4);
    const uint8_t *end = at + size;
    while (at < end) {
        if (end - at < 2)
            break;
        uint32_t name_size = (uint32_t)at[0] | (uint32_t)at[1] << 8;
        const uint8_t *name = at + 2;
        if ((uint64_t)(end - name) < (uint64_t)name_size + 4)
            break;
        uint32_t value_size = load_u32(name + name_size);
        const uint8_t *value = name + name_size + 4;
        if ((uint64_t)(end - value) < size_of(value_size))
            break;
        api->header_add(headers, (const char *)name, (ssize_t)name_size, value_size == NO_BYTES ? NULL : value,
                        value_size == NO_BYTES ? 0 : (ssize_t)value_size);
        at = value + size_of(value_size);
    }
    if (at == end)
        return headers;
    api->headers_destroy(headers);
    return NULL;
}

/* ---- lists of tickets --------------------------------------------------------------------------------- */

static void append_ticket(pf_kafka_outbox *self, uint32_t *first, uint32_t *last, uint32_t number)
{
    self->tickets[number].next = PF_OUTBOX_NONE;
    if (*first == PF_OUTBOX_NONE)
        *first = number;
    else
        self->tickets[*last].next = number;
    *last = number;
}

static void close_if_reported(pf_kafka_outbox *self, uint32_t number)
{
    pf_outbox_ticket *ticket = &self->tickets[number];
    if (ticket->at == ticket->size && ticket->outstanding == 0)
        append_ticket(self, &self->done_first, &self->done_last, number);
}

static int grow(void **array, uint32_t *room, size_t element)
{
    uint32_t wider = *room == 0 ? 16 : 2 * *room;
    void *grown = realloc(*array, wider * element);
    if (grown == NULL)
        return -1;
    *array = grown;
    *room = wider;
    return 0;
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
    self->tickets[number].outstanding--;
    close_if_reported(self, number);
}

static void note_failure(pf_outbox_ticket *ticket, uint64_t at, int err)
{
    if (ticket->n_failures == ticket->room &&
        grow((void **)&ticket->failures, &ticket->room, sizeof *ticket->failures) < 0)
        abort(); /* to forget it would report a record as durable that is not */
    ticket->failures[ticket->n_failures++] = (pf_outbox_failure){.at = at, .err = err};
}

static void send_again_later(pf_kafka_outbox *self, uint32_t number, uint64_t at)
{
    if (self->n_retries == self->retries_room &&
        grow((void **)&self->retries, &self->retries_room, sizeof *self->retries) < 0)
        abort();
    if (self->n_retries == 0)
        self->retry_at_ns = now_ns() + RETRY_NS;
    self->retries[self->n_retries++] = (pf_outbox_retry){.ticket = number, .at = at};
}

/* `err` says what became of a record that counts as outstanding. */
static void report(pf_kafka_outbox *self, uint32_t number, uint64_t at, int err)
{
    pf_outbox_ticket *ticket = &self->tickets[number];
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
        note_failure(ticket, at, err);
    }
    ticket->outstanding--;
    close_if_reported(self, number);
}

static void send_again_in_groups(pf_kafka_outbox *self, uint32_t number, uint64_t at)
{
    pf_outbox_groups *groups = &self->groups;
    if (groups->count == groups->room &&
        grow((void **)&groups->records, &groups->room, sizeof *groups->records) < 0)
        abort();
    groups->records[groups->count++] = (pf_outbox_retry){.ticket = number, .at = at};
    groups->refused = groups->size > 0;
    self->regrouped++;
}

/* ---- librdkafka's callbacks ------------------------------------------------------------------------------ */

static void on_delivery(rd_kafka_t *client, const rd_kafka_message_t *message, void *opaque)
{
    pf_kafka_outbox *self = opaque;
    uint64_t token = (uint64_t)(uintptr_t)message->opaque;
    uint32_t number = (uint32_t)(token >> AT_BITS);
    uint64_t at = token & ((1ull << AT_BITS) - 1);
    self->in_flight--;
    if (self->transactional && message->err != RD_KAFKA_ERR_NONE)
        lose_transaction(self, number, message->err);
    else if (is_too_large(message->err) && self->groups.size != 1)
        send_again_in_groups(self, number, at);
    else
        report(self, number, at, message->err);
}

static void on_error(rd_kafka_t *client, int err, const char *reason, void *opaque)
{
    pf_kafka_outbox *self = opaque;
    pf_kafka_notes_add(&self->notes, self->api, PF_NOTE_ERROR, err, reason, strlen(reason), NULL);
}

/* librdkafka hands a log callback no opaque, only the client; the client's opaque is the outbox. */
static const pf_rdkafka *log_api;

static void on_log(const rd_kafka_t *client, int level, const char *facility, const char *text)
{
    pf_kafka_outbox *self = log_api->opaque(client);
    if (self != NULL && strcmp(facility, "FAIL") != 0) /* on_error tells those */
        pf_kafka_notes_add(&self->notes, self->api, PF_NOTE_LOG, level, text, strlen(text), NULL);
}

static int on_statistics(rd_kafka_t *client, char *json, size_t json_size, void *opaque)
{
    pf_kafka_outbox *self = opaque;
    pf_kafka_notes_add(&self->notes, self->api, PF_NOTE_STATISTICS, 0, json, json_size, NULL);
    return 0; /* librdkafka frees the text */
}

/* ---- handing over ------------------------------------------------------------------------------------------ */

static void *token_of(uint32_t number, uint64_t at)
{
    return (void *)(uintptr_t)((uint64_t)number << AT_BITS | at);
}

/* An empty payload or key is not a null one: librdkafka tells them apart by the pointer. */
static rd_kafka_message_t message_of(const record *one, uint32_t number, uint64_t at)
{
    return (rd_kafka_message_t){
        .payload = one->payload_size == NO_BYTES ? NULL : (void *)(uintptr_t)one->payload,
        .len = (size_t)size_of(one->payload_size),
        .key = one->key_size == NO_BYTES ? NULL : (void *)(uintptr_t)one->key,
        .key_len = (size_t)size_of(one->key_size),
        .opaque = token_of(number, at),
    };
}

/* The error, or 0. produce_batch is quicker, but knows no headers. */
static int hand_over_with_headers(pf_kafka_outbox *self, const record *one, rd_kafka_message_t *message,
                                  rd_kafka_topic_t *topic)
{
    rd_kafka_headers_t *headers = make_headers(self->api, one->headers, one->headers_size);
    if (headers == NULL)
        return -199;
    rd_kafka_vu_t arguments[6] = {
        {.vtype = RD_KAFKA_VTYPE_RKT, .u.rkt = topic},
        {.vtype = RD_KAFKA_VTYPE_VALUE, .u.mem = {message->payload, message->len}},
        {.vtype = RD_KAFKA_VTYPE_KEY, .u.mem = {message->key, message->key_len}},
        {.vtype = RD_KAFKA_VTYPE_OPAQUE, .u.ptr = message->opaque},
        {.vtype = RD_KAFKA_VTYPE_MSGFLAGS, .u.i = 0},
        {.vtype = RD_KAFKA_VTYPE_HEADERS, .u.headers = headers},
    };
    rd_kafka_error_t *error = self->api->produceva(self->client, arguments, 6);
    if (error == NULL)
        return RD_KAFKA_ERR_NONE;
    int code = self->api->error_code(error);
    self->api->error_destroy(error);
    self->api->headers_destroy(headers);
    return code;
}

static void hand_over_burst(pf_kafka_outbox *self, uint32_t number, int count)
{
    self->api->produce_batch(self->tickets[number].topic, RD_KAFKA_PARTITION_ANY, 0, self->burst, count);
    for (int i = 0; i < count; i++) {
        const rd_kafka_message_t *message = &self->burst[i];
        if (message->err == RD_KAFKA_ERR_NONE)
            self->in_flight++;
        else
            report(self, number, (uint64_t)(uintptr_t)message->opaque & ((1ull << AT_BITS) - 1), message->err);
    }
}

/* One record that has headers, or that is sent again: it counts as outstanding already. */
static void hand_over_one(pf_kafka_outbox *self, uint32_t number, uint64_t at)
{
    record one = record_of(&self->tickets[number], at);
    rd_kafka_message_t message = message_of(&one, number, at);
    if (one.headers_size == 0) {
        self->burst[0] = message;
        hand_over_burst(self, number, 1);
        return;
    }
    int err = hand_over_with_headers(self, &one, &message, self->tickets[number].topic);
    if (err == RD_KAFKA_ERR_NONE)
        self->in_flight++;
    else
        report(self, number, at, err);
}

/* Hand over records of a ticket while there is room; a run of records without headers goes as one burst.
 * A record counts as outstanding before it is handed over: what is refused at once must not close the ticket. */
static void hand_over_ticket(pf_kafka_outbox *self, uint32_t number)
{
    pf_outbox_ticket *ticket = &self->tickets[number];
    while (ticket->at < ticket->size && self->in_flight < self->limit) {
        uint64_t at = ticket->at;
        record one = record_of(ticket, at);
        if (one.headers_size != 0) {
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
            one = record_of(ticket, ticket->at);
        } while (one.headers_size == 0 && count < PF_OUTBOX_BURST && count < room);
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
    for (; done < count && self->in_flight < self->limit; done++)
        hand_over_one(self, retries[done].ticket, retries[done].at);
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
        record one = record_of(&self->tickets[again->ticket], again->at);
        bytes += size_of(one.payload_size) + size_of(one.key_size) + one.headers_size + RECORD_OVERHEAD;
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
    while (self->waiting_first != PF_OUTBOX_NONE && self->in_flight < self->limit) {
        uint32_t number = self->waiting_first, next = self->tickets[number].next;
        hand_over_ticket(self, number);
        if (self->tickets[number].at < self->tickets[number].size)
            return;
        self->waiting_first = next;
    }
}

void pf_kafka_outbox_poll(pf_kafka_outbox *self, int timeout_ms)
{
    hand_over(self);
    if (self->done_first != PF_OUTBOX_NONE)
        timeout_ms = 0;
    if (self->n_retries > 0) {
        int64_t left_ms = (self->retry_at_ns - now_ns()) / 1000000 + 1;
        if (left_ms < timeout_ms)
            timeout_ms = left_ms < 0 ? 0 : (int)left_ms;
    }
    if (self->api->poll(self->client, timeout_ms) > 0)
        hand_over(self);
}

/* ---- tickets -------------------------------------------------------------------------------------------------- */

static uint32_t new_ticket(pf_kafka_outbox *self)
{
    if (self->free_first != PF_OUTBOX_NONE) {
        uint32_t number = self->free_first;
        self->free_first = self->tickets[number].next;
        return number;
    }
    if (self->n_tickets == 1u << (64 - AT_BITS - 1))
        return PF_OUTBOX_NONE;
    pf_outbox_ticket *grown = realloc(self->tickets, (self->n_tickets + 1) * sizeof *grown);
    if (grown == NULL)
        return PF_OUTBOX_NONE;
    self->tickets = grown;
    memset(&grown[self->n_tickets], 0, sizeof *grown);
    return self->n_tickets++;
}

int pf_kafka_outbox_add(pf_kafka_outbox *self, const uint8_t *records, uint64_t size, uint32_t count, uint64_t id,
                        uint32_t topic)
{
    if (size >= 1ull << AT_BITS)
        return EINVAL;
    uint64_t at = 0;
    uint32_t seen = 0;
    for (record one; at < size; at = one.next, seen++)
        if (!find_record(records, size, at, &one))
            return EINVAL;
    if (seen != count)
        return EINVAL;
    uint32_t number = new_ticket(self);
    if (number == PF_OUTBOX_NONE)
        return ENOMEM;
    pf_outbox_ticket *ticket = &self->tickets[number];
    ticket->records = records;
    ticket->size = size;
    ticket->id = id;
    ticket->topic = self->topics[topic];
    ticket->at = 0;
    ticket->outstanding = ticket->n_failures = 0;
    if (size == 0)
        close_if_reported(self, number);
    else
        append_ticket(self, &self->waiting_first, &self->waiting_last, number);
    return 0;
}

void pf_kafka_outbox_abandon(pf_kafka_outbox *self)
{
    while (self->waiting_first != PF_OUTBOX_NONE) {
        uint32_t number = self->waiting_first;
        self->waiting_first = self->tickets[number].next;
        self->tickets[number].at = self->tickets[number].size;
        close_if_reported(self, number);
    }
    for (uint32_t i = 0; i < self->n_retries; i++) {
        uint32_t number = self->retries[i].ticket;
        self->tickets[number].outstanding--;
        close_if_reported(self, number);
    }
    self->n_retries = 0;
}

static int by_offset(const void *left, const void *right)
{
    uint64_t a = ((const pf_outbox_failure *)left)->at, b = ((const pf_outbox_failure *)right)->at;
    return a < b ? -1 : a > b;
}

pf_outbox_ticket *pf_kafka_outbox_done(pf_kafka_outbox *self)
{
    if (self->done_first == PF_OUTBOX_NONE)
        return NULL;
    pf_outbox_ticket *ticket = &self->tickets[self->done_first];
    if (ticket->n_failures > 1)
        qsort(ticket->failures, ticket->n_failures, sizeof *ticket->failures, by_offset);
    return ticket;
}

void pf_kafka_outbox_forget(pf_kafka_outbox *self)
{
    uint32_t number = self->done_first;
    self->done_first = self->tickets[number].next;
    self->tickets[number].records = NULL;
    self->tickets[number].next = self->free_first;
    self->free_first = number;
}

/* ---- life ------------------------------------------------------------------------------------------------------ */

int pf_kafka_outbox_init(pf_kafka_outbox *self, const pf_rdkafka *api)
{
    memset(self, 0, sizeof *self);
    self->api = log_api = api;
    self->free_first = self->waiting_first = self->done_first = PF_OUTBOX_NONE;
    self->groups.bytes = FIRST_GROUP_BYTES;
    return pthread_mutex_init(&self->notes.lock, NULL);
}

void pf_kafka_outbox_configure(pf_kafka_outbox *self, rd_kafka_conf_t *conf)
{
    self->api->conf_set_opaque(conf, self);
    self->api->conf_set_dr_msg_cb(conf, on_delivery);
    self->api->conf_set_error_cb(conf, on_error);
    self->api->conf_set_log_cb(conf, on_log);
    self->api->conf_set_stats_cb(conf, on_statistics);
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
    if (self->client != NULL)
        self->api->destroy(self->client);
    self->client = NULL;
    for (uint32_t i = 0; i < self->n_tickets; i++)
        free(self->tickets[i].failures);
    free(self->tickets);
    free(self->retries);
    free(self->groups.records);
    self->tickets = NULL;
    self->retries = NULL;
    self->groups.records = NULL;
    self->groups.next = self->groups.count = 0;
    self->n_tickets = self->n_retries = 0;
    pf_kafka_notes_destroy(&self->notes, self->api);
}
