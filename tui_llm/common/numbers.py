"""Format numbers for display: percentages by one rule, and sums whose rounded terms add up to the rounded total. (14.02
+ 0.77 = 14.80 would look wrong.)"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

COLUMN, SENTENCE = 3, 8  # decimal places of the smallest percentage that is written out, in a column and in a sentence
MOST_DIGITS = 4  # decimal places: beyond that float32's rounding shows
SMALL_LOSS = 0.1  # nats: below, where p is over 90 %, two decimal places would leave one digit of a loss, or 0.00


def counted(number: int, noun: str) -> str:
    """A count with its noun: `1 token`, `2,048 tokens`. The plural takes an s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Format a duration: 12 s, 3 min 20 s, 5 h 7 min, 3 d 4 h; ∞ from 30 years on."""
    if not seconds < 1e9:
        return "∞"
    whole = round(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 2 * 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400:,} d {whole % 86400 // 3600} h"


def file_size(count: int) -> str:
    """Format bytes on disk: 8.6 MB, 1.52 GB."""
    return f"{count / 1e9:.2f} GB" if count >= 999.95e6 else f"{count / 1e6:.1f} MB"


def memory_size(count: float) -> str:
    """Format bytes of memory: 312 MB, 1.4 GB; – where the count is not finite."""
    if not math.isfinite(count):
        return "–"
    return f"{count / 1e9:,.1f} GB" if count >= 999.5e6 else f"{count / 1e6:.0f} MB"


def percent(value: float, places: int = COLUMN) -> str:
    """Format a share as a percentage: 86.6 %, 0.42 %, 0.003 %, <0.001 %. Never in scientific notation, and 0 % only for
    0; a value that needs more than `places` decimal places is shown as less than the last one's unit. At most eight
    characters with the default `places`."""
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


def signed_percent(value: float) -> str:
    """`percent`, of a share that may be below 0: −1.2 %."""
    return f"−{percent(-value)}" if value < 0 else percent(value)


def precise_percent(value: float) -> str:
    """`percent` with more decimal places, for a sentence: 0.000008 %."""
    return percent(value, SENTENCE)


def p_equals(value: float) -> str:
    """Format a probability for a sentence: p = 86.6 %, p < 0.00000001 %."""
    text = precise_percent(value)
    return f"p < {text[1:]}" if text.startswith("<") else f"p = {text}"


def plain(value: float, figures: int) -> str:
    """`figures` significant digits in decimal notation, however small: 0.00001234."""
    from decimal import Decimal  # only long sentences need it

    return f"{Decimal(f'{value:.{figures}g}'):f}"


def loss_places(losses: Iterable[float]) -> int:
    """Decimal places of losses in nats that stand together: 2, or 4 if one of them is small."""
    return MOST_DIGITS if any(0 < loss < SMALL_LOSS for loss in losses) else 2


def at_most(bound: float) -> str:
    """An upper bound of a probability: ≤0.43 %. Rounded up, so that it remains a bound."""
    text = percent(bound)
    if text.startswith("<") or not math.isfinite(bound):
        return text
    digits = len(text.partition(" ")[0].partition(".")[2])
    up = math.ceil(100 * bound * 10**digits - 1e-9) / 10**digits
    return f"≤{up:.{digits}f} %"


def adding(terms: Sequence[float], total: float, digits: int = 2) -> tuple[list[str], str]:
    """Format `terms` and their `total` (14.80, −0.77, ∞) so that the printed terms add up exactly to the printed total.

    All are rounded as usual, with the fewest decimal places (`digits` to `MOST_DIGITS`) at which they add up. If there
    are none, `digits` places are used, and the terms with the largest rounding error in the right direction are
    adjusted by a unit of the last place each. With infinities or NaN nothing is adjusted.
    """
    if not all(map(math.isfinite, (*terms, total))):
        return [_word(term, digits) for term in terms], _word(total, digits)
    made = rounded([(terms, total)], digits)
    return [written(unit, made.places) for unit in made.columns[0]], written(made.totals[0], made.places)


class Rounded(NamedTuple):  # not a dataclass: `--help` imports this module, and `dataclasses` is slow
    """Columns of numbers in units of one last decimal place: integers, so that what is printed adds up exactly, also
    after the columns' terms were added or subtracted."""

    places: int
    columns: tuple[tuple[int, ...], ...]
    totals: tuple[int, ...]


