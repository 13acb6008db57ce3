# What the reader and the publisher ask of librdkafka's client alike.
from rdkafka_api cimport pf_rdkafka, rd_kafka_t, rd_kafka_topic_partition_list_t

cdef rd_kafka_topic_partition_list_t *partition_list(const pf_rdkafka *api, partitions) except NULL
cdef bint broker_answers(const pf_rdkafka *api, rd_kafka_t *client, int timeout_ms)
cdef bint broker_seen(const pf_rdkafka *api, rd_kafka_t *client)
cdef tuple fatal_error(const pf_rdkafka *api, rd_kafka_t *client)
cdef object committed(const pf_rdkafka *api, rd_kafka_t *client, partitions, int timeout_ms)
cdef object watermarks(const pf_rdkafka *api, rd_kafka_t *client, str topic, int partition, int timeout_ms)
cdef tuple partition_count(const pf_rdkafka *api, rd_kafka_t *client, str topic, int timeout_ms)
cdef bytes group_metadata(const pf_rdkafka *api, rd_kafka_t *client)
