"""What was read from each checkpoint of a foreign folder, and which of it still holds: steps.json in the cache.

A checkpoint whose files changed since, or that is gone, loses its lines. What was read of the others is not computed again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tui_llm.common import storage
from tui_llm.common.errors import UserError
from tui_llm.common.files import write_aside, write_json
from tui_llm.common.foreign_files import read_json
from tui_llm.facts.pin import Pin
from tui_llm.training.run import jsonl, pin_readings
from tui_llm.training.run.foreign import digests, lens_readings
from tui_llm.training.run.foreign.foreign_run import ForeignRun
from tui_llm.training.run.foreign.step_folders import StepFolder

FILE = "steps.json"
VERSION = 1
MOST_BYTES = 64 << 20
LINES = ("probes.jsonl", "heads.jsonl", "samples.jsonl", lens_readings.FILE)
LONGEST = 500  # characters of a problem


@dataclass(slots=True)
class StepRecord:
    """A checkpoint that was read. `mark` changes when its files do; `problems` says what could not be read of it."""

    mark: str
    problems: list[str] = field(default_factory=list)


class ReadingsIndex:
    """steps.json of a cached folder: the checkpoints that were read, and the digests of compared files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.steps: dict[int, StepRecord] = {}
        self.same: list[tuple[int, ...]] = []
        self.digests: digests.Digests = {}
        try:
            value = read_json(folder / FILE, MOST_BYTES)
            if value["version"] == VERSION:
                self._parse(value)
        except (UserError, KeyError, TypeError, ValueError, AttributeError):
            pass  # not there yet, or damaged: the checkpoints are read again

    def _parse(self, value: Any) -> None:
        steps = {int(step): StepRecord(str(mark), list(map(str, problems))) for step, (mark, problems) in value["steps"].items()}  # fmt: skip
        same = [tuple(int(step) for step in group) for group in value["same"]]
        self.steps, self.same, self.digests = steps, same, dict(value["digests"])

    def write(self) -> None:
        """Writes steps.json. Raises `UserError`."""
        write_json(
            self.folder / FILE,
            {
                "version": VERSION,
                "steps": {
                    str(step): [one.mark, [text[:LONGEST] for text in one.problems]] for step, one in self.steps.items()
                },
                "same": [list(group) for group in self.same],
                "digests": self.digests,
            },
        )

    def forget_changed(self, steps: tuple[StepFolder, ...]) -> None:
        """Drops what was read from checkpoints that changed since or are gone. Raises OSError or `UserError`."""
        marks = {one.step: mark_of(one.path) for one in steps}
        kept = {step for step, record in self.steps.items() if marks.get(step) == record.mark}
        if kept != set(self.steps) or not self.steps:
            self.steps = {step: self.steps[step] for step in sorted(kept)}
            for name in LINES:
                _keep(self.folder / name, kept)
            self.write()


def complete(run: ForeignRun, wanted: Sequence[Pin]) -> bool:
    """Whether each checkpoint has been read as it is now, with all the pins that it can be read with."""
    index = ReadingsIndex(run.path)
    known = {one.step: one for one in pin_readings.evaluations(run)}
    for one in run.steps():
        record = index.steps.get(one.step)
        if record is None or record.mark != mark_of(one.path):
            return False
        evaluation = known.get(one.step)
        if evaluation is None and record.problems:
            continue  # it can't be opened
        if evaluation is None or any(evaluation.of(pin) is None for pin in wanted):
            return False
    return True


def mark_of(checkpoint: Path) -> str:
    """Changes when a file of the checkpoint does that what is read from it depends on."""
    try:
        if not checkpoint.is_dir():
            return digests.mark_of(checkpoint)
        files = sorted(
            path
            for path in checkpoint.iterdir()
            if path.suffix in (*digests.WEIGHTS, ".json", ".txt", ".model") and path.name != "trainer_state.json"
        )
        return " ".join(f"{path.name}:{digests.mark_of(path)}" for path in files)
    except OSError as error:
        return f"unreadable: {error.strerror}"


def _keep(path: Path, steps: set[int]) -> None:
    """Drops the lines of other steps from a JSON Lines file."""
    if path.is_file():
        write_aside(path, lambda part: _copy(path, part, steps))


def _copy(path: Path, to: Path, steps: set[int]) -> None:
    with storage.open_file(to, "wb") as file:
        file.writelines(_lines(path, lambda step: step in steps))


def _lines(path: Path, wanted: Callable[[int], bool]) -> Iterator[bytes]:
    for line in jsonl.lines(path):
        try:
            if wanted(int(json.loads(line)["step"])):
                yield line
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
