"""Alarms: what in a run's metrics is not normal, with the evidence and what people do about it. Pure Python, bounded memory.

`AlarmReader` reads the metrics in the order of steps, a line at a time, so that a live run and a finished one give the same
alarms. Each is raised once, at the step that completed its evidence.

spike          one loss far above the losses before it, measured in their spread (median and median absolute deviation)
divergence     the mean loss of blocks of steps has risen far above the lowest one and stays there; or a number is not finite
plateau        block means do not fall although the learning rate is high
overfitting    the validation loss rises from its lowest value while the training loss falls
low loss       the mean loss is lower than natural text allows: the text is easy to predict, or known by heart
dead gradient  the gradient's norm is 0, or far below what it was
outlier row    a row of a batch has a loss far above that of the others
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from tui_llm.training.run.alarm_detectors import (
    BLOCK,
    SMALLEST_BLOCK,
    ContextDetector,
    DeadGradientDetector,
    DivergenceDetector,
    LowLossDetector,
    OverfittingDetector,
    PlateauDetector,
    SpikeDetector,
    StepBlock,
    StepBlocks,
)
from tui_llm.training.run.alarm_kinds import OUTLIER_ROW, Alarm
from tui_llm.training.run.metrics import LARGEST_STEP, Metric
from tui_llm.training.run.outlier_rows import OutlierRows, RowFiles
from tui_llm.training.run.settings import PRETRAINING, TrainingSettings

MOST = 100  # alarms that are kept; of more, the newest are counted only


class AlarmReader:
    """Raises the alarms of one run. `facts` are those of status.json: entropies and training tokens, where known.

    A run that learns from answers has a loss of another kind: only numbers that are not finite raise an alarm there.
    Outlier rows are looked for only with the `files` of rows, which the worker knows.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        facts: Mapping[str, Any] | None = None,
        files: RowFiles | None = None,
        begin: tuple[int, int] = (0, 0),
    ) -> None:
        """`begin`: the step after which the run's own steps begin, and the tokens that its parents were trained on up to it."""
        numbers = _numbers(facts or {})
        s, floor = settings, numbers.get("floor")
        self.text = s.objective == PRETRAINING
        tokens = numbers.get("train_tokens")
        each = s.batch_size * s.grad_accumulation_steps * s.block_size
        self._blocks = StepBlocks(max(SMALLEST_BLOCK, round(BLOCK * s.steps)))
        self._spikes, self._divergence, self._plateaus = (
            SpikeDetector(s.warmup_steps),
            DivergenceDetector(s.warmup_steps),
            PlateauDetector(s, floor),
        )
        epochs = (lambda step: (begin[1] + (step - begin[0]) * each) / tokens) if tokens else None
        self._overfitting = OverfittingDetector(epochs)
        self._low = LowLossDetector(numbers.get("unigram_entropy"), floor, epochs)
        self._dead = DeadGradientDetector()
        self._context = ContextDetector(s, numbers.get("unigram_entropy"), floor)
        self._rows = OutlierRows(s.warmup_steps, files) if files is not None else None
        self._alarms: list[Alarm] = []
        self.left_out = 0  # alarms that were raised after `MOST`

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """Those raised so far, in the order of steps."""
        return tuple(self._rows.now(one) if self._rows and one.kind == OUTLIER_ROW else one for one in self._alarms)

    def updates(self) -> list[Alarm]:
        """The alarms that say more than when `add` or this returned them: that further steps have such a row."""
        return self._rows.updates() if self._rows is not None else []

    @property
    def judged_from(self) -> int | None:
        """The first step whose loss was compared with those before it: after the warm-up, and `RECENT` steps. None before it."""
        return self._spikes.judged_from

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
            found += [self._rows.add(metric)] if self._rows is not None else []
            self._context.step(metric)
            self._low.step(metric)  # before the block that ends here: its alarm states the validation loss
            if (block := self._blocks.add(metric)) is not None:
                found += self._of_block(block)
        return [alarm for alarm in found if alarm is not None]

    def _of_block(self, block: StepBlock) -> list[Alarm | None]:
        found = [part.block(block) for part in (self._divergence, self._low)]
        context, plateau = self._context.block(block), self._plateaus.block(block)
        if context is not None:
            self._plateaus.raised = True  # of the same steps, for the same reason
        return [*found, context or plateau]


def _numbers(facts: Mapping[str, Any]) -> dict[str, float]:
    kept = {name: facts.get(name) for name in ("unigram_entropy", "floor", "train_tokens")}
    return {
        name: float(value)
        for name, value in kept.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    }
