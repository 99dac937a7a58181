"""Printing, for people and for programs."""

from __future__ import annotations

from typing import Any

from tui_llm.files import to_json


def put(value: object) -> None:
    print(value)


def put_json(value: Any) -> None:
    print(to_json(value))
