"""trainer_state.json, which transformers' Trainer writes beside its checkpoints: its `log_history` as curves.

Its `loss` is the mean over the steps since the line before it; `eval_loss` is that of the evaluation set.
"""

from __future__ import annotations

from pathlib import Path

from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import read_json
from tui_llm.training.run.foreign.log_curves import LogCurves
from tui_llm.training.run.status import number

NAME = "trainer_state.json"
KIND = "transformers' Trainer"
MOST_BYTES = 64 << 20  # decoding takes up to nine times that
_NOT_CURVES = ("step", "epoch", "total_flos")


def add_file(path: Path, into: LogCurves) -> None:
    """Adds all lines of the log. Raises `UserError` if the file can't be read."""
    into.kind = KIND
    value = read_json(path, MOST_BYTES)
    history = value.get("log_history") if isinstance(value, dict) else None
    if not isinstance(history, list):
        raise UserError(f"{path} has no log_history; transformers' Trainer writes one")
    into.steps = int(number(value.get("max_steps")) or 0)
    for line in history:
        step = number(line.get("step")) if isinstance(line, dict) else None
        if step is None or step != int(step):
            into.damaged += 1
            continue
        # The last line is a summary: its train_loss is the mean over the whole run, no point of the curve.
        names = [] if "train_runtime" in line else [name for name in line if name not in _NOT_CURVES]
        for name in names:
            if (found := number(line[name])) is not None:
                meaning = "mean of the steps since the line before" if name == "loss" else ""
                into.add(str(name), int(step), found, meaning)
