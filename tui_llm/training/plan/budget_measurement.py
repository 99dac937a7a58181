"""The subprocess that measures the machine and the text for a time budget. Does not import torch."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.llm.data import corpora
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.training.plan import processes, subprocesses
from tui_llm.training.run.settings import TrainingSettings

STARTING = 600.0  # seconds for the whole measurement, against a hang


class BudgetMeasurement:
    """The measuring subprocess, which the constructor starts. Raises `UserError` if it can't be started."""

    def __init__(
        self,
        shapes: Sequence[tuple[TrainingSettings, GPTConfig]],
        corpus: Sequence[str],
        settings: TrainingSettings,
        tokenizers: Sequence[str],
        device: str,
    ) -> None:
        self.cancelled = False
        self.started: float | None = None  # seconds until its first answer
        self._began = time.monotonic()
        asked = {
            "shapes": [(asdict(s), asdict(g)) for s, g in shapes], "corpus": list(map(corpora.place, corpus)),
            "format": [settings.format, settings.field], "tokenizers": list(tokenizers), "device": device,
            "seconds": 60 * settings.minutes,
        }  # fmt: skip
        self.process = subprocesses.start("budget", "measure with", device)
        self._clock = threading.Timer(STARTING, self.process.kill)
        self._clock.daemon = True
        self._clock.start()
        subprocesses.ask(self.process, asked)

    def __enter__(self) -> BudgetMeasurement:
        return self

    def __exit__(self, *_: object) -> None:
        self._clock.cancel()
        self.process.kill()
        self.process.wait()

    @property
    def seconds(self) -> float:
        """The seconds since it began to measure."""
        return time.monotonic() - self._began - (self.started or 0.0)

    def cancel(self) -> None:
        """Kills the process; `results` then raises."""
        self.cancelled = True
        self.process.kill()

    def results(self) -> Iterator[dict[str, Any]]:
        """Yields what it finds. Raises `UserError` if it was cancelled or can't measure."""
        for value in processes.json_lines(self.process):
            if "problem" in value:
                raise UserError(str(value["problem"]))
            if self.started is None:
                self.started = time.monotonic() - self._began
                if "ready" in value:
                    continue
            yield value
        if self.cancelled:
            raise UserError("not measured: it was stopped")
