"""A learning rate for a new run: the form's key, the chart as it grows, Enter takes the pick, Esc keeps the old rate."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import pytest
from helpers import drawn, unsafe, until
from test_runs_screen import ScreenApp, set_field
from textual.pilot import Pilot

from tui_llm.common.errors import UserError
from tui_llm.training.plan.find_lr import RateBegin, RateProgress, RateRecord, RateResult
from tui_llm.training.plan.lr_search import RatePick, RateTrial
from tui_llm.tui.runs import new_run_fields
from tui_llm.tui.runs.find_lr import FindRateScreen
from tui_llm.tui.runs.find_lr_chart import drawn_rates
from tui_llm.tui.runs.new_run import NewRunScreen

WIDE = [RateTrial(rate, 50, loss) for rate, loss in ((1e-4, 4.0), (1e-3, 3.0), (1e-2, 3.2), (1e-1, None))]
NEAR = [RateTrial(rate, 400, loss) for rate, loss in ((2e-3, 2.1), (4e-3, 1.9), (8e-3, 2.2))]
PICK = RatePick(4e-3, 400, 400, (*WIDE, *NEAR), True, 1e-2)
BEGIN = RateBegin(400, 3e-3, "cpu", 0.01)


class Finder:
    """A search whose records a test puts; None ends it, an error is raised."""

    made: list[Finder] = []

    def __init__(self, settings: Any, *_: Any) -> None:
        self.settings, self.killed, self.put = settings, False, queue.SimpleQueue[Any]()
        self.process = self
        Finder.made.append(self)

    def records(self) -> Iterator[RateRecord]:
        while (record := self.put.get()) is not None:
            if isinstance(record, Exception):
                raise record
            yield record

    def kill(self) -> None:
        self.killed = True
        self.put.put(None)


def text(app: ScreenApp) -> str:
    return "\n".join(drawn(app))  # type: ignore[arg-type]


async def opened(app: ScreenApp, pilot: Pilot[None]) -> Finder:
    """Presses the form's key once its corpus is checked."""
    await until(pilot, lambda: "corpus" not in app.shown._field_problems)  # type: ignore[attr-defined]
    count = len(Finder.made)
    await pilot.press("ctrl+r")
    await until(pilot, lambda: isinstance(app.screen, FindRateScreen) and len(Finder.made) > count)
    return Finder.made[-1]


@pytest.fixture(autouse=True)
def finders(monkeypatch: pytest.MonkeyPatch) -> None:
    Finder.made = []
    monkeypatch.setattr(new_run_fields, "RateFinder", Finder)


async def test_a_key_of_the_form_finds_a_rate_and_enter_takes_it_into_the_field() -> None:
    app = ScreenApp(NewRunScreen("python-reference"))
    async with app.run_test(size=(100, 30)) as pilot:
        set_field(app, "steps", "60")
        finder = await opened(app, pilot)
        assert finder.settings.steps == 60 and finder.settings.learning_rate == 3e-3
        assert finder.settings.warmup_steps == 6  # as in the run with the pick: a tenth of the steps
        await pilot.press("enter")  # there is no pick yet
        assert isinstance(app.screen, FindRateScreen)
        for record in (RateProgress("tokenizing\x1b[31m"), BEGIN, *WIDE, RateProgress("", 4e-3, 400, 20, 2.5, 31.2)):
            finder.put.put(record)
        await until(
            pilot, lambda: "rate 0.004: step 20 of 400, training loss 2.500; at most about 31 s more" in text(app)
        )
        assert "×" in text(app) and "!" in text(app) and "4 trials so far" in text(app)
        for record in (*NEAR, PICK, None):
            finder.put.put(record)
        await until(pilot, lambda: "pick: 0.004, instead of 0.003" in text(app))
        assert "which is the run itself" in text(app) and "above 0.01, runs diverged" in text(app)
        assert not unsafe(drawn(app))  # type: ignore[arg-type]
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is app.shown)
        assert app.shown.query_one("#learning_rate").value == "0.004"  # type: ignore[attr-defined]
        assert app.shown.query_one("#learning_rate").has_focus


