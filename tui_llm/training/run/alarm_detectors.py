"""A detector for each kind of alarm: it is given the steps, or blocks of them, in order, and returns an alarm or None."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tui_llm.training.run.alarm_kinds import DEAD_GRADIENT, DIVERGENCE, LOW_LOSS, OVERFITTING, PLATEAU, SPIKE, Alarm
from tui_llm.training.run.metrics import Metric
from tui_llm.training.run.settings import TrainingSettings

RECENT = 64  # losses that a spike is compared with
REFRESH = 8  # steps between two computations of their median
SPREADS = 6.0  # of those: how far above the median a spike is
RISE = 0.04  # and at least this share of the median
APART = 25  # steps without a spike before another one is an alarm of its own

BLOCK = 0.02  # share of the planned steps whose mean loss is one block
SMALLEST_BLOCK = 10  # steps
DIVERGED = 0.10  # share of the lowest block mean by which the following ones are higher
DIVERGED_BLOCKS = 4
FLAT_BLOCKS = 15  # 30 % of the steps
FLAT = 0.004  # share of the loss by which those fall, at most, in a plateau
SURE = 0.015  # share of the loss below which that fall plus two standard errors lies
ABOVE_UNIGRAM = 0.98  # × the entropy of single tokens: a loss above that uses no context
HARDLY = 0.06  # share of the loss by which it falls meanwhile, at most
FIRST_STEPS = 5  # whose gradients are large in every run
THROWN = 20.0  # × the usual gradient norm
HIGH_RATE = 0.3  # × the peak: below it a run gets flat in any case

WORSE = 0.02  # share of the lowest validation loss by which the following ones are higher
WORSE_EVALUATIONS = 3
LOW = 0.15  # × the entropy of single tokens: natural text that is new to the model has no lower loss

DEAD_STEPS = 8
DEAD = 1e-4  # × the median of the norms before


Epochs = Callable[[int], float] | None
"""How often the text was read up to a step; None if its length is not known."""


@dataclass(frozen=True, slots=True)
class StepBlock:
    """The mean loss of consecutive steps, of which `last` is the last one; `spread` is the standard error of the mean."""

    last: int
    mean: float
    spread: float
    lr: float


class StepBlocks:
    """Cuts the steps into blocks of `width`."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._losses: list[float] = []

    def add(self, metric: Metric) -> StepBlock | None:
        """Returns a block if this step completes it."""
        self._losses.append(metric.loss)
        if len(self._losses) < self.width:
            return None
        mean = statistics.fmean(self._losses)
        spread = math.sqrt(math.fsum((loss - mean) ** 2 for loss in self._losses) / len(self._losses) / self.width)
        self._losses = []
        return StepBlock(metric.step, mean, spread, metric.lr)


class RecentValues:
    """The last `RECENT` values, with their median and their spread as computed at most `REFRESH` values ago.

    spread: 1.4826 × the median absolute deviation, which estimates the standard deviation of normal values.
    """

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=RECENT)
        self._since = 0
        self.median = self.spread = 0.0

    def add(self, value: float) -> None:
        self._values.append(value)
        self._since += 1
        if self._since >= REFRESH or len(self._values) < REFRESH:
            self._since = 0
            self.median = statistics.median(self._values)
            self.spread = 1.4826 * statistics.median([abs(one - self.median) for one in self._values])

    @property
    def full(self) -> bool:
        return len(self._values) == RECENT


