/* Messages of AMQP 1.0, as streams of RabbitMQ hold them: payload, key, headers and creation time out of the sections.
 *
 *     data, or an amqp-value that is a string or binary         the payload
 *     application-properties                                    headers; one that is named may be the key
 *     message-annotations: x-routing-key                        the key, where none is named
 *     properties: creation-time                                 the time
 *
 * Other sections and fields are passed over.  Values become text as those of AMQP 0-9-1 do (amqp_table.h); those that
 * its simple types do not know: a uuid is written with hyphens, a char as the number of its character; lists, maps and
 * decimals, which application-properties may not have or nobody sends, keep their encoded bytes.
 *
 * Source: OASIS AMQP 1.0, parts 1 (types, 1.6) and 3 (messaging, 3.2).  Every read is checked against its end. */
#ifndef PYTHIA_AMQP1_MESSAGE_H
#define PYTHIA_AMQP1_MESSAGE_H

#include "amqp_table.h"

enum {
    PF_AMQP1_ANNOTATIONS = 0x72,
    PF_AMQP1_PROPERTIES = 0x73,
    PF_AMQP1_APPLICATION = 0x74,
    PF_AMQP1_DATA = 0x75,
    PF_AMQP1_SEQUENCE = 0x76,
    PF_AMQP1_VALUE = 0x77,
    PF_AMQP1_FIRST = 0x70,
    PF_AMQP1_LAST = 0x78,
    PF_AMQP1_CREATION_TIME = 9, /* its place among the properties */
    PF_AMQP1_DEPTH = 32,
};

#define PF_AMQP1_ROUTING_KEY "x-routing-key" /* RabbitMQ's, on what came by AMQP 0-9-1 */

typedef struct {
    const uint8_t *key_name; /* the application property that is the key; NULL: the routing key is */
    size_t key_name_size;
    const uint8_t *payload;
    size_t size;
    const uint8_t *key;
    int32_t key_size;        /* -1: none */
    int64_t timestamp_ms;    /* -1: none */
    pf_amqp_text headers;    /* as pf_message has them */
    pf_amqp_text key_text;   /* a key that was no string */
    pf_amqp_text joined;     /* several data sections */
} pf_amqp1_message;

/* One encoded value. */
typedef struct {
    uint8_t code;
    pf_amqp_bytes body; /* without code and size; of a compound, with its count */
} pf_amqp1_value;

static inline int pf_amqp1_is_null(const pf_amqp1_value *value) { return value->code == 0x40; }

static inline int pf_amqp1_is_bytes(const pf_amqp1_value *value) {
    return (value->code & 0xe0) == 0xa0; /* binary, string, symbol: short and long */
}

/* The next value, whatever it is; `in` is bad when there is none.  Of a described one, what is described. */
static pf_amqp1_value pf_amqp1_next(pf_amqp_bytes *in) {
    static const uint8_t fixed[16] = {[5] = 1, [6] = 2, [7] = 4, [8] = 8, [9] = 16};
    pf_amqp1_value value = {0, {in->end, in->end, 0}};
    for (int depth = 0;; depth++) {
        value.code = (uint8_t)pf_amqp_uint(in, 1);
        if (value.code != 0x00 || in->bad || depth > PF_AMQP1_DEPTH) break;
        pf_amqp1_value descriptor = {(uint8_t)pf_amqp_uint(in, 1), {in->end, in->end, 0}};
        int kind = descriptor.code >> 4; /* a descriptor is a number or a symbol, never described itself here */
        if (kind == 0xa) pf_amqp_sized(in, 1);
        else if (kind == 0xb) pf_amqp_sized(in, 4);
        else if (kind >= 4 && kind <= 9) pf_amqp_take(in, fixed[kind]);
        else in->bad = 1;
    }
    int kind = value.code >> 4;
    if (kind >= 4 && kind <= 9) {
        const uint8_t *at = pf_amqp_take(in, fixed[kind]);
        if (at != NULL) value.body = (pf_amqp_bytes){at, at + fixed[kind], 0};
    } else if (kind >= 0xa) {
        value.body = pf_amqp_sized(in, kind & 1 ? 4 : 1);
    } else {
        in->bad = 1;
    }
    return value;
}

