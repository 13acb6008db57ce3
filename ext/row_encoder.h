/* Output columns to framed records, one JSON or MessagePack object a row, without a Python object a row.
 *
 * The framing is that of pythia_fast/brokers/base.py, little endian:
 *
 *     key size u32 | headers size u32 (0) | payload size u32 | key | payload
 *
 * Every write is checked against the end of the region; a record that does not fit is taken back whole.
 */
#ifndef PYTHIA_ROW_ENCODER_H
#define PYTHIA_ROW_ENCODER_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "number_text.h"
#include "rfc3339.h"
#include "utf8.h"

enum {
    PF_OUT_BOOL = 1, /* one byte a value */
    PF_OUT_BOOL_BITS = 2, /* Arrow bitmap */
    PF_OUT_INT8 = 3,
    PF_OUT_INT16 = 4,
    PF_OUT_INT32 = 5,
    PF_OUT_INT64 = 6,
    PF_OUT_UINT8 = 7,
    PF_OUT_UINT16 = 8,
    PF_OUT_UINT32 = 9,
    PF_OUT_UINT64 = 10,
    PF_OUT_FLOAT32 = 11,
    PF_OUT_FLOAT64 = 12,
    PF_OUT_DATETIME = 13, /* int64 microseconds, INT64_MIN is null */
    PF_OUT_STRING = 14,
    PF_OUT_BYTES = 15,
    PF_OUT_ENCODED = 16, /* values that are JSON or MessagePack already */
};

/* Where the bytes of a string, bytes or encoded value are found. */
enum {
    PF_SPANS_OFFSETS32 = 1, /* int32 offsets[rows + 1] into data */
    PF_SPANS_OFFSETS64 = 2,
    PF_SPANS_POINTERS = 3,  /* pf_span[rows] */
};

typedef struct {
    const uint8_t *bytes;
    int64_t size; /* -1: null */
} pf_span;

typedef struct {
    uint8_t kind;
    uint8_t spans;            /* PF_SPANS_..., 0 for fixed width */
    const uint8_t *data;      /* value 0; for PF_OUT_BOOL_BITS the bitmap */
    int64_t stride;           /* bytes from value to value; bit offset of value 0 for PF_OUT_BOOL_BITS */
    const void *offsets;      /* int32, int64 or pf_span, as `spans` says */
    const uint8_t *valid_bytes; /* one byte a value, 0 = null; NULL: none */
    int64_t valid_stride;
    const uint8_t *valid_bits; /* bitmap, 1 = has a value; NULL: none */
    int64_t valid_bit_offset;
    const uint8_t *prefix;    /* what stands before the value: brace or comma, name, colon */
    uint32_t prefix_size;
} pf_out_column;

enum {
    PF_ENCODE_DONE = 0,
    PF_ENCODE_FULL = 1,     /* no room for row `row` */
    PF_ENCODE_UTF8 = 2,     /* string of row `row`, column `column` is not UTF-8 */
    PF_ENCODE_DATETIME = 3, /* datetime outside the years 1 to 9999 */
    PF_ENCODE_SIZE = 4,     /* value larger than a record can say (4 GiB) */
};

typedef struct {
    uint8_t *begin;
    uint8_t *at;
    uint8_t *end;
} pf_out;

typedef struct {
    int64_t row;     /* first row not written */
    int32_t column;  /* column of the failure */
    uint64_t bytes;  /* written to the region */
    uint64_t records;
} pf_encoded;

static inline int pf_out_room(const pf_out *out, uint64_t size) { return (uint64_t)(out->end - out->at) >= size; }

static inline int pf_put(pf_out *out, const void *bytes, uint64_t size) {
    if (!pf_out_room(out, size)) return PF_ENCODE_FULL;
    if (size) memcpy(out->at, bytes, size);
    out->at += size;
    return PF_ENCODE_DONE;
}

static inline void pf_put_u32_le(uint8_t *at, uint32_t value) {
    for (int i = 0; i < 4; i++) at[i] = (uint8_t)(value >> (8 * i));
}

static inline void pf_put_be(uint8_t *at, uint64_t value, int size) {
    for (int i = 0; i < size; i++) at[i] = (uint8_t)(value >> (8 * (size - 1 - i)));
}

/* ---- reading a column ---------------------------------------------------------------------- */

static inline int pf_out_is_null(const pf_out_column *column, int64_t row) {
    if (column->valid_bytes && !column->valid_bytes[row * column->valid_stride]) return 1;
    if (column->valid_bits) {
        int64_t bit = row + column->valid_bit_offset;
        if (!(column->valid_bits[bit >> 3] >> (bit & 7) & 1)) return 1;
    }
    return 0;
}

