/* A share group (KIP-932) as a pf_source: several runtimes take rows of the same partitions, and each row is acknowledged
 * by itself.
 *
 * A librdkafka share consumer gives out nothing more until every row of its last poll is acknowledged.  So a source has
 * several of them, its *hands*: while the rows of one are handled, the others bring more.  Each is a member of the group.
 *
 * All calls of a share consumer are made on the intake thread, since it may have one user at a time.  The completion
 * thread notes what is done under the mutex, and the intake thread tells librdkafka. */
#ifndef PYTHIA_KAFKA_SHARE_H
#define PYTHIA_KAFKA_SHARE_H

#include <pthread.h>
#include <stdatomic.h>

#include "kafka_header_list.h"
#include "kafka_notes.h"
#include "kafka_partitions.h"
#include "kafka_share_api.h"
#include "kafka_share_rows.h"
#include "source.h"
#include "wake.h"

#define PF_SHARE_MOST_HANDS 16
#define PF_SHARE_PARTITIONS 4096 /* PF_PARTITION_NAMES */

typedef struct pf_share_source pf_share_source;

typedef struct {
    pf_share_source *source;
    rd_kafka_share_t *consumer;
    rd_kafka_t *client;           /* the same one, for questions; told by an interceptor, as no function gives it */
    rd_kafka_queue_t *queue;      /* what share_poll reads, whose first message writes to the pipe */
    rd_kafka_messages_t *messages; /* of the last poll, until all are appended; NULL: they are */
    size_t next, count;           /* messages next .. count are not appended yet */
    uint32_t open;                /* rows of the last poll that are not acknowledged */
    uint32_t unsent;              /* acknowledgements that librdkafka has, and has not sent */
    int64_t unsent_since_ns;
    int64_t served_ns;            /* when a call last served its callbacks */
    int64_t taken_ns;             /* when the last poll brought something */
} pf_share_hand;

/* What librdkafka is to be told. */
typedef struct {
    int64_t offset;
    uint32_t partition;
    int32_t hand;
    int32_t type; /* RD_KAFKA_SHARE_ACCEPT, or RD_KAFKA_SHARE_RELEASE */
} pf_share_ack;

typedef struct {
    pf_share_ack *acks;
    uint32_t count, room;
} pf_share_acks;

/* The partition that an index stands for. */
typedef struct {
    const char *topic; /* NULL: none */
    uint32_t index;
    int32_t partition;
} pf_share_name;

struct pf_share_source {
    pf_source base; /* first: a pf_source * is a pf_share_source * */
    const pf_rdkafka *api;
    const pf_rdkafka_share *share;
    pf_wake_pipe pipe;
    _Atomic uint32_t woken;
    uint32_t call, failed, ended;
    uint32_t subscribed; /* before, there is nothing to poll */
    uint32_t leaving;    /* nothing is taken any more */
    uint32_t closing;
    int64_t call_at_ns;  /* serve() must run once this has passed; 0: never */
    int64_t lock_ns;     /* how long the broker keeps a row for us */
    int32_t deliveries;  /* of a row at most */
    int64_t came_ns;     /* when a row came last */
    int64_t swept_ns;
    pf_kafka_notes notes;
    pf_kafka_partitions partitions; /* of all hands; a place's index is that of its partition */
    pf_share_name names[PF_SHARE_PARTITIONS];
    pf_header_room headers;
    uint32_t n_hands;
    uint32_t turn; /* the hand that is looked at first */
    pf_share_hand hands[PF_SHARE_MOST_HANDS];
    pf_share_acks telling; /* being told; the intake thread's */
    /* Rows that were appended; that the broker will not deliver again; whose lock was over before they were done; that
     * came again while they were in hand here, or when they were done already. */
    _Atomic uint64_t appended, last, expired, known;
    pthread_mutex_t mutex; /* guards what follows */
    pf_share_rows rows;
    pf_share_acks acks;
    uint32_t unconfirmed; /* rows that are done, and whose acknowledgement the broker has not confirmed */
    uint64_t refused;     /* acknowledgements that it did not take */
};

int64_t pf_share_now_ns(void);
/* Zero a source and make its pipe and locks; 0, or an errno. */
int pf_share_source_init(pf_share_source *self, const pf_rdkafka *api, const pf_rdkafka_share *share);
/* One more hand, made of a configuration, which it takes over; 0: `reason` tells why there is none. */
int pf_share_source_add(pf_share_source *self, rd_kafka_conf_t *conf, char *reason, size_t reason_size);
/* Join the group with every hand; an error code. */
int pf_share_source_subscribe(pf_share_source *self, const rd_kafka_topic_partition_list_t *topics);
/* Hands to which the group has given partitions. */
uint32_t pf_share_source_assigned(const pf_share_source *self);
/* Rows of a partition have this index from here on; -1: there is no memory for it. */
int pf_share_source_name(pf_share_source *self, const char *topic, int32_t partition, uint32_t index);
/* Nothing of this index is acknowledged any more: its topic was made anew, so that its offsets are others' now. */
void pf_share_source_forget(pf_share_source *self, uint32_t partition);
/* A message waits until its partition has an index: which; NULL: none does. */
const char *pf_share_source_unnamed(pf_share_source *self, int32_t *partition);
/* Rows of a partition are done.  Any thread.  1: the intake should be woken, so that it tells librdkafka. */
int pf_share_source_done(pf_share_source *self, uint32_t partition, const int64_t *offsets, uint32_t count);
/* Take nothing in, but acknowledge what is done.  1: Reader.serve() must run. */
int pf_share_source_turn(pf_share_source *self, int64_t timeout_us);
/* Rows that are done, and whose acknowledgement the broker has not confirmed.  Any thread. */
uint32_t pf_share_source_unconfirmed(pf_share_source *self);
/* Rows taken in that are not acknowledged, by the hands, and messages that were not appended. */
uint64_t pf_share_source_in_hand(const pf_share_source *self);
/* Leave the group with every hand, whose locks the broker then gives up; free all.  It may take so long.  0: it is not
 * over, and what callbacks use of this source has to stay in memory. */
int pf_share_source_release(pf_share_source *self, int64_t timeout_ms);

/* ---- between the files of a share source ---- */

/* How long acknowledgements wait for the next poll, which takes them along, before they are sent by themselves. */
#define PF_SHARE_SEND_AFTER_NS (50ll * 1000 * 1000)

/* How often the callbacks of a hand are served that does not poll, for rows of it are in hand. */
#define PF_SHARE_SERVE_NS (100ll * 1000 * 1000)

/* Have an acknowledgement told to librdkafka; under the mutex. */
void pf_share_push(pf_share_acks *acks, int64_t offset, uint32_t partition, int32_t hand, int32_t type);
/* Keep what a call said, and free it. */
void pf_share_note_error(pf_share_source *self, rd_kafka_error_t *error);
/* Send what librdkafka was told; its callbacks are served by that, too. */
void pf_share_send(pf_share_source *self, pf_share_hand *hand);
/* Tell librdkafka what is done, send what has waited, and let go of rows whose lock is over. */
void pf_share_look_after(pf_share_source *self);
/* librdkafka's callback with the broker's answer to acknowledgements. */
void pf_share_on_acknowledged(rd_kafka_share_t *consumer, rd_kafka_share_offsets_list_t *list, int err, void *opaque);

#endif
