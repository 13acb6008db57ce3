/* The part of librdkafka's public C API that we call, as a table of function pointers.
 *
 * confluent-kafka's wheel carries librdkafka as a shared library of its own; librdkafka.pyx opens that
 * very file and fills the table from it, so neither a header nor a second copy has to be installed.
 * Names, argument types and the few public structs follow librdkafka's documented ABI, which keeps
 * them within a major version (rdkafka.h, librdkafka 2.x); the version is checked when the table is filled.
 */
#ifndef PYTHIA_RDKAFKA_API_H
#define PYTHIA_RDKAFKA_API_H

#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

typedef struct rd_kafka_s rd_kafka_t;
typedef struct rd_kafka_conf_s rd_kafka_conf_t;
typedef struct rd_kafka_topic_s rd_kafka_topic_t;
typedef struct rd_kafka_topic_conf_s rd_kafka_topic_conf_t;
typedef struct rd_kafka_queue_s rd_kafka_queue_t;
typedef struct rd_kafka_headers_s rd_kafka_headers_t;
typedef struct rd_kafka_error_s rd_kafka_error_t;
typedef struct rd_kafka_consumer_group_metadata_s rd_kafka_consumer_group_metadata_t;
typedef struct rd_kafka_AdminOptions_s rd_kafka_AdminOptions_t;
typedef struct rd_kafka_ConfigResource_s rd_kafka_ConfigResource_t;
typedef struct rd_kafka_ConfigEntry_s rd_kafka_ConfigEntry_t;
typedef struct rd_kafka_DescribeConfigs_result_s rd_kafka_DescribeConfigs_result_t;
typedef struct rd_kafka_op_s rd_kafka_event_t;

enum { RD_KAFKA_PRODUCER = 0, RD_KAFKA_CONSUMER = 1 };
enum { RD_KAFKA_CONF_UNKNOWN = -2, RD_KAFKA_CONF_INVALID = -1, RD_KAFKA_CONF_OK = 0 };

/* The error codes that we tell apart; negative ones are librdkafka's own. */
enum {
    RD_KAFKA_ERR_NONE = 0,
    RD_KAFKA_ERR_UNKNOWN_TOPIC_OR_PART = 3,
    RD_KAFKA_ERR_MSG_SIZE_TOO_LARGE = 10,
    RD_KAFKA_ERR_RECORD_LIST_TOO_LARGE = 18,
    RD_KAFKA_ERR_INVALID_RECORD = 87,
    RD_KAFKA_ERR_PARTITION_EOF = -191,
    RD_KAFKA_ERR_TIMED_OUT = -185,
    RD_KAFKA_ERR_QUEUE_FULL = -184,
    RD_KAFKA_ERR_IN_PROGRESS = -178,
    RD_KAFKA_ERR_ASSIGN_PARTITIONS = -175,
    RD_KAFKA_ERR_REVOKE_PARTITIONS = -174,
};

enum { RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS = 5, RD_KAFKA_RESOURCE_TOPIC = 2 };

#define RD_KAFKA_PARTITION_ANY ((int32_t)-1)
#define RD_KAFKA_DESTROY_NO_CONSUMER_CLOSE 0x8

typedef struct {
    int err;
    rd_kafka_topic_t *rkt;
    int32_t partition;
    void *payload;   /* err != 0: a text that tells more */
    size_t len;
    void *key;
    size_t key_len;
    int64_t offset;
    void *opaque;    /* producer: what produce was given */
} rd_kafka_message_t;

typedef struct {
    char *topic;
    int32_t partition;
    int64_t offset;
    void *metadata;
    size_t metadata_size;
    void *opaque;
    int err;
    void *internal;
} rd_kafka_topic_partition_t;

typedef struct {
    int cnt;
    int size;
    rd_kafka_topic_partition_t *elems;
} rd_kafka_topic_partition_list_t;

typedef struct {
    int32_t id;
    int err;
    int32_t leader;
    int replica_cnt;
    int32_t *replicas;
    int isr_cnt;
    int32_t *isrs;
} rd_kafka_metadata_partition_t;

typedef struct {
    char *topic;
    int partition_cnt;
    rd_kafka_metadata_partition_t *partitions;
    int err;
} rd_kafka_metadata_topic_t;

typedef struct {
    int broker_cnt;
    void *brokers;
    int topic_cnt;
    rd_kafka_metadata_topic_t *topics;
    int32_t orig_broker_id;
    char *orig_broker_name;
} rd_kafka_metadata_t;