/* The bytes of value `row`; size -1 when it is null. */
static inline pf_span pf_out_span(const pf_out_column *column, int64_t row) {
    if (column->spans == PF_SPANS_POINTERS) return ((const pf_span *)column->offsets)[row];
    if (column->spans == PF_SPANS_OFFSETS32) {
        const int32_t *offsets = column->offsets;
        return (pf_span){column->data + offsets[row], (int64_t)offsets[row + 1] - offsets[row]};
    }
    const int64_t *offsets = column->offsets;
    return (pf_span){column->data + offsets[row], offsets[row + 1] - offsets[row]};
}

#define PF_OUT_AS(type) (memcpy(&(type), at, sizeof(type)), (type))

/* Integer value of a column of signed or bool kind / of unsigned kind.  Values may stand unaligned. */
static inline int64_t pf_out_int(const pf_out_column *column, int64_t row) {
    const uint8_t *at = column->data + row * column->stride;
    int8_t i8; int16_t i16; int32_t i32; int64_t i64;
    switch (column->kind) {
    case PF_OUT_INT8: return PF_OUT_AS(i8);
    case PF_OUT_INT16: return PF_OUT_AS(i16);
    case PF_OUT_INT32: return PF_OUT_AS(i32);
    default: return PF_OUT_AS(i64);
    }
}

static inline uint64_t pf_out_uint(const pf_out_column *column, int64_t row) {
    const uint8_t *at = column->data + row * column->stride;
    uint8_t u8; uint16_t u16; uint32_t u32; uint64_t u64;
    switch (column->kind) {
    case PF_OUT_UINT8: return PF_OUT_AS(u8);
    case PF_OUT_UINT16: return PF_OUT_AS(u16);
    case PF_OUT_UINT32: return PF_OUT_AS(u32);
    default: return PF_OUT_AS(u64);
    }
}

static inline double pf_out_float(const pf_out_column *column, int64_t row) {
    const uint8_t *at = column->data + row * column->stride;
    float f32; double f64;
    return column->kind == PF_OUT_FLOAT32 ? (double)PF_OUT_AS(f32) : PF_OUT_AS(f64);
}

static inline int pf_out_bool(const pf_out_column *column, int64_t row) {
    if (column->kind == PF_OUT_BOOL) return column->data[row * column->stride] != 0;
    int64_t bit = row + column->stride;
    return column->data[bit >> 3] >> (bit & 7) & 1;
}

/* ---- JSON ---------------------------------------------------------------------------------- */

/* 1 where JSON asks for an escape, 2 for bytes of a multi-byte sequence. */
static inline int pf_json_special(uint8_t byte) { return byte < 0x20 || byte == '"' || byte == '\\' || byte >= 0x80; }

/* Whether any of eight bytes is special; may say yes for a plain one, never no for a special one. */
static inline int pf_json_special_word(uint64_t word) {
    const uint64_t ones = 0x0101010101010101ull, highs = 0x8080808080808080ull;
    uint64_t quote = word ^ (ones * '"'), backslash = word ^ (ones * '\\');
    uint64_t control = word - ones * 0x20;
    return ((word | control | (quote - ones) | (backslash - ones)) & highs) != 0;
}

static int pf_json_string(pf_out *out, const uint8_t *text, uint64_t size) {
    static const char hex[] = "0123456789abcdef";
    if (!pf_out_room(out, size + 2)) return PF_ENCODE_FULL; /* what it takes at the least */
    *out->at++ = '"';
    uint64_t at = 0, plain = 0; /* text[plain .. at) is still to be copied */
    for (;;) {
        while (size - at >= 8) {
            uint64_t word;
            memcpy(&word, text + at, 8);
            if (pf_json_special_word(word)) break;
            at += 8;
        }
        while (at < size && !pf_json_special(text[at])) at++;
        if (at < size && text[at] >= 0x80) { /* stands for itself, if it is UTF-8 */
            size_t length = pf_utf8_sequence(text, size, at);
            if (length == 0) return PF_ENCODE_UTF8;
            at += length;
            continue;
        }
        if (pf_put(out, text + plain, at - plain)) return PF_ENCODE_FULL;
        if (at == size) break;
        uint8_t byte = text[at++];
        plain = at;
        uint8_t escape[6] = {'\\', byte, '0', '0', (uint8_t)hex[byte >> 4], (uint8_t)hex[byte & 15]};
        uint64_t length = 2;
        switch (byte) {
        case '"': case '\\': break;
        case '\n': escape[1] = 'n'; break;
        case '\r': escape[1] = 'r'; break;
        case '\t': escape[1] = 't'; break;
        case '\b': escape[1] = 'b'; break;
        case '\f': escape[1] = 'f'; break;
        default: escape[1] = 'u'; length = 6; break;
        }
        if (pf_put(out, escape, length)) return PF_ENCODE_FULL;
    }
    return pf_put(out, "\"", 1);
}

