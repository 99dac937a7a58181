"""A one-line input that accepts printable characters only."""

from __future__ import annotations

from typing import Any

from textual.widgets import Input


def printable(value: str) -> str:
    """`value` without unprintable characters: Textual's `Input` would send a pasted escape sequence to the terminal,
    which obeys it."""
    return value if value.isprintable() else "".join(char for char in value if char.isprintable())


class Field(Input):
    """An input into which unprintable characters can be neither typed nor pasted. Its form validates it."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, validate_on=(), **named)  # otherwise each change styles it as valid

    def validate_value(self, value: str) -> str:
        return printable(value)
