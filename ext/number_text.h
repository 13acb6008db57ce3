/* Numbers to text: integers in decimal, doubles in the shortest digits that read back as the same double.
 *
 * The digits come from Raffaello Giulietti, "The Schubfach way to render doubles" (2020): of the decimals
 * that round to v, the shortest, and of those the closest to v.  It needs 10^k to 128 bits for every k
 * that a double can ask for; the module computes that table once with Python's integers
 * (pf_pow10_exponent tells the scale) instead of carrying 617 constants.
 *
 * The text is Python's repr: 1e-05, 0.0001, 12.0, 1e+16.
 */
#ifndef PYTHIA_NUMBER_TEXT_H
#define PYTHIA_NUMBER_TEXT_H

#include <stdint.h>
#include <string.h>

#define PF_POW10_MIN (-292)
#define PF_POW10_MAX 324
#define PF_NUMBER_TEXT_BYTES 32 /* the longest is 24: -2.2250738585072014e-308 */

/* 10^k, rounded up, is (high * 2^64 + low) * 2^(pf_pow10_exponent(k) - 127). */
typedef struct {
    uint64_t high, low;
} pf_pow10;

static pf_pow10 pf_pow10_table[PF_POW10_MAX - PF_POW10_MIN + 1];

/* floor(log2(10^k)), floor(log10(2^e)), floor(log10(3/4 * 2^e)): exact over the range of a double. */
static inline int32_t pf_pow10_exponent(int32_t k) { return (k * 1741647) >> 19; }
static inline int32_t pf_log10_pow2(int32_t e) { return (e * 1262611) >> 22; }
static inline int32_t pf_log10_three_quarters_pow2(int32_t e) { return (e * 1262611 - 524031) >> 22; }

static const char pf_digit_pairs[] =
    "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
    "5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";

/* Decimal digits of `value`; 1 for 0. */
static inline int pf_count_digits(uint64_t value) {
    static const uint64_t powers[20] = {
        0ull, 10ull, 100ull, 1000ull, 10000ull, 100000ull, 1000000ull, 10000000ull, 100000000ull, 1000000000ull,
        10000000000ull, 100000000000ull, 1000000000000ull, 10000000000000ull, 100000000000000ull, 1000000000000000ull,
        10000000000000000ull, 100000000000000000ull, 1000000000000000000ull, 10000000000000000000ull};
    int guess = ((64 - __builtin_clzll(value | 1)) * 1233) >> 12; /* 1233 / 4096 is just above log10(2) */
    return guess + (value >= powers[guess]);
}

/* Write exactly `digits` digits of `value` (with leading zeros when it has fewer). */
static inline void pf_write_digits(uint8_t *out, uint64_t value, int digits) {
    while (digits >= 2) {
        memcpy(out + digits - 2, pf_digit_pairs + 2 * (value % 100), 2);
        value /= 100;
        digits -= 2;
    }
    if (digits) out[0] = (uint8_t)('0' + value % 10);
}

/* Both integer writers need 20 bytes and return the end of the text. */
static inline uint8_t *pf_write_uint(uint8_t *out, uint64_t value) {
    int digits = pf_count_digits(value);
    pf_write_digits(out, value, digits);
    return out + digits;
}

static inline uint8_t *pf_write_int(uint8_t *out, int64_t value) {
    if (value >= 0) return pf_write_uint(out, (uint64_t)value);
    *out = '-';
    return pf_write_uint(out + 1, 0 - (uint64_t)value);
}

/* The upper 64 bits of power * scaled / 2^128, with bit 0 set when anything below them is lost. */
static inline uint64_t pf_round_to_odd(pf_pow10 power, uint64_t scaled) {
    unsigned __int128 low = (unsigned __int128)power.low * scaled;
    unsigned __int128 sum = (unsigned __int128)power.high * scaled + (uint64_t)(low >> 64);
    return (uint64_t)(sum >> 64) | ((uint64_t)sum > 1);
}

/* Shortest decimal of a finite double > 0 with the given mantissa and biased exponent: the digits (they
 * may end in zeros), and the power of ten they are to be multiplied with. */
