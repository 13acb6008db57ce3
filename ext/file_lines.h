/* Framed records (brokers/base.py) as the bytes of a file: lines, or frames of u32 little endian and payload. */
#ifndef PYTHIA_FILE_LINES_H
#define PYTHIA_FILE_LINES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define PF_NO_BYTES 0xFFFFFFFFu
enum { PF_RECORD_HEADER = 12 };

enum {
    PF_UNWRITABLE_BREAK = 1, /* a line break inside the payload of a line */
    PF_UNWRITABLE_NULL = 2,  /* no payload at all */
};

typedef struct {
    uint32_t index;
    uint32_t reason;
} pf_unwritable;

typedef struct {
    size_t bytes;     /* written */
    uint32_t records; /* read, the unwritable ones included */
    uint32_t unwritable;
} pf_written;

static inline uint32_t pf_read_u32(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* Write the payloads of at most `count` records to `into`, which has room for `size` bytes: a record takes 12 bytes
 * beside its payload, a line 1, a frame 4.  Returns 0, or -1 when the records end inside one. */
static int pf_write_payloads(const uint8_t *records, size_t size, int lines, uint8_t *into, uint32_t count,
                             pf_unwritable *unwritable, pf_written *result) {
    size_t at = 0;
    pf_written done = {0, 0, 0};
    while (at < size) {
        if (size - at < PF_RECORD_HEADER || done.records == count) return -1;
        uint32_t key_size = pf_read_u32(records + at);
        uint32_t headers_size = pf_read_u32(records + at + 4);
        uint32_t payload_size = pf_read_u32(records + at + 8);
        uint64_t before = (uint64_t)(key_size == PF_NO_BYTES ? 0 : key_size) + headers_size;
        uint64_t whole = PF_RECORD_HEADER + before + (payload_size == PF_NO_BYTES ? 0 : payload_size);
        if (whole > size - at) return -1;
        const uint8_t *payload = records + at + PF_RECORD_HEADER + before;
        uint32_t reason = payload_size == PF_NO_BYTES                         ? PF_UNWRITABLE_NULL
                          : lines && memchr(payload, '\n', payload_size) ? PF_UNWRITABLE_BREAK
                                                                              : 0;
        if (reason) {
            unwritable[done.unwritable++] = (pf_unwritable){done.records, reason};
        } else {
            if (!lines) {
                memcpy(into + done.bytes, records + at + 8, 4);
                done.bytes += 4;
            }
            memcpy(into + done.bytes, payload, payload_size);
            done.bytes += payload_size;
            if (lines) into[done.bytes++] = '\n';
        }
        done.records++;
        at += (size_t)whole;
    }
    *result = done;
    return 0;
}

#endif
