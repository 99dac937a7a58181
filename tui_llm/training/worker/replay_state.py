"""The weights and the optimizer's state of a run after any of its steps, recomputed; the run itself is only read.

A run's rows and dropout's noise follow from the seed and the step. So the steps after the last kept checkpoint, or all from
the first one on, are taken again, each with the learning rate that was logged.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from tui_llm.common.errors import UserError
from tui_llm.llm.model import checkpoint
from tui_llm.llm.tokens.tokenizer import Tokenizer
from tui_llm.training.run import changes, time_plan
from tui_llm.training.run.changes import settings_at
from tui_llm.training.run.metric_at import of_steps
from tui_llm.training.run.metrics import Metric
from tui_llm.training.run.run import Run
from tui_llm.training.worker import checkpoints, inputs, objectives, torch_compile
from tui_llm.training.worker.distributed import Ranks
from tui_llm.training.worker.inputs import Inputs
from tui_llm.training.worker.loop import Trainer
from tui_llm.training.worker.worker import Worker

REPORT_EVERY = 0.5  # seconds


class ReadingWorker(Worker):
    """A worker that writes nothing into the run: `say` gets what others report in status.json."""

    records_corpus = False

    def __init__(self, run: Run, say: Callable[[str], object]) -> None:
        super().__init__(run)
        self.ranks = Ranks()  # also where it is one of several processes that train another run
        self._say, self._said = say, 0.0

    def report(self, state: str, message: str = "") -> None:
        """Passes the message on."""
        self._say(message)

    def report_progress(self, message: str) -> None:
        """Passes the message on, at most every `REPORT_EVERY` seconds."""
        if time.monotonic() - self._said > REPORT_EVERY:
            self._said = time.monotonic()
            self._say(message)


class ReplayState:
    """A trainer of `run` after `updates` steps, as the run's own was then.

    `begun` is the step of the checkpoint that it was recomputed from, 0 for the run's beginning. With `from_start` it is
    always the latter, which is a branch's first checkpoint; with `patient`, also where all checkpoints before it are damaged. Raises
    `UserError` if the corpus has changed or nothing can be loaded.
    """

    trainer: Trainer
    tokenizer: Tokenizer

    def __init__(
        self, run: Run, updates: int, say: Callable[[str], object], *, from_start: bool = False, patient: bool = False
    ) -> None:
        self.run, self.updates = run, updates
        self.worker = ReadingWorker(run, say)
        self.inputs: Inputs = inputs.load(self.worker)
        self.tokenizer = self.inputs.tokenizer
        model = inputs.random_model(self.worker, self.inputs)
        first = self.worker.config.parent_step  # a branch begins with a checkpoint, other runs with the seed
        try:
            found = checkpoints.load_newest(run, model, first if from_start else updates)
        except UserError as error:
            if first or from_start or isinstance(error, checkpoints.Unreadable):
                raise
            found = None
            told = str(error).replace(checkpoints.NONE_LEFT, "From the run's beginning, --from-start does it")
            if not patient:
                raise UserError(told) from error
        if first and not found:
            raise UserError(f"run {run.name} has lost the checkpoint with which it begins, of step {first:,}")
        if self.inputs.start and not found:
            model.load_state_dict(checkpoint.load(self.inputs.start).state_dict())
        self.begun, state, _ = found or (0, None, "")
        model.used = self.tokenizer.size
        settings = self.worker.settings
        self.trainer = objectives.trainer(self.inputs, model, settings, self.worker.ranks)
        if self.begun:
            checkpoints.restore(self.trainer, state)
        self.trainer.changes = changes.read(run)
        self.trainer.plans = time_plan.read(run)
        self.logged = of_steps(run.metrics_path, self.begun + 1, updates + 1)
        if torch_compile.wanted(settings.compile, self.trainer.device):
            say("compiling the training step")
            torch_compile.compile_step(self.trainer, self.begun + 1)
        self._take(say)

    def _take(self, say: Callable[[str], object]) -> None:
        """Takes the steps up to `updates`."""
        began, count = time.monotonic(), self.updates - self.begun
        for done in range(count):
            if done:
                left = (time.monotonic() - began) / done * (count - done)
                self.worker.report_progress(
                    f"recomputing step {self.begun + done + 1:,}; {count - done:,} more, about {left:.0f} s"
                )
            self.step(self.begun + done + 1)

    def step(self, number: int) -> tuple[float, float]:
        """Takes step `number`, the next one. Returns its loss and its gradient's norm before it was clipped."""
        return self.trainer._update(number, self.rate(number))

    def advanced(self, number: int) -> None:
        """Step `number`, the next one, was taken with `step`: this is now the state after it."""
        self.updates = number
        self.trainer.changes = changes.read(self.run)
        self.logged |= of_steps(self.run.metrics_path, number + 1, number + 1)

    def rate(self, number: int) -> float:
        """The learning rate of step `number`: what was logged, else the schedule's."""
        known: Metric | None = self.logged.get(number)
        if known is not None:
            return known.lr  # also right if the number of steps, and so the schedule, has changed since
        settings = settings_at(self.worker.settings, self.trainer.changes, number)
        return time_plan.learning_rate_at(settings, self.trainer.plans, number)
