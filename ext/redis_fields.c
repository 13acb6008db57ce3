#include "redis_fields.h"

#include <stdlib.h>
#include <string.h>

#define ID_HEADER "redis-id"
#define LONGEST_NAME 65535 /* of a header */

static int is_named(pf_resp_text text, const void *name, size_t size)
{
    return text.size == size && memcmp(text.bytes, name, size) == 0;
}

static int grow(uint8_t **bytes, size_t *room, size_t need)
{
    if (need <= *room)
        return 1;
    size_t wanted = need + need / 2;
    uint8_t *grown = realloc(*bytes, wanted);
    if (grown == NULL)
        return 0;
    *bytes = grown;
    *room = wanted;
    return 1;
}

/* ---- headers, as arena_layout.h has them ------------------------------------------------------------------ */

static uint8_t *put_header(uint8_t *to, pf_resp_text name, pf_resp_text value)
{
    /* A name beyond what a header can hold is cut: it is no name that somebody asks for. */
    uint16_t name_size = name.size < LONGEST_NAME ? (uint16_t)name.size : LONGEST_NAME;
    int32_t value_size = (int32_t)value.size; /* pf_redis_source_init keeps strings below 2 GiB */
    memcpy(to, &name_size, sizeof name_size);
    to += sizeof name_size;
    memcpy(to, name.bytes, name_size);
    to += name_size;
    memcpy(to, &value_size, sizeof value_size);
    to += sizeof value_size;
    memcpy(to, value.bytes, value.size);
    return to + value.size;
}

enum { HEADER_FRAME = sizeof(uint16_t) + sizeof(int32_t) };

static int put_headers(pf_redis_fields *self, const pf_resp_event *entry, int64_t payload, int64_t key, pf_incoming *to)
{
    static const pf_resp_text id_name = {(const uint8_t *)ID_HEADER, sizeof ID_HEADER - 1};
    size_t need = HEADER_FRAME + id_name.size + entry->id.size;
    uint64_t n_fields = self->as_columns ? 0 : entry->n_fields;
    for (uint64_t i = 0; i < n_fields; i++)
        if ((int64_t)i != payload && (int64_t)i != key)
            need += HEADER_FRAME + entry->fields[i].name.size + entry->fields[i].value.size;
    if (!grow(&self->headers, &self->headers_room, need))
        return 0;
    uint8_t *at = put_header(self->headers, id_name, entry->id);
    for (uint64_t i = 0; i < n_fields; i++)
        if ((int64_t)i != payload && (int64_t)i != key)
            at = put_header(at, entry->fields[i].name, entry->fields[i].value);
    to->headers = self->headers;
    to->headers_size = (uint32_t)(at - self->headers);
    return 1;
}

/* ---- fields as a JSON object --------------------------------------------------------------------------------- */

/* JSON's own grammar of a number (RFC 8259, section 6). */
static int is_number(pf_resp_text text)
{
    const uint8_t *at = text.bytes, *end = at + text.size;
    if (at < end && *at == '-')
        at++;
    const uint8_t *digits = at;
    while (at < end && *at >= '0' && *at <= '9')
        at++;
    if (at == digits || (*digits == '0' && at - digits > 1))
        return 0;
    if (at < end && *at == '.') {
        const uint8_t *fraction = ++at;
        while (at < end && *at >= '0' && *at <= '9')
            at++;
        if (at == fraction)
            return 0;
    }
    if (at < end && (*at == 'e' || *at == 'E')) {
        at++;
        if (at < end && (*at == '+' || *at == '-'))
            at++;
        const uint8_t *exponent = at;
        while (at < end && *at >= '0' && *at <= '9')
            at++;
        if (at == exponent)
            return 0;
    }
    return at == end;
}

/* How a field of such a kind stands in JSON when it stands bare; bytes NULL: as a string. */
static pf_resp_text bare(pf_resp_text value, uint32_t kind)
{
    static const struct {
        const char *written, *json;
    } words[] = {{"1", "true"}, {"true", "true"}, {"True", "true"}, {"0", "false"}, {"false", "false"}, {"False", "false"}};
    if (value.size == 0)
        return (pf_resp_text){(const uint8_t *)"null", 4}; /* nothing was written there */
    if (kind == PF_REDIS_NUMBER)
        return is_number(value) ? value : (pf_resp_text){NULL, 0};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (is_named(value, words[i].written, strlen(words[i].written)))
            return (pf_resp_text){(const uint8_t *)words[i].json, strlen(words[i].json)};
    return (pf_resp_text){NULL, 0};
}

