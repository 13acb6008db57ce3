#include "stream_source.h"

#include <sys/socket.h>

int64_t pf_stream_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* ---- the connection ------------------------------------------------------------------------------------------ */

static void forget_received(pf_stream_source *self)
{
    pf_stream_end_batch(self);
    self->in_at = self->in_end = 0;
    self->in_chunk = 0;
    self->other_size = 0;
    pf_amqp_empty(&self->out);
    self->out.failed = 0;
    self->out_at = 0;
    self->wants_io = self->more_inside = 0;
}

void pf_stream_source_break(pf_stream_source *self, uint32_t why, int64_t number)
{
    self->fd = -1;
    self->broken = why;
    self->broken_number = number;
    forget_received(self);
}

static void attach(pf_stream_source *self)
{
    self->fd = self->next_fd;
    self->tls = self->next_tls;
    self->heartbeat_ns = self->next_heartbeat_ns;
    self->broken = 0;
    forget_received(self);
    self->heard_ns = self->sent_ns = pf_stream_now_ns();
    for (uint32_t i = 0; i < self->n_parts; i++) {
        self->parts[i].credit = 0;
        self->parts[i].target = 1;
        self->parts[i].largest = 0;
    }
    atomic_store_explicit(&self->attaching, 0, memory_order_release);
}

/* Bytes of the frame at the front, its size included; 0: not even its size is there. */
static size_t frame_bytes(const pf_stream_source *self)
{
    if (self->in_at == self->in_end) /* and perhaps there is no buffer */
        return 0;
    pf_amqp_bytes in = {self->in + self->in_at, self->in + self->in_end, 0};
    uint64_t size = pf_amqp_uint(&in, PF_STREAM_SIZE_BYTES);
    return in.bad ? 0 : (size_t)size + PF_STREAM_SIZE_BYTES;
}

/* What is waited for may be larger than what is read ahead: then room is made for all of it. */
size_t pf_stream_source_room(pf_stream_source *self)
{
    size_t here = self->in_end - self->in_at;
    size_t frame = frame_bytes(self);
    if (frame > self->most_chunk_bytes) {
        pf_stream_source_break(self, PF_STREAM_TOO_LARGE, (int64_t)frame);
        return 0;
    }
    if (here >= self->read_ahead_bytes && here >= frame)
        return 0;
    size_t most = frame > self->read_ahead_bytes ? frame : self->read_ahead_bytes;
    size_t wanted = frame > here + PF_STREAM_RECEIVE ? frame - here : PF_STREAM_RECEIVE;
    if (wanted > most - here)
        wanted = most - here;
    if (self->in_room - self->in_end < wanted && self->in_at > 0) {
        memmove(self->in, self->in + self->in_at, here);
        self->in_at = 0;
        self->in_end = here;
    }
    if (self->in_room - self->in_end < wanted) {
        uint8_t *grown = realloc(self->in, self->in_end + wanted);
        if (grown == NULL) {
            pf_stream_source_break(self, PF_STREAM_MEMORY, ENOMEM);
            return 0;
        }
        self->in = grown;
        self->in_room = self->in_end + wanted;
    }
    size_t room = self->in_room - self->in_end;
    return room < most - here ? room : most - here;
}

void pf_stream_source_received(pf_stream_source *self, size_t bytes)
{
    self->in_end += bytes;
    self->heard_ns = pf_stream_now_ns();
    pf_stream_count_up(&self->bytes, bytes);
}

/* Take what has come: 1 something, 0 nothing, -1 the connection is gone. */
static int receive(pf_stream_source *self)
{
    size_t room = pf_stream_source_room(self);
    if (room == 0)
        return self->fd < 0 ? -1 : 0;
    ssize_t got = recv(self->fd, self->in + self->in_end, room, MSG_DONTWAIT);
    if (got > 0) {
        pf_stream_source_received(self, (size_t)got);
        return 1;
    }
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return 0;
    pf_stream_source_break(self, got == 0 ? PF_STREAM_CLOSED : PF_STREAM_ERRNO, got == 0 ? 0 : errno);
    return -1;
}

static void send_out(pf_stream_source *self)
{
    if (self->out.failed)
        pf_stream_source_break(self, PF_STREAM_MEMORY, ENOMEM);
    self->wants_io |= self->tls && self->fd >= 0 && self->out_at < self->out.size;
    while (!self->tls && self->fd >= 0 && self->out_at < self->out.size) {
        ssize_t sent = send(self->fd, self->out.bytes + self->out_at, self->out.size - self->out_at,
                            MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent >= 0)
            self->out_at += (size_t)sent;
        else if (errno == EAGAIN || errno == EWOULDBLOCK)
            return;
        else if (errno != EINTR)
            pf_stream_source_break(self, PF_STREAM_ERRNO, errno);
    }
    if (self->fd >= 0 && self->out_at == self->out.size) {
        pf_amqp_empty(&self->out);
        self->out_at = 0;
    }
}

