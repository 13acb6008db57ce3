/* libFuzzer target: any bytes as replies of a Redis server, whole and in pieces.  The reader must touch no byte beyond
 * what it is given (every allocation ends with it), tell the same events however the bytes are split, and hand out only
 * what lies within them; and the fields of an entry must become payload, key and headers that do too. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "redis_fields.h"
#include "resp.h"

#define MUST(x) \
    do { \
        if (!(x)) { \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x); \
            abort(); \
        } \
    } while (0)

static const pf_resp_limits LIMITS = {.bulk_bytes = 1000, .entry_bytes = 2000, .fields = 50, .elements = 100};

/* What was told, as one number: FNV-1a. */
static uint64_t told;

static void tell(const void *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        told = (told ^ ((const uint8_t *)bytes)[i]) * 1099511628211u;
}

static void tell_text(pf_resp_text text, const uint8_t *data, size_t size)
{
    MUST(text.bytes >= data && text.size <= size && text.bytes + text.size <= data + size);
    tell(&text.size, sizeof text.size);
    tell(text.bytes, text.size);
}

static void map(pf_redis_fields *fields, const pf_resp_event *event)
{
    pf_incoming to = {0};
    MUST(pf_redis_fields_map(fields, event, &to));
    tell(to.payload, to.size);
    tell(to.headers, to.headers_size);
    tell(to.key, to.key_size > 0 ? (size_t)to.key_size : 0);
}

/* Feed `data` in pieces of `piece` bytes. */
static uint64_t read_all(uint32_t shape, const uint8_t *data, size_t size, size_t piece)
{
    static pf_redis_column columns[] = {{(uint8_t *)"a", 1, PF_REDIS_NUMBER}, {(uint8_t *)"b", 1, PF_REDIS_BOOL}};
    pf_redis_fields plain = {.key = (uint8_t *)"k", .key_size = 1};
    pf_redis_fields as_columns = {.as_columns = 1, .columns = columns, .n_columns = 2};
    pf_resp resp;
    pf_resp_init(&resp, LIMITS);
    pf_resp_expect(&resp, shape);
    told = 14695981039346656037u;
    size_t at = 0, end = 0;
    int kind = PF_RESP_MORE;
    while (kind != PF_RESP_BAD) {
        uint8_t *held = malloc(end - at ? end - at : 1); /* exactly what has come */
        MUST(held);
        if (end > at)
            memcpy(held, data + at, end - at);
        pf_resp_event event;
        kind = pf_resp_next(&resp, held, end - at, &event);
        MUST(event.used <= end - at);
        if (kind != PF_RESP_MORE)
            tell(&kind, sizeof kind);
        if (kind == PF_RESP_STREAM || kind == PF_RESP_TEXT || kind == PF_RESP_ERROR)
            tell_text(event.text, held, end - at);
        if (kind == PF_RESP_NUMBER)
            tell(&event.number, sizeof event.number);
        if (kind == PF_RESP_ENTRY && event.has_id) {
            tell_text(event.id, held, end - at);
            for (uint64_t i = 0; i < event.n_fields; i++) {
                tell_text(event.fields[i].name, held, end - at);
                tell_text(event.fields[i].value, held, end - at);
            }
            if (!event.is_gone) {
                map(&plain, &event);
                map(&as_columns, &event);
            }
        }
        free(held);
        at += event.used;
        if (kind == PF_RESP_MORE) {
            if (end == size)
                break;
            end = size - end < piece ? size : end + piece;
        } else if (kind != PF_RESP_STREAM && kind != PF_RESP_ENTRY && kind != PF_RESP_BAD) {
            pf_resp_expect(&resp, shape);
        }
    }
    pf_resp_free(&resp);
    free(plain.headers);
    free(plain.json);
    free(as_columns.headers);
    free(as_columns.json);
    return told;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 4096)
        return 0;
    uint32_t shape = data[0] % 3;
    uint64_t whole = read_all(shape, data + 1, size - 1, size);
    MUST(read_all(shape, data + 1, size - 1, 1) == whole);
    MUST(read_all(shape, data + 1, size - 1, 7) == whole);
    return 0;
}
