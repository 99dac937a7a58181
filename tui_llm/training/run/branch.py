"""Branches: runs that begin with the state of another one, their parent, after one of its steps. Does not import torch.

A branch keeps the parent's metrics up to that step, so that its curve is whole after the parent has been deleted.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from tui_llm.common import storage
from tui_llm.common.errors import UserError
from tui_llm.common.files import write_json
from tui_llm.training.run import changes, jsonl, metrics
from tui_llm.training.run.config import RunConfig
from tui_llm.training.run.curve import Envelope, ParentCurve
from tui_llm.training.run.metric_at import each
from tui_llm.training.run.run import VOCABULARY, Run, find

NAME = "parent.jsonl"


@dataclass(frozen=True, slots=True)
class BranchOrigin:
    """The state of `parent` after `step` steps; 0 is the state before the first one. With `own_rate`, the branch does not take
    over changes of the learning rate that were made while the parent was trained."""

    parent: Run
    step: int
    own_rate: bool = False

    def configured(self, config: RunConfig) -> RunConfig:
        """The configuration of a branch, with its parent. Raises `UserError` if the parent's can't be read."""
        tokens = self.parent.config().tokens_at(self.step) or 0
        return dataclasses.replace(config, parent=self.parent.name, parent_step=self.step, parent_tokens=tokens)

    def copy(self, run: Run) -> None:
        """Copies what the branch `run` needs of its parent: metrics, vocabulary, changes of the learning rate.

        Raises OSError if it can't be written.
        """
        parent = self.parent
        with storage.open_file(run.path / NAME, "wb") as file:
            for path in (parent.path / NAME, parent.metrics_path):
                if path.is_file():
                    for metric in each(path, 1, self.step):
                        jsonl.append(file, metrics.metric_line(metric))
            storage.sync(file)
        made = [] if self.own_rate else [change for change in changes.read(parent) if change.step <= self.step]
        if made:
            write_json(run.path / "changes.json", [dataclasses.asdict(change) for change in made])
        if (folder := parent.path / VOCABULARY).is_dir():
            storage.make_folders(run.path / VOCABULARY)
            for one in sorted(folder.iterdir()):
                storage.copy_file(one, run.path / VOCABULARY / one.name)


def parent_curve(run: Run) -> ParentCurve | None:
    """The training loss of the parent of `run` up to the branch's step; None if `run` is no branch or can't be read."""
    try:
        config = run.config()
    except UserError:
        return None
    if not config.parent:
        return None
    return ParentCurve(config.parent, config.parent_step, _points(run.path / NAME, config.parent_step))


def _points(path: Path, last: int) -> tuple[tuple[int, float], ...]:
    curve = Envelope()
    for metric in each(path, 1, last):
        curve.add(metric.step, metric.loss)
    return curve.points()


def with_step(run: Run, step: int) -> Run:
    """`run`, or the one of its parents that has taken step `step`. Raises `UserError` if that one is gone."""
    seen = {run.name}
    while (config := run.config()).parent and step <= config.parent_step:
        run = find(config.parent)
        if run.name in seen:
            raise UserError(f"run {run.name} is recorded as its own parent; its config.json is damaged")
        seen.add(run.name)
    return run
