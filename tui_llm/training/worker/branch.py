"""The state that a branch begins with: its parent's after the branch's step, loaded or recomputed."""

from __future__ import annotations

import torch

from tui_llm.common.errors import UserError
from tui_llm.llm.model.model import GPT
from tui_llm.training.run.branch import NAME
from tui_llm.training.run.metric_at import metric_at
from tui_llm.training.run.metrics import Metric
from tui_llm.training.run.run import find
from tui_llm.training.worker import checkpoints
from tui_llm.training.worker.replay_state import ReplayState
from tui_llm.training.worker.worker import Worker


def _numbers(metric: Metric) -> str:
    return repr((metric.loss, metric.lr, metric.grad_norm))  # NaN equals itself here


def begin(worker: Worker, model: GPT) -> tuple[int, dict[str, torch.Tensor], str]:
    """Loads the parent's weights into `model`. Returns (step, optimizer state, message), as `checkpoints.load_newest`.

    The optimizer's state is zero if the branch has another optimizer; an average of the weights goes on. Raises `UserError` if the parent is gone or has
    changed, and what `worker.report_progress` raises.
    """
    config = worker.run.config()  # again: the parent may have been renamed since
    name = config.parent
    try:
        parent = find(name)
    except UserError as error:
        raise UserError(f"run {worker.run.name} branches from {name}, which is gone; start a new run") from error
    step = config.parent_step
    mine, theirs = metric_at(worker.run.path / NAME, step), metric_at(parent.metrics_path, step)
    if mine is not None and theirs is not None and mine.step == theirs.step and _numbers(mine) != _numbers(theirs):
        raise UserError(
            f"run {name} is another one than when run {worker.run.name} was made: its step {mine.step:,} has other numbers; start a new branch"
        )
    worker.report("starting", f"recomputing {name} up to step {config.parent_step:,}")
    state = ReplayState(parent, config.parent_step, worker.report_progress, patient=True)
    model.load_state_dict(state.trainer.model.state_dict())
    tensors = {key: value.clone() for key, value in checkpoints.state_of(state.trainer).items()}
    if state.worker.settings.optimizer == config.settings.optimizer:
        return config.parent_step, tensors, ""
    average = {
        key: value for key, value in tensors.items() if key == checkpoints.AVERAGE_UPDATES or key.endswith(".average")
    }
    zeros = checkpoints.fresh_state(model, config.settings.optimizer)
    return config.parent_step, zeros | average, f"the state of {config.settings.optimizer} begins at zero. "