/* A map's or list's values, from its body; their number in `count`. */
static inline pf_amqp_bytes pf_amqp1_items(const pf_amqp1_value *value, uint64_t *count) {
    pf_amqp_bytes items = value->body;
    *count = 0;
    if (value->code == 0x45) return items; /* an empty list */
    int kind = value->code >> 4;
    if (kind != 0xc && kind != 0xd) items.bad = 1;
    else *count = pf_amqp_uint(&items, kind == 0xc ? 1 : 4);
    return items;
}

static void pf_amqp1_put_uuid(pf_amqp_text *out, const uint8_t *bytes) {
    char text[37];
    size_t at = 0;
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) text[at++] = '-';
        at += (size_t)snprintf(text + at, sizeof text - at, "%02x", bytes[i]);
    }
    pf_amqp_put(out, text, at);
}

/* A value as text; nothing for a null. */
static void pf_amqp1_put(pf_amqp_text *out, const pf_amqp1_value *value) {
    pf_amqp_bytes body = value->body;
    char text[24];
    switch (value->code) {
    case 0x40: return;
    case 0x41: pf_amqp_put_text(out, "true"); return;
    case 0x42: pf_amqp_put_text(out, "false"); return;
    case 0x56: pf_amqp_put_text(out, pf_amqp_uint(&body, 1) ? "true" : "false"); return;
    case 0x43: case 0x44: pf_amqp_put_text(out, "0"); return;
    case 0x50: case 0x52: case 0x53: case 0x60: case 0x70: case 0x73: case 0x80:
        snprintf(text, sizeof text, "%" PRIu64, pf_amqp_uint(&body, (int)pf_amqp_left(&body)));
        pf_amqp_put_text(out, text);
        return;
    case 0x51: case 0x54: case 0x55: case 0x61: case 0x71: case 0x81: case 0x83:
        snprintf(text, sizeof text, "%" PRId64, pf_amqp_int(&body, (int)pf_amqp_left(&body)));
        pf_amqp_put_text(out, text);
        return;
    case 0x72: case 0x82: pf_amqp_put_double(out, pf_amqp_real(&body, (int)pf_amqp_left(&body)), 6, 17); return;
    case 0x98: pf_amqp1_put_uuid(out, body.at); return;
    default: pf_amqp_put(out, body.at, pf_amqp_left(&body));
    }
}

static inline int pf_amqp1_named(const pf_amqp1_value *name, const void *wanted, size_t size) {
    return pf_amqp_left(&name->body) == size && memcmp(name->body.at, wanted, size) == 0;
}

static void pf_amqp1_set_key(pf_amqp1_message *message, const pf_amqp1_value *value) {
    if (pf_amqp1_is_null(value)) return;
    pf_amqp_bytes key = value->body;
    if (!pf_amqp1_is_bytes(value)) {
        message->key_text.size = 0;
        pf_amqp1_put(&message->key_text, value);
        key = (pf_amqp_bytes){message->key_text.bytes, message->key_text.bytes + message->key_text.size, 0};
    }
    if (pf_amqp_left(&key) > INT32_MAX) return;
    message->key = key.at;
    message->key_size = (int32_t)pf_amqp_left(&key);
}

static int pf_amqp1_annotations(pf_amqp1_message *message, const pf_amqp1_value *map) {
    uint64_t count;
    pf_amqp_bytes items = pf_amqp1_items(map, &count);
    for (uint64_t i = 0; i + 1 < count && !items.bad; i += 2) {
        pf_amqp1_value name = pf_amqp1_next(&items), value = pf_amqp1_next(&items);
        if (!items.bad && message->key_name == NULL && pf_amqp1_is_bytes(&value) &&
            pf_amqp1_named(&name, PF_AMQP1_ROUTING_KEY, sizeof PF_AMQP1_ROUTING_KEY - 1))
            pf_amqp1_set_key(message, &value);
    }
    return !items.bad;
}

