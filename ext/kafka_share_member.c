/* The hands of a share source: how they come and go, and what their rows are called. */
#include "kafka_farewell.h"
#include "kafka_share.h"

#include <string.h>

/* ---- life ------------------------------------------------------------------------------------------------- */

static int on_new(rd_kafka_t *client, const rd_kafka_conf_t *conf, void *opaque, char *reason, size_t reason_size)
{
    ((pf_share_hand *)opaque)->client = client;
    return RD_KAFKA_ERR_NONE;
}

int pf_share_source_add(pf_share_source *self, rd_kafka_conf_t *conf, char *reason, size_t reason_size)
{
    pf_share_hand *hand = &self->hands[self->n_hands];
    hand->source = self;
    pf_kafka_notes_configure(&self->notes, conf);
    self->api->conf_interceptor_add_on_new(conf, "pythia_fast", on_new, hand);
    hand->consumer = self->share->share_consumer_new(conf, reason, reason_size);
    if (hand->consumer == NULL) {
        self->api->conf_destroy(conf);
        return 0;
    }
    self->n_hands++;
    rd_kafka_error_t *error = self->share->share_set_acknowledgement_commit_cb(hand->consumer, pf_share_on_acknowledged, hand);
    if (error != NULL)
        pf_share_note_error(self, error);
    hand->queue = self->api->queue_get_consumer(hand->client);
    if (hand->queue != NULL)
        self->api->queue_io_event_enable(hand->queue, self->pipe.write_fd, "", 1);
    return 1;
}

int pf_share_source_subscribe(pf_share_source *self, const rd_kafka_topic_partition_list_t *topics)
{
    for (uint32_t i = 0; i < self->n_hands; i++) {
        int error = self->share->share_subscribe(self->hands[i].consumer, topics);
        if (error != RD_KAFKA_ERR_NONE)
            return error;
    }
    self->subscribed = 1;
    return RD_KAFKA_ERR_NONE;
}

uint32_t pf_share_source_assigned(const pf_share_source *self)
{
    uint32_t assigned = 0;
    for (uint32_t i = 0; i < self->n_hands; i++) {
        rd_kafka_topic_partition_list_t *parts = NULL;
        if (self->share->assignment(self->hands[i].client, &parts) != RD_KAFKA_ERR_NONE || parts == NULL)
            continue;
        assigned += parts->cnt > 0;
        self->api->topic_partition_list_destroy(parts);
    }
    return assigned;
}

const char *pf_share_source_unnamed(pf_share_source *self, int32_t *partition)
{
    for (uint32_t i = 0; i < self->n_hands; i++) {
        pf_share_hand *hand = &self->hands[i];
        if (hand->next >= hand->count)
            continue;
        const rd_kafka_message_t *message = self->share->messages_get(hand->messages, hand->next);
        pf_kafka_partition *place = pf_kafka_place_of(&self->partitions, self->api, message);
        if (place != NULL && place->index >= 0)
            continue;
        *partition = message->partition;
        return self->api->topic_name(message->rkt);
    }
    return NULL;
}

int pf_share_source_name(pf_share_source *self, const char *topic, int32_t partition, uint32_t index)
{
    pf_kafka_partition *place = pf_kafka_place(&self->partitions, topic, partition, 1);
    if (place == NULL)
        return -1;
    place->index = index;
    self->names[index % PF_SHARE_PARTITIONS] =
        (pf_share_name){pf_kafka_topic_named(&self->partitions, topic)->name, index, partition};
    return 0;
}

uint64_t pf_share_source_in_hand(const pf_share_source *self)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < self->n_hands; i++)
        count += self->hands[i].open;
    return count;
}

static void leave(const pf_rdkafka *api, void *client, int flags)
{
    const pf_share_hand *hand = client;
    rd_kafka_error_t *error = hand->source->share->share_destroy(hand->consumer);
    if (error != NULL)
        api->error_destroy(error);
}

int pf_share_source_release(pf_share_source *self, int64_t timeout_ms)
{
    pf_kafka_farewell *farewells[PF_SHARE_MOST_HANDS];
    int64_t deadline = pf_share_now_ns() + timeout_ms * 1000000;
    int is_over = 1;
    self->closing = 1;
    for (uint32_t i = 0; i < self->n_hands; i++) {
        pf_share_hand *hand = &self->hands[i];
        if (hand->messages != NULL)
            self->share->messages_destroy(hand->messages);
        if (hand->queue != NULL) {
            self->api->queue_io_event_enable(hand->queue, -1, NULL, 0);
            self->api->queue_destroy(hand->queue);
        }
        farewells[i] = pf_kafka_farewell_begin(leave, self->api, hand, 0);
    }
    for (uint32_t i = 0; i < self->n_hands; i++) {
        if (farewells[i] == NULL)
            continue;
        int over;
        while (!(over = pf_kafka_farewell_is_over(farewells[i])) && pf_share_now_ns() < deadline)
            ;
        if (over)
            free(farewells[i]);
        else
            pf_kafka_farewell_abandon(farewells[i]);
        is_over &= over;
    }
    if (!is_over)
        return 0;
    pf_wake_close(&self->pipe);
    pf_kafka_notes_destroy(&self->notes);
    pf_kafka_places_free(&self->partitions);
    free(self->headers.bytes);
    free(self->rows.rows);
    free(self->acks.acks);
    free(self->telling.acks);
    pthread_mutex_destroy(&self->mutex);
    return 1;
}
