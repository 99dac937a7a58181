"""The table of screens that the action `app.open('ID')` opens over the lab.

The module of a screen enters it with `@opens(ID)`, so a screen is added without a change to this file. The module may
also state the key, as a command `OPEN` of the scope `lab`; a key that a pane's footer shows is in the pane's `KEYS`.
`keymap.py` imports all of these modules, and with them fills the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from textual.screen import Screen

from tui_llm.tui.state.context import LabContext

Need = Callable[[LabContext], bool]  # whether a screen can open now; if not, notifies the user why
S = TypeVar("S", bound=Screen[Any])


@dataclass(frozen=True, slots=True)
class Opener:
    screen: Callable[[LabContext], Screen[Any]]  # its class
    needs: tuple[Need, ...]

    def open(self, context: LabContext) -> None:
        if all(need(context) for need in self.needs):
            context.push_screen(self.screen(context))


OPENERS: dict[str, Opener] = {}


def opens(id: str, *needs: Need) -> Callable[[type[S]], type[S]]:
    """A decorator of a screen that is made from the context alone."""

    def enter(screen: type[S]) -> type[S]:
        OPENERS[id] = Opener(screen, needs)
        return screen

    return enter
