/* The Avro decoder: one payload, one record in the writer's schema, one row.
 *
 * The writer's schema says what stands where; the payload has neither names nor types.  So a payload that was written with
 * another schema is refused only where it happens not to fit; behind the five bytes that a schema registry has in front,
 * each payload says which schema it was written with, and there is a program for each of them.
 *
 * avro_program.h    the writer's schema, resolved against the columns
 * avro_reader.h     numbers and lengths, stepping over values, refusals
 * registry_frame.h  the five bytes
 * here              values into columns, and the decoder itself
 */
#ifndef PYTHIA_AVRO_DECODER_H
#define PYTHIA_AVRO_DECODER_H

#include <stdlib.h>

#include "avro_reader.h"
#include "registry_frame.h"
#include "rfc3339.h"

static int pf_avro_value(pf_avro_reader *reader, const pf_avro_node *node, uint64_t i);

/* Turn the answer of a pf_store_... function into that of a decoder. */
static inline int pf_avro_stored(pf_avro_reader *reader, const uint8_t *where, int stored, int32_t column) {
    if (stored == PF_STORED) return PF_DECODED;
    if (stored == PF_NO_ROOM) return PF_FULL;
    return pf_avro_refuse(reader, where, (uint8_t)stored, column, PF_FOUND_NONE);
}

static int pf_avro_float(pf_avro_reader *reader, const pf_avro_node *node, uint64_t i) {
    const uint8_t *where = reader->at;
    double value;
    if (node->op == PF_AVRO_FLOAT) {
        float narrow;
        if (pf_avro_left(reader) < 4) return pf_avro_truncated(reader, node->column);
        memcpy(&narrow, where, 4); /* little-endian, as all that this runs on */
        value = narrow;
        reader->at += 4;
    } else {
        if (pf_avro_left(reader) < 8) return pf_avro_truncated(reader, node->column);
        memcpy(&value, where, 8);
        reader->at += 8;
    }
    int stored = pf_store_float(reader->plan, reader->batch, (uint32_t)node->column, i, value);
    return pf_avro_stored(reader, where, stored, node->column);
}

/* STRING, BYTES and FIXED. */
static int pf_avro_text(pf_avro_reader *reader, const pf_avro_node *node, uint64_t i) {
    const uint8_t *where = reader->at;
    uint64_t size = node->size;
    if (node->op == PF_AVRO_FIXED) {
        if (size > pf_avro_left(reader)) return pf_avro_truncated(reader, node->column);
    } else {
        int result = pf_avro_length(reader, &size, node->column);
        if (result != PF_DECODED) return result;
    }
    const uint8_t *text = reader->at;
    if (node->op == PF_AVRO_STRING) {
        size_t valid = pf_utf8_valid_prefix(text, size);
        if (valid != size) return pf_avro_refuse(reader, text + valid, PF_REASON_UTF8, node->column, PF_FOUND_STR);
    }
    reader->at += size;
    int stored = pf_store_text(reader->plan, reader->batch, (uint32_t)node->column, i, text, size);
    return pf_avro_stored(reader, where, stored, node->column);
}

static int pf_avro_number(pf_avro_reader *reader, const pf_avro_node *node, uint64_t i) {
    const uint8_t *where = reader->at;
    int64_t number;
    int result = pf_avro_long(reader, &number, node->column);
    if (result != PF_DECODED) return result;
    uint32_t column = (uint32_t)node->column;
    int stored;
    if (node->op == PF_AVRO_LONG) {
        stored = pf_store_int(reader->plan, reader->batch, column, i, number);
    } else if (node->op == PF_AVRO_TIMESTAMP) {
        int64_t unit = (int64_t)node->size;
        if (number < PF_DATETIME_MIN_US / unit || number > PF_DATETIME_MAX_US / unit)
            return pf_avro_refuse(reader, where, PF_REASON_DATETIME, node->column, PF_FOUND_NONE);
        stored = pf_store_datetime(reader->plan, reader->batch, column, i, number * unit, node->aware);
    } else {
        if (number < 0 || number >= node->n) return pf_avro_refuse(reader, where, PF_REASON_SYNTAX, node->column, PF_FOUND_NONE);
        const pf_avro_symbol *symbol = &reader->program->symbols[node->first + (uint64_t)number];
        stored = pf_store_text(reader->plan, reader->batch, column, i, symbol->text, symbol->size);
    }
    return pf_avro_stored(reader, where, stored, node->column);
}

