/* From decimal digits to the nearest double.
 *
 * Most numbers are settled by one or two 64-bit multiplications with a 128-bit power of five: Daniel
 * Lemire, "Number Parsing at a Gigabyte per Second" (2021), with the rule for more than 19 digits of
 * section 11.  What is left goes through strtod in the C locale, on at most SIGNIFICANT digits.
 */
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__APPLE__)
#include <xlocale.h>
#endif

#include "json_number.h"
#include "json_powers.h"

#define EXPONENT_LIMIT 100000000000000000ll

/* Halfway between two doubles there is a decimal of at most 767 digits; one more non-zero digit after
 * them can only say "above". */
#define SIGNIFICANT 770

static inline int is_digit(const uint8_t *p, const uint8_t *end) { return p < end && (uint8_t)(*p - '0') <= 9; }

const uint8_t *pf_json_number_read(const uint8_t *p, const uint8_t *end, pf_json_number *number) {
    memset(number, 0, sizeof *number);
    number->integer = 1;
    if (*p == '-') {
        number->negative = 1;
        p++;
    }
    number->digits = p;
    if (!is_digit(p, end)) return p;
    const uint8_t *first = p;
    for (; is_digit(p, end); p++) {
        uint64_t digit = (uint64_t)(*p - '0');
        number->overflow |= __builtin_mul_overflow(number->magnitude, (uint64_t)10, &number->magnitude);
        number->overflow |= __builtin_add_overflow(number->magnitude, digit, &number->magnitude);
    }
    if (*first == '0' && p - first > 1) return first + 1;
    number->end = p;
    if (p < end && *p == '.') {
        number->integer = 0;
        number->fraction = ++p;
        if (!is_digit(p, end)) return p;
        while (is_digit(p, end)) p++;
        number->fraction_end = p;
        number->end = p;
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        number->integer = 0;
        p++;
        int below = p < end && *p == '-';
        if (p < end && (*p == '-' || *p == '+')) p++;
        if (!is_digit(p, end)) return p;
        int64_t exponent = 0;
        for (; is_digit(p, end); p++)
            if (exponent < EXPONENT_LIMIT) exponent = exponent * 10 + (*p - '0');
        number->exponent = below ? -exponent : exponent;
        number->end = p;
    }
    return NULL;
}

static inline double from_bits(uint64_t bits) {
    double value;
    memcpy(&value, &bits, 8);
    return value;
}

int pf_json_decimal_double(uint64_t mantissa, int64_t exponent, double *value) {
    if (mantissa == 0 || exponent < PF_JSON_POWER_MIN) {
        *value = 0.0; /* below a quarter of the smallest subnormal even with 20 digits */
        return 1;
    }
    if (exponent > PF_JSON_POWER_MAX) {
        *value = HUGE_VAL;
        return 1;
    }
    const uint64_t *power = pf_json_powers[exponent - PF_JSON_POWER_MIN];
    int zeros = __builtin_clzll(mantissa);
    uint64_t scaled = mantissa << zeros;
    unsigned __int128 product = (unsigned __int128)scaled * power[0];
    uint64_t high = (uint64_t)(product >> 64), low = (uint64_t)product;
    if ((high & 0x1FF) == 0x1FF) { /* a carry from the power's lower word could still reach the 55 bits we keep */
        uint64_t carry = (uint64_t)(((unsigned __int128)scaled * power[1]) >> 64);
        low += carry;
        high += low < carry;
        if (low == UINT64_MAX && (exponent < -27 || exponent > 55)) return 0;
    }
    int top = (int)(high >> 63);
    int shift = top + 64 - 52 - 3;
    uint64_t kept = high >> shift; /* 53 bits and one to round by */
    /* floor(log2(10^q)) = (217706 * q) >> 16 over the table's range */
    int64_t biased = ((217706 * exponent) >> 16) + 63 + top - zeros + 1023;
    if (biased <= 0) { /* subnormal */
        int64_t down = 1 - biased;
        if (down >= 64) {
            *value = 0.0;
            return 1;
        }
        kept >>= down;
        kept = (kept + (kept & 1)) >> 1;
        *value = from_bits(kept); /* a carry into bit 52 makes it the smallest normal number by itself */
        return 1;
    }
    /* Exactly half way (5^q fits 64 bits, nothing was cut off): round to even. */
    if (low <= 1 && exponent >= -4 && exponent <= 23 && (kept & 3) == 1 && kept << shift == high) kept &= ~1ull;
    kept = (kept + (kept & 1)) >> 1;
    if (kept >> 53) {
        kept >>= 1;
        biased++;
    }
    *value = biased >= 0x7FF ? HUGE_VAL : from_bits(((uint64_t)biased << 52) | (kept & ((1ull << 52) - 1)));
    return 1;
}

static locale_t c_locale(void) {
    static locale_t made;
    locale_t known = __atomic_load_n(&made, __ATOMIC_ACQUIRE);
    if (known) return known;
    locale_t fresh = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!__atomic_compare_exchange_n(&made, &known, fresh, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        freelocale(fresh);
        return known;
    }
    return fresh;
}

/* The digits of a number one after the other, without its leading zeros and its point. */
typedef struct {
    const uint8_t *at, *end;           /* of the part that is being read */
    const uint8_t *then, *then_end;    /* of the part after it */
    int64_t exponent;                  /* of the last digit read, before the written exponent is added */
} digit_reader;

static int next_digit(digit_reader *reader) {
    if (reader->at == reader->end) {
        if (reader->then == NULL || reader->then == reader->then_end) return -1;
        reader->at = reader->then;
        reader->end = reader->then_end;
        reader->then = NULL;
    }
    reader->exponent--;
    return *reader->at++ - '0';
}

static double slow_double(const pf_json_number *number, digit_reader reader, int digit) {
    char text[SIGNIFICANT + 32];
    int size = 0, more = 0;
    int64_t exponent = 0;
    for (; digit >= 0; digit = next_digit(&reader)) {
        if (size < SIGNIFICANT) {
            text[size++] = (char)('0' + digit);
            exponent = reader.exponent;
        } else {
            more |= digit;
        }
    }
    if (more) {
        text[size++] = '1';
        exponent--;
    }
    exponent += number->exponent;
    if (exponent > 400) exponent = 400;
    if (exponent < -2000) exponent = -2000;
    snprintf(text + size, 32, "e%d", (int)exponent);
    return strtod_l(text, NULL, c_locale());
}

double pf_json_number_double(const pf_json_number *number) {
    const uint8_t *integer_end = number->digits;
    while (is_digit(integer_end, number->end)) integer_end++;
    digit_reader reader = {number->digits, integer_end, number->fraction, number->fraction_end,
                           integer_end - number->digits};
    int digit = next_digit(&reader);
    while (digit == 0) digit = next_digit(&reader);
    double value = 0.0;
    if (digit > 0) {
        digit_reader first = reader;
        int first_digit = digit;
        uint64_t mantissa = 0;
        int64_t exponent = 0;
        int cut = 0;
        for (int count = 0; digit >= 0; digit = next_digit(&reader)) {
            if (count < 19) {
                mantissa = mantissa * 10 + (uint64_t)digit;
                exponent = reader.exponent;
                count++;
            } else {
                cut |= digit;
            }
        }
        exponent += number->exponent;
        double above;
        int known = pf_json_decimal_double(mantissa, exponent, &value);
        if (known && cut) known = pf_json_decimal_double(mantissa + 1, exponent, &above) && above == value;
        if (!known) value = slow_double(number, first, first_digit);
    }
    return number->negative && !(number->integer && value == 0.0) ? -value : value;
}