class SpikeDetector:
    """A loss is a spike if it is `SPREADS` robust standard deviations, and `RISE`, above the median of those before."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.judged_from: int | None = None  # the first step that was compared
        self._losses, self._norms = RecentValues(), RecentValues()
        self._last = -APART

    def add(self, metric: Metric) -> Alarm | None:
        found = None
        if metric.step > self.first and self._losses.full:
            found = self._compare(metric)
            self.judged_from = metric.step if self.judged_from is None else self.judged_from
        self._losses.add(metric.loss)
        self._norms.add(metric.grad_norm)
        return found

    def _compare(self, metric: Metric) -> Alarm | None:
        usual, spread = self._losses.median, self._losses.spread
        if metric.loss <= max(usual * (1 + RISE), usual + SPREADS * spread):
            return None
        alone, self._last = metric.step - self._last > APART, metric.step
        if not alone:
            return None
        norm = self._norms.median
        times = f", {(metric.loss - usual) / spread:.0f} times their spread of {spread:.3f} above it" if spread else ""
        return Alarm(
            SPIKE, metric.step, metric.step,
            f"loss {metric.loss:.3f}; the {RECENT} steps before it have a median of {usual:.3f}{times}."
            f" Gradient norm {metric.grad_norm:.3g}, usually {norm:.3g}",
        )  # fmt: skip


class DivergenceDetector:
    """The lowest block mean, and how many blocks in a row lie far above it."""

    def __init__(self, first: int) -> None:
        self.first = first
        self._lowest: StepBlock | None = None
        self._above: list[StepBlock] = []
        self.raised = False

    def step(self, metric: Metric) -> Alarm | None:
        """An alarm if a number of this step is not finite."""
        if self.raised or (math.isfinite(metric.loss) and math.isfinite(metric.grad_norm)):
            return None
        self.raised = True
        return Alarm(
            DIVERGENCE, metric.step, metric.step, f"loss {metric.loss}, gradient norm {metric.grad_norm}: not finite"
        )

    def block(self, block: StepBlock) -> Alarm | None:
        lowest = self._lowest
        if lowest is None or block.mean < lowest.mean:
            self._lowest, self._above = block, []
            self.raised = False
            return None
        if block.mean <= lowest.mean * (1 + DIVERGED) + 4 * (block.spread + lowest.spread):
            self._above = []
            return None
        self._above = [*self._above[:DIVERGED_BLOCKS], block]
        if self.raised or len(self._above) < DIVERGED_BLOCKS:
            return None
        self.raised = True
        means = ", ".join(f"{one.mean:.3f}" for one in self._above)
        return Alarm(
            DIVERGENCE, block.last, lowest.last,
            f"the mean loss was {lowest.mean:.3f} up to step {lowest.last:,}; since then it is higher by more than"
            f" {100 * DIVERGED:.0f} %: {means} in the last {len(self._above)} blocks; learning rate {block.lr:.2e}",
        )  # fmt: skip


class ContextDetector:
    """`FLAT_BLOCKS` block means after the warm-up, hardly falling, of which none is below the entropy of single tokens: the model
    uses no context. A gradient that was huge before, for a moment, says that the learning rate is why."""

    def __init__(self, settings: TrainingSettings, unigram: float | None, floor: float | None) -> None:
        self.settings, self.unigram = settings, unigram if floor is None or floor < 0.9 * (unigram or 0.0) else None
        self._blocks: deque[StepBlock] = deque(maxlen=FLAT_BLOCKS)
        self._largest: tuple[float, int] = (0.0, 0)  # gradient norm, step
        self._norms = RecentValues()
        self._raised = False

    def step(self, metric: Metric) -> None:
        self._norms.add(metric.grad_norm)
        if metric.step > FIRST_STEPS and metric.grad_norm > self._largest[0]:
            self._largest = metric.grad_norm, metric.step

    def block(self, block: StepBlock) -> Alarm | None:
        if self.unigram is None or self._raised or block.last <= self.settings.warmup_steps:
            return None
        self._blocks.append(block)
        first = self._blocks[0]
        above = all(one.mean > ABOVE_UNIGRAM * self.unigram for one in self._blocks)
        turned = block.mean > min(one.mean for one in self._blocks) * (1 + HARDLY)  # another alarm's concern
        if len(self._blocks) < FLAT_BLOCKS or not above or turned or block.mean < first.mean * (1 - HARDLY):
            return None
        self._raised = True
        words = (
            f"{block.last - self.settings.warmup_steps:,} steps after the warm-up the mean loss is {block.mean:.3f} ({first.mean:.3f} before), not below"
            f" the entropy of single tokens, {self.unigram:.3f}: no context is used; learning rate {block.lr:.2e}"
        )
        norm, step = self._largest
        if norm > THROWN * self._norms.median:
            words += f". The gradient's norm was {norm:.3g} at step {step:,}, usually {self._norms.median:.3g}: the rate is too high"
            return Alarm(DIVERGENCE, block.last, step, words)
        return Alarm(PLATEAU, block.last, first.last, words)


class PlateauDetector:
    """`FLAT_BLOCKS` block means in a row whose fitted line falls by less than `FLAT`."""

    def __init__(self, settings: TrainingSettings, floor: float | None) -> None:
        self.settings, self.floor = settings, floor
        self._blocks: deque[StepBlock] = deque(maxlen=FLAT_BLOCKS)
        self.raised = False

    def block(self, block: StepBlock) -> Alarm | None:
        if block.last <= self.settings.warmup_steps:
            return None
        self._blocks.append(block)
        if len(self._blocks) < FLAT_BLOCKS:
            return None
        blocks = list(self._blocks)
        centre = (len(blocks) - 1) / 2
        weights = [i - centre for i in range(len(blocks))]
        squares = math.fsum(w * w for w in weights)
        level = statistics.fmean(one.mean for one in blocks)
        slope = math.fsum(w * one.mean for w, one in zip(weights, blocks, strict=True)) / squares
        fall = -slope * (len(blocks) - 1)
        error = (len(blocks) - 1) * statistics.fmean(one.spread for one in blocks) / math.sqrt(squares)
        high = block.lr >= HIGH_RATE * self.settings.learning_rate
        at_floor = self.floor is not None and level <= 1.1 * self.floor
        means, spread = [one.mean for one in blocks], statistics.fmean(one.spread for one in blocks)
        level_throughout = (
            max(means) - min(means) < 2 * SURE * level + 4 * spread
        )  # a loss that turned has no slope either
        flat = fall < FLAT * level and fall + 2 * error < SURE * level and level_throughout
        if not flat or not high or at_floor:
            self.raised = self.raised and fall < 3 * FLAT * level
            return None
        if self.raised:
            return None
        self.raised = True
        began = blocks[0].last
        return Alarm(
            PLATEAU, block.last, began,
            f"over {block.last - began:,} steps the mean loss fell by {fall:.4f} (± {error:.4f}) to {blocks[-1].mean:.3f},"
            f" at a learning rate of {block.lr:.2e}",
        )  # fmt: skip


class OverfittingDetector:
    """`WORSE_EVALUATIONS` validation losses in a row above the lowest one, while the training loss falls."""

    def __init__(self, epochs: Epochs) -> None:
        self.epochs = epochs
        self._total, self._count = 0.0, 0  # training losses since the last evaluation
        self._best: tuple[int, float, float] | None = None  # step, validation loss, training loss
        self._worse: list[float] = []
        self._raised = False

    def step(self, metric: Metric) -> Alarm | None:
        self._total, self._count = self._total + metric.loss, self._count + 1
        if metric.val_loss is None or not math.isfinite(metric.val_loss):
            return None
        train, self._total, self._count = self._total / self._count, 0.0, 0
        if self._best is None or metric.val_loss < self._best[1]:
            self._best, self._worse, self._raised = (metric.step, metric.val_loss, train), [], False
            return None
        step, lowest, then = self._best
        rises = metric.val_loss > lowest * (1 + WORSE) and train < then * (1 - WORSE / 2)
        self._worse = [*self._worse[: WORSE_EVALUATIONS - 1], metric.val_loss] if rises else []
        if self._raised or len(self._worse) < WORSE_EVALUATIONS:
            return None
        self._raised = True
        return Alarm(
            OVERFITTING, metric.step, step,
            f"validation loss {lowest:.3f} at step {step:,}, {metric.val_loss:.3f} now; training loss {then:.3f} then,"
            f" {train:.3f} now{_read_words(self.epochs, metric.step)}",
        )  # fmt: skip


class LowLossDetector:
    """A block mean below `LOW` × the entropy of single tokens. That says nothing about overfitting: the alarm states what the
    validation loss does. Not judged where the lowest possible loss is known: it may be that low."""

    def __init__(self, unigram: float | None, floor: float | None, epochs: Epochs) -> None:
        self.epochs = epochs
        self._unigram = unigram if unigram is not None and floor is None else 0.0
        self._lowest: tuple[float, int] | None = None  # validation loss, step
        self._newest: tuple[float, int] | None = None
        self._raised = False

    def step(self, metric: Metric) -> None:
        if metric.val_loss is not None and math.isfinite(metric.val_loss):
            self._newest = metric.val_loss, metric.step
            if self._lowest is None or metric.val_loss < self._lowest[0]:
                self._lowest = self._newest

    def block(self, block: StepBlock) -> Alarm | None:
        if self._raised or block.mean >= LOW * self._unigram:
            return None
        self._raised = True
        return Alarm(
            LOW_LOSS, block.last, block.last,
            f"mean loss {block.mean:.3f}, less than {100 * LOW:.0f} % of the entropy of single tokens ({self._unigram:.3f})"
            f"; {self._validation_words()}{_read_words(self.epochs, block.last)}",
        )  # fmt: skip

    def _validation_words(self) -> str:
        if self._newest is None or self._lowest is None:
            return "no validation loss yet"
        (loss, step), (lowest, at) = self._newest, self._lowest
        if loss > lowest:
            return f"validation loss {loss:.3f} at step {step:,}, above its lowest, {lowest:.3f} at step {at:,}"
        return f"validation loss {loss:.3f} at step {step:,}, its lowest so far"


def _read_words(epochs: Epochs, step: int) -> str:
    return "" if epochs is None else f"; the text was read {epochs(step):.1f} times"


class DeadGradientDetector:
    """`DEAD_STEPS` steps in a row with a norm of 0, or below `DEAD` × the median of the norms before."""

    def __init__(self) -> None:
        self._norms = RecentValues()
        self._dead: list[Metric] = []
        self._raised = False

    def step(self, metric: Metric) -> Alarm | None:
        usual = self._norms.median
        if metric.grad_norm > DEAD * usual:
            self._norms.add(metric.grad_norm)
            self._dead, self._raised = [], False
            return None
        self._dead = [*self._dead[: DEAD_STEPS - 1], metric]
        if self._raised or len(self._dead) < DEAD_STEPS:
            return None
        self._raised = True
        first, norm = self._dead[0], f"{metric.grad_norm:.2g}"
        before = f"; before, its median was {usual:.3g}" if usual else ""
        return Alarm(
            DEAD_GRADIENT, metric.step, first.step,
            f"the gradient's norm is {norm} since step {first.step:,}{before}; loss {first.loss:.3f} then, {metric.loss:.3f} now",
        )  # fmt: skip
