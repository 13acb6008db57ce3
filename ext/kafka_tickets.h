/* Tickets: published buffers of framed records on their way, and which records of each will never be taken.
 *
 *     add --> waiting --handed over whole--> (in no list) --every record reported--> done --forget--> free
 *
 * A record is known by the number of its ticket and the byte that it begins at, which fit one pointer together.
 */
#ifndef PYTHIA_KAFKA_TICKETS_H
#define PYTHIA_KAFKA_TICKETS_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "framed_records.h"
#include "rdkafka_api.h"

#define PF_OUTBOX_NONE UINT32_MAX
#define PF_TICKET_AT_BITS 40 /* of a token: byte offset; the rest is the ticket number */

_Static_assert(sizeof(void *) == 8, "a token holds a ticket number and a byte offset");

typedef struct {
    uint64_t at; /* byte offset of the record in its ticket */
    int err;
} pf_outbox_failure;

typedef struct {
    const uint8_t *records;
    uint64_t size;
    uint64_t at;          /* first byte not yet handed to librdkafka */
    uint64_t id;          /* the publisher's own number */
    uint64_t serial;      /* tickets that were added before it */
    uint32_t topic;       /* its index among the producer's */
    uint32_t outstanding; /* handed over, or waiting to be sent again: not yet reported for good */
    uint32_t next;        /* next ticket in the same list */
    uint32_t n_failures, room;
    pf_outbox_failure *failures;
} pf_outbox_ticket;

typedef struct {
    pf_outbox_ticket *all;
    uint64_t added;                       /* in all */
    uint32_t count;
    uint32_t free_first;                  /* not in use */
    uint32_t waiting_first, waiting_last; /* not yet handed over whole */
    uint32_t done_first, done_last;       /* reported whole */
} pf_outbox_tickets;

static inline void *pf_ticket_token(uint32_t number, uint64_t at)
{
    return (void *)(uintptr_t)((uint64_t)number << PF_TICKET_AT_BITS | at);
}

static inline uint32_t pf_token_ticket(const void *token)
{
    return (uint32_t)((uint64_t)(uintptr_t)token >> PF_TICKET_AT_BITS);
}

static inline uint64_t pf_token_at(const void *token)
{
    return (uint64_t)(uintptr_t)token & ((1ull << PF_TICKET_AT_BITS) - 1);
}

/* A record of a ticket: its framing was checked when the ticket was added, and nobody writes there since. */
static inline pf_framed_record pf_ticket_record(const pf_outbox_ticket *ticket, uint64_t at)
{
    pf_framed_record one;
    if (!pf_framed_record_at(ticket->records, ticket->size, at, &one))
        abort();
    return one;
}

/* Index of the record that begins at byte `at`. */
static inline uint32_t pf_ticket_index(const pf_outbox_ticket *ticket, uint64_t at)
{
    uint32_t index = 0;
    for (uint64_t here = 0; here < at; here = pf_ticket_record(ticket, here).next)
        index++;
    return index;
}

/* Make an array that is full twice as large; 0, or -1. */
static inline int pf_grow(void **array, uint32_t *room, size_t element)
{
    uint32_t wider = *room == 0 ? 16 : 2 * *room;
    void *grown = realloc(*array, wider * element);
    if (grown == NULL)
        return -1;
    *array = grown;
    *room = wider;
    return 0;
}

static inline void pf_ticket_fail(pf_outbox_ticket *ticket, uint64_t at, int err)
{
    if (ticket->n_failures == ticket->room &&
        pf_grow((void **)&ticket->failures, &ticket->room, sizeof *ticket->failures) < 0)
        abort(); /* to forget it would report a record as durable that is not */
    ticket->failures[ticket->n_failures++] = (pf_outbox_failure){.at = at, .err = err};
}

static inline void pf_tickets_append(pf_outbox_tickets *self, uint32_t *first, uint32_t *last, uint32_t number)
{
    self->all[number].next = PF_OUTBOX_NONE;
    if (*first == PF_OUTBOX_NONE)
        *first = number;
    else
        self->all[*last].next = number;
    *last = number;
}

/* Nothing of a ticket is outstanding: it is done. */
static inline void pf_tickets_close_if_reported(pf_outbox_tickets *self, uint32_t number)
{
    pf_outbox_ticket *ticket = &self->all[number];
    if (ticket->at == ticket->size && ticket->outstanding == 0)
        pf_tickets_append(self, &self->done_first, &self->done_last, number);
}

static inline uint32_t pf_tickets_new(pf_outbox_tickets *self)
{
    if (self->free_first != PF_OUTBOX_NONE) {
        uint32_t number = self->free_first;
        self->free_first = self->all[number].next;
        return number;
    }
    if (self->count == 1u << (64 - PF_TICKET_AT_BITS - 1))
        return PF_OUTBOX_NONE;
    pf_outbox_ticket *grown = realloc(self->all, (self->count + 1) * sizeof *grown);
    if (grown == NULL)
        return PF_OUTBOX_NONE;
    self->all = grown;
    memset(&grown[self->count], 0, sizeof *grown);
    return self->count++;
}

/* Take `records` over as a ticket; 0, or ENOMEM, or EINVAL when the framing does not give `count` records. */
static inline int pf_tickets_add(pf_outbox_tickets *self, const uint8_t *records, uint64_t size, uint32_t count,
                                 uint64_t id, uint32_t topic)
{
    if (size >= 1ull << PF_TICKET_AT_BITS)
        return EINVAL;
    uint64_t at = 0;
    uint32_t seen = 0;
    for (pf_framed_record one; at < size; at = one.next, seen++)
        if (!pf_framed_record_at(records, size, at, &one))
            return EINVAL;
    if (seen != count)
        return EINVAL;
    uint32_t number = pf_tickets_new(self);
    if (number == PF_OUTBOX_NONE)
        return ENOMEM;
    pf_outbox_ticket *ticket = &self->all[number];
    ticket->records = records;
    ticket->size = size;
    ticket->id = id;
    ticket->serial = self->added++;
    ticket->topic = topic;
    ticket->at = 0;
    ticket->outstanding = ticket->n_failures = 0;
    if (size == 0)
        pf_tickets_close_if_reported(self, number);
    else
        pf_tickets_append(self, &self->waiting_first, &self->waiting_last, number);
    return 0;
}

static int pf_failures_by_offset(const void *left, const void *right)
{
    uint64_t a = ((const pf_outbox_failure *)left)->at, b = ((const pf_outbox_failure *)right)->at;
    return a < b ? -1 : a > b;
}

/* A ticket that is reported whole, failures in record order; NULL when there is none. */
static inline pf_outbox_ticket *pf_tickets_done(pf_outbox_tickets *self)
{
    if (self->done_first == PF_OUTBOX_NONE)
        return NULL;
    pf_outbox_ticket *ticket = &self->all[self->done_first];
    if (ticket->n_failures > 1)
        qsort(ticket->failures, ticket->n_failures, sizeof *ticket->failures, pf_failures_by_offset);
    return ticket;
}

/* Give back the ticket that pf_tickets_done returned. */
static inline void pf_tickets_forget(pf_outbox_tickets *self)
{
    uint32_t number = self->done_first;
    self->done_first = self->all[number].next;
    self->all[number].records = NULL;
    self->all[number].next = self->free_first;
    self->free_first = number;
}

static inline void pf_tickets_free(pf_outbox_tickets *self)
{
    for (uint32_t i = 0; i < self->count; i++)
        free(self->all[i].failures);
    free(self->all);
    self->all = NULL;
    self->count = 0;
}

#endif