static void put_big(uint8_t *to, uint64_t value, int size)
{
    for (int i = 0; i < size; i++)
        to[i] = (uint8_t)(value >> 8 * (size - 1 - i));
}

/* A frame of `size` bytes behind key and version. */
static void put_frame(pf_stream_source *self, uint32_t key, const uint8_t *rest, size_t size)
{
    uint8_t head[8];
    put_big(head, PF_STREAM_LEAST_FRAME + size, 4);
    put_big(head + 4, key, 2);
    put_big(head + 6, 1, 2);
    pf_amqp_put(&self->out, head, sizeof head);
    pf_amqp_put(&self->out, rest, size);
    self->sent_ns = pf_stream_now_ns();
}

static void beat(pf_stream_source *self)
{
    if (self->heartbeat_ns && pf_stream_now_ns() - self->sent_ns >= self->heartbeat_ns / 2)
        put_frame(self, PF_STREAM_HEARTBEAT, NULL, 0);
}

/* Let the server send what may be read ahead. */
static void ask(pf_stream_source *self)
{
    for (uint32_t i = 0; i < self->n_parts; i++) {
        pf_stream_part *part = &self->parts[i];
        if (part->done || part->credit >= part->target)
            continue;
        uint8_t rest[3] = {(uint8_t)i};
        put_big(rest + 1, part->target - part->credit, 2);
        put_frame(self, PF_STREAM_CREDIT, rest, sizeof rest);
        part->credit = part->target;
    }
}

/* ---- frames ----------------------------------------------------------------------------------------------------- */

/* A frame that is no chunk. */
static void take_other(pf_stream_source *self, size_t frame)
{
    const uint8_t *bytes = self->in + self->in_at + PF_STREAM_SIZE_BYTES;
    size_t size = frame - PF_STREAM_SIZE_BYTES;
    pf_amqp_bytes in = {bytes, bytes + size, 0};
    if (pf_amqp_uint(&in, 2) != PF_STREAM_HEARTBEAT) {
        self->other_size = size < PF_STREAM_OTHER ? size : PF_STREAM_OTHER;
        memcpy(self->other, bytes, self->other_size);
    }
    self->in_at += frame;
}

/* Hand on what has been received; PF_STALLED: the sink has no room for the message at hand. */
static int take_in(pf_stream_source *self, pf_sink *sink, uint32_t max_messages, uint32_t *appended)
{
    uint64_t before = atomic_load_explicit(&self->messages, memory_order_relaxed);
    while (self->fd >= 0 && *appended < max_messages && !self->wants_unpacking && !self->other_size) {
        if (self->in_chunk && self->entries_left == 0)
            pf_stream_end_chunk(self);
        if (!self->in_chunk) {
            size_t frame = frame_bytes(self);
            if (frame != 0 && frame < PF_STREAM_SIZE_BYTES + PF_STREAM_LEAST_FRAME) {
                pf_stream_source_break(self, PF_STREAM_NOT_STREAM, (int64_t)frame);
                return PF_APPENDED;
            }
            if (frame == 0 || frame > self->in_end - self->in_at)
                return PF_APPENDED;
            const uint8_t *key = self->in + self->in_at + PF_STREAM_SIZE_BYTES;
            if (key[0] == 0 && key[1] == PF_STREAM_DELIVER)
                pf_stream_begin_chunk(self, frame);
            else
                take_other(self, frame);
            continue;
        }
        if (pf_stream_next_of_chunk(self, sink) == PF_STALLED)
            return PF_STALLED;
        *appended = (uint32_t)(atomic_load_explicit(&self->messages, memory_order_relaxed) - before);
    }
    return PF_APPENDED;
}

/* ---- poll ------------------------------------------------------------------------------------------------------ */

static int ended(const pf_stream_source *self)
{
    if (!atomic_load_explicit(&self->ends_known, memory_order_acquire))
        return 0;
    for (uint32_t i = 0; i < self->n_parts; i++)
        if (!self->parts[i].bounded || !self->parts[i].done)
            return 0;
    return 1;
}

static int call_is_due(const pf_stream_source *self)
{
    return (self->n_parts && !self->announced) || self->broken || self->other_size || self->wants_io || self->wants_unpacking;
}

/* Wait for the socket, for wake(), or for `until`. */
static void wait_for_news(pf_stream_source *self, int64_t until)
{
    if (self->fd >= 0 && self->heartbeat_ns && until > self->sent_ns + self->heartbeat_ns / 2)
        until = self->sent_ns + self->heartbeat_ns / 2;
    int64_t left_ns = until - pf_stream_now_ns();
    if (left_ns <= 0)
        return;
    struct pollfd ends[2] = {{.fd = self->pipe.read_fd, .events = POLLIN},
                             {.fd = self->fd, .events = POLLIN}}; /* poll(2) passes a negative one over */
    if (self->out_at < self->out.size)
        ends[1].events |= POLLOUT;
#ifdef __linux__
    struct timespec limit = {.tv_sec = left_ns / 1000000000, .tv_nsec = left_ns % 1000000000};
    int ready = ppoll(ends, 2, &limit, NULL);
#else
    int64_t left_ms = (left_ns + 999999) / 1000000;
    int ready = poll(ends, 2, left_ms > INT32_MAX ? INT32_MAX : (int)left_ms);
#endif
    if (ready <= 0)
        return;
    if (ends[0].revents)
        pf_wake_wait(&self->pipe, -1, 0);
    if (self->fd >= 0 && ends[1].revents && self->tls)
        self->wants_io = 1;
}

