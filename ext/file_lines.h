/* Framed records (brokers/base.py) as the bytes of a file: lines, or frames of u32 little endian and payload, or frames
 * of u32 little endian and the whole record. */
#ifndef PYTHIA_FILE_LINES_H
#define PYTHIA_FILE_LINES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "framed_records.h"

enum {
    PF_UNWRITABLE_BREAK = 1, /* a line break inside the payload of a line */
    PF_UNWRITABLE_NULL = 2,  /* no payload at all */
    PF_UNWRITABLE_LARGE = 3, /* more than a frame can say */
    PF_UNWRITABLE_EMPTY = 4, /* an empty line, which is no record for who reads the file */
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

enum { PF_WRITE_FRAMES = 0, PF_WRITE_LINES = 1, PF_WRITE_RECORDS = 2 };

static inline int pf_is_empty_line(const uint8_t *payload, uint32_t size) {
    return size == 0 || (size == 1 && payload[0] == '\r');
}

/* Write at most `count` records to `into`, which has room for `size` bytes, and 4 more for each when they are written
 * whole: a record takes 12 bytes beside its payload, a line 1, a frame 4.  Returns 0, or -1 when the records end inside
 * one. */
static int pf_write_payloads(const uint8_t *records, size_t size, int form, uint8_t *into, uint32_t count,
                             pf_unwritable *unwritable, pf_written *result) {
    int lines = form == PF_WRITE_LINES;
    pf_framed_record one;
    pf_written done = {0, 0, 0};
    for (size_t at = 0; at < size; at = (size_t)one.next) {
        if (done.records == count || !pf_framed_record_at(records, size, at, &one)) return -1;
        uint64_t whole = one.next - at;
        if (form == PF_WRITE_RECORDS && whole <= UINT32_MAX) {
            for (int shift = 0; shift < 32; shift += 8) into[done.bytes++] = (uint8_t)(whole >> shift);
            memcpy(into + done.bytes, records + at, (size_t)whole);
            done.bytes += (size_t)whole;
            done.records++;
            continue;
        }
        uint32_t reason = form == PF_WRITE_RECORDS ? PF_UNWRITABLE_LARGE
                          : one.payload_size == PF_NO_BYTES                             ? PF_UNWRITABLE_NULL
                          : lines && pf_is_empty_line(one.payload, one.payload_size) ? PF_UNWRITABLE_EMPTY
                          : lines && memchr(one.payload, '\n', one.payload_size)     ? PF_UNWRITABLE_BREAK
                                                                                      : 0;
        if (reason) {
            unwritable[done.unwritable++] = (pf_unwritable){done.records, reason};
        } else {
            if (!lines) {
                memcpy(into + done.bytes, records + at + 8, 4);
                done.bytes += 4;
            }
            memcpy(into + done.bytes, one.payload, one.payload_size);
            done.bytes += one.payload_size;
            if (lines) into[done.bytes++] = '\n';
        }
        done.records++;
    }
    *result = done;
    return 0;
}

#endif
