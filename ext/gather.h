/* Rows that wait to be handled again, apart from those of their batch that are done: what waits takes the room, and keeps
 * the positions, of these rows alone, and the rows of several batches wait in one slot.
 *
 * The completion thread does all of it, in PARKED slots, which are its own.  The process whose batches they are may look
 * into them meanwhile, for lanes in which rows wait (pool/waiting.py); it looks at `gathers` before and after, and looks
 * again where that has changed or is odd.
 *
 * A slot may have room for more rows than a batch has messages, so that they gather where batches are small
 * (runtime/slot_plan.py).
 *
 * What the regions of a slot hold then (beside arena_layout.h):
 *
 *     messages    rows that wait, in the order of their batches; right after pf_thin, behind them the others
 *     good        nothing (pf_thin has put the table of messages together there)
 *     refusals    the batch that each row came in, until the rows are decoded again: 8 bytes a row
 *     retries     a word a row: PF_GATHERED_ROUND, and how often it was given to the handler
 *     raw         what these rows have, without gaps
 *     columns     nothing
 *
 * Handlers can write into slots, so each place is checked before it is used.  A slot whose tables do not agree is left
 * as it is, and waits whole; a row that lies outside of its slot is kept as one that decoding refuses.
 */
#ifndef PYTHIA_GATHER_H
#define PYTHIA_GATHER_H

#include <stdlib.h>

#include "slot_decode.h"

#define PF_LEFT_WHOLE 0xffffffffu

/* Rows wait together where that makes none of them later than by this part of its wait. */
#define PF_GATHER_PART 8
/* While fewer than this part of the slots is free, than by the whole of it. */
#define PF_GATHER_FREE 4

/* The round that the rows of such a slot take part in next.  Not one more each time: rounds are counted in 16 bits, and a slot
 * may always have rows that wait. */
#define PF_GATHERED_ROUND 2u

/* For whoever looks into slots that wait: odd while they change. */
static inline void pf_gather_step(pf_arena *arena) {
    pf_add(&arena->gathers, 1);
}

static inline uint32_t *pf_slot_retries(const pf_arena *arena, pf_slot *slot) {
    return (uint32_t *)((uint8_t *)slot + arena->retries_at);
}

/* The batch that each row of a slot with `gathered` came in: uint64[rows].  It has no refusals, and this stands in their
 * table; rows of different batches that are of one lane are not given to the handler together. */
static inline uint64_t *pf_slot_origins(const pf_arena *arena, pf_slot *slot) {
    return (uint64_t *)((uint8_t *)slot + arena->refusals_at);
}

static inline int pf_row_waits(const pf_slot *slot, uint32_t word) {
    return word >> PF_RETRY_ROUND_SHIFT >= slot->waits_from;
}

/* Its entry in a slot's table of partitions; PF_SLOT_PARTITIONS where it has none. */
static uint32_t pf_entry_of(const pf_slot_partition *table, uint32_t n, uint32_t partition) {
    uint32_t at = 0;
    while (at < n && table[at].partition != partition) at++;
    return at < n ? at : PF_SLOT_PARTITIONS;
}

/* Copy one piece of a message behind `used`; 0 where it lies outside of the raw region, or there is no room. */
static int pf_move_piece(const pf_arena *arena, const uint8_t *raw, uint32_t *at, uint64_t size, uint8_t *to, uint64_t room,
                         uint64_t *used) {
    if (size) {
        if (size > arena->raw_bytes || *at > arena->raw_bytes - size || size > room - *used) return 0;
        memcpy(to + *used, raw + *at, size);
    }
    *at = (uint32_t)*used;
    *used += size;
    return 1;
}