/* One argument of rd_kafka_produceva. */
enum {
    RD_KAFKA_VTYPE_RKT = 2,
    RD_KAFKA_VTYPE_PARTITION = 3,
    RD_KAFKA_VTYPE_VALUE = 4,
    RD_KAFKA_VTYPE_KEY = 5,
    RD_KAFKA_VTYPE_OPAQUE = 6,
    RD_KAFKA_VTYPE_MSGFLAGS = 7,
    RD_KAFKA_VTYPE_TIMESTAMP = 8,
    RD_KAFKA_VTYPE_HEADERS = 10,
};

typedef struct {
    int vtype;
    union {
        rd_kafka_topic_t *rkt;
        int i;
        int32_t i32;
        int64_t i64;
        struct {
            void *ptr;
            size_t size;
        } mem;
        rd_kafka_headers_t *headers;
        void *ptr;
        char room[64];
    } u;
} rd_kafka_vu_t;

typedef void (*rd_kafka_rebalance_fn)(rd_kafka_t *, int, rd_kafka_topic_partition_list_t *, void *);
typedef void (*rd_kafka_commit_fn)(rd_kafka_t *, int, rd_kafka_topic_partition_list_t *, void *);
typedef void (*rd_kafka_error_fn)(rd_kafka_t *, int, const char *, void *);
typedef void (*rd_kafka_log_fn)(const rd_kafka_t *, int, const char *, const char *);
typedef int (*rd_kafka_stats_fn)(rd_kafka_t *, char *, size_t, void *);
typedef void (*rd_kafka_delivery_fn)(rd_kafka_t *, const rd_kafka_message_t *, void *);
typedef int (*rd_kafka_on_new_fn)(rd_kafka_t *, const rd_kafka_conf_t *, void *, char *, size_t);
typedef int (*rd_kafka_on_response_fn)(rd_kafka_t *, int, const char *, int32_t, int16_t, int16_t, int32_t, size_t,
                                       int64_t, int, void *);

