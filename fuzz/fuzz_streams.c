/* libFuzzer target: any bytes as what a RabbitMQ sends by its stream protocol, whole and in pieces, to a sink that has room
 * for a message or has not.  The source must touch no byte beyond what has come, hand the same messages on however the
 * bytes are split and however often the sink stalls, keep offsets rising, and hand out only what can be read.
 *
 * A checksum would stop nearly every input, so where the first byte is odd the input becomes the data of one chunk whose
 * header is right: byte 1 says how many entries it has, byte 2 how many messages. */
#include <stdio.h>

#include "must.h"
#include "stream_source.h"

enum { CHUNK_MOST = 1 << 16 }; /* the source refuses larger ones; inputs are longer */

typedef struct {
    pf_sink base;
    uint32_t stalls, calls;
    uint64_t told; /* FNV-1a of all that was handed on */
    int64_t next[2];
} sink;

static void tell(sink *self, const void *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        self->told = (self->told ^ ((const uint8_t *)bytes)[i]) * 1099511628211u;
    self->told = (self->told ^ size) * 1099511628211u;
}

static int append(pf_sink *base, const pf_incoming *message)
{
    sink *self = (sink *)base;
    if (self->calls++, self->stalls && self->calls % self->stalls == 1)
        return PF_STALLED;
    MUST(message->partition < 2);
    MUST(message->offset >= self->next[message->partition] && message->next_offset > message->offset);
    self->next[message->partition] = message->next_offset;
    MUST(message->payload != NULL || message->size == 0);
    tell(self, message->payload, message->size);
    tell(self, message->key, message->key_size > 0 ? (size_t)message->key_size : 0);
    tell(self, message->headers, message->headers_size);
    tell(self, &message->offset, sizeof message->offset);
    tell(self, &message->cut, 1);
    size_t at = 0;
    while (at < message->headers_size) { /* names and values fill it exactly */
        MUST(message->headers_size - at >= 2);
        at += 2 + ((size_t)message->headers[at] | (size_t)message->headers[at + 1] << 8);
        MUST(at + 4 <= message->headers_size);
        int32_t size;
        memcpy(&size, message->headers + at, 4);
        at += 4 + (size > 0 ? (size_t)size : 0);
        MUST(at <= message->headers_size);
    }
    return PF_APPENDED;
}

static uint64_t read_all(const uint8_t *data, size_t size, size_t piece, uint32_t stalls, int raw)
{
    static pf_stream_source source;
    MUST(pf_stream_source_init(&source) == 0);
    source.raw = (uint32_t)raw;
    source.read_ahead_bytes = CHUNK_MOST;
    source.most_chunk_bytes = CHUNK_MOST;
    source.n_parts = 2;
    source.announced = 1;
    source.next_fd = 0;
    source.next_tls = 1; /* so that it reads and writes no socket by itself */
    source.attaching = 1;
    sink to = {.base = {append}, .stalls = stalls, .told = 14695981039346656037u};
    size_t at = 0;
    for (int idle = 0; idle < 3;) {
        uint32_t calls = to.calls;
        int outcome = source.base.poll(&source.base, &to.base, 3, 0);
        if (source.broken) {
            tell(&to, &source.broken, sizeof source.broken);
            break;
        }
        source.wants_io = 0;
        if (source.out.size) /* sent */
            source.out_at = source.out.size;
        if (source.other_size) {
            tell(&to, source.other, source.other_size);
            source.other_size = 0;
            continue;
        }
        if (source.wants_unpacking) { /* where it ends well: bytes that are taken as they are */
            pf_stream_entry entry;
            const uint8_t *packed = pf_stream_source_packed(&source, &entry);
            uint8_t *copy = entry.size % 2 ? NULL : malloc(entry.size + 1);
            if (copy != NULL)
                memcpy(copy, packed, entry.size);
            pf_stream_source_unpacked(&source, copy, entry.size);
            continue;
        }
        if (outcome == PF_SOURCE_STALLED || outcome == PF_SOURCE_MORE)
            continue;
        size_t room = pf_stream_source_room(&source);
        if (source.broken) {
            tell(&to, &source.broken, sizeof source.broken);
            break;
        }
        size_t now = piece < room ? piece : room;
        if (now > size - at)
            now = size - at;
        if (now)
            memcpy(source.in + source.in_end, data + at, now);
        pf_stream_source_received(&source, now);
        at += now;
        idle = now || to.calls != calls ? 0 : idle + 1;
    }
    pf_stream_source_free(&source);
    return to.told;
}

static uint32_t crc_of(const uint8_t *data, size_t size)
{
    static pf_crc32 tables;
    if (tables.of[0][1] == 0)
        pf_crc32_init(&tables);
    return pf_crc32_of(&tables, data, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { INPUT_MOST = CHUNK_MOST + 16384 };
    static uint8_t frame[64 + INPUT_MOST];
    if (size < 3 || size > INPUT_MOST)
        return 0;
    int raw = data[0] & 2;
    if (data[0] & 1) {
        size_t body = size - 3;
        uint32_t crc = crc_of(data + 3, body), all = (uint32_t)(PF_STREAM_LEAST_FRAME + 1 + PF_STREAM_CHUNK_HEADER + body);
        uint8_t head[9 + PF_STREAM_CHUNK_HEADER] = {(uint8_t)(all >> 24), (uint8_t)(all >> 16), (uint8_t)(all >> 8),
                                                    (uint8_t)all, 0, PF_STREAM_DELIVER, 0, 1, data[0] >> 7};
        uint8_t *chunk = head + 9;
        chunk[0] = PF_STREAM_MAGIC;
        chunk[3] = data[1];
        chunk[7] = data[2];
        for (int i = 0; i < 4; i++) {
            chunk[32 + i] = (uint8_t)(crc >> 8 * (3 - i));
            chunk[36 + i] = (uint8_t)(body >> 8 * (3 - i));
        }
        memcpy(frame, head, sizeof head);
        memcpy(frame + sizeof head, data + 3, body);
        data = frame;
        size = sizeof head + body;
    }
    uint8_t *held = malloc(size); /* exactly what comes */
    MUST(held);
    memcpy(held, data, size);
    uint64_t whole = read_all(held, size, size, 0, raw);
    size_t finest = size > 4096 ? 61 : 1; /* a large one byte by byte would take the time of hundreds of small ones */
    MUST(whole == read_all(held, size, finest, 0, raw));
    MUST(whole == read_all(held, size, 7 * finest, 2, raw));
    free(held);
    return 0;
}
