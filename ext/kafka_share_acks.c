/* What is acknowledged, by whom it is heard, and what becomes of rows whose lock is over. */
#include "kafka_share.h"

#include <string.h>
#include <time.h>

/* For how long a row that is done is remembered, where the broker did not take its acknowledgement. */
static const int64_t REMEMBER_NS = 180ll * 1000000000;
static const int64_t SWEEP_NS = 10ll * 1000000000;
#define REMEMBERED_MOST (1u << 20) /* rows known in all, beyond which none is remembered */

int64_t pf_share_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* ---- acknowledgements: either thread, under the mutex, but for tell() ------------------------------------- */

/* Without memory for an acknowledgement the process ends, as without memory for a note: the row would block its hand. */
void pf_share_push(pf_share_acks *acks, int64_t offset, uint32_t partition, int32_t hand, int32_t type)
{
    if (acks->count == acks->room) {
        acks->room = acks->room == 0 ? 1024 : 2 * acks->room;
        acks->acks = realloc(acks->acks, acks->room * sizeof *acks->acks);
        if (acks->acks == NULL)
            abort();
    }
    acks->acks[acks->count++] = (pf_share_ack){offset, partition, hand, type};
}

int pf_share_source_done(pf_share_source *self, uint32_t partition, const int64_t *offsets, uint32_t count)
{
    int64_t now = pf_share_now_ns();
    pthread_mutex_lock(&self->mutex);
    for (uint32_t i = 0; i < count; i++) {
        pf_share_row *row = pf_share_find(&self->rows, partition, offsets[i]);
        if (row == NULL || row->done_ns != 0)
            continue; /* its topic was made anew */
        row->done_ns = now;
        if (row->hand == PF_SHARE_NO_HAND)
            continue; /* when it comes again, it is acknowledged at once */
        self->unconfirmed++;
        pf_share_push(&self->acks, offsets[i], partition, row->hand, RD_KAFKA_SHARE_ACCEPT);
    }
    int tell = self->acks.count > 0;
    pthread_mutex_unlock(&self->mutex);
    return tell;
}

uint32_t pf_share_source_unconfirmed(pf_share_source *self)
{
    pthread_mutex_lock(&self->mutex);
    uint32_t count = self->unconfirmed;
    pthread_mutex_unlock(&self->mutex);
    return count;
}

/* The broker has taken acknowledgements of one partition, or has not: then its rows come again.  Of how many. */
static uint32_t confirm(pf_share_source *self, uint32_t partition, const int64_t *offsets, size_t count, int err)
{
    uint32_t refused = 0;
    for (size_t i = 0; i < count; i++) {
        pf_share_row *row = pf_share_find(&self->rows, partition, offsets[i]);
        if (row == NULL || row->done_ns == 0 || row->hand == PF_SHARE_NO_HAND)
            continue; /* released, or handled still */
        self->unconfirmed--;
        if (err == RD_KAFKA_ERR_NONE || self->rows.count > REMEMBERED_MOST) {
            pf_share_remove(&self->rows, row);
        } else {
            row->hand = PF_SHARE_NO_HAND;
            refused++;
        }
    }
    return refused;
}

/* On the intake thread, within a call of a share consumer; or while the source is closed. */
void pf_share_on_acknowledged(rd_kafka_share_t *consumer, rd_kafka_share_offsets_list_t *list, int err, void *opaque)
{
    pf_share_source *self = ((pf_share_hand *)opaque)->source;
    const pf_rdkafka_share *share = self->share;
    if (self->closing)
        return;
    uint32_t refused = 0;
    pthread_mutex_lock(&self->mutex);
    for (size_t i = 0; i < share->share_partition_offsets_list_count(list); i++) {
        const rd_kafka_share_offsets_t *each = share->share_partition_offsets_list_get(list, i);
        const rd_kafka_topic_partition_t *part = share->share_partition_offsets_partition(each);
        pf_kafka_partition *place = pf_kafka_place(&self->partitions, part->topic, part->partition, 0);
        if (place != NULL && place->index >= 0)
            refused += confirm(self, (uint32_t)place->index, share->share_partition_offsets_offsets(each),
                               share->share_partition_offsets_offsets_cnt(each), err);
    }
    self->refused += refused;
    pthread_mutex_unlock(&self->mutex);
    if (refused > 0)
        pf_kafka_notes_add(&self->notes, PF_NOTE_COMMIT_FAILED, err, NULL, 0, NULL);
}

static const pf_share_name *name_of(const pf_share_source *self, uint32_t index)
{
    const pf_share_name *name = &self->names[index % PF_SHARE_PARTITIONS];
    return name->topic != NULL && name->index == index ? name : NULL;
}

