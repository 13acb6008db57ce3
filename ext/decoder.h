/* The contract between whoever decodes a batch (slot_decode.h) and the decoder of one payload.
 *
 * A decoder writes row `batch->rows` of every column and then increments `batch->rows`; on any other
 * result the batch holds exactly the rows it held before (a half written row lies beyond every
 * offset and is overwritten by the next).  It runs without the GIL, allocates nothing, and reads no
 * byte outside payload[0 .. size).  A null payload never comes to it (null_row.h).  One decoder object belongs to one thread: it may learn
 * (the order in which keys came last), which never changes an answer, only the speed.
 */
#ifndef PYTHIA_DECODER_H
#define PYTHIA_DECODER_H

#include "plan.h"

enum {
    PF_DECODED = 0, /* one more row */
    PF_REFUSED = 1, /* the payload is bad: see pf_refusal */
    PF_FULL = 2,    /* good as far as read, but a column has no room for it in this batch */
    PF_UNKNOWN = 3, /* what is needed to read it has to be asked for first (NativeDecoder.learn), by who has the GIL */
};

/* Why a payload was refused.  The sentence is made only when somebody reads it (refusal.py). */
enum {
    PF_REASON_NONE = 0,
    PF_REASON_EMPTY = 1,               /* payload has no bytes */
    PF_REASON_NULL = 2,                /* payload is null (a Kafka tombstone) */
    PF_REASON_TRUNCATED = 3,           /* ends inside a value */
    PF_REASON_SYNTAX = 4,              /* not the format at all */
    PF_REASON_TRAILING = 5,            /* bytes after the value */
    PF_REASON_UTF8 = 6,                /* invalid UTF-8 */
    PF_REASON_ESCAPE = 7,              /* invalid escape, lone surrogate */
    PF_REASON_CONTROL = 8,             /* unescaped control character in a string */
    PF_REASON_NUMBER = 9,              /* malformed number */
    PF_REASON_RANGE = 10,              /* number outside the column's type */
    PF_REASON_TYPE = 11,               /* `found` where `column` wants another type */
    PF_REASON_MISSING = 12,            /* required field `column` absent */
    PF_REASON_UNKNOWN_FIELD = 13,      /* forbid_unknown_fields */
    PF_REASON_DEPTH = 14,              /* nested too deep */
    PF_REASON_CONSTRAINT = 15,         /* a msgspec.Meta bound of `column` */
    PF_REASON_DATETIME = 16,           /* not RFC 3339, or outside the years 1 to 9999 */
    PF_REASON_BASE64 = 17,             /* bytes field that is not base64 */
    PF_REASON_LENGTH = 18,             /* fixed layout: payload is not one record long */
    PF_REASON_TOO_LARGE = 19,          /* payload, or key and headers with it, larger than a batch may be */
    PF_REASON_TAG = 20,                /* Struct tag is not the expected one */
    PF_REASON_CODE_POINT = 21,         /* a number in a UTF-32 text that is no character's */
    PF_REASON_CUT = 22,                /* its source ended within it */
    PF_REASON_NO_RECORD = 23,          /* a file of records holds something else here */
    PF_REASON_NOT_AMQP = 24,           /* a message in a stream that is no message of AMQP 1.0 */
    PF_REASON_COMPRESSED = 25,         /* messages packed together in a way that is not read here */
    PF_REASON_BAD_BATCH = 26,          /* messages packed together that cannot be taken apart */
    PF_REASON_ROW_TOO_LARGE = 27,      /* the columns of a batch have no room for what it decodes to */
    PF_REASON_FRAME = 28,              /* does not begin as a schema registry has it */
    PF_REASON_WRITER_SCHEMA = 29,      /* `at` is the number of a schema that there is not, or that does not fit the columns */
};

/* JSON-ish name of what was found, for PF_REASON_TYPE. */
enum {
    PF_FOUND_NONE = 0,
    PF_FOUND_NULL = 1,
    PF_FOUND_BOOL = 2,
    PF_FOUND_INT = 3,
    PF_FOUND_FLOAT = 4,
    PF_FOUND_STR = 5,
    PF_FOUND_ARRAY = 6,
    PF_FOUND_OBJECT = 7,
    PF_FOUND_BYTES = 8,
    PF_FOUND_EXT = 9,
    PF_FOUND_DATETIME = 10,
};

typedef struct {
    uint8_t reason;    /* PF_REASON_... */
    uint8_t found;     /* PF_FOUND_... */
    uint16_t reserved;
    int32_t column;    /* index of the column concerned, -1 when none */
    uint64_t at;       /* byte offset into the payload */
} pf_refusal;

typedef struct pf_decoder pf_decoder;
struct pf_decoder {
    int (*decode)(pf_decoder *self, pf_columns *batch, const uint8_t *payload, size_t size, pf_refusal *why);
    const pf_plan *null_rows; /* a null payload is a row of this plan (null_row.h); NULL: it is refused */
};

#endif
