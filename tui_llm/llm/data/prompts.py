"""Prompts for answers that a reward scores: a line each, or records with a `prompt` or chat `messages`. No torch here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.facts.chat import ChatMessage
from tui_llm.llm.data import texts
from tui_llm.llm.data.formats import TextFormat, suffix
from tui_llm.llm.data.preference_pairs import messages_or_text
from tui_llm.llm.data.records import objects
from tui_llm.llm.tokens.text import clean

LONGEST = 4 << 20  # characters of a line: no model's context is as long
NAMES = ("prompt", "messages", "text")  # the prompt's field: the first of them that the record has


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt: text, or the messages of a chat up to the last of the user. `line` is its line in the file, from 1."""

    content: str | tuple[ChatMessage, ...]
    line: int = 0


def read(path: Path) -> Iterator[Prompt]:
    """The prompts of a file: the records of a .jsonl, else its lines, without empty ones. Raises `UserError` with the number of
    the line."""
    return _rows(path) if suffix(path) in (".jsonl", ".ndjson", ".json") else _lines(path)


def _lines(path: Path) -> Iterator[Prompt]:
    number, rest = 0, ""
    for block in texts.blocks(path, how=TextFormat("text")):
        if len(rest) > LONGEST:
            raise UserError(
                f"{path} line {number + 1} has more than {LONGEST:,} characters; give a prompt in each line"
            )
        *whole, rest = (rest + block).split("\n")
        for line in whole:
            number += 1
            if line.strip():
                yield Prompt(clean(line.removesuffix("\r")), number)
    if rest.strip():
        yield Prompt(clean(rest.removesuffix("\r")), number + 1)


def _rows(path: Path) -> Iterator[Prompt]:
    for line, record in objects(path):
        try:
            yield Prompt(_content(record), line)
        except UserError as error:
            raise UserError(f"{path} line {line}: {error}") from error


def _content(record: Any) -> str | tuple[ChatMessage, ...]:
    value: Any = record
    if not isinstance(record, str):
        name = next((name for name in NAMES if isinstance(record, dict) and name in record), "")
        if not name:
            raise UserError('this is not a prompt; write it as {"prompt": …}')
        value = messages_or_text(record[name], name)
    if isinstance(value, str):
        if not value:
            raise UserError("the prompt is empty; an answer needs something to follow")
        return clean(value)
    asked: tuple[ChatMessage, ...] = value
    if asked[-1].role == "assistant":  # a conversation with its answer, as for supervised fine-tuning
        asked = asked[:-1]
    if not asked or asked[-1].role != "user":
        raise UserError("there is no user message at the end of the prompt")
    return asked