static int pf_avro_array(pf_avro_reader *reader, const pf_avro_node *node, uint64_t i) {
    const uint8_t *where = reader->at;
    const pf_avro_node *item = pf_avro_child(reader, node, 0);
    uint32_t column = (uint32_t)node->column;
    uint64_t k = pf_list_begin(reader->batch, column, i), count;
    do {
        int result = pf_avro_block(reader, &count, node->column);
        if (result != PF_DECODED) return result;
        for (uint64_t end = k + count; k < end; k++) {
            if (!pf_list_has_room(reader->batch, column, k)) return PF_FULL;
            result = pf_avro_value(reader, item, k);
            if (result != PF_DECODED) return result;
        }
    } while (count);
    return pf_avro_stored(reader, where, pf_list_close(reader->plan, reader->batch, column, i, k), node->column);
}

static int pf_avro_record(pf_avro_reader *reader, const pf_avro_node *node, uint64_t i) {
    const uint8_t *where = reader->at;
    for (uint32_t k = 0; k < node->n; k++) {
        int result = pf_avro_value(reader, pf_avro_child(reader, node, k), i);
        if (result != PF_DECODED) return result;
    }
    const pf_struct *spec = &reader->plan->structs[node->record];
    for (uint32_t k = 0; k < node->n_absent; k++) {
        const pf_field *field = &spec->fields[reader->program->absents[node->absent + k]];
        int stored = pf_store_default(reader->plan, reader->batch, field, i);
        if (stored != PF_STORED) return pf_avro_stored(reader, where, stored, (int32_t)field->column);
    }
    if (node->column >= 0) pf_mark_valid(reader->batch, (uint32_t)node->column, i);
    return PF_DECODED;
}

static int pf_avro_value(pf_avro_reader *reader, const pf_avro_node *node, uint64_t i) {
    if (node->use == PF_AVRO_SKIP) return pf_avro_skip(reader, node, 0);
    if (node->use == PF_AVRO_REFUSE) return pf_avro_refuse(reader, reader->at, PF_REASON_TYPE, node->column, node->found);
    switch (node->op) {
    case PF_AVRO_NULL: /* stored only where the column takes null (resolution.py) */
        pf_store_null(reader->batch, (uint32_t)node->column, i);
        return PF_DECODED;
    case PF_AVRO_BOOLEAN: {
        if (reader->at == reader->end) return pf_avro_truncated(reader, node->column);
        uint8_t byte = *reader->at++;
        if (byte > 1) return pf_avro_refuse(reader, reader->at - 1, PF_REASON_SYNTAX, node->column, PF_FOUND_NONE);
        pf_store_bool(reader->batch, (uint32_t)node->column, i, byte);
        return PF_DECODED;
    }
    case PF_AVRO_FLOAT:
    case PF_AVRO_DOUBLE: return pf_avro_float(reader, node, i);
    case PF_AVRO_BYTES:
    case PF_AVRO_STRING:
    case PF_AVRO_FIXED: return pf_avro_text(reader, node, i);
    case PF_AVRO_ARRAY: return pf_avro_array(reader, node, i);
    case PF_AVRO_RECORD: return pf_avro_record(reader, node, i);
    case PF_AVRO_UNION: {
        const pf_avro_node *branch;
        int result = pf_avro_branch(reader, node, &branch);
        return result == PF_DECODED ? pf_avro_value(reader, branch, i) : result;
    }
    default: return pf_avro_number(reader, node, i);
    }
}

/* ---- the decoder --------------------------------------------------------------------------- */

typedef struct {
    pf_decoder decoder; /* first: a pf_decoder * is a pf_avro_decoder * */
    const pf_plan *plan;
    const pf_avro_program *program; /* where all payloads are of one schema, and nothing stands before them */
    pf_registry registry;           /* else: its readers are programs */
} pf_avro_decoder;

static int pf_avro_decode(pf_decoder *self, pf_columns *batch, const uint8_t *payload, size_t size, pf_refusal *why) {
    pf_avro_decoder *decoder = (pf_avro_decoder *)self;
    pf_avro_reader reader = {decoder->plan, decoder->program, batch, payload, payload, payload + size, why};
    if (batch->rows >= batch->capacity) return PF_FULL;
    if (decoder->program == NULL) {
        const void *program = NULL;
        int framed = pf_registry_reader(&decoder->registry, payload, size, &program, why);
        if (framed != PF_DECODED) return framed;
        reader.program = program;
        reader.at += PF_REGISTRY_FRAME;
    }
    int result = pf_avro_value(&reader, &reader.program->nodes[0], batch->rows);
    if (result != PF_DECODED) return result;
    if (reader.at != reader.end) return pf_avro_refuse(&reader, reader.at, PF_REASON_TRAILING, -1, PF_FOUND_NONE);
    batch->rows++;
    return PF_DECODED;
}

#endif
