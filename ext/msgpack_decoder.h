/* The MessagePack decoder: one payload, one map, one row (https://github.com/msgpack/msgpack/blob/master/spec.md).
 *
 * It takes what msgspec.msgpack.decode(payload, type=Struct) takes, and refuses what that refuses, with two
 * exceptions that columns ask for: an integer outside its column's type, and a datetime whose instant in
 * UTC lies outside the years 1 to 9999, are refused.  As there: an int is taken for a float, a timestamp extension or
 * an RFC 3339 string for a datetime; bytes are never taken for a str, nor the other way round; of a key
 * that comes twice the last value counts; what belongs to no field is skipped, checked for its structure
 * but not for its UTF-8.
 *
 * Keys are found by expectation: after key f of a Struct the key is tried that followed f in the message
 * before, and only then the hash table is asked.  Unknown keys take part in this: the first
 * PF_MSGPACK_POOL short ones are learned by name.
 */
#ifndef PYTHIA_MSGPACK_DECODER_H
#define PYTHIA_MSGPACK_DECODER_H

#include <stdlib.h>

#include "field_store.h"
#include "rfc3339.h"

enum {
    PF_MSGPACK_DEPTH = 1024,     /* containers inside one another, in what is skipped */
    PF_MSGPACK_MAX_FIELDS = 1024,
    PF_MSGPACK_POOL = 64,        /* unknown keys of at most 16 bytes that one Struct remembers */
    PF_MSGPACK_NO_KEY = 0xFFFF,
};

/* How a column's value is read: by its kind, or by a shorter way where nothing but the type is to be checked. */
enum {
    PF_MSGPACK_BY_KIND = 0,
    PF_MSGPACK_INT64 = 1,
    PF_MSGPACK_FLOAT64 = 2,
    PF_MSGPACK_STRING = 3,
};

/* A key's size and its first and last eight bytes (for a shorter one the bytes it has, then zeros): with these
 * most keys are told apart without a call. */
typedef struct {
    uint64_t head;
    uint64_t tail;
    uint64_t size;
} pf_msgpack_name;

/* A key of at most 15 bytes as it stands in a payload, length and all, so that the expected one is recognised in
 * one comparison.  A mask of 0 and a size of 0: too long. */
typedef struct {
    uint64_t words[2];
    uint64_t masks[2];
    uint64_t size;
} pf_msgpack_literal;

/* One Struct's keys: its fields in their order, then the unknown ones learned so far. */
typedef struct {
    pf_msgpack_name *names; /* n_fields + PF_MSGPACK_POOL */
    pf_msgpack_literal *literals; /* as many */
    uint16_t *next;      /* n_fields + PF_MSGPACK_POOL + 1: the key that came after key k last; the last entry: first of all */
    uint16_t *table;     /* hash -> key, PF_MSGPACK_NO_KEY where free; linear probing, at most half full */
    uint32_t table_mask;
    uint32_t n_names;    /* fields and learned keys */
} pf_msgpack_keys;

typedef struct {
    pf_decoder decoder; /* first: a pf_decoder * is a pf_msgpack_decoder * */
    const pf_plan *plan;
    pf_msgpack_keys *keys; /* plan->n_structs */
    uint8_t *actions;      /* plan->n_columns: PF_MSGPACK_... */
} pf_msgpack_decoder;

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

/* ---- one value into its column ------------------------------------------------------------- */

static int pf_msgpack_struct(pf_msgpack_reader *reader, uint32_t index, int32_t column, uint64_t i);

