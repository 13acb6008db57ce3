/* JSON numbers, the careful way: any length, any exponent.  The kernel reads short ones itself. */
#ifndef PYTHIA_JSON_NUMBER_H
#define PYTHIA_JSON_NUMBER_H

#include <stdint.h>

typedef struct {
    const uint8_t *digits;   /* first digit of the integer part */
    const uint8_t *end;      /* just past the number */
    const uint8_t *fraction; /* first digit after the point; NULL when there is none */
    const uint8_t *fraction_end;
    int64_t exponent;        /* as written; beyond +-10^17 it stays there */
    uint64_t magnitude;      /* of an integer that fits */
    uint8_t negative;
    uint8_t integer;         /* neither a point nor an exponent */
    uint8_t overflow;        /* integer above UINT64_MAX */
} pf_json_number;

/* Read the number that begins at `p` (`-` or a digit, p < end).  Returns NULL, or where the grammar is broken. */
const uint8_t *pf_json_number_read(const uint8_t *p, const uint8_t *end, pf_json_number *number);

/* The double nearest to a number that was read; infinite when it is beyond the largest double. */
double pf_json_number_double(const pf_json_number *number);

/* The double nearest to mantissa * 10^exponent.  Returns 0 in the rare case that 128 bits cannot tell. */
int pf_json_decimal_double(uint64_t mantissa, int64_t exponent, double *value);

#endif
