#include "kafka_source.h"
#include "kafka_headers.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define likely(x) __builtin_expect(!!(x), 1)
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

static void add_note(pf_kafka_source *self, int kind, int err, const char *text, size_t text_size,
                     const rd_kafka_topic_partition_list_t *partitions)
{
    pf_kafka_notes_add(&self->notes, self->api, kind, err, text, text_size, partitions);
}

static int has_notes(pf_kafka_source *self)
{
    return pf_kafka_notes_waiting(&self->notes);
}

/* ---- librdkafka's callbacks ------------------------------------------------------------------------ */

/* While closing nobody drains any more: whatever is offered or taken is answered at once. */
static void answer_while_closing(const pf_kafka_source *self, rd_kafka_t *client, int err,
                                 const rd_kafka_topic_partition_list_t *partitions)
{
    const char *protocol = self->api->rebalance_protocol(client);
    if (protocol != NULL && strcmp(protocol, "COOPERATIVE") == 0) {
        rd_kafka_error_t *error = err == RD_KAFKA_ERR_ASSIGN_PARTITIONS
                                      ? self->api->incremental_assign(client, partitions)
                                      : self->api->incremental_unassign(client, partitions);
        if (error != NULL)
            self->api->error_destroy(error);
    } else {
        self->api->assign(client, NULL);
    }
}

static void on_rebalance(rd_kafka_t *client, int err, rd_kafka_topic_partition_list_t *partitions, void *opaque)
{
    pf_kafka_source *self = opaque;
    if (self->closing)
        answer_while_closing(self, client, err, partitions);
    else if (err == RD_KAFKA_ERR_ASSIGN_PARTITIONS)
        add_note(self, PF_NOTE_ASSIGN, err, NULL, 0, partitions);
    else
        add_note(self, PF_NOTE_REVOKE, err, NULL, 0, partitions);
}

static void on_commit(rd_kafka_t *client, int err, rd_kafka_topic_partition_list_t *offsets, void *opaque)
{
    pf_kafka_source *self = opaque;
    for (int i = 0; err == RD_KAFKA_ERR_NONE && offsets != NULL && i < offsets->cnt; i++)
        err = offsets->elems[i].err;
    if (err != RD_KAFKA_ERR_NONE && !self->closing)
        add_note(self, PF_NOTE_COMMIT_FAILED, err, NULL, 0, NULL);
}

static void on_error(rd_kafka_t *client, int err, const char *reason, void *opaque)
{
    pf_kafka_source *self = opaque;
    if (!self->closing)
        add_note(self, PF_NOTE_ERROR, err, reason, strlen(reason), NULL);
}

/* librdkafka hands a log callback no opaque, only the client; the client's opaque is the source. */
static const pf_rdkafka *log_api;

static void on_log(const rd_kafka_t *client, int level, const char *facility, const char *text)
{
    pf_kafka_source *self = log_api->opaque(client);
    if (self != NULL && !self->closing && strcmp(facility, "FAIL") != 0) /* on_error tells those */
        add_note(self, PF_NOTE_LOG, level, text, strlen(text), NULL);
}

static int on_statistics(rd_kafka_t *client, char *json, size_t json_size, void *opaque)
{
    add_note(opaque, PF_NOTE_STATISTICS, 0, json, json_size, NULL);
    return 0; /* librdkafka frees the text */
}

/* ---- the partition table ----------------------------------------------------------------------------- */

static pf_kafka_topic *topic_named(pf_kafka_source *self, const char *name)
{
    for (uint32_t i = 0; i < self->n_topics; i++)
        if (strcmp(self->topics[i].name, name) == 0)
            return &self->topics[i];
    return NULL;
}

static pf_kafka_topic *topic_add(pf_kafka_source *self, const char *name)
{
    pf_kafka_topic *grown = realloc(self->topics, (self->n_topics + 1) * sizeof *grown);
    if (grown == NULL)
        return NULL;
    self->topics = grown;
    char *copy = strdup(name);
    if (copy == NULL)
        return NULL;
    pf_kafka_topic *topic = &grown[self->n_topics++];
    memset(topic, 0, sizeof *topic);
    topic->name = copy;
    return topic;
}

static int topic_widen(pf_kafka_topic *topic, int32_t size)
{
    pf_kafka_partition *grown = realloc(topic->partitions, (size_t)size * sizeof *grown);
    if (grown == NULL)
        return -1;
    for (int32_t i = topic->size; i < size; i++)
        grown[i] = (pf_kafka_partition){.index = -1, .end = PF_KAFKA_UNBOUNDED, .position = -1, .ended_at = -1};
    topic->partitions = grown;
    topic->size = size;
    return 0;
}

