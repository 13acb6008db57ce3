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

#include "json_output.h"
#include "msgpack_output.h"
#include "number_text.h"
#include "out_column.h"

/* ---- the tree of columns ------------------------------------------------------------------- */

typedef struct {
    const pf_out_column *columns;
    uint32_t n_columns;
    int msgpack;
    int32_t failed; /* column of the failure, -1: none */
} pf_out_table;

/* Whether the field has nothing to write, not even its name: a Raw that its payload did not have. */
static inline int pf_out_is_absent(const pf_out_column *column, int64_t row) {
    return column->kind == PF_OUT_ENCODED && !pf_out_is_null(column, row) && pf_out_span(column, row).size == 0;
}

static int pf_put_nested(pf_out *out, pf_out_table *table, uint32_t c, int64_t row);

static inline int pf_put_value(pf_out *out, pf_out_table *table, uint32_t c, int64_t row, int msgpack) {
    const pf_out_column *column = &table->columns[c];
    if (column->kind >= PF_OUT_LIST && !pf_out_is_null(column, row)) return pf_put_nested(out, table, c, row);
    int result = msgpack ? pf_msgpack_value(out, column, row) : pf_json_value(out, column, row);
    if (result) table->failed = (int32_t)c;
    return result;
}

/* One object of the columns from `from` up to `to`. */
static inline int pf_put_object(pf_out *out, pf_out_table *table, uint32_t from, uint32_t to, int64_t row, int msgpack) {
    const pf_out_column *columns = table->columns;
    if (msgpack) {
        uint64_t fields = 0;
        for (uint32_t c = from; c < to; c = columns[c].end) fields += !pf_out_is_absent(&columns[c], row);
        if (pf_msgpack_map(out, fields)) return PF_ENCODE_FULL;
    }
    uint8_t separator = '{';
    for (uint32_t c = from; c < to; c = columns[c].end) {
        const pf_out_column *column = &columns[c];
        if (pf_out_is_absent(column, row)) continue;
        if (!pf_out_room(out, 1 + (uint64_t)column->prefix_size)) return PF_ENCODE_FULL;
        if (!msgpack) *out->at++ = separator;
        memcpy(out->at, column->prefix, column->prefix_size);
        out->at += column->prefix_size;
        int result = pf_put_value(out, table, c, row, msgpack);
        if (result) return result;
        separator = ',';
    }
    if (msgpack) return PF_ENCODE_DONE;
    return separator == ',' ? pf_put(out, "}", 1) : pf_put(out, "{}", 2);
}

/* One list of the values that `row` of the column has in the column behind it. */
static int pf_put_list(pf_out *out, pf_out_table *table, uint32_t c, int64_t row) {
    const int32_t *offsets = table->columns[c].offsets;
    int64_t begin = offsets[row], end = offsets[row + 1];
    if (table->msgpack ? pf_msgpack_array(out, (uint64_t)(end - begin)) : pf_put(out, "[", 1)) return PF_ENCODE_FULL;
    for (int64_t at = begin; at < end; at++) {
        if (!table->msgpack && at > begin && pf_put(out, ",", 1)) return PF_ENCODE_FULL;
        int result = pf_put_value(out, table, c + 1, at, table->msgpack);
        if (result) return result;
    }
    return table->msgpack ? PF_ENCODE_DONE : pf_put(out, "]", 1);
}

static int pf_put_nested(pf_out *out, pf_out_table *table, uint32_t c, int64_t row) {
    const pf_out_column *column = &table->columns[c];
    if (column->kind == PF_OUT_LIST) return pf_put_list(out, table, c, row);
    return pf_put_object(out, table, c + 1, column->end, row, table->msgpack);
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

static int pf_put_row(pf_out *out, pf_out_table *table, const pf_out_column *key, int64_t row) {
    uint8_t *header = out->at;
    uint32_t key_size;
    table->failed = -1;
    if (!pf_out_room(out, PF_RECORD_HEADER)) return PF_ENCODE_FULL;
    out->at += PF_RECORD_HEADER;
    int result = pf_put_key(out, key, row, &key_size);
    if (result) return result;
    uint8_t *payload = out->at;
    result = table->msgpack ? pf_put_object(out, table, 0, table->n_columns, row, 1)
                            : pf_put_object(out, table, 0, table->n_columns, row, 0); /* two loops, each without the other */
    if (result) return result;
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
    pf_out_table table = {columns, n_columns, msgpack, -1};
    int result = PF_ENCODE_DONE;
    int64_t row = start;
    for (; row < rows; row++) {
        uint8_t *before = out.at;
        result = pf_put_row(&out, &table, key, row);
        if (result) {
            out.at = before;
            break;
        }
    }
    encoded->column = table.failed;
    encoded->row = row;
    encoded->records = (uint64_t)(row - start);
    encoded->bytes = (uint64_t)(out.at - out.begin);
    return result;
}

#endif
