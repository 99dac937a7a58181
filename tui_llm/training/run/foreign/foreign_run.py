"""A folder of other people's checkpoints, or the log of another program, as a run that is only read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from tui_llm.common import paths, storage
from tui_llm.common.errors import UserError
from tui_llm.common.files import write_json
from tui_llm.common.foreign_files import read_json
from tui_llm.common.numbers import counted
from tui_llm.facts.pin import Pin
from tui_llm.training.run import jsonl, pins, run
from tui_llm.training.run.config import RunConfig
from tui_llm.training.run.foreign import lens_readings, log_files, step_folders
from tui_llm.training.run.foreign.lens_readings import LensEvaluation
from tui_llm.training.run.foreign.step_folders import StepFolder
from tui_llm.training.run.metrics import Metric
from tui_llm.training.run.run import Run
from tui_llm.training.run.status import Status

STATE = "foreign"
LONGEST_NAME = 32  # characters of a run's name
MOST_OPENED = 64  # paths that are remembered
PROMPT = "Once upon a time"  # what is read where nothing is pinned
_FILE = "foreign.json"


class ForeignRun(Run):
    """`source` is the folder or file, which is never written to; `path` a folder in the cache with the layout of a run
    directory, for what is computed from its checkpoints.

    It has no settings, no worker and no metrics.jsonl: `config` raises `UserError`, and its curves are in `foreign_curves`.
    """

    def __init__(self, source: Path) -> None:
        self.source = Path(os.path.realpath(source))
        super().__init__(paths.cache_dir() / "foreign" / hashlib.sha256(os.fsencode(self.source)).hexdigest()[:24])
        self.name = _short(self.source)
        self.lens_path = self.path / lens_readings.FILE

    def exists(self) -> bool:
        return os.path.lexists(self.source)

    def sources(self) -> tuple[Path, ...]:
        return self.path, self.source, *self.log_files(), *(path for _, path in self.saved())

    def config(self) -> RunConfig:
        raise UserError(f"{self.source} is no run of tui-llm: it has no settings here, and is only read")

    def alive(self) -> bool:
        return False

    def last_metric(self) -> Metric | None:
        return None

    def steps(self) -> tuple[StepFolder, ...]:
        """Its checkpoints, by step; empty for a log."""
        return step_folders.step_folders(self.source) if self.source.is_dir() else ()

    def saved(self) -> list[tuple[int, Path]]:
        return [(one.step, one.path) for one in self.steps()]

    def checkpoints(self) -> list[tuple[int, Path]]:
        return self.saved()

    def log_files(self) -> tuple[Path, ...]:
        """Its logs, all of one kind."""
        return log_files.log_files(self.source)

    def lenses(self) -> list[LensEvaluation]:
        """What was read with the logit lens, by step."""
        found = {one.step: one for one in jsonl.read(self.lens_path, lens_readings.parse)}
        return [found[step] for step in sorted(found)]

    def status(self) -> Status:
        steps = self.steps()
        last = steps[-1].step if steps else 0
        if not self.exists():
            return Status(STATE, problem=f"{self.source} is gone; put it back, or take it off the list")
        return Status(STATE, f"{counted(len(steps), 'checkpoint')} of another program" if steps else "", last, last)

    def size(self) -> int:
        """The size of its checkpoints and logs in bytes."""
        total = 0
        for _, checkpoint in self.saved():
            try:
                inside = list(checkpoint.iterdir()) if checkpoint.is_dir() else [checkpoint]
                total += sum(path.stat().st_size for path in inside if path.is_file())
            except OSError:
                continue
        return total + sum(path.stat().st_size for path in self.log_files() if path.is_file())

    def delete(self) -> None:
        """Forgets what was computed, and the path. Its own files stay. Raises `UserError`."""
        forget(self.source)
        try:
            storage.rmtree(self.path, ignore_errors=not self.path.exists())
        except OSError as error:
            raise UserError(f"can't delete {self.path}: {error.strerror or error}") from error

    def use_pins(self, more: Iterable[Pin] = ()) -> list[Pin]:
        """Adds the user's pins, and `more`, to those that are read from each checkpoint; returns all. Raises `UserError`."""
        storage.make_folders(self.path)
        before = pins.read(self.pins_path)
        asked = list(map(pins.check, more))
        wanted = list(dict.fromkeys((*before, *asked, *pins.of_user()))) or [Pin(PROMPT)]
        if len(wanted) > pins.MOST:  # those asked for now, and the oldest
            wanted = list(dict.fromkeys((*wanted[: pins.MOST - len(asked)], *asked)))[: pins.MOST]
        if wanted != before:
            pins.write(self.pins_path, wanted)
        return wanted


def _short(source: Path) -> str:
    """The path as a name: below the home folder from `~`, the end of a long one. Never the name of another run, as those
    contain no slash."""
    text = str(source)
    try:
        home = str(Path.home())
    except RuntimeError:
        home = ""
    if home not in ("", "/") and text.startswith(home + os.sep):
        text = "~" + text[len(home) :]
    return text if len(text) <= LONGEST_NAME else "…" + text[-LONGEST_NAME + 1 :]


# ── by path ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def is_path(text: str) -> bool:
    """Whether a word names a path, not a run: it has a separator, or begins with `.` or `~`."""
    return os.sep in text or text.startswith((".", "~"))


def open_path(text: str | Path) -> ForeignRun:
    """The foreign run at a path. Raises `UserError` if there is neither a checkpoint nor a log."""
    source = paths.absolute(paths.expand(str(text), "the path"), "the path") if isinstance(text, str) else text
    found = ForeignRun(source)
    if not found.exists():
        raise UserError(f"there is no {source}; give a folder of checkpoints, or a log")
    if not found.steps() and not found.log_files():
        raise UserError(
            f"{source} has neither checkpoints (folders such as checkpoint-500, step_1000) nor a log of nanoGPT, nanochat, "
            "TensorBoard, wandb or transformers' Trainer"
        )
    return found


def find(text: str) -> Run:
    """A run of this machine by its name, or a foreign one by its path. Raises `UserError` if there is none."""
    if is_path(text):
        return open_path(text)
    try:
        return run.find(text)
    except UserError as error:
        if os.path.lexists(text):
            raise UserError(f"there is no run {text!r}; for the file or folder write .{os.sep}{text}") from error
        raise


def _list_path() -> Path:
    return paths.data_dir() / _FILE


def opened() -> list[ForeignRun]:
    """The foreign runs that were opened before, the newest first; an empty list if the file is damaged."""
    try:
        value = read_json(_list_path())
        found = [Path(str(text)) for text in value["paths"][:MOST_OPENED]]
        return [ForeignRun(path) for path in found if path.is_absolute()]
    except (UserError, KeyError, TypeError, ValueError):
        return []


def remember(found: ForeignRun) -> None:
    """Puts a foreign run first in the list of those that were opened. Raises `UserError`."""
    _write([found.source, *(one.source for one in opened() if one.source != found.source)])


def forget(source: Path) -> None:
    """Takes a path off the list. Raises `UserError`."""
    _write([one.source for one in opened() if one.source != source])


def _write(sources: list[Path]) -> None:
    storage.make_folders(paths.data_dir())
    write_json(_list_path(), {"version": 1, "paths": [str(source) for source in sources[:MOST_OPENED]]})
