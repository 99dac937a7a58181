"""Printing, for people and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


def put(value: object) -> None:
    print(value)


def put_json(value: Any) -> None:
    from tui_llm.common.files import to_json

    print(to_json(value))


def out_path(text: str, option: str) -> Path:
    """The path that the user gave to be written. Raises `UserError` where it is empty."""
    if not text.strip():
        raise UserError(f"{option} is empty; give the path to write to")
    from tui_llm.common import paths

    return paths.absolute(text)
