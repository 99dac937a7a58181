"""The keys of the lab and its panes, and which of them the footer shows where."""

from __future__ import annotations

from tui_llm.tui.instruments.ablate.keys import OPEN as ABLATE
from tui_llm.tui.instruments.inside.keys import OPEN as INSIDE
from tui_llm.tui.instruments.open_keys import CHAT, COMPARE_MODELS, GUESS, HEADS, SFT
from tui_llm.tui.instruments.sampler_keys import temperature_keys
from tui_llm.tui.kit.command import (
    HELP,
    HELP_TYPING,
    PANE_TITLES,
    PANES,
    PICTURE,
    WAY_OUT,
    Command,
    CommandFactory,
    in_footer,
)
from tui_llm.tui.kit.widgets.prompt import KEYS as PROMPT_KEYS
from tui_llm.tui.lab.panes import generate, logits, loss, tokens
from tui_llm.tui.runs.keys import KEYS as TRAINING_KEYS
from tui_llm.tui.runs.watched_run import KEYS as RUN_KEYS
from tui_llm.tui.tour.pane import KEYS as TOUR_KEYS

KEYS = (
    # Prompt
    Command("type", "i,slash", "prompt", "Type in the prompt; every pane updates", "Prompt", "lab", "type", ("*",), importance=1),
    *PROMPT_KEYS,
    Command("ghost", "G", "ghost text", "Show or hide ghost text while you type: the likeliest continuation, dim behind the prompt", "Prompt", "lab", "ghost"),
    # Panes
    *(
        Command(f"pane_{name}", str(at), PANE_TITLES[name], f"Go to the {PANE_TITLES[name]} pane", "Panes", "lab", f"pane('{name}')")
        for at, name in enumerate(PANES, 1)
    ),
    Command("next_pane", "tab", "next pane", "Go to the next pane", "Panes", "lab", "cycle(1)", ("prompt",)),
    Command("previous_pane", "shift+tab", "previous pane", "Go to the previous pane", "Panes", "lab", "cycle(-1)"),
    Command("zoom", "z", "zoom", "Maximize the focused pane, or restore the layout", "Panes", "lab", "zoom", ("*",)),
    *tokens.KEYS,
    # The loss's target
    logits.PICK,
    Command("target", "t", "target", "Type a target: the text whose loss is measured", "Loss", "lab", "target", ("logits", "loss")),
    Command("target_space", "s", "leading space", "Add or remove the space before the typed target", "Loss", "lab", "target_space", ("loss",)),
    # The sampler
    *temperature_keys(CommandFactory("lab", "Sampler", ("logits", "generate"))),
    *generate.KEYS,
    *TRAINING_KEYS,
    Command("parts_on", "0", "all parts on", "Switch on every part of the model that is switched off or changed", "Switch off", "lab", "parts_on"),
    # Copies and files
    Command("copy", "y", "copy", "Copy the pane as a table (tab-separated)", "Copy and save", "lab", "copy_pane"),
    Command("copy_json", "Y", "copy JSON", "Copy the whole reading as JSON", "Copy and save", "lab", "copy_json"),
    Command("save", "w", "save", "Write the reading to a JSON file in the current folder", "Copy and save", "lab", "save"),
    PICTURE,
    # The app
    Command("models", "m", "models", "Choose another model", "App", "lab", "models", ("*",)),
    Command("runs", "R", "runs", "List the training runs", "App", "lab", "runs", ("training",), importance=3),
    Command("theme", "d", "dark/light", "Switch between a dark and a light theme", "App", "lab", "app.switch_theme"),
    Command("palette_colours", "Z", "colours", "Colours for the colour-blind: deuteranopia, protanopia, tritanopia, then the usual ones; d makes them dark or light", "App", "app", "next_palette"),
    Command("cancel", "escape", "cancel", "Cancel a stream, or the opening of a model", "App", "lab", "cancel"),
    Command("palette", "ctrl+p", "palette", "Find a command by name", "App", "app", "command_palette", ("prompt",)),
    HELP_TYPING,
    HELP,
    Command("quit", "q", "quit", "Quit (training continues)", "App", "lab", "app.quit", ("*",), importance=WAY_OUT),
    Command("quit_anywhere", "ctrl+q", "quit", "Quit, even while typing", "App", "app", "quit", ("prompt",), priority=True, importance=4),
)  # fmt: skip
# Every command of the lab screen. The help lists those after `KEYS` with other screens (see `keymap.py`).
ALL = (*KEYS, INSIDE, ABLATE, *RUN_KEYS, *logits.KEYS, *loss.KEYS, *TOUR_KEYS, GUESS, COMPARE_MODELS, SFT, CHAT, HEADS)
CURSOR = ("Home", "End", ",", ".")  # keys of the token cursor, which a pane's border does not list


def footer(place: str) -> list[Command]:
    """The commands for the footer while `place`, the prompt or a pane, has the focus: for a pane, help, the pane's
    commands, then those of every pane ("*")."""
    commands = in_footer(ALL, place)
    return commands if place == "prompt" else [HELP, *commands, *(c for c in in_footer(ALL, "*") if c is not HELP)]


def further(pane: str) -> list[Command]:
    """The commands of a pane that are not meant for the footer."""
    return [
        command
        for command in ALL
        if (command.scope == pane or command.group.lower() == pane)
        and not {pane, "*"} & set(command.footer)
        and command.key_text not in CURSOR
    ]
