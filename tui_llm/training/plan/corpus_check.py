"""A quick check whether a path can be trained on, so that errors show before the worker starts."""

from __future__ import annotations

import codecs
import csv
import os
from contextlib import suppress
from itertools import islice

from tui_llm.common import paths
from tui_llm.common.display import visible
from tui_llm.common.errors import UserError
from tui_llm.llm.data import corpora, preference_pairs, texts
from tui_llm.llm.data.formats import AUTO, PACKED, TextFormat
from tui_llm.training.plan import answer_files
from tui_llm.training.run.settings import PREFERENCE, PRETRAINING, REWARD

CHECKED_BYTES = 1 << 16  # bytes of a file that are checked
ENTRIES = 2000  # of a folder, at most


def corpus_size(text: str, how: TextFormat = AUTO) -> int | None:
    """Returns the size in bytes of the text file at the path `text`; None for a folder or a named corpus.

    Raises `UserError` if it is missing, unreadable, empty or not text in the format `how`.
    """
    if not text.strip():
        raise UserError(f"type the path of a text file or a folder, or {' or '.join(corpora.NAMES)}")
    try:
        if corpora.is_named(corpora.place(text.strip())):
            corpora.check([text.strip()])
            return None
        path = paths.expand(text.strip())
        if path.is_dir():
            if not any(os.access(child, os.R_OK) for child in islice(path.iterdir(), ENTRIES)):
                raise UserError("there is nothing to read in this folder")
            return None
        if not path.exists():
            raise UserError("there is no such file or folder")
        if not path.is_file():
            raise UserError("this is neither a file nor a folder")
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(CHECKED_BYTES)
    except PermissionError:
        raise UserError("no permission to read this") from None
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"can't read this: {getattr(error, 'strerror', None) or error}") from None
    if not start.strip():
        raise UserError("this file is empty")
    if how.key(path) or path.suffix.lower() in PACKED:  # not plain text
        texts.check([path], how)
        return size
    if b"\0" in start:
        raise UserError("this is not text: it has zero bytes")
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)  # the last character may be cut off
    except UnicodeDecodeError as error:
        raise UserError(f"this is not UTF-8 text (byte {error.start})") from None
    if how.name == "auto":
        texts.check_json(path, start.decode("utf-8-sig", "ignore"))
    return size


def kind(text: str) -> str:
    """Describes a corpus that is not a file: "a folder", or what a named corpus is."""
    place = corpora.place(text.strip())
    return "downloaded once" if corpora.is_address(place) else corpora.NAMES.get(place, "a folder")


def complete(text: str) -> str | None:
    """Returns a completion of `text` to a path or a named corpus, or None.

    Names that contain characters unsafe to display are not suggested.
    """
    folder, _, start = text.rpartition("/")
    try:
        place = paths.expand(folder or ("/" if text.startswith("/") else "."))
        entries = sorted(islice(os.scandir(place), ENTRIES), key=lambda entry: entry.name)
        for entry in entries:
            shown = visible(entry.name) == entry.name and (start or not entry.name.startswith("."))
            if shown and entry.name.startswith(start) and entry.name != start:
                return text + entry.name[len(start) :] + ("/" if entry.is_dir() else "")
    except (OSError, UserError):
        pass
    return next((name for name in corpora.NAMES if text and name.startswith(text) and name != text), None)


def several(text: str) -> list[str]:
    """Splits `text` into corpora, which are separated by commas.

    A name with a comma is written in double quotes; "" inside quotes is one quote. If `text` as a whole is an existing
    path, it is returned unsplit. Raises `UserError` if a quote is not closed.
    """
    text = text.strip()
    with suppress(OSError, UserError):
        if paths.expand(text).exists():
            return [text] if text else []
    try:
        rows = list(csv.reader([text], skipinitialspace=True, strict=True))
    except csv.Error:
        raise UserError('a quotation mark is not closed; write "a, b.txt", c.txt') from None
    return [item.strip() for row in rows for item in row if item.strip()]


def quoted(corpus: str) -> str:
    """Returns `corpus` in a form that `several` parses back to it."""
    return '"' + corpus.replace('"', '""') + '"' if "," in corpus or '"' in corpus else corpus


def describe_corpora(text: str, how: TextFormat = AUTO, objective: str = PRETRAINING) -> str:
    """Describes the corpora in `text` in one line; or the pairs or prompts, for another `objective`.

    Raises `UserError` that names the first one that can't be trained on.
    """
    items = several(text)
    if objective != PRETRAINING:
        return _describe_answers(items, objective)
    if len(items) == 1 and answer_files.has_pairs(items[0]):
        raise UserError("these are preference pairs: choose the objective preference, and a model to start from")
    if len(items) <= 1:
        size = corpus_size(items[0] if items else "", how)
        return f"{size:,} bytes of text" if size is not None else kind(items[0])
    known, others = 0, []
    for item in items:
        try:
            size = corpus_size(item, how)
        except UserError as error:
            raise UserError(f"{item}: {error}") from None
        known += size or 0
        if size is None:
            others.append(item if corpora.is_named(corpora.place(item)) else f"the folder {item}")
    parts = ([f"{known:,} bytes of text"] if known or not others else []) + others
    return f"{len(items)} texts: {', '.join(parts)}"


def _describe_answers(items: list[str], objective: str) -> str:
    if not items and objective == REWARD:
        return "no file: all answers are drawn to the sample prompt"
    if not items:
        raise UserError(f"type the path of a .jsonl with lines of {preference_pairs.FORM}")
    count = answer_files.check(objective, items)
    return f"{count:,} {'different pairs' if objective == PREFERENCE else 'prompts'}"


def complete_last(text: str) -> str | None:
    """Like `complete`, for the last corpus in the list."""
    head, comma, last = text.rpartition(",")
    blank = last[: len(last) - len(last.lstrip())]
    found = None if '"' in last else complete(last.lstrip())
    # a completion with a comma would need quotes
    return None if found is None or "," in found else head + comma + blank + found
