/* libFuzzer target: any bytes as a file, cut into records by the file reader with buffers of any size and a sink that
 * stalls, and as framed records written to a file.  What comes out is what cutting the whole by hand gives. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "file_lines.h"
#include "file_source.h"
#include "must.h"

enum { MOST_RECORDS = 4100 };

typedef struct {
    size_t at, size;
    int64_t offset, next;
    uint8_t cut;
    uint8_t null, has_key; /* of a file of records, as the rest */
    uint32_t headers;
    int64_t time;
} cut_record;

typedef struct {
    pf_sink sink;
    const uint8_t *content;
    const cut_record *wanted;
    uint32_t n_wanted, n, stall_every, offers;
} comparing_sink;

static int compare(pf_sink *self, const pf_incoming *message) {
    comparing_sink *sink = (comparing_sink *)self;
    if (sink->stall_every && ++sink->offers % sink->stall_every == 0) return PF_STALLED;
    MUST(sink->n < sink->n_wanted);
    const cut_record *wanted = &sink->wanted[sink->n++];
    MUST(message->size == wanted->size && message->offset == wanted->offset && message->next_offset == wanted->next);
    MUST(message->cut == wanted->cut);
    MUST((message->payload == NULL) == wanted->null && (message->key_size >= 0) == wanted->has_key);
    MUST(message->headers_size == wanted->headers && message->timestamp_ms == wanted->time);
    MUST(wanted->size == 0 || memcmp(message->payload, sink->content + wanted->at, wanted->size) == 0);
    return PF_APPENDED;
}

/* The record that the frame at `at` of `size` bytes holds, or a damaged one. */
static void take_by_hand(const uint8_t *content, size_t at, size_t size, cut_record *to) {
    uint64_t used = PF_RECORD_HEADER;
    to->cut = PF_DAMAGED;
    if (size < used) return;
    uint32_t key = pf_read_u32(content + at), headers = pf_read_u32(content + at + 4);
    uint32_t payload = pf_read_u32(content + at + 8);
    int64_t time = -1;
    if (headers & PF_PLACED) {
        headers ^= PF_PLACED;
        used += PF_PLACE_BYTES;
        if (size < used) return;
        memcpy(&time, content + at + PF_RECORD_HEADER, sizeof time); /* little endian, as the machine that this runs on */
        used += pf_read_u32(content + at + PF_RECORD_HEADER + PF_PLACE_BYTES - 4);
    }
    int null = payload == PF_NO_BYTES, has_key = key != PF_NO_BYTES;
    used += (has_key ? key : 0) + (uint64_t)headers;
    if (used + (null ? 0 : payload) != size) return;
    *to = (cut_record){at + used, null ? 0 : payload, to->offset, to->next, PF_WHOLE, (uint8_t)null, (uint8_t)has_key,
                       headers, time};
}

static uint32_t cut_by_hand(const uint8_t *content, size_t size, int format, size_t record_bytes, cut_record *into) {
    uint32_t n = 0;
    size_t at = 0;
    while (at < size) {
        size_t begin = at, head = 0, whole, ending = 0;
        uint8_t cut = 0;
        if (format == PF_FORMAT_LINES) {
            const uint8_t *end = memchr(content + at, '\n', size - at);
            whole = end ? (size_t)(end - content) + 1 - at : size - at;
            ending = end != NULL;
        } else if (format == PF_FORMAT_FRAMES || format == PF_FORMAT_RECORDS) {
            head = size - at < PF_FRAME_HEADER ? size - at : PF_FRAME_HEADER;
            whole = size - at < PF_FRAME_HEADER ? size - at : PF_FRAME_HEADER + (size_t)pf_read_u32(content + at);
            cut = whole < PF_FRAME_HEADER || whole > size - at;
            if (whole > size - at) whole = size - at;
        } else {
            cut = record_bytes > size - at;
            whole = cut ? size - at : record_bytes;
        }
        at += whole;
        size_t payload = whole - head - ending;
        if (format == PF_FORMAT_LINES && (payload == 0 || (payload == 1 && content[begin] == '\r'))) continue;
        MUST(n < MOST_RECORDS);
        into[n] = (cut_record){begin + head, payload, (int64_t)begin, (int64_t)at, cut, 0, 0, 0, -1};
        if (format == PF_FORMAT_RECORDS && !cut) take_by_hand(content, begin + head, payload, &into[n]);
        n++;
    }
    return n;
}

static int memory_file = -1;

