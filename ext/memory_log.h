/* A small broker in memory: messages given beforehand, then messages sent while it is read.
 *
 *     fixed[n_fixed]      pointers into Python bytes objects that the owner keeps alive
 *     head -> ... -> cursor -> ... -> tail      nodes sent live, each one allocation with its bytes
 *       \__ read, not committed __/ \__ unread __/
 *
 * A live node is freed once its position has been committed; senders wait while the nodes hold more
 * than `room_bytes`, so memory stays bounded and what was not committed can be read again.
 *
 * `mutex` guards all of it but what follows. Both conditions are signalled after it was let go, so that who wakes
 * up does not wait for it at once. The polling thread alone moves `next_fixed`, and it calls `append` without the mutex: the node at
 * the cursor is never freed, so its bytes stay while the sink copies them.
 */
#ifndef PYTHIA_MEMORY_LOG_H
#define PYTHIA_MEMORY_LOG_H

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "source.h"

typedef struct pf_memory_node pf_memory_node;
struct pf_memory_node {
    pf_memory_node *next;
    size_t bytes; /* of the whole allocation */
    pf_incoming message;
    uint8_t data[];
};

typedef struct {
    pf_source source; /* first: poll() and wake() get the log back from it */
    pthread_mutex_t mutex;
    pthread_cond_t news; /* for the polling thread: a message, the end, or `woken` */
    pthread_cond_t room; /* for senders: nodes were freed, or the log ended */
    pf_incoming *fixed;
    size_t n_fixed;
    size_t next_fixed;
    int64_t *start;     /* n_partitions: committed when the reader was opened */
    int64_t *committed; /* n_partitions: position to go on from */
    int64_t *end;       /* n_partitions: offset of the next message */
    uint32_t n_partitions;
    pf_memory_node *head, *cursor, *tail;
    size_t live_bytes;
    size_t room_bytes;
    uint8_t keep_open;
    uint8_t ended;
    uint8_t reading;  /* a reader has opened it */
    uint8_t woken;    /* poll() is to return early, now or the next time */
    uint8_t announce; /* serve() has not told the runtime about the partitions yet */
} pf_memory_log;

#ifdef __linux__
#define PF_CONDITION_CLOCK CLOCK_MONOTONIC
#else
#define PF_CONDITION_CLOCK CLOCK_REALTIME /* where conditions know no other */
#endif

static inline int pf_condition_init(pthread_cond_t *condition) {
    pthread_condattr_t how;
    pthread_condattr_init(&how);
#ifdef __linux__
    pthread_condattr_setclock(&how, PF_CONDITION_CLOCK);
#endif
    int error = pthread_cond_init(condition, &how);
    pthread_condattr_destroy(&how);
    return error;
}

/* The moment that is `timeout_us` away, as pthread_cond_timedwait wants it. */
static inline struct timespec pf_deadline(int64_t timeout_us) {
    struct timespec deadline;
    clock_gettime(PF_CONDITION_CLOCK, &deadline);
    deadline.tv_sec += timeout_us / 1000000;
    deadline.tv_nsec += (timeout_us % 1000000) * 1000;
    if (deadline.tv_nsec >= 1000000000) {
        deadline.tv_sec++;
        deadline.tv_nsec -= 1000000000;
    }
    return deadline;
}

/* The next unread node, past those that were committed before this reader was opened. */
static inline pf_memory_node *pf_memory_next(pf_memory_log *log) {
    while (log->cursor && log->cursor->message.offset < log->start[log->cursor->message.partition])
        log->cursor = log->cursor->next;
    return log->cursor;
}

static int pf_memory_poll(pf_source *source, pf_sink *sink, uint32_t max_messages, int64_t timeout_us) {
    pf_memory_log *log = (pf_memory_log *)source;
    if (log->announce) return PF_SOURCE_CALL;
    uint32_t taken = 0;
    for (; log->next_fixed < log->n_fixed && taken < max_messages; log->next_fixed++) {
        const pf_incoming *message = &log->fixed[log->next_fixed];
        if (message->offset < log->start[message->partition]) continue;
        if (sink->append(sink, message) != PF_APPENDED) return PF_SOURCE_STALLED;
        taken++;
    }
    struct timespec deadline = {0};
    int slept = 0, timed_out = 0;
    pthread_mutex_lock(&log->mutex);
    while (taken < max_messages) {
        pf_memory_node *node = pf_memory_next(log);
        if (node) {
            pthread_mutex_unlock(&log->mutex);
            if (sink->append(sink, &node->message) != PF_APPENDED) return PF_SOURCE_STALLED;
            taken++;
            pthread_mutex_lock(&log->mutex);
            log->cursor = node->next;
            continue;
        }
        int end = log->ended || !log->keep_open;
        if (taken || timed_out || log->woken || end || timeout_us <= 0) {
            log->woken = 0;
            pthread_mutex_unlock(&log->mutex);
            return taken ? PF_SOURCE_MORE : end ? PF_SOURCE_END : PF_SOURCE_IDLE;
        }
        if (!slept) deadline = pf_deadline(timeout_us);
        slept = 1;
        timed_out = pthread_cond_timedwait(&log->news, &log->mutex, &deadline) == ETIMEDOUT;
    }
    pthread_mutex_unlock(&log->mutex);
    return PF_SOURCE_MORE;
}

