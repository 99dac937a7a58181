"""The checkpoints of a foreign folder with what was read of each, as a frozen table for the screen and the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tui_llm.common.errors import UserError
from tui_llm.facts.head_scores import INDUCTION, HeadScore, best
from tui_llm.facts.pin import Pin
from tui_llm.training.run import head_readings, pin_readings, pins
from tui_llm.training.run.foreign.digests import same_text, weight_files
from tui_llm.training.run.foreign.foreign_run import ForeignRun
from tui_llm.training.run.foreign.lens_readings import LensReading
from tui_llm.training.run.foreign.readings import ReadingsIndex
from tui_llm.training.run.pin_readings import PinReading


@dataclass(frozen=True, slots=True)
class ForeignStep:
    """One checkpoint. `size` is that of its weights in bytes; `same` the first other step with the same weights, None if there is
    none; `pins`, `lenses` and `induction` (the head with the highest score) are what was read of it; `problems` what could
    not be."""

    step: int
    name: str
    path: Path
    size: int
    same: int | None = None
    read: bool = False
    pins: tuple[PinReading, ...] = ()
    lenses: tuple[LensReading, ...] = ()
    induction: HeadScore | None = None
    sample: str = ""
    problems: tuple[str, ...] = ()

    def of(self, pin: Pin) -> PinReading | None:
        """What was read of `pin`; None if nothing was."""
        return next((one for one in self.pins if one.pin == pin), None)

    def lens(self, pin: Pin) -> LensReading | None:
        """The logit lens of `pin`; None if it was not read."""
        return next((one for one in self.lenses if one.pin == pin), None)


@dataclass(frozen=True, slots=True)
class ForeignTable:
    """The checkpoints by step, the pins that are read from them, and the groups of steps with the same weights."""

    name: str
    source: Path
    steps: tuple[ForeignStep, ...] = ()
    pins: tuple[Pin, ...] = ()
    same: tuple[tuple[int, ...], ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """The same weights under several steps, and what could not be read, a line each: not sanitized for a terminal."""
        problems: dict[str, int] = {}
        for one in self.steps:
            for text in one.problems:
                problems[text] = one.step
        return (*map(same_text, self.same), *(f"{text} (last at step {step:,})" for text, step in problems.items()))


def read_table(run: ForeignRun, groups: list[tuple[int, ...]] | None = None) -> ForeignTable:
    """Reads the folder's list and what is cached. Never raises because of their content.

    groups: the steps with the same weights, if they have just been compared; otherwise those that were found before.
    """
    index = ReadingsIndex(run.path)
    found = run.steps()
    known = {step for step, _ in run.saved()}
    same = tuple(
        part
        for group in (index.same if groups is None else groups)
        if len(part := tuple(step for step in group if step in known)) > 1
    )
    try:
        evaluations = {one.step: one for one in pin_readings.evaluations(run)}
        wanted = tuple(pins.read(run.pins_path))
    except UserError:
        evaluations, wanted = {}, ()
    lenses = {one.step: one for one in run.lenses()}
    heads = {one.step: one for one in head_readings.evaluations(run)}
    samples = {one.step: one for one in run.samples()}
    steps = []
    for one in found:
        record, sample = index.steps.get(one.step), samples.get(one.step)
        steps.append(
            ForeignStep(
                one.step, one.name, one.path, _size(one.path),
                next((step for group in same if one.step in group for step in group if step != one.step), None),
                record is not None,
                evaluations[one.step].readings if one.step in evaluations else (),
                lenses[one.step].lenses if one.step in lenses else (),
                best(heads[one.step].scores, INDUCTION) if one.step in heads else None,
                sample.prompt + sample.text if sample else "",
                tuple(record.problems) if record else (),
            )
        )  # fmt: skip
    return ForeignTable(run.name, run.source, tuple(steps), wanted, same)


def _size(checkpoint: Path) -> int:
    try:
        return sum(path.stat().st_size for path in weight_files(checkpoint))
    except OSError:
        return 0