static int readable(const pf_stream_source *self)
{
    struct pollfd end = {.fd = self->fd, .events = POLLIN};
    return poll(&end, 1, 0) > 0;
}

/* Nothing is taken in: what was asked for is received, so that the server need not wait for us to write its heartbeats. */
void pf_stream_source_keep_alive(pf_stream_source *self)
{
    if (self->fd < 0)
        return;
    beat(self);
    send_out(self);
    if (self->fd >= 0 && !self->tls)
        receive(self);
    size_t room = self->fd >= 0 ? pf_stream_source_room(self) : 0;
    if (self->fd >= 0 && room == 0)
        self->heard_ns = pf_stream_now_ns(); /* whoever does not listen cannot complain of silence */
    else if (self->fd >= 0 && self->tls)
        self->wants_io |= self->more_inside || readable(self);
}

/* The server says something every half of the time that was agreed upon. */
static void check_silence(pf_stream_source *self)
{
    if (self->fd < 0 || !self->heartbeat_ns || pf_stream_now_ns() - self->heard_ns <= 2 * self->heartbeat_ns)
        return;
    if (self->tls && readable(self)) /* nobody has looked */
        self->wants_io = 1;
    else
        pf_stream_source_break(self, PF_STREAM_SILENT, 0);
}

static int poll_chunks(pf_source *base, pf_sink *sink, uint32_t max_messages, int64_t timeout_us)
{
    pf_stream_source *self = (pf_stream_source *)base;
    int64_t deadline = 0;
    uint32_t appended = 0;
    for (;;) {
        if (atomic_load_explicit(&self->failed, memory_order_acquire))
            return PF_SOURCE_FAILED;
        if (call_is_due(self))
            return PF_SOURCE_CALL;
        if (ended(self))
            return PF_SOURCE_END;
        if (self->fd < 0 && atomic_load_explicit(&self->attaching, memory_order_acquire))
            attach(self);
        if (self->fd >= 0) {
            uint32_t more = 0;
            int outcome = take_in(self, sink, max_messages - appended, &more);
            appended += more;
            if (outcome == PF_STALLED) {
                pf_stream_source_keep_alive(self);
                check_silence(self);
                return call_is_due(self) ? PF_SOURCE_CALL : PF_SOURCE_STALLED;
            }
            if (self->fd >= 0) {
                ask(self);
                beat(self);
                send_out(self);
            }
            if (appended >= max_messages)
                return PF_SOURCE_MORE;
            if (call_is_due(self) || ended(self))
                continue;
            if (self->fd >= 0 && !self->tls && receive(self) != 0)
                continue;
            self->wants_io |= self->more_inside;
            check_silence(self);
        }
        if (call_is_due(self))
            continue;
        if (appended > 0)
            return PF_SOURCE_MORE;
        int64_t now = pf_stream_now_ns();
        if (deadline == 0)
            deadline = now + timeout_us * 1000;
        if (atomic_exchange_explicit(&self->woken, 0, memory_order_acquire) || now >= deadline)
            return PF_SOURCE_IDLE;
        wait_for_news(self, deadline);
    }
}

void pf_stream_source_wake(pf_stream_source *self)
{
    atomic_store_explicit(&self->woken, 1, memory_order_release);
    pf_wake_signal(&self->pipe);
}

static void wake(pf_source *base)
{
    pf_stream_source_wake((pf_stream_source *)base);
}

/* ---- life ------------------------------------------------------------------------------------------------------ */

int pf_stream_source_init(pf_stream_source *self)
{
    memset(self, 0, sizeof *self);
    self->base.poll = poll_chunks;
    self->base.wake = wake;
    self->fd = -1;
    self->pipe.read_fd = self->pipe.write_fd = -1;
    pf_crc32_init(&self->crc);
    self->parts = calloc(PF_STREAM_MOST_PARTS, sizeof *self->parts);
    if (self->parts == NULL)
        return ENOMEM;
    for (uint32_t i = 0; i < PF_STREAM_MOST_PARTS; i++) {
        self->parts[i].wanted = self->parts[i].end = -1;
        self->parts[i].target = 1;
    }
    return pf_wake_open(&self->pipe);
}

void pf_stream_source_free(pf_stream_source *self)
{
    free(self->parts);
    free(self->in);
    free(self->out.bytes);
    free(self->unpacked);
    free((uint8_t *)(uintptr_t)self->message.key_name);
    pf_amqp1_free(&self->message);
    pf_wake_close(&self->pipe);
}
