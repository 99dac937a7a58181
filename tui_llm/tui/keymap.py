"""Every command of the screen, defined once. Bindings, footer, palette and help are all made from `COMMANDS`.

A command's `scope` is the node that carries its key: `app` (everywhere), `lab` (the five panes, when no text is being
typed), `prompt` (while typing), one pane's name, or another screen's. Its `action` is run on that node.
"""

from __future__ import annotations

from textual.binding import Binding, BindingType

from tui_llm.tui.instruments.draws.keys import DRAW_COMMANDS
from tui_llm.tui.instruments.inside.keys import INSIDE_COMMANDS
from tui_llm.tui.instruments.tree.keys import TREE_COMMANDS
from tui_llm.tui.kit.command import Command
from tui_llm.tui.lab.keys_lab import LAB_COMMANDS
from tui_llm.tui.lab.keys_logits import LOGITS_COMMANDS
from tui_llm.tui.lab.keys_loss import LOSS_COMMANDS
from tui_llm.tui.lab.keys_screens import SCREEN_COMMANDS
from tui_llm.tui.lab.keys_tokens import TOKEN_COMMANDS
from tui_llm.tui.models.keys import MODEL_COMMANDS
from tui_llm.tui.runs.keys_batch import BATCH_COMMANDS
from tui_llm.tui.runs.keys_probes import PROBE_COMMANDS
from tui_llm.tui.runs.keys_runs import RUN_COMMANDS
from tui_llm.tui.tour.keys import TOUR_COMMANDS

COMMANDS = (
    *LAB_COMMANDS,
    *TOKEN_COMMANDS,
    *TREE_COMMANDS,
    *MODEL_COMMANDS,
    *INSIDE_COMMANDS,
    *BATCH_COMMANDS,
    *PROBE_COMMANDS,
    *SCREEN_COMMANDS,
    *RUN_COMMANDS,
    *LOGITS_COMMANDS,
    *LOSS_COMMANDS,
    *DRAW_COMMANDS,
    *TOUR_COMMANDS,
)
BY_ID = {command.id: command for command in COMMANDS}


MODAL = ("runs", "models", "help", "comparison")  # windows over a screen: they let no key through to the app
PICTURE = BY_ID["picture"]


def bindings(scope: str) -> list[BindingType]:
    """The `BINDINGS` of the node that carries `scope`."""
    own: list[BindingType] = [
        Binding(
            command.keys,
            command.action,
            command.label,
            tooltip=command.tooltip,
            id=command.id,
            priority=command.priority,
            show=False,
        )
        for command in COMMANDS
        if command.scope == scope
    ]
    if scope in MODAL:
        own.append(Binding(PICTURE.keys, f"app.{PICTURE.action}", PICTURE.label, tooltip=PICTURE.tooltip, show=False))
    return own


def footer(place: str) -> list[Command]:
    """What the footer may show where `place` (`prompt`, a pane's or a screen's name) has the focus: help first, then the
    place's own."""
    own = [command for command in COMMANDS if place in command.footer]
    if place in ("prompt", "batch", "samples"):
        return own
    return [
        BY_ID["help_key"],
        *own,
        *(command for command in COMMANDS if "*" in command.footer and command.id != "help_key"),
    ]


def further(place: str) -> list[Command]:
    """What else there is to do in a pane, and has no place in the footer."""
    return [
        command
        for command in COMMANDS
        if (command.scope == place or command.group.lower() == place)
        and not {place, "*"} & set(command.footer)
        and command.key_text not in ("Home", "End", ",", ".")  # the cursor's
    ]