static inline int pf_msgpack_number(pf_msgpack_reader *reader, uint32_t column, uint64_t i) {
    const uint8_t *where = reader->at;
    uint8_t op = *reader->at++;
    uint64_t bits;
    int stored;
    if (op <= 0x7F || op >= 0xE0) {
        stored = pf_store_int(reader->plan, reader->batch, column, i, (int8_t)op);
    } else if (op >= 0xCC && op <= 0xCF) {
        if (!pf_msgpack_take(reader, 1 << (op - 0xCC), &bits)) return pf_msgpack_truncated(reader, (int32_t)column);
        stored = pf_store_uint(reader->plan, reader->batch, column, i, bits);
    } else if (op >= 0xD0 && op <= 0xD3) {
        int size = 1 << (op - 0xD0);
        if (!pf_msgpack_take(reader, size, &bits)) return pf_msgpack_truncated(reader, (int32_t)column);
        int64_t value = op == 0xD0 ? (int8_t)bits : op == 0xD1 ? (int16_t)bits : op == 0xD2 ? (int32_t)bits : (int64_t)bits;
        stored = pf_store_int(reader->plan, reader->batch, column, i, value);
    } else if (op == 0xCA || op == 0xCB) {
        uint8_t kind = reader->batch->columns[column].kind;
        if (kind != PF_FLOAT64 && kind != PF_FLOAT32) return pf_msgpack_wrong_type(reader, where, (int32_t)column);
        if (!pf_msgpack_take(reader, op == 0xCA ? 4 : 8, &bits)) return pf_msgpack_truncated(reader, (int32_t)column);
        double value;
        if (op == 0xCA) {
            uint32_t narrow_bits = (uint32_t)bits;
            float narrow;
            memcpy(&narrow, &narrow_bits, 4);
            value = narrow;
        } else {
            memcpy(&value, &bits, 8);
        }
        stored = pf_store_float(reader->plan, reader->batch, column, i, value);
    } else {
        return pf_msgpack_wrong_type(reader, where, (int32_t)column);
    }
    return pf_msgpack_stored(reader, where, stored, column, PF_FOUND_NONE);
}

static inline int pf_msgpack_text(pf_msgpack_reader *reader, uint32_t column, uint64_t i, int is_str) {
    const uint8_t *where = reader->at;
    uint8_t op = *reader->at++;
    uint64_t size;
    int known = is_str ? pf_msgpack_str_head(reader, op, &size) : pf_msgpack_bin_head(reader, op, &size);
    if (known < 0) return pf_msgpack_wrong_type(reader, where, (int32_t)column);
    if (!known) return pf_msgpack_truncated(reader, (int32_t)column);
    const uint8_t *text = reader->at;
    if (is_str) {
        size_t valid = pf_utf8_valid_prefix(text, size);
        if (valid != size) return pf_msgpack_refuse(reader, text + valid, PF_REASON_UTF8, (int32_t)column, PF_FOUND_STR);
    }
    reader->at += size;
    return pf_msgpack_stored(reader, where, pf_store_text(reader->plan, reader->batch, column, i, text, size), column, PF_FOUND_NONE);
}

/* Microseconds of a timestamp extension's `size` bytes; nanoseconds are rounded half up, as msgspec does. */
static int pf_msgpack_timestamp(const uint8_t *at, uint64_t size, int64_t *micros) {
    int64_t seconds;
    uint64_t nanoseconds = 0;
    if (size == 4) {
        seconds = (int64_t)pf_load_be(at, 4);
    } else if (size == 8) {
        uint64_t both = pf_load_be(at, 8);
        seconds = (int64_t)(both & 0x3FFFFFFFFull);
        nanoseconds = both >> 34;
    } else if (size == 12) {
        nanoseconds = pf_load_be(at, 4);
        seconds = (int64_t)pf_load_be(at + 4, 8);
    } else {
        return 0;
    }
    if (nanoseconds > 999999999 || seconds < PF_DATETIME_MIN_US / 1000000 || seconds > PF_DATETIME_MAX_US / 1000000) return 0;
    *micros = seconds * 1000000 + (int64_t)((nanoseconds + 500) / 1000);
    return *micros <= PF_DATETIME_MAX_US;
}