/* Bytes as a string in base64 (RFC 4648 section 4), as msgspec writes them. */
static int pf_json_base64(pf_out *out, const uint8_t *bytes, uint64_t size) {
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if (!pf_out_room(out, (size + 2) / 3 * 4 + 2)) return PF_ENCODE_FULL;
    uint8_t *to = out->at;
    *to++ = '"';
    for (; size >= 3; size -= 3, bytes += 3, to += 4) {
        uint32_t group = (uint32_t)bytes[0] << 16 | (uint32_t)bytes[1] << 8 | bytes[2];
        for (int i = 0; i < 4; i++) to[i] = (uint8_t)alphabet[group >> (18 - 6 * i) & 63];
    }
    if (size) {
        uint32_t group = (uint32_t)bytes[0] << 16 | (size == 2 ? (uint32_t)bytes[1] << 8 : 0);
        to[0] = (uint8_t)alphabet[group >> 18];
        to[1] = (uint8_t)alphabet[group >> 12 & 63];
        to[2] = size == 2 ? (uint8_t)alphabet[group >> 6 & 63] : '=';
        to[3] = '=';
        to += 4;
    }
    *to++ = '"';
    out->at = to;
    return PF_ENCODE_DONE;
}

/* Year, month and day of a day number since 1970-01-01; the inverse of pf_days_from_date. */
static inline void pf_date_from_days(int64_t days, int32_t *year, int32_t *month, int32_t *day) {
    days += 719468; /* since 1 March of year 0; never negative for the years 1 to 9999 */
    int64_t era = days / 146097;
    int64_t of_era = days % 146097;
    int64_t year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t m = (5 * of_year + 2) / 153;
    *day = (int32_t)(of_year - (153 * m + 2) / 5 + 1);
    *month = (int32_t)(m < 10 ? m + 3 : m - 9);
    *year = (int32_t)(era * 400 + year_of_era + (*month <= 2));
}

static int pf_json_datetime(pf_out *out, int64_t micros) {
    if (micros < PF_DATETIME_MIN_US || micros > PF_DATETIME_MAX_US) return PF_ENCODE_DATETIME;
    if (!pf_out_room(out, 32)) return PF_ENCODE_FULL;
    const int64_t day_us = 86400000000ll;
    int64_t days = micros / day_us, rest = micros % day_us;
    if (rest < 0) { rest += day_us; days--; }
    int32_t year, month, day;
    pf_date_from_days(days, &year, &month, &day);
    uint8_t *to = out->at;
    memcpy(to, "\"yyyy-mm-ddThh:mm:ss", 20);
    pf_write_digits(to + 1, (uint64_t)year, 4);
    pf_write_digits(to + 6, (uint64_t)month, 2);
    pf_write_digits(to + 9, (uint64_t)day, 2);
    pf_write_digits(to + 12, (uint64_t)(rest / 3600000000ll), 2);
    pf_write_digits(to + 15, (uint64_t)(rest / 60000000 % 60), 2);
    pf_write_digits(to + 18, (uint64_t)(rest / 1000000 % 60), 2);
    to += 20;
    if (rest % 1000000) {
        *to++ = '.';
        pf_write_digits(to, (uint64_t)(rest % 1000000), 6);
        to += 6;
    }
    memcpy(to, "Z\"", 2);
    out->at = to + 2;
    return PF_ENCODE_DONE;
}

static int pf_json_value(pf_out *out, const pf_out_column *column, int64_t row) {
    if (pf_out_is_null(column, row)) return pf_put(out, "null", 4);
    if (column->spans) {
        pf_span span = pf_out_span(column, row);
        if (span.size < 0) return pf_put(out, "null", 4);
        if (column->kind == PF_OUT_STRING) return pf_json_string(out, span.bytes, (uint64_t)span.size);
        if (column->kind == PF_OUT_BYTES) return pf_json_base64(out, span.bytes, (uint64_t)span.size);
        return pf_put(out, span.bytes, (uint64_t)span.size);
    }
    if (!pf_out_room(out, PF_NUMBER_TEXT_BYTES)) return PF_ENCODE_FULL;
    switch (column->kind) {
    case PF_OUT_BOOL:
    case PF_OUT_BOOL_BITS:
        return pf_out_bool(column, row) ? pf_put(out, "true", 4) : pf_put(out, "false", 5);
    case PF_OUT_FLOAT32:
    case PF_OUT_FLOAT64: {
        double value = pf_out_float(column, row);
        if (!isfinite(value)) return pf_put(out, "null", 4); /* JSON has no NaN and no infinity */
        out->at = pf_write_double(out->at, value);
        return PF_ENCODE_DONE;
    }
    case PF_OUT_DATETIME: {
        int64_t micros = pf_out_int(column, row);
        return micros == INT64_MIN ? pf_put(out, "null", 4) : pf_json_datetime(out, micros);
    }
    case PF_OUT_UINT8:
    case PF_OUT_UINT16:
    case PF_OUT_UINT32:
    case PF_OUT_UINT64:
        out->at = pf_write_uint(out->at, pf_out_uint(column, row));
        return PF_ENCODE_DONE;
    default:
        out->at = pf_write_int(out->at, pf_out_int(column, row));
        return PF_ENCODE_DONE;
    }
}

