#include "amqp_source.h"

#include <time.h>

/* How long something done may wait for a delivery before it that is not, before it is acknowledged by itself. */
static const int64_t SINGLY_AFTER_NS = 500 * 1000 * 1000;

int64_t pf_amqp_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* ---- acknowledgements ---------------------------------------------------------------------------------- */

/* A quarter of the prefetch held back would let the broker run dry, however short it has been. */
static int singly(pf_amqp_source *self)
{
    if (self->acks.waiting == 0) {
        self->waits_since_ns = 0;
        return 0;
    }
    if (4 * self->acks.waiting >= self->prefetch)
        return 1;
    int64_t now = pf_amqp_now_ns();
    if (self->waits_since_ns == 0)
        self->waits_since_ns = now;
    return now - self->waits_since_ns >= SINGLY_AFTER_NS;
}

static void write_acks(pf_amqp_source *self)
{
    pthread_mutex_lock(&self->mutex);
    if (self->consuming && !self->auto_ack) {
        int each = singly(self);
        self->ack_frames += pf_amqp_acks_write(&self->acks, &self->stream.out, self->stream.parser.channel, each);
        if (each)
            self->waits_since_ns = 0;
    }
    pthread_mutex_unlock(&self->mutex);
}

int pf_amqp_source_done(pf_amqp_source *self, uint32_t partition, const int64_t *tags, uint32_t count)
{
    int tell = 0;
    pthread_mutex_lock(&self->mutex);
    if (self->consuming && partition == self->partition) {
        for (uint32_t i = 0; i < count; i++)
            pf_amqp_acks_done(&self->acks, (uint64_t)tags[i]);
        tell = self->acks.ackable != 0 || 4 * self->acks.waiting >= self->prefetch;
    }
    pthread_mutex_unlock(&self->mutex);
    return tell;
}

uint64_t pf_amqp_source_unacknowledged(pf_amqp_source *self)
{
    pthread_mutex_lock(&self->mutex);
    uint64_t count = self->consuming ? self->acks.delivered - self->acks.low : 0;
    pthread_mutex_unlock(&self->mutex);
    return count;
}

void pf_amqp_source_begin(pf_amqp_source *self, uint16_t channel, uint32_t partition)
{
    pthread_mutex_lock(&self->mutex);
    pf_amqp_acks_reset(&self->acks);
    self->waits_since_ns = 0;
    self->partition = partition;
    self->consuming = 1;
    pthread_mutex_unlock(&self->mutex);
    self->stream.parser.channel = channel;
    self->pending = 0;
}

void pf_amqp_source_end_channel(pf_amqp_source *self)
{
    pthread_mutex_lock(&self->mutex);
    self->consuming = 0;
    pthread_mutex_unlock(&self->mutex);
    self->stream.parser.channel = 0;
    self->stream.parser.stage = PF_AMQP_IDLE;
    self->pending = 0;
}

/* ---- poll ---------------------------------------------------------------------------------------------- */

/* Note that a delivery is handed on, before it is, since it may be done at once.  0: too many are in flight. */
static int hand_on(pf_amqp_source *self, uint64_t tag)
{
    if (self->auto_ack)
        return 1;
    pthread_mutex_lock(&self->mutex);
    int room = pf_amqp_acks_has_room(&self->acks);
    if (room)
        self->acks.delivered = tag;
    pthread_mutex_unlock(&self->mutex);
    return room;
}

static int append(pf_amqp_source *self, pf_sink *sink)
{
    const pf_amqp_content *content = &self->stream.parser.content;
    if (!hand_on(self, content->tag))
        return PF_STALLED;
    uint32_t deliveries = content->redelivered;
    if (content->deliveries >= 0)
        deliveries = content->deliveries > UINT32_MAX ? UINT32_MAX : (uint32_t)content->deliveries;
    pf_incoming message = {
        .payload = content->body,
        .size = (size_t)content->body_size,
        .key = content->key,
        .key_size = content->key_size,
        .headers = self->stream.parser.headers.bytes,
        .headers_size = (uint32_t)self->stream.parser.headers.size,
        .partition = self->partition,
        .offset = (int64_t)content->tag,
        .next_offset = (int64_t)content->tag + 1,
        .timestamp_ms = content->timestamp_ms,
        .deliveries = deliveries,
    };
    int outcome = sink->append(sink, &message);
    if (outcome == PF_APPENDED)
        self->appended++;
    return outcome;
}

/* Hand on what has come: IDLE when there is nothing left, MORE when there may be. */
static int parse(pf_amqp_source *self, pf_sink *sink, uint32_t max_messages, uint32_t *appended)
{
    pf_amqp_stream *stream = &self->stream;
    while (*appended < max_messages) {
        if (self->pending) {
            if (!self->dropping && append(self, sink) != PF_APPENDED)
                return PF_SOURCE_STALLED;
            self->pending = 0;
            ++*appended;
        }
        switch (pf_amqp_stream_next(stream)) {
        case PF_AMQP_MORE: return PF_SOURCE_IDLE;
        case PF_AMQP_TAKEN: break;
        case PF_AMQP_DELIVERED: self->pending = 1; break;
        case PF_AMQP_RETURNED: break; /* for publishers; nothing was published here */
        case PF_AMQP_CONFIRMED: break;
        default: return PF_SOURCE_CALL; /* frames for the client library, or the end */
        }
    }
    return PF_SOURCE_MORE;
}

