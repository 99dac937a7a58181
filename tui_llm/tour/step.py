"""What a step of the tour is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tui_llm.tour.facts import Facts, Outcome

Check = Callable[[Facts, Facts], Outcome]
"""(now, as it was when this part began) → whether it is done. Pure."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What the tour itself asks for, in a line: kept as `typed[key]`. `form` pairs: the form for instruction–answer pairs;
    file: a text file's path, whose tokens are then counted."""

    key: str
    title: str
    hint: str
    text: str = ""
    form: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """One thing to do. In `do`, {command} stands for the key of the screen's command of that id."""

    do: str
    check: Check
    ask: Ask | None = None


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    title: str
    parts: tuple[Part, ...]
