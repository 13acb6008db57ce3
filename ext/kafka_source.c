#include "kafka_source.h"
#include "kafka_farewell.h"
#include "kafka_headers.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define unlikely(x) __builtin_expect(!!(x), 0)

/* How long partitions that wait may keep others from being read, before they are paused for themselves alone.  A pause
 * throws away what librdkafka has fetched, so processes that are merely busy must not cause one; and it must come before
 * the intake loses its patience, which pauses all. */
static const int64_t HELD_BACK_AFTER_NS = 500 * 1000 * 1000;

/* How often librdkafka is polled while the sink is stalled: often enough for rebalances to go on and for
 * max.poll.interval.ms to be met, seldom enough that PF_KAFKA_RESERVE lasts until the partitions pause. */
static const int64_t STALLED_POLL_NS = 100 * 1000 * 1000;

int64_t pf_kafka_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int has_notes(pf_kafka_source *self)
{
    return pf_kafka_notes_waiting(&self->notes);
}

static pf_kafka_partition *place_of(pf_kafka_source *self, const rd_kafka_message_t *message)
{
    return pf_kafka_place_of(&self->partitions, self->api, message);
}

void pf_kafka_source_forget(pf_kafka_source *self)
{
    uint32_t kept = 0;
    for (uint32_t i = self->next; i < self->count; i++) {
        rd_kafka_message_t *message = self->messages[i];
        pf_kafka_partition *place = place_of(self, message);
        int is_ones_own = message->err == RD_KAFKA_ERR_NONE || message->err == RD_KAFKA_ERR_PARTITION_EOF;
        if (is_ones_own && (place == NULL || place->index < 0))
            self->api->message_destroy(message);
        else
            self->messages[kept++] = message;
    }
    self->next = 0;
    self->count = self->loose = kept;
    pf_kafka_places_forget_handles(&self->partitions);
}

/* ---- pausing ------------------------------------------------------------------------------------------ */

static void change_pause(pf_kafka_source *self, int which, uint32_t pause)
{
    pf_kafka_places_pause(&self->partitions, self->api, self->client, which, pause);
}

void pf_kafka_source_pause(pf_kafka_source *self, uint32_t pause)
{
    change_pause(self, PF_PLACES_ALL, pause);
    self->is_paused = pause;
}

/* What is kept of some partitions leaves no room to read the others: let those alone wait.  1: some were paused. */
static int hold_back(pf_kafka_source *self)
{
    int64_t now = pf_kafka_now_ns();
    if (self->full_since_ns == 0)
        self->full_since_ns = now;
    const pf_kafka_partitions *all = &self->partitions;
    int others_starve = all->n_held > all->n_paused && all->n_held < all->n_assigned;
    if (self->is_paused || !others_starve || now - self->full_since_ns < HELD_BACK_AFTER_NS)
        return 0;
    change_pause(self, PF_PLACES_HELD, 1);
    return 1;
}

/* The sink takes nothing: poll librdkafka all the same, so that rebalances go on and the membership lives. */
static void serve_stalled(pf_kafka_source *self)
{
    int64_t now = pf_kafka_now_ns();
    if (now - self->served_ns < STALLED_POLL_NS)
        return;
    self->served_ns = now;
    if (self->count == PF_KAFKA_KEPT + PF_KAFKA_RESERVE) {
        memmove(self->messages, self->messages + self->next, (self->count - self->next) * sizeof *self->messages);
        self->count -= self->next;
        self->next = 0;
    }
    if (self->count >= PF_KAFKA_KEPT + PF_KAFKA_RESERVE / 2 && !self->is_paused)
        pf_kafka_source_pause(self, 1);
    if (self->count < PF_KAFKA_KEPT + PF_KAFKA_RESERVE) {
        ssize_t got = self->api->consume_batch_queue(self->queue, 0, self->messages + self->count, 1);
        if (got > 0)
            self->count += (uint32_t)got;
    }
}

/* ---- one message ---------------------------------------------------------------------------------------- */

/* Something other than a payload: the end of a partition, or an error of one. */
static void take_event(pf_kafka_source *self, const rd_kafka_message_t *message)
{
    if (message->err == RD_KAFKA_ERR_PARTITION_EOF) {
        pf_kafka_partition *place = place_of(self, message);
        if (place == NULL || place->index < 0)
            return;
        place->ended_at = message->offset;
        if (message->offset >= place->end)
            pf_kafka_place_done(&self->partitions, place);
        return;
    }
    const char *text = message->payload != NULL ? message->payload : "";
    size_t size = message->payload != NULL ? message->len : 0;
    pf_kafka_notes_add(&self->notes, PF_NOTE_CONSUMER_ERROR, message->err, text, size, NULL);
}

