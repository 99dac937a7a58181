"""Axis ticks: where they are placed, and the label of a step."""

from __future__ import annotations

import math


def nice_ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` (2 or more) round numbers in low…high: multiples of 1, 2 or 5 times a power of ten. Returns the
    two ends if fewer than two round numbers lie between."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    for factor in (1, 2, 5, 10, 20, 50):
        unit = factor * power
        first, last = math.ceil(low / unit - 1e-9), math.floor(high / unit + 1e-9)
        if last - first + 1 <= most:
            break
    ticks = [round(i * unit, 12) for i in range(first, last + 1)]
    return ticks if len(ticks) >= 2 else [low, high]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` round numbers in low…high (both above 0) for a logarithmic axis."""
    for factors in ((1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 5), (1, 3), (1,)):
        ticks = [
            factor * 10.0**power
            for power in range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
            for factor in factors
            if low <= factor * 10.0**power <= high
        ]
        if len(ticks) <= most:
            break
    if len(ticks) > most:
        ticks = ticks[:: -(-len(ticks) // most)]
    return ticks if len(ticks) >= 2 else nice_ticks(low, high, most)


def step_label(step: float) -> str:
    if step >= 1e6:
        return f"{step / 1e6:g}M"
    return f"{step / 1e3:g}k" if step >= 10_000 and step % 100 == 0 else f"{step:,.0f}"
