/* Reading MessagePack: one payload from its begin to its end, the heads of values, stepping over values, and refusals
 * (https://github.com/msgpack/msgpack/blob/master/spec.md).
 */
#ifndef PYTHIA_MSGPACK_READER_H
#define PYTHIA_MSGPACK_READER_H

#include "field_store.h"
#include "msgpack_keys.h"

enum {
    PF_MSGPACK_DEPTH = 1024, /* containers inside one another, in what is skipped */
};

/* One payload being read. */
typedef struct {
    const pf_plan *plan;
    pf_msgpack_keys *keys;
    const uint8_t *actions;
    pf_columns *batch;
    const uint8_t *begin;
    const uint8_t *at;
    const uint8_t *end;
    pf_refusal *why;
} pf_msgpack_reader;

static inline int pf_msgpack_refuse(pf_msgpack_reader *reader, const uint8_t *where, uint8_t reason, int32_t column, uint8_t found) {
    *reader->why = (pf_refusal){.reason = reason, .found = found, .column = column, .at = (uint64_t)(where - reader->begin)};
    return PF_REFUSED;
}

/* Turn the answer of a pf_store_... function into that of a decoder. */
static inline int pf_msgpack_stored(pf_msgpack_reader *reader, const uint8_t *where, int stored, uint32_t column, uint8_t found) {
    if (stored == PF_STORED) return PF_DECODED;
    if (stored == PF_NO_ROOM) return PF_FULL;
    return pf_msgpack_refuse(reader, where, (uint8_t)stored, (int32_t)column, found);
}

static inline uint64_t pf_msgpack_left(const pf_msgpack_reader *reader) { return (uint64_t)(reader->end - reader->at); }

static inline uint64_t pf_load_be(const uint8_t *at, int size) {
    switch (size) {
    case 1: return at[0];
    case 2: { uint16_t value; memcpy(&value, at, 2); return __builtin_bswap16(value); }
    case 4: { uint32_t value; memcpy(&value, at, 4); return __builtin_bswap32(value); }
    default: { uint64_t value; memcpy(&value, at, 8); return __builtin_bswap64(value); }
    }
}

/* Read a big-endian number of `size` bytes; 0 when the payload ends before. */
static inline int pf_msgpack_take(pf_msgpack_reader *reader, int size, uint64_t *value) {
    if (pf_msgpack_left(reader) < (uint64_t)size) return 0;
    *value = pf_load_be(reader->at, size);
    reader->at += size;
    return 1;
}

static uint8_t pf_msgpack_found(uint8_t op) {
    if (op <= 0x7F || op >= 0xE0) return PF_FOUND_INT;
    if (op <= 0x8F) return PF_FOUND_OBJECT;
    if (op <= 0x9F) return PF_FOUND_ARRAY;
    if (op <= 0xBF) return PF_FOUND_STR;
    switch (op) {
    case 0xC0: return PF_FOUND_NULL;
    case 0xC2: case 0xC3: return PF_FOUND_BOOL;
    case 0xC4: case 0xC5: case 0xC6: return PF_FOUND_BYTES;
    case 0xCA: case 0xCB: return PF_FOUND_FLOAT;
    case 0xD9: case 0xDA: case 0xDB: return PF_FOUND_STR;
    case 0xDC: case 0xDD: return PF_FOUND_ARRAY;
    case 0xDE: case 0xDF: return PF_FOUND_OBJECT;
    case 0xC7: case 0xC8: case 0xC9: case 0xD4: case 0xD5: case 0xD6: case 0xD7: case 0xD8: return PF_FOUND_EXT;
    default: return op >= 0xCC && op <= 0xD3 ? PF_FOUND_INT : PF_FOUND_NONE;
    }
}

/* Refuse the value that begins at `where`: another type than its column takes, or no MessagePack at all. */
static int pf_msgpack_wrong_type(pf_msgpack_reader *reader, const uint8_t *where, int32_t column) {
    uint8_t found = pf_msgpack_found(*where);
    if (found == PF_FOUND_NONE) return pf_msgpack_refuse(reader, where, PF_REASON_SYNTAX, column, found);
    return pf_msgpack_refuse(reader, where, PF_REASON_TYPE, column, found);
}

static inline int pf_msgpack_truncated(pf_msgpack_reader *reader, int32_t column) {
    return pf_msgpack_refuse(reader, reader->end, PF_REASON_TRUNCATED, column, PF_FOUND_NONE);
}

/* ---- heads ----------------------------------------------------------------------------------
 * Each reads what follows the type byte `op` and sets a length or count.  They return 1, 0 when the
 * payload ends first, -1 when `op` is of another family. */

static inline int pf_msgpack_str_head(pf_msgpack_reader *reader, uint8_t op, uint64_t *size) {
    if ((op & 0xE0) == 0xA0) {
        *size = op & 0x1F;
    } else if (op >= 0xD9 && op <= 0xDB) {
        if (!pf_msgpack_take(reader, 1 << (op - 0xD9), size)) return 0;
    } else {
        return -1;
    }
    return *size <= pf_msgpack_left(reader);
}

