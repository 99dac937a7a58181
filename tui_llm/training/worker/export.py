"""Export a run's newest checkpoint as a model folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from tui_llm.common.new_files import check_folder, write_folder
from tui_llm.llm.hub import hub
from tui_llm.llm.model import checkpoint, intact
from tui_llm.training.run.run import Run


def export(
    run: Run,
    folder: Path,
    dtype: str = "float32",
    damaged: Callable[[str], object] = lambda line: None,
    *,
    force: bool = False,
) -> int:
    """Writes the newest intact checkpoint to `folder` atomically and returns its step.

    `damaged` is called with a message for each checkpoint that was skipped because it is not what was saved. Raises
    `UserError` if the run has no checkpoint, if `folder` exists (unless `force`, which replaces the model's files in
    it), or if it can't be written.
    """
    step, source, passed = intact.newest_of_run(run.name, run.saved())
    for line in passed:
        damaged(line)
    inputs = (run.path,)
    check_folder(folder, force=force, inputs=inputs)
    vocabulary, model = hub.load_trained(source, run.name), checkpoint.load(source)

    def fill(aside: Path) -> None:
        checkpoint.save(model, aside, end_of_text=vocabulary.end_of_text, dtype=getattr(torch, dtype))
        hub.save_vocabulary(vocabulary, aside)

    write_folder(folder, fill, last="config.json", force=force, inputs=inputs)
    return step
