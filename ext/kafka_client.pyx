# cython: language_level=3
"""Questions to a librdkafka client, be it a consumer or a producer. What waits for the network releases the GIL."""

from libc.stdint cimport int64_t
from rdkafka_api cimport (
    RD_KAFKA_ERR_NONE,
    pf_rdkafka,
    rd_kafka_consumer_group_metadata_t,
    rd_kafka_error_t,
    rd_kafka_metadata_t,
    rd_kafka_t,
    rd_kafka_topic_partition_list_t,
    rd_kafka_topic_partition_t,
    rd_kafka_topic_t,
)

from pythia_fast.errors import SourceError


cdef rd_kafka_topic_partition_list_t *partition_list(const pf_rdkafka *api, partitions) except NULL:
    """A librdkafka list of (topic, partition) or (topic, partition, offset); the caller destroys it."""
    cdef rd_kafka_topic_partition_list_t *made = api.topic_partition_list_new(<int>len(partitions))
    cdef rd_kafka_topic_partition_t *element
    cdef bytes name
    for entry in partitions:
        name = entry[0].encode()
        element = api.topic_partition_list_add(made, name, entry[1])
        if len(entry) > 2:
            element.offset = entry[2]
    return made


cdef bint broker_answers(const pf_rdkafka *api, rd_kafka_t *client, int timeout_ms):
    """Whether any broker answers a question within the time."""
    cdef const rd_kafka_metadata_t *found = NULL
    cdef int error
    with nogil:
        error = api.metadata(client, 0, NULL, &found, timeout_ms)
    if error == RD_KAFKA_ERR_NONE:
        api.metadata_destroy(found)
    return error == RD_KAFKA_ERR_NONE


cdef bint broker_seen(const pf_rdkafka *api, rd_kafka_t *client):
    """Whether any broker has ever answered."""
    cdef char *cluster = api.clusterid(client, 0)
    if cluster == NULL:
        return False
    api.mem_free(client, cluster)
    return True


cdef tuple fatal_error(const pf_rdkafka *api, rd_kafka_t *client):
    """(code, text) of the error after which librdkafka does no more; (0, None): there is none."""
    cdef char reason[512]
    cdef int error = api.fatal_error(client, reason, sizeof(reason))
    return (error, reason.decode(errors="replace")) if error != RD_KAFKA_ERR_NONE else (0, None)


cdef object committed(const pf_rdkafka *api, rd_kafka_t *client, partitions, int timeout_ms):
    """The group's committed offset of each (topic, partition), None where there is none; None on failure."""
    cdef rd_kafka_topic_partition_list_t *wanted = partition_list(api, partitions)
    cdef int error, i
    with nogil:
        error = api.committed(client, wanted, timeout_ms)
    found = None
    if error == RD_KAFKA_ERR_NONE:
        found = [wanted.elems[i].offset if wanted.elems[i].offset >= 0 else None for i in range(wanted.cnt)]
    api.topic_partition_list_destroy(wanted)
    return found


cdef object watermarks(const pf_rdkafka *api, rd_kafka_t *client, str topic, int partition, int timeout_ms):
    """(first offset, end) of a partition, asked of the broker; with timeout 0 as last heard. None: unknown."""
    cdef bytes name = topic.encode()
    cdef const char *text = name
    cdef int64_t low = -1, high = -1
    cdef int error
    with nogil:
        if timeout_ms > 0:
            error = api.query_watermark_offsets(client, text, partition, &low, &high, timeout_ms)
        else:
            error = api.get_watermark_offsets(client, text, partition, &low, &high)
    return (low, high) if error == RD_KAFKA_ERR_NONE and high >= 0 else None


cdef tuple partition_count(const pf_rdkafka *api, rd_kafka_t *client, str topic, int timeout_ms):
    """(number of partitions, error code) of a topic, asked of the broker."""
    cdef bytes name = topic.encode()
    cdef const rd_kafka_metadata_t *found = NULL
    cdef rd_kafka_topic_t *handle = api.topic_new(client, name, NULL)
    cdef int error, count = 0
    with nogil:
        error = api.metadata(client, 0, handle, &found, timeout_ms)
    if error == RD_KAFKA_ERR_NONE:
        error = found.topics[0].err
        count = found.topics[0].partition_cnt
        api.metadata_destroy(found)
    api.topic_destroy(handle)
    return count, error


cdef bytes group_metadata(const pf_rdkafka *api, rd_kafka_t *client):
    """A consumer's membership as its group knows it now. Raises SourceError where there is none to tell."""
    cdef rd_kafka_consumer_group_metadata_t *metadata
    with nogil:
        metadata = api.consumer_group_metadata(client)
    cdef void *written = NULL
    cdef size_t size = 0
    if metadata == NULL:
        raise SourceError("the Kafka consumer is no member of a group")
    cdef rd_kafka_error_t *error = api.consumer_group_metadata_write(metadata, &written, &size)
    api.consumer_group_metadata_destroy(metadata)
    if error != NULL:
        reason = api.error_string(error).decode()
        api.error_destroy(error)
        raise SourceError(f"the membership of the Kafka consumer cannot be told: {reason}")
    found = (<char *>written)[:size]
    api.mem_free(client, written)
    return found
