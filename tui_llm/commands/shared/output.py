"""Printing, for people and for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tui_llm.common import paths
from tui_llm.common.errors import UserError


def put(value: object) -> None:
    print(value)


def put_json(value: Any) -> None:
    from tui_llm.common.files import to_json

    print(to_json(value))


def out_path(text: str, option: str) -> Path:
    """The path that the user gave to be written. Raises `UserError` where it is empty."""
    if not text.strip():
        raise UserError(f"{option} is empty; give the path to write to")
    return paths.absolute(text)