pf_kafka_partition *pf_kafka_source_place(pf_kafka_source *self, const char *name, int32_t partition, int create)
{
    pf_kafka_topic *topic = topic_named(self, name);
    if (partition < 0 || (topic == NULL && !create))
        return NULL;
    self->memo = NULL; /* tables may move */
    if (topic == NULL && (topic = topic_add(self, name)) == NULL)
        return NULL;
    if (partition >= topic->size && (!create || topic_widen(topic, partition + 1) < 0))
        return NULL;
    return &topic->partitions[partition];
}

void pf_kafka_source_gain(pf_kafka_source *self, pf_kafka_partition *place, int64_t index, int64_t end)
{
    pf_kafka_source_lose(self, place);
    *place = (pf_kafka_partition){.index = index, .end = end, .position = -1, .ended_at = -1};
    self->n_assigned++;
}

void pf_kafka_source_lose(pf_kafka_source *self, pf_kafka_partition *place)
{
    if (place->index < 0)
        return;
    self->n_assigned--;
    self->n_done -= (uint32_t)place->done;
    self->n_held -= place->held;
    self->n_paused -= place->paused;
    place->index = -1;
    place->done = 0;
    place->held = place->paused = 0;
}

static pf_kafka_partition *place_of(pf_kafka_source *self, const rd_kafka_message_t *message)
{
    if (likely(self->memo != NULL && message->rkt == self->memo_handle && message->partition == self->memo_partition))
        return self->memo;
    pf_kafka_topic *topic = NULL;
    for (uint32_t i = 0; i < self->n_topics && topic == NULL; i++)
        if (self->topics[i].handle == message->rkt)
            topic = &self->topics[i];
    if (topic == NULL && message->rkt != NULL) {
        topic = topic_named(self, self->api->topic_name(message->rkt));
        if (topic != NULL)
            topic->handle = message->rkt;
    }
    if (topic == NULL || message->partition < 0 || message->partition >= topic->size)
        return NULL;
    self->memo_handle = message->rkt;
    self->memo_partition = message->partition;
    self->memo = &topic->partitions[message->partition];
    return self->memo;
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
    for (uint32_t i = 0; i < self->n_topics; i++)
        self->topics[i].handle = NULL; /* librdkafka may free a handle now, and reuse its address */
    self->memo = NULL;
}

/* ---- pausing ------------------------------------------------------------------------------------------ */

enum { ALL, HELD, PAUSED_WITHOUT_NEED };

static int is_among(const pf_kafka_partition *place, int which)
{
    if (place->index < 0)
        return 0;
    return which == ALL || (which == HELD && place->held && !place->paused) ||
           (which == PAUSED_WITHOUT_NEED && place->paused && !place->held);
}

static void change_pause(pf_kafka_source *self, int which, uint32_t pause)
{
    rd_kafka_topic_partition_list_t *list = self->api->topic_partition_list_new((int)self->n_assigned + 1);
    for (uint32_t t = 0; t < self->n_topics; t++)
        for (int32_t p = 0; p < self->topics[t].size; p++) {
            pf_kafka_partition *place = &self->topics[t].partitions[p];
            if (!is_among(place, which))
                continue;
            self->api->topic_partition_list_add(list, self->topics[t].name, p);
            self->n_paused -= place->paused;
            place->paused = pause && which == HELD;
            self->n_paused += place->paused;
        }
    if (pause)
        self->api->pause_partitions(self->client, list);
    else
        self->api->resume_partitions(self->client, list);
    self->api->topic_partition_list_destroy(list);
}

void pf_kafka_source_pause(pf_kafka_source *self, uint32_t pause)
{
    change_pause(self, ALL, pause);
    self->is_paused = pause;
}

