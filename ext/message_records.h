/* A batch's messages as framed records, straight from the raw region: what a handler returns that hands them on as they
 * are (pythia_fast/results/forwarding.py). */
#ifndef PYTHIA_MESSAGE_RECORDS_H
#define PYTHIA_MESSAGE_RECORDS_H

#include <string.h>
#include "arena_layout.h"
#include "framed_records.h"

/* What a partition index stands for, and under which name and number it is written. */
typedef struct {
    uint32_t index;
    int32_t partition;    /* -1: any */
    const uint8_t *topic; /* topic_size 0: none is written */
    uint32_t topic_size;
} pf_message_place;

/* What of a message's place is written; 0: records without one. */
enum { PF_WITH_PLACE = 1, PF_WITH_TIME = 2, PF_WITH_OFFSET = 4 };

enum { PF_MESSAGES_DONE = 0, PF_MESSAGES_FULL = 1, PF_MESSAGES_BROKEN = 2 };

static inline uint8_t *pf_store_u32(uint8_t *at, uint32_t value) {
    for (int shift = 0; shift < 32; shift += 8) *at++ = (uint8_t)(value >> shift);
    return at;
}

static inline uint8_t *pf_store_u64(uint8_t *at, uint64_t value) {
    return pf_store_u32(pf_store_u32(at, (uint32_t)value), (uint32_t)(value >> 32));
}

static inline uint8_t *pf_store_bytes(uint8_t *at, const uint8_t *bytes, uint64_t size) {
    if (size) memcpy(at, bytes, size);
    return at + size;
}

/* Whether a span that a message tells lies in the raw region. */
static inline int pf_in_raw(uint64_t raw_bytes, uint32_t at, uint64_t size) {
    return size <= raw_bytes && at <= raw_bytes - size;
}

static const pf_message_place *pf_place_of_message(const pf_message_place *places, uint32_t n_places, uint32_t index) {
    for (uint32_t i = 0; i < n_places; i++)
        if (places[i].index == index) return &places[i];
    return NULL;
}

/* Write messages `*row` .. `end` until done or until one does not fit; `*row` is then the first that was not written.
 * PF_MESSAGES_BROKEN: it points outside of the raw region, which the intake never does, or has no place in the table. */
static int pf_encode_messages(const pf_message *messages, const uint8_t *raw, uint64_t raw_bytes,
                              const pf_message_place *places, uint32_t n_places, uint32_t what, uint64_t *row, uint64_t end,
                              uint8_t *region, uint64_t region_bytes, uint64_t *used) {
    const pf_message_place *place = NULL;
    *used = 0;
    for (; *row < end; ++*row) {
        const pf_message *m = &messages[*row];
        int null = m->payload_size == PF_NO_PAYLOAD;
        uint64_t key_bytes = m->key_size < 0 ? 0 : (uint64_t)m->key_size, payload_bytes = null ? 0 : m->payload_size;
        if ((key_bytes && !pf_in_raw(raw_bytes, m->key_at, key_bytes)) ||
            (m->headers_size && !pf_in_raw(raw_bytes, m->headers_at, m->headers_size)) ||
            (payload_bytes && !pf_in_raw(raw_bytes, m->payload_at, payload_bytes)) || m->headers_size & PF_PLACED)
            return PF_MESSAGES_BROKEN;
        uint64_t need = PF_RECORD_HEADER + key_bytes + m->headers_size + payload_bytes;
        if (what) {
            if (place == NULL || place->index != m->partition) place = pf_place_of_message(places, n_places, m->partition);
            if (place == NULL) return PF_MESSAGES_BROKEN;
            need += PF_PLACE_BYTES + (what & PF_WITH_PLACE ? place->topic_size : 0);
        }
        if (need > region_bytes - *used) return PF_MESSAGES_FULL;
        uint8_t *at = region + *used;
        at = pf_store_u32(at, m->key_size < 0 ? PF_NO_BYTES : (uint32_t)key_bytes);
        at = pf_store_u32(at, m->headers_size | (what ? PF_PLACED : 0));
        at = pf_store_u32(at, null ? PF_NO_BYTES : m->payload_size);
        if (what) {
            at = pf_store_u64(at, (uint64_t)(what & PF_WITH_TIME ? m->timestamp_ms : -1));
            at = pf_store_u64(at, (uint64_t)(what & PF_WITH_OFFSET ? m->offset : -1));
            at = pf_store_u32(at, what & PF_WITH_PLACE ? (uint32_t)place->partition : (uint32_t)-1);
            at = pf_store_u32(at, what & PF_WITH_PLACE ? place->topic_size : 0);
            if (what & PF_WITH_PLACE) at = pf_store_bytes(at, place->topic, place->topic_size);
        }
        if (key_bytes) at = pf_store_bytes(at, raw + m->key_at, key_bytes);
        if (m->headers_size) at = pf_store_bytes(at, raw + m->headers_at, m->headers_size);
        if (payload_bytes) pf_store_bytes(at, raw + m->payload_at, payload_bytes);
        *used += need;
    }
    return PF_MESSAGES_DONE;
}

#endif
