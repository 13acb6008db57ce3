/* The part of librdkafka's public C API that is about share groups (KIP-932), as a table of its own.
 *
 * librdkafka has it from 2.16 on.  An older one fills everything else (rdkafka_api.h), so only a share consumer is refused. */
#ifndef PYTHIA_KAFKA_SHARE_API_H
#define PYTHIA_KAFKA_SHARE_API_H

#include "rdkafka_api.h"

typedef struct rd_kafka_share_s rd_kafka_share_t;
typedef struct rd_kafka_messages_s rd_kafka_messages_t;
typedef struct rd_kafka_share_partition_offsets_s rd_kafka_share_offsets_t;
typedef struct rd_kafka_share_partition_offsets_list_s rd_kafka_share_offsets_list_t;

enum { RD_KAFKA_SHARE_ACCEPT = 1, RD_KAFKA_SHARE_RELEASE = 2 };

typedef void (*rd_kafka_share_ack_fn)(rd_kafka_share_t *, rd_kafka_share_offsets_list_t *, int, void *);

/* X(return type, name without "rd_kafka_", arguments) */
#define PF_RDKAFKA_SHARE_FUNCTIONS(X)                                                                              \
    X(rd_kafka_share_t *, share_consumer_new, (rd_kafka_conf_t *, char *, size_t))                                 \
    X(int, share_subscribe, (rd_kafka_share_t *, const rd_kafka_topic_partition_list_t *))                         \
    X(int, assignment, (rd_kafka_t *, rd_kafka_topic_partition_list_t **))                                         \
    X(rd_kafka_error_t *, share_poll, (rd_kafka_share_t *, int, rd_kafka_messages_t **))                           \
    X(size_t, messages_count, (const rd_kafka_messages_t *))                                                       \
    X(rd_kafka_message_t *, messages_get, (rd_kafka_messages_t *, size_t))                                         \
    X(void, messages_destroy, (rd_kafka_messages_t *))                                                             \
    X(int16_t, message_delivery_count, (const rd_kafka_message_t *))                                               \
    X(int, share_acknowledge_offset, (rd_kafka_share_t *, const char *, int32_t, int64_t, int))                    \
    X(rd_kafka_error_t *, share_commit_async, (rd_kafka_share_t *))                                                \
    X(rd_kafka_error_t *, share_set_acknowledgement_commit_cb, (rd_kafka_share_t *, rd_kafka_share_ack_fn, void *)) \
    X(size_t, share_partition_offsets_list_count, (const rd_kafka_share_offsets_list_t *))                         \
    X(const rd_kafka_share_offsets_t *, share_partition_offsets_list_get,                                          \
      (const rd_kafka_share_offsets_list_t *, size_t))                                                             \
    X(const rd_kafka_topic_partition_t *, share_partition_offsets_partition, (const rd_kafka_share_offsets_t *))   \
    X(const int64_t *, share_partition_offsets_offsets, (const rd_kafka_share_offsets_t *))                        \
    X(size_t, share_partition_offsets_offsets_cnt, (const rd_kafka_share_offsets_t *))                             \
    X(rd_kafka_error_t *, share_destroy, (rd_kafka_share_t *))

typedef struct {
#define PF_RDKAFKA_SHARE_POINTER(result, name, arguments) result(*name) arguments;
    PF_RDKAFKA_SHARE_FUNCTIONS(PF_RDKAFKA_SHARE_POINTER)
#undef PF_RDKAFKA_SHARE_POINTER
} pf_rdkafka_share;

/* Fill the table from an open library.  Returns NULL, or the name of the first function that is missing. */
static inline const char *pf_rdkafka_share_fill(pf_rdkafka_share *table, void *library)
{
#define PF_RDKAFKA_SHARE_LOOK_UP(result, name, arguments)       \
    *(void **)&table->name = dlsym(library, "rd_kafka_" #name); \
    if (table->name == NULL)                                    \
        return "rd_kafka_" #name;
    PF_RDKAFKA_SHARE_FUNCTIONS(PF_RDKAFKA_SHARE_LOOK_UP)
#undef PF_RDKAFKA_SHARE_LOOK_UP
    return NULL;
}

#endif
