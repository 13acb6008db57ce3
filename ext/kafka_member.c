/* A Kafka source as a member of its group: rebalances, commits and leaving. */
#include "kafka_source.h"

#include <stddef.h>
#include <string.h>

/* ---- librdkafka's callbacks ------------------------------------------------------------------------ */

static pf_kafka_source *source_of(void *notes)
{
    return (pf_kafka_source *)((char *)notes - offsetof(pf_kafka_source, notes));
}

/* While closing nobody drains any more: whatever is offered or taken is answered at once. */
static void answer_while_closing(const pf_kafka_source *self, rd_kafka_t *client, int err,
                                 const rd_kafka_topic_partition_list_t *partitions)
{
    const char *protocol = self->api->rebalance_protocol(client);
    if (protocol != NULL && strcmp(protocol, "COOPERATIVE") == 0) {
        rd_kafka_error_t *error = err == RD_KAFKA_ERR_ASSIGN_PARTITIONS
                                      ? self->api->incremental_assign(client, partitions)
                                      : self->api->incremental_unassign(client, partitions);
        if (error != NULL)
            self->api->error_destroy(error);
    } else {
        self->api->assign(client, NULL);
    }
}

static void on_rebalance(rd_kafka_t *client, int err, rd_kafka_topic_partition_list_t *partitions, void *opaque)
{
    pf_kafka_source *self = source_of(opaque);
    if (self->closing)
        answer_while_closing(self, client, err, partitions);
    else if (err == RD_KAFKA_ERR_ASSIGN_PARTITIONS)
        pf_kafka_notes_add(&self->notes, PF_NOTE_ASSIGN, err, NULL, 0, partitions);
    else
        pf_kafka_notes_add(&self->notes, PF_NOTE_REVOKE, err, NULL, 0, partitions);
}

void pf_kafka_source_configure(pf_kafka_source *self, rd_kafka_conf_t *conf)
{
    pf_kafka_notes_configure(&self->notes, conf);
    self->api->conf_set_rebalance_cb(conf, on_rebalance);
    pf_kafka_spent_configure(&self->spent, self->api, conf);
}

/* ---- commits --------------------------------------------------------------------------------------------- */

static int first_error(int err, const rd_kafka_topic_partition_list_t *offsets)
{
    for (int i = 0; err == RD_KAFKA_ERR_NONE && offsets != NULL && i < offsets->cnt; i++)
        err = offsets->elems[i].err;
    return err;
}

static void on_commit(rd_kafka_t *client, int err, rd_kafka_topic_partition_list_t *offsets, void *opaque)
{
    pf_kafka_source *self = opaque;
    atomic_store(&self->commit_under_way, 0);
    err = first_error(err, offsets);
    if (err != RD_KAFKA_ERR_NONE && !self->closing)
        pf_kafka_notes_add(&self->notes, PF_NOTE_COMMIT_FAILED, err, NULL, 0, NULL);
}

int pf_kafka_source_commit_later(pf_kafka_source *self, const rd_kafka_topic_partition_list_t *offsets)
{
    self->api->queue_poll_callback(self->commits, 0);
    if (atomic_exchange(&self->commit_under_way, 1))
        return RD_KAFKA_ERR_IN_PROGRESS;
    int error = self->api->commit_queue(self->client, offsets, self->commits, on_commit, self);
    if (error != RD_KAFKA_ERR_NONE)
        atomic_store(&self->commit_under_way, 0);
    return error;
}

static void on_waited_commit(rd_kafka_t *client, int err, rd_kafka_topic_partition_list_t *offsets, void *opaque)
{
    *(int *)opaque = first_error(err, offsets);
}

static int left_ms(int64_t until)
{
    int64_t left = until - pf_kafka_now_ns();
    return left > 0 ? (int)(left / 1000000) + 1 : 0;
}

static int slice_ms(int64_t until)
{
    int left = left_ms(until);
    return left < PF_KAFKA_HURRY_MS ? left : PF_KAFKA_HURRY_MS;
}

/* The answer comes to a queue of this call's own: after a timeout the queue goes, and with it the answer.  A commit before
 * that is not answered in that time may still come after this one, which is sent all the same, though no time is left to
 * wait for it: it then has to be made again, which is better than none. */
int pf_kafka_source_commit(pf_kafka_source *self, const rd_kafka_topic_partition_list_t *offsets, int timeout_ms)
{
    int64_t until = pf_kafka_now_ns() + timeout_ms * 1000000ll;
    while (atomic_load(&self->commit_under_way) && left_ms(until) > 0 && !pf_kafka_is_hurried(self))
        self->api->queue_poll_callback(self->commits, slice_ms(until));
    int result = RD_KAFKA_ERR_TIMED_OUT;
    rd_kafka_queue_t *answers = self->api->queue_new(self->client);
    int error = self->api->commit_queue(self->client, offsets, answers, on_waited_commit, &result);
    if (error != RD_KAFKA_ERR_NONE)
        result = error;
    else /* once at least: what has come already is taken, whatever time is left */
        while (self->api->queue_poll_callback(answers, slice_ms(until)) == 0 && left_ms(until) > 0 &&
               !pf_kafka_is_hurried(self))
            ;
    self->api->queue_destroy(answers);
    return result;
}

/* ---- leaving -------------------------------------------------------------------------------------------- */

/* Leave the group: rebalances are answered (answer_while_closing) by the queue's poll until librdkafka says that it is
 * out.  A broker that does not answer would have it wait without end, so there is a limit; then the group finds out
 * by the session's timeout.  Returns whether the group was left. */
int pf_kafka_source_leave(pf_kafka_source *self, int64_t leave_ms)
{
    int64_t deadline = pf_kafka_now_ns() + leave_ms * 1000000;
    rd_kafka_error_t *error = self->api->consumer_close_queue(self->client, self->queue);
    if (error != NULL) {
        self->api->error_destroy(error);
        return 0;
    }
    do { /* once at least: a rebalance that waits for its answer would hold the destruction up without end */
        ssize_t got = self->api->consume_batch_queue(self->queue, PF_KAFKA_HURRY_MS, self->messages, PF_KAFKA_FETCH);
        for (ssize_t i = 0; i < got; i++)
            self->api->message_destroy(self->messages[i]);
        if (self->api->consumer_closed(self->client))
            return 1;
    } while (pf_kafka_now_ns() < deadline && !pf_kafka_is_hurried(self));
    return 0;
}
