"""Earlier runs of a run's shape: the same model and optimizer, all steps done. The band of the end's loss learns from them."""

from __future__ import annotations

import math

from tui_llm.common.errors import UserError
from tui_llm.training.run import changes
from tui_llm.training.run.config import RunConfig
from tui_llm.training.run.curve import Envelope
from tui_llm.training.run.loss_band import Earlier, end_window, mean_of_last
from tui_llm.training.run.metrics import MetricsTail
from tui_llm.training.run.run import Run, runs
from tui_llm.training.run.settings import PRETRAINING, TrainingSettings

MOST = 8  # runs; those on the same corpus first, then the newest
LARGEST = 8 << 20  # bytes of a metrics.jsonl that is read for it: some 60,000 steps
SHAPE = (
    "layers",
    "heads",
    "width",
    "block_size",
    "tokenizer",
    "arch",
    "attention_only",
    "from_model",
    "optimizer",
    "objective",
)


def same_shape(a: TrainingSettings, b: TrainingSettings) -> bool:
    return all(getattr(a, name) == getattr(b, name) for name in SHAPE)


def find(run: Run, config: RunConfig) -> list[Earlier]:
    """Reads those of all runs; costs some milliseconds a run of the same shape, and one file's read for each other one."""
    if config.settings.objective != PRETRAINING:
        return []
    found: list[tuple[bool, float, Run, RunConfig]] = []
    for other in runs():
        try:
            theirs = other.config() if other.name != run.name else None
            if theirs is None or not same_shape(config.settings, theirs.settings):
                continue
            stat = other.metrics_path.stat()
        except (UserError, OSError):
            continue
        if stat.st_size <= LARGEST:
            found.append((theirs.corpus == config.corpus, stat.st_mtime, other, theirs))
    found.sort(key=lambda one: one[:2], reverse=True)
    made: list[Earlier] = []
    for _, _, other, theirs in found:
        if (one := read(other, theirs.settings)) is not None:
            made.append(one)
        if len(made) == MOST:
            break
    return made


def read(run: Run, settings: TrainingSettings) -> Earlier | None:
    """Reads one run; None unless its last step is there."""
    last = run.last_metric()
    if last is None or last.step != settings.steps or not math.isfinite(last.loss):
        return None
    curve = Envelope()
    for metric in MetricsTail(run.metrics_path).new():
        curve.add(metric.step, metric.loss)
    try:
        made = tuple(changes.read(run))
    except UserError:
        return None
    sums = tuple(curve.sums())
    if not sums:
        return None
    return Earlier(run.name, settings, made, sums, mean_of_last(sums, end_window(settings.steps)))
