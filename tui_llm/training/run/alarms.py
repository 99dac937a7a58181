"""Alarms: what in a run's metrics is not normal, with the evidence and what people do about it. Pure Python, bounded memory.

`AlarmReader` reads the metrics in the order of steps, a line at a time, so that a live run and a finished one give the same
alarms. Each is raised once, at the step that completed its evidence.

spike          one loss far above the losses before it, measured in their spread (median and median absolute deviation)
divergence     the mean loss of blocks of steps has risen far above the lowest one and stays there; or a number is not finite
plateau        block means do not fall although the learning rate is high
overfitting    the validation loss rises from its lowest value while the training loss falls; or the text repeats itself
dead gradient  the gradient's norm is 0, or far below what it was
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tui_llm.training.run.metrics import LARGEST_STEP, Metric
from tui_llm.training.run.settings import PRETRAINING, TrainingSettings

SPIKE, DIVERGENCE, PLATEAU, OVERFITTING, DEAD_GRADIENT = KINDS = (
    "spike", "divergence", "plateau", "overfitting", "dead gradient",
)  # fmt: skip
MOST = 100  # alarms that are kept; of more, the newest are counted only

RECENT = 64  # losses that a spike is compared with
REFRESH = 8  # steps between two computations of their median
SPREADS = 8.0  # of those: how far above the median a spike is
RISE = 0.04  # and at least this share of the median
APART = 25  # steps without a spike before another one is an alarm of its own

BLOCK = 0.02  # share of the planned steps whose mean loss is one block
SMALLEST_BLOCK = 10  # steps
DIVERGED = 0.10  # share of the lowest block mean by which the following ones are higher
DIVERGED_BLOCKS = 4
FLAT_BLOCKS = 15  # 30 % of the steps
FLAT = 0.004  # share of the loss by which those fall, at most, in a plateau
SURE = 0.015  # share of the loss below which that fall plus two standard errors lies
HIGH_RATE = 0.3  # × the peak: below it a run gets flat in any case

WORSE = 0.02  # share of the lowest validation loss by which the following ones are higher
WORSE_EVALUATIONS = 3
REPEATED = 0.15  # × the entropy of single tokens: a text that does not repeat itself has no lower loss

DEAD_STEPS = 8
DEAD = 1e-4  # × the median of the norms before

ADVICE = {
    SPIKE: "Look at the rows of that step: noise, another encoding or one long repetition give such losses. A loss that returns"
    " within some steps did no harm. If spikes come again: lower the learning rate, lengthen the warm-up, keep the gradient"
    " clipped at 1. PaLM went back to a checkpoint some 100 steps earlier and skipped those batches (Chowdhery et al. 2022,"
    " section 5.1).",
    DIVERGENCE: "Stop it, and start again from the checkpoint before that step with a peak learning rate 3 to 10 times lower; a"
    " longer warm-up and gradient clipping at 1 help too (Wortsman et al. 2023, arXiv 2309.14322).",
    PLATEAU: "If the loss is near the text's entropy, nothing is left to learn: stop, or take a larger model or more text."
    " Otherwise the learning rate is too low (or so high that it can't settle): change it by a factor of 3 and watch the next"
    " hundred steps. Loss equal to the entropy of single tokens means that the model uses no context yet.",
    OVERFITTING: "Open the checkpoint with the lowest validation loss; more steps make it worse. More text helps most; up to some"
    " four epochs, repeated text is about as good as new text (Muennighoff et al. 2023, arXiv 2305.16264). Else: dropout, more"
    " weight decay, a smaller model.",
    DEAD_GRADIENT: "Nothing is learned: weights are frozen, the output does not depend on them (a head of zeros), or the numbers are too"
    " small for their precision (fp16 needs loss scaling: Micikevicius et al. 2018, arXiv 1710.03740). Look at the norms of each"
    " matrix; begin again from a checkpoint before that step.",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Alarm:
    """Losses are in nats per token.

    step: the step that completed the evidence. since: the step at which it begins.
    evidence: one line with its numbers. advice: what people do about it.
    """

    kind: str
    step: int
    since: int
    evidence: str

    @property
    def advice(self) -> str:
        return ADVICE[self.kind]


@dataclass(frozen=True, slots=True)
class Block:
    """The mean loss of consecutive steps, of which `last` is the last one; `spread` is the standard error of the mean."""

    last: int
    mean: float
    spread: float
    lr: float


class Blocks:
    """Cuts the steps into blocks of `width`."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._losses: list[float] = []

    def add(self, metric: Metric) -> Block | None:
        """Returns a block if this step completes it."""
        self._losses.append(metric.loss)
        if len(self._losses) < self.width:
            return None
        mean = statistics.fmean(self._losses)
        spread = math.sqrt(math.fsum((loss - mean) ** 2 for loss in self._losses) / len(self._losses) / self.width)
        self._losses = []
        return Block(metric.step, mean, spread, metric.lr)


class Recent:
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


class Spikes:
    """A loss is a spike if it is `SPREADS` robust standard deviations, and `RISE`, above the median of those before."""

    def __init__(self, first: int) -> None:
        self.first = first
        self._losses, self._norms = Recent(), Recent()
        self._last = -APART

    def add(self, metric: Metric) -> Alarm | None:
        found = None
        if metric.step > self.first and self._losses.full:
            found = self._compare(metric)
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


