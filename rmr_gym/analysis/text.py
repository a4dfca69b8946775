"""Numbers, p-values and verdicts as short text, the same in the terminal and in the report."""

import math

MISSING = "–"


def number(value: float, digits: int = 3) -> str:
    """Return a number with so many decimals, or a dash for NaN."""
    return MISSING if math.isnan(value) else f"{value:.{digits}f}"


def signed(value: float, digits: int = 3) -> str:
    """Return a difference with its sign, a true minus, or a dash for NaN."""
    if math.isnan(value):
        return MISSING
    rounded = round(value, digits)
    return f"{rounded:+.{digits}f}".replace("-", "−") if rounded else f"{0:.{digits}f}"


def spread(mean: float, deviation: float, digits: int = 3) -> str:
    """Return ``mean ± deviation``; the mean alone where one seed has no deviation."""
    if math.isnan(mean) or math.isnan(deviation):
        return number(mean, digits)
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def interval(low: float, high: float) -> str:
    """Return ``low to high`` with signs, or a dash for NaN."""
    return MISSING if math.isnan(low) else f"{signed(low)} to {signed(high)}"


def p_value(p: float) -> str:
    """Return a p-value to three decimals, or ``<0.001``, or a dash for NaN."""
    if math.isnan(p):
        return MISSING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds: float) -> str:
    """Return seconds as people say them: ``45 s``, ``4 min 12 s``, ``3 h 05 min``."""
    if math.isnan(seconds):
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def listing(names: list[str]) -> str:
    """Return ``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def named(names: list[str], most: int = 6) -> str:
    """Return `` (a, b and c)``; nothing for no name, or for too many to read."""
    return f" ({listing(names)})" if 0 < len(names) <= most else ""
