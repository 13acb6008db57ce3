/* Framed records (brokers/base.py) as XADD commands, and the server's answers to them, counted.
 *
 *     XADD stream [MAXLEN ~ n] * data PAYLOAD [key KEY] [HEADER VALUE]...
 *
 * The owner sends `commands` and receives into `answers`; nothing here touches a socket. */
#ifndef PYTHIA_REDIS_OUTBOX_H
#define PYTHIA_REDIS_OUTBOX_H

#include "resp.h"

typedef struct {
    uint8_t *bytes;
    size_t size, room;
} pf_redis_bytes;

typedef struct {
    /* Constant parts of every command: XADD up to the id, and the names of the fields, as strings of RESP. */
    uint8_t *head, *payload_name, *key_name;
    size_t head_size, payload_name_size, key_name_size;
    uint32_t head_parts; /* strings in `head` */
    uint64_t most_bytes; /* of one string, as the server takes it (proto-max-bulk-len) */
    pf_redis_bytes commands;
    pf_redis_bytes answers;
    size_t answered; /* bytes of `answers` that were read */
    pf_resp resp;
} pf_redis_outbox;

enum {
    PF_REDIS_ADDED,
    PF_REDIS_NULL,      /* a null payload: Redis has no null */
    PF_REDIS_TOO_LARGE, /* beyond `most_bytes`, where the server ends the connection */
    PF_REDIS_MALFORMED, /* no whole record begins there, or its headers are not whole */
    PF_REDIS_NO_ROOM,   /* no memory */
};

void pf_redis_outbox_init(pf_redis_outbox *self);
void pf_redis_outbox_free(pf_redis_outbox *self);

/* Append the XADD of the record at `at`; `next`: where the one behind it begins. */
int pf_redis_outbox_add(pf_redis_outbox *self, const uint8_t *records, uint64_t size, uint64_t at, uint64_t *next);

/* Room for `bytes` more answers; NULL: no memory. */
uint8_t *pf_redis_outbox_room(pf_redis_outbox *self, size_t bytes);

/* The next answer: PF_RESP_TEXT (an id), PF_RESP_ERROR, PF_RESP_MORE, PF_RESP_BAD or another that is no answer to XADD. */
int pf_redis_outbox_answer(pf_redis_outbox *self, pf_resp_event *event);

#endif
