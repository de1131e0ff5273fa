"""Numbers and tables as text."""


def short(number: float, digits: int = 3) -> str:
    """A number with so many significant digits: 0.0173, and from 0.01 down 2.6e-4."""
    if not 0 < abs(number) < 0.01:
        return f"{number:.{digits}g}"
    mantissa, exponent = f"{number:.{digits - 1}e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"
