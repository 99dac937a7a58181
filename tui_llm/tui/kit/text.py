"""Wraps styled text to a width, and puts lines side by side; how long a text takes to read; two messages that several screens
show."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from itertools import zip_longest

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

NO_TEXT = "there is no text yet: i types some, o puts <|endoftext|> in front"  # for screens that need a text

NOTICED = 1.0  # seconds until a person looks at a notification
READ = 15.0  # characters a second that a person reads: about 180 words a minute


def reading_seconds(text: str) -> float:
    """How long a notification must stay to be read."""
    return NOTICED + len(text) / READ


def with_key(problem: str | None) -> str:
    """The problem of a reading, with the key that solves it; on the command line it names an option instead."""
    problem = problem or ""
    return f"{problem} (o)" if problem.endswith("in front") else problem


def wrapped(text: Text, width: int) -> list[Text]:
    """A sentence in lines of at most `width` cells; no line is a single word where others can share theirs."""
    lines = running(text, width)
    if len(lines) < 2 or "\n" in text.plain or " " in lines[-1].plain.strip():
        return lines
    before = lines[-2].plain.rstrip()
    at = before.rfind(" ") + 1
    if " " in before[:at].strip() and cell_len(before[at:]) + 1 + lines[-1].cell_len <= width:
        kept, moved = lines[-2].divide([at])
        kept.rstrip()
        moved.rstrip()
        lines[-2:] = [kept, moved.append(" ").append_text(lines[-1])]
    return lines


def running(text: Text, width: int) -> list[Text]:
    """A text that goes on, such as a prompt, in lines of at most `width` cells: each line is filled."""
    if width <= 0:
        return []
    if text.cell_len <= width and "\n" not in text.plain and "\t" not in text.plain:
        return [text]  # the usual case; calling rich's `wrap` costs as much as drawing the line
    return list(text.wrap(_CONSOLE, width)) if text.plain else [Text()]


def packed(parts: Iterable[Text], width: int, gap: str = "  ") -> list[Text]:
    """`parts` side by side in lines of at most `width` cells: only a part wider than a line is broken."""
    lines: list[Text] = []
    for part in parts:
        if lines and lines[-1].cell_len + len(gap) + part.cell_len <= width:
            lines[-1].append(gap).append_text(part)
        else:
            lines += wrapped(part, width)
    return lines


def beside(columns: Iterable[Sequence[Text]], width: int, gap: int = 2) -> list[Text]:
    """Lines of at most `width` cells each, side by side."""
    lines = []
    for first, *others in zip_longest(*columns, fillvalue=Text()):
        line, before = Text(no_wrap=True).append_text(first), first
        for cell in others:
            line.append(" " * (width + gap - before.cell_len), "default").append_text(cell)
            before = cell
        lines.append(line)
    return lines


_CONSOLE = Console(file=io.StringIO(), width=80)  # `Text.wrap` needs a console, only for its tab size
