"""A run's newest checkpoint as a model folder of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from tui_llm.common.new_files import check_folder, write_folder
from tui_llm.llm.model import checkpoint, intact
from tui_llm.llm.tokens import tokenizer
from tui_llm.training.run.run import Run


def export(
    run: Run,
    folder: Path,
    dtype: str = "float32",
    damaged: Callable[[str], object] = lambda line: None,
    *,
    force: bool = False,
) -> int:
    """Writes it as `folder`, whole or not at all, and returns its step. `damaged` hears of each checkpoint that was passed
    over since it is not what was saved. Raises `UserError` where the run has no checkpoint, there is something at `folder`
    already (with `force` the model's files in it are replaced), or it can't be written."""
    step, source, passed = intact.newest_of_run(run.name, run.saved())
    for line in passed:
        damaged(line)
    inputs = (run.path,)
    check_folder(folder, force=force, inputs=inputs)
    vocabulary, model = tokenizer.load_folder(source, run.name), checkpoint.load(source)

    def fill(aside: Path) -> None:
        checkpoint.save(model, aside, end_of_text=vocabulary.end_of_text, dtype=getattr(torch, dtype))
        tokenizer.save_folder(vocabulary, aside)

    write_folder(folder, fill, last="config.json", force=force, inputs=inputs)
    return step