/* Copy what a message has in the raw region behind `used`, and point it there. */
static void pf_move_message(const pf_arena *arena, const uint8_t *raw, pf_message *m, uint8_t *to, uint64_t room, uint64_t *used) {
    uint64_t before = *used;
    uint64_t payload = m->payload_size == PF_NO_PAYLOAD ? 0 : m->payload_size;
    uint64_t key = m->key_size > 0 ? (uint64_t)m->key_size : 0;
    if (pf_move_piece(arena, raw, &m->payload_at, payload, to, room, used) &&
        pf_move_piece(arena, raw, &m->key_at, key, to, room, used) &&
        pf_move_piece(arena, raw, &m->headers_at, m->headers_size, to, room, used))
        return;
    *used = before;
    m->payload_at = (uint32_t)arena->raw_bytes; /* outside, as decoding will find */
    m->payload_size = 1;
    m->key_size = -1;
    m->key_at = m->headers_at = m->headers_size = 0;
}

/* How many rows of the batch wait, and the room that they need; PF_LEFT_WHOLE where its tables do not agree. */
static uint32_t pf_count_waiting(const pf_arena *arena, pf_slot *slot, uint64_t *bytes) {
    const uint32_t *words = pf_slot_retries(arena, slot);
    const pf_message *messages = pf_slot_messages(arena, slot);
    const pf_refused *refusals = pf_slot_refusals(arena, slot);
    uint32_t n = pf_slot_length(arena, slot), rows = slot->rows, refused = slot->refused, waiting = 0, row = 0, why = 0;
    if (n == 0 || (uint64_t)rows + refused != n) return PF_LEFT_WHOLE;
    *bytes = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (why < refused && refusals[why].message == i) {
            why++;
            continue;
        }
        if (row == rows) return PF_LEFT_WHOLE;
        if (!pf_row_waits(slot, words[row++])) continue;
        waiting++;
        *bytes += (uint64_t)(messages[i].payload_size == PF_NO_PAYLOAD ? 0 : messages[i].payload_size) +
                  (messages[i].key_size > 0 ? (uint32_t)messages[i].key_size : 0) + messages[i].headers_size;
    }
    return row == rows && waiting ? waiting : PF_LEFT_WHOLE;
}

/* What a slot keeps of its batch, while it is put together. */
typedef struct {
    pf_message *messages; /* in the table of good rows, which nobody needs any more */
    uint64_t *origins;
    uint8_t *raw;
    uint64_t room, used;  /* of raw */
    uint64_t payload_bytes;
    uint32_t rows, entries;
    pf_slot_partition partitions[PF_SLOT_PARTITIONS];
} pf_kept;

/* Keep a row that waits.  Its word and its message are copies: the slot may be written over meanwhile. */
static void pf_keep_row(const pf_arena *arena, pf_slot *slot, pf_kept *kept, pf_message m, uint32_t word, uint64_t origin) {
    pf_move_message(arena, (uint8_t *)slot + arena->raw_at, &m, kept->raw, kept->room, &kept->used);
    kept->payload_bytes += m.payload_size == PF_NO_PAYLOAD ? 0 : m.payload_size;
    kept->origins[kept->rows] = origin;
    kept->messages[kept->rows] = m;
    /* Never before a word that is still to be read: no more rows are kept than were looked at. */
    pf_slot_retries(arena, slot)[kept->rows++] = PF_GATHERED_ROUND << PF_RETRY_ROUND_SHIFT | (word & PF_RETRY_GIVEN_MASK);
}

/* Count a row that is kept in the entry of its partition.  Of a partition that the batch's table does not have, because it
 * was written over, nothing is known. */
static void pf_keep_position(pf_kept *kept, const pf_slot_partition *table, uint32_t entries, const pf_message *m) {
    uint32_t entry = pf_entry_of(kept->partitions, kept->entries, m->partition);
    if (entry == PF_SLOT_PARTITIONS) {
        uint32_t old = pf_entry_of(table, entries, m->partition);
        if (old == PF_SLOT_PARTITIONS) return;
        entry = kept->entries++;
        kept->partitions[entry] = (pf_slot_partition){m->partition, 0, m->offset, table[old].next_offset};
    }
    kept->partitions[entry].messages++;
    if (m->offset < kept->partitions[entry].first_offset) kept->partitions[entry].first_offset = m->offset;
}

