"""The subprocess of plan/find_lr.py: `python -m tui_llm.training.worker.find_lr`.

It reads a JSON request from stdin and writes JSON lines to stdout: what it is doing, each trial as it goes, and the pick. Each
trial is what a run with that learning rate would do, in fewer steps: see plan/lr_search.py.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tui_llm.common.errors import UserError
from tui_llm.llm.model import checkpoint, native_training
from tui_llm.training.plan.lr_search import RatePick, RateSearch, TooSlow
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import MOST_WARM_UP, TrainingSettings, learning_rate
from tui_llm.training.worker import inputs, objectives
from tui_llm.training.worker.distributed import Ranks
from tui_llm.training.worker.loop import Diverged, Trainer
from tui_llm.training.worker.problem_line import problem_line
from tui_llm.training.worker.replay_state import ReadingWorker
from tui_llm.training.worker.step_time import check_memory

REPORT_EVERY = 0.2  # seconds
MOST_TIME = 1.5  # × the seconds: where the machine became slower, nothing goes on longer
BATCHING = 8.0  # a row of a batch takes at least one part in this of the time of a row alone

Say = Callable[[dict[str, Any]], object]


class OutOfTime(Exception):
    """The trials took much longer than the seconds that they had."""


def scaled(settings: TrainingSettings, rate: float, steps: int) -> TrainingSettings:
    """The settings of a trial: the run's, with its schedule squeezed into `steps` steps.

    A warm-up keeps its share of the steps, but has as many as a new run may have by default (`MOST_WARM_UP`) where the run's own is
    that long.
    """

    def squeezed(name: str) -> int:
        count: int = getattr(settings, name)
        return max(round(count * steps / settings.steps), min(count, steps // MOST_WARM_UP[name]))

    warm_ups: dict[str, Any] = {name: squeezed(name) for name in MOST_WARM_UP}
    return dataclasses.replace(settings, learning_rate=rate, steps=steps, compile="off", **warm_ups)


class Trials:
    """Trains the run's model from its first weights, again and again. Times are in seconds."""

    def __init__(self, run: Run, seconds: float | None, say: Say) -> None:
        """`seconds` is for all trials; None: without a limit."""
        self.say, self.seconds = say, seconds
        worker = ReadingWorker(run, lambda text: say({"doing": text}))
        self.loaded = inputs.load(worker)
        self.settings = worker.settings
        self.model = inputs.random_model(worker, self.loaded)
        check_memory(self.settings, self.model.config, self.loaded.device)
        if self.loaded.start:
            self.model.load_state_dict(checkpoint.load(self.loaded.start).state_dict())
        self.model.used = self.loaded.tokenizer.size
        self.first = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.began, self._steps, self._spent = time.monotonic(), 0, 0.0
        self._said = 0.0
        if native_training.must_compile():
            say({"doing": "compiling the training step, once on this machine"})
        self.untrained, self.step_seconds = self._measure()
        self.began = time.monotonic()

    def _trainer(self, settings: TrainingSettings) -> Trainer:
        self.model.load_state_dict(self.first)
        return objectives.trainer(self.loaded, self.model, settings, Ranks())

    def _measure(self) -> tuple[float, float]:
        """Returns the untrained model's validation loss, and the seconds of a step. Raises `UserError` if the step is far too
        slow, before a whole one is run."""
        self.say({"doing": "measuring a step"})
        s = self.settings
        single = self._trainer(dataclasses.replace(s, batch_size=1, grad_accumulation_steps=1, eval_batches=1))
        took = min(_step_seconds(single, number) for number in (1, 2))
        if self.seconds is not None:
            least = took * s.batch_size * s.grad_accumulation_steps / BATCHING
            self._check(least, RateSearch.needed(s.steps), "at least ")
        trainer = self._trainer(s)
        step = min(_step_seconds(trainer, number) for number in (1, 2, 3))
        return trainer.validate(), step

    def _check(self, step: float, needed: int, least: str = "") -> None:
        if self.seconds is not None and step * needed > self.seconds:
            raise UserError(
                f"a step takes {least}{step:.2g} s here, and the least is {needed} steps: give "
                f"{math.ceil(1.2 * step * needed)} seconds (--seconds), a smaller batch or model, or another device"
            )

    def room(self) -> float:
        """The steps for which there is time left."""
        if self.seconds is None:
            return math.inf
        return max(0.0, self.began + self.seconds - time.monotonic()) / self.step_seconds

    def trial(self, rate: float, steps: int) -> float | None:
        """Trains and returns the validation loss; None if the run diverged or learned nothing."""
        began = time.monotonic()
        settings = scaled(self.settings, rate, steps)
        trainer = self._trainer(settings)
        loss: float | None = None
        try:
            for number in range(1, steps + 1):
                train_loss, _ = trainer._update(number, learning_rate(settings, number))
                self._report(rate, steps, number, train_loss)
            with trainer.evaluated_weights():
                found = trainer.validate()
            if math.isfinite(found) and found < self.untrained:
                loss = found
        except Diverged:
            pass
        self._steps += steps
        self._spent += time.monotonic() - began
        self.step_seconds = self._spent / self._steps
        self.say({"trial": {"rate": rate, "steps": steps, "loss": loss}})
        return loss

    def _report(self, rate: float, steps: int, number: int, loss: float) -> None:
        now = time.monotonic()
        if self.seconds is not None and now > self.began + MOST_TIME * self.seconds:
            raise OutOfTime
        if now > self._said + REPORT_EVERY or number == steps:
            self._said = now
            left = None if self.seconds is None else max(0.0, self.began + self.seconds - now)
            shown = loss if math.isfinite(loss) else None
            self.say({"at": {"rate": rate, "steps": steps, "step": number, "loss": shown, "left": left}})

    def search(self, trial_steps: int | None) -> RatePick:
        """Raises `UserError` if there is no time for the search, or every rate diverged."""
        s = self.settings
        self._check(self.step_seconds, RateSearch.needed(s.steps))
        self.say({"begin": {"steps": s.steps, "rate": s.learning_rate, "device": str(self.loaded.device),
                            "step_seconds": self.step_seconds}})  # fmt: skip
        try:
            return RateSearch(s.learning_rate, s.steps, self.trial, self.room, trial_steps).run()
        except TooSlow as error:
            self._check(self.step_seconds, error.needed)
            raise UserError("there is too little time for the trials; give more seconds") from error
        except OutOfTime:
            raise UserError("the trials took far longer than measured before: the machine is busy; try again") from None


def _step_seconds(trainer: Trainer, number: int) -> float:
    began = time.perf_counter()
    trainer._update(number, 0.0)
    return time.perf_counter() - began


def main() -> int:
    """Reads the request from stdin and prints the results. Returns the exit status."""

    def say(value: dict[str, Any]) -> None:
        print(json.dumps(value, allow_nan=False), flush=True)

    try:
        asked = json.load(sys.stdin)
        torch.set_flush_denormal(True)  # as the worker
        pick = Trials(Run(Path(asked["run"])), asked["seconds"], say).search(asked["trial_steps"])
        found = dataclasses.asdict(pick)
        say({"pick": found})
        return 0
    except BrokenPipeError:
        return 1
    except Exception as error:  # the parent reports it
        say({"problem": problem_line(error)})
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
