/* What librdkafka tells through its callbacks, kept until the Python side takes it.
 *
 * Callbacks come on whichever thread serves librdkafka's queue, without the GIL; notes are taken with it.
 */
#ifndef PYTHIA_KAFKA_NOTES_H
#define PYTHIA_KAFKA_NOTES_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include "rdkafka_api.h"

enum {
    PF_NOTE_ASSIGN = 1,
    PF_NOTE_REVOKE = 2,
    PF_NOTE_ERROR = 3,          /* of the client as a whole: brokers, authentication, fatal */
    PF_NOTE_CONSUMER_ERROR = 4, /* of a topic or partition */
    PF_NOTE_LOG = 5,            /* err holds the syslog level */
    PF_NOTE_COMMIT_FAILED = 6,  /* an asynchronous commit did not succeed */
    PF_NOTE_STATISTICS = 7,
    PF_NOTE_WENT_BACK = 8,      /* a partition's messages begin again before its position: its log is another one now */
};

typedef struct pf_kafka_note pf_kafka_note;
struct pf_kafka_note {
    pf_kafka_note *next;
    int kind;
    int err;
    char *text;                                  /* NULL when there is none */
    rd_kafka_topic_partition_list_t *partitions; /* NULL unless they are what is noted */
};

typedef struct {
    const pf_rdkafka *api;
    pthread_mutex_t lock;
    pf_kafka_note *first, *last;
    _Atomic uint32_t count;
} pf_kafka_notes;

/* 0, or an errno.  The memory is zero before. */
int pf_kafka_notes_init(pf_kafka_notes *notes, const pf_rdkafka *api);
/* Have a client made of `conf` note its errors, log lines and statistics.  The opaque of its callbacks is `notes`. */
void pf_kafka_notes_configure(pf_kafka_notes *notes, rd_kafka_conf_t *conf);

static inline int pf_kafka_notes_waiting(pf_kafka_notes *notes)
{
    return atomic_load_explicit(&notes->count, memory_order_acquire) != 0;
}

/* Without memory for a note the process ends: a rebalance that nobody hears of would stop the group for ever. */
static inline void pf_kafka_notes_add(pf_kafka_notes *notes, int kind, int err, const char *text, size_t text_size,
                                      const rd_kafka_topic_partition_list_t *partitions)
{
    pf_kafka_note *note = calloc(1, sizeof *note);
    if (note == NULL)
        abort();
    note->kind = kind;
    note->err = err;
    if (text != NULL) {
        note->text = malloc(text_size + 1);
        if (note->text == NULL)
            abort();
        memcpy(note->text, text, text_size);
        note->text[text_size] = '\0';
    }
    if (partitions != NULL)
        note->partitions = notes->api->topic_partition_list_copy(partitions);
    pthread_mutex_lock(&notes->lock);
    if (notes->last != NULL)
        notes->last->next = note;
    else
        notes->first = note;
    notes->last = note;
    atomic_fetch_add_explicit(&notes->count, 1, memory_order_release);
    pthread_mutex_unlock(&notes->lock);
}

/* All notes, oldest first; the caller frees each. */
static inline pf_kafka_note *pf_kafka_notes_take(pf_kafka_notes *notes)
{
    pthread_mutex_lock(&notes->lock);
    pf_kafka_note *first = notes->first;
    notes->first = notes->last = NULL;
    atomic_store_explicit(&notes->count, 0, memory_order_release);
    pthread_mutex_unlock(&notes->lock);
    return first;
}

static inline void pf_kafka_note_free(const pf_rdkafka *api, pf_kafka_note *note)
{
    if (note->partitions != NULL)
        api->topic_partition_list_destroy(note->partitions);
    free(note->text);
    free(note);
}

static inline void pf_kafka_notes_destroy(pf_kafka_notes *notes)
{
    for (pf_kafka_note *note = pf_kafka_notes_take(notes), *next; note != NULL; note = next) {
        next = note->next;
        pf_kafka_note_free(notes->api, note);
    }
    pthread_mutex_destroy(&notes->lock);
}

#endif