static int pf_msgpack_datetime_value(pf_msgpack_reader *reader, uint32_t column, uint64_t i) {
    const uint8_t *where = reader->at;
    uint8_t op = *reader->at++;
    uint64_t size;
    int64_t micros = 0;
    int8_t type = -1;
    int aware = 1, good;
    int known = pf_msgpack_ext_head(reader, op, &size, &type);
    if (known > 0) {
        if (type != -1) return pf_msgpack_wrong_type(reader, where, (int32_t)column);
        good = pf_msgpack_timestamp(reader->at, size, &micros);
    } else if (known < 0 && (known = pf_msgpack_str_head(reader, op, &size)) > 0) {
        good = pf_rfc3339_parse(reader->at, size, &micros, &aware);
    } else if (known < 0) {
        return pf_msgpack_wrong_type(reader, where, (int32_t)column);
    } else {
        return pf_msgpack_truncated(reader, (int32_t)column);
    }
    if (!good) return pf_msgpack_refuse(reader, where, PF_REASON_DATETIME, (int32_t)column, PF_FOUND_NONE);
    reader->at += size;
    return pf_msgpack_stored(reader, where, pf_store_datetime(reader->plan, reader->batch, column, i, micros, aware), column, PF_FOUND_NONE);
}

static int pf_msgpack_value(pf_msgpack_reader *reader, uint32_t column, uint64_t i);

static int pf_msgpack_list(pf_msgpack_reader *reader, uint32_t column, uint64_t i) {
    const uint8_t *where = reader->at;
    uint8_t op = *reader->at++;
    uint64_t count;
    int known = pf_msgpack_array_head(reader, op, &count);
    if (known < 0) return pf_msgpack_wrong_type(reader, where, (int32_t)column);
    if (!known) return pf_msgpack_truncated(reader, (int32_t)column);
    uint64_t k = pf_list_begin(reader->batch, column, i), end = k + count;
    for (; k < end; k++) {
        if (!pf_list_has_room(reader->batch, column, k)) return PF_FULL;
        int result = pf_msgpack_value(reader, column + 1, k);
        if (result != PF_DECODED) return result;
    }
    return pf_msgpack_stored(reader, where, pf_list_close(reader->plan, reader->batch, column, i, end), column, PF_FOUND_NONE);
}

/* The common forms of a value, for a column without bitmap and bounds; 0 leaves it to pf_msgpack_value. */
static inline int pf_msgpack_short_way(pf_msgpack_reader *reader, uint32_t column, uint64_t i) {
    const uint8_t *at = reader->at;
    uint64_t left = pf_msgpack_left(reader);
    void *data = pf_column_data(reader->batch, column);
    if (left < 9) return 0;
    uint8_t op = *at;
    switch (reader->actions[column]) {
    case PF_MSGPACK_INT64: {
        int64_t value;
        if (op <= 0x7F || op >= 0xE0) value = (int8_t)op;
        else if (op == 0xCC) value = at[1];
        else if (op == 0xCD) value = (int64_t)pf_load_be(at + 1, 2);
        else if (op == 0xCE) value = (int64_t)pf_load_be(at + 1, 4);
        else if (op == 0xCF && at[1] < 0x80) value = (int64_t)pf_load_be(at + 1, 8);
        else return 0;
        ((int64_t *)data)[i] = value;
        reader->at += pf_msgpack_plain_size(op);
        return 1;
    }
    case PF_MSGPACK_FLOAT64: {
        if (op != 0xCB) return 0;
        uint64_t bits = pf_load_be(at + 1, 8);
        memcpy((double *)data + i, &bits, 8);
        reader->at += 9;
        return 1;
    }
    case PF_MSGPACK_STRING: {
        uint64_t size = op & 0x1F, room;
        if ((op & 0xE0) != 0xA0 || size >= left) return 0;
        uint8_t *space = pf_text_space(reader->batch, column, i, &room);
        if (size < 8 && room >= 8) { /* whole words: what stands behind the value is overwritten or never read */
            uint64_t word;
            memcpy(&word, at + 1, 8);
            if (word & ((1ull << (8 * size)) - 1) & 0x8080808080808080ull) return 0;
            memcpy(space, &word, 8);
        } else {
            if (size > room || pf_utf8_valid_prefix(at + 1, size) != size) return 0;
            pf_copy(space, at + 1, size);
        }
        int32_t *offsets = pf_column_offsets(reader->batch, column);
        offsets[i + 1] = offsets[i] + (int32_t)size;
        reader->at += 1 + size;
        return 1;
    }
    default:
        return 0;
    }
}

