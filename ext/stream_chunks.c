/* The chunk at hand: its entries, one after the other, to the sink. */
#include "stream_source.h"

#define unlikely(x) __builtin_expect(!!(x), 0)

void pf_stream_end_batch(pf_stream_source *self)
{
    free(self->unpacked);
    self->unpacked = NULL;
    self->batch_left = self->wants_unpacking = self->refuses = 0;
}

/* How many chunks fit into what may be read ahead: as many as had the size of the largest of late.  It grows step by step,
 * since those to come may be larger. */
static void choose_credit(pf_stream_source *self, pf_stream_part *part, size_t size)
{
    part->largest = size > part->largest ? size : part->largest - (part->largest - size) / 8;
    uint64_t fit = self->read_ahead_bytes / self->n_parts / (part->largest ? part->largest : 1);
    if (fit > PF_STREAM_MOST_CREDIT)
        fit = PF_STREAM_MOST_CREDIT;
    if (fit > 2 * (uint64_t)part->target)
        fit = 2 * (uint64_t)part->target;
    part->target = fit < 1 ? 1 : (uint32_t)fit;
}

/* A Deliver frame is whole. */
void pf_stream_begin_chunk(pf_stream_source *self, size_t frame)
{
    pf_stream_chunk chunk;
    const uint8_t *bytes = self->in + self->in_at + PF_STREAM_SIZE_BYTES;
    int fault = pf_stream_read_chunk(bytes, frame - PF_STREAM_SIZE_BYTES, &chunk);
    if (fault == PF_STREAM_SOUND && chunk.subscription >= self->n_parts)
        fault = PF_STREAM_NOT_STREAM;
    if (fault == PF_STREAM_SOUND && pf_crc32_of(&self->crc, chunk.data, chunk.data_size) != chunk.crc)
        fault = PF_STREAM_BAD_CRC;
    if (fault != PF_STREAM_SOUND) {
        pf_stream_source_break(self, (uint32_t)fault, fault == PF_STREAM_BAD_CRC ? (int64_t)chunk.first : 0);
        return;
    }
    pf_stream_count_up(&self->chunks, 1);
    pf_stream_part *part = &self->parts[chunk.subscription];
    if (part->exact && chunk.type == PF_STREAM_USER_CHUNK && chunk.records > 0 &&
        (int64_t)(chunk.first + chunk.records) <= atomic_load_explicit(&part->wanted, memory_order_relaxed)) {
        pf_stream_source_break(self, PF_STREAM_BEGUN_ANEW, (int64_t)chunk.first);
        return;
    }
    part->credit -= part->credit > 0;
    choose_credit(self, part, frame);
    self->part = chunk.subscription;
    self->frame_size = frame;
    self->data_at = (size_t)(chunk.data - (self->in + self->in_at));
    self->data_size = chunk.data_size;
    self->entry_at = 0;
    self->entries_left = chunk.type == PF_STREAM_USER_CHUNK ? chunk.entries : 0;
    self->offset = chunk.first;
    self->chunk_end = chunk.first + chunk.records;
    self->chunk_ms = chunk.timestamp_ms;
    self->in_chunk = 1;
}

void pf_stream_end_chunk(pf_stream_source *self)
{
    pf_stream_part *part = &self->parts[self->part];
    if (part->bounded && self->chunk_end > (uint64_t)part->end)
        part->done = 1;
    self->in_at += self->frame_size;
    self->in_chunk = 0;
    if (self->in_at < self->in_end)
        return;
    self->in_at = self->in_end = 0;
    if (self->in_room > 2 * self->read_ahead_bytes) { /* what one large chunk needed is not held for ever */
        free(self->in);
        self->in = NULL;
        self->in_room = 0;
    }
}