static int64_t until_call_us(const pf_amqp_source *self, int64_t timeout_us)
{
    if (self->call_at_ns == 0)
        return timeout_us;
    int64_t left = (self->call_at_ns - pf_amqp_now_ns() + 999) / 1000;
    return left < 0 ? 0 : left < timeout_us ? left : timeout_us;
}

static int call_is_due(const pf_amqp_source *self)
{
    return self->call || self->stream.other_size ||
           (self->stream.fd >= 0 && pf_amqp_stream_broken(&self->stream)) ||
           (self->call_at_ns != 0 && pf_amqp_now_ns() >= self->call_at_ns);
}

/* Wait for the socket, for wake(), or for the time at which serve() must run.  What the socket is ready for. */
static int wait(pf_amqp_source *self, int64_t timeout_us)
{
    struct pollfd ends[2] = {{.fd = self->pipe.read_fd, .events = POLLIN}, {.fd = self->stream.fd, .events = POLLIN}};
    if (self->stream.fd >= 0 && pf_amqp_stream_unsent(&self->stream))
        ends[1].events |= POLLOUT;
    if (self->stream.in_size == PF_AMQP_IN_BYTES)
        ends[1].events &= ~POLLIN;
    timeout_us = until_call_us(self, timeout_us);
    struct timespec limit = {.tv_sec = timeout_us / 1000000, .tv_nsec = (timeout_us % 1000000) * 1000};
    if (ppoll(ends, self->stream.fd >= 0 ? 2 : 1, &limit, NULL) <= 0)
        return 0;
    if (ends[0].revents & POLLIN)
        pf_wake_wait(&self->pipe, -1, 0);
    return self->stream.fd >= 0 ? ends[1].revents : 0;
}

/* The sink takes nothing.  Go on to read behind what waits, as far as the buffer goes, since whoever sends heartbeats
 * lives; where it is full, the broker waits for us, and counts as alive. */
static int serve_stalled(pf_amqp_source *self)
{
    pf_amqp_stream *stream = &self->stream;
    if (stream->in_size == PF_AMQP_IN_BYTES)
        stream->received++;
    if (stream->tls)
        return wait(self, 0) ? PF_SOURCE_CALL : PF_SOURCE_STALLED;
    pf_amqp_stream_read(stream);
    return PF_SOURCE_STALLED;
}

static int poll_queue(pf_source *base, pf_sink *sink, uint32_t max_messages, int64_t timeout_us)
{
    pf_amqp_source *self = (pf_amqp_source *)base;
    pf_amqp_stream *stream = &self->stream;
    if (self->failed)
        return PF_SOURCE_FAILED;
    if (self->ended)
        return PF_SOURCE_END;
    for (int waited = 0;; waited = 1) {
        if (call_is_due(self))
            return PF_SOURCE_CALL;
        if (stream->fd >= 0) {
            uint32_t appended = 0;
            int outcome = parse(self, sink, max_messages, &appended);
            write_acks(self);
            if (!stream->tls)
                pf_amqp_stream_flush(stream);
            if (outcome == PF_SOURCE_STALLED)
                return serve_stalled(self);
            if (outcome == PF_SOURCE_CALL)
                return outcome;
            if (appended > 0)
                return PF_SOURCE_MORE;
            pf_amqp_stream_compact(stream); /* nothing points into the buffer: no message waits, no frames either */
            if (stream->tls && stream->tls_more)
                return PF_SOURCE_CALL;
            if (!stream->tls && pf_amqp_stream_read(stream) > 0)
                continue;
            if (call_is_due(self))
                return PF_SOURCE_CALL;
        }
        if (waited)
            return PF_SOURCE_IDLE;
        if (wait(self, timeout_us) && stream->tls)
            return PF_SOURCE_CALL;
    }
}

static void wake(pf_source *base)
{
    pf_wake_signal(&((pf_amqp_source *)base)->pipe);
}

int pf_amqp_source_init(pf_amqp_source *self)
{
    memset(self, 0, sizeof *self);
    self->base.poll = poll_queue;
    self->base.wake = wake;
    self->pipe.read_fd = self->pipe.write_fd = -1;
    self->call = 1;
    int error = pthread_mutex_init(&self->mutex, NULL);
    return error ? error : pf_wake_open(&self->pipe);
}

void pf_amqp_source_free(pf_amqp_source *self)
{
    pf_wake_close(&self->pipe);
    pthread_mutex_destroy(&self->mutex);
}
