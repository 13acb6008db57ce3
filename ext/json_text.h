/* JSON kernel: strings, copied or only validated. */

INLINE int hex_digit(uint8_t ch) {
    if ((uint8_t)(ch - '0') <= 9) return ch - '0';
    ch |= 0x20;
    return (uint8_t)(ch - 'a') <= 5 ? ch - 'a' + 10 : -1;
}

NOINLINE const uint8_t *four_hex(context *c, const uint8_t *p, uint32_t *value) {
    *value = 0;
    for (int i = 0; i < 4; i++, p++) {
        int digit = p < c->end ? hex_digit(*p) : -1;
        if (digit < 0) return broken(c, PF_REASON_ESCAPE, p);
        *value = *value << 4 | (uint32_t)digit;
    }
    return p;
}

/* Read the escape at `p` (a backslash) into one code point; a pair of surrogates is one escape. */
NOINLINE const uint8_t *read_escape(context *c, const uint8_t *p, uint32_t *point) {
    const uint8_t *begin = p++;
    if (p >= c->end) return broken(c, PF_REASON_ESCAPE, p);
    switch (*p++) {
    case '"': *point = '"'; return p;
    case '\\': *point = '\\'; return p;
    case '/': *point = '/'; return p;
    case 'b': *point = '\b'; return p;
    case 'f': *point = '\f'; return p;
    case 'n': *point = '\n'; return p;
    case 'r': *point = '\r'; return p;
    case 't': *point = '\t'; return p;
    case 'u': break;
    default: return refuse(c, PF_REASON_ESCAPE, -1, begin);
    }
    p = four_hex(c, p, point);
    if (!p || *point < 0xD800 || *point > 0xDFFF) return p;
    if (*point > 0xDBFF) return refuse(c, PF_REASON_ESCAPE, -1, begin);
    if (p >= c->end || (*p == '\\' && p + 1 >= c->end)) return broken(c, PF_REASON_ESCAPE, c->end);
    if (p[0] != '\\' || p[1] != 'u') return refuse(c, PF_REASON_ESCAPE, -1, begin);
    uint32_t low;
    p = four_hex(c, p + 2, &low);
    if (!p) return NULL;
    if (low < 0xDC00 || low > 0xDFFF) return refuse(c, PF_REASON_ESCAPE, -1, begin);
    *point = 0x10000 + ((*point - 0xD800) << 10) + (low - 0xDC00);
    return p;
}

/* UTF-8 of a code point; returns its length. */
INLINE unsigned put_utf8(uint8_t out[4], uint32_t point) {
    if (point < 0x80) {
        out[0] = (uint8_t)point;
        return 1;
    }
    if (point < 0x800) {
        out[0] = (uint8_t)(0xC0 | point >> 6);
        out[1] = (uint8_t)(0x80 | (point & 0x3F));
        return 2;
    }
    if (point < 0x10000) {
        out[0] = (uint8_t)(0xE0 | point >> 12);
        out[1] = (uint8_t)(0x80 | (point >> 6 & 0x3F));
        out[2] = (uint8_t)(0x80 | (point & 0x3F));
        return 3;
    }
    out[0] = (uint8_t)(0xF0 | point >> 18);
    out[1] = (uint8_t)(0x80 | (point >> 12 & 0x3F));
    out[2] = (uint8_t)(0x80 | (point >> 6 & 0x3F));
    out[3] = (uint8_t)(0x80 | (point & 0x3F));
    return 4;
}

/* Plain bytes from `p` on, at least when less than a block is left: the count to the next special byte or the end. */
INLINE size_t plain_run(const context *c, const uint8_t *p) {
    size_t left = (size_t)(c->end - p), run = 0;
    while (left - run >= BLOCK) {
        block_mask special = block_special(p + run);
        if (special) return run + block_first(special);
        run += BLOCK;
    }
    if (left == run) return run;
    if (c->end - c->begin >= BLOCK) {
        block_mask special = block_special_last(c->end, (unsigned)(left - run));
        return special ? run + block_first(special) : left;
    }
    while (run < left && p[run] != '"' && p[run] != '\\' && p[run] >= 0x20 && p[run] < 0x80) run++;
    return run;
}

/* memcpy for the short ends of strings: no call, no byte beyond either side. */
INLINE void copy_short(uint8_t *out, const uint8_t *p, size_t size) {
    if (size >= 16) {
        size_t at = 0;
        for (; size - at > 16; at += 16) memcpy(out + at, p + at, 16);
        memcpy(out + size - 16, p + size - 16, 16);
    } else if (size >= 8) {
        uint64_t first = load8(p), last = load8(p + size - 8);
        memcpy(out, &first, 8);
        memcpy(out + size - 8, &last, 8);
    } else if (size >= 4) {
        uint32_t first, last;
        memcpy(&first, p, 4);
        memcpy(&last, p + size - 4, 4);
        memcpy(out, &first, 4);
        memcpy(out + size - 4, &last, 4);
    } else if (size) {
        uint8_t first = p[0], middle = p[size >> 1], last = p[size - 1];
        out[0] = first;
        out[size >> 1] = middle;
        out[size - 1] = last;
    }
}

