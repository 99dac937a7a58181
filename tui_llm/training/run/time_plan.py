"""time_plan.json: how many steps a run with a time budget plans to take, and each change of that. Does not import torch.

The schedule of such a run follows the share of its time that is used. The share of a step is what the last plan before it
says, which is recorded before the step is taken: so a resumed or recomputed run has the same learning rates.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.common.files import write_json
from tui_llm.common.foreign_files import read_json
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import TrainingSettings, learning_rate

NAME = "time_plan.json"


@dataclass(frozen=True, slots=True)
class TimePlan:
    """After step `step`, a `share` (0 to 1) of the schedule is done, and the last step is to be `steps`.

    `seconds` of the budget were used when that was decided.
    """

    step: int
    share: float
    steps: int
    seconds: float

    def share_at(self, step: int) -> float:
        """The share of the schedule after `step`: linear from `share` to 1 at the last step."""
        return min(1.0, self.share + (1 - self.share) * (step - self.step) / max(1, self.steps - self.step))


def read(run: Run) -> list[TimePlan]:
    """All plans in the order in which they were made; none for a run without a time budget.

    Raises `UserError` if the file is damaged: without it, a resumed run would silently differ.
    """
    path = run.path / NAME
    if not os.path.lexists(path):
        return []
    try:
        return [_parse(value) for value in read_json(path)]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path} is not a list of time plans ({error!r}); start a new run") from error


def _parse(value: Any) -> TimePlan:
    plan = TimePlan(int(value["step"]), float(value["share"]), int(value["steps"]), float(value["seconds"]))
    if not (0 <= plan.step < plan.steps and 0 <= plan.share <= 1 and math.isfinite(plan.seconds)):
        raise ValueError(plan)
    return plan


def write(run: Run, plans: Sequence[TimePlan]) -> None:
    """Writes the plans atomically. Raises `UserError` if they can't be written."""
    write_json(run.path / NAME, [asdict(plan) for plan in plans])


def plan_at(plans: Sequence[TimePlan], step: int) -> TimePlan | None:
    """The plan that step `step` follows: the last one that was made before it."""
    return next((plan for plan in reversed(plans) if plan.step < step), None)


def learning_rate_at(settings: TrainingSettings, plans: Sequence[TimePlan], step: int) -> float:
    """The learning rate of step `step` (from 1) by the plans; without one, by the number of steps.

    The warm-up is a number of steps; it multiplies the schedule's rate.
    """
    plan = plan_at(plans, step)
    if plan is None:
        return learning_rate(settings, step)
    peak, low, share = (
        settings.learning_rate,
        min(settings.min_learning_rate, settings.learning_rate),
        plan.share_at(step),
    )
    if settings.schedule == "wsd":
        left = (1 - share) / settings.decay_fraction if settings.decay_fraction > 0 else 1.0
        rate = low + (peak - low) * min(1.0, left)
    else:
        rate = low + 0.5 * (peak - low) * (1 + math.cos(math.pi * share))
    return rate * min(1.0, step / settings.warmup_steps) if settings.warmup_steps else rate
