"""Every command of the screen, defined once. Bindings, footer, palette and help are all made from `COMMANDS`.

A command's `scope` is the node that carries its key: `app` (everywhere), `lab` (the five panes, when no text is being
typed), `prompt` (while typing) or one pane's name. Its `action` is run on that node.
"""

from __future__ import annotations

from dataclasses import dataclass

from textual.binding import Binding, BindingType

PANES = ("tokens", "logits", "loss", "training", "generate")
PANE_TITLES = {
    "tokens": "Tokens",
    "logits": "Logits & softmax",
    "loss": "Loss",
    "training": "Training",
    "generate": "Generate",
}


@dataclass(frozen=True, slots=True)
class Command:
    id: str
    keys: str  # as Textual names them, comma-separated; the first is the one shown
    label: str  # a word or two, for the footer
    tooltip: str  # a sentence, for palette, help and hover
    group: str  # heading in the help screen
    scope: str
    action: str
    footer: tuple[str, ...] = ()  # where the footer shows it: `prompt`, panes' names, or `*` for every pane
    priority: bool = False  # before the focused widget sees the key
    together: str = ""  # neighbours in the footer with the same word here share it as their label

    @property
    def key_text(self) -> str:
        return key_text(self.keys)


NAMES = {
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "left_curly_bracket": "{",
    "right_curly_bracket": "}",
    "question_mark": "?",
    "slash": "/",
    "escape": "Esc",
    "enter": "Enter",
    "space": "Space",
    "tab": "Tab",
    "shift+tab": "Shift+Tab",
    "alt+enter": "Alt+Enter",
}


def key_text(keys: str) -> str:
    """How a person reads the first of `keys`: `[`, `Esc`, `ctrl+p`."""
    first = keys.split(",")[0]
    if first in NAMES:
        return NAMES[first]
    return first.upper() if first[:1] == "f" and first[1:].isdigit() else first


