"""A run with a time budget: its schedule, its clock, and that a killed run takes the same steps again."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.training.run_helpers import TINY, losses, make, words
from tui_llm.common.errors import UserError
from tui_llm.training.plan import launch
from tui_llm.training.run import jsonl, time_plan
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import learning_rate
from tui_llm.training.run.time_plan import TimePlan, learning_rate_at
from tui_llm.training.worker import clock, job
from tui_llm.training.worker.clock import BudgetClock, Planner, TimeBudget
from tui_llm.training.worker.replay_state import ReplayState
from tui_llm.training.worker.worker import Worker


@pytest.mark.parametrize("schedule", ["wsd", "cosine"])
def test_one_plan_has_the_schedule_of_its_number_of_steps(schedule: str) -> None:
    settings = replace(TINY, schedule=schedule, warmup_steps=0, decay_fraction=0.5)
    plans = [TimePlan(0, 0.0, settings.steps, 0.0)]
    for step in range(1, settings.steps + 1):
        assert learning_rate_at(settings, plans, step) == pytest.approx(learning_rate(settings, step), rel=1e-12)


@pytest.mark.parametrize("schedule", ["wsd", "cosine"])
def test_a_changed_plan_has_no_jump_and_ends_at_the_lowest_rate(schedule: str) -> None:
    settings = replace(TINY, schedule=schedule, steps=1000)
    first = TimePlan(0, 0.0, 1000, 0.0)
    plans = [first, TimePlan(400, first.share_at(400), 500, 40.0)]
    rates = [learning_rate_at(settings, plans, step) for step in range(1, 501)]
    peak = settings.learning_rate
    assert rates[:400] == [learning_rate_at(settings, plans[:1], step) for step in range(1, 401)]
    assert max(abs(a - b) for a, b in itertools.pairwise(rates[10:])) < 0.06 * peak
    assert rates[-1] == pytest.approx(settings.min_learning_rate)
    assert all(a >= b - 1e-15 for a, b in itertools.pairwise(rates[5:]))


def simulate(
    budget: float, cost: Callable[[float], float], planned: int, evaluation: float, checkpoint: float
) -> float:
    """The seconds that a run takes whose steps cost `cost(seconds so far)`."""
    now = 0.0
    made = BudgetClock(budget, 2.0, 0.0, lambda: now)
    settings = replace(TINY, steps=planned, eval_every=37, checkpoint_every=74)
    planner, plan, step = Planner(made, settings, checkpoint), TimePlan(0, 0.0, planned, 2.0), 0
    while step < plan.steps:
        step += 1
        took = cost(now)
        evaluated = step in (1, plan.steps) or step % 37 == 0
        saved = step == plan.steps or step % 74 == 0
        extra = evaluation * evaluated + checkpoint * saved
        now += took + extra
        planner.took(step, took, extra, evaluated=evaluated)
        if step < plan.steps:
            plan = planner.plan(step, plan) or plan
    return made.used


@pytest.mark.parametrize(
    "cost",
    [
        lambda now: 0.05,
        lambda now: 0.05 if now < 30 else 0.15,  # three times slower from the middle on
        lambda now: 0.05 if now < 50 else 0.2,
        lambda now: 0.15 if now < 30 else 0.05,
        lambda now: 0.05 * (1 + now / 30),
        lambda now: 0.05 * random.Random(now).uniform(0.3, 3.0),
    ],
    ids=["even", "slower", "much slower near the end", "faster", "ever slower", "noisy"],
)
@pytest.mark.parametrize("planned", [100, 1000, 20_000])
def test_a_run_ends_within_5_percent_of_its_time(cost: Callable[[float], float], planned: int) -> None:
    budget = 60.0
    used = simulate(budget, cost, planned, evaluation=0.6, checkpoint=0.3)
    assert used == pytest.approx(budget, rel=0.05)


def test_a_paused_clock_stands_still() -> None:
    now = 5.0
    made = BudgetClock(60, 1.0, 0.0, lambda: now)
    made.hold()
    now = 50.0
    assert made.used == 6.0
    made.go_on()
    now = 52.0
    assert made.used == 8.0


def test_the_end_says_that_far_fewer_steps_fitted_than_were_planned() -> None:
    made: Any = object.__new__(TimeBudget)
    made.clock = BudgetClock(60, 30.0, 0.0, lambda: 0.0)
    for steps, said in ((50, False), (25, False), (4, True)):
        made.trainer = SimpleNamespace(plans=[TimePlan(0, 0.0, 35, 1.0)], settings=SimpleNamespace(steps=steps))
        assert made.line.startswith("in 30 s of 1 min") and ("about 35 were planned" in made.line) is said


class Killed(BaseException):
    """Ends a worker without saving, like SIGKILL."""


def work(run: Run, kill_at: int = 0) -> None:
    whole = jsonl.append

    def append(file: Any, value: dict[str, Any]) -> None:
        whole(file, value)
        if "loss" in value and kill_at and value["step"] == kill_at:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "append", append)
        with run.held(1):
            job.train(Worker(run))


TICK = 0.02


class CountedClock(BudgetClock):
    """Each look at it takes `TICK` seconds, so that a run's plans don't depend on the machine."""

    def __init__(self, budget: float, used: float, began: float) -> None:
        self.ticks = 0
        super().__init__(budget, used, 0.0, self.tick)

    def tick(self) -> float:
        self.ticks += 1
        return TICK * self.ticks


def test_a_killed_run_takes_the_same_steps_again_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "text.txt"
    text.write_text(words(2000))
    took = Planner.took

    def counted(self: Planner, number: int, _step: float, _extra: float, *, evaluated: bool) -> None:
        took(self, number, TICK, 0.0, evaluated=evaluated)  # what a step takes by that clock

    monkeypatch.setattr(clock, "BudgetClock", CountedClock)
    monkeypatch.setattr(Planner, "took", counted)
    monkeypatch.setattr(clock, "EXIT", 0.0)
    run = make("timed", text, minutes=0.02, steps=400, checkpoint_every=20)
    with pytest.raises(Killed):
        work(run, kill_at=35)
    before, plans = losses(run), time_plan.read(run)
    assert run.checkpoints()[-1][0] == 20 and len(before) == 35 and len(plans) > 1
    work(run)
    after = losses(run)
    assert after[:35] == before  # steps 21 to 35 were taken again: the same losses and learning rates
    assert time_plan.read(run)[: len(plans)] == plans
    status = run.status()
    assert status.state == "finished" and status.step == status.steps == run.config().settings.steps == len(after)
    assert run.checkpoints()[-1][0] == status.step and "of 1 s" in status.message
    # The rates are recomputed from the plans alone, and the replayed weights are the run's.
    rates = [row[2] for row in after]
    settings = run.config().settings
    assert rates == [learning_rate_at(settings, time_plan.read(run), step) for step in range(1, len(after) + 1)]
    last = len(after)
    state = ReplayState(run, last - 1, lambda _: None, from_start=True)
    assert state.step(last)[0] == after[-1][1]


def test_a_time_budget_has_one_process_and_no_number_of_steps(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(words(2000))
    with pytest.raises(UserError, match="one process; leave out --nproc or --minutes"):
        launch.create("two", [str(text)], replace(TINY, minutes=1.0), preset="toy", device="cpu", nproc=2)
    run = make("timed", text, minutes=1.0)
    with pytest.raises(UserError, match="give --minutes instead of --steps"):
        launch.set_steps(run, 100)
    (run.path / time_plan.NAME).write_text('[{"step": 3}]')
    with pytest.raises(UserError, match="is not a list of time plans"):
        time_plan.read(run)
