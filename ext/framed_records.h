/* Records framed as brokers/base.py says: the sizes of key, headers and payload (u32 little endian each), then those.
 *
 * A placed record says beside it where its message came from: bit 31 of the size of the headers is set, and behind the
 * sizes stand timestamp (i64, milliseconds, -1: none), offset (i64, -1: none), partition (i32, -1: any) and the size of
 * the topic's name (u32); then topic, key, headers, payload.
 */
#ifndef PYTHIA_FRAMED_RECORDS_H
#define PYTHIA_FRAMED_RECORDS_H

#include <stdint.h>

#define PF_NO_BYTES 0xFFFFFFFFu /* the size of a null key or payload */
#define PF_PLACED 0x80000000u   /* in the size of the headers */
enum { PF_RECORD_HEADER = 12, PF_PLACE_BYTES = 24 };

typedef struct {
    const uint8_t *topic, *key, *headers, *payload;
    uint32_t key_size, headers_size, payload_size; /* PF_NO_BYTES: null */
    uint32_t topic_size;                           /* 0: it names none */
    int32_t partition;                             /* -1: any */
    uint32_t placed;
    int64_t timestamp_ms, offset;                  /* -1: none */
    uint64_t next;                                 /* where the next record begins */
} pf_framed_record;

static inline uint32_t pf_read_u32(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static inline uint64_t pf_read_u64(const uint8_t *at) { return pf_read_u32(at) | (uint64_t)pf_read_u32(at + 4) << 32; }

/* Bytes that a size stands for. */
static inline uint64_t pf_bytes_of(uint32_t framed) { return framed == PF_NO_BYTES ? 0 : framed; }

/* The record that begins at byte `at` of `size`; 0 when none does that is whole. */
static inline int pf_framed_record_at(const uint8_t *records, uint64_t size, uint64_t at, pf_framed_record *to) {
    if (size - at < PF_RECORD_HEADER) return 0;
    to->key_size = pf_read_u32(records + at);
    to->headers_size = pf_read_u32(records + at + 4);
    to->payload_size = pf_read_u32(records + at + 8);
    to->placed = to->headers_size & PF_PLACED;
    to->headers_size &= ~PF_PLACED;
    uint64_t topic_at = at + PF_RECORD_HEADER;
    to->timestamp_ms = to->offset = -1;
    to->partition = -1;
    to->topic_size = 0;
    if (to->placed) {
        if (size - topic_at < PF_PLACE_BYTES) return 0;
        to->timestamp_ms = (int64_t)pf_read_u64(records + topic_at);
        to->offset = (int64_t)pf_read_u64(records + topic_at + 8);
        to->partition = (int32_t)pf_read_u32(records + topic_at + 16);
        to->topic_size = pf_read_u32(records + topic_at + 20);
        topic_at += PF_PLACE_BYTES;
    }
    uint64_t key_at = topic_at + to->topic_size;
    uint64_t headers_at = key_at + pf_bytes_of(to->key_size);
    uint64_t payload_at = headers_at + to->headers_size;
    to->next = payload_at + pf_bytes_of(to->payload_size);
    if (to->next > size) return 0;
    to->topic = records + topic_at;
    to->key = records + key_at;
    to->headers = records + headers_at;
    to->payload = records + payload_at;
    return 1;
}

#endif
