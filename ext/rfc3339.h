/* RFC 3339 timestamps to microseconds since 1970-01-01T00:00:00Z, read as msgspec reads them:
 *
 *     YYYY-MM-DD, then T, t or a space, HH:MM:SS, [.digits], then nothing, Z, z, +HH:MM or +HHMM
 *
 * Digits beyond the sixth are rounded half up on the seventh.  Hour 24 and second 60 are refused.
 * Without an offset the time is taken as it stands (naive).  An instant that lies outside the years
 * 1 to 9999 once its offset is applied is refused: no datetime in UTC can hold it.
 */
#ifndef PYTHIA_RFC3339_H
#define PYTHIA_RFC3339_H

#include <stddef.h>
#include <stdint.h>

#define PF_DATETIME_MIN_US (-62135596800000000ll) /* 0001-01-01T00:00:00Z */
#define PF_DATETIME_MAX_US 253402300799999999ll   /* 9999-12-31T23:59:59.999999Z */

/* `count` decimal digits at `text` as a number, -1 when one of them is no digit. */
static inline int32_t pf_digits(const uint8_t *text, int count) {
    int32_t value = 0;
    for (int i = 0; i < count; i++) {
        uint8_t digit = (uint8_t)(text[i] - '0');
        if (digit > 9) return -1;
        value = value * 10 + digit;
    }
    return value;
}

static inline int pf_days_in_month(int32_t year, int32_t month) {
    static const uint8_t days[13] = {0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month] + (month == 2 && leap);
}

/* Days from 1970-01-01 to a date of the proleptic Gregorian calendar, year >= 1.  Counts from 1 March
 * of year 0, so that the leap day is the last of its year. */
static inline int64_t pf_days_from_date(int32_t year, int32_t month, int32_t day) {
    int64_t y = month > 2 ? year : year - 1;
    int64_t m = month > 2 ? month - 3 : month + 9;
    return 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + (day - 1) - 719468;
}

/* Parse all of text[0 .. size).  Returns 1 and sets `micros` and `aware` (an offset was given), else 0. */
static inline int pf_rfc3339_parse(const uint8_t *text, size_t size, int64_t *micros, int *aware) {
    if (size < 19) return 0;
    int32_t year = pf_digits(text, 4), month = pf_digits(text + 5, 2), day = pf_digits(text + 8, 2);
    int32_t hour = pf_digits(text + 11, 2), minute = pf_digits(text + 14, 2), second = pf_digits(text + 17, 2);
    if (text[4] != '-' || text[7] != '-' || text[13] != ':' || text[16] != ':') return 0;
    if (text[10] != 'T' && text[10] != 't' && text[10] != ' ') return 0;
    if (year < 1 || month < 1 || month > 12 || day < 1 || day > pf_days_in_month(year, month)) return 0;
    if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59) return 0;

    size_t at = 19;
    int64_t fraction = 0;
    if (at < size && text[at] == '.') {
        size_t first = ++at;
        while (at < size && (uint8_t)(text[at] - '0') <= 9) {
            if (at - first < 6) fraction = fraction * 10 + (text[at] - '0');
            at++;
        }
        size_t digits = at - first;
        if (digits == 0) return 0;
        for (; digits < 6; digits++) fraction *= 10;
        if (at - first > 6 && text[first + 6] >= '5') fraction++;
    }

    int64_t offset_minutes = 0;
    *aware = at < size;
    if (at < size) {
        uint8_t sign = text[at++];
        if (sign == '+' || sign == '-') {
            if (size - at < 4) return 0;
            int32_t hours = pf_digits(text + at, 2);
            at += 2;
            if (text[at] == ':') at++;
            if (size - at != 2) return 0;
            int32_t minutes = pf_digits(text + at, 2);
            at += 2;
            if (hours < 0 || hours > 23 || minutes < 0 || minutes > 59) return 0;
            offset_minutes = sign == '+' ? hours * 60 + minutes : -(hours * 60 + minutes);
        } else if (sign != 'Z' && sign != 'z') {
            return 0;
        }
        if (at != size) return 0;
    }

    int64_t seconds = pf_days_from_date(year, month, day) * 86400 + hour * 3600 + minute * 60 + second;
    int64_t local = seconds * 1000000 + fraction; /* the fraction may have rounded up into the year 10000 */
    int64_t value = local - offset_minutes * 60000000;
    if (local > PF_DATETIME_MAX_US || value < PF_DATETIME_MIN_US || value > PF_DATETIME_MAX_US) return 0;
    *micros = value;
    return 1;
}

#endif
