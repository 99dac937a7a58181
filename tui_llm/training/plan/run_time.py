"""The expected duration of a run, and a band around it, from beginning the run itself in a subprocess. Does not import torch.

The subprocess begins the run in a scratch directory, with its text, model, batch, precision and optimizer, and records what a
run records; so the time has shares for starting, steps, evaluations with their samples, and checkpoints.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.common.numbers import counted, duration
from tui_llm.facts.pin import Pin
from tui_llm.training.plan import processes, subprocesses
from tui_llm.training.plan.scratch_run import ScratchRun
from tui_llm.training.plan.step_time import SECONDS, STARTING, busy
from tui_llm.training.run.settings import LEARNS, PRETRAINING, TrainingSettings

HANG = 4.0  # × the seconds, then the process is killed
MARGIN = 0.12  # of the time: what a run varies by on a machine with nothing else to do
SPREADS = 2.0  # × the spread of the measured parts, on either side
MOST_SPREAD = 0.5
KNOWN_SPREAD = 0.1  # at most, below the estimate, where the load is known
START_MARGIN = (0.3, 0.4)  # of the time to start: less if its files are cached, more if they no longer are
PART_MARGIN = 0.25  # more, where fewer rows were measured and the evaluations estimated from them
MORE_LOAD = 0.6  # of the time lost to other processes may be lost once more
BUSY = 1.15  # contention from which the machine is called busy


@dataclass(frozen=True, slots=True)
class RunTime:
    """The measured parts of a run's time, in seconds: `start` before the first step, `step` an optimizer step of `step_tokens`
    tokens, `evaluation` with its sample, `checkpoint`; and how many of each the run has.

    `whole` is False where `rows` is smaller than the batch: evaluations are then estimated from their tokens, and checkpoints
    not counted. `spread` is the relative standard deviation of the step time between parts of the measurement, `contention` the time taken relative
    to that on free cores (None: unknown).
    """

    start: float
    step: float
    evaluation: float
    checkpoint: float
    steps: int
    evaluations: int
    checkpoints: int
    steps_measured: int
    rows: int
    step_tokens: int
    spread: float
    contention: float | None
    device: str
    whole: bool

    @property
    def tokens_per_second(self) -> float:
        """While it trains, without evaluations and checkpoints."""
        return self.step_tokens / self.step

    @property
    def shares(self) -> dict[str, float]:
        """Seconds of the run by what they are spent on."""
        return {
            "start": self.start,
            "steps": self.step * self.steps,
            "evaluations": self.evaluation * self.evaluations,
            "checkpoints": self.checkpoint * self.checkpoints,
        }

    @property
    def seconds(self) -> float:
        """The whole run, from its start to its end, on a machine as busy as when this was measured."""
        return sum(self.shares.values())

    @property
    def band(self) -> tuple[float, float]:
        """Between these, 8 of 10 runs should take: from free cores to more load than was measured."""
        contention = max(1.0, self.contention or 1.0)
        margin = MARGIN + (0 if self.whole else PART_MARGIN)
        spread = min(MOST_SPREAD, SPREADS * self.spread)
        known = self.contention is not None  # then most of the spread is that of the load, which is counted already
        less, more = (share * self.start for share in START_MARGIN)
        low = self.seconds / contention * max(0.2, 1 - margin - (min(spread, KNOWN_SPREAD) if known else spread))
        high = self.seconds * (1 + margin + spread + MORE_LOAD * (contention - 1)) + more
        return max(0.0, low - less / contention), high

    @property
    def busy(self) -> bool:
        return self.contention is not None and self.contention > BUSY


def counts(settings: TrainingSettings) -> tuple[int, int]:
    """How many evaluations and checkpoints a run with these settings has."""
    s = settings
    evaluations = {1, s.steps, *range(s.eval_every, s.steps + 1, s.eval_every)}
    checkpoints = {s.steps, *range(s.checkpoint_every, s.steps + 1, s.checkpoint_every)}
    return len(evaluations), len(checkpoints)


def lines(found: RunTime, batch_size: int) -> list[str]:
    """The estimate, in sentences for people."""
    low, high = found.band
    shares = ", ".join(f"{name} {_whole(value / found.seconds)}" for name, value in found.shares.items() if value)
    fewer = (
        ""
        if found.whole
        else f"; {counted(found.rows, 'row')} at a time instead of {batch_size}, checkpoints not counted"
    )
    said = [
        f"{duration(found.seconds)} for all {found.steps:,} steps; 8 of 10 runs take {duration(low)} to {duration(high)}",
        f"{shares}; {found.tokens_per_second:,.0f} tokens/s on {found.device}{fewer}",
    ]
    if found.busy:
        lost = 1 - 1 / (found.contention or 1)
        said.append(f"wide, as the machine is busy: other processes took {_whole(lost)} of the time")
    return said


def _whole(share: float) -> str:
    return f"{100 * share:.0f} %"


class RunTimeMeasurement:
    """A measurement in a subprocess, which the constructor starts; `take` gives its result, `cancel` kills it.

    `corpora`, `model` and `pinned` are as `launch.create` takes them. Raises `UserError` if the settings can't be measured, or
    the process can't be started.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        corpora: Sequence[str],
        device: str,
        model: Path | None = None,
        pinned: Sequence[Pin] = (),
        seconds: float = SECONDS,
    ) -> None:
        if settings.objective != PRETRAINING:
            raise UserError(f"only steps on text are measured, not those that learn {LEARNS[settings.objective]}")
        self.settings, self.cancelled = settings, False
        self._late, self._seconds = False, seconds
        self._scratch = ScratchRun(settings, corpora, device, model, pinned)
        asked = {"run": str(self._scratch.run.path.absolute()), "seconds": seconds, "began": time.monotonic()}
        try:
            self.process = subprocesses.start("run_time", "measure with", device)
        except UserError:
            self._scratch.delete()
            raise
        self._set_clock(STARTING)
        subprocesses.ask(self.process, asked)

    def cancel(self) -> None:
        """Kills the process; `take` then raises."""
        self.cancelled = True
        self.process.kill()

    def _set_clock(self, seconds: float) -> None:
        self._clock = threading.Timer(seconds, self._time_is_up)
        self._clock.daemon = True
        self._clock.start()

    def _time_is_up(self) -> None:
        self._late = True
        self.process.kill()

    def take(self, say: Callable[[str], object] = lambda _text: None) -> RunTime:
        """Waits for the result; `say` gets what is being done until the first step. Raises `UserError` with the reason if there is
        none."""
        parts: dict[str, Any] | None = None
        why = ""
        try:
            for value in processes.json_lines(self.process):
                if "doing" in value:
                    say(str(value["doing"]))
                elif "ready" in value:
                    self._clock.cancel()
                    self._set_clock(HANG * self._seconds)
                elif "parts" in value:
                    parts = value["parts"]
                why = why or str(value.get("problem", ""))
        finally:
            self._clock.cancel()
            self.process.kill()
            self.process.wait()
            self._scratch.delete()
        if self.cancelled:
            raise UserError("not measured: it was stopped")
        if parts is None or why:
            late = f"not measured within {HANG * self._seconds:.0f} s{busy()}; a smaller batch or model, or another device, is faster"
            raise UserError(why or (late if self._late else "the measuring process ended without a message"))
        evaluations, checkpoints = counts(self.settings)
        return RunTime(steps=self.settings.steps, evaluations=evaluations, checkpoints=checkpoints, **parts)
