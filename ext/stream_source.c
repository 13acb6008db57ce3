#include "stream_source.h"

#include <sys/socket.h>

#define unlikely(x) __builtin_expect(!!(x), 0)

int64_t pf_stream_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void count_up(_Atomic uint64_t *counter, uint64_t more)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + more, memory_order_relaxed);
}

/* ---- the connection ------------------------------------------------------------------------------------------ */

static void end_batch(pf_stream_source *self)
{
    free(self->unpacked);
    self->unpacked = NULL;
    self->batch_left = self->wants_unpacking = self->refuses = 0;
}

static void forget_received(pf_stream_source *self)
{
    end_batch(self);
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
    pf_amqp_bytes in = {self->in + self->in_at, self->in + self->in_end, 0};
    uint64_t size = pf_amqp_uint(&in, PF_STREAM_SIZE_BYTES);
    return in.bad ? 0 : (size_t)size + PF_STREAM_SIZE_BYTES;
}

/* What is waited for may be larger than what is read ahead: then room is made for all of it. */
size_t pf_stream_source_room(pf_stream_source *self)
{
    size_t here = self->in_end - self->in_at;
    size_t frame = self->in_end > self->in_at ? frame_bytes(self) : 0;
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
    count_up(&self->bytes, bytes);
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

/* ---- chunks ---------------------------------------------------------------------------------------------------- */

/* How many chunks fit into what may be read ahead: as many as had the size of the largest of late.  It grows step by step,
 * since those to come may be larger. */
static void choose_credit(pf_stream_source *self, pf_stream_part *part, size_t size)
{
    part->largest = size > part->largest ? size : part->largest - (part->largest - size) / 8;
    uint64_t fit = self->read_ahead_bytes / self->n_parts / (part->largest ? part->largest : 1);
    if (fit > PF_STREAM_MOST_CREDIT)
        fit = PF_STREAM_MOST_CREDIT;
    if (fit > 2 * (uint64_t)part->target)
        fit = 2 * (uint64_t)part->target;
    part->target = fit < 1 ? 1 : (uint32_t)fit;
}

/* A Deliver frame is whole. */
static void begin_chunk(pf_stream_source *self, size_t frame)
{
    pf_stream_chunk chunk;
    const uint8_t *bytes = self->in + self->in_at + PF_STREAM_SIZE_BYTES;
    int fault = pf_stream_read_chunk(bytes, frame - PF_STREAM_SIZE_BYTES, &chunk);
    if (fault == PF_STREAM_SOUND && chunk.subscription >= self->n_parts)
        fault = PF_STREAM_NOT_STREAM;
    if (fault == PF_STREAM_SOUND && pf_crc32_of(&self->crc, chunk.data, chunk.data_size) != chunk.crc)
        fault = PF_STREAM_BAD_CRC;
    if (fault != PF_STREAM_SOUND) {
        pf_stream_source_break(self, (uint32_t)fault, fault == PF_STREAM_BAD_CRC ? (int64_t)chunk.first : 0);
        return;
    }
    count_up(&self->chunks, 1);
    pf_stream_part *part = &self->parts[chunk.subscription];
    part->credit -= part->credit > 0;
    choose_credit(self, part, frame);
    self->part = chunk.subscription;
    self->frame_size = frame;
    self->data_at = (size_t)(chunk.data - (self->in + self->in_at));
    self->data_size = chunk.data_size;
    self->entry_at = 0;
    self->entries_left = chunk.type == PF_STREAM_USER_CHUNK ? chunk.entries : 0;
    self->offset = chunk.first;
    self->chunk_end = chunk.first + chunk.records;
    self->chunk_ms = chunk.timestamp_ms;
    self->in_chunk = 1;
}

static void end_chunk(pf_stream_source *self)
{
    pf_stream_part *part = &self->parts[self->part];
    if (part->bounded && self->chunk_end > (uint64_t)part->end)
        part->done = 1;
    self->in_at += self->frame_size;
    self->in_chunk = 0;
    if (self->in_at == self->in_end)
        self->in_at = self->in_end = 0;
}

/* Hand one message on, or what stands for `records` of them; PF_STALLED: there is no room for it. */
static int offer(pf_stream_source *self, pf_sink *sink, const uint8_t *bytes, size_t size, uint32_t records, int refusal)
{
    pf_stream_part *part = &self->parts[self->part];
    int64_t offset = (int64_t)self->offset, next = offset + records;
    int64_t wanted = atomic_load_explicit(&part->wanted, memory_order_relaxed);
    if (next <= wanted || (part->bounded && offset > part->end)) {
        self->offset += records;
        return PF_APPENDED;
    }
    pf_incoming incoming = {
        .payload = bytes,
        .size = size,
        .key_size = -1,
        .partition = self->part,
        .offset = offset < wanted ? wanted : offset, /* a part of a packed sub-batch was handed on before */
        .next_offset = next,
        .timestamp_ms = self->chunk_ms,
        .cut = (uint8_t)refusal,
    };
    if (!refusal && !self->raw) {
        pf_amqp1_message *message = &self->message;
        if (pf_amqp1_read(message, bytes, size)) {
            incoming.payload = message->payload;
            incoming.size = message->size;
            incoming.key = message->key;
            incoming.key_size = message->key_size;
            incoming.headers = message->headers.bytes;
            incoming.headers_size = (uint32_t)message->headers.size;
            if (message->timestamp_ms >= 0)
                incoming.timestamp_ms = message->timestamp_ms;
        } else if (message->headers.failed || message->joined.failed || message->key_text.failed) {
            message->headers.failed = message->joined.failed = message->key_text.failed = 0;
            pf_stream_source_break(self, PF_STREAM_MEMORY, ENOMEM);
            return PF_APPENDED;
        } else {
            incoming.cut = PF_NOT_AMQP;
        }
    }
    if (sink->append(sink, &incoming) != PF_APPENDED)
        return PF_STALLED;
    self->offset += records;
    atomic_store_explicit(&part->wanted, next, memory_order_relaxed);
    count_up(&self->messages, 1);
    return PF_APPENDED;
}

static const uint8_t *chunk_data(const pf_stream_source *self)
{
    return self->in + self->in_at + self->data_at;
}

const uint8_t *pf_stream_source_packed(pf_stream_source *self, pf_stream_entry *entry)
{
    *entry = (pf_stream_entry){0};
    pf_stream_read_entry(chunk_data(self), self->data_size, self->entry_at, entry); /* it was read before, so it is there */
    return entry->bytes;
}

void pf_stream_source_unpacked(pf_stream_source *self, uint8_t *bytes, size_t size)
{
    self->wants_unpacking = 0;
    if (!self->in_chunk || bytes == NULL) {
        free(bytes);
        self->refuses = 1;
        return;
    }
    pf_stream_entry entry;
    pf_stream_source_packed(self, &entry);
    self->unpacked = bytes;
    self->batch_left = entry.records;
    self->batch_at = 0;
    self->batch_end = size;
    self->after_batch = entry.next;
}

/* The next message of the sub-batch at hand; PF_STALLED: there is no room for it. */
static int next_of_batch(pf_stream_source *self, pf_sink *sink)
{
    pf_stream_entry entry;
    const uint8_t *data = self->unpacked != NULL ? self->unpacked : chunk_data(self);
    if (!pf_stream_read_entry(data, self->batch_end, self->batch_at, &entry) || entry.is_batch) {
        /* Its CRC is right, so it was written like this: what is left of it is one row that says so. */
        if (offer(self, sink, data + self->batch_at, self->batch_end - self->batch_at, self->batch_left, PF_BAD_BATCH))
            return PF_STALLED;
        self->batch_left = 0;
    } else {
        if (offer(self, sink, entry.bytes, entry.size, 1, 0) == PF_STALLED)
            return PF_STALLED;
        if (self->fd < 0)
            return PF_APPENDED; /* given up, and with it the sub-batch */
        self->batch_at = entry.next;
        self->batch_left--;
    }
    if (self->batch_left == 0) {
        self->entry_at = self->after_batch;
        self->entries_left--;
        end_batch(self);
    }
    return PF_APPENDED;
}

static int next_of_chunk(pf_stream_source *self, pf_sink *sink)
{
    if (self->batch_left > 0)
        return next_of_batch(self, sink);
    pf_stream_entry entry;
    if (unlikely(!pf_stream_read_entry(chunk_data(self), self->data_size, self->entry_at, &entry) ||
                 entry.records > self->chunk_end - self->offset)) {
        pf_stream_source_break(self, PF_STREAM_BAD_ENTRY, (int64_t)self->offset);
        return PF_APPENDED;
    }
    if (entry.is_batch && entry.records > 0 && !self->refuses) {
        if (entry.compression == PF_STREAM_PLAIN) {
            self->batch_left = entry.records;
            self->batch_at = (size_t)(entry.bytes - chunk_data(self));
            self->batch_end = self->batch_at + entry.size;
            self->after_batch = entry.next;
        } else if (entry.compression == PF_STREAM_GZIP) {
            self->wants_unpacking = 1;
        } else {
            self->refuses = 1;
        }
        return PF_APPENDED;
    }
    int refusal = !entry.is_batch ? 0 : entry.compression <= PF_STREAM_GZIP ? PF_BAD_BATCH : PF_COMPRESSED;
    if ((!entry.is_batch || entry.records > 0) &&
        offer(self, sink, entry.bytes, entry.size, entry.records, refusal) == PF_STALLED)
        return PF_STALLED;
    self->refuses = 0;
    self->entry_at = entry.next;
    self->entries_left--;
    return PF_APPENDED;
}

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
            end_chunk(self);
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
                begin_chunk(self, frame);
            else
                take_other(self, frame);
            continue;
        }
        if (next_of_chunk(self, sink) == PF_STALLED)
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

/* Nothing is taken in: what was asked for is received, so that the server need not wait for us to write its heartbeats. */
void pf_stream_source_keep_alive(pf_stream_source *self)
{
    if (self->fd < 0)
        return;
    beat(self);
    send_out(self);
    if (self->fd >= 0 && self->tls)
        self->wants_io = 1;
    else if (self->fd >= 0)
        receive(self);
    if (self->fd >= 0 && pf_stream_source_room(self) == 0)
        self->heard_ns = pf_stream_now_ns(); /* whoever does not listen cannot complain of silence */
}

/* The server says something every half of the time that was agreed upon. */
static void check_silence(pf_stream_source *self)
{
    if (self->fd >= 0 && self->heartbeat_ns && pf_stream_now_ns() - self->heard_ns > 2 * self->heartbeat_ns)
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