static int pf_msgpack_value(pf_msgpack_reader *reader, uint32_t column, uint64_t i) {
    if (pf_msgpack_short_way(reader, column, i)) return PF_DECODED;
    const pf_column *node = &reader->batch->columns[column];
    if (reader->at == reader->end) return pf_msgpack_truncated(reader, (int32_t)column);
    uint8_t op = *reader->at;
    if (op == 0xC0 && node->nullable == PF_NULLABLE) {
        reader->at++;
        pf_store_null(reader->batch, column, i);
        return PF_DECODED;
    }
    switch (node->kind) {
    case PF_BOOL:
        if (op != 0xC2 && op != 0xC3) return pf_msgpack_wrong_type(reader, reader->at, (int32_t)column);
        reader->at++;
        pf_store_bool(reader->batch, column, i, op & 1);
        return PF_DECODED;
    case PF_DATETIME:
        return pf_msgpack_datetime_value(reader, column, i);
    case PF_STRING:
        return pf_msgpack_text(reader, column, i, 1);
    case PF_BYTES:
        return pf_msgpack_text(reader, column, i, 0);
    case PF_RAW: {
        const uint8_t *where = reader->at;
        int result = pf_msgpack_skip(reader, (int32_t)column);
        if (result != PF_DECODED) return result;
        uint64_t size = (uint64_t)(reader->at - where);
        return pf_msgpack_stored(reader, where, pf_store_text(reader->plan, reader->batch, column, i, where, size), column, PF_FOUND_NONE);
    }
    case PF_LIST:
        return pf_msgpack_list(reader, column, i);
    case PF_STRUCT: {
        int result = pf_msgpack_struct(reader, (uint32_t)reader->plan->struct_of[column], (int32_t)column, i);
        if (result == PF_DECODED) pf_mark_valid(reader->batch, column, i);
        return result;
    }
    default:
        return pf_msgpack_number(reader, column, i);
    }
}

/* ---- Structs ------------------------------------------------------------------------------- */

/* The name of `size` bytes; reads no byte at or behind `end`. */
static inline pf_msgpack_name pf_msgpack_name_of(const uint8_t *name, uint64_t size, const uint8_t *end) {
    pf_msgpack_name ends = {.size = size};
    if (size >= 8) {
        memcpy(&ends.head, name, 8);
        memcpy(&ends.tail, name + size - 8, 8);
    } else if (end - name >= 8) {
        memcpy(&ends.head, name, 8);
        ends.head &= (1ull << (8 * size)) - 1;
    } else {
        for (uint64_t i = 0; i < size; i++) ends.head |= (uint64_t)name[i] << (8 * i);
    }
    return ends;
}

static inline uint32_t pf_msgpack_hash(pf_msgpack_name name) {
    uint64_t mixed = (name.head ^ (name.tail << 23 | name.tail >> 41) ^ name.size) * 0x9E3779B97F4A7C15ull;
    return (uint32_t)(mixed >> 32);
}

static void pf_msgpack_set_literal(pf_msgpack_literal *literal, const uint8_t *text, uint64_t size) {
    uint8_t bytes[16] = {0}, mask[16] = {0};
    memset(literal, 0, sizeof *literal);
    if (size > 15) return;
    bytes[0] = (uint8_t)(0xA0 | size);
    memcpy(bytes + 1, text, size);
    memset(mask, 0xFF, size + 1);
    memcpy(literal->words, bytes, 16);
    memcpy(literal->masks, mask, 16);
    literal->size = size + 1;
}

/* Whether the 16 bytes at `at` begin with the literal. */
static inline int pf_msgpack_is_literal(const pf_msgpack_literal *literal, const uint8_t *at) {
    uint64_t words[2];
    memcpy(words, at, 16);
    return literal->size && ((words[0] ^ literal->words[0]) & literal->masks[0]) == 0 &&
           ((words[1] ^ literal->words[1]) & literal->masks[1]) == 0;
}

/* Whether a key is key `known`; `text` are its bytes. Up to 16 of them stand in the name whole. */
static inline int pf_msgpack_is_key(const pf_msgpack_keys *keys, const pf_struct *spec, uint32_t known,
                                    pf_msgpack_name name, const uint8_t *text) {
    const pf_msgpack_name *own = &keys->names[known];
    if (own->size != name.size || own->head != name.head || own->tail != name.tail) return 0;
    return name.size <= 16 || memcmp(spec->fields[known].name, text, name.size) == 0;
}