static void read_as_file(const uint8_t *content, size_t size, int format, size_t block, size_t head_limit, size_t record_bytes,
                         uint32_t stall_every, uint8_t final) {
    static cut_record wanted[MOST_RECORDS];
    if (memory_file < 0) memory_file = memfd_create("fuzz", 0);
    MUST(memory_file >= 0 && ftruncate(memory_file, 0) == 0 && pwrite(memory_file, content, size, 0) == (ssize_t)size);
    pf_file file = {.fd = memory_file, .limit = INT64_MAX, .seen = -1, .last = 1, .final = final};
    pf_file_source files = {.files = &file, .n_files = 1, .current = -1, .block_bytes = block, .head_limit = head_limit,
                            .spill_fd = -1, .record_bytes = (uint32_t)record_bytes, .format = (uint8_t)format, .exhausted = 1};
    comparing_sink sink = {.sink = {compare}, .content = content, .wanted = wanted, .stall_every = stall_every};
    sink.n_wanted = cut_by_hand(content, size, format, record_bytes, wanted);
    int64_t waiting = 0; /* half a record at the end, of a file that may grow */
    if (!final && sink.n_wanted && wanted[sink.n_wanted - 1].cut == PF_CUT)
        waiting = (int64_t)size - wanted[--sink.n_wanted].offset;
    pf_file_set_calls(&files);
    int outcome;
    do outcome = files.source.poll(&files.source, &sink.sink, 3, 0);
    while (outcome == PF_SOURCE_MORE || outcome == PF_SOURCE_STALLED);
    MUST(outcome == PF_SOURCE_END && sink.n == sink.n_wanted);
    MUST(file.offset == (int64_t)size - waiting && file.waiting == waiting);
    free(files.buffer);
}

/* The bytes as framed records, as they are: refused, or written as a walk by hand writes them. */
static void write_as_records(const uint8_t *records, size_t size, int form) {
    int lines = form == PF_WRITE_LINES;
    uint32_t count = (uint32_t)(size / PF_RECORD_HEADER) + 1, n = 0;
    uint8_t *into = malloc(size + 4 * count + 1), *by_hand = malloc(size + 4 * count + 1);
    pf_unwritable *unwritable = malloc(count * sizeof *unwritable);
    pf_written result;
    MUST(into && by_hand && unwritable);
    size_t at = 0, used = 0;
    int sound = 1;
    while (at < size && sound) {
        uint64_t key, headers, payload, place = 0;
        if (size - at < PF_RECORD_HEADER) {
            sound = 0;
            break;
        }
        key = pf_read_u32(records + at);
        headers = pf_read_u32(records + at + 4);
        payload = pf_read_u32(records + at + 8);
        int null = payload == PF_NO_BYTES;
        if (key == PF_NO_BYTES) key = 0;
        if (null) payload = 0;
        if (headers & PF_PLACED) {
            headers -= PF_PLACED;
            place = PF_PLACE_BYTES;
            if (size - at < PF_RECORD_HEADER + PF_PLACE_BYTES) {
                sound = 0;
                break;
            }
            place += pf_read_u32(records + at + PF_RECORD_HEADER + PF_PLACE_BYTES - 4);
        }
        if (place + key + headers + payload > size - at - PF_RECORD_HEADER) {
            sound = 0;
            break;
        }
        const uint8_t *bytes = records + at + PF_RECORD_HEADER + place + key + headers;
        uint64_t whole = PF_RECORD_HEADER + place + key + headers + payload;
        if (form == PF_WRITE_RECORDS) {
            for (int i = 0; i < 4; i++) by_hand[used++] = (uint8_t)(whole >> 8 * i);
            memcpy(by_hand + used, records + at, whole);
            used += whole;
        }
        at += whole;
        n++;
        if (form == PF_WRITE_RECORDS) continue;
        int empty = payload == 0 || (payload == 1 && bytes[0] == '\r'); /* as a line */
        if (null || (lines && (empty || memchr(bytes, '\n', payload)))) continue;
        if (!lines) {
            for (int i = 0; i < 4; i++) by_hand[used++] = (uint8_t)(payload >> 8 * i);
        }
        memcpy(by_hand + used, bytes, payload);
        used += payload;
        if (lines) by_hand[used++] = '\n';
    }
    int outcome = pf_write_payloads(records, size, form, into, count, unwritable, &result);
    MUST(outcome == (sound ? 0 : -1));
    if (sound) MUST(result.records == n && result.bytes == used && memcmp(into, by_hand, used) == 0);
    free(into);
    free(by_hand);
    free(unwritable);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 3 || size > 4096) return 0;
    int format = data[0] % 3 == PF_FORMAT_FRAMES && data[0] & 64 ? PF_FORMAT_RECORDS : data[0] % 3;
    size_t block = 1 + data[1] % 64, head_limit = PF_FRAME_HEADER + data[2] % 64, record_bytes = 1 + data[0] / 3 % 16;
    size -= 3;
    uint8_t *content = malloc(size ? size : 1);
    MUST(content);
    memcpy(content, data + 3, size);
    uint32_t stall_every = data[1] / 64 ? 1 + data[1] / 64 : 0; /* never, or every second to fourth offer */
    read_as_file(content, size, format, block, head_limit, record_bytes, stall_every, data[2] / 128);
    write_as_records(content, size, data[0] & 128 ? PF_WRITE_RECORDS : data[2] / 64 % 2);
    free(content);
    return 0;
}