static inline uint64_t pf_shortest_decimal(uint64_t mantissa, uint32_t biased, int32_t *power_of_ten) {
    uint64_t c = biased ? mantissa | (1ull << 52) : mantissa;
    int32_t q = biased ? (int32_t)biased - 1075 : -1074;
    uint64_t odd = c & 1;                            /* an even double owns the bounds of its interval */
    int closer_below = mantissa == 0 && biased > 1;  /* the next lower double is half as far away */
    int32_t k = closer_below ? pf_log10_three_quarters_pow2(q) : pf_log10_pow2(q);
    int shift = q + pf_pow10_exponent(-k) + 1;
    pf_pow10 power = pf_pow10_table[-k - PF_POW10_MIN];

    uint64_t lower = pf_round_to_odd(power, (4 * c - 2 + (uint64_t)closer_below) << shift) + odd;
    uint64_t value = pf_round_to_odd(power, (4 * c) << shift);
    uint64_t upper = pf_round_to_odd(power, (4 * c + 2) << shift) - odd;

    uint64_t s = value / 4;
    if (s >= 10) { /* one digit fewer, if exactly one such decimal lies in the interval */
        uint64_t tens = s / 10;
        int down = lower <= 40 * tens;
        int up = 40 * tens + 40 <= upper;
        if (down != up) {
            *power_of_ten = k + 1;
            return tens + (uint64_t)up;
        }
    }
    *power_of_ten = k;
    int down = lower <= 4 * s;
    int up = 4 * s + 4 <= upper;
    if (down != up) return s + (uint64_t)up;
    uint64_t middle = 4 * s + 2;
    return s + (uint64_t)(value > middle || (value == middle && (s & 1)));
}

/* Write a finite double.  Needs PF_NUMBER_TEXT_BYTES, returns the end of the text. */
static inline uint8_t *pf_write_double(uint8_t *out, double number) {
    uint64_t bits;
    memcpy(&bits, &number, 8);
    if (bits >> 63) *out++ = '-';
    uint64_t mantissa = bits & ((1ull << 52) - 1);
    uint32_t biased = (uint32_t)(bits >> 52) & 0x7FF;
    double magnitude = number < 0 ? -number : number;
    if (magnitude < 9007199254740992.0 && (double)(uint64_t)magnitude == magnitude) {
        out = pf_write_uint(out, (uint64_t)magnitude);
        memcpy(out, ".0", 2);
        return out + 2;
    }

    int32_t power;
    uint64_t decimal = pf_shortest_decimal(mantissa, biased, &power);
    if (decimal % 100000000 == 0) { decimal /= 100000000; power += 8; }
    if (decimal % 10000 == 0) { decimal /= 10000; power += 4; }
    if (decimal % 100 == 0) { decimal /= 100; power += 2; }
    while (decimal % 10 == 0) { decimal /= 10; power++; }

    int digits = pf_count_digits(decimal);
    int point = digits + power; /* the decimal point stands after this many digits */
    if (point > 16 || point <= -4) { /* d.ddde+XX */
        pf_write_digits(out + 1, decimal, digits);
        out[0] = out[1];
        if (digits > 1) {
            out[1] = '.';
            out += digits + 1;
        } else {
            out += 1;
        }
        int exponent = point - 1;
        *out++ = 'e';
        *out++ = exponent < 0 ? '-' : '+';
        if (exponent < 0) exponent = -exponent;
        int exponent_digits = exponent < 100 ? 2 : 3;
        pf_write_digits(out, (uint64_t)exponent, exponent_digits);
        return out + exponent_digits;
    }
    if (point <= 0) { /* 0.000ddd */
        memcpy(out, "0.000", 5);
        pf_write_digits(out + 2 - point, decimal, digits);
        return out + 2 - point + digits;
    }
    if (point >= digits) { /* ddd000.0 */
        pf_write_digits(out, decimal, digits);
        memset(out + digits, '0', (size_t)(point - digits));
        memcpy(out + point, ".0", 2);
        return out + point + 2;
    }
    pf_write_digits(out + 1, decimal, digits); /* ddd.ddd */
    memmove(out, out + 1, (size_t)point);
    out[point] = '.';
    return out + digits + 1;
}

#endif
