#include "kafka_share.h"

#include <string.h>

/* ---- one message ------------------------------------------------------------------------------------------ */

enum { TAKEN, KNOWN, DONE_BEFORE, ANOTHER };

/* Note that a row is in hand, before it is appended, since it may be done at once. */
static int take_in_hand(pf_share_source *self, int32_t number, const pf_incoming *m)
{
    pf_share_row made = {m->offset, m->timestamp_ms, 0, m->partition, (uint32_t)m->size, number, 1};
    int outcome = TAKEN;
    pthread_mutex_lock(&self->mutex);
    pf_share_row *row = pf_share_find(&self->rows, m->partition, m->offset);
    if (row == NULL) {
        if (pf_share_add(&self->rows, &made) < 0)
            abort(); /* as without memory for a note */
    } else if (row->timestamp_ms != made.timestamp_ms || row->size != made.size) {
        outcome = ANOTHER;
    } else {
        outcome = row->done_ns == 0 ? KNOWN : DONE_BEFORE;
        if (row->hand != PF_SHARE_NO_HAND && row->done_ns == 0) { /* its old lock is void */
            pf_share_push(&self->acks, m->offset, m->partition, row->hand, RD_KAFKA_SHARE_RELEASE);
            atomic_fetch_add(&self->expired, 1);
        }
        if (row->done_ns != 0) {
            self->unconfirmed += row->hand == PF_SHARE_NO_HAND;
            pf_share_push(&self->acks, m->offset, m->partition, number, RD_KAFKA_SHARE_ACCEPT);
        }
        row->hand = number;
    }
    pthread_mutex_unlock(&self->mutex);
    return outcome;
}

static void take_back(pf_share_source *self, const pf_incoming *m)
{
    pthread_mutex_lock(&self->mutex);
    pf_share_remove(&self->rows, pf_share_find(&self->rows, m->partition, m->offset));
    pthread_mutex_unlock(&self->mutex);
}

/* A row in hand came for the time that `count` says. */
static void note_last(pf_share_source *self, int32_t count)
{
    if (count < self->deliveries)
        return;
    atomic_fetch_add(&self->last, 1);
    self->call = 1;
}

enum { NEEDS_NAME = 64 }; /* besides what append returns */

static int offer(pf_share_source *self, int32_t number, pf_sink *sink, const rd_kafka_message_t *message)
{
    pf_kafka_partition *place = pf_kafka_place_of(&self->partitions, self->api, message);
    if (place == NULL || place->index < 0)
        return NEEDS_NAME;
    int kind;
    int32_t count = self->share->message_delivery_count(message);
    pf_incoming incoming = {
        .payload = message->payload,
        .size = message->len,
        .key = message->key,
        .key_size = message->key == NULL ? -1 : (int32_t)message->key_len,
        .partition = (uint32_t)place->index,
        .offset = message->offset,
        .next_offset = message->offset + 1,
        .timestamp_ms = self->api->message_timestamp(message, &kind),
        .deliveries = count > 1 ? (uint32_t)count - 1 : 0,
    };
    rd_kafka_headers_t *headers;
    if (message->err != RD_KAFKA_ERR_NONE) { /* what stands there instead is a text */
        incoming.payload = NULL;
        incoming.key = NULL;
        incoming.size = 0;
        incoming.key_size = -1;
        incoming.cut = PF_BAD_BATCH;
    } else if (self->api->message_headers(message, &headers) == RD_KAFKA_ERR_NONE) {
        ssize_t size = pf_encode_headers(&self->headers, self->api, headers);
        if (size < 0) {
            self->failed = 1;
            return PF_STALLED;
        }
        incoming.headers_size = (uint32_t)size;
        incoming.headers = self->headers.bytes;
    }
    switch (take_in_hand(self, number, &incoming)) {
    case KNOWN:
        note_last(self, count);
        /* fallthrough */
    case DONE_BEFORE:
        atomic_fetch_add(&self->known, 1);
        self->call = 1;
        return PF_APPENDED;
    case ANOTHER:
        place->index = -1;
        return NEEDS_NAME;
    }
    int outcome = sink->append(sink, &incoming);
    if (outcome == PF_APPENDED) {
        atomic_fetch_add_explicit(&self->appended, 1, memory_order_relaxed);
        note_last(self, count);
    } else {
        take_back(self, &incoming);
    }
    return outcome;
}

/* ---- poll ------------------------------------------------------------------------------------------------- */

/* Ask for more, or take what has come of it; how many messages. */
static size_t take(pf_share_source *self, pf_share_hand *hand)
{
    rd_kafka_messages_t *messages = NULL;
    rd_kafka_error_t *error = self->share->share_poll(hand->consumer, 0, &messages);
    hand->unsent = 0; /* it takes along what was acknowledged */
    hand->served_ns = pf_share_now_ns();
    if (error != NULL)
        pf_share_note_error(self, error);
    if (messages == NULL)
        return 0;
    hand->count = self->share->messages_count(messages);
    hand->next = 0;
    if (hand->count == 0) {
        self->share->messages_destroy(messages);
        return 0;
    }
    hand->messages = messages;
    hand->open = (uint32_t)hand->count;
    hand->taken_ns = self->came_ns = pf_share_now_ns();
    pf_kafka_places_forget_handles(&self->partitions); /* an old one's address may be another one's now */
    return hand->count;
}

