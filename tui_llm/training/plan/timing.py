"""How long a run would take: a few real steps of its shape on its device, in a process of their own. No torch here.

The process makes the model that the run would have, trains it on random tokens and says after each step how fast that
was. It touches no run directory. Whoever asked waits (`take`), or kills it (`cancel`).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.training.plan import launch
from tui_llm.training.run.settings import TrainingSettings

SECONDS = 15.0  # that the steps may take
STARTING = 600.0  # that the process may take to begin, else it hangs: torch's import takes a minute on a busy machine


@dataclass(frozen=True, slots=True)
class Rate:
    """Tokens per second in the median of `steps` measured steps, on `device`; `rows` is the batch that was measured,
    smaller than the run's where that would have taken too long."""

    tokens_per_second: float
    steps: int
    rows: int
    device: str

    def seconds(self, tokens: int) -> float:
        """How long training on so many tokens takes: evaluations, samples and checkpoints are not counted."""
        return tokens / self.tokens_per_second


class Measurement:
    """A process that measures, started when this is made. Raises `UserError` where it can't be started."""

    def __init__(
        self,
        settings: TrainingSettings,
        shape: GPTConfig,
        device: str,
        seconds: float = SECONDS,
        threads: int | None = None,
    ) -> None:
        self.cancelled = False
        self._late = False
        environment = {**launch.ALLOCATOR, **launch.environment()}
        if device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        if threads is not None:
            environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        asked = {"settings": asdict(settings), "shape": asdict(shape), "device": device, "seconds": seconds}
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tui_llm.training.worker.timing_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise UserError(f"can't start a process to measure with: {error.strerror or error}") from error
        self._seconds = seconds
        self._set_clock(STARTING)
        try:
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(asked).encode())
            self.process.stdin.close()
        except OSError:
            pass  # it has ended already: `take` says so

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
        """Waits for the process to end. Raises `UserError` where it measured nothing, and says why."""
        found: list[dict[str, Any]] = []
        why = ""
        try:
            for value in self._said():
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
            late = f"not one step was measured in {self._seconds:.0f} s{_busy()}; a smaller batch or model, or another device, is faster"
            raise UserError(why or (late if self._late else "the process that measures ended without a word"))
        return Rate(statistics.median(rates), len(rates), rows, str(found[-1]["device"]))

    def _said(self) -> Iterator[dict[str, Any]]:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                try:
                    value = json.loads(line)
                except ValueError:  # cut off, or a library's own word
                    continue
                if isinstance(value, dict):
                    yield value


def _busy() -> str:
    """Says so where other processes leave this one little of the processor."""
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return f" (others are at work too: load {load:.1f} on {cores} cores)" if load > 1.5 * cores else ""
