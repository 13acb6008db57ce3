/* A RabbitMQ queue as a pf_source: deliveries of one channel go from the read buffer into the intake's sink.
 *
 * All of it runs on the intake thread, but for what `mutex` guards: acknowledgements, which the completion thread adds
 * to.  What is no delivery (heartbeats, replies, channel.close, ...) is the client library's: poll returns PF_SOURCE_CALL
 * with those frames in `stream.other`, and Reader.serve() hands them on before the next poll. */
#ifndef PYTHIA_AMQP_SOURCE_H
#define PYTHIA_AMQP_SOURCE_H

#include <pthread.h>

#include "amqp_acks.h"
#include "amqp_stream.h"
#include "source.h"
#include "wake.h"

typedef struct {
    pf_source base; /* first: a pf_source * is a pf_amqp_source * */
    pf_wake_pipe pipe;
    pf_amqp_stream stream;
    uint32_t call;      /* serve() must run, whatever comes */
    uint32_t failed;    /* poll returns PF_SOURCE_FAILED */
    uint32_t ended;     /* poll returns PF_SOURCE_END */
    uint32_t dropping;  /* deliveries are left to the broker: nothing is appended any more */
    uint32_t pending;   /* a message is whole and was not appended yet */
    uint32_t auto_ack;  /* nothing is acknowledged */
    int64_t call_at_ns; /* serve() must run once this has passed */
    uint32_t prefetch;
    uint64_t appended; /* messages, of all channels */
    pthread_mutex_t mutex;
    uint32_t partition; /* index that stands for this channel */
    uint32_t consuming; /* deliveries of this channel are handed on, and acknowledged */
    int64_t waits_since_ns; /* since when something done waits above what is not; 0: nothing does */
    uint64_t ack_frames;    /* sent in all */
    pf_amqp_acks acks;
} pf_amqp_source;

int64_t pf_amqp_now_ns(void);
/* 0, or an errno. */
int pf_amqp_source_init(pf_amqp_source *self);
void pf_amqp_source_free(pf_amqp_source *self);
/* A channel begins, whose deliveries are rows of `partition`.  End it before the next one, and when it is lost. */
void pf_amqp_source_begin(pf_amqp_source *self, uint16_t channel, uint32_t partition);
void pf_amqp_source_end_channel(pf_amqp_source *self);
/* Rows are done: `tags` of `partition`.  Any thread.  1: the intake should be woken, so that it tells the broker. */
int pf_amqp_source_done(pf_amqp_source *self, uint32_t partition, const int64_t *tags, uint32_t count);
/* Deliveries handed on and not acknowledged. */
uint64_t pf_amqp_source_unacknowledged(pf_amqp_source *self);

#endif
