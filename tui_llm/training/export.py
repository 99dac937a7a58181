"""A run's newest checkpoint as a model folder of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from tui_llm import files
from tui_llm.errors import UserError
from tui_llm.llm import checkpoint, intact, tokenizer
from tui_llm.training.run import Run


def export(run: Run, folder: Path, dtype: str = "float32", damaged: Callable[[str], object] = lambda line: None) -> int:
    """Writes it as `folder`, whole or not at all, and returns its step. `damaged` hears of each checkpoint that was passed
    over since it is not what was saved. Raises `UserError` where the run has no
    checkpoint, there is something at `folder` already, or it can't be written."""
    passed: list[str] = []
    newest = intact.newest(run.saved(), passed.append)
    for line in passed:
        damaged(line)
    if newest is None:
        raise UserError(
            f"run {run.name} has no checkpoint that is whole; resume it to make one"
            if passed
            else f"run {run.name} has no checkpoint yet; wait for its first one"
        )
    step, source = newest
    _check_free(folder)
    vocabulary, model = tokenizer.load_folder(source, run.name), checkpoint.load(source)

    def fill(aside: Path) -> None:
        checkpoint.save(model, aside, end_of_text=vocabulary.end_of_text, dtype=getattr(torch, dtype))
        tokenizer.save_folder(vocabulary, aside)

    try:
        files.write_folder(folder, fill)
    except OSError as error:
        raise UserError(f"can't write {folder}: {error.strerror or error}; give another folder") from error
    return step


def _check_free(folder: Path) -> None:
    try:
        there = folder.is_symlink() or (folder.exists() and not (folder.is_dir() and not any(folder.iterdir())))
    except (OSError, ValueError) as error:
        raise UserError(
            f"can't write {folder}: {getattr(error, 'strerror', None) or error}; give another folder"
        ) from error
    if there:
        raise UserError(f"there is something at {folder} already, and nothing is written over it; give another folder")
