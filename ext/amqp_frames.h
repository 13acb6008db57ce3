/* AMQP 0-9-1 frames as they come from a socket: which of them carry messages for us, and the messages.
 *
 *     frame    type u8 | channel u16 | size u32 | payload | 0xCE           (AMQP 0-9-1, section 4.2.3)
 *     message  method frame (basic.deliver) | content header frame | body frames, until the body is whole
 *
 * Pure: no I/O.  pf_amqp_next() takes one frame, or a run of frames, off the front of the bytes it is given and says what
 * it was; a frame that is not whole yet is left there.  So it does not matter where reads cut the stream.  What a method
 * and a header say is copied, since their bytes may be gone when the body comes; a body that lies in one frame is handed
 * out where it lies, one that spans frames is gathered.
 *
 * Frames of other channels, and all methods but the few named here, are none of ours: they are told as a range of bytes,
 * for the client library that does the rest of the protocol. */
#ifndef PYTHIA_AMQP_FRAMES_H
#define PYTHIA_AMQP_FRAMES_H

#include "amqp_table.h"

#define PF_AMQP_FRAME_HEADER 7
#define PF_AMQP_FRAME_AROUND 8 /* bytes of a frame that are not payload */
#define PF_AMQP_FRAME_END 0xce
#define PF_AMQP_FRAME_MOST 131072 /* bytes of a frame before anything else was agreed upon */

enum { PF_AMQP_METHOD = 1, PF_AMQP_HEADER = 2, PF_AMQP_BODY = 3, PF_AMQP_HEARTBEAT = 8 };
enum { PF_AMQP_BASIC = 60, PF_AMQP_RETURN = 50, PF_AMQP_DELIVER = 60, PF_AMQP_ACK = 80, PF_AMQP_NACK = 120 };

/* What pf_amqp_next found. */
enum {
    PF_AMQP_MORE = 0,      /* the rest is no whole frame */
    PF_AMQP_TAKEN = 1,     /* a frame of a message that is not whole yet */
    PF_AMQP_DELIVERED = 2, /* a whole message: see pf_amqp_content */
    PF_AMQP_RETURNED = 3,  /* a message of ours that came back as unroutable */
    PF_AMQP_CONFIRMED = 4, /* basic.ack or basic.nack from the broker: `tag`, `multiple`, `refused` */
    PF_AMQP_OTHER = 5,     /* frames that are none of ours */
    PF_AMQP_BROKEN = 6,    /* `error` says why; nothing more can be read from this connection */
};

/* Why a stream is broken. */
enum {
    PF_AMQP_SOUND = 0,
    PF_AMQP_NO_AMQP = 1,         /* not a frame's first byte: somebody else answers */
    PF_AMQP_OTHER_VERSION = 2,   /* the protocol header, with which a broker tells the version that it speaks */
    PF_AMQP_FRAME_TOO_LARGE = 3, /* larger than was agreed upon */
    PF_AMQP_NO_FRAME_END = 4,
    PF_AMQP_BAD_METHOD = 5,
    PF_AMQP_BAD_HEADER = 6,
    PF_AMQP_BODY_TOO_LONG = 7, /* body frames hold more than the header said */
    PF_AMQP_UNEXPECTED = 8,    /* a header or body frame where another kind must come */
    PF_AMQP_NO_MEMORY = 9,
};

enum { PF_AMQP_IDLE, PF_AMQP_WANTS_HEADER, PF_AMQP_WANTS_BODY };

/* A message. */
typedef struct {
    uint64_t tag;         /* delivery tag; of a confirmation, the publish sequence number */
    const uint8_t *body;  /* valid until the bytes that it lies in are gone, or the next call */
    uint64_t body_size;   /* as the header says; `body` holds `kept` of them */
    uint64_t kept;
    int64_t timestamp_ms; /* -1: none */
    int64_t deliveries;   /* as a quorum queue counts earlier ones; -1: it is not told */
    uint16_t reply_code;  /* of a returned one */
    uint8_t redelivered, multiple, refused;
    uint8_t key_size; /* of the routing key */
    uint8_t key[255];
    uint8_t reply_size;
    uint8_t reply[255]; /* text: why it came back */
} pf_amqp_content;

typedef struct {
    uint16_t channel;    /* whose deliveries, returns and confirmations are ours; 0: none are */
    uint32_t frame_most; /* bytes of a frame, as agreed upon */
    uint64_t kept_most;  /* of a longer body only `kept_head` bytes are kept */
    uint64_t kept_head;
    int stage, is_return, error;
    uint64_t seen; /* bytes of the body so far */
    pf_amqp_content content;
    pf_amqp_text headers;  /* encoded as pf_message has them */
    pf_amqp_text gathered; /* of a body in several frames */
} pf_amqp_parser;

static inline void pf_amqp_init(pf_amqp_parser *parser, uint64_t kept_most, uint64_t kept_head) {
    memset(parser, 0, sizeof *parser);
    parser->frame_most = PF_AMQP_FRAME_MOST;
    parser->kept_most = kept_most;
    parser->kept_head = kept_head;
}

