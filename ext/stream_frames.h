/* Frames of RabbitMQ's stream protocol, and the entries of the chunks that Deliver frames carry.
 *
 *     frame:  size u32 | key u16 | version u16 | ...                    a response has the key's highest bit set
 *     Deliver (8):  subscription u8 | [committed u64, version 2] | chunk
 *     chunk:  magic and version u8 | type u8 | entries u16 | records u32 | timestamp i64 | epoch u64 | first offset u64 |
 *             CRC of the data u32 | data size u32 | trailer size u32 | reserved u32 | data
 *     entry:  0 and its size, 31 bits | bytes          one message
 *             1, compression 3 bits, 4 reserved | records u16 | size when unpacked u32 | size u32 | bytes: a sub-batch,
 *             unpacked a sequence of simple entries
 *
 * Source: RabbitMQ's stream protocol reference (deps/rabbitmq_stream/docs/PROTOCOL.adoc of rabbitmq-server) and the
 * description of the log's format in osiris (osiris_log.erl).  All numbers are in network order.
 *
 * Pure functions over bytes: every read is checked against the end of what it is in. */
#ifndef PYTHIA_STREAM_FRAMES_H
#define PYTHIA_STREAM_FRAMES_H

#include "amqp_table.h"

enum {
    PF_STREAM_DELIVER = 8,
    PF_STREAM_CREDIT = 9,
    PF_STREAM_HEARTBEAT = 23,
    PF_STREAM_SIZE_BYTES = 4,
    PF_STREAM_LEAST_FRAME = 4, /* key and version */
    PF_STREAM_CHUNK_HEADER = 48,
    PF_STREAM_MAGIC = 0x50,    /* magic 5, version 0 */
    PF_STREAM_USER_CHUNK = 0,  /* others hold what the server keeps for itself: stored offsets */
};

enum { PF_STREAM_PLAIN = 0, PF_STREAM_GZIP = 1 };

/* What is wrong with a frame. */
enum {
    PF_STREAM_SOUND = 0,
    PF_STREAM_NOT_STREAM,  /* a size that no frame has */
    PF_STREAM_CUT_CHUNK,   /* a chunk's header or data goes beyond its frame */
    PF_STREAM_OTHER_CHUNK, /* another version of the format */
    PF_STREAM_BAD_CRC,
    PF_STREAM_BAD_ENTRY,   /* an entry goes beyond the chunk, or there are others than the header says */
};

typedef struct {
    uint8_t subscription, type;
    uint16_t entries;
    uint32_t records, crc;
    int64_t timestamp_ms;
    uint64_t first;
    const uint8_t *data;
    uint32_t data_size;
} pf_stream_chunk;

/* The Deliver frame `frame`, without its size; PF_STREAM_... */
static inline int pf_stream_read_chunk(const uint8_t *frame, size_t size, pf_stream_chunk *chunk) {
    pf_amqp_bytes in = {frame, frame + size, 0};
    pf_amqp_uint(&in, 2); /* key */
    uint64_t version = pf_amqp_uint(&in, 2);
    chunk->subscription = (uint8_t)pf_amqp_uint(&in, 1);
    if (version == 2) pf_amqp_uint(&in, 8);
    uint64_t magic = pf_amqp_uint(&in, 1);
    chunk->type = (uint8_t)pf_amqp_uint(&in, 1);
    chunk->entries = (uint16_t)pf_amqp_uint(&in, 2);
    chunk->records = (uint32_t)pf_amqp_uint(&in, 4);
    chunk->timestamp_ms = pf_amqp_int(&in, 8);
    pf_amqp_uint(&in, 8); /* epoch */
    chunk->first = pf_amqp_uint(&in, 8);
    chunk->crc = (uint32_t)pf_amqp_uint(&in, 4);
    chunk->data_size = (uint32_t)pf_amqp_uint(&in, 4);
    pf_amqp_uint(&in, 4); /* trailer */
    pf_amqp_uint(&in, 4); /* reserved */
    if (in.bad) return PF_STREAM_CUT_CHUNK;
    if (magic != PF_STREAM_MAGIC || version < 1 || version > 2) return PF_STREAM_OTHER_CHUNK;
    chunk->data = pf_amqp_take(&in, chunk->data_size);
    /* offsets are positions of the run's, which are signed */
    if (in.bad || chunk->first > INT64_MAX - (uint64_t)chunk->records) return PF_STREAM_CUT_CHUNK;
    return PF_STREAM_SOUND;
}

typedef struct {
    const uint8_t *bytes; /* the message, or the sub-batch as it is packed */
    uint32_t size;
    uint32_t is_batch, compression, records, unpacked_size; /* the last three: of a sub-batch */
    size_t next;          /* where the next entry begins */
} pf_stream_entry;

/* The entry at `at` of `size` bytes; 0: none is whole there. */
static inline int pf_stream_read_entry(const uint8_t *data, size_t size, size_t at, pf_stream_entry *entry) {
    if (at > size) return 0;
    pf_amqp_bytes in = {data + at, data + size, 0};
    uint32_t first = (uint32_t)pf_amqp_uint(&in, 1);
    entry->is_batch = first >> 7;
    if (entry->is_batch) {
        entry->compression = first >> 4 & 7;
        entry->records = (uint32_t)pf_amqp_uint(&in, 2);
        entry->unpacked_size = (uint32_t)pf_amqp_uint(&in, 4);
        entry->size = (uint32_t)pf_amqp_uint(&in, 4);
    } else {
        entry->compression = entry->unpacked_size = 0;
        entry->records = 1;
        entry->size = first << 24 | (uint32_t)pf_amqp_uint(&in, 3);
    }
    entry->bytes = pf_amqp_take(&in, entry->size);
    if (in.bad) return 0;
    entry->next = (size_t)(in.at - data);
    return 1;
}

#endif