/* A topic that was deleted and made anew, or a log that was cut, is read from where it begins.  Positions of before mean
 * nothing there: the message waits until its partition has another number. */
static int tell_it_went_back(pf_kafka_source *self, const rd_kafka_message_t *message)
{
    rd_kafka_topic_partition_list_t *partition = self->api->topic_partition_list_new(1);
    self->api->topic_partition_list_add(partition, self->api->topic_name(message->rkt), message->partition);
    pf_kafka_notes_add(&self->notes, PF_NOTE_WENT_BACK, 0, NULL, 0, partition);
    self->api->topic_partition_list_destroy(partition);
    return PF_PARTITION_STALLED;
}

/* PF_APPENDED: the message may be destroyed (it was appended, or is none of ours); else keep it.
 *
 * A message whose headers find no memory is kept as well, and the source fails: to hand it on without them would be a
 * wrong value, to drop it a loss.  Its position is not committed, so the next run begins with it. */
static int offer(pf_kafka_source *self, pf_sink *sink, const rd_kafka_message_t *message, uint32_t *appended)
{
    if (unlikely(message->err != RD_KAFKA_ERR_NONE)) {
        take_event(self, message);
        return PF_APPENDED;
    }
    pf_kafka_partition *place = place_of(self, message);
    if (unlikely(place == NULL || place->index < 0))
        return PF_APPENDED;
    if (unlikely(message->offset >= place->end)) {
        pf_kafka_place_done(&self->partitions, place);
        return PF_APPENDED;
    }
    if (unlikely(message->offset < place->position))
        return tell_it_went_back(self, message);
    pf_incoming incoming = {
        .payload = message->payload,
        .size = message->len,
        .key = message->key,
        .key_size = message->key == NULL ? -1 : (int32_t)message->key_len,
        .partition = (uint32_t)place->index,
        .offset = message->offset,
        .next_offset = message->offset + 1,
    };
    int kind;
    incoming.timestamp_ms = self->api->message_timestamp(message, &kind);
    rd_kafka_headers_t *headers;
    if (!(self->values_in_place && pf_kafka_surely_has_no_headers(message->payload, message->len)) &&
        self->api->message_headers(message, &headers) == RD_KAFKA_ERR_NONE) {
        ssize_t size = pf_encode_headers(&self->headers, self->api, headers);
        if (unlikely(size < 0)) {
            self->failed = 1;
            return PF_STALLED;
        }
        incoming.headers_size = (uint32_t)size;
        incoming.headers = self->headers.bytes;
    }
    int outcome = sink->append(sink, &incoming);
    if (outcome != PF_APPENDED)
        return outcome;
    place->position = message->offset + 1;
    if (unlikely(place->position >= place->end))
        pf_kafka_place_done(&self->partitions, place);
    ++*appended;
    return PF_APPENDED;
}

/* ---- poll ------------------------------------------------------------------------------------------------- */

/* Every round asks anew, once for each partition. */
static void begin_round(pf_kafka_source *self)
{
    pf_kafka_places_let_go(&self->partitions);
    self->loose = 0;
    self->held_bytes = 0;
}

static int is_held(pf_kafka_source *self, const rd_kafka_message_t *message)
{
    const pf_kafka_partition *place = self->partitions.n_held > 0 ? place_of(self, message) : NULL;
    return place != NULL && place->held; /* the end of a partition waits behind its messages too */
}

static void hold(pf_kafka_source *self, const rd_kafka_message_t *message)
{
    pf_kafka_partition *place = place_of(self, message);
    place->held = 1;
    self->partitions.n_held++;
    if (place->held_since_ns != 0 && place->held_offset == message->offset)
        return; /* since an earlier round */
    place->held_offset = message->offset;
    place->held_since_ns = pf_kafka_now_ns();
}

/* Offer what is kept, each partition's messages in order: where the sink has no room for one of them, the later ones of
 * that partition are kept behind it.  PF_STALLED: the sink has no room for any. */