/* The key of that name, learned now if it can be; PF_MSGPACK_NO_KEY when it cannot. */
static uint32_t pf_msgpack_find(pf_msgpack_keys *keys, const pf_struct *spec, pf_msgpack_name name, const uint8_t *text) {
    uint32_t slot = pf_msgpack_hash(name) & keys->table_mask;
    for (; keys->table[slot] != PF_MSGPACK_NO_KEY; slot = (slot + 1) & keys->table_mask)
        if (pf_msgpack_is_key(keys, spec, keys->table[slot], name, text)) return keys->table[slot];
    if (name.size > 16 || keys->n_names == spec->n_fields + PF_MSGPACK_POOL) return PF_MSGPACK_NO_KEY;
    keys->names[keys->n_names] = name;
    pf_msgpack_set_literal(&keys->literals[keys->n_names], text, name.size);
    keys->next[keys->n_names] = PF_MSGPACK_NO_KEY;
    keys->table[slot] = (uint16_t)keys->n_names;
    return keys->n_names++;
}

/* The value of the tag field. */
static int pf_msgpack_tag(pf_msgpack_reader *reader, const pf_struct *spec, int32_t column) {
    if (reader->at == reader->end) return pf_msgpack_truncated(reader, column);
    const uint8_t *where = reader->at;
    uint8_t op = *reader->at++;
    uint64_t value = 0;
    int good = 0;
    if (spec->tag) {
        int known = pf_msgpack_str_head(reader, op, &value);
        if (known == 0) return pf_msgpack_truncated(reader, column);
        if (known > 0) {
            good = value == spec->tag_size && memcmp(reader->at, spec->tag, value) == 0;
            reader->at += value;
        }
    } else if (op <= 0x7F || op >= 0xE0) {
        good = (int8_t)op == spec->tag_number;
    } else if (op >= 0xCC && op <= 0xD3) {
        int is_signed = op >= 0xD0, size = 1 << ((op - 0xCC) & 3);
        if (!pf_msgpack_take(reader, size, &value)) return pf_msgpack_truncated(reader, column);
        int64_t number = (int64_t)value;
        if (is_signed) {
            int unused = 64 - 8 * size;
            number = (int64_t)(value << unused) >> unused;
        }
        good = number == spec->tag_number && (is_signed || value <= INT64_MAX);
    }
    return good ? PF_DECODED : pf_msgpack_refuse(reader, where, PF_REASON_TAG, column, pf_msgpack_found(op));
}

/* A key that is no field: the tag, or unknown. */
static int pf_msgpack_other_key(pf_msgpack_reader *reader, const pf_struct *spec, const uint8_t *where, const uint8_t *name,
                                uint64_t size, int32_t column) {
    if (spec->tag_field && size == spec->tag_field_size && memcmp(name, spec->tag_field, size) == 0)
        return pf_msgpack_tag(reader, spec, column);
    if (spec->forbid_unknown) return pf_msgpack_refuse(reader, where, PF_REASON_UNKNOWN_FIELD, column, PF_FOUND_NONE);
    return pf_msgpack_skip(reader, column);
}

/* Read a key.  Sets `field` to the key found, PF_MSGPACK_NO_KEY for one that was not learned; of one that is no
 * field, the value is read too. */
static int pf_msgpack_key(pf_msgpack_reader *reader, const pf_struct *spec, pf_msgpack_keys *keys, int32_t column,
                          uint32_t before, uint32_t *field) {
    uint64_t size;
    if (reader->at == reader->end) return pf_msgpack_truncated(reader, column);
    const uint8_t *where = reader->at;
    int known = pf_msgpack_str_head(reader, *reader->at++, &size);
    if (known < 0) return pf_msgpack_refuse(reader, where, PF_REASON_SYNTAX, column, pf_msgpack_found(*where));
    if (!known) return pf_msgpack_truncated(reader, column);
    const uint8_t *text = reader->at;
    pf_msgpack_name name = pf_msgpack_name_of(text, size, reader->end);
    reader->at += size;
    *field = keys->next[before];
    if (*field == PF_MSGPACK_NO_KEY || !pf_msgpack_is_key(keys, spec, *field, name, text)) {
        *field = pf_msgpack_find(keys, spec, name, text);
        if (*field != PF_MSGPACK_NO_KEY) keys->next[before] = (uint16_t)*field;
    }
    return *field < spec->n_fields ? PF_DECODED : pf_msgpack_other_key(reader, spec, where, text, size, column);
}

