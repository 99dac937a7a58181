"""How numbers are rounded to be printed: shares in per cent, one rule everywhere; and sums that add up as they are printed:
14.02 + 0.77 = 14.80 would be wrong arithmetic to whoever reads it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal

COLUMN, SENTENCE = 3, 8  # digits after the point of a share in per cent: the smallest that are still written out
MOST_DIGITS = 4  # after the point: beyond that float32's own rounding shows


def percent(value: float, places: int = COLUMN) -> str:
    """86.6 %, 0.42 %, 0.003 %, <0.001 %: plain decimals, never 0 for what is more; what would need more than `places` after
    the point is less than a unit of the last. In a column eight characters at most."""
    if not math.isfinite(value):
        return _word(value, 0)
    hundred = 100 * value
    if hundred == 0:
        return "0 %"
    if hundred >= 9.995:
        return f"{hundred:.1f} %"
    for digits in range(2, places + 1):
        if hundred >= 0.95 * 10.0**-digits:
            return f"{hundred:.{digits}f} %"
    return f"<{10.0**-places:.{places}f} %"


def percent_said(value: float) -> str:
    """`percent` in a sentence, where there is room: 0.000008 %."""
    return percent(value, SENTENCE)


def p_said(value: float) -> str:
    """p = 86.6 %, p < 0.00000001 %."""
    said = percent_said(value)
    return f"p < {said[1:]}" if said.startswith("<") else f"p = {said}"


def plain(value: float, figures: int) -> str:
    """So many figures as a plain decimal, however small: 0.00001234."""
    return f"{Decimal(f'{value:.{figures}g}'):f}"


def at_most(bound: float) -> str:
    """≤0.43 %, of a probability of which only this bound is known: rounded up, so that it stays true."""
    said = percent(bound)
    if said.startswith("<") or not math.isfinite(bound):
        return said
    digits = len(said.partition(" ")[0].partition(".")[2])
    up = math.ceil(100 * bound * 10**digits - 1e-9) / 10**digits
    return f"≤{up:.{digits}f} %"


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
