/* The partitions that a consumer has, or had, by topic: how far each has been read, and why it is not.
 *
 * A message names its topic by librdkafka's handle of it, which is remembered; of message after message of one
 * partition, so is the place. */
#ifndef PYTHIA_KAFKA_PARTITIONS_H
#define PYTHIA_KAFKA_PARTITIONS_H

#include <stdlib.h>
#include <string.h>
#include "rdkafka_api.h"

#define PF_KAFKA_UNBOUNDED INT64_MAX

typedef struct {
    int64_t index;    /* index of this assignment in the reader's partition table, -1: not assigned */
    int64_t end;      /* bounded reading: messages from this offset on are left alone */
    int64_t position; /* next offset to append; -1 before the first message */
    int64_t ended_at; /* where its end was met last; -1: not yet.  Beyond position where markers or gaps come last */
    int64_t held_offset;   /* of the message that was held last: it is held still while position is not beyond it */
    int64_t held_since_ns; /* 0: none was */
    int done;         /* position has reached end */
    uint8_t held;     /* the sink had no room for its first kept message: the later ones are kept without asking */
    uint8_t paused;   /* for itself alone */
} pf_kafka_partition;

typedef struct {
    char *name;
    const rd_kafka_topic_t *handle; /* the handle last seen in messages; forgotten at every rebalance */
    int32_t size;
    pf_kafka_partition *partitions;
} pf_kafka_topic;

typedef struct {
    pf_kafka_topic *topics;
    uint32_t n_topics;
    uint32_t n_assigned, n_done, n_held, n_paused; /* partitions */
    const rd_kafka_topic_t *memo_handle; /* the partition of the last message */
    int32_t memo_partition;
    pf_kafka_partition *memo;
} pf_kafka_partitions;

static inline pf_kafka_topic *pf_kafka_topic_named(const pf_kafka_partitions *self, const char *name)
{
    for (uint32_t i = 0; i < self->n_topics; i++)
        if (strcmp(self->topics[i].name, name) == 0)
            return &self->topics[i];
    return NULL;
}

static inline pf_kafka_topic *pf_kafka_topic_add(pf_kafka_partitions *self, const char *name)
{
    pf_kafka_topic *grown = realloc(self->topics, (self->n_topics + 1) * sizeof *grown);
    if (grown == NULL)
        return NULL;
    self->topics = grown;
    char *copy = strdup(name);
    if (copy == NULL)
        return NULL;
    pf_kafka_topic *topic = &grown[self->n_topics++];
    memset(topic, 0, sizeof *topic);
    topic->name = copy;
    return topic;
}

static inline int pf_kafka_topic_widen(pf_kafka_topic *topic, int32_t size)
{
    pf_kafka_partition *grown = realloc(topic->partitions, (size_t)size * sizeof *grown);
    if (grown == NULL)
        return -1;
    for (int32_t i = topic->size; i < size; i++)
        grown[i] = (pf_kafka_partition){.index = -1, .end = PF_KAFKA_UNBOUNDED, .position = -1, .ended_at = -1};
    topic->partitions = grown;
    topic->size = size;
    return 0;
}

/* The place of a partition, made when `create`; NULL: absent, or out of memory. */
static inline pf_kafka_partition *pf_kafka_place(pf_kafka_partitions *self, const char *name, int32_t partition,
                                                 int create)
{
    pf_kafka_topic *topic = pf_kafka_topic_named(self, name);
    if (partition < 0 || (topic == NULL && !create))
        return NULL;
    self->memo = NULL; /* tables may move */
    if (topic == NULL && (topic = pf_kafka_topic_add(self, name)) == NULL)
        return NULL;
    if (partition >= topic->size && (!create || pf_kafka_topic_widen(topic, partition + 1) < 0))
        return NULL;
    return &topic->partitions[partition];
}

/* A partition is not ours any more. */
static inline void pf_kafka_place_lose(pf_kafka_partitions *self, pf_kafka_partition *place)
{
    if (place->index < 0)
        return;
    self->n_assigned--;
    self->n_done -= (uint32_t)place->done;
    self->n_held -= place->held;
    self->n_paused -= place->paused;
    place->index = -1;
    place->done = 0;
    place->held = place->paused = 0;
}

