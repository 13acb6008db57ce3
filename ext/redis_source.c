#include "redis_source.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define unlikely(x) __builtin_expect(!!(x), 0)

#define READ_BYTES (256 * 1024)   /* asked of the socket at once */
#define FIRST_COUNT 32            /* entries of the first read, before their size is known */
#define SHORTEST_COUNT 1

/* A source that is to finish hands on what it has asked for, but not to a sink that takes nothing for so long: that is
 * held back on purpose (a gate is closed), and what is left stays pending. */
static const int64_t FINISH_STALLED_NS = 10ll * 1000 * 1000 * 1000;

int64_t pf_redis_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void count_up(_Atomic uint64_t *counter, uint64_t more)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + more, memory_order_relaxed);
}

/* ---- buffers ------------------------------------------------------------------------------------------------ */

/* Room for `bytes` more behind what is there; 0: no memory. */
static int buffer_room(pf_redis_buffer *self, size_t bytes)
{
    if (self->at > 0) {
        memmove(self->bytes, self->bytes + self->at, self->end - self->at);
        self->end -= self->at;
        self->at = 0;
    }
    if (self->room - self->end >= bytes)
        return 1;
    uint8_t *grown = realloc(self->bytes, self->end + bytes);
    if (grown == NULL)
        return 0;
    self->bytes = grown;
    self->room = self->end + bytes;
    return 1;
}

static void buffer_put(pf_redis_buffer *self, const void *bytes, size_t size)
{
    memcpy(self->bytes + self->end, bytes, size);
    self->end += size;
}

static void buffer_clear(pf_redis_buffer *self)
{
    self->at = self->end = 0;
}

/* ---- the connection ------------------------------------------------------------------------------------------ */

void pf_redis_source_break(pf_redis_source *self, uint32_t why, int64_t number)
{
    self->fd = -1;
    self->broken = why;
    self->broken_number = number;
    self->n_waiting = 0;
    self->has_entry = 0;
    self->wants_io = self->more_inside = 0;
    if (atomic_load(&self->claim.state) == PF_REDIS_CLAIM_SENT) /* what it claimed is found again as its own */
        atomic_store(&self->claim.state, PF_REDIS_NO_CLAIM);
    buffer_clear(&self->in);
    buffer_clear(&self->out);
}

static void attach(pf_redis_source *self)
{
    self->fd = self->next_fd;
    self->tls = self->next_tls;
    self->n_waiting = 0;
    self->begun = 0;
    self->has_entry = 0;
    self->drained = 0;
    self->broken = 0;
    for (uint32_t i = 0; i < self->n_streams; i++)
        self->streams[i].in_reply = 0;
    self->count = self->most_entries < FIRST_COUNT ? self->most_entries : FIRST_COUNT;
    self->quiet_since_ns = pf_redis_now_ns();
    buffer_clear(&self->in);
    buffer_clear(&self->out);
    atomic_store_explicit(&self->attaching, 0, memory_order_release);
}

/* Where more is to be received; 0: no memory for it. */
size_t pf_redis_source_room(pf_redis_source *self)
{
    size_t here = self->in.end - self->in.at;
    size_t wanted = self->resp.want > here + READ_BYTES ? self->resp.want - here : READ_BYTES;
    return buffer_room(&self->in, wanted) ? self->in.room - self->in.end : 0;
}

void pf_redis_source_received(pf_redis_source *self, size_t bytes)
{
    self->in.end += bytes;
    self->reply_bytes += bytes;
    self->begun = 1;
    self->quiet_since_ns = pf_redis_now_ns();
    count_up(&self->bytes, bytes);
}

/* Take what has come: 1 something, 0 nothing, -1 the connection is gone. */
static int receive(pf_redis_source *self)
{
    size_t room = pf_redis_source_room(self);
    if (room == 0) {
        pf_redis_source_break(self, PF_REDIS_MEMORY, ENOMEM);
        return -1;
    }
    ssize_t got = recv(self->fd, self->in.bytes + self->in.end, room, MSG_DONTWAIT);
    if (got > 0) {
        pf_redis_source_received(self, (size_t)got);
        return 1;
    }
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return 0;
    pf_redis_source_break(self, got == 0 ? PF_REDIS_CLOSED : PF_REDIS_ERRNO, got == 0 ? 0 : errno);
    return -1;
}

