/* Values of a column as MessagePack (https://github.com/msgpack/msgpack/blob/master/spec.md). */
#ifndef PYTHIA_MSGPACK_OUTPUT_H
#define PYTHIA_MSGPACK_OUTPUT_H

#include "out_column.h"
#include "rfc3339.h"
#include "utf8.h"

static inline int pf_msgpack_head(pf_out *out, uint8_t code, uint64_t value, int size) {
    if (!pf_out_room(out, 1 + (uint64_t)size)) return PF_ENCODE_FULL;
    *out->at = code;
    pf_put_be(out->at + 1, value, size);
    out->at += 1 + size;
    return PF_ENCODE_DONE;
}

static int pf_msgpack_uint(pf_out *out, uint64_t value) {
    if (value < 0x80) return pf_msgpack_head(out, (uint8_t)value, 0, 0);
    if (value <= UINT8_MAX) return pf_msgpack_head(out, 0xCC, value, 1);
    if (value <= UINT16_MAX) return pf_msgpack_head(out, 0xCD, value, 2);
    if (value <= UINT32_MAX) return pf_msgpack_head(out, 0xCE, value, 4);
    return pf_msgpack_head(out, 0xCF, value, 8);
}

static int pf_msgpack_int(pf_out *out, int64_t value) {
    if (value >= 0) return pf_msgpack_uint(out, (uint64_t)value);
    if (value >= -32) return pf_msgpack_head(out, (uint8_t)value, 0, 0);
    if (value >= INT8_MIN) return pf_msgpack_head(out, 0xD0, (uint64_t)value, 1);
    if (value >= INT16_MIN) return pf_msgpack_head(out, 0xD1, (uint64_t)value, 2);
    if (value >= INT32_MIN) return pf_msgpack_head(out, 0xD2, (uint64_t)value, 4);
    return pf_msgpack_head(out, 0xD3, (uint64_t)value, 8);
}

static int pf_msgpack_string(pf_out *out, const uint8_t *text, uint64_t size) {
    if (size > UINT32_MAX) return PF_ENCODE_SIZE;
    if (!pf_out_room(out, size + 5)) return PF_ENCODE_FULL;
    if (pf_utf8_valid_prefix(text, size) != size) return PF_ENCODE_UTF8;
    if (size < 32) pf_msgpack_head(out, (uint8_t)(0xA0 | size), 0, 0);
    else if (size <= UINT8_MAX) pf_msgpack_head(out, 0xD9, size, 1);
    else if (size <= UINT16_MAX) pf_msgpack_head(out, 0xDA, size, 2);
    else pf_msgpack_head(out, 0xDB, size, 4);
    return pf_put(out, text, size);
}

static int pf_msgpack_bytes(pf_out *out, const uint8_t *bytes, uint64_t size) {
    if (size > UINT32_MAX) return PF_ENCODE_SIZE;
    if (!pf_out_room(out, size + 5)) return PF_ENCODE_FULL;
    if (size <= UINT8_MAX) pf_msgpack_head(out, 0xC4, size, 1);
    else if (size <= UINT16_MAX) pf_msgpack_head(out, 0xC5, size, 2);
    else pf_msgpack_head(out, 0xC6, size, 4);
    return pf_put(out, bytes, size);
}

static int pf_msgpack_map(pf_out *out, uint64_t fields) {
    if (fields < 16) return pf_msgpack_head(out, (uint8_t)(0x80 | fields), 0, 0);
    if (fields <= UINT16_MAX) return pf_msgpack_head(out, 0xDE, fields, 2);
    return pf_msgpack_head(out, 0xDF, fields, 4);
}

static int pf_msgpack_array(pf_out *out, uint64_t values) {
    if (values < 16) return pf_msgpack_head(out, (uint8_t)(0x90 | values), 0, 0);
    if (values <= UINT16_MAX) return pf_msgpack_head(out, 0xDC, values, 2);
    return pf_msgpack_head(out, 0xDD, values, 4);
}

/* Timestamp extension, type -1: the 32, 64 or 96 bit form, whichever is the shortest that fits. */
static int pf_msgpack_datetime(pf_out *out, int64_t micros) {
    if (micros < PF_DATETIME_MIN_US || micros > PF_DATETIME_MAX_US) return PF_ENCODE_DATETIME;
    if (!pf_out_room(out, 15)) return PF_ENCODE_FULL;
    int64_t seconds = micros / 1000000, rest = micros % 1000000;
    if (rest < 0) { rest += 1000000; seconds--; }
    uint64_t nanoseconds = (uint64_t)rest * 1000;
    if (seconds >> 34) {
        pf_msgpack_head(out, 0xC7, 0x0CFF, 2);
        pf_put_be(out->at, nanoseconds, 4);
        pf_put_be(out->at + 4, (uint64_t)seconds, 8);
        out->at += 12;
    } else if (nanoseconds || seconds >> 32) {
        pf_msgpack_head(out, 0xD7, 0xFF, 1);
        pf_put_be(out->at, nanoseconds << 34 | (uint64_t)seconds, 8);
        out->at += 8;
    } else {
        pf_msgpack_head(out, 0xD6, 0xFF, 1);
        pf_put_be(out->at, (uint64_t)seconds, 4);
        out->at += 4;
    }
    return PF_ENCODE_DONE;
}

static int pf_msgpack_value(pf_out *out, const pf_out_column *column, int64_t row) {
    if (pf_out_is_null(column, row)) return pf_put(out, "\xC0", 1);
    if (column->spans) {
        pf_span span = pf_out_span(column, row);
        if (span.size < 0) return pf_put(out, "\xC0", 1);
        if (column->kind == PF_OUT_STRING) return pf_msgpack_string(out, span.bytes, (uint64_t)span.size);
        if (column->kind == PF_OUT_BYTES) return pf_msgpack_bytes(out, span.bytes, (uint64_t)span.size);
        return pf_put(out, span.bytes, (uint64_t)span.size);
    }
    switch (column->kind) {
    case PF_OUT_BOOL:
    case PF_OUT_BOOL_BITS:
        return pf_put(out, pf_out_bool(column, row) ? "\xC3" : "\xC2", 1);
    case PF_OUT_FLOAT32: {
        uint32_t bits;
        memcpy(&bits, column->data + row * column->stride, 4);
        return pf_msgpack_head(out, 0xCA, bits, 4);
    }
    case PF_OUT_FLOAT64: {
        uint64_t bits;
        memcpy(&bits, column->data + row * column->stride, 8);
        return pf_msgpack_head(out, 0xCB, bits, 8);
    }
    case PF_OUT_DATETIME: {
        int64_t micros = pf_out_int(column, row);
        return micros == INT64_MIN ? pf_put(out, "\xC0", 1) : pf_msgpack_datetime(out, micros);
    }
    case PF_OUT_UINT8:
    case PF_OUT_UINT16:
    case PF_OUT_UINT32:
    case PF_OUT_UINT64:
        return pf_msgpack_uint(out, pf_out_uint(column, row));
    default:
        return pf_msgpack_int(out, pf_out_int(column, row));
    }
}

#endif
