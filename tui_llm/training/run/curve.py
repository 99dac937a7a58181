"""Loss curves of any length in bounded memory, for the loss chart. Pure functions and data; nothing here draws."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from tui_llm.training.run.metrics import LARGEST_FLOAT, LARGEST_STEP

SHARES = (0.01, 0.05)  # windows of the moving averages, as fractions of all steps
BUCKETS = 2048  # of a curve: more than a terminal has columns

Point = tuple[int, float]
"""(step, loss in nats per token)"""

Sum = tuple[int, float, int]
"""Some neighbouring steps: the last of them, the sum of their losses, how many they are."""


@dataclass(frozen=True, slots=True)
class Average:
    """A curve's moving average over `window` steps; `share` is `window` as a fraction of all steps of the run."""

    share: float
    window: int
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class ParentCurve:
    """The training loss of the run that another one branches from, up to the branch's step."""

    name: str
    step: int
    train: Sequence[Point] = ()


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
    """A curve of any length in bounded memory.

    Each bucket covers a range of consecutive steps and keeps the lowest point, the highest point and the sum of the
    losses. The buckets double in width as the curve grows, so a spike is never lost. Values that are not finite are
    ignored.
    """

    def __init__(self, buckets: int = BUCKETS) -> None:
        self._most = buckets
        self._width = 1
        self._buckets: dict[int, _Bucket] = {}

    def add(self, step: int, value: float) -> None:
        """Adds a point; one that is not finite, or beyond float32, or whose step is out of range is ignored."""
        if not (abs(value) <= LARGEST_FLOAT and 0 <= step < LARGEST_STEP):
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
        """Merges the buckets after their width has been doubled."""
        before, self._buckets = self._buckets.values(), {}
        for new in before:
            old = self._buckets.setdefault(new.last // self._width, new)
            if old is not new:
                old.low = min(old.low, new.low, key=_loss)
                old.high = max(old.high, new.high, key=_loss)
                old.last = max(old.last, new.last)
                old.total += new.total
                old.count += new.count

    def cut(self, step: int) -> None:
        """Drops the points from `step` on, for a log that was resumed there.

        Of a bucket that covers earlier steps too, the lowest or highest point before `step` stays, if there is one.
        """
        for at, bucket in list(self._buckets.items()):
            if bucket.last < step:
                continue
            kept = [point for point in (bucket.low, bucket.high) if point[0] < step]
            if not kept:
                del self._buckets[at]
                continue
            low, high = min(kept, key=_loss), max(kept, key=_loss)
            total = math.fsum(value for _, value in kept)
            self._buckets[at] = _Bucket(low, high, max(point[0] for point in kept), total, len(kept))

    def points(self) -> tuple[Point, ...]:
        """Returns the lowest and highest point of each bucket, in the order of steps."""
        return tuple(sorted({point for bucket in self._buckets.values() for point in (bucket.low, bucket.high)}))

    def sums(self) -> list[Sum]:
        """Returns one sum for each bucket, in the order of steps, for `moving_average`."""
        return sorted((bucket.last, bucket.total, bucket.count) for bucket in self._buckets.values())


def moving_average(sums: Sequence[Sum], window: int) -> tuple[Point, ...]:
    """Returns, for each element of `sums`, the mean loss of the last `window` steps up to that element's last step.

    At the start there are fewer steps. A sum that is only partly inside the window counts fully; if each sum covers one
    step, the mean is exact.

    Sums that leave the window are not subtracted: after a spike, subtraction would leave a rounding error in all later
    means. Instead the window is kept in two parts, like a queue of two stacks: suffix sums of the older part, which are
    computed once when it is formed, and a running sum of the newer part.
    """
    points: list[Point] = []
    first = ends = 0  # start of the window, end of its older part
    older: list[tuple[float, int]] = []  # suffix sums of the older part, last first: (losses, steps)
    losses, counted = 0.0, 0  # of the newer part
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
    """Returns the lowest and the highest point in each of `columns` columns of a chart."""
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
    """Returns the finite points whose step is in [left, right]."""
    return [point for point in points if left <= point[0] <= right and math.isfinite(point[1])]


def at_or_before(points: Sequence[Point], step: int) -> Point | None:
    """Returns the last point whose step is at most `step`; None if there is none."""
    found = bisect_right(points, step, key=lambda point: point[0])
    return points[found - 1] if found else None


NEAR = 8  # points on each side of a spike that it is compared with


def spikes(points: Sequence[Point], most: int = 20) -> list[Point]:
    """Returns up to `most` points that stand out above their neighbours, the furthest first.

    A point's height is its value minus the median of the `NEAR` points before it and as many after it (fewer near an end);
    only points higher than all of those count.
    """
    found = []
    for at in range(2, len(points) - 2):
        near = min(NEAR, at, len(points) - 1 - at)
        around = [value for _, value in (*points[at - near : at], *points[at + 1 : at + near + 1])]
        if points[at][1] > max(around):
            found.append((points[at][1] - statistics.median(around), points[at]))
    return [point for _, point in sorted(found, key=lambda one: -one[0])[:most]]