/* Hand one message on, or what stands for `records` of them; PF_STALLED: there is no room for it. */
static int offer(pf_stream_source *self, pf_sink *sink, const uint8_t *bytes, size_t size, uint32_t records, int refusal)
{
    pf_stream_part *part = &self->parts[self->part];
    int64_t offset = (int64_t)self->offset, next = offset + records;
    int64_t wanted = atomic_load_explicit(&part->wanted, memory_order_relaxed);
    if (next <= wanted || (part->bounded && offset > part->end)) {
        self->offset += records;
        return PF_APPENDED;
    }
    pf_incoming incoming = {
        .payload = bytes,
        .size = size,
        .key_size = -1,
        .partition = self->part,
        .offset = offset < wanted ? wanted : offset, /* a part of a packed sub-batch was handed on before */
        .next_offset = next,
        .timestamp_ms = self->chunk_ms,
        .cut = (uint8_t)refusal,
    };
    if (!refusal && !self->raw) {
        pf_amqp1_message *message = &self->message;
        if (pf_amqp1_read(message, bytes, size)) {
            incoming.payload = message->payload;
            incoming.size = message->size;
            incoming.key = message->key;
            incoming.key_size = message->key_size;
            incoming.headers = message->headers.bytes;
            incoming.headers_size = (uint32_t)message->headers.size;
            if (message->timestamp_ms >= 0)
                incoming.timestamp_ms = message->timestamp_ms;
        } else if (message->headers.failed || message->joined.failed || message->key_text.failed) {
            message->headers.failed = message->joined.failed = message->key_text.failed = 0;
            pf_stream_source_break(self, PF_STREAM_MEMORY, ENOMEM);
            return PF_APPENDED;
        } else {
            incoming.cut = PF_NOT_AMQP;
        }
    }
    if (sink->append(sink, &incoming) != PF_APPENDED)
        return PF_STALLED;
    self->offset += records;
    part->exact = 1;
    atomic_store_explicit(&part->wanted, next, memory_order_relaxed);
    pf_stream_count_up(&self->messages, 1);
    return PF_APPENDED;
}

static const uint8_t *chunk_data(const pf_stream_source *self)
{
    return self->in + self->in_at + self->data_at;
}

const uint8_t *pf_stream_source_packed(pf_stream_source *self, pf_stream_entry *entry)
{
    *entry = (pf_stream_entry){0};
    pf_stream_read_entry(chunk_data(self), self->data_size, self->entry_at, entry); /* it was read before, so it is there */
    return entry->bytes;
}

void pf_stream_source_unpacked(pf_stream_source *self, uint8_t *bytes, size_t size)
{
    self->wants_unpacking = 0;
    if (!self->in_chunk || bytes == NULL) {
        free(bytes);
        self->refuses = 1;
        return;
    }
    pf_stream_entry entry;
    pf_stream_source_packed(self, &entry);
    self->unpacked = bytes;
    self->batch_left = entry.records;
    self->batch_at = 0;
    self->batch_end = size;
    self->after_batch = entry.next;
}

/* The next message of the sub-batch at hand; PF_STALLED: there is no room for it. */
static int next_of_batch(pf_stream_source *self, pf_sink *sink)
{
    pf_stream_entry entry;
    const uint8_t *data = self->unpacked != NULL ? self->unpacked : chunk_data(self);
    if (!pf_stream_read_entry(data, self->batch_end, self->batch_at, &entry) || entry.is_batch) {
        /* Its CRC is right, so it was written like this: what is left of it is one row that says so. */
        if (offer(self, sink, data + self->batch_at, self->batch_end - self->batch_at, self->batch_left, PF_BAD_BATCH))
            return PF_STALLED;
        self->batch_left = 0;
    } else {
        if (offer(self, sink, entry.bytes, entry.size, 1, 0) == PF_STALLED)
            return PF_STALLED;
        if (self->fd < 0)
            return PF_APPENDED; /* given up, and with it the sub-batch */
        self->batch_at = entry.next;
        self->batch_left--;
    }
    if (self->batch_left == 0) {
        self->entry_at = self->after_batch;
        self->entries_left--;
        pf_stream_end_batch(self);
    }
    return PF_APPENDED;
}

int pf_stream_next_of_chunk(pf_stream_source *self, pf_sink *sink)
{
    if (self->batch_left > 0)
        return next_of_batch(self, sink);
    pf_stream_entry entry;
    if (unlikely(!pf_stream_read_entry(chunk_data(self), self->data_size, self->entry_at, &entry) ||
                 entry.records > self->chunk_end - self->offset)) {
        pf_stream_source_break(self, PF_STREAM_BAD_ENTRY, (int64_t)self->offset);
        return PF_APPENDED;
    }
    if (entry.is_batch && entry.records > 0 && !self->refuses) {
        if (entry.compression == PF_STREAM_PLAIN) {
            self->batch_left = entry.records;
            self->batch_at = (size_t)(entry.bytes - chunk_data(self));
            self->batch_end = self->batch_at + entry.size;
            self->after_batch = entry.next;
        } else if (entry.compression == PF_STREAM_GZIP) {
            self->wants_unpacking = 1;
        } else {
            self->refuses = 1;
        }
        return PF_APPENDED;
    }
    int refusal = !entry.is_batch ? 0 : entry.compression <= PF_STREAM_GZIP ? PF_BAD_BATCH : PF_COMPRESSED;
    if ((!entry.is_batch || entry.records > 0) &&
        offer(self, sink, entry.bytes, entry.size, entry.records, refusal) == PF_STALLED)
        return PF_STALLED;
    self->refuses = 0;
    self->entry_at = entry.next;
    self->entries_left--;
    return PF_APPENDED;
}
