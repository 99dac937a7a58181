"""The table of the screens that the action `app.open('ID')` opens over the lab.

The decorator `@opens(ID)` registers a screen, so a new screen needs no change in this file. The key that opens it is a
command `OPEN` in the same module or, if a pane's footer shows it, in the pane's `KEYS`. Importing the screens' modules
fills the table; `keymap.py` imports all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from textual.screen import Screen

from tui_llm.tui.state.context import LabContext

Need = Callable[[LabContext], bool]  # returns whether the screen can open now; if not, notifies the user why
S = TypeVar("S", bound=Screen[Any])


@dataclass(frozen=True, slots=True)
class Opener:
    screen: Callable[[LabContext], Screen[Any]]  # the screen's class
    needs: tuple[Need, ...]

    def open(self, context: LabContext) -> None:
        if all(need(context) for need in self.needs):
            context.push_screen(self.screen(context))


OPENERS: dict[str, Opener] = {}


def opens(id: str, *needs: Need) -> Callable[[type[S]], type[S]]:
    """A decorator that registers a screen, whose only argument is the context."""

    def register(screen: type[S]) -> type[S]:
        OPENERS[id] = Opener(screen, needs)
        return screen

    return register