/* Read a map into the fields of Struct `index`; `column` is its node, -1 for the row itself. */
static int pf_msgpack_struct(pf_msgpack_reader *reader, uint32_t index, int32_t column, uint64_t i) {
    const pf_struct *spec = &reader->plan->structs[index];
    pf_msgpack_keys *keys = &reader->keys[index];
    uint64_t seen[PF_MSGPACK_MAX_FIELDS / 64];
    uint32_t n_words = (spec->n_fields + 63) / 64, n_seen = 0;
    for (uint32_t w = 0; w < n_words; w++) seen[w] = 0;

    const uint8_t *map_at = reader->at;
    uint8_t op = *reader->at++;
    uint64_t count;
    int known = pf_msgpack_map_head(reader, op, &count);
    if (known < 0) return pf_msgpack_wrong_type(reader, map_at, column);
    if (!known) return pf_msgpack_truncated(reader, column);

    uint32_t before = spec->n_fields + PF_MSGPACK_POOL;
    /* Keys that may be expected: any, unless an unknown one has to be refused or may be the tag. */
    uint32_t expectable = spec->tag_field || spec->forbid_unknown ? spec->n_fields : PF_MSGPACK_NO_KEY;
    for (uint64_t n = 0; n < count; n++) {
        const uint8_t *where = reader->at;
        uint32_t field = keys->next[before];
        if (field < expectable && pf_msgpack_left(reader) >= 16 && pf_msgpack_is_literal(&keys->literals[field], where)) {
            reader->at += keys->literals[field].size;
            if (field >= spec->n_fields) {
                int result = pf_msgpack_skip(reader, column);
                if (result != PF_DECODED) return result;
            }
        } else {
            int result = pf_msgpack_key(reader, spec, keys, column, before, &field);
            if (result != PF_DECODED) return result;
        }
        if (field != PF_MSGPACK_NO_KEY) before = field;
        if (field >= spec->n_fields) continue;
        int result = pf_msgpack_value(reader, spec->fields[field].column, i);
        if (result != PF_DECODED) return result;
        uint64_t bit = 1ull << (field & 63);
        n_seen += !(seen[field >> 6] & bit);
        seen[field >> 6] |= bit;
    }

    if (n_seen == spec->n_fields) return PF_DECODED;
    for (uint32_t field = 0; field < spec->n_fields; field++) {
        if (seen[field >> 6] >> (field & 63) & 1) continue;
        int stored = pf_store_default(reader->plan, reader->batch, &spec->fields[field], i);
        if (stored != PF_STORED) return pf_msgpack_stored(reader, map_at, stored, spec->fields[field].column, PF_FOUND_NONE);
    }
    return PF_DECODED;
}

static int pf_msgpack_decode(pf_decoder *self, pf_columns *batch, const uint8_t *payload, size_t size, pf_refusal *why) {
    const pf_msgpack_decoder *decoder = (const pf_msgpack_decoder *)self;
    pf_msgpack_reader reader = {
        decoder->plan, decoder->keys, decoder->actions, batch, payload, payload, payload + size, why};
    if (batch->rows >= batch->capacity) return PF_FULL;
    if (size == 0) return pf_msgpack_refuse(&reader, payload, PF_REASON_EMPTY, -1, PF_FOUND_NONE);
    int result = pf_msgpack_struct(&reader, 0, -1, batch->rows);
    if (result != PF_DECODED) return result;
    if (reader.at != reader.end) return pf_msgpack_refuse(&reader, reader.at, PF_REASON_TRAILING, -1, PF_FOUND_NONE);
    batch->rows++;
    return PF_DECODED;
}

/* ---- making one ---------------------------------------------------------------------------- */

