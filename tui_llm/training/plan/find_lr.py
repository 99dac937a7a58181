"""Find a learning rate for a run by short runs in a subprocess. Does not import torch."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.training.plan import processes, subprocesses
from tui_llm.training.plan.fields import resolve_settings
from tui_llm.training.plan.lr_search import DRIFT, SECONDS, RatePick, RateTrial, drift, longest
from tui_llm.training.plan.scratch_run import ScratchRun
from tui_llm.training.run.settings import LEARNS, PRETRAINING, TrainingSettings
from tui_llm.training.run.settings import preset as preset_settings

LOADING = 900.0  # seconds for the process to start, to download and to tokenize, against a hang
OVERTIME = 2.5  # × the seconds of the trials, against a hang


@dataclass(frozen=True, slots=True)
class RateBegin:
    """The trials begin: of a run of `steps` steps with the learning rate `rate`, a step of which takes `step_seconds`."""

    steps: int
    rate: float
    device: str
    step_seconds: float


@dataclass(frozen=True, slots=True)
class RateProgress:
    """What is being done, as a line; or the trial that runs: its rate, steps, the step it is at and that one's training loss."""

    doing: str = ""
    rate: float = 0.0
    steps: int = 0
    step: int = 0
    loss: float | None = None
    left: float | None = None  # seconds for all trials; None: without a limit


RateRecord = RateBegin | RateProgress | RateTrial | RatePick


@dataclass(slots=True)
class RateResult:
    """What is known of a search so far; `add` takes the records as they come."""

    begin: RateBegin | None = None
    progress: RateProgress | None = None
    trials: list[RateTrial] = field(default_factory=list)
    pick: RatePick | None = None

    def add(self, record: RateRecord) -> None:
        match record:
            case RateBegin():
                self.begin = record
            case RateProgress():
                self.progress = record
            case RateTrial():
                self.trials.append(record)
            case RatePick():
                self.pick, self.progress = record, None

    def rounds(self) -> list[list[RateTrial]]:
        """The trials by their number of steps, the fewest first; each by rate."""
        counts = sorted({trial.steps for trial in self.trials})
        return [longest([trial for trial in self.trials if trial.steps == count]) for count in counts]


def parse(raw: dict[str, Any]) -> RateRecord | None:
    """Returns the record in a line that the process has written; None for others."""
    try:
        if "begin" in raw:
            return RateBegin(**raw["begin"])
        if "doing" in raw:
            return RateProgress(str(raw["doing"]))
        if "at" in raw:
            return RateProgress("", **raw["at"])
        if "trial" in raw:
            return RateTrial(**raw["trial"])
        if "pick" in raw:
            found = {**raw["pick"], "trials": tuple(RateTrial(**one) for one in raw["pick"]["trials"])}
            return RatePick(**found)
    except TypeError:  # a line of another version
        return None
    return None


def basis(pick: RatePick) -> list[str]:
    """What the pick is based on, in sentences for people."""
    best = pick.best
    tried = f"{len(best)} rates in runs of {pick.steps:,} steps"
    if pick.whole:
        lines = [f"the lowest end of {tried}, which is the run itself: same weights, rows and schedule"]
    else:
        lines = [
            f"the lowest point of a curve through {tried}, same weights, rows and schedule in {pick.steps / pick.run_steps:.2g} of the steps"
        ]
        if (part := drift(pick.steps, pick.run_steps)) < 1:
            lines.append(
                f"× {part:.2f} for so many more steps, by a rule (rate ∝ steps^−{DRIFT}): an estimate, not a measurement"
            )
    if not pick.bracketed:
        lines.append("the best rate tried was the lowest or the highest one: the best of all may lie beyond")
    if pick.diverges_above is not None:
        lines.append(f"above {pick.diverges_above:g}, runs diverged or learned nothing")
    return lines


