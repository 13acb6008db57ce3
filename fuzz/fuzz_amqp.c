/* libFuzzer target: any bytes as what a RabbitMQ server sends.  Cut in pieces of any size, they give what they give in
 * one piece, nothing beyond their end is touched, and what is taken and left adds up.  Then the acknowledgements of
 * deliveries that are done in any order: each is told once, and a multiple one only for a tag that was not told. */
#include "amqp_acks.h"
#include "amqp_frames.h"

#define MUST(condition)                                                        \
    do {                                                                       \
        if (!(condition)) {                                                    \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);    \
            abort();                                                           \
        }                                                                      \
    } while (0)

enum { CHANNEL = 1, KEPT_MOST = 64, KEPT_HEAD = 8, FRAME_MOST = 256 };

/* All that a stream said, as one text. */
static void say(pf_amqp_text *said, int outcome, const pf_amqp_parser *parser, const uint8_t *bytes, size_t used) {
    const pf_amqp_content *content = &parser->content;
    if (outcome == PF_AMQP_OTHER) { /* runs may be cut anywhere between frames */
        pf_amqp_put(said, bytes, used);
        return;
    }
    if (outcome == PF_AMQP_BROKEN) pf_amqp_put_le(said, (uint64_t)parser->error, 1);
    if (outcome == PF_AMQP_CONFIRMED) pf_amqp_put_le(said, content->tag, 8);
    if (outcome != PF_AMQP_DELIVERED && outcome != PF_AMQP_RETURNED) return;
    MUST(content->kept <= content->body_size && content->kept <= KEPT_MOST);
    pf_amqp_put_le(said, content->tag, 8);
    pf_amqp_put(said, content->key, content->key_size);
    pf_amqp_put(said, content->body, (size_t)content->kept);
    pf_amqp_put(said, parser->headers.bytes, parser->headers.size);
    pf_amqp_put_le(said, (uint64_t)content->timestamp_ms, 8);
    pf_amqp_put_le(said, (uint64_t)content->deliveries, 8);
}

static pf_amqp_text parse(const uint8_t *data, size_t size, size_t piece) {
    pf_amqp_text said = {0};
    pf_amqp_parser parser;
    pf_amqp_init(&parser, KEPT_MOST, KEPT_HEAD);
    parser.channel = CHANNEL;
    parser.frame_most = FRAME_MOST;
    size_t taken = 0, come = 0;
    int outcome = PF_AMQP_MORE;
    while (outcome != PF_AMQP_BROKEN && come < size) {
        come = size - come < piece ? size : come + piece;
        uint8_t *window = malloc(come - taken ? come - taken : 1); /* so that a read beyond what came is seen */
        MUST(window);
        memcpy(window, data + taken, come - taken);
        size_t at = 0, used, rest = come - taken;
        do {
            outcome = pf_amqp_next(&parser, window + at, rest - at, &used);
            MUST(used <= rest - at && (outcome == PF_AMQP_MORE || outcome == PF_AMQP_BROKEN ? used == 0 : used > 0));
            say(&said, outcome, &parser, window + at, used);
            at += used;
        } while (outcome != PF_AMQP_MORE && outcome != PF_AMQP_BROKEN);
        taken += at;
        free(window);
    }
    pf_amqp_free(&parser);
    return said;
}

static pf_amqp_acks acks;

static void acknowledge(const uint8_t *data, size_t size) {
    enum { TAGS = 256 };
    static uint8_t done[TAGS + 1], told[TAGS + 1];
    memset(done, 0, sizeof done);
    memset(told, 0, sizeof told);
    pf_amqp_acks_reset(&acks);
    acks.delivered = TAGS;
    pf_amqp_text out = {0};
    for (size_t i = 0; i < size; i++) {
        done[data[i] + 1] = 1;
        pf_amqp_acks_done(&acks, (uint64_t)data[i] + 1);
        if (i % 3) continue;
        out.size = 0;
        pf_amqp_acks_write(&acks, &out, CHANNEL, data[i] % 2);
        for (size_t at = 0; at < out.size; at += PF_AMQP_ACK_BYTES) {
            pf_amqp_bytes frame = {out.bytes + at + 11, out.bytes + at + PF_AMQP_ACK_BYTES, 0};
            uint64_t tag = pf_amqp_uint(&frame, 8), multiple = pf_amqp_uint(&frame, 1);
            MUST(tag >= 1 && tag <= TAGS && !told[tag]);
            for (uint64_t t = multiple ? 1 : tag; t <= tag; t++) {
                MUST(done[t]);
                told[t] = 1;
            }
        }
    }
    out.size = 0;
    pf_amqp_acks_write(&acks, &out, CHANNEL, 1);
    free(out.bytes);
    MUST(acks.waiting == 0 && acks.ackable == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) return 0;
    size_t piece = 1 + data[0] % 32;
    pf_amqp_text whole = parse(data + 1, size - 1, size), pieces = parse(data + 1, size - 1, piece);
    MUST(whole.size == pieces.size && (whole.size == 0 || memcmp(whole.bytes, pieces.bytes, whole.size) == 0));
    free(whole.bytes);
    free(pieces.bytes);
    acknowledge(data + 1, size - 1);
    return 0;
}
