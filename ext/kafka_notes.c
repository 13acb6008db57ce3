/* What librdkafka tells of consumers and producers alike: errors of the client, log lines, statistics. */
#include "kafka_notes.h"

static void on_error(rd_kafka_t *client, int err, const char *reason, void *opaque)
{
    pf_kafka_notes_add(opaque, PF_NOTE_ERROR, err, reason, strlen(reason), NULL);
}

/* librdkafka hands a log callback no opaque, only the client; the client's opaque is its notes. */
static const pf_rdkafka *log_api;

static void on_log(const rd_kafka_t *client, int level, const char *facility, const char *text)
{
    pf_kafka_notes *notes = log_api->opaque(client);
    if (notes != NULL && strcmp(facility, "FAIL") != 0) /* on_error tells those */
        pf_kafka_notes_add(notes, PF_NOTE_LOG, level, text, strlen(text), NULL);
}

static int on_statistics(rd_kafka_t *client, char *json, size_t json_size, void *opaque)
{
    pf_kafka_notes_add(opaque, PF_NOTE_STATISTICS, 0, json, json_size, NULL);
    return 0; /* librdkafka frees the text */
}

int pf_kafka_notes_init(pf_kafka_notes *notes, const pf_rdkafka *api)
{
    notes->api = log_api = api;
    return pthread_mutex_init(&notes->lock, NULL);
}

void pf_kafka_notes_configure(pf_kafka_notes *notes, rd_kafka_conf_t *conf)
{
    notes->api->conf_set_opaque(conf, notes);
    notes->api->conf_set_error_cb(conf, on_error);
    notes->api->conf_set_log_cb(conf, on_log);
    notes->api->conf_set_stats_cb(conf, on_statistics);
}
