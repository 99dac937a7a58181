"""A band in which a run's training loss will lie at its end, from the run so far, its schedule, and earlier runs of its shape.

The loss of step s is fitted as

    L(s) = L₀ + A · (S(s) / S_end)^−α − C · D(s)

with S(s) the sum of the learning rates up to step s, and D(s) = 1 − lr(s) ÷ peak how far the rate has decayed (0 in the
warm-up). This is the law of Tissue et al. 2024, "Scaling law with learning rate annealing" (arXiv 2408.11029), whose second
sum over the decay is replaced by the decay itself: what its momentum adds is small in short runs. Luo et al. 2025 (arXiv 2503.12811)
has a richer form. α is averaged over a grid, weighted by the fit; L₀, A and C have wide normal priors, relative to the loss, so that what the run has not shown
yet (C, before the decay) stays uncertain instead of free.

The width has four parts: the fit's own uncertainty, scaled by its residuals; `FALL_ERROR` × the fall that is still expected;
`LEFT_ERROR` × the loss × the share of the steps that are left, for what the law does not know; the noise of the mean at the end. Their factors were set on runs stored by `scripts/stored_runs.py`; held-out runs of that script
check them. Earlier runs shift and scale the band by the errors that their own bands had at the same share of the steps.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tui_llm.training.run.changes import LearningRateChange, settings_at
from tui_llm.training.run.curve import Sum
from tui_llm.training.run.settings import TrainingSettings, learning_rate

PLACES, MOST_PLACES = 2, 4  # decimal places of its losses, and at most where the bounds would be the same number
SHARE = 0.8  # of the ends that the band holds, of runs that depart from the law as the stored ones did
# Standard deviations; a normal error would need 1.28 on both sides, but small models learn things late, and fall further.
BELOW, ABOVE = 1.6, 1.15
EARLY = 0.5  # by which share the width grows towards the start of the run, from half of it back
END = 0.05  # share of the steps at the end whose mean loss is predicted
EXPONENTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, 1.2)
PRIORS = ((0.8, 0.5), (0.1, 2.0), (0.1, 0.05))  # mean and standard deviation of L₀, A and C, as shares of the loss now
FALL_ERROR = 0.5  # × the expected fall
LEFT_ERROR = 0.1  # × the loss × the share of the steps that are left
LATER = 0.5  # the fit uses the steps from this share of those done: early steps follow another law
BINS = 32
LEAST = 32  # steps after the warm-up, and of a branch's own
LEAST_SHARE = 0.1  # of all steps
AGAIN = 0.02  # share of the steps after which earlier runs are compared again
GRID = 512  # points of the schedule that are integrated
NARROWEST = 0.85  # × the width without earlier runs: they can widen the band more than narrow it
STIFFNESS = 4  # number of earlier runs that count as much as what the other runs gave


@dataclass(frozen=True, slots=True)
class LossBand:
    """Losses in nats per token: the mean of the last `window` steps will lie in [low, high], with `share` as its probability.

    earlier: number of earlier runs that it uses. missing: why there is no band yet; `low` and `high` are then NaN.
    """

    low: float = math.nan
    expected: float = math.nan
    high: float = math.nan
    window: int = 0
    earlier: int = 0
    missing: str = ""
    share: float = SHARE

    @property
    def words(self) -> str:
        """One line: "ends between 2.31 and 2.44 (80 %)"; "ends at about 2.31 (80 %)" if no decimal place tells the bounds apart."""
        if self.missing:
            return self.missing
        low, high = (f"{bound:.{self.places}f}" for bound in (self.low, self.high))
        where = f"between {low} and {high}" if low != high else f"at about {low}"
        return f"ends {where} ({100 * self.share:.0f} %)"

    @property
    def places(self) -> int:
        """Decimal places of its losses: the fewest that tell the bounds apart, or `PLACES` if none does."""
        apart = (n for n in range(PLACES, MOST_PLACES + 1) if f"{self.low:.{n}f}" != f"{self.high:.{n}f}")
        return next(apart, PLACES)


@dataclass(frozen=True, slots=True)
class Earlier:
    """An earlier run of the same shape that has ended: its settings, its curve, and its mean loss at the end."""

    name: str
    settings: TrainingSettings
    changes: tuple[LearningRateChange, ...]
    curve: tuple[Sum, ...]
    end: float


@dataclass(frozen=True, slots=True)
class Forecast:
    mean: float
    deviation: float


class Schedule:
    """S(s) ÷ S_end and D(s) of a run, at any step: integrated over `GRID` points, with linear interpolation. `total` is S_end,
    which must be above 0 for `at`."""

    def __init__(self, settings: TrainingSettings, changes: Sequence[LearningRateChange] = ()) -> None:
        steps, peak = settings.steps, settings.learning_rate
        self._width = max(1, math.ceil(steps / GRID))
        self._sums, self._decays, total = [0.0], [0.0], 0.0
        for first in range(1, steps + 1, self._width):
            last = min(steps, first + self._width - 1)
            rates = [
                learning_rate(settings_at(settings, list(changes), at), at) for at in (first, (first + last) // 2, last)
            ]
            total += (rates[0] + 4 * rates[1] + rates[2]) / 6 * (last - first + 1)  # Simpson
            self._sums.append(total)
            self._decays.append(max(0.0, 1 - rates[2] / peak) if last > settings.warmup_steps and peak > 0 else 0.0)
        self.total = total

    def at(self, step: float) -> tuple[float, float]:
        place = min(max(step, 0.0) / self._width, len(self._sums) - 1)
        low = min(int(place), len(self._sums) - 2)
        part = place - low
        sums = self._sums[low] * (1 - part) + self._sums[low + 1] * part
        return max(sums / self.total, 1e-9), self._decays[low] * (1 - part) + self._decays[low + 1] * part


def end_window(steps: int) -> int:
    """Number of last steps whose mean loss is the end's."""
    return max(2, round(END * steps))


