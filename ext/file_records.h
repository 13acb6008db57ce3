/* Records in a file, each a frame that holds a framed record: the message that was recorded, and when it is due again. */
#ifndef PYTHIA_FILE_RECORDS_H
#define PYTHIA_FILE_RECORDS_H

#include "file_frames.h"
#include "framed_records.h"
#include "source.h"

/* Messages at the distances in time that they had, or at `factor` times that speed. */
typedef struct {
    double factor;           /* 0: as fast as they are taken */
    int64_t from_us;         /* when the first one with a time was offered; 0: not yet */
    int64_t from_ms, due_us; /* the time that it has, and when the next one is due */
} pf_pace;

/* What a record is, as the message that was recorded; what is none is damaged. */
static inline void pf_take_record(const uint8_t *start, uint64_t size, pf_incoming *message) {
    pf_framed_record one;
    if (!pf_framed_record_at(start, size, 0, &one) || one.next != size ||
        (one.key_size != PF_NO_BYTES && one.key_size > INT32_MAX)) {
        message->cut = PF_DAMAGED;
        return;
    }
    message->payload = one.payload_size == PF_NO_BYTES ? NULL : one.payload;
    message->size = (size_t)pf_bytes_of(one.payload_size);
    message->key = one.key;
    message->key_size = one.key_size == PF_NO_BYTES ? -1 : (int32_t)one.key_size;
    message->headers = one.headers;
    message->headers_size = one.headers_size;
    message->timestamp_ms = one.timestamp_ms;
}

/* Whether the record in a frame of `frame_bytes` waits: as long after the first one as their messages were apart, divided
 * by the factor.  One without a time, or with one that has passed, comes with its predecessor. */
static inline int pf_pace_waits(pf_pace *pace, const uint8_t *start, int64_t frame_bytes, int64_t now_us) {
    pf_framed_record one;
    uint64_t size = (uint64_t)frame_bytes - PF_FRAME_HEADER;
    if (!pf_framed_record_at(start, size, 0, &one) || one.timestamp_ms < 0) return 0;
    if (pace->from_us == 0) {
        pace->from_us = now_us;
        pace->from_ms = one.timestamp_ms;
    }
    double after_us = ((double)one.timestamp_ms - (double)pace->from_ms) * 1000.0 / pace->factor;
    if (after_us > 9e15) after_us = 9e15;
    pace->due_us = pace->from_us + (after_us > 0 ? (int64_t)after_us : 0);
    return pace->due_us > now_us;
}

#endif
