"""Printing, for people and for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.common.files import to_json


def put(value: object) -> None:
    print(value)


def out_path(text: str, option: str) -> Path:
    """Where the user asks for something to be written. Raises `UserError` where that can be no path."""
    if not text.strip():
        raise UserError(f"{option} names nothing; say where it is to be written")
    return paths.absolute(text)


def put_json(value: Any) -> None:
    print(to_json(value))
