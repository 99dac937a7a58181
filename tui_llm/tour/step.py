"""What a lesson consists of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tui_llm.tour.facts import CheckResult, Facts

TOUR = "tour"  # the name of the lesson that F2 opens
Check = Callable[[Facts, Facts], CheckResult]
"""(now, as it was when this part began) → whether it is done. Pure."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A question of the lesson; the answer is kept as `typed[key]`.

    `form` selects another form than a line of text: `pairs`, a form for instruction–answer pairs; `file`, the path of a
    text file whose tokens are then counted.
    """

    key: str
    title: str
    hint: str
    text: str = ""
    form: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """One task for the learner.

    In `do` and `then`, {command} stands for the key of the command with that id. `check(now, began)` compares the current
    facts with those at the start of the part. `then` is shown, after the words of the check, once the part is done.
    """

    do: str
    check: Check
    ask: Ask | None = None
    then: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a lesson. `name` identifies it in the saved progress."""

    name: str
    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Lesson:
    """The steps that a lesson file describes. `name` identifies the saved progress, `source` is the file."""

    name: str
    title: str
    about: str
    steps: tuple[Step, ...]
    source: str = ""
