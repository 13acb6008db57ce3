# The C side of a Kafka consumer; used by kafka_reader.pyx.
from kafka_notes cimport pf_kafka_notes
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from rdkafka_api cimport pf_rdkafka, rd_kafka_conf_t, rd_kafka_t, rd_kafka_topic_partition_list_t

cdef extern from "kafka_source.h" nogil:
    int64_t PF_KAFKA_UNBOUNDED
    ctypedef struct pf_kafka_partition:
        int64_t index
        int64_t position
        int64_t ended_at
        int64_t held_offset
        int64_t held_since_ns
        uint8_t paused
    ctypedef struct pf_kafka_topic:
        char *name
        int32_t size
        pf_kafka_partition *partitions
    ctypedef struct pf_kafka_partitions:
        pf_kafka_topic *topics
        uint32_t n_topics
        uint32_t n_paused
    ctypedef struct pf_header_room:
        size_t wanted
    ctypedef struct pf_kafka_spent:
        pass
    ctypedef struct pf_kafka_source:
        rd_kafka_t *client
        pf_kafka_notes notes
        pf_kafka_spent spent
        pf_kafka_partitions partitions
        pf_header_room headers
        uint32_t want_paused
        uint32_t is_paused
        uint32_t next, count
        uint64_t held_bytes
        uint32_t failed
        int (*is_hurried)(void *asked) noexcept nogil
        void *asked
        uint32_t bounded
        uint32_t awaits_topic
        uint32_t values_in_place
        int64_t end_not_before_ns
        int64_t check_at_ns
    size_t pf_kafka_spent_bytes(const pf_kafka_spent *spent)
    pf_kafka_partition *pf_kafka_place(pf_kafka_partitions *self, const char *topic, int32_t partition, int create)
    void pf_kafka_place_gain(pf_kafka_partitions *self, pf_kafka_partition *place, int64_t index, int64_t end)
    void pf_kafka_place_lose(pf_kafka_partitions *self, pf_kafka_partition *place)
    int pf_kafka_source_init(pf_kafka_source *self, const pf_rdkafka *api)
    void pf_kafka_source_configure(pf_kafka_source *self, rd_kafka_conf_t *conf)
    void pf_kafka_source_attach(pf_kafka_source *self, rd_kafka_t *client)
    int pf_kafka_source_release(pf_kafka_source *self, int64_t leave_ms, int64_t end_ms)
    void pf_kafka_source_forget(pf_kafka_source *self)
    void pf_kafka_source_pause(pf_kafka_source *self, uint32_t pause)
    int pf_kafka_source_keep_alive(pf_kafka_source *self)
    int pf_kafka_source_commit_later(pf_kafka_source *self, const rd_kafka_topic_partition_list_t *offsets)
    int pf_kafka_source_commit(pf_kafka_source *self, const rd_kafka_topic_partition_list_t *offsets, int timeout_ms)
    int64_t pf_kafka_now_ns()
    uint64_t pf_kafka_source_count(pf_kafka_source *self, uint64_t messages, int64_t timeout_us, uint64_t *nbytes)