/* A partition is ours from now on, as number `index`, up to `end`. */
static inline void pf_kafka_place_gain(pf_kafka_partitions *self, pf_kafka_partition *place, int64_t index, int64_t end)
{
    pf_kafka_place_lose(self, place);
    *place = (pf_kafka_partition){.index = index, .end = end, .position = -1, .ended_at = -1};
    self->n_assigned++;
}

/* The place of a message's partition; NULL: it has none. */
static inline pf_kafka_partition *pf_kafka_place_of(pf_kafka_partitions *self, const pf_rdkafka *api,
                                                    const rd_kafka_message_t *message)
{
    int as_before =
        self->memo != NULL && message->rkt == self->memo_handle && message->partition == self->memo_partition;
    if (__builtin_expect(as_before, 1))
        return self->memo;
    pf_kafka_topic *topic = NULL;
    for (uint32_t i = 0; i < self->n_topics && topic == NULL; i++)
        if (self->topics[i].handle == message->rkt)
            topic = &self->topics[i];
    if (topic == NULL && message->rkt != NULL) {
        topic = pf_kafka_topic_named(self, api->topic_name(message->rkt));
        if (topic != NULL)
            topic->handle = message->rkt;
    }
    if (topic == NULL || message->partition < 0 || message->partition >= topic->size)
        return NULL;
    self->memo_handle = message->rkt;
    self->memo_partition = message->partition;
    self->memo = &topic->partitions[message->partition];
    return self->memo;
}

/* Nothing more of it is wanted. */
static inline void pf_kafka_place_done(pf_kafka_partitions *self, pf_kafka_partition *place)
{
    if (!place->done) {
        place->done = 1;
        self->n_done++;
    }
}

/* Whether the sink has room is asked anew of each. */
static inline void pf_kafka_places_let_go(pf_kafka_partitions *self)
{
    for (uint32_t t = 0; self->n_held > 0 && t < self->n_topics; t++)
        for (int32_t p = 0; p < self->topics[t].size; p++) {
            self->n_held -= self->topics[t].partitions[p].held;
            self->topics[t].partitions[p].held = 0;
        }
}

enum { PF_PLACES_ALL, PF_PLACES_HELD, PF_PLACES_PAUSED_WITHOUT_NEED };

static inline int pf_kafka_place_is_among(const pf_kafka_partition *place, int which)
{
    if (place->index < 0)
        return 0;
    return which == PF_PLACES_ALL || (which == PF_PLACES_HELD && place->held && !place->paused) ||
           (which == PF_PLACES_PAUSED_WITHOUT_NEED && place->paused && !place->held);
}

/* Pause some of those that are ours, or resume them; those that are held are paused for themselves alone. */
static inline void pf_kafka_places_pause(pf_kafka_partitions *self, const pf_rdkafka *api, rd_kafka_t *client,
                                         int which, uint32_t pause)
{
    rd_kafka_topic_partition_list_t *list = api->topic_partition_list_new((int)self->n_assigned + 1);
    for (uint32_t t = 0; t < self->n_topics; t++)
        for (int32_t p = 0; p < self->topics[t].size; p++) {
            pf_kafka_partition *place = &self->topics[t].partitions[p];
            if (!pf_kafka_place_is_among(place, which))
                continue;
            api->topic_partition_list_add(list, self->topics[t].name, p);
            self->n_paused -= place->paused;
            place->paused = pause && which == PF_PLACES_HELD;
            self->n_paused += place->paused;
        }
    if (pause)
        api->pause_partitions(client, list);
    else
        api->resume_partitions(client, list);
    api->topic_partition_list_destroy(list);
}

/* librdkafka may free a topic's handle now, and reuse its address. */
static inline void pf_kafka_places_forget_handles(pf_kafka_partitions *self)
{
    for (uint32_t i = 0; i < self->n_topics; i++)
        self->topics[i].handle = NULL;
    self->memo = NULL;
}

static inline void pf_kafka_places_free(pf_kafka_partitions *self)
{
    for (uint32_t i = 0; i < self->n_topics; i++) {
        free(self->topics[i].name);
        free(self->topics[i].partitions);
    }
    free(self->topics);
    self->topics = NULL;
    self->n_topics = 0;
}

#endif
