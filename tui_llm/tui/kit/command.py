"""What a command of the screen is, and how its key is read."""

from __future__ import annotations

from dataclasses import dataclass

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
    importance: int = 0  # in the footer: where there is no room for all, the least important stay away

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
    "plus": "+",
    "equals_sign": "=",
    "minus": "-",
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
    """How a person reads the first of `keys`: `[`, `Esc`, `ctrl+p`."""
    first = keys.split(",")[0]
    if first in NAMES:
        return NAMES[first]
    return first.upper() if first[:1] == "f" and first[1:].isdigit() else first
