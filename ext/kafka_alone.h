/* One record in a call of its own, with what produce_batch knows nothing of: headers, time, a partition that is said. */
#ifndef PYTHIA_KAFKA_ALONE_H
#define PYTHIA_KAFKA_ALONE_H

#include "kafka_header_list.h"

/* Whether a record needs such a call. */
static inline int pf_kafka_goes_alone(const pf_framed_record *one)
{
    return one->headers_size != 0 || one->placed;
}

/* Hand it to librdkafka: the error, or 0.  `topic` NULL: there is no such topic's handle. */
static inline int pf_kafka_produce_alone(const pf_rdkafka *api, rd_kafka_t *client, const pf_framed_record *one,
                                         const rd_kafka_message_t *message, rd_kafka_topic_t *topic)
{
    if (topic == NULL)
        return -186; /* _INVALID_ARG */
    rd_kafka_vu_t arguments[8] = {
        {.vtype = RD_KAFKA_VTYPE_RKT, .u.rkt = topic},
        {.vtype = RD_KAFKA_VTYPE_VALUE, .u.mem = {message->payload, message->len}},
        {.vtype = RD_KAFKA_VTYPE_KEY, .u.mem = {message->key, message->key_len}},
        {.vtype = RD_KAFKA_VTYPE_OPAQUE, .u.ptr = message->opaque},
        {.vtype = RD_KAFKA_VTYPE_MSGFLAGS, .u.i = 0},
    };
    size_t count = 5;
    rd_kafka_headers_t *headers = NULL;
    if (one->headers_size != 0) {
        headers = pf_decode_headers(api, one->headers, one->headers_size);
        if (headers == NULL)
            return -199; /* _BAD_MSG: our own word for headers that are not in the agreed encoding */
        arguments[count++] = (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_HEADERS, .u.headers = headers};
    }
    if (one->partition >= 0)
        arguments[count++] = (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_PARTITION, .u.i32 = one->partition};
    if (one->timestamp_ms >= 0) /* librdkafka takes 0 for now */
        arguments[count++] = (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_TIMESTAMP, .u.i64 = one->timestamp_ms};
    rd_kafka_error_t *error = api->produceva(client, arguments, count);
    if (error == NULL)
        return RD_KAFKA_ERR_NONE;
    int code = api->error_code(error);
    api->error_destroy(error);
    if (headers != NULL)
        api->headers_destroy(headers);
    return code;
}

#endif
