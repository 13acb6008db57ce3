/* Messages that were appended, on their way back to the thread that allocated them.
 *
 * librdkafka allocates one object a message in the thread of the broker's connection.  When the intake thread frees
 * it, both threads want the lock of the same malloc arena three million times a second each, and where they meet,
 * both go to the kernel (a seventh of all CPU time: docs/decisions/kafka-reader.md).  So the intake collects spent
 * messages, and the connection's thread frees them each time a response has come in, before it allocates the next
 * ones: that is where librdkafka calls interceptors of responses (rdkafka.h, "Interceptors"), holding no lock.
 *
 *     intake --put--> open node --full--> list --taken whole, at a response--> message_destroy
 *
 * The list is a stack that is pushed to by one thread and only ever taken whole, so it needs no more than one
 * compare-and-swap and one exchange.
 */
#ifndef PYTHIA_KAFKA_SPENT_H
#define PYTHIA_KAFKA_SPENT_H

#include <stdatomic.h>
#include <stdlib.h>
#include "rdkafka_api.h"

#define PF_SPENT_NODE 1021                       /* messages a node holds at most */
#define PF_SPENT_NODE_BYTES (512 * 1024)         /* after which it is handed over */
#define PF_SPENT_WAITING_BYTES (16 * 1024 * 1024) /* beyond which the intake frees by itself: a node more may wait */
#define PF_SPENT_OBJECT_BYTES 400                /* about what librdkafka needs for a message beside its bytes */

typedef struct pf_spent_node pf_spent_node;
struct pf_spent_node {
    pf_spent_node *next;
    size_t count;
    size_t bytes;
    rd_kafka_message_t *messages[PF_SPENT_NODE];
};

typedef struct {
    const pf_rdkafka *api;
    int handed_over;                  /* responses do call back */
    pf_spent_node *open;              /* intake thread */
    _Atomic(pf_spent_node *) waiting; /* pushed by the intake thread, taken by any */
    _Atomic size_t waiting_bytes;
} pf_kafka_spent;

/* Free what waits. Any thread. */
static void pf_kafka_spent_free_waiting(pf_kafka_spent *self)
{
    pf_spent_node *node = atomic_exchange_explicit(&self->waiting, NULL, memory_order_acquire);
    while (node != NULL) {
        pf_spent_node *next = node->next;
        for (size_t i = 0; i < node->count; i++)
            self->api->message_destroy(node->messages[i]);
        atomic_fetch_sub_explicit(&self->waiting_bytes, node->bytes, memory_order_relaxed);
        free(node);
        node = next;
    }
}

static void pf_kafka_spent_push(pf_kafka_spent *self)
{
    pf_spent_node *node = self->open;
    self->open = NULL;
    atomic_fetch_add_explicit(&self->waiting_bytes, node->bytes, memory_order_relaxed);
    node->next = atomic_load_explicit(&self->waiting, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&self->waiting, &node->next, node, memory_order_release,
                                                  memory_order_relaxed))
        continue;
}

/* The message is done with. Intake thread. */
static inline void pf_kafka_spent_put(pf_kafka_spent *self, rd_kafka_message_t *message)
{
    if (self->open == NULL) {
        if (self->handed_over &&
            atomic_load_explicit(&self->waiting_bytes, memory_order_relaxed) < PF_SPENT_WAITING_BYTES)
            self->open = malloc(sizeof *self->open);
        if (self->open == NULL) {
            self->api->message_destroy(message);
            return;
        }
        self->open->count = self->open->bytes = 0;
    }
    pf_spent_node *node = self->open;
    node->messages[node->count++] = message;
    node->bytes += PF_SPENT_OBJECT_BYTES + message->len + message->key_len;
    if (node->count == PF_SPENT_NODE || node->bytes >= PF_SPENT_NODE_BYTES)
        pf_kafka_spent_push(self);
}

/* Free everything here and now: nothing comes in, or the client is about to be closed. Intake thread. */
static void pf_kafka_spent_free_all(pf_kafka_spent *self)
{
    if (self->open != NULL)
        pf_kafka_spent_push(self);
    pf_kafka_spent_free_waiting(self);
}

static int pf_kafka_spent_on_response(rd_kafka_t *client, int socket, const char *broker_name, int32_t broker,
                                      int16_t api_key, int16_t api_version, int32_t correlation, size_t size,
                                      int64_t rtt_us, int err, void *opaque)
{
    pf_kafka_spent_free_waiting(opaque);
    return 0;
}

static int pf_kafka_spent_on_new(rd_kafka_t *client, const rd_kafka_conf_t *conf, void *opaque, char *error,
                                 size_t error_size)
{
    pf_kafka_spent *self = opaque;
    int result =
        self->api->interceptor_add_on_response_received(client, "pythia_fast", pf_kafka_spent_on_response, self);
    self->handed_over = result == RD_KAFKA_ERR_NONE;
    return result;
}

/* Have the client that `conf` will make call back.  Where it does not, messages are freed as they come. */
static void pf_kafka_spent_configure(pf_kafka_spent *self, const pf_rdkafka *api, rd_kafka_conf_t *conf)
{
    self->api = api;
    api->conf_interceptor_add_on_new(conf, "pythia_fast", pf_kafka_spent_on_new, self);
}

/* Bytes that wait to be freed. */
static size_t pf_kafka_spent_bytes(const pf_kafka_spent *self)
{
    return atomic_load_explicit(&self->waiting_bytes, memory_order_relaxed) + (self->open ? self->open->bytes : 0);
}

#endif
