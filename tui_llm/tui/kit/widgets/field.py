"""One line of text to type in."""

from __future__ import annotations

from textual.widgets import Input


def printable(value: str) -> str:
    """`value` without what a terminal would not show: Textual's `Input` draws an escape sequence that was pasted as it is, and
    the terminal obeys it."""
    return value if value.isprintable() else "".join(char for char in value if char.isprintable())


class Field(Input):
    """What could not be seen in it can't be typed or pasted into it either."""

    def validate_value(self, value: str) -> str:
        return printable(value)
