"""What a person changed while a run went on: asked through control.json, written down with its step, so that a resumed
run changes at the same step again. No torch here."""

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
class Change:
    """From step `step` on the schedule peaks at `learning_rate`. `asked` is the request's own number."""

    step: int
    learning_rate: float
    asked: int


def _path(run: Run) -> Path:
    return run.path / "changes.json"


def read(run: Run) -> list[Change]:
    """Every change so far, in the order in which they were made. Raises `UserError` where the file is damaged: going on
    without it would silently train another run."""
    path = _path(run)
    if not os.path.lexists(path):
        return []
    try:
        return [Change(int(c["step"]), float(c["learning_rate"]), int(c["asked"])) for c in read_json(path)]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{path} is no list of changes ({error!r}); delete it to go on with the first learning rate"
        ) from error


def parse_learning_rate(text: str) -> float:
    """A rate as a person types it: 3e-4. Raises `UserError` where that is none."""
    try:
        peak = float(text)
    except ValueError as error:
        raise UserError(f"the learning rate {text.strip()[:40]!r} is no number; give 3e-4, say") from error
    _check(peak)
    return peak


def _check(peak: float) -> None:
    if not (math.isfinite(peak) and peak >= 0):
        raise UserError(f"the learning rate {peak} can't be used; give a number from 0 up")


def ask_for_learning_rate(run: Run, peak: float) -> None:
    """Asks for a schedule that peaks at `peak` from the next step on. Raises `UserError` where that is no rate."""
    _check(peak)
    run.write_control(learning_rate={"peak": peak, "asked": time.time_ns()})


def ask_to_save(run: Run) -> None:
    """Asks for a checkpoint after the step that is being made."""
    run.write_control(save=time.time_ns())


def asked(step: int, control: dict[str, Any]) -> list[Change]:
    """The change that `control` asks for, from `step` on; none where it asks for none that can be made."""
    asked = control.get("learning_rate")
    try:
        change = Change(step, float(asked["peak"]), int(asked["asked"])) if isinstance(asked, dict) else None
    except (KeyError, TypeError, ValueError, OverflowError):
        return []
    return [change] if change and math.isfinite(change.learning_rate) and change.learning_rate >= 0 else []


def take(run: Run, made: list[Change], step: int, control: dict[str, Any]) -> list[Change]:
    """The changes with the one that `control` asks for from `step` on, which is on the disk then; `made` itself where it
    asks for none, or for one that was made already (before a crash, say)."""
    new = [change for change in asked(step, control) if change.asked not in {c.asked for c in made}]
    if not new:
        return made
    changed = [*made, *new]
    write_json(_path(run), [dataclasses.asdict(c) for c in changed])
    return changed


def settings_at(settings: TrainingSettings, changes: list[Change], step: int) -> TrainingSettings:
    """The settings that hold at `step`: those of the last change made that had begun by then.

    The last in the order of asking, not of steps: after a crash a change may be asked for before the step of an older
    one, and people mean what they said last. The floor is scaled like the peak, so the whole schedule is.
    """
    peak = next((c.learning_rate for c in reversed(changes) if c.step <= step), None)
    if peak is None or peak == settings.learning_rate:
        return settings
    low = min(settings.min_learning_rate, settings.learning_rate)
    scaled = low * (peak / settings.learning_rate) if settings.learning_rate > 0 else 0.0
    if not math.isfinite(scaled):
        scaled = peak
    return dataclasses.replace(settings, learning_rate=peak, min_learning_rate=scaled)
