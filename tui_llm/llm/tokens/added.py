"""Vocabularies that the user added: their names and folders. No torch here."""

from __future__ import annotations

import re
from pathlib import Path

from tui_llm.common import paths

_ADDED = re.compile(r"\w[\w.-]{0,63}", re.ASCII)


def added_folder(name: str) -> Path | None:
    """The folder of the user-added vocabulary `name`, or None."""
    folder = paths.vocabularies_dir() / name
    plain = _ADDED.fullmatch(name)
    return folder if plain and (folder / "vocab.json").is_file() else None


def added_names() -> list[str]:
    """The names of all user-added vocabularies, sorted."""
    top = paths.vocabularies_dir()
    return sorted(child.name for child in top.iterdir() if added_folder(child.name)) if top.is_dir() else []
