/* JSON kernel: values that nobody asked for, validated; and values of another type than the column's. */

INLINE const uint8_t *skip_digits(context *c, const uint8_t *p) {
    for (;;) {
        uint64_t stops = not_digits(peek8(c, p) ^ ZEROS);
        if (likely(stops)) return p + (__builtin_ctzll(stops) >> 3);
        p += 8;
    }
}

INLINE const uint8_t *skip_number(context *c, const uint8_t *p) {
    if (unlikely(*p == '-')) {
        p++;
        KEEP_BRANCH(p);
    }
    const uint8_t *digits = p;
    p = skip_digits(c, p);
    if (unlikely(p == digits)) return broken(c, PF_REASON_NUMBER, p);
    if (unlikely(*digits == '0' && p - digits > 1)) return refuse(c, PF_REASON_NUMBER, -1, digits + 1);
    if (p < c->end && *p == '.') {
        digits = ++p;
        p = skip_digits(c, p);
        if (unlikely(p == digits)) return broken(c, PF_REASON_NUMBER, p);
    }
    if (unlikely(p < c->end && (*p | 0x20) == 'e')) {
        p++;
        if (p < c->end && (*p == '+' || *p == '-')) p++;
        digits = p;
        p = skip_digits(c, p);
        if (p == digits) return broken(c, PF_REASON_NUMBER, p);
    }
    return p;
}

INLINE const uint8_t *skip_word(context *c, const uint8_t *p, const char *word, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (p + i >= c->end || p[i] != (uint8_t)word[i]) return broken(c, PF_REASON_SYNTAX, p + i);
    return p + size;
}

INLINE const uint8_t *skip_scalar(context *c, const uint8_t *p) {
    int escaped;
    switch (*p) {
    case '"': return skip_text(c, p + 1, &escaped);
    case 't': return skip_word(c, p, "true", 4);
    case 'f': return skip_word(c, p, "false", 5);
    case 'n': return skip_word(c, p, "null", 4);
    case '-': case '0': case '1': case '2': case '3': case '4': case '5': case '6': case '7': case '8': case '9':
        return skip_number(c, p);
    default: return refuse(c, PF_REASON_SYNTAX, -1, p);
    }
}

/* An object's key and its colon; `p` may stand before white space. */
NOINLINE const uint8_t *skip_key(context *c, const uint8_t *p) {
    int escaped;
    p = skip_space(p, c->end);
    if (p >= c->end || *p != '"') return broken(c, PF_REASON_SYNTAX, p);
    p = skip_text(c, p + 1, &escaped);
    if (!p) return NULL;
    p = skip_space(p, c->end);
    if (p >= c->end || *p != ':') return broken(c, PF_REASON_SYNTAX, p);
    return p + 1;
}

/* Validate the array or object at `p`, itself `depth` deep.  A bit for each open one says which it is. */
NOINLINE const uint8_t *skip_nested(context *c, const uint8_t *p, unsigned depth) {
    uint64_t objects[PF_JSON_DEPTH / 64 + 1];
    unsigned open = 0;
    for (;;) { /* p stands at a value */
        if (*p == '{' || *p == '[') {
            unsigned level = depth + open;
            if (level > PF_JSON_DEPTH) return refuse(c, PF_REASON_DEPTH, -1, p);
            uint64_t bit = 1ull << (open % 64);
            int object = *p == '{';
            if (open % 64 == 0) objects[open / 64] = 0;
            objects[open / 64] = object ? objects[open / 64] | bit : objects[open / 64] & ~bit;
            open++;
            p = skip_space(p + 1, c->end);
            if (p >= c->end) return broken(c, PF_REASON_TRUNCATED, p);
            if (*p != (object ? '}' : ']')) {
                if (object) {
                    p = skip_key(c, p);
                    if (!p) return NULL;
                    p = skip_space(p, c->end);
                    if (p >= c->end) return broken(c, PF_REASON_TRUNCATED, p);
                }
                continue;
            }
            p++;
            open--;
        } else {
            p = skip_scalar(c, p);
            if (!p) return NULL;
        }
        for (;;) { /* p stands after a value */
            if (open == 0) return p;
            int object = (int)(objects[(open - 1) / 64] >> ((open - 1) % 64) & 1);
            p = skip_space(p, c->end);
            if (p < c->end && *p == ',') {
                p++;
                if (object) {
                    p = skip_key(c, p);
                    if (!p) return NULL;
                }
                p = skip_space(p, c->end);
                if (p >= c->end) return broken(c, PF_REASON_TRUNCATED, p);
                break;
            }
            if (p >= c->end || *p != (object ? '}' : ']')) return broken(c, PF_REASON_SYNTAX, p);
            p++;
            open--;
        }
    }
}

/* Validate the value at `p` (p < end), which stands in a container `depth` deep. */
INLINE const uint8_t *skip_value(context *c, const uint8_t *p, unsigned depth) {
    return *p == '{' || *p == '[' ? skip_nested(c, p, depth + 1) : skip_scalar(c, p);
}

/* A value of another type than the column's, or no value at all. */
COLD const uint8_t *wrong_type(context *c, int32_t column, const uint8_t *p, unsigned depth) {
    const uint8_t *stop = skip_value(c, p, depth);
    if (!stop) return NULL;
    uint8_t found = PF_FOUND_INT;
    switch (*p) {
    case '"': found = PF_FOUND_STR; break;
    case '{': found = PF_FOUND_OBJECT; break;
    case '[': found = PF_FOUND_ARRAY; break;
    case 'n': found = PF_FOUND_NULL; break;
    case 't': case 'f': found = PF_FOUND_BOOL; break;
    default:
        for (const uint8_t *at = p; at < stop; at++)
            if (*at == '.' || (*at | 0x20) == 'e') found = PF_FOUND_FLOAT;
    }
    refuse(c, PF_REASON_TYPE, column, p);
    c->why->found = found;
    return NULL;
}
