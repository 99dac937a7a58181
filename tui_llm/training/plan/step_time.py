"""The speed of a shape, from a few steps on random tokens measured in a subprocess. Does not import torch.

The subprocess builds the run's model, trains it on random tokens on the run's device and reports the time of each step.
It does not touch a run directory. The caller waits with `take` or kills it with `cancel`.
"""

from __future__ import annotations

import os
import statistics
import threading
from dataclasses import asdict, dataclass
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.training.plan import processes, subprocesses
from tui_llm.training.run.settings import LEARNS, PRETRAINING, TrainingSettings

SECONDS = 15.0  # time limit of the measured steps
STARTING = 600.0  # seconds for the process to start, against a hang: importing torch can take a minute


@dataclass(frozen=True, slots=True)
class Rate:
    """The measured speed: median tokens per second of `steps` steps on `device`.

    `rows` is the batch size that was measured; it is smaller than the run's if that would have taken too long.
    """

    tokens_per_second: float
    steps: int
    rows: int
    device: str

    def seconds(self, tokens: int) -> float:
        """Returns the time to train on `tokens` tokens, in seconds, without evaluations, samples and checkpoints."""
        return tokens / self.tokens_per_second


class Measurement:
    """A measurement in a subprocess, which the constructor starts. Raises `UserError` if it can't be started."""

    def __init__(
        self,
        settings: TrainingSettings,
        shape: GPTConfig,
        device: str,
        seconds: float = SECONDS,
        threads: int | None = None,
    ) -> None:
        if settings.objective != PRETRAINING:
            raise UserError(f"only steps on text are measured, not those that learn {LEARNS[settings.objective]}")
        self.cancelled = False
        self._late = False
        variables = {} if threads is None else {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self.process = subprocesses.start("step_time", "measure with", device, variables)
        self._seconds = seconds
        self._set_clock(STARTING)
        asked = {"settings": asdict(settings), "shape": asdict(shape), "device": device, "seconds": seconds}
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

    def take(self) -> Rate:
        """Waits for the subprocess to end and returns the result.

        Raises `UserError` with the reason if there is none.
        """
        found: list[dict[str, Any]] = []
        why = ""
        try:
            for value in processes.json_lines(self.process):
                if "problem" in value:
                    why = str(value["problem"])
                elif "ready" in value:
                    self._clock.cancel()
                    self._set_clock(self._seconds)
                else:
                    found.append(value)
        finally:
            self._clock.cancel()
            self.process.kill()
            self.process.wait()
        if self.cancelled:
            raise UserError("not measured: it was stopped")
        rows = max((int(value["rows"]) for value in found), default=0)
        rates = [float(value["tokens"]) / float(value["seconds"]) for value in found if int(value["rows"]) == rows]
        if not rates or why:
            late = f"not one step was measured in {self._seconds:.0f} s{busy()}; a smaller batch or model, or another device, is faster"
            raise UserError(why or (late if self._late else "the measuring process ended without a message"))
        return Rate(statistics.median(rates), len(rates), rows, str(found[-1]["device"]))


def busy() -> str:
    """Returns a remark for the error message if the machine's load is high."""
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return f" (other processes are busy: load {load:.1f} on {cores} cores)" if load > 1.5 * cores else ""