/* The slot's batch is what was kept, as if it had been published so, in its first round and with notes for the next. */
static void pf_become(const pf_arena *arena, pf_slot *slot, const pf_kept *kept) {
    uint64_t now = pf_now_ns();
    memcpy((uint8_t *)slot + arena->raw_at, kept->raw, kept->used);
    memcpy(pf_slot_origins(arena, slot), kept->origins, kept->rows * sizeof *kept->origins);
    slot->messages = slot->rows = kept->rows;
    slot->raw_bytes = (uint32_t)kept->used;
    slot->payload_bytes = kept->payload_bytes;
    slot->refused = 0;
    slot->decoded = PF_UNDECODED;
    slot->gathered = 1;
    slot->round = PF_GATHERED_ROUND - 1;
    slot->waits_from = PF_GATHERED_ROUND;
    slot->first_due_ns = slot->due_ns;
    slot->wait_ns = slot->due_ns > now ? slot->due_ns - now : 0;
}

/* Have the slot hold nothing but its rows that wait.  The other messages stand behind them in the table of messages, `done`
 * of them from `first_done` on, for whoever is to be told of them.  Returns how many rows wait, or PF_LEFT_WHOLE. */
static uint32_t pf_thin(pf_arena *arena, uint32_t slot_index, uint32_t *first_done, uint32_t *done) {
    pf_slot *slot = pf_slot_at(arena, slot_index);
    pf_message *messages = pf_slot_messages(arena, slot);
    pf_slot_partition *table = pf_slot_partitions(arena, slot);
    const pf_refused *refusals = pf_slot_refusals(arena, slot);
    const uint32_t *words = pf_slot_retries(arena, slot);
    uint32_t n = pf_slot_length(arena, slot), refused = slot->refused, entries = pf_slot_partition_count(slot);
    pf_kept kept = {.messages = (pf_message *)((uint8_t *)slot + arena->good_at)};
    uint32_t waiting = pf_count_waiting(arena, slot, &kept.room);
    if (waiting == PF_LEFT_WHOLE) return waiting;
    if (kept.room > arena->raw_bytes) kept.room = arena->raw_bytes;
    kept.origins = malloc(waiting * sizeof *kept.origins + kept.room);
    if (kept.origins == NULL) return PF_LEFT_WHOLE;
    kept.raw = (uint8_t *)(kept.origins + waiting);
    pf_gather_step(arena);
    uint32_t row = 0, why = 0, behind = waiting;
    for (uint32_t i = 0; i < n; i++) {
        int is_row = !(why < refused && refusals[why].message == i);
        if (!is_row) why++;
        uint32_t word = is_row ? words[row] : 0;
        if (is_row && kept.rows < waiting && pf_row_waits(slot, word)) {
            pf_keep_row(arena, slot, &kept, messages[i], word, slot->gathered ? pf_slot_origins(arena, slot)[row] : slot->batch);
            pf_keep_position(&kept, table, entries, &kept.messages[kept.rows - 1]);
        } else if (behind < n) {
            kept.messages[behind++] = messages[i];
        }
        row += is_row;
    }
    memcpy(messages, kept.messages, n * sizeof *messages);
    memcpy(table, kept.partitions, kept.entries * sizeof *table);
    pf_become(arena, slot, &kept);
    free(kept.origins);
    if (kept.entries) pf_store(&slot->n_partitions, kept.entries);
    pf_gather_step(arena);
    *first_done = waiting;
    *done = n - waiting;
    return kept.rows;
}

/* Whether the rows of one thinned batch have room beside those of another. */
static int pf_has_room_for(pf_arena *arena, pf_slot *slot, pf_slot *more) {
    if ((uint64_t)slot->messages + more->messages > arena->slot_capacity) return 0;
    if ((uint64_t)slot->raw_bytes + more->raw_bytes > arena->raw_bytes) return 0;
    uint32_t n = pf_slot_partition_count(slot), both = n;
    const pf_slot_partition *table = pf_slot_partitions(arena, slot), *other = pf_slot_partitions(arena, more);
    for (uint32_t i = 0; i < pf_slot_partition_count(more); i++) both += pf_entry_of(table, n, other[i].partition) >= n;
    return both <= PF_SLOT_PARTITIONS;
}

