/* Framed records (brokers/base.py) as the bytes of a file: lines, or frames of u32 little endian and payload. */
#ifndef PYTHIA_FILE_LINES_H
#define PYTHIA_FILE_LINES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "framed_records.h"

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

/* Write the payloads of at most `count` records to `into`, which has room for `size` bytes: a record takes 12 bytes
 * beside its payload, a line 1, a frame 4.  Returns 0, or -1 when the records end inside one. */
static int pf_write_payloads(const uint8_t *records, size_t size, int lines, uint8_t *into, uint32_t count,
                             pf_unwritable *unwritable, pf_written *result) {
    pf_framed_record one;
    pf_written done = {0, 0, 0};
    for (size_t at = 0; at < size; at = (size_t)one.next) {
        if (done.records == count || !pf_framed_record_at(records, size, at, &one)) return -1;
        uint32_t reason = one.payload_size == PF_NO_BYTES                         ? PF_UNWRITABLE_NULL
                          : lines && memchr(one.payload, '\n', one.payload_size) ? PF_UNWRITABLE_BREAK
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
