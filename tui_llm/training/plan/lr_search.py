"""The search for a learning rate: which rates to try, for how many steps, and which one to pick. Pure; no torch.

A range test that raises the rate step by step (Smith 2017, "Cyclical learning rates") picks where the loss falls fastest.
That says where a constant rate begins to learn, not where a run with warm-up and decay ends lowest: such a run ends best
close to the largest rate that it survives, and how close depends on the optimizer and on the number of steps. So each rate
is tried by a short run of its own: the same weights, rows, optimizer and schedule, squeezed into fewer steps.

The rates of the first round are √10 apart and have few steps. The second round continues around the best one, close
together, with as many steps as the time allows, if possible all of the run's; if time is left, further rounds have twice as
many. In small runs, the best rate of a trial with an eighth of the steps was that of the run or slightly lower, as its
warm-up is shorter; for far longer runs it falls with a power of their steps (`drift`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tui_llm.common.errors import UserError

SECONDS = 60.0  # for all trials, by default
COARSE = math.sqrt(10)  # factor between two rates of the first round
REACH = 4  # rates of the first round below the run's own, and above it
FINE = 1.6  # factor between two rates of the second round, at first
CLOSE = 1.1  # factor between two rates that is too small to try both
FINE_TRIALS = 5  # runs of the second round for which there must be time
FEWEST = 3  # runs of a further round, twice as long, for which there must be time
MOST_TRIALS = 9  # runs of the second round
SHORTEST = 8  # steps of a trial
COARSE_SHARE = 0.2  # of the time for the first round
DRIFT = 0.32  # best rate ∝ steps^−DRIFT (Bjorck et al. 2025, "Scaling optimal LR across token horizons") …
DRIFT_FROM = 8  # … for a run this many times as long as a trial, and longer
LARGEST = 10.0  # rate


@dataclass(frozen=True, slots=True)
class RateTrial:
    """A short run with the peak learning rate `rate`: its last validation loss in nats per token, None if it diverged."""

    rate: float
    steps: int
    loss: float | None


@dataclass(frozen=True, slots=True)
class RatePick:
    """The result. `rate` is the pick, with which the run of `run_steps` steps should end lowest; `trials` is what was tried, in
    order, the longest with `steps` steps. `diverges_above` is the largest rate below all that diverged or learned
    nothing; None if none did. `bracketed`: whether rates on both sides of the best one were worse.
    """

    rate: float
    steps: int
    run_steps: int
    trials: tuple[RateTrial, ...]
    bracketed: bool
    diverges_above: float | None

    @property
    def whole(self) -> bool:
        """Whether the longest trials are the run itself."""
        return self.steps == self.run_steps

    @property
    def best(self) -> list[RateTrial]:
        """The trials with `steps` steps, by rate."""
        return longest(self.trials)


class TooSlow(Exception):
    """The time allows fewer than `SHORTEST` steps a trial. `needed` is the number of steps that are needed."""

    def __init__(self, needed: int) -> None:
        self.needed = needed
        super().__init__(f"{needed} steps are needed")


def longest(trials: Sequence[RateTrial]) -> list[RateTrial]:
    """The trials with the most steps, by rate."""
    most = max((trial.steps for trial in trials), default=0)
    return sorted((trial for trial in trials if trial.steps == most), key=lambda trial: trial.rate)


def three_digits(rate: float) -> float:
    """The rate as it is shown and typed."""
    return float(f"{rate:.3g}")


def drift(trial_steps: int, steps: int) -> float:
    """The best rate of `steps` steps relative to that of `trial_steps`, at most 1."""
    return min(1.0, DRIFT_FROM * trial_steps / steps) ** DRIFT


def halved(steps: int, most: float) -> int:
    """The largest of `steps`, ½ `steps`, ¼ `steps` … that is at most `most`, rounded up; at least 1. So the number of steps seldom
    depends on a machine's load."""
    part = steps
    while part > most and part > 1:
        part = -(-part // 2)
    return part


def vertex(points: Sequence[tuple[float, float]]) -> float | None:
    """The minimum of the parabola through three points (ln rate, loss); None unless it opens upward."""
    (x0, y0), (x1, y1), (x2, y2) = points
    left, right = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    bend = (right - left) / (x2 - x0)
    if not bend > 0 or not math.isfinite(bend):
        return None
    return (x0 + x1) / 2 - left / (2 * bend)


def minimum(trials: Sequence[RateTrial]) -> tuple[float, bool]:
    """Returns the rate of the lowest loss, by a parabola in ln rate through the best of `trials` and its neighbours, and
    whether it is bracketed by worse ones. The trials have equally many steps; one of them has a loss."""
    known = sorted(trials, key=lambda trial: trial.rate)
    losses = [math.inf if trial.loss is None else trial.loss for trial in known]
    at = min(range(len(known)), key=losses.__getitem__)
    if not 0 < at < len(known) - 1:
        return known[at].rate, False
    near = [(math.log(known[i].rate), losses[i]) for i in (at - 1, at, at + 1)]
    if not all(math.isfinite(y) for _, y in near):  # the edge of divergence: no parabola
        return known[at].rate, True
    found = vertex(near)
    if found is None:
        return known[at].rate, True
    return math.exp(min(max(found, near[0][0]), near[2][0])), True


class RateSearch:
    """The search for a run of `steps` steps whose settings have the rate `centre`.

    `trial(rate, steps)` trains and returns the last validation loss, None where it diverged or ended no better than the
    untrained model. `room()` is the number of steps for which there is time left.
    """

    def __init__(
        self,
        centre: float,
        steps: int,
        trial: Callable[[float, int], float | None],
        room: Callable[[], float],
        trial_steps: int | None = None,
    ) -> None:
        """`trial_steps` sets the steps of both rounds' trials, whatever time they take."""
        self.centre, self.steps = centre, steps
        self._trial, self._room, self._trial_steps = trial, room, trial_steps
        self.trials: list[RateTrial] = []

    @staticmethod
    def needed(steps: int) -> int:
        """The steps that a search for a run of `steps` steps takes at least."""
        return min(steps, SHORTEST) * (2 * REACH + 1 + FINE_TRIALS)

    def run(self) -> RatePick:
        """Tries the rates. Raises `TooSlow` if there is no time for that, `UserError` if every rate diverged."""
        coarse = self._coarse()
        steps = coarse[0].steps
        start, _ = minimum(coarse)
        longer = self._second(steps)
        while longer:
            start, steps = self._fine(start * drift(steps, longer), longer), longer
            longer = self._third(steps)
        known = [trial for trial in self.trials if trial.steps == steps]
        if all(trial.loss is None for trial in known):
            known = coarse
        found, bracketed = minimum(known)
        steps = known[0].steps
        if steps == self.steps:  # what was tried is the run itself
            found = min((one for one in known if one.loss is not None), key=lambda one: one.loss or 0.0).rate
        else:
            found *= drift(steps, self.steps)
        return RatePick(three_digits(found), steps, self.steps, tuple(self.trials), bracketed, _edge(self.trials))

    def _try(self, rate: float, steps: int) -> RateTrial:
        for trial in self.trials:
            if (trial.rate, trial.steps) == (rate, steps):
                return trial
        made = RateTrial(rate, steps, self._trial(rate, steps))
        self.trials.append(made)
        return made

    def _coarse(self) -> list[RateTrial]:
        """The first round, from low rates to high ones: wide, with few steps."""
        count = 2 * REACH + 1
        shortest = min(self.steps, SHORTEST)
        if self._trial_steps is not None:
            steps = max(1, min(self.steps, self._trial_steps // 4))
        elif self._room() < (needed := self.needed(self.steps)):
            raise TooSlow(needed)
        else:
            steps = max(shortest, halved(self.steps, self._room() * COARSE_SHARE / count))
        centre = min(max(self.centre, 1e-6), 0.1)
        rates = [three_digits(centre * COARSE**k) for k in range(-REACH, REACH + 1)]
        made = [self._try(rate, steps) for rate in rates if rate <= LARGEST]
        for _ in range(REACH):  # where the best one is at the edge, go on
            best = min(made, key=lambda one: math.inf if one.loss is None else one.loss)
            low, high = (pick(one.rate for one in made) for pick in (min, max))
            if best.loss is None or best.rate == low:
                made.append(self._try(three_digits(low / COARSE), steps))
            elif best.rate == high and high * COARSE <= LARGEST:
                made.append(self._try(three_digits(high * COARSE), steps))
            else:
                break
        if all(trial.loss is None for trial in made):
            raise UserError(
                f"every rate from {min(one.rate for one in made):g} to {rates[-1]:g} diverged or learned nothing"
            )
        return made

    def _second(self, coarse_steps: int) -> int:
        """The steps of the second round."""
        if self._trial_steps is not None:
            return min(self.steps, self._trial_steps)
        return max(coarse_steps, halved(self.steps, self._room() / FINE_TRIALS))

    def _third(self, steps: int) -> int:
        """Twice the `steps` of a round, if there is time for one more with so many; else 0."""
        longer = min(self.steps, 2 * steps)
        return longer if self._trial_steps is None and steps < longer and self._room() >= FEWEST * longer else 0

    def _fine(self, start: float, steps: int) -> float:
        """A round around the rate `start`; on, as long as the best one is at the edge, then closer, while that leaves no time for
        longer runs. Returns the best rate."""
        made = [self._try(three_digits(start * FINE**k), steps) for k in (0, -1, 1)]
        while len(made) < MOST_TRIALS and self._affordable(steps):
            if minimum(made)[1] and self._third(steps):
                break
            rate = self._next(made)
            if rate is None or any(trial.rate == rate for trial in made):
                break
            made.append(self._try(rate, steps))
        return minimum(made)[0]

    def _affordable(self, steps: int) -> bool:
        return self._trial_steps is not None or self._room() >= steps

    def _next(self, made: Sequence[RateTrial]) -> float | None:
        """The next rate: beyond the edge where the best one is there, else the parabola's minimum, else halfway to the better
        neighbour. None where nothing new is left."""
        rates = [trial.rate for trial in sorted(made, key=lambda trial: trial.rate)]
        losses = {trial.rate: math.inf if trial.loss is None else trial.loss for trial in made}
        best = min(rates, key=losses.__getitem__)
        if best == rates[0] or losses[best] == math.inf:
            return three_digits(rates[0] / FINE)
        if best == rates[-1]:
            return three_digits(best * FINE) if best * FINE <= LARGEST else None
        found = three_digits(minimum(made)[0])
        if all(abs(math.log(found / rate)) > math.log(CLOSE) for rate in rates):
            return found
        at = rates.index(best)
        for side in sorted((rates[at - 1], rates[at + 1]), key=losses.__getitem__):
            between = three_digits(math.sqrt(best * side))
            if abs(math.log(between / best)) > math.log(CLOSE):
                return between
        return None


def _edge(trials: Sequence[RateTrial]) -> float | None:
    """The largest rate below all that diverged or learned nothing above the best one; None if none did."""
    good = [(trial.loss, trial.rate) for trial in trials if trial.loss is not None]
    best = min(good, default=(0.0, math.inf))[1]
    bad = [trial.rate for trial in trials if trial.loss is None and trial.rate > best]
    return max((rate for _, rate in good if bad and rate < min(bad)), default=None)
