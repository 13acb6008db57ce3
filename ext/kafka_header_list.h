/* The headers of one message, as librdkafka has them and as we do: (name size u16, name, value size i32 or -1, value)*,
 * little endian (arena_layout.h). */
#ifndef PYTHIA_KAFKA_HEADER_LIST_H
#define PYTHIA_KAFKA_HEADER_LIST_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include "framed_records.h"
#include "rdkafka_api.h"

/* Room for one message's headers in our encoding. */
typedef struct {
    uint8_t *bytes;
    size_t size;
    size_t wanted; /* bytes that there was no memory for; 0: never happened */
} pf_header_room;

static inline int pf_header_room_widen(pf_header_room *room, size_t size)
{
    if (size <= room->size)
        return 0;
    uint8_t *grown = realloc(room->bytes, 2 * size);
    if (grown == NULL) {
        room->wanted = size;
        return -1;
    }
    room->bytes = grown;
    room->size = 2 * size;
    return 0;
}

/* Encode librdkafka's headers; the size, or -1 when there is no memory for it. */
static inline ssize_t pf_encode_headers(pf_header_room *room, const pf_rdkafka *api, const rd_kafka_headers_t *headers)
{
    const char *name;
    const void *value;
    size_t value_size, at = 0;
    for (size_t i = 0; api->header_get_all(headers, i, &name, &value, &value_size) == RD_KAFKA_ERR_NONE; i++) {
        size_t name_size = strlen(name);
        if (name_size > UINT16_MAX)
            name_size = UINT16_MAX;
        if (value == NULL)
            value_size = 0;
        if (pf_header_room_widen(room, at + 2 + name_size + 4 + value_size) < 0)
            return -1;
        uint32_t marked = value == NULL ? UINT32_MAX : (uint32_t)value_size;
        uint8_t *to = room->bytes + at;
        *to++ = (uint8_t)name_size;
        *to++ = (uint8_t)(name_size >> 8);
        memcpy(to, name, name_size);
        to += name_size;
        for (int shift = 0; shift < 32; shift += 8)
            *to++ = (uint8_t)(marked >> shift);
        if (value_size > 0)
            memcpy(to, value, value_size);
        at += 2 + name_size + 4 + value_size;
    }
    return (ssize_t)at;
}

/* librdkafka's headers from our encoding; NULL where the encoding ends inside a header. */
static inline rd_kafka_headers_t *pf_decode_headers(const pf_rdkafka *api, const uint8_t *at, uint32_t size)
{
    rd_kafka_headers_t *headers = api->headers_new(4);
    const uint8_t *end = at + size;
    while (at < end) {
        if (end - at < 2)
            break;
        uint32_t name_size = (uint32_t)at[0] | (uint32_t)at[1] << 8;
        const uint8_t *name = at + 2;
        if ((uint64_t)(end - name) < (uint64_t)name_size + 4)
            break;
        uint32_t value_size = pf_read_u32(name + name_size);
        const uint8_t *value = name + name_size + 4;
        if ((uint64_t)(end - value) < pf_bytes_of(value_size))
            break;
        api->header_add(headers, (const char *)name, (ssize_t)name_size, value_size == PF_NO_BYTES ? NULL : value,
                        value_size == PF_NO_BYTES ? 0 : (ssize_t)value_size);
        at = value + pf_bytes_of(value_size);
    }
    if (at == end)
        return headers;
    api->headers_destroy(headers);
    return NULL;
}

#endif