/* Send what waits to be sent, as far as the socket takes it. */
static void send_out(pf_redis_source *self)
{
    while (!self->tls && self->fd >= 0 && self->out.at < self->out.end) {
        ssize_t sent = send(self->fd, self->out.bytes + self->out.at, self->out.end - self->out.at,
                            MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent >= 0)
            self->out.at += (size_t)sent;
        else if (errno == EAGAIN || errno == EWOULDBLOCK)
            return;
        else if (errno != EINTR)
            pf_redis_source_break(self, PF_REDIS_ERRNO, errno);
    }
}

/* ---- requests ------------------------------------------------------------------------------------------------ */

static void await(pf_redis_source *self, uint32_t shape)
{
    if (self->n_waiting == 0) {
        pf_resp_expect(&self->resp, shape);
        self->begun = 0;
        self->reply_bytes = self->reply_entries = 0;
        self->quiet_since_ns = pf_redis_now_ns();
    }
    self->waiting_for[self->n_waiting++] = shape;
    count_up(&self->requests, 1);
    self->wants_io |= self->tls;
    send_out(self);
}

static int ask_for_claim(pf_redis_source *self)
{
    pf_redis_claim *claim = &self->claim;
    if (!buffer_room(&self->out, claim->command_size))
        return 0;
    buffer_put(&self->out, claim->command, claim->command_size);
    claim->next = 0;
    atomic_store_explicit(&claim->state, PF_REDIS_CLAIM_SENT, memory_order_relaxed);
    await(self, PF_RESP_ENTRIES);
    return 1;
}

static int ask_for_more(pf_redis_source *self)
{
    char digits[16], size[16];
    int digits_size = snprintf(digits, sizeof digits, "%u\r\n", self->count);
    int size_size = snprintf(size, sizeof size, "$%d\r\n", digits_size - 2);
    if (!buffer_room(&self->out, self->read_head_size + sizeof digits + sizeof size + self->read_tail_size))
        return 0;
    buffer_put(&self->out, self->read_head, self->read_head_size);
    buffer_put(&self->out, size, (size_t)size_size);
    buffer_put(&self->out, digits, (size_t)digits_size);
    buffer_put(&self->out, self->read_tail, self->read_tail_size);
    await(self, PF_RESP_STREAMS);
    return 1;
}

static int all_done(const pf_redis_source *self)
{
    for (uint32_t i = 0; i < self->n_streams; i++)
        if (!self->streams[i].done)
            return 0;
    return 1;
}

/* Whether a bounded source has asked often enough. */
static int has_read_all(const pf_redis_source *self)
{
    return self->bounded && (self->drained || all_done(self));
}

/* Have two requests on their way, the second one once the first is being answered.  A claim goes before a read. */
static void ask(pf_redis_source *self)
{
    while (self->fd >= 0 && self->out.at == self->out.end && !atomic_load_explicit(&self->finishing, memory_order_acquire)) {
        if (self->n_waiting == 2 || (self->n_waiting == 1 && !self->begun))
            return;
        int asked;
        if (atomic_load_explicit(&self->claim.state, memory_order_acquire) == PF_REDIS_CLAIM_OFFERED)
            asked = ask_for_claim(self);
        else if (!atomic_load_explicit(&self->reads_held, memory_order_acquire) && !has_read_all(self))
            asked = ask_for_more(self);
        else
            return;
        if (!asked)
            pf_redis_source_break(self, PF_REDIS_MEMORY, ENOMEM);
    }
}

/* ---- replies --------------------------------------------------------------------------------------------------- */

/* COUNT of the next read: so many that two replies are within what may be read ahead.  It counts for each stream. */
static void choose_count(pf_redis_source *self)
{
    if (self->reply_entries == 0)
        return;
    uint64_t size = self->reply_bytes / self->reply_entries + 1;
    uint64_t fit = self->read_ahead_bytes / 2 / size / self->n_streams;
    uint64_t most = self->most_entries;
    /* Entries may be larger than those seen last, so it grows step by step. */
    if (most > 4 * (uint64_t)self->count)
        most = 4 * (uint64_t)self->count;
    self->count = (uint32_t)(fit < SHORTEST_COUNT ? SHORTEST_COUNT : fit < most ? fit : most);
}