static uint64_t pf_apart_ns(const pf_slot *a, const pf_slot *b) {
    return a->due_ns > b->due_ns ? a->due_ns - b->due_ns : b->due_ns - a->due_ns;
}

/* Whether the rows of a thinned batch may be put behind those of this one, which waits. */
static int pf_may_take_in(pf_arena *arena, pf_slot *slot, pf_slot *more) {
    if (pf_load(&slot->state) != PF_SLOT_WAITING || slot == more) return 0;
    return slot->gathered && !slot->hurried && pf_has_room_for(arena, slot, more);
}

/* By which part of its wait a row may be late for that it waits with others. */
static uint64_t pf_lateness_part(pf_arena *arena) {
    uint32_t free_slots = 0;
    for (uint32_t i = 0; i < arena->n_slots; i++) free_slots += pf_load(&pf_slot_at(arena, i)->state) == PF_SLOT_FREE;
    return free_slots < arena->n_slots / PF_GATHER_FREE ? 1 : PF_GATHER_PART;
}

/* Whether the rows of two batches may be handled at the later of their times.  What counts is by how much the first of them
 * is late then, however often others have joined it: else those that keep coming would put it off for ever. */
static int pf_may_share_a_time(const pf_slot *a, const pf_slot *b, uint64_t part) {
    uint64_t due = a->due_ns > b->due_ns ? a->due_ns : b->due_ns;
    uint64_t first = a->first_due_ns < b->first_due_ns ? a->first_due_ns : b->first_due_ns;
    uint64_t wait_ns = a->wait_ns < b->wait_ns ? a->wait_ns : b->wait_ns;
    return due - first <= wait_ns / part;
}

/* Lanes are ordered: the batch of the same process that comes before it and is not done; rows keep the order of their
 * batches, so they wait with no other.  `done`: 1 for each slot that came back and only waits for deliveries. */
static uint32_t pf_batch_before(pf_arena *arena, const pf_slot *slot, const uint8_t *done) {
    uint32_t last = PF_NO_SLOT;
    for (uint32_t i = 0; i < arena->n_slots; i++) {
        pf_slot *other = pf_slot_at(arena, i);
        uint32_t state = pf_load(&other->state);
        if (state == PF_SLOT_FREE || (state == PF_SLOT_FILLING && other->waits_from == 0) || done[i]) continue;
        if (other->worker != slot->worker || other->batch >= slot->batch) continue;
        if (last == PF_NO_SLOT || other->batch > pf_slot_at(arena, last)->batch) last = i;
    }
    return last;
}

/* Rows have no order: of the batches that wait, the one that is due at nearly the same time. */
static uint32_t pf_batch_beside(pf_arena *arena, pf_slot *slot, uint64_t part) {
    uint32_t nearest = PF_NO_SLOT;
    for (uint32_t i = 0; i < arena->n_slots; i++) {
        if (!pf_may_take_in(arena, pf_slot_at(arena, i), slot) || !pf_may_share_a_time(pf_slot_at(arena, i), slot, part)) continue;
        if (nearest == PF_NO_SLOT || pf_apart_ns(pf_slot_at(arena, i), slot) < pf_apart_ns(pf_slot_at(arena, nearest), slot))
            nearest = i;
    }
    return nearest;
}

/* Out of the intake's reach; 0: it was quicker. */
static inline int pf_reopen(pf_arena *arena, uint32_t slot_index) {
    pf_slot *slot = pf_slot_at(arena, slot_index);
    if (!pf_exchange_if(&slot->state, PF_SLOT_WAITING, PF_SLOT_PARKED)) return 0; /* transition: reopen WAITING -> PARKED */
    pf_add(&arena->n_waiting, (uint32_t)-1);
    return 1;
}

