/* Records framed as brokers/base.py says: the sizes of key, headers and payload (u32 little endian each), then those. */
#ifndef PYTHIA_FRAMED_RECORDS_H
#define PYTHIA_FRAMED_RECORDS_H

#include <stdint.h>

#define PF_NO_BYTES 0xFFFFFFFFu /* the size of a null key or payload */
enum { PF_RECORD_HEADER = 12 };

typedef struct {
    const uint8_t *key, *headers, *payload;
    uint32_t key_size, headers_size, payload_size; /* PF_NO_BYTES: null */
    uint64_t next;                                 /* where the next record begins */
} pf_framed_record;

static inline uint32_t pf_read_u32(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* Bytes that a size stands for. */
static inline uint64_t pf_bytes_of(uint32_t framed) { return framed == PF_NO_BYTES ? 0 : framed; }

/* The record that begins at byte `at` of `size`; 0 when none does that is whole. */
static inline int pf_framed_record_at(const uint8_t *records, uint64_t size, uint64_t at, pf_framed_record *to) {
    if (size - at < PF_RECORD_HEADER) return 0;
    to->key_size = pf_read_u32(records + at);
    to->headers_size = pf_read_u32(records + at + 4);
    to->payload_size = pf_read_u32(records + at + 8);
    uint64_t key_at = at + PF_RECORD_HEADER;
    uint64_t headers_at = key_at + pf_bytes_of(to->key_size);
    uint64_t payload_at = headers_at + to->headers_size;
    to->next = payload_at + pf_bytes_of(to->payload_size);
    if (to->next > size) return 0;
    to->key = records + key_at;
    to->headers = records + headers_at;
    to->payload = records + payload_at;
    return 1;
}

#endif
