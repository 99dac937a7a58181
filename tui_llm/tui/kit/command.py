"""Commands: what a screen, pane or widget declares in its `KEYS`, and makes its `BINDINGS` and its footer from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


WAY_OUT = 10  # importance of the command that leaves a screen: the footer drops every other one first


@dataclass(frozen=True, slots=True)
class Command:
    """A key and what it does.

    `scope` names the node that carries the binding and runs the action: `app`, `lab` (the five panes, while no text is
    typed), `prompt` (while text is typed), a pane or another screen.
    """

    id: str
    keys: str  # as Textual names them, comma-separated; the first is the one shown
    label: str  # a word or two, for the footer
    tooltip: str  # a sentence, for palette, help and hover
    group: str  # heading in the help screen
    scope: str
    action: str
    footer: tuple[
        str, ...
    ] = ()  # where the footer shows it: `prompt`, a pane's or screen's name, or `*` for every pane
    priority: bool = False  # before the focused widget sees the key
    together: str = ""  # the label of several keys: neighbours in the footer with the same value show it once
    importance: int = 0  # the footer drops the least important commands if there is no room for all

    @property
    def key_text(self) -> str:
        return key_text(self.keys)


@dataclass(frozen=True, slots=True)
class CommandFactory:
    """Makes commands of one scope, under one heading of the help screen; shown in the scope's footer by default."""

    scope: str
    group: str
    footer: tuple[str, ...] | None = None

    def __call__(
        self,
        id: str,
        keys: str,
        label: str,
        tooltip: str,
        action: str,
        *,
        footer: tuple[str, ...] | None = None,
        priority: bool = False,
        together: str = "",
        importance: int = 0,
    ) -> Command:
        default = (self.scope,) if self.footer is None else self.footer
        shown = default if footer is None else footer
        return Command(
            id, keys, label, tooltip, self.group, self.scope, action, shown, priority, together, importance
        )  # fmt: skip


PICTURE = Command(
    "picture",
    "W",
    "picture",
    "Save a screenshot as an SVG file in the current folder",
    "Copy and save",
    "app",
    "save_picture",
)
_HELP = "Show the keys of where you are, what its numbers mean, and all other keys"
HELP = Command("help_key", "question_mark", "help", _HELP, "App", "app", "show_help", ("*",), importance=9)
HELP_TYPING = Command(
    "help", "f1", "help", f"{_HELP}; while typing, too", "App", "app", "show_help", ("prompt",), importance=9
)
EVERYWHERE = (PICTURE, HELP, HELP_TYPING)  # the app's commands that modal screens bind as well


def bindings(keys: Sequence[Command], scope: str = "", *, modal: bool = False) -> list[BindingType]:
    """The `BINDINGS` for `keys`, or for those of `scope`. A modal screen hides the app's bindings: with `modal` it gets
    those `EVERYWHERE`, except for keys that it uses itself."""
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
        for command in keys
        if scope in ("", command.scope)
    ]
    if modal:
        used = {key for command in keys for key in command.keys.split(",")}
        own += [
            Binding(command.keys, f"app.{command.action}", command.label, tooltip=command.tooltip, show=False)
            for command in EVERYWHERE
            if command.keys not in used
        ]
    return own


def in_footer(keys: Iterable[Command], place: str) -> list[Command]:
    """Those of `keys` that the footer of `place` shows."""
    return [command for command in keys if place in command.footer]


def key_line(keys: Iterable[Command]) -> str:
    """Keys and labels as one text. It breaks between commands, never between a key and its label."""
    return " · ".join(f"{command.key_text} {command.label}".replace(" ", "\u00a0") for command in keys)


NAMES = {
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "left_curly_bracket": "{",
    "right_curly_bracket": "}",
    "question_mark": "?",
    "exclamation_mark": "!",
    "slash": "/",
    "plus": "+",
    "equals_sign": "=",
    "minus": "-",
    "semicolon": ";",
    "asterisk": "*",
    "colon": ":",
    "percent_sign": "%",
    "ampersand": "&",
    "number_sign": "#",
    "at": "@",
    "dollar_sign": "$",
    "left_parenthesis": "(",
    "right_parenthesis": ")",
    "less_than_sign": "<",
    "greater_than_sign": ">",
    "comma": ",",
    "full_stop": ".",
    "left": "←",
    "right": "→",
    "up": "↑",
    "down": "↓",
    "shift+left": "Shift+←",
    "shift+right": "Shift+→",
    "home": "Home",
    "end": "End",
    "pageup": "PgUp",
    "pagedown": "PgDn",
    "delete": "Del",
    "escape": "Esc",
    "enter": "Enter",
    "space": "Space",
    "backspace": "Bksp",
    "tab": "Tab",
    "shift+tab": "Shift+Tab",
    "alt+enter": "Alt+Enter",
    "alt+right": "Alt+→",
}


def key_text(keys: str) -> str:
    """The first of `keys` as it is written for users: `[`, `Esc`, `ctrl+p`."""
    first = keys.split(",")[0]
    if first in NAMES:
        return NAMES[first]
    return first.upper() if first[:1] == "f" and first[1:].isdigit() else first
