/* For records that say where their messages came from: the topics that they are written to, by name, and which offset of
 * the source became which offset of the target.
 *
 * Offsets of a partition are noted as runs: messages source_first .. source_last became target_first and so on, each as
 * far from the first as before.  A record that fits the last run of its partition prolongs it; any other begins a new one
 * (after messages that the source no longer has, or after messages that were written twice).
 */
#ifndef PYTHIA_KAFKA_PLACES_H
#define PYTHIA_KAFKA_PLACES_H

#include "kafka_tickets.h"

typedef struct {
    int32_t partition;
    uint32_t topic;      /* index into the topics */
    uint32_t dirty;      /* it has grown since it was taken */
    int64_t source_first, target_first, source_last;
} pf_offset_run;

typedef struct {
    char *name;          /* of the source */
    uint32_t size;
    rd_kafka_topic_t *topic;
    pf_offset_run *open; /* the last run of each partition that has one */
    uint32_t n_open, open_room;
} pf_kafka_topic_place;

typedef struct {
    uint32_t by_name;    /* records go to the topic that they name, in the order in which they were published */
    char *prefix;        /* of the target's names */
    pf_kafka_topic_place *topics;
    uint32_t n_topics, topics_room, last;
    pf_offset_run *closed; /* runs that are over, since they were taken last */
    uint32_t n_closed, closed_room;
} pf_kafka_places;

/* The topic of this name, opened if need be; NULL: librdkafka refuses it, or there is no memory. */
static inline pf_kafka_topic_place *pf_places_topic(pf_kafka_places *self, const pf_rdkafka *api, rd_kafka_t *client,
                                                    const uint8_t *name, uint32_t size)
{
    for (uint32_t i = 0; i < self->n_topics; i++) {
        pf_kafka_topic_place *place = &self->topics[(self->last + i) % self->n_topics];
        if (place->size == size && memcmp(place->name, name, size) == 0) {
            self->last = (uint32_t)(place - self->topics);
            return place;
        }
    }
    if (self->n_topics == self->topics_room &&
        pf_grow((void **)&self->topics, &self->topics_room, sizeof *self->topics) < 0)
        return NULL;
    size_t prefix = self->prefix == NULL ? 0 : strlen(self->prefix);
    char *whole = malloc(prefix + size + 1);
    if (whole == NULL)
        return NULL;
    if (prefix > 0)
        memcpy(whole, self->prefix, prefix);
    memcpy(whole + prefix, name, size);
    whole[prefix + size] = 0;
    rd_kafka_topic_t *topic = api->topic_new(client, whole, NULL);
    memmove(whole, whole + prefix, size + 1);
    if (topic == NULL) {
        free(whole);
        return NULL;
    }
    self->last = self->n_topics;
    self->topics[self->n_topics] = (pf_kafka_topic_place){.name = whole, .size = size, .topic = topic};
    return &self->topics[self->n_topics++];
}

static inline pf_offset_run *pf_places_open_run(pf_kafka_topic_place *place, int32_t partition)
{
    for (uint32_t i = 0; i < place->n_open; i++)
        if (place->open[i].partition == partition)
            return &place->open[i];
    return NULL;
}

/* A message of this offset became one of that; to forget it would be to tell a wrong position later. */
static inline void pf_places_note(pf_kafka_places *self, uint32_t topic, int32_t partition, int64_t source, int64_t target)
{
    pf_kafka_topic_place *place = &self->topics[topic];
    pf_offset_run *run = pf_places_open_run(place, partition);
    if (run != NULL && source > run->source_last && target - source == run->target_first - run->source_first) {
        run->source_last = source;
        run->dirty = 1;
        return;
    }
    if (run == NULL) {
        if (place->n_open == place->open_room &&
            pf_grow((void **)&place->open, &place->open_room, sizeof *place->open) < 0)
            abort();
        run = &place->open[place->n_open++];
    } else if (run->dirty) {
        if (self->n_closed == self->closed_room &&
            pf_grow((void **)&self->closed, &self->closed_room, sizeof *self->closed) < 0)
            abort();
        self->closed[self->n_closed++] = *run;
    }
    *run = (pf_offset_run){.partition = partition, .topic = topic, .dirty = 1, .source_first = source,
                           .target_first = target, .source_last = source};
}

static inline void pf_places_free(pf_kafka_places *self, const pf_rdkafka *api)
{
    for (uint32_t i = 0; i < self->n_topics; i++) {
        api->topic_destroy(self->topics[i].topic);
        free(self->topics[i].name);
        free(self->topics[i].open);
    }
    free(self->topics);
    free(self->closed);
    free(self->prefix);
    memset(self, 0, sizeof *self);
}

#endif
