"""Rows of a batch whose loss is far above that of the others: an alarm for each file that such rows come from. No torch.

The loss of a batch hides them: of 16 rows, one with twice the loss raises the mean by 6 %.

A text that is only mixed has some too: in 40 runs on stories, manuals, source code and random words (scripts/stored_runs.py), up to
3 in 64 steps. So one row raises an alarm only if it is twice as far above, else the sixth one in 64 steps.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from pathlib import PurePath
from typing import NamedTuple, Protocol

from tui_llm.facts.token_place import TokenPlace
from tui_llm.training.run.alarm_detectors import RECENT, RecentValues
from tui_llm.training.run.alarm_kinds import OUTLIER_ROW, Alarm
from tui_llm.training.run.metrics import Metric
from tui_llm.training.run.step_rows import place_text

ROW_SPREADS = 6.0  # robust standard deviations of the rows above their median
ROW_RISE = 0.5  # and at least this share of the median
OFTEN = 6  # such rows in `RECENT` steps raise an alarm,
ALONE_SPREADS, ALONE_RISE = 12.0, 0.8  # a single one if it is so far above
MOST_FILES = 8  # with an alarm each; rows of all others are one more alarm
MOST_PLACES = 64  # that are looked up


class RowFiles(Protocol):
    """Where a row's tokens come from; row `row` of a step, from 0."""

    def files(self, step: int, row: int) -> list[str]:
        """The files, as paths; empty if unknown. Cheap: it is called for each such row."""

    def place(self, step: int, row: int) -> TokenPlace | None:
        """Where the part of the row begins that has the loss; None if unknown. May take a second."""


class FarRow(NamedTuple):
    """The largest row of a step, if it is far above the others. `far`: so far that one is enough."""

    step: int
    row: int
    loss: float
    usual: float
    far: bool


class OutlierRows:
    """The largest row of a step is far above if its loss is `ROW_SPREADS` robust standard deviations, and `ROW_RISE`, above the
    median of the rows, both of its own batch and of the last `RECENT` steps."""

    def __init__(self, first: int, files: RowFiles) -> None:
        """`first` is the last step that raises no alarm."""
        self.first, self.where = first, files
        self._medians, self._spreads, self._largest = RecentValues(), RecentValues(), RecentValues()
        self._recent: deque[tuple[int, list[str]]] = deque()  # steps with such a row of files without an alarm
        self._raised: dict[str, Alarm] = {}  # by file; "" is for all others
        self._last: dict[str, int] = {}  # the last step with such a row, by file
        self._said: dict[str, int] = {}  # the count that was returned
        self._places = 0  # that were looked up

    def add(self, metric: Metric) -> Alarm | None:
        """Reads the next step. Returns an alarm if it has the row that completes the evidence against a file."""
        if metric.row_loss is None or metric.row is None or metric.row_median is None or metric.row_spread is None:
            return None
        found = None
        if metric.step > self.first and self._medians.full:
            usual, spread = max(self._medians.median, metric.row_median), self._spreads.median
            above = metric.row_loss - usual
            if above > max(ROW_RISE * usual, ROW_SPREADS * spread):
                far = above > max(ALONE_RISE * usual, ALONE_SPREADS * spread)
                found = self._far(FarRow(metric.step, metric.row, metric.row_loss, usual, far))
        self._medians.add(metric.row_median)
        self._spreads.add(metric.row_spread)
        self._largest.add(metric.row_loss)
        return found

    def _far(self, one: FarRow) -> Alarm | None:
        files = self.where.files(one.step, one.row)
        if len(self._raised) >= MOST_FILES or self._places >= MOST_PLACES:
            files = [file for file in files if file in self._raised]
        keys = files or [""]
        for file in keys:
            if file in self._raised:
                self._raised[file] = replace(self._raised[file], count=self._raised[file].count + 1)
                self._last[file] = one.step
                return None
        self._recent.append((one.step, keys))
        while self._recent[0][0] <= one.step - RECENT:
            self._recent.popleft()
        if not one.far and all(len(self._steps(file)) < OFTEN for file in keys):
            return None
        place = None
        if files:
            place, self._places = self.where.place(one.step, one.row), self._places + 1
        file = place.file if place is not None else ""
        steps = self._steps(file) or [one.step]
        return self._raise(one, file, place, steps) if one.far or len(steps) >= OFTEN else None

    def _steps(self, file: str) -> list[int]:
        """The last steps that have such a row of a file."""
        return [step for step, files in self._recent if file in files]

    def _raise(self, one: FarRow, file: str, place: TokenPlace | None, steps: list[int]) -> Alarm:
        where = f", {place_text(place, PurePath(place.file).name)}" if place is not None else ""
        alarm = Alarm(
            OUTLIER_ROW, one.step, steps[0],
            f"row {one.row + 1}{where}: loss {one.loss:.3f}; the median row has {one.usual:.3f} (spread"
            f" {self._spreads.median:.3f}), the largest row of a step usually {self._largest.median:.3f}",
            one.row, place, len(steps),
        )  # fmt: skip
        self._raised[file], self._last[file], self._said[file] = alarm, one.step, alarm.count
        return self.now(alarm)

    def now(self, alarm: Alarm) -> Alarm:
        """An alarm that `add` returned, with the number of steps that have such a row until now."""
        file = alarm.place.file if alarm.place is not None else ""
        first, of_file = self._raised[file], " of this file" if file else ""
        if first.count == 1:
            return first
        words = f". {first.count:,} steps from {first.since:,} to {self._last[file]:,} have such a row{of_file}"
        return replace(first, evidence=first.evidence + words)

    def updates(self) -> list[Alarm]:
        """The alarms whose count has changed since they were returned last."""
        changed = [file for file, alarm in self._raised.items() if alarm.count != self._said[file]]
        self._said |= {file: self._raised[file].count for file in changed}
        return [self.now(self._raised[file]) for file in changed]
