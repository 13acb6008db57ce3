/* Which deliveries of a channel are done, and how that is told to the broker.
 *
 *     tags     1 ........ low ..x..x....x........ delivered
 *              \_ done __/    \_ some are done __/
 *
 * Everything up to `low` is acknowledged by one basic.ack with multiple=1.  Done ones above it wait for it, until so
 * much waits, or for so long, that the broker would be kept from delivering: then they are acknowledged one by one.
 *
 * RabbitMQ takes a multiple acknowledgement only for a tag that is itself not acknowledged yet: it looks for it from the
 * oldest one on, and where it finds none, it has taken all of them and closes the channel (rabbit_channel.erl,
 * collect_acks).  So `single` remembers those that were acknowledged one by one.
 *
 * A ring of two bits a tag: `delivered - low` never exceeds its size, since the source waits before that.  Called under
 * the owner's mutex. */
#ifndef PYTHIA_AMQP_ACKS_H
#define PYTHIA_AMQP_ACKS_H

#include "amqp_table.h"

#define PF_AMQP_TAGS (1u << 20) /* power of two */
#define PF_AMQP_ACK_BYTES 21    /* of a frame with basic.ack */

typedef struct {
    uint64_t done[PF_AMQP_TAGS / 64];
    uint64_t single[PF_AMQP_TAGS / 64];
    uint64_t low;       /* all tags up to it are done */
    uint64_t delivered; /* highest tag that was handed on */
    uint64_t ackable;   /* highest tag up to low that is not acknowledged; 0: there is none */
    uint64_t waiting;   /* done above low, and not acknowledged */
} pf_amqp_acks;

static inline uint64_t *pf_amqp_bit(uint64_t *bits, uint64_t tag, uint64_t *mask) {
    *mask = 1ull << (tag % 64);
    return &bits[tag % PF_AMQP_TAGS / 64];
}

static inline int pf_amqp_get_bit(uint64_t *bits, uint64_t tag) {
    uint64_t mask;
    return (*pf_amqp_bit(bits, tag, &mask) & mask) != 0;
}

static inline void pf_amqp_set_bit(uint64_t *bits, uint64_t tag, int value) {
    uint64_t mask;
    uint64_t *word = pf_amqp_bit(bits, tag, &mask);
    *word = value ? *word | mask : *word & ~mask;
}

/* A channel begins: nothing was delivered on it yet. */
static inline void pf_amqp_acks_reset(pf_amqp_acks *acks) {
    memset(acks, 0, sizeof *acks);
}

/* Whether one more may be handed on. */
static inline int pf_amqp_acks_has_room(const pf_amqp_acks *acks) {
    return acks->delivered - acks->low < PF_AMQP_TAGS - 64;
}

/* A delivery is done; one that was told before, or never delivered, changes nothing. */
static inline void pf_amqp_acks_done(pf_amqp_acks *acks, uint64_t tag) {
    if (tag <= acks->low || tag > acks->delivered || pf_amqp_get_bit(acks->done, tag)) return;
    pf_amqp_set_bit(acks->done, tag, 1);
    acks->waiting++;
    while (acks->low < acks->delivered && pf_amqp_get_bit(acks->done, acks->low + 1)) {
        uint64_t next = ++acks->low;
        if (!pf_amqp_get_bit(acks->single, next)) {
            acks->ackable = next;
            acks->waiting--;
        }
        pf_amqp_set_bit(acks->done, next, 0);
        pf_amqp_set_bit(acks->single, next, 0);
    }
}

static inline void pf_amqp_put_ack(pf_amqp_text *out, uint16_t channel, uint64_t tag, int multiple) {
    uint8_t frame[PF_AMQP_ACK_BYTES] = {1, (uint8_t)(channel >> 8), (uint8_t)channel, 0, 0, 0, 13, 0, 60, 0, 80};
    for (int i = 0; i < 8; i++) frame[11 + i] = (uint8_t)(tag >> (56 - 8 * i));
    frame[19] = (uint8_t)multiple;
    frame[20] = 0xce;
    pf_amqp_put(out, frame, sizeof frame);
}

/* Tell the broker: all up to `low`; with `singly` also those above it.  Returns how many frames that took. */
static inline uint64_t pf_amqp_acks_write(pf_amqp_acks *acks, pf_amqp_text *out, uint16_t channel, int singly) {
    uint64_t frames = 0;
    if (acks->ackable) {
        pf_amqp_put_ack(out, channel, acks->ackable, 1);
        acks->ackable = 0;
        frames++;
    }
    for (uint64_t tag = acks->low + 1; singly && acks->waiting && tag <= acks->delivered; tag++) {
        if (!pf_amqp_get_bit(acks->done, tag) || pf_amqp_get_bit(acks->single, tag)) continue;
        pf_amqp_put_ack(out, channel, tag, 0);
        pf_amqp_set_bit(acks->single, tag, 1);
        acks->waiting--;
        frames++;
    }
    return frames;
}

#endif
