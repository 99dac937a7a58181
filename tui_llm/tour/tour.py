"""The learner's progress through the tour, saved in the data folder."""

from __future__ import annotations

from pathlib import Path

from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.common.files import write_json
from tui_llm.common.foreign_files import read_json
from tui_llm.tour.facts import Facts
from tui_llm.tour.step import Part, Step

FINISHED = "The tour is over. Everything you made is kept; {tour_back} goes back, {tour} closes this."


def path() -> Path:
    return paths.data_dir() / "tour.json"


class Tour:
    """The learner's position in the tour.

    `update` is called with the facts repeatedly and advances when the current part is done. The position is part number
    `part` of step number `step`, both from 0; at the end, `step` is the number of steps.
    """

    def __init__(self, steps: tuple[Step, ...] | None = None) -> None:
        self.steps = _all() if steps is None else steps
        self.step = self.part = 0
        self.typed: dict[str, str] = {}
        self.seen = ""  # the outcome of the previous part
        self.lacks = ""
        self.done: set[tuple[str, int]] = set()
        self._began: Facts | None = None
        self._held: Facts | None = None  # facts at a manual `move`: nothing is checked until they change

    @property
    def finished(self) -> bool:
        return self.step >= len(self.steps)

    @property
    def here(self) -> Part | None:
        return None if self.finished else self.steps[self.step].parts[self.part]

    @property
    def title(self) -> str:
        return "The end" if self.finished else self.steps[self.step].title

    def update(self, facts: Facts) -> bool:
        """Checks the current part. Returns whether the text to show has changed."""
        part = self.here
        if part is None:
            return False
        if self._began is None:
            self._began = facts
        if self._held is not None:
            if self._held == facts:
                return False
            self._held = None
        outcome = part.check(facts, self._began)
        if not outcome.done:
            changed, self.lacks = self.lacks != outcome.words, outcome.words
            return changed
        self.done.add((self.steps[self.step].name, self.part))
        # the part was done at once: keep the previous text, which nobody had time to read
        at_once = facts == self._began and self.seen
        self.seen = f"{self.seen} {outcome.words}" if at_once else outcome.words
        self._go(1)
        self._began = facts
        return True

    def move(self, direction: int, facts: Facts) -> bool:
        """Moves to the next part (skipping this one) or the previous one. Returns False at the ends."""
        if (direction < 0 and self.step == self.part == 0) or (direction > 0 and self.finished):
            return False
        self._go(direction)
        self.seen, self._held = "", facts
        return True

    def _go(self, direction: int) -> None:
        self.part += direction
        if not self.finished and self.part >= len(self.steps[self.step].parts):
            self.step, self.part = self.step + 1, 0
        elif self.part < 0 or (self.finished and direction < 0):
            self.step -= 1
            self.part = len(self.steps[self.step].parts) - 1
        self.lacks, self._began = "", None

    # ── saving ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def save(self) -> None:
        """Raises `UserError` if the file can't be written."""
        name = "" if self.finished else self.steps[self.step].name
        parts = sorted([step, part] for step, part in self.done)
        write_json(path(), {"version": 1, "step": name, "part": self.part, "done": parts})

    def load(self) -> bool:
        """Restores the saved position. Returns False if there is none or it is the beginning."""
        try:
            kept = read_json(path()) if path().exists() else {}
            names = [step.name for step in self.steps]
            step = len(names) if kept["step"] == "" else names.index(kept["step"])
            part = int(kept["part"])
            done = {(str(name), int(number)) for name, number in kept["done"]}
        except (UserError, KeyError, TypeError, ValueError, AttributeError, OSError):
            return False
        if step < len(names) and not 0 <= part < len(self.steps[step].parts):
            return False
        self.step, self.part, self.done = step, 0 if step == len(names) else part, done
        return (step, part) != (0, 0)


def _all() -> tuple[Step, ...]:
    """Returns all steps. Imported here, so that the app starts faster without the tour."""
    from tui_llm.tour.steps import STEPS

    return STEPS