/* What is kept of some partitions leaves no room to read the others: let those alone wait.  1: some were paused. */
static int hold_back(pf_kafka_source *self)
{
    int64_t now = pf_kafka_now_ns();
    if (self->full_since_ns == 0)
        self->full_since_ns = now;
    int others_starve = self->n_held > self->n_paused && self->n_held < self->n_assigned;
    if (self->is_paused || !others_starve || now - self->full_since_ns < HELD_BACK_AFTER_NS)
        return 0;
    change_pause(self, HELD, 1);
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

static int widen_headers(pf_kafka_source *self, size_t size)
{
    if (size <= self->headers_size)
        return 0;
    uint8_t *grown = realloc(self->headers, 2 * size);
    if (grown == NULL)
        return -1;
    self->headers = grown;
    self->headers_size = 2 * size;
    return 0;
}

/* Encode as arena_layout.h says: (name size u16, name, value size i32 or -1, value)*, little endian.  Returns the size,
 * or -1 when there is no memory for it. */
static ssize_t encode_headers(pf_kafka_source *self, const rd_kafka_headers_t *headers)
{
    const char *name;
    const void *value;
    size_t value_size, at = 0;
    for (size_t i = 0; self->api->header_get_all(headers, i, &name, &value, &value_size) == RD_KAFKA_ERR_NONE; i++) {
        size_t name_size = strlen(name);
        if (name_size > UINT16_MAX)
            name_size = UINT16_MAX;
        if (value == NULL)
            value_size = 0;
        if (widen_headers(self, at + 2 + name_size + 4 + value_size) < 0) {
            self->headers_wanted = at + 2 + name_size + 4 + value_size;
            return -1;
        }
        uint32_t marked = value == NULL ? UINT32_MAX : (uint32_t)value_size;
        uint8_t *to = self->headers + at;
        *to++ = (uint8_t)name_size;
        *to++ = (uint8_t)(name_size >> 8);
        memcpy(to, name, name_size);
        to += name_size;
        for (int shift = 0; shift < 32; shift += 8)
            *to++ = (uint8_t)(marked >> shift);
        if (value_size > 0)
            memcpy(to, value, value_size);
        at += 2 + name_size + 4 + value_size;
    }
    return (ssize_t)at;
}

static void mark_done(pf_kafka_source *self, pf_kafka_partition *place)
{
    if (!place->done) {
        place->done = 1;
        self->n_done++;
    }
}

/* Something other than a payload: the end of a partition, or an error of one. */
static void take_event(pf_kafka_source *self, const rd_kafka_message_t *message)
{
    if (message->err == RD_KAFKA_ERR_PARTITION_EOF) {
        pf_kafka_partition *place = place_of(self, message);
        if (place == NULL || place->index < 0)
            return;
        place->ended_at = message->offset;
        if (message->offset >= place->end)
            mark_done(self, place);
        return;
    }
    const char *text = message->payload != NULL ? message->payload : "";
    add_note(self, PF_NOTE_CONSUMER_ERROR, message->err, text, message->payload != NULL ? message->len : 0, NULL);
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
        mark_done(self, place);
        return PF_APPENDED;
    }
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
        ssize_t size = encode_headers(self, headers);
        if (unlikely(size < 0)) {
            self->failed = 1;
            return PF_STALLED;
        }
        incoming.headers_size = (uint32_t)size;
        incoming.headers = self->headers;
    }
    int outcome = sink->append(sink, &incoming);
    if (outcome != PF_APPENDED)
        return outcome;
    place->position = message->offset + 1;
    if (unlikely(place->position >= place->end))
        mark_done(self, place);
    ++*appended;
    return PF_APPENDED;
}

/* ---- poll ------------------------------------------------------------------------------------------------- */

/* Every round asks anew, once for each partition. */
static void begin_round(pf_kafka_source *self)
{
    for (uint32_t t = 0; self->n_held > 0 && t < self->n_topics; t++)
        for (int32_t p = 0; p < self->topics[t].size; p++) {
            self->n_held -= self->topics[t].partitions[p].held;
            self->topics[t].partitions[p].held = 0;
        }
    self->loose = 0;
    self->held_bytes = 0;
}

static int is_held(pf_kafka_source *self, const rd_kafka_message_t *message)
{
    const pf_kafka_partition *place = self->n_held > 0 ? place_of(self, message) : NULL;
    return place != NULL && place->held; /* the end of a partition waits behind its messages too */
}

static void hold(pf_kafka_source *self, const rd_kafka_message_t *message)
{
    pf_kafka_partition *place = place_of(self, message);
    place->held = 1;
    self->n_held++;
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
    if (rest == 0 && self->n_paused > 0 && !self->is_paused)
        change_pause(self, PAUSED_WITHOUT_NEED, 0);
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
    ssize_t got = self->api->consume_batch_queue(self->queue, 0, self->messages + self->count, PF_KAFKA_FETCH);
    self->count += got > 0 ? (uint32_t)got : 0;
    self->full_since_ns = 0;
    return got > 0 ? (uint32_t)got : 0;
}