/* Offer what the hands have brought; PF_APPENDED: nothing is left of it, or enough was appended. */
static int append_taken(pf_share_source *self, pf_sink *sink, uint32_t max_messages, uint32_t *appended)
{
    for (uint32_t i = 0; i < self->n_hands; i++) {
        uint32_t number = (self->turn + i) % self->n_hands;
        pf_share_hand *hand = &self->hands[number];
        for (; hand->next < hand->count; hand->next++, ++*appended) {
            if (*appended == max_messages)
                return PF_APPENDED;
            const rd_kafka_message_t *message = self->share->messages_get(hand->messages, hand->next);
            int outcome = offer(self, (int32_t)number, sink, message);
            if (outcome != PF_APPENDED)
                return outcome;
        }
        if (hand->messages != NULL)
            self->share->messages_destroy(hand->messages);
        hand->messages = NULL;
    }
    return PF_APPENDED;
}

static uint32_t take_all(pf_share_source *self)
{
    uint32_t came = 0;
    for (uint32_t i = 0; i < self->n_hands; i++) {
        pf_share_hand *hand = &self->hands[i];
        if (hand->open == 0 && hand->messages == NULL && take(self, hand) > 0 && came++ == 0)
            self->turn = i;
    }
    return came;
}

/* Callbacks come with the calls of a share consumer, of which there are none before it has a subscription. */
static void serve_unsubscribed(pf_share_source *self)
{
    for (uint32_t i = 0; i < self->n_hands; i++)
        self->api->poll(self->hands[i].client, 0);
}

static int call_is_due(pf_share_source *self)
{
    return self->call || pf_kafka_notes_waiting(&self->notes) ||
           (self->call_at_ns != 0 && pf_share_now_ns() >= self->call_at_ns);
}

/* Wait for a message, for wake(), for when serve() must run, or acknowledgements be sent. */
static void wait(pf_share_source *self, int64_t until)
{
    int64_t now = pf_share_now_ns();
    if (self->call_at_ns != 0 && self->call_at_ns < until)
        until = self->call_at_ns;
    for (uint32_t i = 0; i < self->n_hands; i++)
        if (self->hands[i].unsent > 0 && self->hands[i].unsent_since_ns + PF_SHARE_SEND_AFTER_NS < until)
            until = self->hands[i].unsent_since_ns + PF_SHARE_SEND_AFTER_NS;
    if (until > now)
        pf_wake_wait(&self->pipe, -1, (until - now + 999) / 1000);
}

static int poll_group(pf_source *base, pf_sink *sink, uint32_t max_messages, int64_t timeout_us)
{
    pf_share_source *self = (pf_share_source *)base;
    int64_t deadline = pf_share_now_ns() + timeout_us * 1000;
    if (self->failed)
        return PF_SOURCE_FAILED;
    if (self->ended)
        return PF_SOURCE_END;
    for (;;) {
        uint32_t appended = 0;
        pf_share_look_after(self);
        if (!self->subscribed)
            serve_unsubscribed(self);
        if (call_is_due(self))
            return PF_SOURCE_CALL;
        int outcome = append_taken(self, sink, max_messages, &appended);
        if (outcome == NEEDS_NAME)
            self->call = 1;
        if (self->failed)
            return PF_SOURCE_FAILED;
        if (outcome == NEEDS_NAME)
            return PF_SOURCE_CALL;
        if (outcome != PF_APPENDED)
            return appended > 0 ? PF_SOURCE_MORE : PF_SOURCE_STALLED;
        if (appended > 0)
            return PF_SOURCE_MORE;
        pf_wake_wait(&self->pipe, -1, 0); /* what comes after the look writes to the pipe again */
        if (self->subscribed && !self->leaving && take_all(self) > 0)
            continue;
        if (call_is_due(self))
            return PF_SOURCE_CALL;
        if (atomic_exchange_explicit(&self->woken, 0, memory_order_acquire) || pf_share_now_ns() >= deadline)
            return PF_SOURCE_IDLE;
        wait(self, deadline);
    }
}

static void wake(pf_source *base)
{
    pf_share_source *self = (pf_share_source *)base;
    atomic_store_explicit(&self->woken, 1, memory_order_release);
    pf_wake_signal(&self->pipe);
}

int pf_share_source_turn(pf_share_source *self, int64_t timeout_us)
{
    self->leaving = 1;
    pf_share_look_after(self);
    for (uint32_t i = 0; i < self->n_hands; i++)
        if (self->hands[i].unsent > 0)
            pf_share_send(self, &self->hands[i]);
    if (timeout_us > 0 && !call_is_due(self))
        pf_wake_wait(&self->pipe, -1, timeout_us);
    return call_is_due(self);
}

int pf_share_source_init(pf_share_source *self, const pf_rdkafka *api, const pf_rdkafka_share *share)
{
    memset(self, 0, sizeof *self);
    self->base.poll = poll_group;
    self->base.wake = wake;
    self->api = api;
    self->share = share;
    self->pipe.read_fd = self->pipe.write_fd = -1;
    self->call = 1;
    self->came_ns = self->swept_ns = pf_share_now_ns();
    int error = pthread_mutex_init(&self->mutex, NULL);
    if (error == 0)
        error = pf_kafka_notes_init(&self->notes, api);
    return error ? error : pf_wake_open(&self->pipe);
}
