/* The bytes of one AMQP connection: what came and is not parsed yet, what is to be sent, and the parser between.
 *
 *     plain socket    recv() and send() here, without the GIL
 *     TLS             the same two buffers, filled and emptied by the SSLSocket that has the keys (amqp_stream.pyx)
 *
 * One thread at a time; every call returns at once. */
#ifndef PYTHIA_AMQP_STREAM_H
#define PYTHIA_AMQP_STREAM_H

#include <errno.h>
#include <sys/socket.h>

#include "amqp_frames.h"

#define PF_AMQP_IN_BYTES (256u << 10) /* twice the largest frame, so that there is always room for the rest of one */

typedef struct {
    int fd;    /* -1: no connection */
    int tls;   /* read and written from Python */
    int tls_more; /* the SSLSocket has more than there was room for, which no poll(2) tells */
    int ended; /* the peer closed it */
    int error; /* errno with which it broke */
    pf_amqp_parser parser;
    uint8_t *in;
    size_t in_at, in_size; /* in[in_at .. in_size) is not parsed yet */
    pf_amqp_text out;
    size_t out_at;     /* out[out_at .. size) is not sent yet */
    uint64_t received; /* bytes in all: a peer that sends lives */
    const uint8_t *other; /* frames for the client library, in the buffer before in_at */
    size_t other_size;
} pf_amqp_stream;

/* 0, or an errno. */
static inline int pf_amqp_stream_init(pf_amqp_stream *stream, uint64_t kept_most, uint64_t kept_head) {
    memset(stream, 0, sizeof *stream);
    stream->fd = -1;
    pf_amqp_init(&stream->parser, kept_most, kept_head);
    stream->in = (uint8_t *)malloc(PF_AMQP_IN_BYTES);
    return stream->in != NULL ? 0 : ENOMEM;
}

static inline void pf_amqp_stream_free(pf_amqp_stream *stream) {
    pf_amqp_free(&stream->parser);
    free(stream->in);
    free(stream->out.bytes);
    memset(stream, 0, sizeof *stream);
    stream->fd = -1;
}

/* Begin with a connected socket, which stays the caller's. */
static inline void pf_amqp_stream_open(pf_amqp_stream *stream, int fd, int tls) {
    uint64_t kept_most = stream->parser.kept_most, kept_head = stream->parser.kept_head;
    pf_amqp_free(&stream->parser);
    pf_amqp_init(&stream->parser, kept_most, kept_head);
    stream->fd = fd;
    stream->tls = tls;
    stream->ended = stream->error = stream->tls_more = 0;
    stream->in_at = stream->in_size = stream->out_at = stream->out.size = stream->other_size = 0;
    stream->out.failed = 0;
}

static inline void pf_amqp_stream_close(pf_amqp_stream *stream) {
    stream->fd = -1;
}

static inline int pf_amqp_stream_broken(const pf_amqp_stream *stream) {
    return stream->ended || stream->error || stream->parser.error || stream->out.failed;
}

static inline size_t pf_amqp_stream_unsent(const pf_amqp_stream *stream) {
    return stream->out.size - stream->out_at;
}

/* Move what is not parsed to the front, unless somebody still points into the buffer. */
static inline void pf_amqp_stream_compact(pf_amqp_stream *stream) {
    size_t rest = stream->in_size - stream->in_at;
    if (stream->in_at == 0) return;
    if (rest) memmove(stream->in, stream->in + stream->in_at, rest);
    stream->in_at = 0;
    stream->in_size = rest;
}

static inline void pf_amqp_stream_came(pf_amqp_stream *stream, size_t size) {
    stream->in_size += size;
    stream->received += size;
}

static inline void pf_amqp_stream_went(pf_amqp_stream *stream, size_t size) {
    stream->out_at += size;
    if (stream->out_at < stream->out.size) return;
    stream->out_at = 0;
    pf_amqp_empty(&stream->out);
}

/* Read what there is; how many bytes came, 0 as well when the connection is over. */
static inline size_t pf_amqp_stream_read(pf_amqp_stream *stream) {
    size_t room = PF_AMQP_IN_BYTES - stream->in_size;
    if (room == 0 || pf_amqp_stream_broken(stream)) return 0;
    ssize_t got = recv(stream->fd, stream->in + stream->in_size, room, MSG_DONTWAIT);
    if (got > 0) {
        pf_amqp_stream_came(stream, (size_t)got);
        return (size_t)got;
    }
    if (got == 0) stream->ended = 1;
    else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) stream->error = errno;
    return 0;
}

/* Send as much as the socket takes. */
static inline void pf_amqp_stream_flush(pf_amqp_stream *stream) {
    while (pf_amqp_stream_unsent(stream) && !stream->error) {
        ssize_t sent = send(stream->fd, stream->out.bytes + stream->out_at, pf_amqp_stream_unsent(stream),
                            MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent > 0) pf_amqp_stream_went(stream, (size_t)sent);
        else if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
        else if (sent < 0 && errno != EINTR) stream->error = errno;
    }
}

/* Take the next thing that came, as pf_amqp_next does; frames for the client library are left in `other`. */
static inline int pf_amqp_stream_next(pf_amqp_stream *stream) {
    size_t used;
    const uint8_t *bytes = stream->in + stream->in_at;
    int outcome = pf_amqp_next(&stream->parser, bytes, stream->in_size - stream->in_at, &used);
    stream->in_at += used;
    if (outcome == PF_AMQP_OTHER) {
        stream->other = bytes;
        stream->other_size = used;
    }
    return outcome;
}

#endif