async def test_escape_keeps_the_rate_and_ends_the_search() -> None:
    app = ScreenApp(NewRunScreen("python-reference"))
    async with app.run_test(size=(80, 24)) as pilot:
        finder = await opened(app, pilot)
        finder.put.put(WIDE[0])
        await until(pilot, lambda: app.screen.result.trials)  # type: ignore[attr-defined]
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.shown and finder.killed)
        assert app.shown.query_one("#learning_rate").value == "0.003"  # type: ignore[attr-defined]


async def test_a_search_can_be_stopped_and_begun_again_and_says_what_went_wrong() -> None:
    app = ScreenApp(NewRunScreen("python-reference"))
    async with app.run_test(size=(80, 24)) as pilot:
        first = await opened(app, pilot)
        first.put.put(WIDE[1])
        await until(pilot, lambda: "1 trial" in text(app) or app.screen.result.trials)  # type: ignore[attr-defined]
        await pilot.press("s")
        await until(pilot, lambda: first.killed and "stopped; r tries again" in text(app))
        await pilot.press("r")
        await until(pilot, lambda: len(Finder.made) == 2)
        Finder.made[1].put.put(UserError("out of memory; try a smaller\nbatch \x1b]0;x"))
        await until(pilot, lambda: "✗ out of memory; try a smaller batch" in text(app))
        assert not unsafe(drawn(app))  # type: ignore[arg-type]
        for size in ((1, 1), (20, 5), (200, 60)):
            await pilot.resize_terminal(*size)
            await pilot.pause()


async def test_a_form_with_a_wrong_field_is_not_tried() -> None:
    app = ScreenApp(NewRunScreen("python-reference"))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "corpus" not in app.shown._field_problems)  # type: ignore[attr-defined]
        set_field(app, "steps", "0")
        await until(pilot, lambda: "steps" in app.shown._field_problems)  # type: ignore[attr-defined]
        await pilot.press("ctrl+r")
        await pilot.pause()
        assert app.screen is app.shown and not Finder.made
        assert app.shown.query_one("#steps").has_focus


def grown(*records: RateRecord) -> RateResult:
    result = RateResult()
    for record in records:
        result.add(record)
    return result


def column(rows: list[tuple[str, Any]], mark: str) -> list[tuple[int, int]]:
    return [(x, y) for y, (_, cells) in enumerate(rows[:-1]) for x, (char, _) in enumerate(cells) if char == mark]


def test_the_chart_marks_trials_of_both_rounds_divergence_and_the_pick() -> None:
    rows = drawn_rates(grown(*WIDE, *NEAR, PICK), 60, 15)
    assert len(rows) == 15 and all(len(cells) == 60 for _, cells in rows)
    wide, near, bad, pick = (column(rows, mark) for mark in "×o!┃")
    assert len(wide) == 3 and len(near) == 3 and len(bad) == 1
    assert bad[0][1] == 0 and bad[0][0] == max(x for x, _ in (*wide, *near, *bad))  # at the top, on the right
    lowest = max(near, key=lambda at: at[1])
    assert {x for x, _ in pick} == {lowest[0]}  # the pick's line goes through the lowest trial
    # equal ratios are equal distances: 1e-4 to 1e-3 as 1e-3 to 1e-2
    first, second, third = sorted(x for x, _ in wide)
    assert abs((second - first) - (third - second)) <= 1


@pytest.mark.parametrize("size", [(0, 0), (1, 1), (2, 2), (60, 1), (1, 20)])
def test_a_chart_of_any_size_is_drawn(size: tuple[int, int]) -> None:
    for result in (RateResult(), grown(WIDE[-1]), grown(*WIDE, *NEAR, PICK)):
        rows = drawn_rates(result, *size)
        assert len(rows) == size[1] and all(len(cells) == size[0] for _, cells in rows)


def test_a_loss_above_the_chart_is_marked_as_such() -> None:
    losses = ((1e-4, 9.0), (1e-3, 1.2), (2e-3, 1.0), (4e-3, 1.1), (8e-3, 1.3))
    rows = drawn_rates(grown(*(RateTrial(rate, 50, loss) for rate, loss in losses)), 60, 15)
    assert (
        column(rows, "↑") == [(min(x for mark in "×↑" for x, _ in column(rows, mark)), 0)]
        and len(column(rows, "×")) == 4
    )
