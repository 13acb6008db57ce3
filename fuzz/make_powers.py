"""Print pf_pow10_table of ext/number_text.h, which the extension fills when it is imported, as a C initialiser."""

for k in range(-292, 325):
    shift = 127 - (k * 1741647 >> 19)
    numerator, denominator = 10 ** max(k, 0) << max(shift, 0), 10 ** max(-k, 0) << max(-shift, 0)
    power = -(-numerator // denominator)
    print(f"{{{power >> 64:#x}, {power & 0xFFFFFFFFFFFFFFFF:#x}}},")