static void reply_over(pf_redis_source *self)
{
    count_up(&self->replies, 1);
    if (self->waiting_for[0] == PF_RESP_STREAMS) {
        self->drained = self->reply_entries == 0;
        for (uint32_t i = 0; i < self->n_streams; i++) {
            self->streams[i].done |= self->bounded && !self->streams[i].in_reply; /* it had nothing more */
            self->streams[i].in_reply = 0;
        }
        choose_count(self);
    } else {
        atomic_store_explicit(&self->claim.state, PF_REDIS_CLAIM_DONE, memory_order_release);
    }
    self->n_waiting--;
    self->waiting_for[0] = self->waiting_for[1];
    self->begun = self->in.at < self->in.end;
    self->reply_bytes = self->in.end - self->in.at;
    self->reply_entries = 0;
    self->quiet_since_ns = pf_redis_now_ns();
    if (self->n_waiting > 0)
        pf_resp_expect(&self->resp, self->waiting_for[0]);
}

static void refused(pf_redis_source *self, pf_resp_text text)
{
    size_t size = text.size < sizeof self->text - 1 ? text.size : sizeof self->text - 1;
    memcpy(self->text, text.bytes, size);
    self->text[size] = '\0';
    pf_redis_source_break(self, PF_REDIS_REFUSED, 0);
}

static void not_resp(pf_redis_source *self)
{
    snprintf(self->text, sizeof self->text, "%s", self->resp.expected != NULL ? self->resp.expected : "");
    self->broken_size = self->resp.bad_number;
    pf_redis_source_break(self, PF_REDIS_NOT_RESP, self->resp.bad);
}

/* The stream of that name; the streams of a reply come in the order in which they were asked for. */
static int find_stream(pf_redis_source *self, pf_resp_text name)
{
    for (uint32_t i = 0; i < self->n_streams; i++) {
        uint32_t at = (self->stream + i) % self->n_streams;
        const pf_redis_stream *stream = &self->streams[at];
        if (stream->name_size == name.size && memcmp(stream->name, name.bytes, name.size) == 0) {
            self->stream = at;
            self->streams[at].in_reply = 1;
            return 1;
        }
    }
    return 0;
}

/* How often a claimed entry was delivered before: it is among the ids that were asked for, behind the one before. */
static uint32_t deliveries_of(pf_redis_claim *claim, const pf_resp_event *entry)
{
    for (uint32_t i = claim->next; i < claim->count; i++)
        if (claim->ids[i].ms == entry->ms && claim->ids[i].seq == entry->seq) {
            claim->next = i + 1;
            claim->became[i] = entry->is_gone ? PF_REDIS_GONE : PF_REDIS_CLAIMED;
            return claim->deliveries[i];
        }
    return 0;
}

static int offer(pf_redis_source *self, pf_sink *sink)
{
    const pf_resp_event *entry = &self->event;
    int is_claimed = self->waiting_for[0] == PF_RESP_ENTRIES;
    pf_redis_stream *stream = &self->streams[is_claimed ? self->claim.stream : self->stream];
    if (entry->is_gone) {
        count_up(&self->gone, 1);
        if (is_claimed && entry->has_id)
            deliveries_of(&self->claim, entry);
        return PF_APPENDED;
    }
    int64_t offset = atomic_load_explicit(&stream->ids.end, memory_order_relaxed);
    pf_incoming incoming = {
        .partition = stream->partition,
        .offset = offset,
        .next_offset = offset + 1,
        .timestamp_ms = entry->ms <= INT64_MAX / 1000 ? (int64_t)entry->ms : -1,
    };
    if (unlikely(!pf_redis_fields_map(&self->fields, entry, &incoming) || !pf_redis_ids_reserve(&stream->ids))) {
        pf_redis_source_break(self, PF_REDIS_MEMORY, ENOMEM);
        return PF_APPENDED; /* nothing is lost: it is pending, and read again by the next connection */
    }
    if (is_claimed) {
        uint32_t next = self->claim.next;
        incoming.deliveries = deliveries_of(&self->claim, entry);
        if (sink->append(sink, &incoming) != PF_APPENDED) {
            self->claim.next = next;
            return PF_STALLED;
        }
    } else {
        if (sink->append(sink, &incoming) != PF_APPENDED)
            return PF_STALLED;
        if (stream->bounded && (entry->ms > stream->end_ms || (entry->ms == stream->end_ms && entry->seq >= stream->end_seq)))
            stream->done = 1;
    }
    pf_redis_ids_append(&stream->ids, entry->ms, entry->seq);
    count_up(&self->entries, 1);
    return PF_APPENDED;
}