/* The rows of `from` behind those of `slot`, which has room for them; they are due at the later of their times. */
static void pf_append_rows(pf_arena *arena, pf_slot *slot, pf_slot *from) {
    pf_message *messages = pf_slot_messages(arena, slot);
    const pf_message *more = pf_slot_messages(arena, from);
    pf_slot_partition *table = pf_slot_partitions(arena, slot);
    const pf_slot_partition *other = pf_slot_partitions(arena, from);
    uint32_t *words = pf_slot_retries(arena, slot);
    const uint32_t *their_words = pf_slot_retries(arena, from);
    uint32_t n = pf_slot_length(arena, slot), count = pf_slot_length(arena, from), entries = pf_slot_partition_count(slot);
    uint64_t base = slot->raw_bytes, bytes = from->raw_bytes;
    if (base > arena->raw_bytes) base = arena->raw_bytes; /* the checks before count for what was there then */
    if (bytes > arena->raw_bytes - base) bytes = arena->raw_bytes - base;
    if (count > arena->slot_capacity - n) count = arena->slot_capacity - n;
    memcpy((uint8_t *)slot + arena->raw_at + base, (uint8_t *)from + arena->raw_at, bytes);
    for (uint32_t i = 0; i < count; i++) {
        pf_message m = more[i];
        if (m.payload_at < arena->raw_bytes) m.payload_at += (uint32_t)base; /* else decoding is to refuse it */
        m.key_at += (uint32_t)base;
        m.headers_at += (uint32_t)base;
        messages[n + i] = m;
        words[n + i] = slot->waits_from << PF_RETRY_ROUND_SHIFT | (their_words[i] & PF_RETRY_GIVEN_MASK);
        pf_slot_origins(arena, slot)[n + i] = pf_slot_origins(arena, from)[i];
    }
    for (uint32_t i = 0; i < pf_slot_partition_count(from); i++) {
        uint32_t entry = pf_entry_of(table, entries, other[i].partition);
        if (entry == PF_SLOT_PARTITIONS) {
            if (entries < PF_SLOT_PARTITIONS) table[entries++] = other[i];
            continue;
        }
        table[entry].messages += other[i].messages;
        if (other[i].first_offset < table[entry].first_offset) table[entry].first_offset = other[i].first_offset;
        if (other[i].next_offset > table[entry].next_offset) table[entry].next_offset = other[i].next_offset;
    }
    slot->messages = slot->rows = n + count;
    slot->raw_bytes = (uint32_t)(base + bytes);
    slot->payload_bytes += from->payload_bytes;
    if (from->due_ns > slot->due_ns) slot->due_ns = from->due_ns;
    if (from->first_due_ns < slot->first_due_ns) slot->first_due_ns = from->first_due_ns;
    if (from->later_rows && (slot->later_rows == 0 || from->later_rows < slot->later_rows)) slot->later_rows = from->later_rows;
    if (from->wait_ns < slot->wait_ns) slot->wait_ns = from->wait_ns;
    if (from->opened_ns < slot->opened_ns) pf_store64(&slot->opened_ns, from->opened_ns);
    pf_store(&slot->n_partitions, entries);
}

/* Have the rows of a thinned batch wait with those of another one, whose slot is returned, PARKED; theirs is free then, as
 * the intake is told when the other one goes on waiting (pf_wait_until_due).  PF_NO_SLOT: there is none that they may
 * wait with.  `done`: see pf_batch_before.  Never with transactions: the epoch of one of the two would be forgotten. */
static uint32_t pf_merge(pf_arena *arena, uint32_t slot_index, int ordered, const uint8_t *done) {
    pf_slot *slot = pf_slot_at(arena, slot_index);
    if (!slot->gathered || slot->hurried) return PF_NO_SLOT;
    uint64_t part = pf_lateness_part(arena);
    uint32_t with = ordered ? pf_batch_before(arena, slot, done) : pf_batch_beside(arena, slot, part);
    if (with == PF_NO_SLOT || !pf_may_take_in(arena, pf_slot_at(arena, with), slot)) return PF_NO_SLOT;
    if (!pf_may_share_a_time(pf_slot_at(arena, with), slot, part) || !pf_reopen(arena, with)) return PF_NO_SLOT;
    pf_gather_step(arena);
    pf_append_rows(arena, pf_slot_at(arena, with), slot);
    pf_store(&slot->state, PF_SLOT_FREE); /* transition: merge PARKED -> FREE */
    pf_gather_step(arena);
    return with;
}

#endif
