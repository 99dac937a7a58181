"""Curves of another program's log, in bounded memory, and the names that programs give them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tui_llm.common.display import visible
from tui_llm.training.run.curve import Envelope
from tui_llm.training.run.metrics import LARGEST_FLOAT, LARGEST_STEP, Metric
from tui_llm.training.run.run_curves import RUN_CURVES, Clock, ClockReader, CurveInfo

MOST_CURVES = 64  # of a log: each costs up to 2 × BUCKETS points
LONGEST_NAME = 60  # characters of a curve's name

NAMES = {
    "loss": ("loss", "train/loss", "loss/train", "loss/training", "train_loss", "training_loss", "train/train_loss"),
    "val_loss": (
        "val_loss", "val/loss", "loss/val", "loss/validation", "validation/loss", "validation_loss", "eval/loss",
        "eval_loss", "loss/eval", "valid/loss", "valid_loss", "val/val_loss",
    ),
    "row_loss": ("loss/largest_row",),
    "lr": ("lr", "learning_rate", "train/learning_rate", "train/lr", "learning-rate"),
    "grad_norm": ("grad_norm", "gradient_norm", "train/grad_norm", "train/gradient_norm", "grad norm"),
    "tokens_per_second": (
        "tokens_per_second", "tok/sec", "tokens/s", "tokens_per_sec", "train/tok_per_sec", "speed/tokens_per_second",
        "train/tokens_per_second",
    ),
    "memory_bytes": ("memory/bytes",),
}  # fmt: skip
"""The key of a chart, and the names under which programs log it, in small letters."""

_KEYS = {name: key for key, names in NAMES.items() for name in names}
_INFOS = {info.key: info for info in RUN_CURVES}


@dataclass(slots=True)
class LoggedCurve:
    """One curve of a log: what it shows, and its points."""

    info: CurveInfo
    points: Envelope
    last: int = -1  # the step added last
    count: int = 0  # points added


class LogCurves:
    """The curves of a log, which grow as it is read.

    damaged: lines or records that could not be read. unread: values of curves beyond the `MOST_CURVES` first. step_tokens and
    flops_per_token: what the program printed of them, or None. steps: the steps planned, 0 if the log doesn't say so.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.curves: dict[str, LoggedCurve] = {}
        self.damaged = self.unread = self.steps = 0
        self.step_tokens: int | None = None
        self.flops_per_token: float | None = None
        self._keys: dict[str, str] = {}
        self._clock = ClockReader()
        self._durations: list[tuple[int, float]] | None = []

    def add(self, name: str, step: int, value: float, meaning: str = "") -> None:
        """Adds a point; one that is not finite, or beyond float32, or whose step is out of range, is left out.

        A step before the last one means that the program was resumed from there: later points are replaced.
        """
        if not 0 <= step < LARGEST_STEP:
            self.damaged += 1
            return
        key = self._keys.get(name) or self._new(name, meaning)
        if not key or not abs(value) <= LARGEST_FLOAT:
            self.unread += not key
            return
        curve = self.curves[key]
        if step <= curve.last:
            curve.points.cut(step)
        curve.last, curve.count = step, curve.count + 1
        curve.points.add(step, value)

    def _new(self, name: str, meaning: str) -> str:
        """The key of a curve that is added under this name; empty if there are too many."""
        if len(self.curves) >= MOST_CURVES:
            return ""
        shown = visible(name)[:LONGEST_NAME]
        key = _KEYS.get(name.lower(), shown)
        if key in self.curves:  # under another name already
            key = shown
        if key not in self.curves:
            known = _INFOS.get(key)
            title, usual = (known.title, f"logged as {shown}") if known else (shown, "")
            self.curves[key] = LoggedCurve(CurveInfo(key, title, meaning or usual, sparse=True), Envelope())
        self._keys[name] = key
        return key

    # ── time ──

    def at_time(self, step: int, seconds: float) -> None:
        """Says when a step was logged, in seconds since the epoch."""
        self._durations = None
        if 0 <= step < LARGEST_STEP and abs(seconds) <= LARGEST_FLOAT:
            self._clock.add(Metric(step, math.nan, math.nan, math.nan, math.nan, time=seconds))

    def took(self, step: int, seconds: float) -> None:
        """Says how long a step took. They add up to the time only while each step is logged."""
        found = self._durations
        if found is None or not 0 <= seconds <= LARGEST_FLOAT:
            return
        if found and step != found[-1][0] + 1:
            self._durations = None  # resumed, or not each step is logged
            return
        found.append((step, seconds + (found[-1][1] if found else 0.0)))
        if len(found) > 1 << 16:
            del found[1:-1:2]
            self._durations = found if found[-1][0] == step else None

    def clock(self) -> Clock:
        """Seconds of training; empty if the log doesn't give them."""
        if self._durations:
            return Clock([step for step, _ in self._durations], [seconds for _, seconds in self._durations])
        return self._clock.clock()

    # ── results ──

    def infos(self) -> tuple[CurveInfo, ...]:
        """The charts: those that runs of tui-llm have too in their order, then the others as they occurred."""
        own = [self.curves[key].info for key in _INFOS if key in self.curves]
        return (*own, *(curve.info for key, curve in self.curves.items() if key not in _INFOS))

    @property
    def last(self) -> int:
        """The last step of any curve; 0 without curves."""
        return max((curve.last for curve in self.curves.values()), default=0)

    def points(self, key: str) -> tuple[tuple[int, float], ...]:
        """The points of a curve; empty if the log doesn't have it."""
        return self.curves[key].points.points() if key in self.curves else ()

    def notes(self) -> Iterable[str]:
        """What was left out, a line each."""
        if self.damaged:
            yield f"{self.damaged:,} damaged line{'' if self.damaged == 1 else 's'} or records skipped"
        if self.unread:
            yield f"more than {MOST_CURVES} curves: {self.unread:,} values of the others left out"
