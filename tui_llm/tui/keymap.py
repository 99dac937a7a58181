"""The commands of all screens, collected from the `OPEN` and the `KEYS` of each module: for the help screen, the tour,
docs/keys.md and the test that finds clashes; and `OPENERS`, which these modules fill. Imports every screen, so it is
imported only when it is needed.

The order is that of the help screen and docs/keys.md: the modules of `FIRST`, then the others by name; a group stands
where its first command does.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType

from tui_llm import tui
from tui_llm.tui import help
from tui_llm.tui.instruments import (
    chat,
    compare_models,
    letters,
    merges,
    pairs,
    sampler,
    scratch,
    swap,
    temperatures,
    vocabularies,
)
from tui_llm.tui.instruments.draws import draw, draw_many
from tui_llm.tui.instruments.inside import keys as inside
from tui_llm.tui.instruments.learn import learn
from tui_llm.tui.instruments.sft import pairs as instruction_pairs
from tui_llm.tui.instruments.sft import sft
from tui_llm.tui.instruments.tree import keys as tree
from tui_llm.tui.kit.command import Command
from tui_llm.tui.lab import keys as lab
from tui_llm.tui.lab.panes import logits, loss
from tui_llm.tui.models import info, models
from tui_llm.tui.runs import batch, branch, compare, new_run, pin_history, runs, samples, step, step_row, watched_run
from tui_llm.tui.state import openers
from tui_llm.tui.tour import pane as tour

FIRST = (
    lab, merges, vocabularies, letters, pairs, swap, tree, compare_models, sft, chat, models, info, inside, watched_run, step, step_row, branch, batch, samples, pin_history, runs,
    new_run, help, compare, logits, sampler, temperatures, scratch, loss, learn, draw, draw_many, tour, instruction_pairs,
)  # fmt: skip


def _modules() -> Iterator[ModuleType]:
    yield from FIRST
    for found in pkgutil.walk_packages(tui.__path__, f"{tui.__name__}."):
        if found.name != __name__:
            yield importlib.import_module(found.name)


def _commands_of(module: ModuleType) -> tuple[Command, ...]:
    opening = getattr(module, "OPEN", None)
    return (*([opening] if opening is not None else []), *getattr(module, "KEYS", ()))


COMMANDS = tuple(dict.fromkeys(command for module in _modules() for command in _commands_of(module)))
BY_ID = {command.id: command for command in COMMANDS}
OPENING = tuple(command for command in COMMANDS if command.scope == "lab" and command not in lab.ALL)
"""Keys of the lab that only the module of the screen that they open states. `LabApp` resolves them, as the lab is painted
before that module is imported."""

OPENERS = openers.OPENERS
