"""The learner's progress through a lesson, saved in the data folder: the tour is the first one that ships."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.common.files import write_json
from tui_llm.common.foreign_files import read_json
from tui_llm.tour.facts import Facts
from tui_llm.tour.step import TOUR, Check, Lesson, Part, Step

FINISHED = "{lesson} is over. Everything you made is kept; {{tour_back}} goes back, {{tour}} closes this."
FURTHER = " Further lessons, in a shell: {commands}."
MOST_PROGRESS = 1 << 16  # bytes of a progress file


def path(lesson: str = TOUR, learner: str = "") -> Path:
    """Where the progress through the lesson of that name is kept: for each learner of a class apart."""
    if learner:
        import hashlib  # needed in a class only

        return learners_dir(lesson) / f"{hashlib.sha256(learner.casefold().encode()).hexdigest()[:24]}.json"
    return paths.data_dir() / "tour.json" if lesson == TOUR else paths.data_dir() / "lessons" / f"{lesson}.json"


def is_used() -> bool:
    """Whether the tour was opened once, or its line in the app dismissed."""
    return path().exists() or _dismissed().exists()


def dismiss() -> None:
    """Hides the app's line about the tour from now on. Raises `UserError` if the file can't be written."""
    write_json(_dismissed(), {"version": 1, "dismissed": True})


def _dismissed() -> Path:
    return paths.data_dir() / "tour-dismissed.json"


def learners_dir(lesson: str) -> Path:
    return paths.data_dir() / "lessons" / f"{lesson}-class"


class Tour:
    """The learner's position in a lesson, by default the tour; `learner` is the name that the learner has in a class.

    `update` is called with the facts repeatedly and advances when the current part is done. The position is part number
    `part` of step number `step`, both from 0; at the end, `step` is the number of steps.
    """

    def __init__(self, lesson: Lesson | None = None, learner: str = "") -> None:
        self.lesson = _shipped_tour() if lesson is None else lesson
        self.learner = learner
        self.step = self.part = 0
        self.typed: dict[str, str] = {}
        self.seen = ""  # the outcome of the previous part
        self.lacks = ""
        self.done: set[tuple[str, int]] = set()
        self.damaged = False  # `load` found a file that it can't read
        self._began: Facts | None = None
        self._held: Facts | None = None  # facts at a manual `move`: nothing is checked until they change

    @property
    def steps(self) -> tuple[Step, ...]:
        return self.lesson.steps

    @property
    def path(self) -> Path:
        return path(self.lesson.name, self.learner)

    @property
    def is_tour(self) -> bool:
        return self.lesson.name == TOUR

    @property
    def finished_words(self) -> str:
        """What is shown at the end; {command} stands for a key."""
        words = FINISHED.format(lesson="The tour" if self.is_tour else "The lesson")
        return words + (FURTHER.format(commands=", ".join(_further())) if self.is_tour else "")

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
        elif self._began.reading is None and (self._began.prompt, self._began.steps) == (facts.prompt, facts.steps):
            self._began = dataclasses.replace(self._began, reading=facts.reading)  # it was still being computed
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
        said = f"{outcome.words} {part.then}" if part.then else outcome.words
        self.seen = f"{self.seen} {said}" if at_once else said
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
        kept = {"version": 1, "step": name, "part": self.part, "done": parts}
        write_json(self.path, {**kept, "learner": self.learner} if self.learner else kept)

    def load(self) -> bool:
        """Restores the saved position. Returns False if there is none or it is the beginning.

        If the lesson was edited and its step or part is gone, what was done stays done, and the position is the first
        part that is not.
        """
        found = self.path
        self.damaged = False
        try:
            if not found.exists():
                return False
            kept = read_json(found, MOST_PROGRESS)
            name, part = str(kept["step"]), int(kept["part"])
            done = {(str(step), int(number)) for step, number in kept["done"]}
        except (UserError, KeyError, TypeError, ValueError, AttributeError, OSError, OverflowError):
            self.damaged = True
            return False
        places = [(at, number) for at, step in enumerate(self.steps) for number in range(len(step.parts))]
        names = [step.name for step in self.steps]
        self.done = {(names[at], number) for at, number in places} & done
        if name == "":
            self.step, self.part = len(names), 0
        elif name in names and (place := (names.index(name), part)) in places:
            self.step, self.part = place
        else:
            left = (place for place in places if (names[place[0]], place[1]) not in self.done)
            self.step, self.part = next(left, (len(names), 0))
        return (self.step, self.part) != (0, 0)


def _shipped_tour() -> Lesson:
    """Imported here, so that the app starts faster without the tour."""
    from tui_llm.tour.lesson_file import find, read

    return read(find(TOUR))


def place_of(check: Check) -> str:
    """The step of the tour that has a part with that check: `step 10 of the tour, “From predictor to assistant”`."""
    steps = enumerate(_shipped_tour().steps, 1)
    number, title = next((at, one.title) for at, one in steps if any(part.check is check for part in one.parts))
    return f"step {number} of the tour, “{title}”"


def _further() -> list[str]:
    from tui_llm.tour.lesson_file import SHIPPED

    return [f"tui-llm tour {name}" for name in SHIPPED if name != TOUR]
