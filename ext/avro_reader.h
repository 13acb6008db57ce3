/* Reading Avro's binary encoding: numbers, lengths, stepping over values, refusals
 * (https://avro.apache.org/docs/1.12.0/specification/, "Binary Encoding"). */
#ifndef PYTHIA_AVRO_READER_H
#define PYTHIA_AVRO_READER_H

#include "avro_program.h"
#include "field_store.h"

enum {
    PF_AVRO_DEPTH = 256, /* values inside one another, in what is skipped: a writer's type may hold itself */
};

/* One payload being read. */
typedef struct {
    const pf_plan *plan;
    const pf_avro_program *program;
    pf_columns *batch;
    const uint8_t *begin;
    const uint8_t *at;
    const uint8_t *end;
    pf_refusal *why;
} pf_avro_reader;

static inline const pf_avro_node *pf_avro_child(const pf_avro_reader *reader, const pf_avro_node *node, uint64_t k) {
    return &reader->program->nodes[reader->program->children[node->first + k]];
}

static inline uint64_t pf_avro_left(const pf_avro_reader *reader) { return (uint64_t)(reader->end - reader->at); }

static inline int pf_avro_refuse(pf_avro_reader *reader, const uint8_t *where, uint8_t reason, int32_t column, uint8_t found) {
    *reader->why = (pf_refusal){.reason = reason, .found = found, .column = column, .at = (uint64_t)(where - reader->begin)};
    return PF_REFUSED;
}

static inline int pf_avro_truncated(pf_avro_reader *reader, int32_t column) {
    return pf_avro_refuse(reader, reader->end, PF_REASON_TRUNCATED, column, PF_FOUND_NONE);
}

/* Read a variable-length zig-zag number: PF_DECODED or PF_REFUSED. */
static inline int pf_avro_long(pf_avro_reader *reader, int64_t *value, int32_t column) {
    const uint8_t *where = reader->at;
    uint64_t bits = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (reader->at == reader->end) return pf_avro_truncated(reader, column);
        uint8_t byte = *reader->at++;
        bits |= (uint64_t)(byte & 0x7F) << shift;
        if (byte & 0x80) continue;
        if (shift == 63 && byte > 1) break;
        *value = (int64_t)(bits >> 1 ^ (0 - (bits & 1)));
        return PF_DECODED;
    }
    return pf_avro_refuse(reader, where, PF_REASON_RANGE, -1, PF_FOUND_INT);
}

/* Read the length of a string or of bytes, of which all must be there. */
static inline int pf_avro_length(pf_avro_reader *reader, uint64_t *size, int32_t column) {
    const uint8_t *where = reader->at;
    int64_t given;
    int result = pf_avro_long(reader, &given, column);
    if (result != PF_DECODED) return result;
    if (given < 0) return pf_avro_refuse(reader, where, PF_REASON_SYNTAX, column, PF_FOUND_NONE);
    if ((uint64_t)given > pf_avro_left(reader)) return pf_avro_truncated(reader, column);
    *size = (uint64_t)given;
    return PF_DECODED;
}

/* Read the head of a block of an array or map: how many values, 0 at the end.  The bytes that they take may stand there, so
 * that they can be stepped over; they are read all the same, and checked. */
static inline int pf_avro_block(pf_avro_reader *reader, uint64_t *count, int32_t column) {
    const uint8_t *where = reader->at;
    int64_t given, bytes;
    int result = pf_avro_long(reader, &given, column);
    if (result != PF_DECODED) return result;
    *count = (uint64_t)given;
    if (given >= 0) return PF_DECODED;
    if (given == INT64_MIN) return pf_avro_refuse(reader, where, PF_REASON_SYNTAX, column, PF_FOUND_NONE);
    *count = (uint64_t)-given;
    return pf_avro_long(reader, &bytes, column);
}

