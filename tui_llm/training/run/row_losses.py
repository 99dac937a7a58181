"""What metrics.jsonl keeps of the mean losses of a step's rows: the largest one, and what rows have otherwise. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

NORMAL = 1.4826  # × the median absolute deviation: the standard deviation of normal values


def summary(losses: Sequence[float]) -> dict[str, float | int]:
    """Fields of `Metric` for the rows' mean `losses`, in nats per token: five digits of each. Empty for fewer than two rows,
    and if a loss is not finite."""
    if len(losses) < 2 or not math.isfinite(sum(losses)):
        return {}
    median, largest = _median(losses), max(losses)
    spread = NORMAL * _median([abs(loss - median) for loss in losses])
    return {"row_loss": _short(largest), "row": losses.index(largest), "row_median": _short(median), "row_spread": _short(spread)}  # fmt: skip


def _median(values: Sequence[float]) -> float:
    """`statistics.median`, which takes longer: it is needed at each step."""
    ordered, middle = sorted(values), len(values) // 2
    return ordered[middle] if len(values) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _short(value: float) -> float:
    return float(f"{value:.5g}")