static int pf_amqp1_application(pf_amqp1_message *message, const pf_amqp1_value *map) {
    uint64_t count;
    pf_amqp_bytes items = pf_amqp1_items(map, &count);
    pf_amqp_text *out = &message->headers;
    for (uint64_t i = 0; i + 1 < count && !items.bad; i += 2) {
        pf_amqp1_value name = pf_amqp1_next(&items), value = pf_amqp1_next(&items);
        size_t name_size = pf_amqp_left(&name.body);
        if (items.bad || !pf_amqp1_is_bytes(&name) || name_size > UINT16_MAX) return 0;
        if (message->key_name != NULL && pf_amqp1_named(&name, message->key_name, message->key_name_size)) {
            pf_amqp1_set_key(message, &value);
            continue;
        }
        pf_amqp_put_le(out, name_size, 2);
        pf_amqp_put(out, name.body.at, name_size);
        size_t size_at = out->size;
        pf_amqp_put_le(out, UINT32_MAX, 4);
        if (pf_amqp1_is_null(&value)) continue;
        pf_amqp1_put(out, &value);
        if (out->failed) return 0;
        uint32_t size = (uint32_t)(out->size - size_at - 4);
        for (int b = 0; b < 4; b++) out->bytes[size_at + (size_t)b] = (uint8_t)(size >> 8 * b);
    }
    return !items.bad;
}

static int pf_amqp1_properties(pf_amqp1_message *message, const pf_amqp1_value *list) {
    uint64_t count;
    pf_amqp_bytes items = pf_amqp1_items(list, &count);
    for (uint64_t i = 0; i < count && i <= PF_AMQP1_CREATION_TIME && !items.bad; i++) {
        pf_amqp1_value value = pf_amqp1_next(&items);
        if (i == PF_AMQP1_CREATION_TIME && value.code == 0x83) message->timestamp_ms = pf_amqp_int(&value.body, 8);
    }
    return !items.bad;
}

/* A section's payload: the first is kept where it is, further ones are put together. */
static void pf_amqp1_add_payload(pf_amqp1_message *message, const pf_amqp_bytes *bytes) {
    if (message->payload == NULL) {
        message->payload = bytes->at;
        message->size = pf_amqp_left(bytes);
        return;
    }
    if (message->joined.size == 0) pf_amqp_put(&message->joined, message->payload, message->size);
    pf_amqp_put(&message->joined, bytes->at, pf_amqp_left(bytes));
    if (message->joined.failed || message->joined.size == 0) return;
    message->payload = message->joined.bytes;
    message->size = message->joined.size;
}

/* Which section begins here: its number, 0 for none. */
static inline int pf_amqp1_section(pf_amqp_bytes *in) {
    if (pf_amqp_uint(in, 1) != 0x00) return 0;
    uint64_t code = pf_amqp_uint(in, 1);
    uint64_t section = code == 0x53 ? pf_amqp_uint(in, 1) : code == 0x80 ? pf_amqp_uint(in, 8) : 0;
    return !in->bad && section >= PF_AMQP1_FIRST && section <= PF_AMQP1_LAST ? (int)section : 0;
}

/* Read one message; 0: it is none, or has a body that is no bytes.  What it tells points into `bytes` and `message`. */
static int pf_amqp1_read(pf_amqp1_message *message, const uint8_t *bytes, size_t size) {
    pf_amqp_bytes in = {bytes, bytes + size, 0};
    message->payload = message->key = NULL;
    message->size = 0;
    message->key_size = -1;
    message->timestamp_ms = -1;
    pf_amqp_empty(&message->headers);
    pf_amqp_empty(&message->joined);
    while (in.at < in.end) {
        int section = pf_amqp1_section(&in);
        if (section == 0) return 0;
        pf_amqp1_value value = pf_amqp1_next(&in);
        if (in.bad || value.body.bad) return 0;
        int good = 1;
        switch (section) {
        case PF_AMQP1_ANNOTATIONS: good = pf_amqp1_annotations(message, &value); break;
        case PF_AMQP1_PROPERTIES: good = pf_amqp1_properties(message, &value); break;
        case PF_AMQP1_APPLICATION: good = pf_amqp1_application(message, &value); break;
        case PF_AMQP1_DATA: case PF_AMQP1_VALUE:
            good = pf_amqp1_is_bytes(&value) || (section == PF_AMQP1_VALUE && pf_amqp1_is_null(&value));
            if (good && !pf_amqp1_is_null(&value)) pf_amqp1_add_payload(message, &value.body);
            break;
        case PF_AMQP1_SEQUENCE: good = 0; break;
        default: break;
        }
        if (!good || message->headers.failed || message->joined.failed || message->key_text.failed) return 0;
    }
    return 1;
}

static inline void pf_amqp1_free(pf_amqp1_message *message) {
    free(message->headers.bytes);
    free(message->key_text.bytes);
    free(message->joined.bytes);
}

#endif
