"""How numbers are rounded to be printed: shares in per cent, one rule everywhere; and sums that add up as they are printed:
14.02 + 0.77 = 14.80 would be wrong arithmetic to whoever reads it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

MOST_DIGITS = 4  # after the point: beyond that float32's own rounding shows


def percent(value: float) -> str:
    """86.6 %, 0.42 %, 0.003 %, 4e-05 %: at most eight characters, and never 0 for what is more."""
    if not math.isfinite(value):
        return _word(value, 0)
    hundred = 100 * value
    if hundred == 0:
        return "0 %"
    if hundred >= 9.995:
        return f"{hundred:.1f} %"
    if hundred >= 0.00995:
        return f"{hundred:.2f} %"
    if hundred >= 0.00095:
        return f"{hundred:.3f} %"
    return f"{hundred:.0e} %"


def adding(terms: Sequence[float], total: float, digits: int = 2) -> tuple[list[str], str]:
    """`terms` and their `total` as texts (14.80, −0.77, ∞) whose numbers sum to the total's exactly.

    Each is rounded as usual, to as few digits (`digits` to `MOST_DIGITS`) as it takes to add up. Where none does,
    `digits` are kept and what is missing is taken up by the terms that rounding took furthest from there, a unit of the
    last digit each. Infinities and NaN are words, and nothing is added then.
    """
    if not all(map(math.isfinite, (*terms, total))):
        return [_word(term, digits) for term in terms], _word(total, digits)
    for places in range(digits, max(digits, MOST_DIGITS) + 1):
        units, whole = [_units(term, places) for term in terms], _units(total, places)
        if sum(units) == whole:
            return [_written(unit, places) for unit in units], _written(whole, places)
    units, whole = [_units(term, digits) for term in terms], _units(total, digits)
    missing = whole - sum(units)
    sign = 1 if missing > 0 else -1
    order = sorted(range(len(terms)), key=lambda at: sign * (units[at] / 10**digits - terms[at]))
    share, more = divmod(abs(missing), max(1, len(terms)))
    for place, at in enumerate(order):
        units[at] += sign * (share + (place < more))
    return [_written(unit, digits) for unit in units], _written(whole, digits)


def difference(minuend: float, subtrahend: float, rest: float, digits: int = 2) -> tuple[str, str, str]:
    """minuend − subtrahend = rest, as `adding` rounds them; a negative subtrahend in brackets."""
    (first, second), whole = adding([minuend, -subtrahend], rest, digits)
    if second.startswith("−"):
        return first, second[1:], whole
    return first, second if second.strip("0.") in ("", "NaN") else f"(−{second})", whole


def _units(value: float, places: int) -> int:
    """How many units of the last digit: −0.77 is −77 hundredths. Whole numbers, so that sums of any size are exact."""
    return int(f"{value:.{places}f}".replace(".", ""))


def _written(units: int, places: int) -> str:
    whole, part = divmod(abs(units), 10**places)
    return ("−" if units < 0 else "") + f"{whole:,}" + (f".{part:0{places}d}" if places else "")


def _word(value: float, digits: int) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return _written(_units(value, digits), digits)
