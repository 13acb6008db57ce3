/* What a Redis server answers, read out of a receive buffer piece by piece (RESP2 and RESP3,
 * https://redis.io/docs/latest/develop/reference/protocol-spec/).  Pure: no I/O, no clock.
 *
 * A reply is not read as a tree: `pf_resp_next` tells one event at a time, so of a reply with thousands of entries only
 * the entry at hand needs to be in memory as a whole.  The caller takes `event.used` bytes off the front of its buffer
 * after every event; PF_RESP_MORE means that the buffer ends too early, whatever is in front of it stays, and `want`
 * says how many bytes it should hold before it is worth looking again.
 *
 *     XREADGROUP   STREAM (ENTRY...)... END, or NIL
 *     XCLAIM       ENTRY... END
 *     XACK, XADD   NUMBER, TEXT or NIL
 *     any of them  ERROR
 *
 * Every byte is looked at only after it was compared with the end of the buffer, and every number of the peer's with a
 * limit, before memory is taken for it. */
#ifndef PYTHIA_RESP_H
#define PYTHIA_RESP_H

#include <stddef.h>
#include <stdint.h>

#define PF_RESP_LINE 4096 /* bytes of a line of text: an error, a simple string */
#define PF_RESP_DEPTH 8   /* of values within values that are passed over */

typedef struct {
    size_t bulk_bytes;     /* largest string */
    size_t entry_bytes;    /* largest entry, with its framing */
    uint64_t fields;       /* most fields of an entry */
    uint64_t elements;     /* most elements of any other array */
} pf_resp_limits;

typedef struct {
    const uint8_t *bytes; /* NULL: null */
    size_t size;
} pf_resp_text;

typedef struct {
    pf_resp_text name, value;
} pf_resp_field;

/* What kind of reply is awaited. */
enum { PF_RESP_STREAMS, PF_RESP_ENTRIES, PF_RESP_VALUE };

enum {
    PF_RESP_MORE,
    PF_RESP_STREAM, /* text: its name; the entries that follow are its */
    PF_RESP_ENTRY,
    PF_RESP_END,    /* of a reply of streams or entries */
    PF_RESP_NIL,    /* the whole reply is null */
    PF_RESP_NUMBER,
    PF_RESP_TEXT,
    PF_RESP_ERROR,  /* the server's own words in text; the reply is over */
    PF_RESP_BAD,    /* no such reply: `bad` says why; nothing behind it can be trusted */
};

/* Why a reply is PF_RESP_BAD.  The first is the peer's fault; the others are limits, with the number that broke it. */
enum { PF_RESP_GARBAGE = 1, PF_RESP_BULK_TOO_LARGE, PF_RESP_ENTRY_TOO_LARGE, PF_RESP_TOO_MANY, PF_RESP_NO_MEMORY };

typedef struct {
    size_t used; /* bytes that the event ends after */
    pf_resp_text text;
    int64_t number;
    /* PF_RESP_ENTRY */
    uint8_t has_id;   /* else the entry is gone, and that is all that the server says */
    uint8_t is_gone;  /* it has an id and no fields any more: it was deleted */
    uint64_t ms, seq; /* its id */
    pf_resp_text id;
    const pf_resp_field *fields; /* valid until the next call */
    uint64_t n_fields;
} pf_resp_event;

typedef struct {
    pf_resp_limits limits;
    uint32_t shape;
    uint32_t place;
    uint32_t in_map;    /* streams come as a map (RESP3) */
    uint32_t bad;
    uint64_t bad_number;
    const char *expected; /* in place of what came, where `bad` is PF_RESP_GARBAGE */
    uint64_t streams_left, entries_left;
    uint64_t skip_left[PF_RESP_DEPTH]; /* values still to pass over, by depth */
    uint32_t skip_depth;
    size_t want;
    pf_resp_field *fields;
    uint64_t fields_room;
} pf_resp;

void pf_resp_init(pf_resp *self, pf_resp_limits limits);
void pf_resp_free(pf_resp *self);

/* Forget what was begun: the next byte is the first of a reply of this shape. */
void pf_resp_expect(pf_resp *self, uint32_t shape);

int pf_resp_next(pf_resp *self, const uint8_t *data, size_t size, pf_resp_event *event);

/* "1526919030474-55"; 0 when it is none. */
int pf_resp_id(pf_resp_text text, uint64_t *ms, uint64_t *seq);

#endif