class Divergence:
    """The lowest block mean, and how many blocks in a row lie far above it."""

    def __init__(self, first: int) -> None:
        self.first = first
        self._lowest: Block | None = None
        self._above: list[Block] = []
        self.raised = False

    def step(self, metric: Metric) -> Alarm | None:
        """An alarm if a number of this step is not finite."""
        if self.raised or (math.isfinite(metric.loss) and math.isfinite(metric.grad_norm)):
            return None
        self.raised = True
        return Alarm(
            DIVERGENCE, metric.step, metric.step, f"loss {metric.loss}, gradient norm {metric.grad_norm}: not finite"
        )

    def block(self, block: Block) -> Alarm | None:
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


class Plateaus:
    """`FLAT_BLOCKS` block means in a row whose fitted line falls by less than `FLAT`."""

    def __init__(self, settings: TrainingSettings, floor: float | None) -> None:
        self.settings, self.floor = settings, floor
        self._blocks: deque[Block] = deque(maxlen=FLAT_BLOCKS)
        self._raised = False

    def block(self, block: Block) -> Alarm | None:
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
            self._raised = self._raised and fall < 3 * FLAT * level
            return None
        if self._raised:
            return None
        self._raised = True
        began = blocks[0].last
        return Alarm(
            PLATEAU, block.last, began,
            f"over {block.last - began:,} steps the mean loss fell by {fall:.4f} (± {error:.4f}) to {blocks[-1].mean:.3f},"
            f" at a learning rate of {block.lr:.2e}",
        )  # fmt: skip


class Overfitting:
    """Validation losses above the lowest one while the training loss falls; or a training loss that no text allows."""

    def __init__(
        self, settings: TrainingSettings, unigram: float | None, floor: float | None, epochs: float | None
    ) -> None:
        self.epochs = epochs  # of the whole run
        self.settings = settings
        self._least = REPEATED * unigram if unigram is not None and floor is None else 0.0
        self._total, self._count = 0.0, 0  # training losses since the last evaluation
        self._best: tuple[int, float, float] | None = None  # step, validation loss, training loss
        self._worse: list[float] = []
        self._raised = self._repeats = False

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
        read = ""
        if self.epochs is not None and self.settings.steps:
            read = f"; the text was read {self.epochs * metric.step / self.settings.steps:.1f} times"
        return Alarm(
            OVERFITTING, metric.step, step,
            f"validation loss {lowest:.3f} at step {step:,}, {metric.val_loss:.3f} now; training loss {then:.3f} then,"
            f" {train:.3f} now{read}",
        )  # fmt: skip

    def block(self, block: Block) -> Alarm | None:
        if self._repeats or block.mean >= self._least:
            return None
        self._repeats = True
        return Alarm(
            OVERFITTING, block.last, block.last,
            f"mean loss {block.mean:.3f}: less than {100 * REPEATED:.0f} % of the entropy of single tokens"
            f" ({self._least / REPEATED:.3f}). The text repeats itself and is known by heart; its held-out part may be a copy",
        )  # fmt: skip


class DeadGradient:
    """`DEAD_STEPS` steps in a row with a norm of 0, or below `DEAD` × the median of the norms before."""

    def __init__(self) -> None:
        self._norms = Recent()
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


class AlarmReader:
    """Raises the alarms of one run. `facts` are those of status.json: entropies and training tokens, where known.

    A run that learns from answers has a loss of another kind: only numbers that are not finite raise an alarm there.
    """

    def __init__(self, settings: TrainingSettings, facts: Mapping[str, Any] | None = None) -> None:
        numbers = _numbers(facts or {})
        s, floor = settings, numbers.get("floor")
        self.text = s.objective == PRETRAINING
        tokens = numbers.get("train_tokens")
        seen = s.steps * s.batch_size * s.grad_accumulation_steps * s.block_size
        self._blocks = Blocks(max(SMALLEST_BLOCK, round(BLOCK * s.steps)))
        self._spikes, self._divergence, self._plateaus = (
            Spikes(s.warmup_steps),
            Divergence(s.warmup_steps),
            Plateaus(s, floor),
        )
        self._overfitting = Overfitting(s, numbers.get("unigram_entropy"), floor, seen / tokens if tokens else None)
        self._dead = DeadGradient()
        self._alarms: list[Alarm] = []
        self.left_out = 0  # alarms that were raised after `MOST`

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """Those raised so far, in the order of steps."""
        return tuple(self._alarms)

    @property
    def diverges(self) -> bool:
        return self._divergence.raised

    def add(self, metrics: Iterable[Metric]) -> list[Alarm]:
        """Reads the next steps. Returns the new alarms."""
        new = [alarm for metric in metrics for alarm in self._step(metric)]
        room = max(0, MOST - len(self._alarms))
        self._alarms += new[:room]
        self.left_out += len(new) - len(new[:room])
        return new

    def _step(self, metric: Metric) -> list[Alarm]:
        if not 0 <= metric.step < LARGEST_STEP:
            return []
        found = [self._divergence.step(metric)]
        finite = math.isfinite(metric.loss) and math.isfinite(metric.grad_norm)
        if self.text and finite:
            found += [self._spikes.add(metric), self._overfitting.step(metric), self._dead.step(metric)]
            if (block := self._blocks.add(metric)) is not None:
                found += [part.block(block) for part in (self._divergence, self._plateaus, self._overfitting)]
        return [alarm for alarm in found if alarm is not None]


def _numbers(facts: Mapping[str, Any]) -> dict[str, float]:
    kept = {name: facts.get(name) for name in ("unigram_entropy", "floor", "train_tokens")}
    return {
        name: float(value)
        for name, value in kept.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    }