/* Hand on what has been received; PF_STALLED: the sink has no room for the entry at hand. */
static int take_in(pf_redis_source *self, pf_sink *sink, uint32_t max_messages, uint32_t *appended)
{
    while (self->n_waiting > 0 && *appended < max_messages) {
        if (!self->has_entry) {
            int kind = pf_resp_next(&self->resp, self->in.bytes + self->in.at, self->in.end - self->in.at, &self->event);
            if (kind == PF_RESP_MORE || kind == PF_RESP_BAD) {
                self->in.at += self->event.used;
                if (kind == PF_RESP_BAD)
                    not_resp(self);
                return PF_APPENDED;
            }
            if (kind == PF_RESP_ERROR) {
                refused(self, self->event.text);
                return PF_APPENDED;
            }
            if (kind == PF_RESP_STREAM && !find_stream(self, self->event.text)) {
                self->resp.expected = "a stream that was asked for";
                self->resp.bad = PF_RESP_GARBAGE;
                not_resp(self);
                return PF_APPENDED;
            }
            if (kind != PF_RESP_ENTRY) {
                self->in.at += self->event.used;
                if (kind != PF_RESP_STREAM)
                    reply_over(self);
                continue;
            }
        }
        self->has_entry = 1;
        if (offer(self, sink) == PF_STALLED)
            return PF_STALLED;
        if (self->fd < 0)
            return PF_APPENDED;
        *appended += !self->event.is_gone;
        self->reply_entries++;
        self->has_entry = 0;
        self->in.at += self->event.used;
    }
    return PF_APPENDED;
}

/* ---- poll ------------------------------------------------------------------------------------------------------ */

static int ended(pf_redis_source *self)
{
    if (self->n_waiting > 0 && self->fd >= 0)
        return 0;
    if (atomic_load_explicit(&self->finishing, memory_order_acquire))
        return 1;
    return self->fd >= 0 && has_read_all(self) && !atomic_load_explicit(&self->end_held, memory_order_acquire) &&
           atomic_load_explicit(&self->claim.state, memory_order_acquire) == PF_REDIS_NO_CLAIM;
}