/* The rest of a string from `p` (inside it) to `out`, which has room to `limit`. */
NOINLINE const uint8_t *copy_text_rest(context *c, const uint8_t *p, uint8_t *out, const uint8_t *limit, uint8_t **stop) {
    for (;;) {
        while (c->end - p >= BLOCK && limit - out >= BLOCK) {
            block_mask special = block_copy(out, p);
            if (special) {
                unsigned n = block_first(special);
                p += n;
                out += n;
                goto at_special;
            }
            p += BLOCK;
            out += BLOCK;
        }
        size_t run = plain_run(c, p);
        if (run > (size_t)(limit - out)) return full(c);
        copy_short(out, p, run);
        p += run;
        out += run;
        if (p >= c->end) return broken(c, PF_REASON_TRUNCATED, p);
    at_special:
        if (*p == '"') {
            *stop = out;
            return p + 1;
        }
        if (*p == '\\') {
            uint32_t point;
            uint8_t bytes[4];
            p = read_escape(c, p, &point);
            if (!p) return NULL;
            unsigned size = put_utf8(bytes, point);
            if ((size_t)(limit - out) < size) return full(c);
            for (unsigned i = 0; i < size; i++) *out++ = bytes[i];
        } else if (*p < 0x20) {
            return refuse(c, PF_REASON_CONTROL, -1, p);
        } else {
            do {
                size_t size = pf_utf8_sequence(p, (size_t)(c->end - p), 0);
                if (size == 0) return refuse(c, PF_REASON_UTF8, -1, p);
                if ((size_t)(limit - out) < size) return full(c);
                for (size_t i = 0; i < size; i++) *out++ = *p++;
            } while (p < c->end && *p >= 0x80);
        }
    }
}

/* Copy the string whose first character is at `p` to `out`, which has room to `limit`; `stop` is where its copy ends. */
INLINE const uint8_t *copy_text(context *c, const uint8_t *p, uint8_t *out, const uint8_t *limit, uint8_t **stop) {
    if (likely(c->end - p >= BLOCK && limit - out >= BLOCK)) {
        block_mask special = block_copy(out, p);
        if (likely(special)) {
            unsigned n = block_first(special);
            if (likely(p[n] == '"')) {
                *stop = out + n;
                return p + n + 1;
            }
        } else {
            p += BLOCK;
            out += BLOCK;
        }
    }
    return copy_text_rest(c, p, out, limit, stop);
}

NOINLINE const uint8_t *skip_text_rest(context *c, const uint8_t *p, int *escaped) {
    for (;;) {
        p += plain_run(c, p);
        if (p >= c->end) return broken(c, PF_REASON_TRUNCATED, p);
        if (*p == '"') return p + 1;
        if (*p == '\\') {
            uint32_t point;
            *escaped = 1;
            p = read_escape(c, p, &point);
            if (!p) return NULL;
        } else if (*p < 0x20) {
            return refuse(c, PF_REASON_CONTROL, -1, p);
        } else {
            do {
                size_t size = pf_utf8_sequence(p, (size_t)(c->end - p), 0);
                if (size == 0) return refuse(c, PF_REASON_UTF8, -1, p);
                p += size;
            } while (p < c->end && *p >= 0x80);
        }
    }
}

/* Validate the string whose first character is at `p`; sets `escaped` when there is a backslash in it. */
INLINE const uint8_t *skip_text(context *c, const uint8_t *p, int *escaped) {
    if (likely(c->end - p >= BLOCK)) {
        block_mask special = block_special(p);
        if (likely(special)) {
            unsigned n = block_first(special);
            if (likely(p[n] == '"')) return p + n + 1;
            p += n;
        } else {
            p += BLOCK;
        }
    }
    return skip_text_rest(c, p, escaped);
}

/* The next character of validated text, escapes resolved; -1 at its end, and above 127 for what is not ASCII. */
INLINE int32_t next_character(context *c, const uint8_t **p, const uint8_t *end) {
    uint32_t point;
    if (*p == end) return -1;
    if (**p != '\\') return *(*p)++;
    *p = read_escape(c, *p, &point);
    return (int32_t)point;
}

/* Whether validated text [p, end) with escapes in it reads `wanted`. */
NOINLINE int text_equals(context *c, const uint8_t *p, const uint8_t *end, const char *wanted, size_t size) {
    size_t at = 0;
    while (p < end) {
        uint32_t point;
        uint8_t bytes[4];
        unsigned n = 1;
        if (*p == '\\') {
            p = read_escape(c, p, &point);
            n = put_utf8(bytes, point);
        } else {
            bytes[0] = *p++;
        }
        if (size - at < n || memcmp(wanted + at, bytes, n) != 0) return 0;
        at += n;
    }
    return at == size;
}
