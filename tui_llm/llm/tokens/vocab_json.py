"""Read and validate `vocab.json`, which maps tokens to ids. No torch and no tokenizer here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import VOCABULARY, read_json, whole_number

MOST_IDS = 1 << 23  # maximum number of ids: tables have an entry for each, gaps included


def read_vocab(path: Path) -> dict[str, int]:
    """Token as written → id, from a `vocab.json`. Ids may have gaps. Raises `UserError` if it is no vocabulary, see
    `check_ids`."""
    vocab = read_json(path, VOCABULARY)
    if not isinstance(vocab, dict) or not vocab:
        raise UserError(f"{path} is not a vocabulary: a JSON object of token → id is needed")
    check_ids(vocab, path)
    return vocab


def check_ids(vocab: dict[str, Any], where: Path) -> None:
    """Raises `UserError` if an id is no integer, is out of range, or is used twice."""
    seen: dict[int, str] = {}
    for token, id in vocab.items():
        if whole_number(id, 0, MOST_IDS - 1) is None:
            raise UserError(
                f"{where} is not a vocabulary: the id of {token[:40]!r} is {str(id)[:40]}, not an integer from 0 to {MOST_IDS - 1:,}"
            )
        if seen.setdefault(id, token) is not token:
            raise UserError(f"{where}: {seen[id][:40]!r} and {token[:40]!r} have the same id {id}; the file is damaged")
