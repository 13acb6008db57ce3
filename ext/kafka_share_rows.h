/* The rows of a share group that this process knows: those in hand, and those that are done while the broker has not
 * said so.  An open-addressed table by partition and offset; whoever uses it holds the source's mutex.
 *
 *     in hand ──settled──▶ done ──the broker has the acknowledgement──▶ gone
 *        │  ▲                │
 *   lock expired, or         └──it does not take it: kept for a while, without a hand
 *   another hand has it
 *
 * A row whose lock is lost is delivered again, to whoever asks.  Where that is this process, the row is known: it is not
 * handled twice, but acknowledged under its new lock, once it is done.  Timestamp and size tell a row from one that has
 * its offset in a topic that was made anew. */
#ifndef PYTHIA_KAFKA_SHARE_ROWS_H
#define PYTHIA_KAFKA_SHARE_ROWS_H

#include <stdint.h>
#include <stdlib.h>

#define PF_SHARE_NO_HAND (-1)

typedef struct {
    int64_t offset;
    int64_t timestamp_ms;
    int64_t done_ns; /* 0: it is being handled */
    uint32_t partition; /* index */
    uint32_t size;
    int32_t hand; /* of the member that has its lock */
    uint32_t used;
} pf_share_row;

typedef struct {
    pf_share_row *rows;
    uint32_t capacity; /* a power of two, or 0 */
    uint32_t count;
} pf_share_rows;

static inline uint32_t pf_share_home(const pf_share_rows *self, uint32_t partition, int64_t offset)
{
    uint64_t mixed = ((uint64_t)offset + ((uint64_t)partition << 40)) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(mixed >> 32) & (self->capacity - 1);
}

/* NULL: it is not known. */
static inline pf_share_row *pf_share_find(const pf_share_rows *self, uint32_t partition, int64_t offset)
{
    if (self->capacity == 0)
        return NULL;
    for (uint32_t at = pf_share_home(self, partition, offset);; at = (at + 1) & (self->capacity - 1)) {
        pf_share_row *row = &self->rows[at];
        if (!row->used)
            return NULL;
        if (row->offset == offset && row->partition == partition)
            return row;
    }
}

static inline void pf_share_put(pf_share_rows *self, const pf_share_row *row)
{
    uint32_t at = pf_share_home(self, row->partition, row->offset);
    while (self->rows[at].used)
        at = (at + 1) & (self->capacity - 1);
    self->rows[at] = *row;
}

/* A row that is not known yet; -1: there is no memory for it. */
static inline int pf_share_add(pf_share_rows *self, const pf_share_row *row)
{
    if (2 * (self->count + 1) > self->capacity) {
        pf_share_rows grown = {.capacity = self->capacity == 0 ? 1024 : 2 * self->capacity, .count = self->count};
        grown.rows = calloc(grown.capacity, sizeof *grown.rows);
        if (grown.rows == NULL)
            return -1;
        for (uint32_t i = 0; i < self->capacity; i++)
            if (self->rows[i].used)
                pf_share_put(&grown, &self->rows[i]);
        free(self->rows);
        *self = grown;
    }
    pf_share_put(self, row);
    self->count++;
    return 0;
}

/* Those behind it move up, so that none is cut off from its home. */
static inline void pf_share_remove(pf_share_rows *self, pf_share_row *row)
{
    uint32_t mask = self->capacity - 1, gap = (uint32_t)(row - self->rows);
    for (uint32_t at = (gap + 1) & mask; self->rows[at].used; at = (at + 1) & mask) {
        uint32_t home = pf_share_home(self, self->rows[at].partition, self->rows[at].offset);
        if (((at - home) & mask) >= ((at - gap) & mask)) {
            self->rows[gap] = self->rows[at];
            gap = at;
        }
    }
    self->rows[gap].used = 0;
    self->count--;
}

#endif
