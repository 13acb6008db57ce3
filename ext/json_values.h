/* JSON kernel: the value of any column. */

static const uint8_t *read_object(context *c, pf_json_struct *target, const uint8_t *p, uint64_t i, unsigned depth);
static const uint8_t *read_value(context *c, uint32_t column, const uint8_t *p, uint64_t i, unsigned depth);

NOINLINE const uint8_t *read_integer_column(context *c, uint32_t column, const uint8_t *begin, uint64_t i, unsigned depth) {
    uint64_t magnitude;
    int what, negative = *begin == '-';
    const uint8_t *p = read_magnitude(c, begin + negative, &magnitude, &what);
    if (unlikely(what == NO_INTEGER || (p < c->end && (*p == '.' || (*p | 0x20) == 'e'))))
        return wrong_type(c, (int32_t)column, begin, depth);
    if (unlikely(what == TOO_LARGE || (negative && magnitude > 1ull << 63)))
        return refuse(c, PF_REASON_RANGE, (int32_t)column, begin);
    int stored = negative ? pf_store_int(c->json->plan, c->batch, column, i, (int64_t)(0 - magnitude))
                          : pf_store_uint(c->json->plan, c->batch, column, i, magnitude);
    return likely(stored == PF_STORED) ? p : not_stored(c, stored, column, begin);
}

NOINLINE const uint8_t *read_text_column(context *c, uint32_t column, const uint8_t *p, uint64_t i) {
    uint64_t room;
    uint8_t *stop, *out = pf_text_space(c->batch, column, i, &room);
    const uint8_t *after = copy_text(c, p + 1, out, out + room, &stop);
    if (!after) return NULL;
    int stored = pf_text_close(c->json->plan, c->batch, column, i, (uint64_t)(stop - out));
    return likely(stored == PF_STORED) ? after : not_stored(c, stored, column, p);
}

/* msgspec's base64: the standard alphabet, padded, no white space; bits beyond the last byte are not looked at. */
INLINE int base64_value(int32_t ch) {
    if (ch >= 'A' && ch <= 'Z') return ch - 'A';
    if (ch >= 'a' && ch <= 'z') return ch - 'a' + 26;
    if (ch >= '0' && ch <= '9') return ch - '0' + 52;
    return ch == '+' ? 62 : ch == '/' ? 63 : -1;
}

NOINLINE const uint8_t *read_bytes_column(context *c, uint32_t column, const uint8_t *p, uint64_t i) {
    int escaped = 0;
    const uint8_t *after = skip_text(c, p + 1, &escaped);
    if (!after) return NULL;
    uint64_t room;
    uint8_t *out = pf_text_space(c->batch, column, i, &room);
    const uint8_t *at = p + 1, *end = after - 1;
    uint64_t size = 0;
    for (;;) {
        int32_t ch[4];
        ch[0] = next_character(c, &at, end);
        if (ch[0] < 0) break;
        for (int k = 1; k < 4; k++) ch[k] = next_character(c, &at, end);
        int padding = ch[3] == '=' && at == end ? (ch[2] == '=' ? 2 : 1) : 0;
        uint32_t bits = 0;
        for (int k = 0; k < 4; k++) {
            int value = k < 4 - padding ? base64_value(ch[k]) : 0;
            if (value < 0) return refuse(c, PF_REASON_BASE64, (int32_t)column, p);
            bits = bits << 6 | (uint32_t)value;
        }
        if (room - size < 3u - (unsigned)padding) return full(c);
        for (int k = 0; k < 3 - padding; k++) out[size++] = (uint8_t)(bits >> (16 - 8 * k));
    }
    int stored = pf_text_close(c->json->plan, c->batch, column, i, size);
    return likely(stored == PF_STORED) ? after : not_stored(c, stored, column, p);
}

NOINLINE const uint8_t *read_datetime_column(context *c, uint32_t column, const uint8_t *p, uint64_t i) {
    int escaped = 0, aware;
    int64_t micros;
    const uint8_t *after = skip_text(c, p + 1, &escaped);
    if (!after) return NULL;
    const uint8_t *text = p + 1;
    size_t size = (size_t)(after - 1 - text);
    uint8_t plain[64];
    if (unlikely(escaped)) {
        /* Escapes resolved into a buffer that every datetime fits, because the digits of the fraction
         * (from index 20) that do not matter, all after the seventh, are dropped. */
        size_t used = 0;
        int fraction = 1;
        const uint8_t *at = text, *end = after - 1;
        for (int32_t ch; (ch = next_character(c, &at, end)) >= 0;) {
            int digit = ch >= '0' && ch <= '9';
            if (used >= 20) fraction &= digit;
            if (used == 27 && fraction) continue;
            if (ch > 127 || used == sizeof plain) return refuse(c, PF_REASON_DATETIME, (int32_t)column, p);
            plain[used++] = (uint8_t)ch;
        }
        text = plain;
        size = used;
    }
    if (!pf_rfc3339_parse(text, size, &micros, &aware)) return refuse(c, PF_REASON_DATETIME, (int32_t)column, p);
    int stored = pf_store_datetime(c->json->plan, c->batch, column, i, micros, aware);
    return likely(stored == PF_STORED) ? after : not_stored(c, stored, column, p);
}

