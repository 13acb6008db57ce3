/* One MessagePack value into its column: what a column of each kind takes, and the short ways for the common forms.
 *
 * An int is taken for a float, a timestamp extension or an RFC 3339 string for a datetime; bytes are never taken for a
 * str, nor the other way round.
 */
#ifndef PYTHIA_MSGPACK_VALUES_H
#define PYTHIA_MSGPACK_VALUES_H

#include "msgpack_reader.h"
#include "rfc3339.h"

/* How a column's value is read: by its kind, or by a shorter way where nothing but the type is to be checked. */
enum {
    PF_MSGPACK_BY_KIND = 0,
    PF_MSGPACK_INT64 = 1,
    PF_MSGPACK_FLOAT64 = 2,
    PF_MSGPACK_STRING = 3,
};

static uint8_t pf_msgpack_action(const pf_column *column, const pf_bounds *bounds) {
    if (column->nullable || bounds->which) return PF_MSGPACK_BY_KIND;
    switch (column->kind) {
    case PF_INT64: return PF_MSGPACK_INT64;
    case PF_FLOAT64: return PF_MSGPACK_FLOAT64;
    case PF_STRING: return PF_MSGPACK_STRING;
    default: return PF_MSGPACK_BY_KIND;
    }
}

/* A map into the fields of a Struct (msgpack_decoder.h). */
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

#endif
