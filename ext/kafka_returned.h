/* Records that librdkafka gave back, or had no room for: they are handed over again before any other, in the order in
 * which they were published.  So nothing passes them but what librdkafka had when they came back.
 *
 * They come back in the order of librdkafka's batches, which is not that of publication where a batch was tried twice
 * or partitions differ; so the list is sorted before it is used.
 */
#ifndef PYTHIA_KAFKA_RETURNED_H
#define PYTHIA_KAFKA_RETURNED_H

#include "kafka_tickets.h"

typedef struct {
    uint32_t ticket;
    uint32_t in_group; /* it goes in a group, that is, never behind a record whose fate is not known */
    uint64_t serial;   /* of the ticket: numbers of tickets are used again */
    uint64_t at;
} pf_returned_record;

typedef struct {
    pf_returned_record *records;
    uint32_t count, room;
    int unsorted;
    int64_t not_before_ns; /* when they may be handed over; 0: as soon as there is room */
} pf_kafka_returned;

static inline int pf_returned_by_publication(const void *left, const void *right)
{
    const pf_returned_record *a = left, *b = right;
    if (a->serial != b->serial)
        return a->serial < b->serial ? -1 : 1;
    return a->at < b->at ? -1 : a->at > b->at;
}

static inline void pf_returned_add(pf_kafka_returned *self, const pf_outbox_tickets *tickets, uint32_t number,
                                   uint64_t at, int in_group)
{
    if (self->count == self->room && pf_grow((void **)&self->records, &self->room, sizeof *self->records) < 0)
        abort(); /* to forget it would lose it */
    pf_returned_record *one = &self->records[self->count];
    *one = (pf_returned_record){
        .ticket = number, .in_group = (uint32_t)in_group, .serial = tickets->all[number].serial, .at = at};
    if (self->count > 0 && pf_returned_by_publication(one - 1, one) > 0)
        self->unsorted = 1;
    self->count++;
}

static inline void pf_returned_wait(pf_kafka_returned *self, int64_t not_before_ns)
{
    if (not_before_ns > self->not_before_ns)
        self->not_before_ns = not_before_ns;
}

static inline void pf_returned_sort(pf_kafka_returned *self)
{
    if (self->unsorted)
        qsort(self->records, self->count, sizeof *self->records, pf_returned_by_publication);
    self->unsorted = 0;
}

/* The first so many are with librdkafka again, or settled. */
static inline void pf_returned_drop(pf_kafka_returned *self, uint32_t count)
{
    self->count -= count;
    memmove(self->records, self->records + count, self->count * sizeof *self->records);
}

#endif
