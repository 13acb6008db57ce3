/* JSON kernel: numbers. */

enum {
    INTEGER = 0,
    TOO_LARGE = 1,  /* above UINT64_MAX */
    NO_INTEGER = 2, /* no digits, or a leading zero; a float is only known by what follows */
};

/* Digits from `p` on; `magnitude` is valid for INTEGER. */
INLINE const uint8_t *read_magnitude(context *c, const uint8_t *p, uint64_t *magnitude, int *what) {
    uint64_t word = peek8(c, p) ^ ZEROS;
    uint64_t stops = not_digits(word);
    int zero_first = (word & 0xFF) == 0;
    *what = INTEGER;
    if (stops) {
        unsigned n = (unsigned)__builtin_ctzll(stops) >> 3;
        if (unlikely(n == 0 || (zero_first && n > 1))) {
            *what = NO_INTEGER;
            return p;
        }
        *magnitude = eight_digits(word << (64 - 8 * n));
        return p + n;
    }
    if (unlikely(zero_first)) {
        *what = NO_INTEGER;
        return p;
    }
    uint64_t value = eight_digits(word);
    p += 8;
    word = peek8(c, p) ^ ZEROS;
    stops = not_digits(word);
    if (likely(stops)) {
        unsigned n = (unsigned)__builtin_ctzll(stops) >> 3;
        /* Two shifts, because one of 64 is undefined. */
        *magnitude = value * ten_to[n] + eight_digits(word << 1 << (63 - 8 * n));
        return p + n;
    }
    value = value * 100000000 + eight_digits(word);
    p += 8;
    for (; p < c->end && (uint8_t)(*p - '0') <= 9; p++) {
        if (unlikely(__builtin_mul_overflow(value, (uint64_t)10, &value) ||
                     __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value)))
            *what = TOO_LARGE;
    }
    *magnitude = value;
    return p;
}

/* Any number as a double, the long way. */
NOINLINE const uint8_t *read_long_double(context *c, int32_t column, const uint8_t *p, unsigned depth, double *value) {
    pf_json_number number;
    if (*p != '-' && (uint8_t)(*p - '0') > 9) return wrong_type(c, column, p, depth);
    const uint8_t *stop = pf_json_number_read(p, c->end, &number);
    if (stop) return broken(c, PF_REASON_NUMBER, stop);
    *value = pf_json_number_double(&number);
    if (*value - *value != 0.0) return refuse(c, PF_REASON_RANGE, column, p);
    return number.end;
}

/* A number as a double.  Up to 19 digits without an exponent are settled here: exactly, where both the
 * digits and the power of ten are doubles (William Clinger, "How to Read Floating Point Numbers
 * Accurately", 1990), else by pf_json_decimal_double. */
INLINE const uint8_t *read_double(context *c, int32_t column, const uint8_t *begin, unsigned depth, double *value) {
    const uint8_t *p = begin;
    int negative = 0;
    if (unlikely(*p == '-')) {
        negative = 1;
        p++;
        KEEP_BRANCH(p);
    }
#ifdef WIDE_DECIMAL
    if (likely(c->end - p >= 16)) {
        unsigned whole, size;
        uint64_t digits = wide_decimal(p, &whole, &size);
        if (likely(whole - 1 < 15 && size < 16 && size != whole + 1 && (*p != '0' || whole == 1) && (p[size] | 0x20) != 'e')) {
            unsigned fraction = size == whole ? 0 : size - whole - 1;
            double result = (double)digits / double_ten_to[fraction];
            *value = negative && (digits != 0 || size != whole) ? -result : result; /* the integer -0 is 0.0 */
            return p + size;
        }
    }
#endif
    uint64_t word = peek8(c, p) ^ ZEROS;
    uint64_t stops = not_digits(word);
    int zero_first = (word & 0xFF) == 0;
    uint64_t mantissa = 0;
    unsigned digits = 0;
    if (unlikely(!stops)) {
        mantissa = eight_digits(word);
        p += 8;
        digits = 8;
        word = peek8(c, p) ^ ZEROS;
        stops = not_digits(word);
        if (unlikely(!stops)) return read_long_double(c, column, begin, depth, value);
    }
    unsigned first = (unsigned)__builtin_ctzll(stops) >> 3;
    digits += first;
    if (unlikely(digits == 0 || (zero_first && digits > 1))) return read_long_double(c, column, begin, depth, value);
    /* Two shifts, because one of 64 is undefined. */
    mantissa = mantissa * ten_to[first] + eight_digits(word << 1 << (63 - 8 * first));
    p += first;
    if (p < c->end && *p == '.') {
        p++;
        word = peek8(c, p) ^ ZEROS;
        stops = not_digits(word);
        unsigned fraction;
        if (likely(stops)) {
            fraction = (unsigned)__builtin_ctzll(stops) >> 3;
            if (unlikely(fraction == 0)) return broken(c, PF_REASON_NUMBER, p);
            mantissa = mantissa * ten_to[fraction] + eight_digits(word << (64 - 8 * fraction));
            p += fraction;
        } else {
            uint64_t eight = eight_digits(word);
            p += 8;
            word = peek8(c, p) ^ ZEROS;
            stops = not_digits(word);
            if (unlikely(!stops)) return read_long_double(c, column, begin, depth, value);
            unsigned more = (unsigned)__builtin_ctzll(stops) >> 3;
            fraction = 8 + more;
            p += more;
            mantissa = (mantissa * 100000000 + eight) * ten_to[more] + eight_digits(word << 1 << (63 - 8 * more));
        }
        if (unlikely(digits + fraction > 19)) return read_long_double(c, column, begin, depth, value);
        if (unlikely(p < c->end && (*p | 0x20) == 'e')) return read_long_double(c, column, begin, depth, value);
        double result;
        if (likely(mantissa <= 1ull << 53)) {
            result = (double)mantissa / double_ten_to[fraction];
        } else if (!pf_json_decimal_double(mantissa, -(int64_t)fraction, &result)) {
            return read_long_double(c, column, begin, depth, value);
        }
        *value = negative ? -result : result;
        return p;
    }
    if (unlikely(p < c->end && (*p | 0x20) == 'e')) return read_long_double(c, column, begin, depth, value);
    *value = negative ? (double)-(int64_t)mantissa : (double)mantissa; /* the integer -0 is 0.0 */
    return p;
}