static inline void pf_amqp_free(pf_amqp_parser *parser) {
    free(parser->headers.bytes);
    free(parser->gathered.bytes);
    memset(parser, 0, sizeof *parser);
}

static inline int pf_amqp_break(pf_amqp_parser *parser, int error) {
    parser->error = error;
    return PF_AMQP_BROKEN;
}

static inline uint8_t pf_amqp_copy_short(pf_amqp_bytes *in, uint8_t *to) {
    pf_amqp_bytes text = pf_amqp_sized(in, 1);
    if (!text.bad) memcpy(to, text.at, pf_amqp_left(&text));
    return (uint8_t)pf_amqp_left(&text);
}

static inline int pf_amqp_begin_message(pf_amqp_parser *parser, pf_amqp_bytes in, int is_return) {
    pf_amqp_content *content = &parser->content;
    if (parser->stage != PF_AMQP_IDLE) return pf_amqp_break(parser, PF_AMQP_UNEXPECTED);
    content->timestamp_ms = content->deliveries = -1;
    if (is_return) {
        content->reply_code = (uint16_t)pf_amqp_uint(&in, 2);
        content->reply_size = pf_amqp_copy_short(&in, content->reply);
    } else {
        pf_amqp_sized(&in, 1); /* consumer tag: the channel has one consumer */
        content->tag = pf_amqp_uint(&in, 8);
        content->redelivered = pf_amqp_uint(&in, 1) & 1;
    }
    pf_amqp_sized(&in, 1); /* exchange */
    content->key_size = pf_amqp_copy_short(&in, content->key);
    if (in.bad) return pf_amqp_break(parser, PF_AMQP_BAD_METHOD);
    parser->stage = PF_AMQP_WANTS_HEADER;
    parser->is_return = is_return;
    return PF_AMQP_TAKEN;
}

static inline int pf_amqp_confirmation(pf_amqp_parser *parser, pf_amqp_bytes in, int refused) {
    parser->content.tag = pf_amqp_uint(&in, 8);
    parser->content.multiple = pf_amqp_uint(&in, 1) & 1;
    parser->content.refused = (uint8_t)refused;
    return in.bad ? pf_amqp_break(parser, PF_AMQP_BAD_METHOD) : PF_AMQP_CONFIRMED;
}

static inline int pf_amqp_message_done(pf_amqp_parser *parser) {
    parser->stage = PF_AMQP_IDLE;
    return parser->is_return ? PF_AMQP_RETURNED : PF_AMQP_DELIVERED;
}

/* Properties stand in the order of their flags, from the highest bit down: 2 sizes of text, table, 2 bytes, 4 texts,
 * timestamp, 4 texts. */
static inline int pf_amqp_content_header(pf_amqp_parser *parser, pf_amqp_bytes in) {
    pf_amqp_content *content = &parser->content;
    if (parser->stage != PF_AMQP_WANTS_HEADER) return pf_amqp_break(parser, PF_AMQP_UNEXPECTED);
    pf_amqp_take(&in, 4); /* class, weight */
    content->body_size = pf_amqp_uint(&in, 8);
    uint32_t flags = (uint32_t)pf_amqp_uint(&in, 2);
    pf_amqp_empty(&parser->headers);
    if (flags & 1) in.bad = 1; /* more flags follow: there are no properties that they could stand for */
    for (int bit = 15; bit >= 2; bit--) {
        if (!(flags >> bit & 1)) continue;
        if (bit == 13) {
            if (!pf_amqp_encode_headers(&parser->headers, pf_amqp_sized(&in, 4), &content->deliveries)) in.bad = 1;
        } else if (bit == 12 || bit == 11) {
            pf_amqp_uint(&in, 1);
        } else if (bit == 6) {
            uint64_t seconds = pf_amqp_uint(&in, 8);
            if (seconds <= INT64_MAX / 1000) content->timestamp_ms = (int64_t)seconds * 1000;
        } else {
            pf_amqp_sized(&in, 1);
        }
    }
    if (in.bad) return pf_amqp_break(parser, PF_AMQP_BAD_HEADER);
    if (parser->headers.failed) return pf_amqp_break(parser, PF_AMQP_NO_MEMORY);
    content->kept = content->body_size <= parser->kept_most ? content->body_size : parser->kept_head;
    content->body = (const uint8_t *)"";
    parser->seen = 0;
    pf_amqp_empty(&parser->gathered);
    if (content->body_size == 0) return pf_amqp_message_done(parser);
    parser->stage = PF_AMQP_WANTS_BODY;
    return PF_AMQP_TAKEN;
}

