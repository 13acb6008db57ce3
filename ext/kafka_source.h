/* A Kafka consumer as a pf_source: librdkafka's queue on one side, the intake's sink on the other.
 *
 * Everything here runs without the GIL on the intake thread, but for three words: `woken` and
 * `want_paused` are set by any thread, and notes may be added by whichever thread serves librdkafka's
 * callbacks (the intake thread; the closing thread during close).
 *
 * What librdkafka tells beside messages (rebalances, errors, log lines) becomes a *note*; poll then
 * returns PF_SOURCE_CALL, and the Python side takes the notes and acts.  A rebalance is thus acted on
 * with no poll in between, and librdkafka's group state machine waits for the (un)assign call.
 */
#ifndef PYTHIA_KAFKA_SOURCE_H
#define PYTHIA_KAFKA_SOURCE_H

#include <stdatomic.h>
#include "kafka_header_list.h"
#include "kafka_notes.h"
#include "kafka_partitions.h"
#include "kafka_spent.h"
#include "source.h"
#include "wake.h"

#define PF_KAFKA_FETCH 1024  /* messages taken from librdkafka's queue at once */
#define PF_KAFKA_KEPT 8192   /* messages that may be kept for partitions that must wait, and those just taken */
#define PF_KAFKA_RESERVE 64  /* room for those that come while the sink is stalled */
#define PF_KAFKA_HELD_BYTES (32 * 1024 * 1024) /* of kept payloads, beyond which nothing is taken */

typedef struct {
    pf_source base; /* first: a pf_source * is a pf_kafka_source * */
    const pf_rdkafka *api;
    rd_kafka_t *client;
    rd_kafka_queue_t *queue;
    rd_kafka_queue_t *commits;      /* answers to commits that nobody waits for */
    _Atomic uint32_t commit_under_way; /* one of those is not answered yet */
    pf_wake_pipe pipe;     /* written by librdkafka when the queue is no longer empty, and by wake() */
    _Atomic uint32_t woken;
    _Atomic uint32_t want_paused;
    uint32_t is_paused;
    uint32_t failed;  /* poll returns PF_SOURCE_FAILED */
    uint32_t closing; /* rebalances are answered at once, by giving everything up */
    int (*is_hurried)(void *asked); /* whether to wait for the network no longer; NULL: never */
    void *asked;
    uint32_t bounded;
    uint32_t awaits_topic; /* bounded: partitions that nobody has yet are read, too, so it is not the end */
    uint32_t values_in_place; /* values lie in the record they came in (kafka_headers.h) */
    int64_t end_not_before_ns; /* bounded: an empty assignment means "all done" only from then on */
    int64_t check_at_ns;       /* return PF_SOURCE_CALL once this has passed; 0: never */
    int64_t served_ns;         /* when librdkafka was last polled while the sink was stalled */
    pf_kafka_notes notes;
    pf_kafka_spent spent;
    pf_kafka_partitions partitions;
    pf_header_room headers; /* of the message that is being appended */
    /* Of the messages that the last round kept: those that no pause stands behind, and payload bytes of all. */
    uint32_t loose;
    uint64_t held_bytes;
    int64_t full_since_ns; /* since when there has been no room for more of them; 0: there is */
    uint32_t next, count; /* messages[next .. count) are taken but not yet appended, each partition's in order */
    rd_kafka_message_t *messages[PF_KAFKA_KEPT + PF_KAFKA_RESERVE];
} pf_kafka_source;

/* Zero a source and make its pipe and lock; 0, or an errno. */
int pf_kafka_source_init(pf_kafka_source *self, const pf_rdkafka *api);
/* Let the callbacks of `conf` report to this source. */
void pf_kafka_source_configure(pf_kafka_source *self, rd_kafka_conf_t *conf);
/* Take over an open consumer: its queue is what poll reads. */
void pf_kafka_source_attach(pf_kafka_source *self, rd_kafka_t *client);
/* Drop what is kept, close the consumer if there is one, free all.  Leaving its group may take so
 * long; 0: it is not left.  So may ending the client; below 0: however long it takes.  0: that is not over, and
 * what the client's callbacks use of this source has to stay in memory. */
int pf_kafka_source_release(pf_kafka_source *self, int64_t leave_ms, int64_t end_ms);

/* After partitions were lost: drop the kept messages of those, and what was remembered of topic handles. */
void pf_kafka_source_forget(pf_kafka_source *self);
/* Pause or resume every partition that is ours, those included that were paused for themselves alone. */
void pf_kafka_source_pause(pf_kafka_source *self, uint32_t pause);

/* Between the last poll and the release: poll librdkafka, so that the membership lives and rebalances are told, but fetch
 * nothing and append nothing.  1: Reader.serve() must run, as after PF_SOURCE_CALL. */
int pf_kafka_source_keep_alive(pf_kafka_source *self);

/* Commit, and have a failure come as a note; an error code, RD_KAFKA_ERR_IN_PROGRESS while the commit before is not
 * answered: librdkafka sends one again whose connection was lost, and would send it after a later one. */
int pf_kafka_source_commit_later(pf_kafka_source *self, const rd_kafka_topic_partition_list_t *offsets);
/* Commit and wait for the broker's answer, and before it for that of the commit before, no longer than the timeout in all;
 * an error code, RD_KAFKA_ERR_TIMED_OUT when none came. */
int pf_kafka_source_commit(pf_kafka_source *self, const rd_kafka_topic_partition_list_t *offsets, int timeout_ms);

/* Leave the group within the time: whether that was done (kafka_member.c). */
int pf_kafka_source_leave(pf_kafka_source *self, int64_t leave_ms);

int64_t pf_kafka_now_ns(void);

/* How long a wait may last before it is asked again whether there is a hurry. */
#define PF_KAFKA_HURRY_MS 50

static inline int pf_kafka_is_hurried(const pf_kafka_source *self)
{
    return self->is_hurried != NULL && self->is_hurried(self->asked);
}

/* Benchmarks' yardstick: what the bare queue gives.  Counts messages and payload bytes, appends nothing. */
uint64_t pf_kafka_source_count(pf_kafka_source *self, uint64_t messages, int64_t timeout_us, uint64_t *bytes);

#endif