static void pf_memory_wake(pf_source *source) {
    pf_memory_log *log = (pf_memory_log *)source;
    pthread_mutex_lock(&log->mutex);
    log->woken = 1;
    pthread_mutex_unlock(&log->mutex);
    pthread_cond_signal(&log->news);
}

/* Free the committed front of the list; 1 when that made room.  Under the mutex. */
static inline int pf_memory_trim(pf_memory_log *log) {
    int freed = 0;
    while (log->head && log->head != log->cursor &&
           log->head->message.offset < log->committed[log->head->message.partition]) {
        pf_memory_node *node = log->head;
        log->head = node->next;
        if (!log->head) log->tail = NULL;
        log->live_bytes -= node->bytes;
        free(node);
        freed = 1;
    }
    return freed;
}

static void pf_memory_commit(pf_memory_log *log, uint32_t partition, int64_t position) {
    pthread_mutex_lock(&log->mutex);
    if (position > log->committed[partition]) log->committed[partition] = position;
    int freed = pf_memory_trim(log);
    pthread_mutex_unlock(&log->mutex);
    if (freed) pthread_cond_broadcast(&log->room);
}

/* Read again from what is committed; 0 when somebody reads already. */
static int pf_memory_open(pf_memory_log *log) {
    pthread_mutex_lock(&log->mutex);
    int opened = !log->reading;
    if (opened) {
        memcpy(log->start, log->committed, log->n_partitions * sizeof(int64_t));
        log->next_fixed = 0;
        log->cursor = log->head;
        log->reading = log->announce = 1;
        log->woken = 0;
    }
    pthread_mutex_unlock(&log->mutex);
    return opened;
}

static void pf_memory_close(pf_memory_log *log) {
    pthread_mutex_lock(&log->mutex);
    log->reading = 0;
    pthread_mutex_unlock(&log->mutex);
}

static void pf_memory_end(pf_memory_log *log) {
    pthread_mutex_lock(&log->mutex);
    log->ended = 1;
    pthread_mutex_unlock(&log->mutex);
    pthread_cond_signal(&log->news);
    pthread_cond_broadcast(&log->room);
}

enum { PF_MEMORY_SENT = 0, PF_MEMORY_ENDED = 1, PF_MEMORY_FULL = 2, PF_MEMORY_NO_MEMORY = 3 };

/* Copy one message in, waiting up to `timeout_us` for room; a message alone always finds room. */
static int pf_memory_send(pf_memory_log *log, const pf_incoming *message, int64_t timeout_us) {
    size_t key_size = message->key_size > 0 ? (size_t)message->key_size : 0;
    size_t bytes = sizeof(pf_memory_node) + message->size + key_size + message->headers_size;
    pf_memory_node *node = malloc(bytes);
    if (!node) return PF_MEMORY_NO_MEMORY;
    uint8_t *at = node->data;
    node->next = NULL;
    node->bytes = bytes;
    node->message = *message;
    if (message->payload) {
        node->message.payload = at;
        memcpy(at, message->payload, message->size);
        at += message->size;
    }
    if (message->key_size >= 0) {
        node->message.key = at;
        if (key_size) memcpy(at, message->key, key_size);
        at += key_size;
    }
    node->message.headers = at;
    if (message->headers_size) memcpy(at, message->headers, message->headers_size);

    struct timespec deadline = pf_deadline(timeout_us);
    int result = PF_MEMORY_SENT;
    pthread_mutex_lock(&log->mutex);
    while (!log->ended && log->head && log->live_bytes + bytes > log->room_bytes && result == PF_MEMORY_SENT)
        if (pthread_cond_timedwait(&log->room, &log->mutex, &deadline) == ETIMEDOUT) result = PF_MEMORY_FULL;
    if (log->ended) result = PF_MEMORY_ENDED;
    if (result == PF_MEMORY_SENT) {
        node->message.offset = log->end[message->partition]++;
        node->message.next_offset = log->end[message->partition];
        if (log->tail)
            log->tail->next = node;
        else
            log->head = node;
        log->tail = node;
        if (!log->cursor) log->cursor = node;
        log->live_bytes += bytes;
    }
    pthread_mutex_unlock(&log->mutex);
    if (result == PF_MEMORY_SENT)
        pthread_cond_signal(&log->news);
    else
        free(node);
    return result;
}

/* 0, or errno. The arrays start at zero. */
static int pf_memory_init(pf_memory_log *log, size_t n_fixed, uint32_t n_partitions) {
    memset(log, 0, sizeof *log);
    log->source.poll = pf_memory_poll;
    log->source.wake = pf_memory_wake;
    log->n_partitions = n_partitions;
    pthread_mutex_init(&log->mutex, NULL);
    if (pf_condition_init(&log->news) || pf_condition_init(&log->room)) return ENOMEM;
    log->fixed = calloc(n_fixed ? n_fixed : 1, sizeof(pf_incoming));
    log->start = calloc(n_partitions, sizeof(int64_t));
    log->committed = calloc(n_partitions, sizeof(int64_t));
    log->end = calloc(n_partitions, sizeof(int64_t));
    return log->fixed && log->start && log->committed && log->end ? 0 : ENOMEM;
}

static void pf_memory_free(pf_memory_log *log) {
    while (log->head) {
        pf_memory_node *node = log->head;
        log->head = node->next;
        free(node);
    }
    free(log->fixed);
    free(log->start);
    free(log->committed);
    free(log->end);
    pthread_cond_destroy(&log->news);
    pthread_cond_destroy(&log->room);
    pthread_mutex_destroy(&log->mutex);
}

#endif