static inline int pf_amqp_body(pf_amqp_parser *parser, pf_amqp_bytes in) {
    pf_amqp_content *content = &parser->content;
    uint64_t size = pf_amqp_left(&in);
    if (parser->stage != PF_AMQP_WANTS_BODY) return pf_amqp_break(parser, PF_AMQP_UNEXPECTED);
    if (size > content->body_size - parser->seen) return pf_amqp_break(parser, PF_AMQP_BODY_TOO_LONG);
    if (size == content->body_size) { /* all in one: where it lies */
        content->body = in.at;
        return pf_amqp_message_done(parser);
    }
    uint64_t wanted = content->kept - parser->gathered.size;
    pf_amqp_put(&parser->gathered, in.at, (size_t)(size < wanted ? size : wanted));
    if (parser->gathered.failed) return pf_amqp_break(parser, PF_AMQP_NO_MEMORY);
    parser->seen += size;
    if (parser->seen < content->body_size) return PF_AMQP_TAKEN;
    content->body = parser->gathered.bytes;
    return pf_amqp_message_done(parser);
}

/* The size of the whole frame that the bytes begin with; 0: it is not told yet, or (`error` set) there is none. */
static inline size_t pf_amqp_frame_size(pf_amqp_parser *parser, const uint8_t *bytes, size_t size) {
    if (size == 0) return 0;
    int type = bytes[0];
    if (type == 'A') parser->error = PF_AMQP_OTHER_VERSION;
    else if (type != PF_AMQP_METHOD && type != PF_AMQP_HEADER && type != PF_AMQP_BODY && type != PF_AMQP_HEARTBEAT)
        parser->error = PF_AMQP_NO_AMQP;
    if (parser->error || size < PF_AMQP_FRAME_HEADER) return 0;
    pf_amqp_bytes in = {bytes + 3, bytes + size, 0};
    uint64_t whole = pf_amqp_uint(&in, 4) + PF_AMQP_FRAME_AROUND;
    if (whole > parser->frame_most) {
        parser->error = PF_AMQP_FRAME_TOO_LARGE;
        return 0;
    }
    return (size_t)whole;
}

/* What a whole frame is to us; the bytes are its payload. */
static inline int pf_amqp_frame(pf_amqp_parser *parser, int type, uint32_t channel, pf_amqp_bytes in) {
    if (channel == 0 || channel != parser->channel) return PF_AMQP_OTHER;
    if (type == PF_AMQP_METHOD) {
        uint64_t class_and_method = pf_amqp_uint(&in, 4);
        if (in.bad) return pf_amqp_break(parser, PF_AMQP_BAD_METHOD);
        switch (class_and_method) {
        case PF_AMQP_BASIC << 16 | PF_AMQP_DELIVER: return pf_amqp_begin_message(parser, in, 0);
        case PF_AMQP_BASIC << 16 | PF_AMQP_RETURN: return pf_amqp_begin_message(parser, in, 1);
        case PF_AMQP_BASIC << 16 | PF_AMQP_ACK: return pf_amqp_confirmation(parser, in, 0);
        case PF_AMQP_BASIC << 16 | PF_AMQP_NACK: return pf_amqp_confirmation(parser, in, 1);
        default:
            parser->stage = PF_AMQP_IDLE; /* channel.close may come within a message, which then never ends */
            return PF_AMQP_OTHER;
        }
    }
    if (type == PF_AMQP_HEADER) return pf_amqp_content_header(parser, in);
    if (type == PF_AMQP_BODY) return pf_amqp_body(parser, in);
    return pf_amqp_break(parser, PF_AMQP_UNEXPECTED); /* heartbeats belong to channel 0 */
}

/* Take what the bytes begin with; `used`: how many of them that was. */
static int pf_amqp_next(pf_amqp_parser *parser, const uint8_t *bytes, size_t size, size_t *used) {
    *used = 0;
    if (parser->error) return PF_AMQP_BROKEN;
    for (;;) {
        size_t whole = pf_amqp_frame_size(parser, bytes + *used, size - *used);
        if (parser->error) return *used ? (parser->error = PF_AMQP_SOUND, PF_AMQP_OTHER) : PF_AMQP_BROKEN;
        if (whole == 0 || whole > size - *used) return *used ? PF_AMQP_OTHER : PF_AMQP_MORE;
        const uint8_t *frame = bytes + *used;
        int outcome;
        if (frame[whole - 1] != PF_AMQP_FRAME_END) {
            if (*used) return PF_AMQP_OTHER; /* first those before it, then again this one */
            return pf_amqp_break(parser, PF_AMQP_NO_FRAME_END);
        }
        uint32_t channel = (uint32_t)frame[1] << 8 | frame[2];
        if (*used && channel != 0 && channel == parser->channel) return PF_AMQP_OTHER;
        outcome = pf_amqp_frame(parser, frame[0], channel,
                                (pf_amqp_bytes){frame + PF_AMQP_FRAME_HEADER, frame + whole - 1, 0});
        if (outcome == PF_AMQP_BROKEN) return outcome;
        *used += whole;
        if (outcome != PF_AMQP_OTHER || channel == parser->channel) return outcome;
    }
}

#endif