NOINLINE const uint8_t *read_list_column(context *c, uint32_t column, const uint8_t *begin, uint64_t i, unsigned depth) {
    uint64_t value = pf_list_begin(c->batch, column, i);
    if (depth > PF_JSON_DEPTH) return refuse(c, PF_REASON_DEPTH, (int32_t)column, begin);
    const uint8_t *p = skip_space(begin + 1, c->end);
    if (p < c->end && *p == ']') {
        p++;
    } else {
        for (;;) {
            if (p >= c->end) return broken(c, PF_REASON_TRUNCATED, p);
            if (!pf_list_has_room(c->batch, column, value)) return full(c);
            p = read_value(c, column + 1, p, value, depth);
            if (!p) return NULL;
            value++;
            p = skip_space(p, c->end);
            if (p < c->end && *p == ',') {
                p = skip_space(p + 1, c->end);
                continue;
            }
            if (p < c->end && *p == ']') {
                p++;
                break;
            }
            return broken(c, PF_REASON_SYNTAX, p);
        }
    }
    int stored = pf_list_close(c->json->plan, c->batch, column, i, value);
    return likely(stored == PF_STORED) ? p : not_stored(c, stored, column, begin);
}

/* Store the value at `p` (p < end, no white space) as value i of a column; the container around it is `depth` deep. */
NOINLINE const uint8_t *read_value(context *c, uint32_t column, const uint8_t *p, uint64_t i, unsigned depth) {
    const pf_columns *batch = c->batch;
    const pf_column *node = &batch->columns[column];
    if (unlikely(*p == 'n' && node->nullable == PF_NULLABLE)) {
        p = skip_word(c, p, "null", 4);
        if (p) pf_store_null(batch, column, i);
        return p;
    }
    switch (node->kind) {
    case PF_BOOL: {
        const uint8_t *after = NULL;
        if (*p == 't') {
            after = skip_word(c, p, "true", 4);
        } else if (*p == 'f') {
            after = skip_word(c, p, "false", 5);
        } else {
            break;
        }
        if (after) pf_store_bool(batch, column, i, *p == 't');
        return after;
    }
    case PF_INT8: case PF_INT16: case PF_INT32: case PF_INT64:
    case PF_UINT8: case PF_UINT16: case PF_UINT32: case PF_UINT64:
        return read_integer_column(c, column, p, i, depth);
    case PF_FLOAT32:
    case PF_FLOAT64: {
        double value;
        const uint8_t *after = read_double(c, (int32_t)column, p, depth, &value);
        if (!after) return NULL;
        int stored = pf_store_float(c->json->plan, batch, column, i, value);
        return likely(stored == PF_STORED) ? after : not_stored(c, stored, column, p);
    }
    case PF_STRING:
        if (*p == '"') return read_text_column(c, column, p, i);
        break;
    case PF_BYTES:
        if (*p == '"') return read_bytes_column(c, column, p, i);
        break;
    case PF_DATETIME:
        if (*p == '"') return read_datetime_column(c, column, p, i);
        break;
    case PF_RAW: {
        const uint8_t *after = skip_value(c, p, depth);
        if (!after) return NULL;
        int stored = pf_store_text(c->json->plan, batch, column, i, p, (uint64_t)(after - p));
        return likely(stored == PF_STORED) ? after : not_stored(c, stored, column, p);
    }
    case PF_LIST:
        if (*p == '[') return read_list_column(c, column, p, i, depth + 1);
        break;
    case PF_STRUCT:
        if (*p == '{') {
            if (depth + 1 > PF_JSON_DEPTH) return refuse(c, PF_REASON_DEPTH, (int32_t)column, p);
            p = read_object(c, &c->json->structs[c->json->plan->struct_of[column]], p + 1, i, depth + 1);
            if (p) pf_mark_valid(batch, column, i);
            return p;
        }
        break;
    }
    return wrong_type(c, (int32_t)column, p, depth);
}