static void pf_msgpack_decoder_free(pf_msgpack_decoder *decoder) {
    if (decoder == NULL) return;
    for (uint32_t s = 0; decoder->keys && s < decoder->plan->n_structs; s++) {
        free(decoder->keys[s].names);
        free(decoder->keys[s].literals);
        free(decoder->keys[s].next);
        free(decoder->keys[s].table);
    }
    free(decoder->keys);
    free(decoder->actions);
    free(decoder);
}

static int pf_msgpack_keys_are_whole(const pf_msgpack_keys *keys) {
    return keys->names && keys->literals && keys->next && keys->table;
}

static uint8_t pf_msgpack_action(const pf_column *column, const pf_bounds *bounds) {
    if (column->nullable || bounds->which) return PF_MSGPACK_BY_KIND;
    switch (column->kind) {
    case PF_INT64: return PF_MSGPACK_INT64;
    case PF_FLOAT64: return PF_MSGPACK_FLOAT64;
    case PF_STRING: return PF_MSGPACK_STRING;
    default: return PF_MSGPACK_BY_KIND;
    }
}

/* NULL when there is no memory.  The plan must outlive the decoder. */
static pf_decoder *pf_msgpack_decoder_new(const pf_plan *plan) {
    pf_msgpack_decoder *decoder = calloc(1, sizeof *decoder);
    if (decoder == NULL) return NULL;
    decoder->decoder.decode = pf_msgpack_decode;
    decoder->plan = plan;
    decoder->keys = calloc(plan->n_structs, sizeof *decoder->keys);
    decoder->actions = calloc(plan->n_columns + 1, 1);
    for (uint32_t c = 0; decoder->actions && c < plan->n_columns; c++)
        decoder->actions[c] = pf_msgpack_action(&plan->columns[c], &plan->bounds[c]);
    for (uint32_t s = 0; decoder->keys && s < plan->n_structs; s++) {
        const pf_struct *spec = &plan->structs[s];
        pf_msgpack_keys *keys = &decoder->keys[s];
        uint32_t slots = 4;
        while (slots < 2 * (spec->n_fields + PF_MSGPACK_POOL)) slots *= 2;
        keys->table_mask = slots - 1;
        keys->table = malloc(slots * sizeof *keys->table);
        keys->next = malloc((spec->n_fields + PF_MSGPACK_POOL + 1) * sizeof *keys->next);
        keys->names = malloc((spec->n_fields + PF_MSGPACK_POOL) * sizeof *keys->names);
        keys->literals = malloc((spec->n_fields + PF_MSGPACK_POOL) * sizeof *keys->literals);
        if (!pf_msgpack_keys_are_whole(keys)) break;
        for (uint32_t slot = 0; slot < slots; slot++) keys->table[slot] = PF_MSGPACK_NO_KEY;
        for (uint32_t field = 0; field < spec->n_fields; field++) {
            const pf_field *entry = &spec->fields[field];
            const uint8_t *text = (const uint8_t *)entry->name;
            keys->names[field] = pf_msgpack_name_of(text, entry->name_size, text + entry->name_size);
            pf_msgpack_set_literal(&keys->literals[field], text, entry->name_size);
            uint32_t slot = pf_msgpack_hash(keys->names[field]) & keys->table_mask;
            while (keys->table[slot] != PF_MSGPACK_NO_KEY) slot = (slot + 1) & keys->table_mask;
            keys->table[slot] = (uint16_t)field;
            /* Until messages say otherwise: the Struct's own order. */
            keys->next[field] = field + 1 < spec->n_fields ? (uint16_t)(field + 1) : PF_MSGPACK_NO_KEY;
        }
        keys->next[spec->n_fields + PF_MSGPACK_POOL] = spec->n_fields ? 0 : PF_MSGPACK_NO_KEY;
        keys->n_names = spec->n_fields;
    }
    for (uint32_t s = 0; s < plan->n_structs; s++) {
        if (decoder->actions == NULL || decoder->keys == NULL || !pf_msgpack_keys_are_whole(&decoder->keys[s])) {
            pf_msgpack_decoder_free(decoder);
            return NULL;
        }
    }
    return &decoder->decoder;
}

#endif
