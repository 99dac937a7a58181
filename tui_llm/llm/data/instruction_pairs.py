"""The user's instruction–answer pairs, for supervised fine-tuning. No torch here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import SETTINGS
from tui_llm.llm.data.formats import TextFormat
from tui_llm.llm.data.texts import read_text
from tui_llm.llm.tokens.text import clean

ARROW = "=>"
MOST = 200  # pairs; every batch contains all of them
QUESTIONS = ("question", "instruction", "prompt", "input")
ANSWERS = ("answer", "response", "output", "completion")


@dataclass(frozen=True, slots=True)
class Pair:
    question: str
    answer: str


EXAMPLES = (
    Pair("What is your name?", "My name is Nano."),
    Pair("What do you like?", "I like little stories."),
    Pair("Where do you live?", "I live in a terminal."),
    Pair("Can you help me?", "Yes, I can help you."),
)


def parse(text: str) -> tuple[Pair, ...]:
    """Parse lines of `question => answer`; empty lines are skipped. Raises `UserError` at the first invalid line."""
    return _pairs(
        [(f"line {number}", line.partition(ARROW)) for number, line in _lines(text)], f"QUESTION {ARROW} ANSWER"
    )


def read(path: Path) -> tuple[Pair, ...]:
    """Read the pairs of a file. .jsonl, .json, .ndjson: one object per line, such as {"question": …, "answer": …}.
    Others, such as .tsv: one line of question, tab, answer. Raises `UserError` if the file can't be read or a line is
    not a pair."""
    text = read_text(path, SETTINGS, TextFormat("text"))
    if path.suffix.lower() not in (".jsonl", ".json", ".ndjson"):
        found = [(f"{path} line {number}", line.partition("\t")) for number, line in _lines(text)]
        return _pairs(found, "QUESTION, a tab, ANSWER")
    return _pairs([(f"{path} line {n}", _object(line)) for n, line in _lines(text)], '{"question": …, "answer": …}')


def checked(pairs: Sequence[tuple[str, str]]) -> tuple[Pair, ...]:
    """(question, answer) pairs, validated as those of a file are. Raises `UserError`."""
    found = [(f"pair {number}", (question, ARROW, answer)) for number, (question, answer) in enumerate(pairs, 1)]
    return _pairs(found, "(QUESTION, ANSWER)")


def show(pairs: Sequence[Pair]) -> str:
    """Format pairs so that `parse` can parse them."""
    return "\n".join(f"{pair.question} {ARROW} {pair.answer}" for pair in pairs)


def _lines(text: str) -> list[tuple[int, str]]:
    return [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _object(line: str) -> tuple[str, str, str]:
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError):
        return "", "", ""
    if not isinstance(value, dict):
        return "", "", ""

    def first(names: Sequence[str]) -> str:
        return next((value[name] for name in names if isinstance(value.get(name), str)), "")

    return first(QUESTIONS), ARROW, first(ANSWERS)


def _pairs(found: list[tuple[str, tuple[str, str, str]]], form: str) -> tuple[Pair, ...]:
    """Validate `found`: (place for the error message, (question, separator, answer)). `form` shows what is expected."""
    if not found:
        raise UserError(f"there are no pairs; give some lines, each as {form}")
    if len(found) > MOST:
        raise UserError(f"{len(found):,} pairs are too many here; give at most {MOST} (all of them are in every batch)")
    pairs = []
    for where, (question, between, answer) in found:
        pair = Pair(clean(question).strip(), clean(answer).strip())
        if not (between and pair.question and pair.answer):
            raise UserError(f"{where} is not a pair; write it as {form}")
        pairs.append(pair)
    return tuple(pairs)
