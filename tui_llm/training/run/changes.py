"""Changes of the learning rate during training.

They are requested through control.json and recorded in changes.json with their step, so that a resumed run applies them
at the same steps. Does not import torch.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from pathlib import Path
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.common.files import write_json
from tui_llm.common.foreign_files import read_json
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import TrainingSettings


@dataclasses.dataclass(frozen=True, slots=True)
class LearningRateChange:
    """The schedule's peak becomes `learning_rate` from step `step` on. `asked` is the request's number."""

    step: int
    learning_rate: float
    asked: int


def _path(run: Run) -> Path:
    return run.path / "changes.json"


def read(run: Run) -> list[LearningRateChange]:
    """Returns all changes, in the order in which they were made.

    Raises `UserError` if the file is damaged: without the changes, a resumed run would silently differ.
    """
    path = _path(run)
    if not os.path.lexists(path):
        return []
    try:
        return [LearningRateChange(int(c["step"]), float(c["learning_rate"]), int(c["asked"])) for c in read_json(path)]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{path} is not a list of changes ({error!r}); delete it to continue with the first learning rate"
        ) from error


def parse_learning_rate(text: str) -> float:
    """Parses a learning rate such as 3e-4. Raises `UserError` if the text is not a finite number ≥ 0."""
    try:
        peak = float(text)
    except ValueError as error:
        raise UserError(f"the learning rate {text.strip()[:40]!r} is not a number; give one such as 3e-4") from error
    _check(peak)
    return peak


def _check(peak: float) -> None:
    if not (math.isfinite(peak) and peak >= 0):
        raise UserError(f"the learning rate {peak} can't be used; give a number from 0 up")


def request_learning_rate(run: Run, peak: float) -> None:
    """Requests a schedule that peaks at `peak` from the next step on.

    Raises `UserError` unless `peak` is finite and ≥ 0.
    """
    _check(peak)
    run.write_control(learning_rate={"peak": peak, "asked": time.time_ns()})


def request_save(run: Run) -> None:
    """Requests a checkpoint after the current step."""
    run.write_control(save=time.time_ns())


def requested(step: int, control: dict[str, Any]) -> list[LearningRateChange]:
    """Returns the change that `control` requests, to take effect at `step`; an empty list without a valid request."""
    asked = control.get("learning_rate")
    try:
        change = (
            LearningRateChange(step, float(asked["peak"]), int(asked["asked"])) if isinstance(asked, dict) else None
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return []
    return [change] if change and math.isfinite(change.learning_rate) and change.learning_rate >= 0 else []


def take(run: Run, made: list[LearningRateChange], step: int, control: dict[str, Any]) -> list[LearningRateChange]:
    """Records the change that `control` requests, to take effect at `step`, and returns all changes.

    The file is written before this returns. Returns `made` itself if nothing new is requested; a request that was
    already recorded, for example before a crash, is not new.
    """
    new = [change for change in requested(step, control) if change.asked not in {c.asked for c in made}]
    if not new:
        return made
    changed = [*made, *new]
    write_json(_path(run), [dataclasses.asdict(c) for c in changed])
    return changed


def settings_at(settings: TrainingSettings, changes: list[LearningRateChange], step: int) -> TrainingSettings:
    """Returns the settings in effect at `step`: those of the most recently made change whose step is at most `step`.

    The order of requests decides, not the order of steps: after a crash, a newer request may take effect at an earlier
    step than an older one, and the newer one must win. `min_learning_rate` is scaled with the peak, so the schedule
    keeps its shape.
    """
    peak = next((c.learning_rate for c in reversed(changes) if c.step <= step), None)
    if peak is None or peak == settings.learning_rate:
        return settings
    low = min(settings.min_learning_rate, settings.learning_rate)
    scaled = low * (peak / settings.learning_rate) if settings.learning_rate > 0 else 0.0
    if not math.isfinite(scaled):
        scaled = peak
    return dataclasses.replace(settings, learning_rate=peak, min_learning_rate=scaled)
