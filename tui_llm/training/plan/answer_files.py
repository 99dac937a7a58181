"""The file of pairs or prompts of a run that learns from answers: which one, and whether its rows have the right form.

Does not import torch or a tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.llm.data import corpora, preference_pairs, prompts
from tui_llm.llm.data.formats import suffix
from tui_llm.training.run.settings import PREFERENCE, PRETRAINING


def file_of(objective: str, corpus: Sequence[str]) -> Path | None:
    """The file that a run reads; None for a run on text, or on the sample prompt alone.

    Raises `UserError` if it is not one file.
    """
    if objective == PRETRAINING:
        return None
    pairs = objective == PREFERENCE
    if not corpus and not pairs:
        return None
    if len(corpus) != 1:
        wanted = f"a .jsonl with lines of {preference_pairs.FORM}" if pairs else "a prompt a line, or a .jsonl"
        raise UserError(f"{'pairs' if pairs else 'prompts'} are read from one file, not {len(corpus)}: {wanted}")
    place = corpora.place(corpus[0])
    if corpora.is_named(place):
        raise UserError(f"{corpus[0]} is a corpus of text; give a file of {'pairs' if pairs else 'prompts'}")
    path = Path(place)
    if path.is_dir():
        raise UserError(f"{path} is a folder; give one file")
    return path


def check(objective: str, corpus: Sequence[str]) -> int:
    """Returns the number of rows. Raises `UserError` at the first row that has another form: its line, and what is wrong."""
    path = file_of(objective, corpus)
    if path is None:
        return 1
    if objective == PREFERENCE:
        found = len({pair for _, pair in preference_pairs.rows(path)})
        if found < 2:
            raise UserError(f"{path} has {found} different pairs; give 2 or more, one of which is held out")
        return found
    count = sum(1 for _ in prompts.read(path))
    if not count:
        raise UserError(f"{path} is empty; give a prompt in each line")
    return count


def has_pairs(corpus: str) -> bool:
    """Whether the file's first row is a preference pair, not a text. Never raises."""
    try:
        path = paths.expand(corpus)
        if suffix(path) not in (".jsonl", ".ndjson") or not path.is_file():
            return False
        return next(preference_pairs.rows(path), None) is not None
    except (UserError, OSError, ValueError):
        return False
