# The functions of rdkafka_api.h that Cython code calls; the C sources use the header itself.
from libc.stdint cimport int32_t, int64_t
from libc.stdio cimport FILE

cdef extern from "rdkafka_api.h" nogil:
    ctypedef struct rd_kafka_t:
        pass
    ctypedef struct rd_kafka_conf_t:
        pass
    ctypedef struct rd_kafka_topic_t:
        pass
    ctypedef struct rd_kafka_queue_t:
        pass
    ctypedef struct rd_kafka_error_t:
        pass
    ctypedef struct rd_kafka_consumer_group_metadata_t:
        pass
    ctypedef struct rd_kafka_topic_partition_t:
        char *topic
        int32_t partition
        int64_t offset
        int err
    ctypedef struct rd_kafka_topic_partition_list_t:
        int cnt
        rd_kafka_topic_partition_t *elems
    ctypedef struct rd_kafka_metadata_topic_t:
        char *topic
        int partition_cnt
        int err
    ctypedef struct rd_kafka_metadata_t:
        int topic_cnt
        rd_kafka_metadata_topic_t *topics

    enum:
        RD_KAFKA_PRODUCER
        RD_KAFKA_CONSUMER
        RD_KAFKA_CONF_OK
        RD_KAFKA_CONF_UNKNOWN
        RD_KAFKA_ERR_NONE

    ctypedef struct pf_rdkafka:
        int (*version)() noexcept nogil
        const char *(*version_str)() noexcept nogil
        const char *(*err2str)(int) noexcept nogil
        const char *(*err2name)(int) noexcept nogil
        rd_kafka_conf_t *(*conf_new)() noexcept nogil
        void (*conf_destroy)(rd_kafka_conf_t *) noexcept nogil
        int (*conf_set)(rd_kafka_conf_t *, const char *, const char *, char *, size_t) noexcept nogil
        int (*conf_get)(rd_kafka_conf_t *, const char *, char *, size_t *) noexcept nogil
        void (*conf_properties_show)(FILE *) noexcept nogil
        rd_kafka_t *(*new)(int, rd_kafka_conf_t *, char *, size_t) noexcept nogil
        void (*destroy)(rd_kafka_t *) noexcept nogil
        int (*fatal_error)(rd_kafka_t *, char *, size_t) noexcept nogil
        char *(*clusterid)(rd_kafka_t *, int) noexcept nogil
        void (*mem_free)(rd_kafka_t *, void *) noexcept nogil
        int (*subscribe)(rd_kafka_t *, rd_kafka_topic_partition_list_t *) noexcept nogil
        int (*unsubscribe)(rd_kafka_t *) noexcept nogil
        int (*subscription)(rd_kafka_t *, rd_kafka_topic_partition_list_t **) noexcept nogil
        rd_kafka_topic_t *(*topic_new)(rd_kafka_t *, const char *, void *) noexcept nogil
        rd_kafka_queue_t *(*queue_new)(rd_kafka_t *) noexcept nogil
        void (*topic_destroy)(rd_kafka_topic_t *) noexcept nogil
        rd_kafka_topic_partition_list_t *(*topic_partition_list_new)(int) noexcept nogil
        void (*topic_partition_list_destroy)(rd_kafka_topic_partition_list_t *) noexcept nogil
        rd_kafka_topic_partition_t *(*topic_partition_list_add)(
            rd_kafka_topic_partition_list_t *, const char *, int32_t) noexcept nogil
        int (*assign)(rd_kafka_t *, rd_kafka_topic_partition_list_t *) noexcept nogil
        rd_kafka_error_t *(*incremental_assign)(rd_kafka_t *, rd_kafka_topic_partition_list_t *) noexcept nogil
        rd_kafka_error_t *(*incremental_unassign)(rd_kafka_t *, rd_kafka_topic_partition_list_t *) noexcept nogil
        int (*assignment_lost)(rd_kafka_t *) noexcept nogil
        const char *(*rebalance_protocol)(rd_kafka_t *) noexcept nogil
        const char *(*error_string)(rd_kafka_error_t *) noexcept nogil
        void (*error_destroy)(rd_kafka_error_t *) noexcept nogil
        int (*error_code)(const rd_kafka_error_t *) noexcept nogil
        int (*error_is_fatal)(const rd_kafka_error_t *) noexcept nogil
        int (*error_is_retriable)(const rd_kafka_error_t *) noexcept nogil
        int (*error_txn_requires_abort)(const rd_kafka_error_t *) noexcept nogil
        rd_kafka_error_t *(*init_transactions)(rd_kafka_t *, int) noexcept nogil
        rd_kafka_error_t *(*begin_transaction)(rd_kafka_t *) noexcept nogil
        rd_kafka_error_t *(*send_offsets_to_transaction)(
            rd_kafka_t *, const rd_kafka_topic_partition_list_t *, const rd_kafka_consumer_group_metadata_t *,
            int) noexcept nogil
        rd_kafka_error_t *(*commit_transaction)(rd_kafka_t *, int) noexcept nogil
        rd_kafka_error_t *(*abort_transaction)(rd_kafka_t *, int) noexcept nogil
        rd_kafka_consumer_group_metadata_t *(*consumer_group_metadata)(rd_kafka_t *) noexcept nogil
        void (*consumer_group_metadata_destroy)(rd_kafka_consumer_group_metadata_t *) noexcept nogil
        rd_kafka_error_t *(*consumer_group_metadata_write)(
            const rd_kafka_consumer_group_metadata_t *, void **, size_t *) noexcept nogil
        rd_kafka_error_t *(*consumer_group_metadata_read)(
            rd_kafka_consumer_group_metadata_t **, const void *, size_t) noexcept nogil
        int (*commit)(rd_kafka_t *, rd_kafka_topic_partition_list_t *, int) noexcept nogil
        int (*committed)(rd_kafka_t *, rd_kafka_topic_partition_list_t *, int) noexcept nogil
        int (*query_watermark_offsets)(rd_kafka_t *, const char *, int32_t, int64_t *, int64_t *, int) noexcept nogil
        int (*get_watermark_offsets)(rd_kafka_t *, const char *, int32_t, int64_t *, int64_t *) noexcept nogil
        int (*metadata)(rd_kafka_t *, int, rd_kafka_topic_t *, const rd_kafka_metadata_t **, int) noexcept nogil
        void (*metadata_destroy)(const rd_kafka_metadata_t *) noexcept nogil

    const char *pf_rdkafka_fill(pf_rdkafka *table, void *library)