def mean_of_last(curve: Sequence[Sum], window: int) -> float:
    """The mean loss of the last `window` steps; a sum that is partly inside counts fully."""
    last = curve[-1][0]
    inside = [(total, count) for step, total, count in curve if step > last - window]
    return math.fsum(total for total, _ in inside) / sum(count for _, count in inside)


def missing(settings: TrainingSettings, step: int, begun: int = 0) -> str:
    """What a band needs, if there are not enough steps yet. The run's own steps begin after step `begun`, that of a branch."""
    first = max(settings.warmup_steps, begun) + max(LEAST, math.ceil(LEAST_SHARE * settings.steps))
    if settings.learning_rate <= 0:
        return "no band of the end's loss: the learning rate is 0"
    if first >= settings.steps and begun > settings.warmup_steps:
        return "no band of the end's loss: the branch has too few steps"
    if first >= settings.steps:
        return "no band of the end's loss: the run is too short after its warm-up"
    if step < first:
        return f"the band of the end's loss needs {first - step:,} more steps"
    return ""


def _begun(curve: Sequence[Sum]) -> int:
    """The step after which a curve begins: that of a branch, else 0."""
    return max(0, curve[0][0] - curve[0][2]) if curve else 0


def forecast(
    curve: Sequence[Sum], settings: TrainingSettings, changes: Sequence[LearningRateChange] = ()
) -> Forecast | None:
    """Returns the mean loss expected at the end and its standard deviation, from `curve` alone (see `Envelope.sums`); None
    if there is too little of it."""
    if not curve or missing(settings, curve[-1][0], _begun(curve)):
        return None
    now, window = curve[-1][0], end_window(settings.steps)
    used = [one for one in curve if one[0] > max(settings.warmup_steps, LATER * now)]
    if len(used) < 4:
        return None
    schedule = Schedule(settings, changes)
    if not schedule.total > 0:  # the learning rate was changed to 0 before the first step
        return None
    level, noise = mean_of_last(curve, window), _noise(used)
    if not level > 0:
        return None
    rows = [
        (schedule.at(last - (count - 1) / 2), total / count, count, last / now) for last, total, count in _binned(used)
    ]
    unit = max(noise, 0.01 * level)  # no fit is better than 1 %
    weights = [count * late / unit**2 for _, _, count, late in rows]
    ends = [schedule.at(settings.steps - i * (window - 1) / 4) for i in range(5)]
    end = statistics.fmean(one for one, _ in ends), statistics.fmean(one for _, one in ends)
    fits = [_fit(rows, weights, exponent, level, end) for exponent in EXPONENTS]
    least = min(error for error, _, _ in fits)
    scale = max(1.0, least / max(4, len(rows)))
    shares = [math.exp((least - error) / 2 / scale) for error, _, _ in fits]
    mean = math.fsum(share * one for share, (_, one, _) in zip(shares, fits, strict=True)) / math.fsum(shares)
    spread = math.fsum(
        share * (variance * scale + (one - mean) ** 2) for share, (_, one, variance) in zip(shares, fits, strict=True)
    ) / math.fsum(shares)
    left = 1 - now / settings.steps
    unknown = (FALL_ERROR * (level - mean)) ** 2 + (LEFT_ERROR * left * level) ** 2
    deviation = math.sqrt(spread + unknown + noise**2 / window) * (1 + EARLY * max(0.0, 2 * left - 1))
    return Forecast(mean, deviation) if math.isfinite(mean) and math.isfinite(deviation) else None


Row = tuple[tuple[float, float], float, int, float]
"""S and D at the middle of some steps, their mean loss, how many they are, the last of them as a share of those done."""


