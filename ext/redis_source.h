/* Entries of Redis Streams, read by XREADGROUP from one connection, as a pf_source.
 *
 *     keeper (Python)                    intake thread, without the GIL
 *       makes a connection ── attach ──▶   requests ──▶ server ──▶ receive buffer ──▶ pf_resp ──▶ sink->append
 *       XPENDING ── offer ids ─────────▶   XCLAIM of those ids instead of the next XREADGROUP
 *       commit ◀── redis_ids.h ─────────   the id of every entry that was handed on
 *
 * The connection is made by redis-py, which has done TLS, AUTH and SELECT on it; from `attach` on nobody else reads or
 * writes it.  A plain socket is read and written here; one with TLS through Python (`wants_io`: PF_SOURCE_CALL).
 *
 * One XREADGROUP is on its way, and a second one from the moment at which the reply to the first begins to arrive, so
 * that the server works while the reply is decoded.  What is read ahead is therefore at most two replies, and COUNT is
 * chosen from the size of the entries seen so that both are within `read_ahead_bytes`.  While the sink is stalled nothing
 * is read and nothing is asked for.
 */
#ifndef PYTHIA_REDIS_SOURCE_H
#define PYTHIA_REDIS_SOURCE_H

#include "redis_fields.h"
#include "redis_ids.h"
#include "resp.h"
#include "source.h"
#include "wake.h"

#define PF_REDIS_CLAIM 1000 /* ids of one XCLAIM, and of one XACK */

typedef struct {
    uint8_t *name;
    size_t name_size;
    uint8_t *ack;        /* an XACK of this stream, but for the number of its parts in front and the ids behind */
    size_t ack_size;
    uint32_t partition;
    uint32_t bounded;
    uint64_t end_ms, end_seq; /* bounded: the last entry to read */
    uint32_t done;            /* bounded: it, or one behind it, has come, or there was nothing more */
    uint32_t in_reply;        /* the reply at hand has entries of it */
    int64_t committed;        /* the keeper's: positions below may be acknowledged */
    pf_redis_ids ids;
} pf_redis_stream;

enum { PF_REDIS_NO_CLAIM, PF_REDIS_CLAIM_OFFERED, PF_REDIS_CLAIM_SENT, PF_REDIS_CLAIM_DONE };

/* What became of an id that was claimed. */
enum { PF_REDIS_MISSING, PF_REDIS_CLAIMED, PF_REDIS_GONE };

typedef struct {
    _Atomic uint32_t state;
    uint32_t stream;
    uint32_t count, next; /* ids come back in the order in which they were asked for */
    pf_redis_id ids[PF_REDIS_CLAIM];
    uint32_t deliveries[PF_REDIS_CLAIM];
    uint8_t became[PF_REDIS_CLAIM];
    uint8_t *command;
    size_t command_size;
} pf_redis_claim;

/* Why a connection was given up. */
enum {
    PF_REDIS_CLOSED = 1, /* the server closed it */
    PF_REDIS_ERRNO,      /* `broken_number` says which */
    PF_REDIS_SILENT,     /* no answer in time */
    PF_REDIS_REFUSED,    /* the server answered with an error: `text` */
    PF_REDIS_NOT_RESP,   /* pf_resp's reason in `broken_number`, its number in `broken_size` */
    PF_REDIS_MEMORY,     /* no memory for what was received: not the connection's fault */
};

typedef struct {
    uint8_t *bytes;
    size_t at, end, room;
} pf_redis_buffer;

typedef struct {
    pf_source base; /* first */
    pf_wake_pipe pipe;
    pf_redis_stream *streams;
    uint32_t n_streams;
    pf_redis_fields fields;
    pf_resp resp;
    /* An XREADGROUP is `read_head`, the digits of COUNT as a string, `read_tail`. */
    uint8_t *read_head, *read_tail;
    size_t read_head_size, read_tail_size;
    uint32_t most_entries;      /* COUNT at most */
    size_t read_ahead_bytes;
    int64_t silent_after_ns;    /* without a byte while an answer is due */
    uint32_t bounded;

    /* Words of other threads. */
    _Atomic uint32_t attaching; /* a connection waits in `next_fd` */
    int next_fd;
    uint32_t next_tls;
    _Atomic uint32_t reads_held; /* only claims are sent */
    _Atomic uint32_t end_held;   /* a bounded source does not end yet */
    _Atomic uint32_t finishing;  /* ask for no more, end when what was asked for has come */
    _Atomic uint32_t failed;
    _Atomic uint32_t woken;
    pf_redis_claim claim;

    /* The intake thread's. */
    uint32_t announced;
    int fd; /* -1: no connection */
    uint32_t tls;
    uint32_t wants_io;    /* TLS: to be read, and what waits in `out` to be written, by Python */
    uint32_t more_inside; /* TLS: what was received is not all that there was */
    pf_redis_buffer in, out;
    uint32_t waiting_for[2]; /* shapes of the replies that are due, in order; PF_RESP_ENTRIES is the claim's */
    uint32_t n_waiting;
    uint32_t begun;     /* the first of them has begun to arrive */
    int64_t quiet_since_ns;
    int64_t stalled_since_ns; /* 0: the sink took the last entry that it was offered */
    uint32_t has_entry; /* `event` has one that the sink had no room for */
    pf_resp_event event;
    uint32_t stream;    /* whose entries the reply to a read brings; those of a claim are of claim.stream */
    uint32_t drained;   /* the server had nothing more, the last time it was asked */
    uint32_t count;     /* of the next XREADGROUP */
    uint64_t reply_bytes, reply_entries;
    uint32_t broken;    /* not told yet */
    int64_t broken_number;
    uint64_t broken_size;
    char text[512];

    /* Counters, read by other threads. */
    _Atomic uint64_t entries, bytes, requests, replies, gone;
} pf_redis_source;

int pf_redis_source_init(pf_redis_source *self, uint32_t n_streams, pf_resp_limits limits);
void pf_redis_source_release(pf_redis_source *self);

/* For the thread that does TLS: where to read to (0: no memory), and that so many bytes came. */
size_t pf_redis_source_room(pf_redis_source *self);
static inline uint8_t *pf_redis_source_end(pf_redis_source *self)
{
    return self->in.bytes + self->in.end;
}
void pf_redis_source_received(pf_redis_source *self, size_t bytes);
/* Make a poll that waits return now.  Any thread. */
void pf_redis_source_wake(pf_redis_source *self);
void pf_redis_source_break(pf_redis_source *self, uint32_t why, int64_t number);

/* The keeper's: the XACK of at most PF_REDIS_CLAIM ids that are committed and not sent yet, into `to`, which has
 * PF_REDIS_ACK_BYTES and the stream's `ack_size`; its size, 0: there are none.  `count`: how many ids. */
#define PF_REDIS_ACK_BYTES (32 + PF_REDIS_CLAIM * 48)
size_t pf_redis_source_ack(pf_redis_stream *stream, uint8_t *to, uint32_t *count);

int64_t pf_redis_now_ns(void);

#endif
