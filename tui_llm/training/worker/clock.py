"""The clock of a run with a time budget: it re-plans the number of steps so that the run ends in time."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections import deque
from collections.abc import Callable

from tui_llm.common.numbers import duration
from tui_llm.training.run import time_plan
from tui_llm.training.run.metrics import Metric
from tui_llm.training.run.settings import TrainingSettings
from tui_llm.training.run.time_plan import TimePlan
from tui_llm.training.worker import checkpoints
from tui_llm.training.worker.loop import Trainer
from tui_llm.training.worker.worker import Worker

RECENT = 24  # steps whose mean time is used
FIRST = 3  # steps before the first plan from the run's own speed: the first ones are slower
LATE = 0.005  # of the budget: a plan that ends so much too late or early may be replaced,
ERROR = 0.06  # and so much of the time that is left, since speeds vary
APART = 0.01  # of the budget between two plans, except near the end
NEAR = 0.1  # of the budget before the end: there each step may change the plan
EXIT = 0.6  # seconds for the command to start and for the processes to end after the last checkpoint
FAR_FEWER = 0.7  # of the steps that were planned before the run: the end says so
SPARE = 0.02  # of the budget for a measurement that the run could do without
WRITING = 5e7  # bytes of a checkpoint per second, until one was written
STATE = 16  # bytes of a checkpoint per parameter


class BudgetClock:
    """The time of one worker's run. Pauses don't count.

    `budget` and all other times are in seconds. `used` is what the measurement of the machine and earlier workers have used;
    this worker began at `began` of the clock `now`.
    """

    def __init__(self, budget: float, used: float, began: float, now: Callable[[], float] = time.monotonic) -> None:
        self.budget, self._before, self._began, self._now = budget, used, began, now
        self._held: float | None = None

    @property
    def used(self) -> float:
        """The seconds of the budget that are used."""
        now = self._now() if self._held is None else self._held
        return self._before + now - self._began

    def hold(self) -> None:
        """Stops the clock."""
        self._held = self._now()

    def go_on(self) -> None:
        """Lets a stopped clock go on."""
        if self._held is not None:
            self._began += self._now() - self._held
            self._held = None

    @property
    def line(self) -> str:
        """How much of the budget is used, in words."""
        return f"in {duration(self.used)} of {duration(self.budget)}"


class Planner:
    """Predicts how many steps fit. `writing` is a guess of the seconds that a checkpoint takes."""

    def __init__(self, clock: BudgetClock, settings: TrainingSettings, writing: float) -> None:
        self.clock, self.settings = clock, settings
        self._steps: deque[float] = deque(maxlen=RECENT)
        self._evaluation, self._checkpoint = 0.0, writing
        self._planned = -math.inf

    def took(self, number: int, step: float, extra: float, *, evaluated: bool) -> None:
        """Records what step `number` took, and what was done after it: an evaluation, a checkpoint, both or neither."""
        saved = number % self.settings.checkpoint_every == 0
        self._steps.append(step if evaluated or saved else step + extra)
        if evaluated and saved:
            # Keep the ratio of the two, which only their sum shows.
            known = self._evaluation + self._checkpoint
            self._evaluation, self._checkpoint = (
                extra * part / known if known else extra / 2 for part in (self._evaluation, self._checkpoint)
            )
        elif evaluated:
            self._evaluation = extra
        elif saved:
            self._checkpoint = extra

    def plan(self, done: int, plan: TimePlan) -> TimePlan | None:
        """The plan after `done` steps that replaces `plan`; None if that still fits.

        Near the end a run may plan again after each step, so that its schedule always ends in time.
        """
        if len(self._steps) < FIRST:
            return None
        clock, s = self.clock, self.settings
        used = clock.used
        left = clock.budget - used - self._evaluation - self._checkpoint - EXIT
        each = statistics.fmean(self._steps) + self._evaluation / s.eval_every + self._checkpoint / s.checkpoint_every
        steps = done + max(1, math.floor(left / each + 0.5))
        near = left < NEAR * clock.budget
        if abs(steps - plan.steps) * each < max(LATE * clock.budget, ERROR * left, each):
            return None
        if not near and used - self._planned < APART * clock.budget:
            return None
        self._planned = used
        return TimePlan(done, plan.share_at(done), steps, round(used, 3))


class TimeBudget:
    """Keeps a run with a time budget to its time: after each step, `after` may change `trainer.settings.steps`.

    `done` steps were taken by earlier workers. Each plan is written before a step follows it. Steps that are taken again after
    a crash follow the plans that were made for them.
    """

    def __init__(self, worker: Worker, trainer: Trainer, done: int) -> None:
        s = worker.settings
        self.worker, self.run, self.trainer = worker, worker.run, trainer
        plans = time_plan.read(worker.run) or [TimePlan(0, 0.0, s.steps, 0.0)]
        last = worker.run.last_metric()
        # What an earlier worker decided or took is taken again.
        self._known = max(plans[-1].step, last.step if last else 0)
        used = checkpoints.seconds_used(worker.run, done) if done else plans[0].seconds
        self.clock = BudgetClock(60 * s.minutes, used, worker.began)
        writing = STATE * trainer.model.config.parameters() / WRITING
        self.planner = Planner(self.clock, s, writing)
        self._set(plans)

    @property
    def spare(self) -> float:
        """The seconds that a measurement may take which the run could do without."""
        return SPARE * self.clock.budget

    @property
    def line(self) -> str:
        """How much of the budget is used, and whether far fewer steps fitted than were planned, in words."""
        first, steps = self.trainer.plans[0], self.trainer.settings.steps
        if first.step or steps >= FAR_FEWER * first.steps:
            return self.clock.line
        return f"{self.clock.line}; about {first.steps:,} were planned, but starting or the steps took longer than measured before"

    def after(self, metric: Metric, seconds: float) -> None:
        """Plans again after the step of `metric`, which took `seconds` with all that was written after it."""
        step = self.trainer.step_tokens / metric.tokens_per_second
        evaluated = metric.val_loss is not None
        self.planner.took(metric.step, min(step, seconds), max(0.0, seconds - step), evaluated=evaluated)
        plans = self.trainer.plans
        if metric.step >= self.trainer.settings.steps or metric.step < self._known:
            return
        if (plan := self.planner.plan(metric.step, plans[-1])) is not None:
            time_plan.write(self.run, [*plans, plan])
            self._set([*plans, plan])
            self.run.write_config(self.worker.config)

    def _set(self, plans: list[TimePlan]) -> None:
        self.trainer.plans = plans
        settings = dataclasses.replace(self.trainer.settings, steps=plans[-1].steps)
        self.trainer.settings = self.worker.settings = settings
        self.worker.config = dataclasses.replace(self.worker.config, settings=settings)