def rounded(columns: Sequence[tuple[Sequence[float], float]], digits: int = 2) -> Rounded:
    """Round columns of finite terms, each with its total, as `adding` does, all with the same decimal places."""
    most = max(digits, MOST_DIGITS)
    for places in range(digits, most + 1):
        units = [tuple(_units(term, places) for term in terms) for terms, _ in columns]
        totals = tuple(_units(total, places) for _, total in columns)
        if all(sum(terms) == total for terms, total in zip(units, totals, strict=True)):
            return Rounded(places, tuple(units), totals)
    adjusted = tuple(tuple(_adjusted(terms, total, digits)) for terms, total in columns)
    return Rounded(digits, adjusted, tuple(_units(total, digits) for _, total in columns))


def _adjusted(terms: Sequence[float], total: float, digits: int) -> list[int]:
    units, whole = [_units(term, digits) for term in terms], _units(total, digits)
    missing = whole - sum(units)
    sign = 1 if missing > 0 else -1
    order = sorted(range(len(terms)), key=lambda at: sign * (units[at] / 10**digits - terms[at]))
    share, more = divmod(abs(missing), max(1, len(terms)))
    for place, at in enumerate(order):
        units[at] += sign * (share + (place < more))
    return units


def difference(minuend: float, subtrahend: float, rest: float, digits: int = 2) -> tuple[str, str, str]:
    """Format minuend − subtrahend = rest, rounded as by `adding`; a negative subtrahend is put in parentheses."""
    (first, second), whole = adding([minuend, -subtrahend], rest, digits)
    if second.startswith("−"):
        return first, second[1:], whole
    return first, second if second.strip("0.") in ("", "NaN") else f"(−{second})", whole


def differences(
    rows: Sequence[tuple[float, float, float]], total: float, digits: int = MOST_DIGITS
) -> tuple[list[tuple[str, str, str]], str]:
    """Format rows of minuend − subtrahend = rest, each as `difference` does, so that the rests also add up to `total`."""
    rests = [rest for _, _, rest in rows]
    if all(map(math.isfinite, (*rests, total))):
        made = rounded([(rests, total)], digits)
        rests, digits = [unit / 10**made.places for unit in made.columns[0]], made.places
    return [difference(row[0], row[1], rest, digits) for row, rest in zip(rows, rests, strict=True)], _word(
        total, digits
    )


def printed_change(before: float, after: float, digits: int = MOST_DIGITS) -> str:
    """Format after − before with its sign: +0.0412, −0.3000, 0.0000. It is the difference of the two numbers as printed
    with `digits` decimal places, so that a reader who subtracts them gets the same."""
    if not (math.isfinite(before) and math.isfinite(after)):
        units, text = after - before, _word(after - before, digits)
    else:
        units = _units(after, digits) - _units(before, digits)
        text = written(units, digits)
    return f"+{text}" if units > 0 else text


def _units(value: float, places: int) -> int:
    """The value in units of the last decimal place: −0.77 is −77 hundredths. Integers, so that sums are exact."""
    return int(f"{value:.{places}f}".replace(".", ""))


def written(units: int, places: int) -> str:
    """Format a number given in units of its last decimal place: −77 with 2 places is −0.77."""
    whole, part = divmod(abs(units), 10**places)
    return ("−" if units < 0 else "") + f"{whole:,}" + (f".{part:0{places}d}" if places else "")


def _word(value: float, digits: int) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return written(_units(value, digits), digits)
