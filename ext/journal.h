/* The journal of a batch that has killed a holder: what of it is done, and which rows were in hand.
 *
 * There are two records in a slot, and `journal_at` says which one counts.  A change is written to the other one
 * whole, and then the word is turned over: so whatever instruction a process dies at, one record is right, and
 * the records and notes that it counts are complete, because they are written first, behind what counted before
 * (output region) or into the half that does not count (error region).
 *
 * The holder writes it; while that waits for its output region (pf_resume), or after its death, when the kernel has
 * said so (pf_return), the completion thread does. */
#ifndef PYTHIA_JOURNAL_H
#define PYTHIA_JOURNAL_H

#include "arena_layout.h"
#include "atomics.h"

static inline const pf_progress *pf_progress_of(const pf_slot *slot) {
    return &slot->journal[pf_load(&slot->journal_at) & 1];
}

static inline void pf_progress_write(pf_slot *slot, pf_progress progress) {
    uint32_t other = ~pf_load(&slot->journal_at) & 1;
    slot->journal[other] = progress;
    pf_store(&slot->journal_at, other);
}

/* begin: the rows from rows_done to `end` go into the handler's hands.  Those that a holder has died on before keep
 * its count.  `in_hand`: at most so many of them really do, as in a probe of a few rows; 0: all. */
static inline void pf_progress_begin(pf_slot *slot, uint32_t end, uint32_t deaths_before, uint32_t in_hand) {
    pf_progress progress = *pf_progress_of(slot);
    if (progress.suspect_end != end) progress.deaths = 0;
    progress.suspect_end = end;
    progress.deaths_before = deaths_before;
    progress.in_hand = in_hand;
    pf_progress_write(slot, progress);
}

/* The rows in hand are cut into so many parts (PARTS in pool/parts.py). */
#define PF_SEARCH_PARTS 64u

/* narrow: should the round end before the row that kills is found, the next one goes on with parts as small as those
 * that the rows in hand are cut into.  With all rows in one call it would begin the search anew, with a death each time. */
static inline void pf_progress_narrow(pf_slot *slot, uint32_t in_hand) {
    uint32_t rows = in_hand / PF_SEARCH_PARTS ? in_hand / PF_SEARCH_PARTS : 1;
    if (slot->later_rows == 0 || rows < slot->later_rows) slot->later_rows = rows;
}

/* bury: the holder is dead.  The first one of the first round had all rows in its hands and kept no journal. */
static inline void pf_progress_bury(pf_slot *slot) {
    pf_progress progress = *pf_progress_of(slot);
    if (slot->crashes == 1 && slot->round == 1 && slot->decoded != PF_UNDECODED) progress.suspect_end = slot->rows;
    if (progress.suspect_end == 0) return;
    progress.deaths++;
    uint32_t in_hand = progress.in_hand ? progress.in_hand : progress.suspect_end - progress.rows_done;
    if (in_hand) pf_progress_narrow(slot, in_hand);
    pf_progress_write(slot, progress);
}

/* forget_output: the records that the output region held were sent on, and are durable: whoever goes on begins with
 * an empty region.  Called while no process holds the slot, or while its holder waits for the region. */
static inline void pf_progress_forget_output(pf_slot *slot) {
    pf_progress progress = *pf_progress_of(slot);
    if (progress.output_bytes == 0 && progress.output_records == 0) return;
    progress.output_bytes = 0;
    progress.output_records = 0;
    pf_progress_write(slot, progress);
}

#endif