static int append_kept(pf_kafka_source *self, pf_sink *sink, uint32_t max_messages, uint32_t *appended)
{
    int many = self->count - self->next >= PF_KAFKA_FETCH / 2; /* else the connection's thread is not busy either */
    int outcome = PF_APPENDED;
    uint32_t kept = 0, at = self->next;
    begin_round(self);
    for (; at < self->count && *appended < max_messages; at++) {
        rd_kafka_message_t *message = self->messages[at];
        int later = is_held(self, message);
        if (!later && (outcome = offer(self, sink, message, appended)) == PF_STALLED)
            break;
        if (later || outcome == PF_PARTITION_STALLED) {
            if (!later)
                hold(self, message);
            self->loose += !place_of(self, message)->paused;
            self->held_bytes += message->len;
            self->messages[kept++] = message; /* kept <= at */
        } else if (many) {
            pf_kafka_spent_put(&self->spent, message);
        } else {
            self->api->message_destroy(message);
        }
    }
    uint32_t rest = self->count - at;
    if (rest == 0 && self->partitions.n_paused > 0 && !self->is_paused)
        change_pause(self, PF_PLACES_PAUSED_WITHOUT_NEED, 0);
    if (kept > 0)
        memmove(self->messages + kept, self->messages + at, rest * sizeof *self->messages);
    self->next = kept > 0 || rest == 0 ? 0 : at;
    self->count = kept > 0 || rest == 0 ? kept + rest : self->count;
    self->loose += rest;
    return outcome == PF_STALLED ? PF_STALLED : PF_APPENDED;
}

/* Whether more may be taken, beside what is kept for partitions that must wait. */
static int has_room(const pf_kafka_source *self)
{
    return self->loose < PF_KAFKA_FETCH && self->count + PF_KAFKA_FETCH <= PF_KAFKA_KEPT &&
           self->held_bytes < PF_KAFKA_HELD_BYTES;
}

/* Emptying the pipe first keeps the order safe: what arrives after the look writes to the pipe again.  Returns how many
 * messages were taken. */
static uint32_t fetch(pf_kafka_source *self)
{
    pf_wake_wait(&self->pipe, -1, 0);
    if (atomic_load_explicit(&self->commit_under_way, memory_order_relaxed))
        self->api->queue_poll_callback(self->commits, 0);
    ssize_t got = self->api->consume_batch_queue(self->queue, 0, self->messages + self->count, PF_KAFKA_FETCH);
    self->count += got > 0 ? (uint32_t)got : 0;
    self->full_since_ns = 0;
    return got > 0 ? (uint32_t)got : 0;
}

static int reached_end(pf_kafka_source *self)
{
    if (!self->bounded || self->awaits_topic || self->partitions.n_done < self->partitions.n_assigned)
        return 0;
    return self->partitions.n_assigned > 0 || pf_kafka_now_ns() >= self->end_not_before_ns;
}

static int call_is_due(pf_kafka_source *self)
{
    return has_notes(self) || (self->check_at_ns != 0 && pf_kafka_now_ns() >= self->check_at_ns);
}

static int poll_messages(pf_source *base, pf_sink *sink, uint32_t max_messages, int64_t timeout_us)
{
    pf_kafka_source *self = (pf_kafka_source *)base;
    if (self->failed)
        return PF_SOURCE_FAILED;
    uint32_t pause = atomic_load_explicit(&self->want_paused, memory_order_relaxed);
    if (pause != self->is_paused && (pause || has_room(self)))
        pf_kafka_source_pause(self, pause);
    int64_t deadline = 0;
    uint32_t appended = 0;
    for (;;) {
        if (call_is_due(self))
            return PF_SOURCE_CALL;
        if (append_kept(self, sink, max_messages, &appended) == PF_STALLED) {
            if (self->failed)
                return PF_SOURCE_FAILED;
            serve_stalled(self);
            return has_notes(self) ? PF_SOURCE_CALL : PF_SOURCE_STALLED;
        }
        if (has_notes(self))
            return PF_SOURCE_CALL;
        if (reached_end(self))
            return PF_SOURCE_END;
        if (appended > 0)
            return PF_SOURCE_MORE;
        if (!has_room(self)) {
            if (hold_back(self))
                continue;
            serve_stalled(self);
            return has_notes(self) ? PF_SOURCE_CALL : PF_SOURCE_STALLED;
        }
        if (fetch(self) > 0 || has_notes(self))
            continue;
        pf_kafka_spent_free_all(&self->spent);
        int64_t now = pf_kafka_now_ns();
        if (deadline == 0)
            deadline = now + timeout_us * 1000;
        if (atomic_exchange_explicit(&self->woken, 0, memory_order_acquire) || now >= deadline)
            return PF_SOURCE_IDLE;
        int64_t until = deadline;
        if (self->check_at_ns != 0 && self->check_at_ns < until)
            until = self->check_at_ns;
        if (until > now)
            pf_wake_wait(&self->pipe, -1, (until - now + 999) / 1000);
    }
}

