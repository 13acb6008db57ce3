/* Values of a column as JSON text. */
#ifndef PYTHIA_JSON_OUTPUT_H
#define PYTHIA_JSON_OUTPUT_H

#include <math.h>

#include "number_text.h"
#include "out_column.h"
#include "rfc3339.h"
#include "utf8.h"

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

#endif
