"""The paragraphs that ship for the game. None of them is in nano's training text."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("held_out.txt")


class Passage(NamedTuple):
    text: str
    source: str  # the book


@functools.cache
def passages() -> tuple[Passage, ...]:
    found, source = [], ""
    for line in FILE.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            source = line[2:]
        elif line and not line.startswith(";"):
            found.append(Passage(line, source))
    return tuple(found)