/* Read which branch of a union it is. */
static inline int pf_avro_branch(pf_avro_reader *reader, const pf_avro_node *node, const pf_avro_node **branch) {
    const uint8_t *where = reader->at;
    int64_t index;
    int result = pf_avro_long(reader, &index, node->column);
    if (result != PF_DECODED) return result;
    if (index < 0 || index >= node->n) return pf_avro_refuse(reader, where, PF_REASON_SYNTAX, node->column, PF_FOUND_NONE);
    *branch = pf_avro_child(reader, node, (uint64_t)index);
    return PF_DECODED;
}

static inline int pf_avro_step(pf_avro_reader *reader, uint64_t size) {
    if (size > pf_avro_left(reader)) return pf_avro_truncated(reader, -1);
    reader->at += size;
    return PF_DECODED;
}

static int pf_avro_skip(pf_avro_reader *reader, const pf_avro_node *node, int depth);

/* Step over the values of one block of an array or map. */
static int pf_avro_skip_block(pf_avro_reader *reader, const pf_avro_node *node, uint64_t count, int depth) {
    const pf_avro_node *item = pf_avro_child(reader, node, 0);
    if (node->op == PF_AVRO_ARRAY && item->takes_none) return PF_DECODED; /* so a count costs what stands behind it */
    for (uint64_t k = 0; k < count; k++) {
        uint64_t key;
        int result = node->op == PF_AVRO_MAP ? pf_avro_length(reader, &key, -1) : PF_DECODED;
        if (result == PF_DECODED && node->op == PF_AVRO_MAP) reader->at += key;
        if (result == PF_DECODED) result = pf_avro_skip(reader, item, depth);
        if (result != PF_DECODED) return result;
    }
    return PF_DECODED;
}

/* Step over one value.  Strings are not checked for their UTF-8. */
static int pf_avro_skip(pf_avro_reader *reader, const pf_avro_node *node, int depth) {
    uint64_t size, count;
    int64_t number;
    int result;
    if (depth == PF_AVRO_DEPTH) return pf_avro_refuse(reader, reader->at, PF_REASON_DEPTH, -1, PF_FOUND_NONE);
    switch (node->op) {
    case PF_AVRO_NULL: return PF_DECODED;
    case PF_AVRO_BOOLEAN: return pf_avro_step(reader, 1);
    case PF_AVRO_FLOAT: return pf_avro_step(reader, 4);
    case PF_AVRO_DOUBLE: return pf_avro_step(reader, 8);
    case PF_AVRO_FIXED: return pf_avro_step(reader, node->size);
    case PF_AVRO_BYTES:
    case PF_AVRO_STRING:
        result = pf_avro_length(reader, &size, -1);
        if (result == PF_DECODED) reader->at += size;
        return result;
    case PF_AVRO_ARRAY:
    case PF_AVRO_MAP:
        do {
            result = pf_avro_block(reader, &count, -1);
            if (result == PF_DECODED) result = pf_avro_skip_block(reader, node, count, depth + 1);
            if (result != PF_DECODED) return result;
        } while (count);
        return PF_DECODED;
    case PF_AVRO_UNION: {
        const pf_avro_node *branch;
        result = pf_avro_branch(reader, node, &branch);
        return result == PF_DECODED ? pf_avro_skip(reader, branch, depth + 1) : result;
    }
    case PF_AVRO_RECORD:
        for (uint32_t k = 0; k < node->n; k++) {
            result = pf_avro_skip(reader, pf_avro_child(reader, node, k), depth + 1);
            if (result != PF_DECODED) return result;
        }
        return PF_DECODED;
    case PF_AVRO_ENUM: {
        const uint8_t *where = reader->at;
        result = pf_avro_long(reader, &number, -1);
        if (result != PF_DECODED || (number >= 0 && (uint64_t)number < node->size)) return result;
        return pf_avro_refuse(reader, where, PF_REASON_SYNTAX, -1, PF_FOUND_NONE);
    }
    default: return pf_avro_long(reader, &number, -1);
    }
}

#endif