/* Nothing that was fetched is appended any more: it is not committed either, so whoever reads on gets it. */
static void drop_kept(pf_kafka_source *self)
{
    for (; self->next < self->count; self->next++) {
        rd_kafka_message_t *message = self->messages[self->next];
        if (message->err != RD_KAFKA_ERR_NONE)
            take_event(self, message);
        self->api->message_destroy(message);
    }
    self->next = self->count = self->loose = 0;
    self->held_bytes = 0;
}

int pf_kafka_source_keep_alive(pf_kafka_source *self)
{
    if (!self->is_paused)
        pf_kafka_source_pause(self, 1);
    do {
        drop_kept(self);
        if (call_is_due(self))
            return 1;
    } while (fetch(self) > 0);
    return has_notes(self);
}

static void wake(pf_source *base)
{
    pf_kafka_source *self = (pf_kafka_source *)base;
    atomic_store_explicit(&self->woken, 1, memory_order_release);
    pf_wake_signal(&self->pipe);
}

/* ---- benchmarks' yardstick -------------------------------------------------------------------------------- */

uint64_t pf_kafka_source_count(pf_kafka_source *self, uint64_t messages, int64_t timeout_us, uint64_t *bytes)
{
    uint64_t seen = 0;
    int64_t deadline = pf_kafka_now_ns() + timeout_us * 1000;
    while (seen < messages && !has_notes(self) && pf_kafka_now_ns() < deadline) {
        if (self->next == self->count)
            self->next = self->count = 0;
        if (self->count == 0 && fetch(self) == 0)
            pf_wake_wait(&self->pipe, -1, 1000);
        for (; self->next < self->count; self->next++) {
            rd_kafka_message_t *message = self->messages[self->next];
            if (message->err == RD_KAFKA_ERR_NONE) {
                *bytes += message->len;
                seen++;
            }
            self->api->message_destroy(message);
        }
    }
    return seen;
}

/* ---- life --------------------------------------------------------------------------------------------------- */

int pf_kafka_source_init(pf_kafka_source *self, const pf_rdkafka *api)
{
    memset(self, 0, sizeof *self);
    self->base.poll = poll_messages;
    self->base.wake = wake;
    self->api = api;
    self->end_not_before_ns = INT64_MAX;
    int error = pf_wake_open(&self->pipe);
    if (error == 0)
        error = pf_kafka_notes_init(&self->notes, api);
    return error;
}

void pf_kafka_source_attach(pf_kafka_source *self, rd_kafka_t *client)
{
    self->client = client;
    self->api->poll_set_consumer(client);
    self->api->set_log_queue(client, NULL);
    self->queue = self->api->queue_get_consumer(client);
    self->commits = self->api->queue_new(client);
    self->api->queue_io_event_enable(self->queue, self->pipe.write_fd, "m", 1);
}

static void destroy(const pf_rdkafka *api, void *client, int flags)
{
    api->destroy_flags(client, flags);
}

/* Whether the client is gone within the time. */
static int end_client(pf_kafka_source *self, int flags, int64_t end_ms)
{
    if (end_ms < 0) {
        self->api->destroy_flags(self->client, flags);
        return 1;
    }
    int64_t deadline = pf_kafka_now_ns() + end_ms * 1000000;
    pf_kafka_farewell *farewell = pf_kafka_farewell_begin(destroy, self->api, self->client, flags);
    if (farewell == NULL)
        return 1;
    while (!pf_kafka_farewell_is_over(farewell)) {
        if (pf_kafka_now_ns() >= deadline || pf_kafka_is_hurried(self)) {
            pf_kafka_farewell_abandon(farewell);
            return 0;
        }
    }
    free(farewell);
    return 1;
}

int pf_kafka_source_release(pf_kafka_source *self, int64_t leave_ms, int64_t end_ms)
{
    int is_over = 1;
    self->closing = 1;
    for (uint32_t i = self->next; i < self->count; i++)
        self->api->message_destroy(self->messages[i]);
    self->next = self->count = 0;
    pf_kafka_spent_free_all(&self->spent);
    if (self->client != NULL) {
        self->api->queue_io_event_enable(self->queue, -1, NULL, 0);
        int left = pf_kafka_source_leave(self, leave_ms);
        self->api->queue_destroy(self->queue);
        self->api->queue_destroy(self->commits);
        is_over = end_client(self, left ? 0 : RD_KAFKA_DESTROY_NO_CONSUMER_CLOSE, end_ms);
        self->client = NULL;
    }
    pf_kafka_places_free(&self->partitions);
    free(self->headers.bytes);
    self->headers = (pf_header_room){0};
    pf_wake_close(&self->pipe);
    if (is_over)
        pf_kafka_notes_destroy(&self->notes);
    return is_over;
}
