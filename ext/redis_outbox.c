#include "redis_outbox.h"

#include <stdlib.h>
#include <string.h>

#define RECORD_HEADER 12
#define NO_BYTES 0xFFFFFFFFu
#define NUMBER_BYTES 24 /* "$", twenty digits, "\r\n" */

static uint32_t load_u32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static int make_room(pf_redis_bytes *self, size_t bytes)
{
    if (self->room - self->size >= bytes)
        return 1;
    size_t wanted = self->size + bytes + (self->size + bytes) / 2;
    uint8_t *grown = realloc(self->bytes, wanted);
    if (grown == NULL)
        return 0;
    self->bytes = grown;
    self->room = wanted;
    return 1;
}

static void put(pf_redis_bytes *self, const void *bytes, size_t size)
{
    if (size > 0)
        memcpy(self->bytes + self->size, bytes, size);
    self->size += size;
}

static void put_number(pf_redis_bytes *self, char type, uint64_t number)
{
    uint8_t digits[20];
    size_t n = sizeof digits;
    do {
        digits[--n] = (uint8_t)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    put(self, &type, 1);
    put(self, digits + n, sizeof digits - n);
    put(self, "\r\n", 2);
}

static void put_string(pf_redis_bytes *self, const uint8_t *bytes, size_t size)
{
    put_number(self, '$', size);
    put(self, bytes, size);
    put(self, "\r\n", 2);
}

/* One header, (name size u16, name, value size i32 or -1, value); 0: it ends beyond `end`. */
typedef struct {
    const uint8_t *name, *value;
    size_t name_size, value_size;
} header;

static int read_header(const uint8_t **at, const uint8_t *end, header *to)
{
    if (end - *at < 2)
        return 0;
    to->name_size = (size_t)((*at)[0] | (*at)[1] << 8);
    to->name = *at + 2;
    if ((size_t)(end - to->name) < to->name_size + 4)
        return 0;
    const uint8_t *size_at = to->name + to->name_size;
    uint32_t value_size = load_u32(size_at);
    to->value = size_at + 4;
    to->value_size = value_size > INT32_MAX ? 0 : value_size; /* -1: null, which is empty here */
    if ((size_t)(end - to->value) < to->value_size)
        return 0;
    *at = to->value + to->value_size;
    return 1;
}

int pf_redis_outbox_add(pf_redis_outbox *self, const uint8_t *records, uint64_t size, uint64_t at, uint64_t *next)
{
    if (at > size || size - at < RECORD_HEADER)
        return PF_REDIS_MALFORMED;
    uint32_t key_size = load_u32(records + at), headers_size = load_u32(records + at + 4);
    uint32_t payload_size = load_u32(records + at + 8);
    uint64_t key_bytes = key_size == NO_BYTES ? 0 : key_size, payload_bytes = payload_size == NO_BYTES ? 0 : payload_size;
    const uint8_t *key = records + at + RECORD_HEADER;
    if (key_bytes + headers_size + payload_bytes > size - at - RECORD_HEADER)
        return PF_REDIS_MALFORMED;
    const uint8_t *headers = key + key_bytes, *payload = headers + headers_size;
    *next = at + RECORD_HEADER + key_bytes + headers_size + payload_bytes;
    uint64_t parts = self->head_parts + 2 + (key_size != NO_BYTES ? 2 : 0);
    size_t n_headers = 0;
    header one;
    for (const uint8_t *h = headers; h < payload; n_headers++)
        if (!read_header(&h, payload, &one))
            return PF_REDIS_MALFORMED;
    parts += 2 * n_headers;
    if (payload_size == NO_BYTES)
        return PF_REDIS_NULL;
    if (key_bytes > self->most_bytes || headers_size > self->most_bytes || payload_bytes > self->most_bytes)
        return PF_REDIS_TOO_LARGE;
    pf_redis_bytes *to = &self->commands;
    size_t need = self->head_size + self->payload_name_size + self->key_name_size + key_bytes + headers_size +
                  payload_bytes + (4 + 2 * n_headers) * (NUMBER_BYTES + 2);
    if (!make_room(to, need))
        return PF_REDIS_NO_ROOM;
    put_number(to, '*', parts);
    put(to, self->head, self->head_size);
    put(to, self->payload_name, self->payload_name_size);
    put_string(to, payload, payload_bytes);
    if (key_size != NO_BYTES) {
        put(to, self->key_name, self->key_name_size);
        put_string(to, key, key_bytes);
    }
    for (const uint8_t *h = headers; h < payload && read_header(&h, payload, &one);) {
        put_string(to, one.name, one.name_size);
        put_string(to, one.value, one.value_size);
    }
    return PF_REDIS_ADDED;
}

uint8_t *pf_redis_outbox_room(pf_redis_outbox *self, size_t bytes)
{
    pf_redis_bytes *answers = &self->answers;
    if (self->answered > 0) {
        memmove(answers->bytes, answers->bytes + self->answered, answers->size - self->answered);
        answers->size -= self->answered;
        self->answered = 0;
    }
    return make_room(answers, bytes) ? answers->bytes + answers->size : NULL;
}

int pf_redis_outbox_answer(pf_redis_outbox *self, pf_resp_event *event)
{
    int kind = pf_resp_next(&self->resp, self->answers.bytes + self->answered, self->answers.size - self->answered, event);
    self->answered += event->used;
    return kind;
}

void pf_redis_outbox_init(pf_redis_outbox *self)
{
    memset(self, 0, sizeof *self);
    self->most_bytes = UINT64_MAX;
    pf_resp_limits limits = {.bulk_bytes = PF_RESP_LINE, .entry_bytes = PF_RESP_LINE, .fields = 0, .elements = 1024};
    pf_resp_init(&self->resp, limits);
    pf_resp_expect(&self->resp, PF_RESP_VALUE);
}

void pf_redis_outbox_free(pf_redis_outbox *self)
{
    free(self->head);
    free(self->payload_name);
    free(self->key_name);
    free(self->commands.bytes);
    free(self->answers.bytes);
    pf_resp_free(&self->resp);
}