static int reached_end(pf_kafka_source *self)
{
    if (!self->bounded || self->n_done < self->n_assigned)
        return 0;
    return self->n_assigned > 0 || pf_kafka_now_ns() >= self->end_not_before_ns;
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

/* ---- commit that waits ---------------------------------------------------------------------------------- */

static void on_waited_commit(rd_kafka_t *client, int err, rd_kafka_topic_partition_list_t *offsets, void *opaque)
{
    int *result = opaque;
    for (int i = 0; err == RD_KAFKA_ERR_NONE && offsets != NULL && i < offsets->cnt; i++)
        err = offsets->elems[i].err;
    *result = err;
}

/* The answer comes to a queue of this call's own: after a timeout the queue goes, and with it the answer. */
int pf_kafka_source_commit(pf_kafka_source *self, const rd_kafka_topic_partition_list_t *offsets, int timeout_ms)
{
    int result = RD_KAFKA_ERR_TIMED_OUT;
    rd_kafka_queue_t *answers = self->api->queue_new(self->client);
    int error = self->api->commit_queue(self->client, offsets, answers, on_waited_commit, &result);
    if (error == RD_KAFKA_ERR_NONE)
        self->api->queue_poll_callback(answers, timeout_ms);
    else
        result = error;
    self->api->queue_destroy(answers);
    return result;
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
    self->api = log_api = api;
    self->end_not_before_ns = INT64_MAX;
    int error = pf_wake_open(&self->pipe);
    if (error == 0)
        error = pthread_mutex_init(&self->notes.lock, NULL);
    return error;
}

void pf_kafka_source_configure(pf_kafka_source *self, rd_kafka_conf_t *conf)
{
    self->api->conf_set_opaque(conf, self);
    self->api->conf_set_rebalance_cb(conf, on_rebalance);
    self->api->conf_set_offset_commit_cb(conf, on_commit);
    self->api->conf_set_error_cb(conf, on_error);
    self->api->conf_set_log_cb(conf, on_log);
    self->api->conf_set_stats_cb(conf, on_statistics);
    pf_kafka_spent_configure(&self->spent, self->api, conf);
}

void pf_kafka_source_attach(pf_kafka_source *self, rd_kafka_t *client)
{
    self->client = client;
    self->api->poll_set_consumer(client);
    self->api->set_log_queue(client, NULL);
    self->queue = self->api->queue_get_consumer(client);
    self->api->queue_io_event_enable(self->queue, self->pipe.write_fd, "m", 1);
}

enum { LEAVE_POLL_MS = 50 };

/* Leave the group: rebalances are answered (answer_while_closing) by the queue's poll until librdkafka says that it is
 * out.  A broker that does not answer would have it wait without end, so there is a limit; then the group finds out
 * by the session's timeout.  Returns whether the group was left. */
static int leave_group(pf_kafka_source *self, int64_t leave_ms)
{
    int64_t deadline = pf_kafka_now_ns() + leave_ms * 1000000;
    rd_kafka_error_t *error = self->api->consumer_close_queue(self->client, self->queue);
    if (error != NULL) {
        self->api->error_destroy(error);
        return 0;
    }
    while (!self->api->consumer_closed(self->client)) {
        if (pf_kafka_now_ns() >= deadline)
            return 0;
        ssize_t got = self->api->consume_batch_queue(self->queue, LEAVE_POLL_MS, self->messages, PF_KAFKA_FETCH);
        for (ssize_t i = 0; i < got; i++)
            self->api->message_destroy(self->messages[i]);
    }
    return 1;
}

void pf_kafka_source_release(pf_kafka_source *self, int64_t leave_ms)
{
    self->closing = 1;
    for (uint32_t i = self->next; i < self->count; i++)
        self->api->message_destroy(self->messages[i]);
    self->next = self->count = 0;
    pf_kafka_spent_free_all(&self->spent);
    if (self->client != NULL) {
        self->api->queue_io_event_enable(self->queue, -1, NULL, 0);
        int left = leave_ms > 0 && leave_group(self, leave_ms);
        self->api->queue_destroy(self->queue);
        self->api->destroy_flags(self->client, left ? 0 : RD_KAFKA_DESTROY_NO_CONSUMER_CLOSE);
        self->client = NULL;
    }
    for (uint32_t i = 0; i < self->n_topics; i++) {
        free(self->topics[i].name);
        free(self->topics[i].partitions);
    }
    free(self->topics);
    free(self->headers);
    self->topics = NULL;
    self->headers = NULL;
    self->n_topics = 0;
    pf_wake_close(&self->pipe);
    pf_kafka_notes_destroy(&self->notes, self->api);
}