static inline int pf_msgpack_bin_head(pf_msgpack_reader *reader, uint8_t op, uint64_t *size) {
    if (op < 0xC4 || op > 0xC6) return -1;
    return pf_msgpack_take(reader, 1 << (op - 0xC4), size) && *size <= pf_msgpack_left(reader);
}

/* Also reads the type byte of the extension. */
static inline int pf_msgpack_ext_head(pf_msgpack_reader *reader, uint8_t op, uint64_t *size, int8_t *type) {
    uint64_t code;
    if (op >= 0xD4 && op <= 0xD8) {
        *size = 1ull << (op - 0xD4);
    } else if (op >= 0xC7 && op <= 0xC9) {
        if (!pf_msgpack_take(reader, 1 << (op - 0xC7), size)) return 0;
    } else {
        return -1;
    }
    if (!pf_msgpack_take(reader, 1, &code)) return 0;
    *type = (int8_t)code;
    return *size <= pf_msgpack_left(reader);
}

/* Every value of a container takes a byte at least, so a count beyond what is left means truncation. */
static inline int pf_msgpack_array_head(pf_msgpack_reader *reader, uint8_t op, uint64_t *count) {
    if ((op & 0xF0) == 0x90) {
        *count = op & 0x0F;
    } else if (op == 0xDC || op == 0xDD) {
        if (!pf_msgpack_take(reader, op == 0xDC ? 2 : 4, count)) return 0;
    } else {
        return -1;
    }
    return *count <= pf_msgpack_left(reader);
}

static inline int pf_msgpack_map_head(pf_msgpack_reader *reader, uint8_t op, uint64_t *count) {
    if ((op & 0xF0) == 0x80) {
        *count = op & 0x0F;
    } else if (op == 0xDE || op == 0xDF) {
        if (!pf_msgpack_take(reader, op == 0xDE ? 2 : 4, count)) return 0;
    } else {
        return -1;
    }
    return 2 * *count <= pf_msgpack_left(reader);
}

/* ---- skipping ------------------------------------------------------------------------------ */

/* Bytes of the value that begins with `op`, where `op` alone tells; 0 where it does not. */
static inline uint64_t pf_msgpack_plain_size(uint8_t op) {
    if (op <= 0x7F || op >= 0xE0) return 1;
    if (op >= 0xA0 && op <= 0xBF) return 1u + (op & 0x1F);
    if (op >= 0xCA && op <= 0xD3) return op < 0xCC ? (op == 0xCA ? 5 : 9) : 1u + (1u << ((op - 0xCC) & 3));
    return op == 0xC0 || op == 0xC2 || op == 0xC3;
}

/* Step over one value with everything in it, that is no plain one. */
static int pf_msgpack_skip_deep(pf_msgpack_reader *reader, int32_t column) {
    uint64_t pending[PF_MSGPACK_DEPTH]; /* values still to come in each open container */
    int depth = 0;
    pending[0] = 1;
    for (;;) {
        while (pending[depth] == 0) {
            if (depth == 0) return PF_DECODED;
            depth--;
        }
        pending[depth]--;
        if (reader->at == reader->end) return pf_msgpack_truncated(reader, column);
        const uint8_t *where = reader->at;
        uint8_t op = *reader->at++;
        uint64_t size = 0, count = 0, number;
        int8_t type;
        int known = 1;
        switch (pf_msgpack_found(op)) {
        case PF_FOUND_NULL: case PF_FOUND_BOOL: break;
        case PF_FOUND_INT:
            if (op >= 0xCC && op <= 0xD3) known = pf_msgpack_take(reader, 1 << ((op - 0xCC) & 3), &number);
            break;
        case PF_FOUND_FLOAT: known = pf_msgpack_take(reader, op == 0xCA ? 4 : 8, &number); break;
        case PF_FOUND_STR: known = pf_msgpack_str_head(reader, op, &size); break;
        case PF_FOUND_BYTES: known = pf_msgpack_bin_head(reader, op, &size); break;
        case PF_FOUND_EXT: known = pf_msgpack_ext_head(reader, op, &size, &type); break;
        case PF_FOUND_ARRAY: known = pf_msgpack_array_head(reader, op, &count); break;
        case PF_FOUND_OBJECT:
            known = pf_msgpack_map_head(reader, op, &count);
            count *= 2;
            break;
        default: return pf_msgpack_refuse(reader, where, PF_REASON_SYNTAX, column, PF_FOUND_NONE);
        }
        if (!known) return pf_msgpack_truncated(reader, column);
        reader->at += size;
        if (count) {
            if (++depth == PF_MSGPACK_DEPTH) return pf_msgpack_refuse(reader, where, PF_REASON_DEPTH, column, PF_FOUND_NONE);
            pending[depth] = count;
        }
    }
}

static inline int pf_msgpack_skip(pf_msgpack_reader *reader, int32_t column) {
    if (reader->at != reader->end) {
        uint64_t size = pf_msgpack_plain_size(*reader->at);
        if (size && size <= pf_msgpack_left(reader)) {
            reader->at += size;
            return PF_DECODED;
        }
    }
    return pf_msgpack_skip_deep(reader, column);
}

#endif