/* Tell librdkafka what is to be acknowledged.  It sends that with the next poll, or when it is asked to. */
static void tell(pf_share_source *self)
{
    pthread_mutex_lock(&self->mutex);
    pf_share_acks now = self->acks;
    self->acks = self->telling;
    self->telling = now;
    pthread_mutex_unlock(&self->mutex);
    for (uint32_t i = 0; i < self->telling.count; i++) {
        const pf_share_ack *ack = &self->telling.acks[i];
        pf_share_hand *hand = &self->hands[ack->hand];
        const pf_share_name *name = name_of(self, ack->partition);
        if (name != NULL)
            self->share->share_acknowledge_offset(hand->consumer, name->topic, name->partition, ack->offset, ack->type);
        hand->open -= hand->open > 0;
        if (hand->unsent++ == 0)
            hand->unsent_since_ns = pf_share_now_ns();
    }
    self->telling.count = 0;
}

void pf_share_note_error(pf_share_source *self, rd_kafka_error_t *error)
{
    const char *text = self->api->error_string(error);
    pf_kafka_notes_add(&self->notes, PF_NOTE_CONSUMER_ERROR, self->api->error_code(error), text, strlen(text), NULL);
    self->api->error_destroy(error);
}

/* Send what librdkafka was told; its callbacks are served by that, too. */
void pf_share_send(pf_share_source *self, pf_share_hand *hand)
{
    rd_kafka_error_t *error = self->share->share_commit_async(hand->consumer);
    hand->unsent = 0;
    hand->served_ns = pf_share_now_ns();
    if (error != NULL)
        pf_share_note_error(self, error);
}

/* ---- locks ------------------------------------------------------------------------------------------------ */

/* No row of this hand is its own any more: what is not done is given out again by the broker.  librdkafka is told to
 * release it, which the broker takes for nothing where the lock is over, and then the hand is free. */
static void let_go(pf_share_source *self, int32_t number)
{
    pf_share_hand *hand = &self->hands[number];
    uint64_t lost = 0;
    pthread_mutex_lock(&self->mutex);
    for (uint32_t i = 0; i < self->rows.capacity; i++) {
        pf_share_row *row = &self->rows.rows[i];
        if (!row->used || row->hand != number || row->done_ns != 0)
            continue;
        row->hand = PF_SHARE_NO_HAND;
        pf_share_push(&self->acks, row->offset, row->partition, number, RD_KAFKA_SHARE_RELEASE);
        lost++;
    }
    pthread_mutex_unlock(&self->mutex);
    for (; hand->next < hand->count; hand->next++, lost++) {
        const rd_kafka_message_t *message = self->share->messages_get(hand->messages, hand->next);
        self->share->share_acknowledge_offset(hand->consumer, self->api->topic_name(message->rkt), message->partition,
                                              message->offset, RD_KAFKA_SHARE_RELEASE);
        hand->open -= hand->open > 0;
        if (hand->unsent++ == 0)
            hand->unsent_since_ns = pf_share_now_ns();
    }
    if (hand->messages != NULL)
        self->share->messages_destroy(hand->messages);
    hand->messages = NULL;
    atomic_fetch_add(&self->expired, lost);
    self->call = 1;
    tell(self);
    hand->open = 0;
}

void pf_share_source_forget(pf_share_source *self, uint32_t partition)
{
    pthread_mutex_lock(&self->mutex);
    for (uint32_t i = 0; i < self->rows.capacity;) {
        pf_share_row *row = &self->rows.rows[i];
        if (!row->used || row->partition != partition) {
            i++;
            continue;
        }
        if (row->hand != PF_SHARE_NO_HAND && row->done_ns != 0)
            self->unconfirmed--;
        else if (row->hand != PF_SHARE_NO_HAND)
            pf_share_push(&self->acks, row->offset, partition, row->hand, RD_KAFKA_SHARE_RELEASE);
        pf_share_remove(&self->rows, row); /* another one may have moved to its place */
    }
    pthread_mutex_unlock(&self->mutex);
}

static void sweep(pf_share_source *self, int64_t now)
{
    self->swept_ns = now;
    pthread_mutex_lock(&self->mutex);
    for (uint32_t i = 0; i < self->rows.capacity;) {
        pf_share_row *row = &self->rows.rows[i];
        if (row->used && row->done_ns != 0 && row->hand == PF_SHARE_NO_HAND && now - row->done_ns > REMEMBER_NS)
            pf_share_remove(&self->rows, row);
        else
            i++;
    }
    pthread_mutex_unlock(&self->mutex);
}

void pf_share_look_after(pf_share_source *self)
{
    int64_t now = pf_share_now_ns();
    tell(self);
    for (uint32_t i = 0; i < self->n_hands; i++) {
        pf_share_hand *hand = &self->hands[i];
        if (hand->open > 0 && now - hand->taken_ns > self->lock_ns)
            let_go(self, (int32_t)i);
        int waited = hand->unsent > 0 && now - hand->unsent_since_ns > PF_SHARE_SEND_AFTER_NS;
        if (self->subscribed && (waited || now - hand->served_ns > PF_SHARE_SERVE_NS))
            pf_share_send(self, hand);
    }
    if (now - self->swept_ns > SWEEP_NS)
        sweep(self, now);
}