/* Wait for the socket, for wake(), or for `until`. */
static void wait_for_news(pf_redis_source *self, int64_t until)
{
    int64_t left_ns = until - pf_redis_now_ns();
    if (left_ns <= 0)
        return;
    struct pollfd ends[2] = {{.fd = self->pipe.read_fd, .events = POLLIN},
                             {.fd = self->fd, .events = POLLIN}}; /* poll(2) passes a negative one over */
    if (self->out.at < self->out.end)
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

static int poll_entries(pf_source *base, pf_sink *sink, uint32_t max_messages, int64_t timeout_us)
{
    pf_redis_source *self = (pf_redis_source *)base;
    int64_t deadline = 0;
    uint32_t appended = 0;
    for (;;) {
        if (atomic_load_explicit(&self->failed, memory_order_acquire))
            return PF_SOURCE_FAILED;
        if (!self->announced || self->broken || self->wants_io)
            return PF_SOURCE_CALL;
        if (self->fd < 0 && atomic_load_explicit(&self->attaching, memory_order_acquire))
            attach(self);
        if (self->fd >= 0) {
            send_out(self);
            ask(self);
            if (take_in(self, sink, max_messages, &appended) == PF_STALLED) {
                int64_t now = pf_redis_now_ns();
                self->quiet_since_ns = now; /* whoever does not listen cannot complain of silence */
                if (self->stalled_since_ns == 0 || appended > 0)
                    self->stalled_since_ns = now;
                int gives_up = now - self->stalled_since_ns > FINISH_STALLED_NS;
                return gives_up && atomic_load(&self->finishing) ? PF_SOURCE_END : PF_SOURCE_STALLED;
            }
            self->stalled_since_ns = 0;
            if (self->broken)
                continue;
            if (appended >= max_messages)
                return PF_SOURCE_MORE;
            ask(self);
            if (self->fd >= 0 && !self->tls && self->n_waiting > 0 && receive(self) != 0)
                continue;
            self->wants_io |= self->more_inside && self->n_waiting > 0;
        }
        if (self->broken || self->wants_io)
            continue;
        if (appended > 0)
            return PF_SOURCE_MORE;
        if (ended(self))
            return PF_SOURCE_END;
        int64_t now = pf_redis_now_ns();
        if (deadline == 0)
            deadline = now + timeout_us * 1000;
        if (self->n_waiting > 0 && now - self->quiet_since_ns > self->silent_after_ns) {
            pf_redis_source_break(self, PF_REDIS_SILENT, 0);
            continue;
        }
        if (atomic_exchange_explicit(&self->woken, 0, memory_order_acquire) || now >= deadline)
            return PF_SOURCE_IDLE;
        wait_for_news(self, deadline);
    }
}

void pf_redis_source_wake(pf_redis_source *self)
{
    atomic_store_explicit(&self->woken, 1, memory_order_release);
    pf_wake_signal(&self->pipe);
}

static void wake(pf_source *base)
{
    pf_redis_source_wake((pf_redis_source *)base);
}

/* ---- XACK ---------------------------------------------------------------------------------------------------------- */

static size_t put_decimal(uint8_t *to, uint64_t value)
{
    uint8_t digits[20];
    size_t n = 0;
    do {
        digits[n++] = (uint8_t)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    for (size_t i = 0; i < n; i++)
        to[i] = digits[n - 1 - i];
    return n;
}

size_t pf_redis_source_ack(pf_redis_stream *stream, uint8_t *to, uint32_t *count)
{
    enum { PARTS = 3 }; /* XACK, stream, group */
    int64_t left = stream->committed - stream->ids.sent;
    *count = left <= 0 ? 0 : left < PF_REDIS_CLAIM ? (uint32_t)left : PF_REDIS_CLAIM;
    if (*count == 0)
        return 0;
    uint8_t *at = to;
    *at++ = '*';
    at += put_decimal(at, PARTS + *count);
    *at++ = '\r';
    *at++ = '\n';
    memcpy(at, stream->ack, stream->ack_size);
    at += stream->ack_size;
    const pf_redis_ids_block *block = NULL;
    for (uint32_t i = 0; i < *count; i++) {
        pf_redis_id id = pf_redis_ids_at(&stream->ids, &block, stream->ids.sent + i);
        uint8_t text[41];
        size_t size = put_decimal(text, id.ms);
        text[size++] = '-';
        size += put_decimal(text + size, id.seq);
        *at++ = '$';
        at += put_decimal(at, size);
        *at++ = '\r';
        *at++ = '\n';
        memcpy(at, text, size);
        at += size;
        *at++ = '\r';
        *at++ = '\n';
    }
    stream->ids.sent += *count;
    return (size_t)(at - to);
}

/* ---- life ---------------------------------------------------------------------------------------------------------- */

int pf_redis_source_init(pf_redis_source *self, uint32_t n_streams, pf_resp_limits limits)
{
    memset(self, 0, sizeof *self);
    self->base.poll = poll_entries;
    self->base.wake = wake;
    self->fd = -1;
    self->pipe.read_fd = self->pipe.write_fd = -1;
    pf_resp_init(&self->resp, limits);
    self->streams = calloc(n_streams, sizeof *self->streams);
    if (self->streams == NULL)
        return ENOMEM;
    self->n_streams = n_streams;
    for (uint32_t i = 0; i < n_streams; i++)
        if (pf_redis_ids_init(&self->streams[i].ids) != 0)
            return ENOMEM;
    return pf_wake_open(&self->pipe);
}

void pf_redis_source_release(pf_redis_source *self)
{
    self->fd = -1;
    for (uint32_t i = 0; i < self->n_streams; i++) {
        free(self->streams[i].name);
        free(self->streams[i].ack);
        pf_redis_ids_free(&self->streams[i].ids);
    }
    free(self->streams);
    free(self->read_head);
    free(self->read_tail);
    free(self->in.bytes);
    free(self->out.bytes);
    free(self->claim.command);
    pf_resp_free(&self->resp);
    pf_redis_fields_free(&self->fields);
    pf_wake_close(&self->pipe);
    self->n_streams = 0;
    self->streams = NULL;
}
