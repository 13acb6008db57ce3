/* The contract between the intake thread and whatever brings messages.
 *
 * The intake thread calls `poll` without the GIL; the source hands each message to `append`, which
 * copies it into the open batch before it returns, so the pointers need to live no longer than the
 * call.  A source keeps no queue of its own beyond what its client library or its read buffer holds.
 */
#ifndef PYTHIA_SOURCE_H
#define PYTHIA_SOURCE_H

#include <stddef.h>
#include <stdint.h>

/* Why a message is refused by its source already; in the order of their reasons in decoder.h. */
enum {
    PF_WHOLE = 0,      /* it is not */
    PF_CUT = 1,        /* its source ended within it, for good */
    PF_DAMAGED = 2,    /* no record, in a file of records */
    PF_NOT_AMQP = 3,   /* no message of AMQP 1.0 */
    PF_COMPRESSED = 4, /* a batch of messages, packed in a way that is not read here */
    PF_BAD_BATCH = 5,  /* a batch of messages that cannot be taken apart */
};

typedef struct {
    const uint8_t *payload; /* NULL: a null value (tombstone) */
    size_t size;
    const uint8_t *key;
    int32_t key_size;       /* -1: no key */
    const uint8_t *headers; /* encoded as pf_message says; may be NULL when headers_size is 0 */
    uint32_t headers_size;
    uint32_t partition;     /* index into the reader's partition table */
    int64_t offset;         /* position of this message in its partition */
    int64_t next_offset;    /* position to commit once this message is done */
    int64_t timestamp_ms;   /* -1: none */
    uint32_t deliveries;    /* times its broker delivered it before; 0 where it does not say */
    uint8_t cut;            /* PF_CUT...: refused, whatever it holds; it has no key */
} pf_incoming;

enum {
    PF_APPENDED = 0, /* taken: a row, or a counted refusal */
    PF_STALLED = 1,  /* no slot is free: return PF_SOURCE_STALLED and offer the same message again */
    /* Its partition must wait, others need not: a source that can keep this message, and all later ones of its
     * partition, may go on to offer the others'.  Else it is as PF_STALLED. */
    PF_PARTITION_STALLED = 2,
};

/* What `append` writes to; defined by the intake (intake.h) or by a test. */
typedef struct pf_sink pf_sink;
struct pf_sink {
    int (*append)(pf_sink *self, const pf_incoming *message);
};

enum {
    PF_SOURCE_IDLE = 0,    /* nothing came within the timeout */
    PF_SOURCE_MORE = 1,    /* appended at least one message, or read much without one; more may be ready */
    PF_SOURCE_STALLED = 2, /* append said PF_STALLED; the message is kept for the next poll */
    PF_SOURCE_END = 3,     /* bounded source: everything was appended */
    PF_SOURCE_FAILED = 4,  /* cannot go on: Reader.failure() tells why */
    PF_SOURCE_CALL = 5,    /* Reader.serve() must run with the GIL (a rebalance, an error, a log line) */
    PF_SOURCE_SPOOL = 6,   /* bytes of an oversize message could not be kept: Reader.spool_error(); poll tries again */
};

typedef struct pf_source pf_source;
struct pf_source {
    /* Append at most `max_messages`, waiting at most `timeout_us` for the first to arrive.  Must
     * return early (IDLE) soon after wake(). */
    int (*poll)(pf_source *self, pf_sink *sink, uint32_t max_messages, int64_t timeout_us);
    /* Make a poll that waits return now.  Any thread; async-signal-safe. */
    void (*wake)(pf_source *self);
};

#endif
