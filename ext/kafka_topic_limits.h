/* What a topic takes: asked of the brokers (DescribeConfigs) before the first record is handed over.
 *
 * A batch that is too large is refused whole, while those behind it, which are on their way already, may be taken: the
 * order would be lost.  librdkafka puts no more than batch.size bytes into a batch, before it compresses them, but for
 * a record that is larger alone.  So with a batch.size that the topic takes, no more than single records are refused.
 *
 * A compacted topic refuses a batch whole for one record without a key.  So such a record is not handed over.
 */
#ifndef PYTHIA_KAFKA_TOPIC_LIMITS_H
#define PYTHIA_KAFKA_TOPIC_LIMITS_H

#include <stdlib.h>
#include <string.h>
#include "rdkafka_api.h"

#define PF_TOPIC_LIMIT_UNKNOWN 0

typedef struct {
    int64_t batch_bytes; /* PF_TOPIC_LIMIT_UNKNOWN, or how large a batch may be */
    int needs_key;       /* the topic is compacted */
} pf_topic_limits;

/* Put the question; the answer comes to the queue.  0, or -1: there is no memory. */
static inline int pf_topic_limits_ask(const pf_rdkafka *api, rd_kafka_t *client, const char *topic, int timeout_ms,
                                     rd_kafka_queue_t *answers)
{
    char reason[256];
    rd_kafka_AdminOptions_t *options = api->AdminOptions_new(client, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
    rd_kafka_ConfigResource_t *asked = api->ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic);
    int known = options != NULL && asked != NULL;
    if (known) {
        api->AdminOptions_set_request_timeout(options, timeout_ms, reason, sizeof reason);
        api->DescribeConfigs(client, &asked, 1, options, answers);
    }
    if (asked != NULL)
        api->ConfigResource_destroy(asked);
    if (options != NULL)
        api->AdminOptions_destroy(options);
    return known ? 0 : -1;
}

/* By the topic's settings.  A batch must fit into a segment of the log as well. */
static inline pf_topic_limits pf_topic_limits_of(const pf_rdkafka *api, const rd_kafka_ConfigResource_t *topic)
{
    size_t count = 0;
    const rd_kafka_ConfigEntry_t **settings = api->ConfigResource_configs(topic, &count);
    pf_topic_limits limits = {PF_TOPIC_LIMIT_UNKNOWN, 0};
    for (size_t i = 0; i < count; i++) {
        const char *name = api->ConfigEntry_name(settings[i]), *value = api->ConfigEntry_value(settings[i]);
        if (value == NULL)
            continue;
        if (strcmp(name, "cleanup.policy") == 0) {
            limits.needs_key = strstr(value, "compact") != NULL;
        } else if (strcmp(name, "max.message.bytes") == 0 || strcmp(name, "segment.bytes") == 0) {
            int64_t bytes = strtoll(value, NULL, 10);
            if (bytes > 0 && (limits.batch_bytes == PF_TOPIC_LIMIT_UNKNOWN || bytes < limits.batch_bytes))
                limits.batch_bytes = bytes;
        }
    }
    return limits;
}

/* Wait for the answer.  0: it has not come yet; 1: it has, as an error code or limits. */
static inline int pf_topic_limits_hear(const pf_rdkafka *api, rd_kafka_queue_t *answers, int timeout_ms, int *err,
                                      pf_topic_limits *limits)
{
    rd_kafka_event_t *event = api->queue_poll(answers, timeout_ms);
    if (event == NULL)
        return 0;
    *limits = (pf_topic_limits){PF_TOPIC_LIMIT_UNKNOWN, 0};
    *err = api->event_error(event);
    const rd_kafka_DescribeConfigs_result_t *result = api->event_DescribeConfigs_result(event);
    if (*err == RD_KAFKA_ERR_NONE && result != NULL) {
        size_t count = 0;
        const rd_kafka_ConfigResource_t **topics = api->DescribeConfigs_result_resources(result, &count);
        if (count == 1) {
            *err = api->ConfigResource_error(topics[0]);
            *limits = pf_topic_limits_of(api, topics[0]);
        }
    }
    api->event_destroy(event);
    return 1;
}

#endif
