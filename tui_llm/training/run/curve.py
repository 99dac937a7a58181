"""Curves of any length in bounded memory: what a loss chart is drawn from. Pure functions; nothing here draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from tui_llm.training.run.metrics import LARGEST_STEP

BUCKETS = 2048  # of a curve: more than any terminal has columns

Point = tuple[int, float]
"""(step, loss in nats per token)"""

Sum = tuple[int, float, int]
"""Some neighbouring steps: the last of them, the sum of their losses, how many they are."""


@dataclass(frozen=True, slots=True)
class Average:
    """A curve's moving average over `window` steps, which are `share` of all steps of the run."""

    share: float
    window: int
    points: tuple[Point, ...]


@dataclass(slots=True)
class _Bucket:
    low: Point
    high: Point
    last: int
    total: float
    count: int


def _loss(point: Point) -> float:
    return point[1]


class Envelope:
    """A curve of any length in bounded memory: for each bucket of neighbouring steps, its lowest and its highest
    point, and the sum. Buckets double in width as the curve grows, so a spike is never lost. What is no finite number
    is left out."""

    def __init__(self, buckets: int = BUCKETS) -> None:
        self._most = buckets
        self._width = 1
        self._buckets: dict[int, _Bucket] = {}

    def add(self, step: int, value: float) -> None:
        if not (math.isfinite(value) and 0 <= step < LARGEST_STEP):
            return
        at = step // self._width
        if at >= self._most:
            while step // self._width >= self._most:
                self._width *= 2
            self._merge()
            at = step // self._width
        bucket = self._buckets.get(at)
        if bucket is None:
            self._buckets[at] = _Bucket((step, value), (step, value), step, value, 1)
            return
        if value < bucket.low[1]:
            bucket.low = (step, value)
        elif value > bucket.high[1]:
            bucket.high = (step, value)
        bucket.last = max(bucket.last, step)
        bucket.total += value
        bucket.count += 1

    def _merge(self) -> None:
        """Puts the buckets into wider ones."""
        before, self._buckets = self._buckets.values(), {}
        for new in before:
            old = self._buckets.setdefault(new.last // self._width, new)
            if old is not new:
                old.low = min(old.low, new.low, key=_loss)
                old.high = max(old.high, new.high, key=_loss)
                old.last = max(old.last, new.last)
                old.total += new.total
                old.count += new.count

    def points(self) -> tuple[Point, ...]:
        """In the order of their steps, at most two a bucket."""
        return tuple(sorted({point for bucket in self._buckets.values() for point in (bucket.low, bucket.high)}))

    def sums(self) -> list[Sum]:
        """One a bucket, in the order of their steps: for `moving_average`."""
        return sorted((bucket.last, bucket.total, bucket.count) for bucket in self._buckets.values())


def moving_average(sums: Sequence[Sum], window: int) -> tuple[Point, ...]:
    """For each of `sums` the plain mean of the losses of the last `window` steps up to its own (of fewer at the start).
    A sum that lies only partly in the window counts whole: with one step in each, the mean is exact.

    Nothing is ever taken off a sum: what left the window would leave a spike's rounding error behind for ever. The window is
    kept in two parts instead, of which the older has its sums from each place to its end, made once for each part.
    """
    points: list[Point] = []
    first = ends = 0  # where the window begins, and where its older part ends
    older: list[tuple[float, int]] = []  # what is left of it, backwards: (losses, how many) from there to its end
    losses, counted = 0.0, 0  # of the younger part
    for at, (step, total, count) in enumerate(sums):
        losses, counted = losses + total, counted + count
        while sums[first][0] <= step - window:
            first += 1
        if first >= ends:
            ends, losses, counted = at + 1, 0.0, 0
            older = list(accumulate((sums[i][1:] for i in range(at, first - 1, -1)), _both))
        del older[ends - first :]
        mean = (older[-1][0] + losses) / (older[-1][1] + counted)
        if math.isfinite(mean):
            points.append((step, mean))
    return tuple(points)


def _both(a: tuple[float, int], b: tuple[float, int]) -> tuple[float, int]:
    return a[0] + b[0], a[1] + b[1]


def decimate(points: Sequence[Point], columns: int) -> list[Point]:
    """At most two points for each of `columns` columns of a chart: the lowest and the highest there."""
    if len(points) <= 2 or columns < 1:
        return list(points)
    first, span = points[0][0], points[-1][0] - points[0][0] + 1
    kept: dict[int, tuple[Point, Point]] = {}
    for point in points:
        column = (point[0] - first) * columns // span
        low, high = kept.get(column, (point, point))
        kept[column] = (point if point[1] < low[1] else low, point if point[1] > high[1] else high)
    return sorted({point for pair in kept.values() for point in pair})


def within(points: Sequence[Point], left: float, right: float) -> list[Point]:
    """The points of finite value whose steps lie in left…right."""
    return [point for point in points if left <= point[0] <= right and math.isfinite(point[1])]