/* ---- MessagePack (https://github.com/msgpack/msgpack/blob/master/spec.md) --------------------- */

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

/* ---- records ------------------------------------------------------------------------------- */

enum {
    PF_RECORD_HEADER = 12,
    PF_NO_BYTES = 0xFFFFFFFFu,
};

/* Write the record's key and tell its size in `size`: text for integers, the bytes themselves otherwise. */
static int pf_put_key(pf_out *out, const pf_out_column *key, int64_t row, uint32_t *size) {
    *size = PF_NO_BYTES;
    if (key == NULL || pf_out_is_null(key, row)) return PF_ENCODE_DONE;
    uint8_t *begin = out->at;
    if (key->spans) {
        pf_span span = pf_out_span(key, row);
        if (span.size < 0) return PF_ENCODE_DONE;
        if (span.size > INT32_MAX) return PF_ENCODE_SIZE;
        if (pf_put(out, span.bytes, (uint64_t)span.size)) return PF_ENCODE_FULL;
    } else {
        if (!pf_out_room(out, PF_NUMBER_TEXT_BYTES)) return PF_ENCODE_FULL;
        out->at = key->kind >= PF_OUT_UINT8 ? pf_write_uint(out->at, pf_out_uint(key, row))
                                            : pf_write_int(out->at, pf_out_int(key, row));
    }
    *size = (uint32_t)(out->at - begin);
    return PF_ENCODE_DONE;
}

/* One framed payload that exists already. */
static int pf_put_record(pf_out *out, const uint8_t *payload, uint64_t size) {
    if (size >= PF_NO_BYTES) return PF_ENCODE_SIZE;
    if (!pf_out_room(out, PF_RECORD_HEADER + size)) return PF_ENCODE_FULL;
    pf_put_u32_le(out->at, PF_NO_BYTES);
    pf_put_u32_le(out->at + 4, 0);
    pf_put_u32_le(out->at + 8, (uint32_t)size);
    out->at += PF_RECORD_HEADER;
    return pf_put(out, payload, size);
}

static int pf_put_row(pf_out *out, const pf_out_column *columns, uint32_t n_columns, const pf_out_column *key, int msgpack,
                      int64_t row, int32_t *failed_column) {
    uint8_t *header = out->at;
    uint32_t key_size;
    *failed_column = -1;
    if (!pf_out_room(out, PF_RECORD_HEADER)) return PF_ENCODE_FULL;
    out->at += PF_RECORD_HEADER;
    int result = pf_put_key(out, key, row, &key_size);
    if (result) return result;
    uint8_t *payload = out->at;
    for (uint32_t c = 0; c < n_columns; c++) {
        result = pf_put(out, columns[c].prefix, columns[c].prefix_size);
        if (!result) result = msgpack ? pf_msgpack_value(out, &columns[c], row) : pf_json_value(out, &columns[c], row);
        if (result) {
            *failed_column = (int32_t)c;
            return result;
        }
    }
    if (!msgpack && pf_put(out, "}", 1)) return PF_ENCODE_FULL;
    if ((uint64_t)(out->at - payload) >= PF_NO_BYTES) return PF_ENCODE_SIZE;
    pf_put_u32_le(header, key_size);
    pf_put_u32_le(header + 4, 0);
    pf_put_u32_le(header + 8, (uint32_t)(out->at - payload));
    return PF_ENCODE_DONE;
}

/* Write rows `start` .. `rows` until done, full or failed; whole records only. */
static int pf_encode_rows(const pf_out_column *columns, uint32_t n_columns, const pf_out_column *key, int msgpack,
                          int64_t start, int64_t rows, uint8_t *region, uint64_t region_bytes, pf_encoded *encoded) {
    pf_out out = {region, region, region + region_bytes};
    int result = PF_ENCODE_DONE;
    int64_t row = start;
    for (; row < rows; row++) {
        uint8_t *before = out.at;
        result = pf_put_row(&out, columns, n_columns, key, msgpack, row, &encoded->column);
        if (result) {
            out.at = before;
            break;
        }
    }
    encoded->row = row;
    encoded->records = (uint64_t)(row - start);
    encoded->bytes = (uint64_t)(out.at - out.begin);
    return result;
}

#endif
