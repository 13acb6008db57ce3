/* A batch's messages into its columns, by whoever owns its slot: the pool process that holds it, or the intake
 * thread as long as it fills it.
 *
 * Everything written here is made anew from the messages each time, so a process may die at any instruction of
 * it: the next one begins again.  Row numbers do not depend on who decodes, or how often.
 */
#ifndef PYTHIA_SLOT_DECODE_H
#define PYTHIA_SLOT_DECODE_H

#include "null_row.h"
#include "ring.h"

static inline pf_message *pf_slot_messages(const pf_arena *arena, pf_slot *slot) {
    return (pf_message *)((uint8_t *)slot + arena->messages_at);
}

static inline pf_refused *pf_slot_refusals(const pf_arena *arena, pf_slot *slot) {
    return (pf_refused *)((uint8_t *)slot + arena->refusals_at);
}

/* Where the messages that are rows stand, in row order. */
static inline uint64_t pf_rows_at(const pf_arena *arena, const pf_slot *slot) {
    return slot->refused ? arena->good_at : arena->messages_at;
}

/* One message into row `columns->rows`: PF_DECODED, PF_REFUSED, PF_FULL or PF_UNKNOWN.  A place in the raw region that lies
 * outside of it cannot come from the intake, so it is a scribbled slot; it is refused rather than read. */
static int pf_decode_message(const pf_arena *arena, pf_slot *slot, const pf_message *message, pf_columns *columns,
                             pf_decoder *decoder, pf_refusal *why) {
    *why = (pf_refusal){PF_REASON_NONE, PF_FOUND_NONE, 0, -1, 0};
    if (message->key_size <= PF_KEY_OF_CUT) {
        int64_t reason = PF_REASON_CUT + ((int64_t)PF_KEY_OF_CUT - message->key_size);
        why->reason = (uint8_t)(reason < PF_REASON_BAD_BATCH ? reason : PF_REASON_BAD_BATCH);
        return PF_REFUSED;
    }
    if (message->payload_size == PF_NO_PAYLOAD && message->payload_at != PF_SPOOLED)
        return pf_decode_null(decoder, columns, why);
    uint64_t end = (uint64_t)message->payload_at + message->payload_size;
    if (message->payload_at == PF_SPOOLED || end > arena->raw_bytes) {
        why->reason = PF_REASON_TOO_LARGE;
        why->at = message->payload_size;
        return PF_REFUSED;
    }
    const uint8_t *payload = (const uint8_t *)slot + arena->raw_at + message->payload_at;
    return decoder->decode(decoder, columns, payload, message->payload_size, why);
}

/* Decode all messages of the slot: PF_DECODED; PF_FULL when its columns have no room for all rows at once, or PF_UNKNOWN:
 * then nothing is said about the batch.  With `sift`, each row takes the place of the one before it, so that only one
 * must fit (one that does not is refused): the columns are then good for nothing, but which messages are rows is known. */
static int pf_decode_messages(const pf_arena *arena, pf_slot *slot, pf_columns columns, pf_decoder *decoder, int sift) {
    pf_message *messages = pf_slot_messages(arena, slot);
    pf_message *good = (pf_message *)((uint8_t *)slot + arena->good_at);
    pf_refused *refusals = pf_slot_refusals(arena, slot);
    uint32_t n = pf_slot_length(arena, slot);
    uint32_t rows = 0, refused = 0;
    columns.base = (uint8_t *)slot;
    pf_columns_reset(&columns);
    for (uint32_t i = 0; i < n; i++) {
        pf_refusal why;
        if (slot->crashes) messages[i].attempts = pf_count16(slot->crashes);
        int outcome = pf_decode_message(arena, slot, &messages[i], &columns, decoder, &why);
        if (outcome == PF_UNKNOWN) return PF_UNKNOWN;
        if (outcome == PF_FULL) {
            if (!sift) return PF_FULL;
            outcome = PF_REFUSED;
            why = (pf_refusal){PF_REASON_ROW_TOO_LARGE, PF_FOUND_NONE, 0, -1, messages[i].payload_size};
        }
        if (outcome == PF_DECODED) {
            if (refused) good[rows] = messages[i];
            rows++;
            if (sift) columns.rows = 0;
            continue;
        }
        if (refused == 0 && rows) memcpy(good, messages, rows * sizeof *good);
        refusals[refused++] = (pf_refused){why, i, 0};
    }
    slot->rows = rows;
    slot->refused = refused;
    slot->decoded = sift ? PF_SIFTED : PF_IN_COLUMNS;
    return PF_DECODED;
}

/* Decode the batch; `columns` says where the columns of a slot lie.  0: not yet, the decoder has to learn first. */
static int pf_decode_slot(const pf_arena *arena, pf_slot *slot, pf_columns columns, pf_decoder *decoder) {
    int outcome = pf_decode_messages(arena, slot, columns, decoder, 0);
    if (outcome == PF_FULL) outcome = pf_decode_messages(arena, slot, columns, decoder, 1);
    return outcome == PF_DECODED;
}

#endif
