/* Framed records on their way to a topic, straight from the memory they were written in.
 *
 * A ticket (kafka_tickets.h) is one published buffer, valid until every record is reported.  librdkafka gets pointers
 * into it and copies only keys and headers.  Each record travels with a token of ticket number and byte offset, so a
 * report finds its record without a table of them.
 *
 * At most `limit` records are with librdkafka at once; the rest of the tickets wait their turn.  Nothing passes a
 * record that waits: one that fails for a reason that can pass is sent again, for ever, and one that librdkafka had no
 * room for is handed over with the next report; what follows waits meanwhile (kafka_returned.h).  A record that the
 * broker will never take is noted in its ticket, as is one that is larger than all of librdkafka's queue.
 *
 * A batch of librdkafka's that is too large for the topic comes back whole, and batches behind it may be taken: so it
 * must not happen (kafka_topic_limits.h).  Where it does, its records are sent again in groups, one after the other, until
 * they are small enough or a record is alone; and from then on, if it held several, all others are, too.  One thread at
 * a time; librdkafka's callbacks run inside pf_kafka_outbox_poll on that same thread.
 *
 * A transactional producer sends nothing again by itself: a record that fails takes its transaction with it.  That is
 * noted in `lost_to`; the whole transaction is then aborted, and what its tickets held counts for nothing.  Only what
 * librdkafka refuses at once, before it is part of the transaction, is noted in its ticket as ever.
 */
#ifndef PYTHIA_KAFKA_OUTBOX_H
#define PYTHIA_KAFKA_OUTBOX_H

#include "kafka_notes.h"
#include "kafka_places.h"
#include "kafka_returned.h"
#include "kafka_tickets.h"

#define PF_OUTBOX_BURST 256
#define PF_OUTBOX_TOPICS 2

/* Groups of records that came back because their batch was too large. */
typedef struct {
    uint32_t size;  /* records of the group that is with librdkafka; 0: none is */
    int refused;    /* some of that group came back */
    int for_good;   /* a batch of several was refused: all that follows goes in groups, too */
    uint64_t bytes; /* what a group may have: halved after each that came back */
} pf_outbox_groups;

typedef struct {
    const pf_rdkafka *api;
    rd_kafka_t *client;
    rd_kafka_topic_t *topics[PF_OUTBOX_TOPICS];
    rd_kafka_queue_t *answers; /* to what the topic takes; NULL: nobody asked */
    int held;             /* nothing is handed over: what the topic takes is not known yet */
    int needs_key;        /* the topic refuses a whole batch for a record without a key: none is handed over */
    pf_kafka_notes notes;
    uint32_t transactional;
    int lost_to;          /* why the open transaction can only be aborted; 0: it can be committed */
    uint32_t limit;       /* records with librdkafka at most */
    uint32_t in_flight;   /* records with librdkafka */
    uint64_t delivered;   /* records that are durable, in all */
    int passing_error;    /* why records were sent again most recently; 0 once one was delivered since */
    pf_outbox_tickets tickets;
    pf_kafka_returned returned;
    pf_outbox_groups groups;
    uint64_t regrouped;   /* records that were sent again in groups, in all */
    pf_kafka_places places;
    rd_kafka_message_t burst[PF_OUTBOX_BURST];
} pf_kafka_outbox;

int pf_kafka_outbox_init(pf_kafka_outbox *self, const pf_rdkafka *api);
void pf_kafka_outbox_configure(pf_kafka_outbox *self, rd_kafka_conf_t *conf);
void pf_kafka_outbox_attach(pf_kafka_outbox *self, rd_kafka_t *client, uint32_t limit);

/* Hand over what there is room for, serve reports, wait up to `timeout_ms` for one. */
void pf_kafka_outbox_poll(pf_kafka_outbox *self, int timeout_ms);
/* Hand over nothing of what still waits: its tickets are done once what is with librdkafka is reported. */
void pf_kafka_outbox_abandon(pf_kafka_outbox *self);
/* Let go of the client, while nothing is with it; another one may be attached, with the topics of the same indices. */
void pf_kafka_outbox_detach(pf_kafka_outbox *self);
/* Close the producer: nothing points into the tickets' memory afterwards. */
void pf_kafka_outbox_release(pf_kafka_outbox *self);

#endif