COMMANDS: tuple[Command, ...] = (
    # Prompt
    Command(
        "type", "i,slash", "prompt", "Type in the prompt: every pane follows", "Prompt", "lab", "type", ("*",)
    ),
    Command(
        "leave",
        "escape",
        "done typing",
        "Leave the prompt; single letters are commands then",
        "Prompt",
        "prompt",
        "leave(False)",
        ("prompt",),
    ),
    Command(
        "leave_enter",
        "enter",
        "done typing",
        "Leave the prompt, as Esc does",
        "Prompt",
        "prompt",
        "leave(True)",
    ),
    Command(
        "newline",
        "alt+enter,ctrl+o",
        "new line",
        "Put a line break into the prompt (ctrl+o does too)",
        "Prompt",
        "prompt",
        "newline",
        ("prompt",),
    ),
    Command(
        "drop_folded",
        "ctrl+l",
        "drop hidden text",
        "Drop the text that a very long prompt keeps out of sight",
        "Prompt",
        "prompt",
        "drop_folded",
    ),
    # Panes
    *(
        Command(
            f"pane_{name}",
            str(at),
            PANE_TITLES[name],
            f"Go to the {PANE_TITLES[name]} pane",
            "Panes",
            "lab",
            f"pane('{name}')",
        )
        for at, name in enumerate(PANES, 1)
    ),
    Command("next_pane", "tab", "next pane", "Go to the next pane", "Panes", "lab", "cycle(1)", ("prompt",)),
    Command(
        "previous_pane", "shift+tab", "previous pane", "Go to the pane before", "Panes", "lab", "cycle(-1)"
    ),
    Command(
        "zoom",
        "z",
        "zoom",
        "Give the focused pane the whole screen, or take it back",
        "Panes",
        "lab",
        "zoom",
        ("*",),
    ),
    # Tokens
    Command(
        "token_view",
        "b",
        "ids/bytes",
        "Show ids, bytes or only text under the tokens",
        "Tokens",
        "lab",
        "token_view",
        ("tokens",),
    ),
    Command(
        "vocabulary",
        "v",
        "vocabulary",
        "Split the same text with the next vocabulary, for comparison",
        "Tokens",
        "lab",
        "vocabulary",
        ("tokens",),
    ),
    Command(
        "special",
        "x",
        "specials",
        "Read <|endoftext|> typed in the prompt as the special token, or as plain text",
        "Tokens",
        "lab",
        "special",
        ("tokens",),
    ),
    Command(
        "start_token",
        "o",
        "start token",
        "Put an explicit <|endoftext|> in front, so that the first token has a prediction",
        "Tokens",
        "lab",
        "start_token",
        ("tokens",),
    ),
    # Logits and loss
    Command(
        "pick",
        "enter",
        "as target",
        "Make the row under the cursor the loss's target",
        "Logits",
        "logits",
        "pick",
        ("logits",),
    ),
    Command(
        "target",
        "t",
        "target",
        "Type a target: the text whose loss is measured",
        "Loss",
        "lab",
        "target",
        ("logits", "loss"),
    ),
    Command(
        "target_space",
        "s",
        "leading space",
        "Add or remove the space before the typed target",
        "Loss",
        "lab",
        "target_space",
        ("loss",),
    ),
    # Sampler
    Command(
        "cooler",
        "left_square_bracket",
        "cooler",
        "Lower the temperature (0 is greedy)",
        "Sampler",
        "lab",
        "temperature(-1)",
        ("logits", "generate"),
        together="temperature",
    ),
    Command(
        "warmer",
        "right_square_bracket",
        "warmer",
        "Raise the temperature",
        "Sampler",
        "lab",
        "temperature(1)",
        ("logits", "generate"),
        together="temperature",
    ),
    Command(
        "top_p_down",
        "left_curly_bracket",
        "top-p −",
        "Lower top-p: fewer tokens are kept",
        "Sampler",
        "lab",
        "top_p(-1)",
        ("logits", "generate"),
        together="top-p",
    ),
    Command(
        "top_p_up",
        "right_curly_bracket",
        "top-p +",
        "Raise top-p: more tokens are kept",
        "Sampler",
        "lab",
        "top_p(1)",
        ("logits", "generate"),
        together="top-p",
    ),
    # Generate
    Command(
        "draw",
        "g",
        "one token",
        "Draw one token and put it after the text",
        "Generate",
        "lab",
        "draw",
        ("logits", "generate"),
    ),
    Command(
        "stream",
        "space",
        "stream",
        "Draw token after token, until Space again",
        "Generate",
        "lab",
        "stream",
        ("generate",),
    ),
    Command(
        "undo",
        "u",
        "undo",
        "Take the last generated token back",
        "Generate",
        "lab",
        "undo_token",
        ("generate",),
    ),
    Command(
        "clear",
        "c",
        "clear",
        "Take all generated tokens back",
        "Generate",
        "lab",
        "clear_tokens",
        ("generate",),
    ),
    Command(
        "seed",
        "r",
        "new seed",
        "Draw with another seed; the same seed gives the same text",
        "Generate",
        "lab",
        "seed",
        ("generate",),
    ),
    Command(
        "accept",
        "enter",
        "keep text",
        "Put the generated text into the prompt (it is encoded anew there)",
        "Generate",
        "generate",
        "accept",
        ("generate",),
    ),
    # Training
    Command(
        "new_run",
        "n",
        "new run",
        "Train a model on a text of yours",
        "Training",
        "training",
        "new_run",
        ("training",),
    ),
    Command(
        "pause_run",
        "p",
        "pause/go on",
        "Pause the watched run (it saves first), or let it go on",
        "Training",
        "training",
        "pause_run",
        ("training",),
    ),
    Command(
        "stop_run",
        "S",
        "stop",
        "Stop the watched run: it saves, then leaves",
        "Training",
        "training",
        "stop_run",
        ("training",),
    ),
    Command(
        "resume_run",
        "e",
        "resume",
        "Resume a stopped or died run from its last checkpoint",
        "Training",
        "training",
        "resume_run",
        ("training",),
    ),
    Command(
        "open_run",
        "O",
        "open model",
        "Open the watched run's newest checkpoint as the model of all panes",
        "Training",
        "training",
        "open_run",
        ("training",),
    ),
    Command(
        "log_axis",
        "l",
        "log axis",
        "Make the loss axis logarithmic, or linear again",
        "Training",
        "training",
        "log_axis",
        ("training",),
    ),
    # Runs (the screen that R opens)
    Command(
        "watch_run",
        "enter",
        "watch",
        "Watch the run under the cursor in the Training pane",
        "Runs",
        "runs",
        "watch_run",
        ("runs",),
    ),
    Command(
        "open_listed_run",
        "o",
        "open model",
        "Open the run's newest checkpoint as the model of all panes",
        "Runs",
        "runs",
        "open_run",
        ("runs",),
    ),
    Command(
        "resume_listed_run",
        "e",
        "resume",
        "Resume a stopped or died run from its last checkpoint",
        "Runs",
        "runs",
        "resume_run",
        ("runs",),
    ),
    Command(
        "stop_listed_run",
        "S",
        "stop",
        "Stop the run: it saves, then leaves",
        "Runs",
        "runs",
        "stop_run",
        ("runs",),
    ),
    Command(
        "delete_run",
        "D,delete",
        "delete",
        "Delete the run and its checkpoints; asks first",
        "Runs",
        "runs",
        "delete_run",
        ("runs",),
    ),
    Command(
        "new_listed_run",
        "n",
        "new run",
        "Train a model on a text of yours",
        "Runs",
        "runs",
        "new_run",
        ("runs",),
    ),
    Command("leave_runs", "escape,q", "back", "Back to the five panes", "Runs", "runs", "leave", ("runs",)),
    # New run (the form that n opens)
    Command(
        "start_run",
        "ctrl+s",
        "start",
        "Make the run and start its worker",
        "New run",
        "new_run",
        "start",
        ("new_run",),
    ),
    Command(
        "leave_form",
        "escape",
        "cancel",
        "Back, without a new run",
        "New run",
        "new_run",
        "leave",
        ("new_run",),
    ),
    # Models (the screen that m opens) and help
    Command("open_model", "enter", "open", "Open the model under the cursor", "Models", "models", "open"),
    Command(
        "leave_models", "escape,q,m", "back", "Back, with the model that is open", "Models", "models", "close"
    ),
    Command("leave_help", "escape,q,question_mark,f1", "back", "Back from this help", "App", "help", "close"),
    # Everything else
    Command("copy", "y", "copy", "Copy the pane as a table (tab-separated)", "Keep", "lab", "copy_pane"),
    Command("copy_json", "Y", "copy JSON", "Copy the whole reading as JSON", "Keep", "lab", "copy_json"),
    Command(
        "save", "w", "save", "Write the reading to a JSON file in the current folder", "Keep", "lab", "save"
    ),
    Command("models", "m", "models", "Choose another model", "App", "lab", "models", ("*",)),
    Command("runs", "R", "runs", "See the training runs", "App", "lab", "runs", ("training",)),
    Command(
        "theme",
        "d",
        "dark/light",
        "Switch between a dark and a light theme",
        "App",
        "lab",
        "app.switch_theme",
    ),
    Command(
        "cancel",
        "escape",
        "cancel",
        "Stop what is going on: a stream, or opening a model",
        "App",
        "lab",
        "cancel",
    ),
    Command(
        "palette", "ctrl+p", "palette", "Find a command by name", "App", "app", "command_palette", ("prompt",)
    ),
    Command(
        "help",
        "f1",
        "help",
        "Show all keys and what the numbers mean",
        "App",
        "app",
        "show_help",
        ("prompt",),
    ),
    Command(
        "help_key",
        "question_mark",
        "help",
        "Show all keys and what the numbers mean",
        "App",
        "lab",
        "app.show_help",
        ("*",),
    ),
    Command("quit", "q", "quit", "Leave (training goes on by itself)", "App", "lab", "app.quit", ("*",)),
    Command(
        "quit_anywhere",
        "ctrl+q",
        "quit",
        "Leave, even while typing",
        "App",
        "app",
        "quit",
        ("prompt",),
        priority=True,
    ),
)

BY_ID = {command.id: command for command in COMMANDS}


def bindings(scope: str) -> list[BindingType]:
    """The `BINDINGS` of the node that carries `scope`."""
    return [
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


def footer(place: str) -> list[Command]:
    """What the footer shows where `place` (`prompt` or a pane's name) has the focus: help first, so that it is never
    cut off, then the place's own."""
    own = [command for command in COMMANDS if place in command.footer]
    if place == "prompt":
        return own
    return [
        BY_ID["help_key"],
        *own,
        *(command for command in COMMANDS if "*" in command.footer and command.id != "help_key"),
    ]
