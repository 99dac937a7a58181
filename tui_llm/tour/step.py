"""The parts that the tour's steps consist of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tui_llm.tour.facts import CheckResult, Facts

Check = Callable[[Facts, Facts], CheckResult]
"""(now, as it was when this part began) → whether it is done. Pure."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A question of the tour; the answer is kept as `typed[key]`.

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

    In `do`, {command} stands for the key of the command with that id. `check(now, began)` compares the current facts
    with those at the start of the part.
    """

    do: str
    check: Check
    ask: Ask | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the tour. `name` identifies it in the saved progress."""

    name: str
    title: str
    parts: tuple[Part, ...]