static uint8_t *put_string(uint8_t *to, pf_resp_text text)
{
    static const char hex[] = "0123456789abcdef";
    *to++ = '"';
    for (size_t i = 0; i < text.size; i++) {
        uint8_t byte = text.bytes[i];
        if (byte == '"' || byte == '\\') {
            *to++ = '\\';
            *to++ = byte;
        } else if (byte < 0x20) {
            memcpy(to, "\\u00", 4);
            to[4] = (uint8_t)hex[byte >> 4];
            to[5] = (uint8_t)hex[byte & 15];
            to += 6;
        } else {
            *to++ = byte;
        }
    }
    *to++ = '"';
    return to;
}

enum { WORST_ESCAPE = 6, FIELD_FRAME = 8 }; /* "":"", and the longest word that stands for an empty value */

static int put_object(pf_redis_fields *self, const pf_resp_event *entry, pf_incoming *to)
{
    size_t need = 2;
    for (uint64_t i = 0; i < entry->n_fields; i++)
        need += FIELD_FRAME + WORST_ESCAPE * (entry->fields[i].name.size + entry->fields[i].value.size);
    if (!grow(&self->json, &self->json_room, need))
        return 0;
    uint8_t *at = self->json;
    *at++ = '{';
    for (uint64_t i = 0; i < entry->n_fields; i++) {
        const pf_resp_field *field = &entry->fields[i];
        if (i > 0)
            *at++ = ',';
        at = put_string(at, field->name);
        *at++ = ':';
        pf_resp_text value = {NULL, 0};
        for (uint32_t c = 0; c < self->n_columns && value.bytes == NULL; c++)
            if (is_named(field->name, self->columns[c].name, self->columns[c].size))
                value = bare(field->value, self->columns[c].kind);
        if (value.bytes == NULL) {
            at = put_string(at, field->value);
        } else {
            memcpy(at, value.bytes, value.size);
            at += value.size;
        }
    }
    *at++ = '}';
    to->payload = self->json;
    to->size = (size_t)(at - self->json);
    return 1;
}

/* ---- all of an entry -------------------------------------------------------------------------------------------- */

static int64_t find(const pf_resp_event *entry, const void *name, size_t size)
{
    for (uint64_t i = 0; i < entry->n_fields; i++)
        if (is_named(entry->fields[i].name, name, size))
            return (int64_t)i;
    return -1;
}

static int64_t payload_of(const pf_redis_fields *self, const pf_resp_event *entry)
{
    if (self->payload != NULL)
        return find(entry, self->payload, self->payload_size);
    int64_t found = find(entry, "data", 4);
    if (found < 0)
        found = find(entry, "body", 4);
    return found < 0 && entry->n_fields == 1 ? 0 : found;
}

int pf_redis_fields_map(pf_redis_fields *self, const pf_resp_event *entry, pf_incoming *to)
{
    int64_t key = self->key != NULL ? find(entry, self->key, self->key_size) : -1;
    to->key = key < 0 ? NULL : entry->fields[key].value.bytes;
    to->key_size = key < 0 ? -1 : (int32_t)entry->fields[key].value.size;
    if (self->as_columns)
        return put_object(self, entry, to) && put_headers(self, entry, -1, -1, to);
    int64_t payload = payload_of(self, entry);
    to->payload = payload < 0 ? NULL : entry->fields[payload].value.bytes;
    to->size = payload < 0 ? 0 : entry->fields[payload].value.size;
    return put_headers(self, entry, payload, key, to);
}

void pf_redis_fields_free(pf_redis_fields *self)
{
    for (uint32_t i = 0; i < self->n_columns; i++)
        free(self->columns[i].name);
    free(self->columns);
    free(self->payload);
    free(self->key);
    free(self->headers);
    free(self->json);
}
