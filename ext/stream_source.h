/* Streams of RabbitMQ, read by its stream protocol from one connection, as a pf_source.
 *
 *     keeper (Python)                       intake thread, without the GIL
 *       connects, logs in, subscribes
 *       with no credit yet ── attach ──▶    credit ──▶ server ──▶ chunks ──▶ CRC, entries, AMQP 1.0 ──▶ sink->append
 *
 * The socket is this source's from `attach` until `broken` is set.  A plain one is read and written here; one with TLS by
 * Python (`wants_io`: PF_SOURCE_CALL).  What is neither a chunk nor a heartbeat is left in `other` for Reader.serve().
 *
 * Credit is backpressure: the server may send so many chunks more.  A chunk that is begun is replaced by another one, and
 * as the size of chunks becomes known, so many are asked for as fit into `read_ahead_bytes`.  While the sink is stalled
 * no chunk is begun, so none is asked for; what was asked for is received until `read_ahead_bytes` wait here.  So memory
 * has a bound: that, or the one chunk that is larger.
 *
 * A chunk is taken in once all of it is there and its CRC is right.  Each message's position is its offset in its stream;
 * `wanted` is the next one, from which a new connection goes on: nothing is repeated, nothing is left out.
 */
#ifndef PYTHIA_STREAM_SOURCE_H
#define PYTHIA_STREAM_SOURCE_H

#include <stdatomic.h>

#include "amqp1_message.h"
#include "crc32.h"
#include "source.h"
#include "stream_frames.h"
#include "wake.h"

enum {
    PF_STREAM_MOST_PARTS = 255, /* a subscription's number has eight bits */
    PF_STREAM_MOST_CREDIT = 64,
    PF_STREAM_RECEIVE = 256 * 1024, /* asked of the socket at once */
    PF_STREAM_OTHER = 4096,         /* of a frame for Python, what is kept of it */
};

/* Why a connection was given up, besides what is wrong with a frame (stream_frames.h). */
enum {
    PF_STREAM_CLOSED = 32,
    PF_STREAM_ERRNO,     /* `broken_number` says which */
    PF_STREAM_SILENT,
    PF_STREAM_TOO_LARGE, /* a chunk of `broken_number` bytes */
    PF_STREAM_MEMORY,
    PF_STREAM_BEGUN_ANEW, /* the stream has `broken_number` where something behind it was read before */
};

typedef struct {
    _Atomic int64_t wanted; /* the next offset to hand on; -1: whatever comes first */
    int64_t end;            /* bounded: the last one; -1: there is nothing */
    uint32_t bounded, done;
    uint32_t exact;         /* `wanted` is behind a message that was there: the server sends no chunk that ends below it */
    uint32_t credit;        /* chunks that the server may still send */
    uint32_t target;        /* of which there should be so many */
    uint64_t largest;       /* chunk of late */
} pf_stream_part;

typedef struct {
    pf_source base; /* first */
    pf_wake_pipe pipe;
    pf_crc32 crc;
    pf_stream_part *parts; /* PF_STREAM_MOST_PARTS; the index is partition and subscription */
    _Atomic uint32_t n_parts; /* 0: not known yet */
    uint32_t raw;          /* messages are their bytes, not AMQP 1.0 */
    uint64_t read_ahead_bytes, most_chunk_bytes;
    int64_t heartbeat_ns;  /* 0: none */
    int64_t call_at_ns;

    /* Words of other threads. */
    _Atomic uint32_t attaching; /* a connection waits in `next_fd` */
    int next_fd;
    uint32_t next_tls;
    int64_t next_heartbeat_ns;
    _Atomic uint32_t failed, woken, ends_known;

    /* The intake thread's. */
    uint32_t announced;
    int fd; /* -1: no connection */
    uint32_t tls, wants_io, more_inside;
    uint8_t *in;
    size_t in_at, in_end, in_room; /* in[in_at .. in_end) waits; a frame that is begun begins at in_at */
    pf_amqp_text out;
    size_t out_at;
    int64_t heard_ns, sent_ns;
    /* The chunk at hand. */
    uint32_t in_chunk, part, entries_left;
    size_t frame_size, data_at, data_size, entry_at; /* from in_at; the last one from data_at */
    uint64_t offset, chunk_end;
    int64_t chunk_ms;
    /* The sub-batch at hand: simple entries, in the chunk or unpacked by Python. */
    uint32_t batch_left;      /* messages */
    size_t batch_at, batch_end;
    size_t after_batch;       /* where the next entry begins, from data_at */
    uint8_t *unpacked;        /* NULL: the sub-batch is in the chunk */
    uint32_t wants_unpacking; /* the entry at hand is packed: unpack it and call pf_stream_source_unpacked */
    uint32_t refuses;         /* it could not be: one refused row stands for all of it */
    pf_amqp1_message message;
    uint32_t broken; /* not told yet */
    int64_t broken_number;
    size_t other_size;
    uint8_t other[PF_STREAM_OTHER];

    /* Counters, read by other threads. */
    _Atomic uint64_t messages, bytes, chunks, waiting;
} pf_stream_source;

int64_t pf_stream_now_ns(void);
int pf_stream_source_init(pf_stream_source *self);
void pf_stream_source_free(pf_stream_source *self);
void pf_stream_source_break(pf_stream_source *self, uint32_t why, int64_t number);

/* stream_chunks.c, for stream_source.c: a Deliver frame of so many bytes is whole at the front; its next message, or what
 * stands for several (PF_STALLED: there is no room for it); all of it is handed on. */
void pf_stream_begin_chunk(pf_stream_source *self, size_t frame);
int pf_stream_next_of_chunk(pf_stream_source *self, pf_sink *sink);
void pf_stream_end_chunk(pf_stream_source *self);
/* Forget the sub-batch at hand. */
void pf_stream_end_batch(pf_stream_source *self);

static inline void pf_stream_count_up(_Atomic uint64_t *counter, uint64_t more)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + more, memory_order_relaxed);
}

/* Where more is to be received (in + in_end), and how much; 0: nothing now (or `broken`). */
size_t pf_stream_source_room(pf_stream_source *self);
void pf_stream_source_received(pf_stream_source *self, size_t bytes);
/* Any thread. */
void pf_stream_source_wake(pf_stream_source *self);
/* While nothing is polled any more: heartbeats go out, and what comes is received as far as it may be. */
void pf_stream_source_keep_alive(pf_stream_source *self);
/* The packed sub-batch at hand. */
const uint8_t *pf_stream_source_packed(pf_stream_source *self, pf_stream_entry *entry);
/* It, unpacked, which becomes the source's; NULL: it cannot be, and is refused. */
void pf_stream_source_unpacked(pf_stream_source *self, uint8_t *bytes, size_t size);

#endif