/* X(return type, name without "rd_kafka_", arguments) */
#define PF_RDKAFKA_FUNCTIONS(X)                                                                             \
    X(int, version, (void))                                                                                 \
    X(const char *, version_str, (void))                                                                    \
    X(const char *, err2str, (int))                                                                         \
    X(const char *, err2name, (int))                                                                        \
    X(rd_kafka_conf_t *, conf_new, (void))                                                                  \
    X(void, conf_destroy, (rd_kafka_conf_t *))                                                              \
    X(int, conf_set, (rd_kafka_conf_t *, const char *, const char *, char *, size_t))                       \
    X(int, conf_get, (const rd_kafka_conf_t *, const char *, char *, size_t *))                             \
    X(void, conf_properties_show, (FILE *))                                                                 \
    X(void, conf_set_opaque, (rd_kafka_conf_t *, void *))                                                   \
    X(void, conf_set_rebalance_cb, (rd_kafka_conf_t *, rd_kafka_rebalance_fn))                              \
    X(void, conf_set_error_cb, (rd_kafka_conf_t *, rd_kafka_error_fn))                                      \
    X(void, conf_set_log_cb, (rd_kafka_conf_t *, rd_kafka_log_fn))                                          \
    X(void, conf_set_stats_cb, (rd_kafka_conf_t *, rd_kafka_stats_fn))                                      \
    X(void, conf_set_dr_msg_cb, (rd_kafka_conf_t *, rd_kafka_delivery_fn))                                  \
    X(int, conf_interceptor_add_on_new, (rd_kafka_conf_t *, const char *, rd_kafka_on_new_fn, void *))       \
    X(int, interceptor_add_on_response_received, (rd_kafka_t *, const char *, rd_kafka_on_response_fn, void *)) \
    X(rd_kafka_t *, new, (int, rd_kafka_conf_t *, char *, size_t))                                          \
    X(void *, opaque, (const rd_kafka_t *))                                                                 \
    X(void, destroy, (rd_kafka_t *))                                                                        \
    X(void, destroy_flags, (rd_kafka_t *, int))                                                             \
    X(int, fatal_error, (rd_kafka_t *, char *, size_t))                                                     \
    X(int, set_log_queue, (rd_kafka_t *, rd_kafka_queue_t *))                                               \
    X(char *, clusterid, (rd_kafka_t *, int))                                                               \
    X(void, mem_free, (rd_kafka_t *, void *))                                                               \
    X(int, poll, (rd_kafka_t *, int))                                                                       \
    X(int, poll_set_consumer, (rd_kafka_t *))                                                               \
    X(rd_kafka_queue_t *, queue_get_consumer, (rd_kafka_t *))                                               \
    X(rd_kafka_queue_t *, queue_new, (rd_kafka_t *))                                                        \
    X(int, queue_poll_callback, (rd_kafka_queue_t *, int))                                                  \
    X(void, queue_destroy, (rd_kafka_queue_t *))                                                            \
    X(void, queue_io_event_enable, (rd_kafka_queue_t *, int, const void *, size_t))                         \
    X(int, subscribe, (rd_kafka_t *, const rd_kafka_topic_partition_list_t *))                              \
    X(int, unsubscribe, (rd_kafka_t *))                                                                     \
    X(int, subscription, (rd_kafka_t *, rd_kafka_topic_partition_list_t **))                                \
    X(rd_kafka_error_t *, consumer_close_queue, (rd_kafka_t *, rd_kafka_queue_t *))                         \
    X(int, consumer_closed, (rd_kafka_t *))                                                                 \
    X(ssize_t, consume_batch_queue, (rd_kafka_queue_t *, int, rd_kafka_message_t **, size_t))               \
    X(void, message_destroy, (rd_kafka_message_t *))                                                        \
    X(int64_t, message_timestamp, (const rd_kafka_message_t *, int *))                                      \
    X(int, message_headers, (const rd_kafka_message_t *, rd_kafka_headers_t **))                            \
    X(int, header_get_all, (const rd_kafka_headers_t *, size_t, const char **, const void **, size_t *))    \
    X(rd_kafka_headers_t *, headers_new, (size_t))                                                          \
    X(void, headers_destroy, (rd_kafka_headers_t *))                                                        \
    X(int, header_add, (rd_kafka_headers_t *, const char *, ssize_t, const void *, ssize_t))                \
    X(const char *, topic_name, (const rd_kafka_topic_t *))                                                 \
    X(rd_kafka_topic_t *, topic_new, (rd_kafka_t *, const char *, rd_kafka_topic_conf_t *))                 \
    X(void, topic_destroy, (rd_kafka_topic_t *))                                                            \
    X(rd_kafka_topic_partition_list_t *, topic_partition_list_new, (int))                                   \
    X(void, topic_partition_list_destroy, (rd_kafka_topic_partition_list_t *))                              \
    X(rd_kafka_topic_partition_list_t *, topic_partition_list_copy, (const rd_kafka_topic_partition_list_t *)) \
    X(rd_kafka_topic_partition_t *, topic_partition_list_add,                                               \
      (rd_kafka_topic_partition_list_t *, const char *, int32_t))                                           \
    X(int, assign, (rd_kafka_t *, const rd_kafka_topic_partition_list_t *))                                 \
    X(rd_kafka_error_t *, incremental_assign, (rd_kafka_t *, const rd_kafka_topic_partition_list_t *))      \
    X(rd_kafka_error_t *, incremental_unassign, (rd_kafka_t *, const rd_kafka_topic_partition_list_t *))    \
    X(int, assignment_lost, (rd_kafka_t *))                                                                 \
    X(const char *, rebalance_protocol, (rd_kafka_t *))                                                     \
    X(const char *, error_string, (const rd_kafka_error_t *))                                               \
    X(void, error_destroy, (rd_kafka_error_t *))                                                            \
    X(int, pause_partitions, (rd_kafka_t *, rd_kafka_topic_partition_list_t *))                             \
    X(int, resume_partitions, (rd_kafka_t *, rd_kafka_topic_partition_list_t *))                            \
    X(int, commit_queue,                                                                                    \
      (rd_kafka_t *, const rd_kafka_topic_partition_list_t *, rd_kafka_queue_t *, rd_kafka_commit_fn, void *)) \
    X(int, committed, (rd_kafka_t *, rd_kafka_topic_partition_list_t *, int))                               \
    X(int, query_watermark_offsets, (rd_kafka_t *, const char *, int32_t, int64_t *, int64_t *, int))       \
    X(int, get_watermark_offsets, (rd_kafka_t *, const char *, int32_t, int64_t *, int64_t *))              \
    X(int, metadata, (rd_kafka_t *, int, rd_kafka_topic_t *, const rd_kafka_metadata_t **, int))            \
    X(void, metadata_destroy, (const rd_kafka_metadata_t *))                                                \
    X(int, produce_batch, (rd_kafka_topic_t *, int32_t, int, rd_kafka_message_t *, int))                    \
    X(rd_kafka_error_t *, produceva, (rd_kafka_t *, const rd_kafka_vu_t *, size_t))                         \
    X(int, error_code, (const rd_kafka_error_t *))                                                          \
    X(int, error_is_fatal, (const rd_kafka_error_t *))                                                      \
    X(int, error_is_retriable, (const rd_kafka_error_t *))                                                  \
    X(int, error_txn_requires_abort, (const rd_kafka_error_t *))                                            \
    X(rd_kafka_error_t *, init_transactions, (rd_kafka_t *, int))                                           \
    X(rd_kafka_error_t *, begin_transaction, (rd_kafka_t *))                                                \
    X(rd_kafka_error_t *, send_offsets_to_transaction,                                                      \
      (rd_kafka_t *, const rd_kafka_topic_partition_list_t *, const rd_kafka_consumer_group_metadata_t *, int)) \
    X(rd_kafka_error_t *, commit_transaction, (rd_kafka_t *, int))                                          \
    X(rd_kafka_error_t *, abort_transaction, (rd_kafka_t *, int))                                           \
    X(rd_kafka_consumer_group_metadata_t *, consumer_group_metadata, (rd_kafka_t *))                        \
    X(void, consumer_group_metadata_destroy, (rd_kafka_consumer_group_metadata_t *))                        \
    X(rd_kafka_error_t *, consumer_group_metadata_write,                                                    \
      (const rd_kafka_consumer_group_metadata_t *, void **, size_t *))                                      \
    X(rd_kafka_error_t *, consumer_group_metadata_read,                                                     \
      (rd_kafka_consumer_group_metadata_t **, const void *, size_t))                                        \
    X(rd_kafka_AdminOptions_t *, AdminOptions_new, (rd_kafka_t *, int))                                     \
    X(int, AdminOptions_set_request_timeout, (rd_kafka_AdminOptions_t *, int, char *, size_t))              \
    X(void, AdminOptions_destroy, (rd_kafka_AdminOptions_t *))                                              \
    X(rd_kafka_ConfigResource_t *, ConfigResource_new, (int, const char *))                                 \
    X(void, ConfigResource_destroy, (rd_kafka_ConfigResource_t *))                                          \
    X(int, ConfigResource_error, (const rd_kafka_ConfigResource_t *))                                       \
    X(const rd_kafka_ConfigEntry_t **, ConfigResource_configs,                                              \
      (const rd_kafka_ConfigResource_t *, size_t *))\
    X(const char *, ConfigEntry_name, (const rd_kafka_ConfigEntry_t *))                                     \
    X(const char *, ConfigEntry_value, (const rd_kafka_ConfigEntry_t *))                                    \
    X(void, DescribeConfigs,                                                                                \
      (rd_kafka_t *, rd_kafka_ConfigResource_t **, size_t, const rd_kafka_AdminOptions_t *, rd_kafka_queue_t *))\
    X(const rd_kafka_DescribeConfigs_result_t *, event_DescribeConfigs_result, (rd_kafka_event_t *))        \
    X(const rd_kafka_ConfigResource_t **, DescribeConfigs_result_resources,                                 \
      (const rd_kafka_DescribeConfigs_result_t *, size_t *))\
    X(rd_kafka_event_t *, queue_poll, (rd_kafka_queue_t *, int))                                            \
    X(int, event_error, (rd_kafka_event_t *))                                                               \
    X(void, event_destroy, (rd_kafka_event_t *))                                                            \
    X(int, outq_len, (rd_kafka_t *))                                                                        \
    X(int, flush, (rd_kafka_t *, int))

typedef struct {
#define PF_RDKAFKA_POINTER(result, name, arguments) result(*name) arguments;
    PF_RDKAFKA_FUNCTIONS(PF_RDKAFKA_POINTER)
#undef PF_RDKAFKA_POINTER
} pf_rdkafka;

/* Fill the table from an open library (a library that links to librdkafka serves as well: dlsym looks
 * through what it depends on). Returns NULL, or the name of the first function that is missing. */
static inline const char *pf_rdkafka_fill(pf_rdkafka *table, void *library)
{
#define PF_RDKAFKA_LOOK_UP(result, name, arguments)              \
    *(void **)&table->name = dlsym(library, "rd_kafka_" #name);  \
    if (table->name == NULL)                                     \
        return "rd_kafka_" #name;
    PF_RDKAFKA_FUNCTIONS(PF_RDKAFKA_LOOK_UP)
#undef PF_RDKAFKA_LOOK_UP
    return NULL;
}

#endif
