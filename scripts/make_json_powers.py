"""Write ext/json_powers.h: the powers of five that turn decimal floats into binary ones.

    python scripts/make_json_powers.py > ext/json_powers.h

For q from -342 to 308 the table holds the first 128 bits of 5**q, the highest bit set. Powers with a positive
exponent are truncated; those with a negative one are the reciprocal rounded up, as the proof in Daniel Lemire,
"Number Parsing at a Gigabyte per Second" (Software: Practice and Experience 51, 2021), section 5, asks for.
All arithmetic is on Python's integers, so it is exact.
"""

FIRST, LAST = -342, 308
HEADER = """\
/* Made by scripts/make_json_powers.py: the first 128 bits of 5^q, high word first, for q from {first} to {last}. */
#ifndef PYTHIA_JSON_POWERS_H
#define PYTHIA_JSON_POWERS_H

#include <stdint.h>

#define PF_JSON_POWER_MIN ({first})
#define PF_JSON_POWER_MAX {last}

static const uint64_t pf_json_powers[{count}][2] = {{"""


def power(q: int) -> int:
    """5**q scaled by a power of two into [2**127, 2**128)."""
    if q >= 0:
        value = 5**q
        excess = value.bit_length() - 128
        return value >> excess if excess > 0 else value << -excess
    divisor = 5**-q
    scale = divisor.bit_length() + 127
    reciprocal = (1 << scale) // divisor + 1
    excess = reciprocal.bit_length() - 128
    return reciprocal >> excess if excess > 0 else reciprocal


def main() -> None:
    print(HEADER.format(first=FIRST, last=LAST, count=LAST - FIRST + 1))
    for q in range(FIRST, LAST + 1):
        value = power(q)
        print(f"    {{0x{value >> 64:016x}u, 0x{value & (2**64 - 1):016x}u}}, /* {q} */")
    print("};\n\n#endif")


if __name__ == "__main__":
    main()