def summary(pick: RatePick) -> dict[str, Any]:
    """The result as plain data: rates and losses of the longest trials, None where one diverged."""
    best = pick.best
    return {
        "rates": [trial.rate for trial in best],
        "losses": [trial.loss for trial in best],
        "pick": pick.rate,
        "diverges_above": pick.diverges_above,
        "steps": pick.steps,
        "run_steps": pick.run_steps,
        "bracketed": pick.bracketed,
        "trials": [{"rate": one.rate, "steps": one.steps, "loss": one.loss} for one in pick.trials],
    }


def tried_settings(
    given: Mapping[str, Any], preset: str, corpora: Sequence[str]
) -> tuple[TrainingSettings, Path | None]:
    """Returns the settings that are tried for a new run with the settings `given`, and the folder of the model that it starts from.

    Raises `UserError` if they are invalid.
    """
    settings, _, model = resolve_settings(given, preset_settings(preset), corpora)
    return settings, model.folder if model else None


class RateFinder:
    """The subprocess that tries learning rates for a run of `settings`, which the constructor starts.

    `corpora` and `model` are as `ScratchRun` takes them. `seconds` bounds the trials' time; with `trial_steps`, the trials of the
    second round have so many steps instead (the first a quarter), whatever time they take. `records` gives the results
    as they come; `cancel` kills the process. Raises `UserError` if the settings can't be tried or the process can't be started.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        corpora: Sequence[str],
        device: str,
        model: Path | None = None,
        seconds: float = SECONDS,
        trial_steps: int | None = None,
    ) -> None:
        if settings.objective != PRETRAINING:
            raise UserError(
                f"a learning rate is found for runs on text only, not for those that learn {LEARNS[settings.objective]}"
            )
        if not (math.isfinite(seconds) and seconds > 0):
            raise UserError(f"the trials can't take {seconds:g} seconds; give more than 0, such as 60")
        if trial_steps is not None and trial_steps < 1:
            raise UserError(f"a trial can't have {trial_steps} steps; give 1 or more")
        if settings.learning_rate <= 0:
            raise UserError("the learning rate is 0; give the one to search around, such as 1e-3")
        self.cancelled = False
        self._late = False
        self._scratch = ScratchRun(settings, corpora, device, model)
        self._seconds = None if trial_steps is not None else seconds
        asked = {
            "run": str(self._scratch.run.path.absolute()), "seconds": self._seconds, "trial_steps": trial_steps,
        }  # fmt: skip
        try:
            self.process = subprocesses.start("find_lr", "try rates in", device)
        except UserError:
            self._scratch.delete()
            raise
        self._clock: threading.Timer | None = None
        subprocesses.ask(self.process, asked)

    def cancel(self) -> None:
        """Kills the process; `records` then ends."""
        self.cancelled = True
        self.process.kill()
        self.process.wait()
        self._scratch.delete()

    def _set_clock(self, seconds: float) -> None:
        if self._clock is not None:
            self._clock.cancel()
        self._clock = threading.Timer(seconds, self._time_is_up)
        self._clock.daemon = True
        self._clock.start()

    def _time_is_up(self) -> None:
        self._late = True
        self.process.kill()

    def records(self) -> Iterator[RateRecord]:
        """Yields the results, the pick last. Raises `UserError` with the reason if there is none."""
        done, why = False, ""
        self._set_clock(LOADING)
        try:
            for raw in processes.json_lines(self.process):
                why = why or str(raw.get("problem", ""))
                record = parse(raw)
                if isinstance(record, RateBegin) and self._clock is not None:
                    self._clock.cancel()
                    if self._seconds is not None:
                        self._set_clock(OVERTIME * self._seconds + 30)
                done = done or isinstance(record, RatePick)
                if record is not None:
                    yield record
        finally:
            if self._clock is not None:
                self._clock.cancel()
            self.process.kill()
            self.process.wait()
            self._scratch.delete()
        if not done and not self.cancelled:
            late = (
                "it took too long" if self._late else f"the process ended early (exit status {self.process.returncode})"
            )
            raise UserError(why or f"no learning rate was found: {late}")