def _fit(
    rows: Sequence[Row], weights: Sequence[float], exponent: float, level: float, end: tuple[float, float]
) -> tuple[float, float, float]:
    """Weighted least squares with normal priors, for one exponent: (squared error, loss at the end, its variance)."""
    points = [
        ((1.0, s**-exponent, -d), loss, weight) for ((s, d), loss, _, _), weight in zip(rows, weights, strict=True)
    ]
    for i, (mean, deviation) in enumerate(PRIORS):
        unit = tuple(float(i == j) for j in range(3))
        points.append(((unit[0], unit[1], unit[2]), mean * level, (deviation * level) ** -2))
    normal = [[math.fsum(w * f[i] * f[j] for f, _, w in points) for j in range(3)] for i in range(3)]
    right = [math.fsum(w * f[i] * loss for f, loss, w in points) for i in range(3)]
    ahead = (1.0, end[0] ** -exponent, -end[1])
    solution, spread = _solve(normal, right), _solve(normal, ahead)
    error = math.fsum(w * (loss - _dot(f, solution)) ** 2 for f, loss, w in points)
    return error, _dot(ahead, solution), _dot(ahead, spread)


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def _solve(matrix: Sequence[Sequence[float]], right: Sequence[float]) -> list[float]:
    """Gauss–Jordan elimination with pivoting; the priors make the matrix positive definite."""
    size = len(right)
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for i in range(size):
        best = max(range(i, size), key=lambda at: abs(rows[at][i]))
        rows[i], rows[best] = rows[best], rows[i]
        for at in range(size):
            if at != i:
                factor = rows[at][i] / rows[i][i]
                rows[at] = [a - factor * b for a, b in zip(rows[at], rows[i], strict=True)]
    return [rows[i][size] / rows[i][i] for i in range(size)]


def _binned(curve: Sequence[Sum]) -> list[Sum]:
    """At most about `BINS` sums of neighbours."""
    each = max(1, len(curve) // BINS)
    groups = [curve[i : i + each] for i in range(0, len(curve), each)]
    return [(one[-1][0], math.fsum(total for _, total, _ in one), sum(count for _, _, count in one)) for one in groups]


def _noise(curve: Sequence[Sum]) -> float:
    """The standard deviation of one step's loss, from the differences of neighbours: the trend hardly matters to them."""
    pairs = itertools.pairwise(curve)
    apart = [abs(b[1] / b[2] - a[1] / a[2]) / math.sqrt(1 / a[2] + 1 / b[2]) for a, b in pairs]
    return statistics.median(apart) / 0.6745 if apart else 0.0


def band(
    curve: Sequence[Sum],
    settings: TrainingSettings,
    changes: Sequence[LearningRateChange] = (),
    errors: Sequence[float] = (),
) -> LossBand:
    """The band from a run's curve so far (`Envelope.sums`), and from the `errors` of earlier runs of its shape (see `error_of`)."""
    step, window = curve[-1][0] if curve else 0, end_window(settings.steps)
    if words := missing(settings, step, _begun(curve)):
        return LossBand(missing=words, window=window)
    found = forecast(curve, settings, changes)
    if found is None:
        still = not Schedule(settings, changes).total > 0
        why = "the learning rate is 0" if still else "these steps have no finite losses"
        return LossBand(missing=f"no band of the end's loss: {why}", window=window)
    shift = math.fsum(errors) / (len(errors) + STIFFNESS / 2)
    squares = math.fsum((error - shift) ** 2 for error in errors)
    scale = math.sqrt((STIFFNESS + squares) / (STIFFNESS + len(errors)))
    middle = found.mean + shift * found.deviation
    unit = max(NARROWEST, scale) * found.deviation
    low, high = middle - BELOW * unit, middle + ABOVE * unit
    return LossBand(max(0.0, low), max(0.0, middle), max(0.0, high), window, len(errors))


def error_of(run: Earlier, share: float) -> float | None:
    """How far the end of an earlier run was from what was forecast at that share of its steps, in its standard deviations."""
    step = share * run.settings.steps
    found = forecast([one for one in run.curve if one[0] <= step], run.settings, run.changes)
    return (run.end - found.mean) / found.deviation if found is not None and found.deviation > 0 else None


class LossBandReader:
    """The bands of a growing run. `find` returns the earlier runs of its shape; it is called once, when there is a band to give.

    Their errors are computed again each time when the run has made another `AGAIN` of its steps.
    """

    def __init__(self, settings: TrainingSettings, find: Callable[[], Sequence[Earlier]]) -> None:
        self.settings, self._find = settings, find
        self._earlier: Sequence[Earlier] | None = None
        self._share = -1.0
        self._errors: list[float] = []

    def read(self, curve: Sequence[Sum], changes: Sequence[LearningRateChange] = ()) -> LossBand:
        step = curve[-1][0] if curve else 0
        if not missing(self.settings, step, _begun(curve)):
            self._compare(step / self.settings.steps)
        return band(curve, self.settings, changes, self._errors)

    def _compare(self, share: float) -> None:
        if self._earlier is None:
            self._earlier = self._find()
        if self._share < 0 or share >= self._share + AGAIN:
            self._share = share
            errors = (error_of(one, share) for one in self._earlier)
            self._errors = [error for error in errors if error is not None]
