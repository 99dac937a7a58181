"""The other forms: an empty field shows no error until it is left or the form is submitted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fake_run
import pytest
from helpers import until, workers_done
from test_runs_screen import UNSET, ScreenApp

from tests import HANG
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.tui.instruments.sampler import SamplerScreen
from tui_llm.tui.instruments.sft.pairs import InstructionPairsScreen
from tui_llm.tui.runs import new_run
from tui_llm.tui.runs.branch import BranchScreen
from tui_llm.tui.runs.new_ladder import NewLadderScreen
from tui_llm.tui.runs.new_run import NewRunScreen
from tui_llm.tui.runs.run_form import RunForm


def a_branch() -> RunForm:
    run = fake_run.make("parent", done=20)
    return BranchScreen(run, 10, run.config())


@pytest.mark.parametrize(("make", "check"), [(a_branch, "_check"), (NewRunScreen, "_check_all")])
async def test_a_form_is_not_checked_anew_for_each_field_that_it_fills_in(
    make: Callable[[], RunForm], check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has some fifty fields, and each reports the text that it was given. A check takes as long as drawing a key."""
    monkeypatch.setattr(new_run, "SETTLE", HANG)  # the files, which are read later, are checked again
    form, checked = make(), 0
    known: Callable[[Any], None] = getattr(type(form), check)

    def counting(self: RunForm) -> None:
        nonlocal checked
        checked += 1
        known(self)

    monkeypatch.setattr(type(form), check, counting)
    app = ScreenApp(form)
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.pause()
        await workers_done(pilot)
        await pilot.pause()
        assert 0 < checked < 6
        form.query_one("#name").focus()
        await pilot.pause()  # a field that is left is checked
        checked = 0
        await pilot.press("x")
        assert checked == 1


@pytest.mark.parametrize("how", ["tab", "ctrl+s"], ids=["left", "submitted"])
async def test_an_emptied_setting_of_the_sampler(how: str) -> None:
    app = ScreenApp(SamplerScreen(SamplerSettings(temperature=0.8), {}))
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.press("end", "backspace", "backspace", "backspace")
        await pilot.pause()
        assert "✗" not in app.text
        await pilot.press(how)
        await pilot.pause()
        assert "✗ '' is not a number" in app.text and app.answer is UNSET


async def test_a_wrong_setting_of_the_sampler_is_said_while_it_is_typed() -> None:
    app = ScreenApp(SamplerScreen(SamplerSettings(temperature=0.8), {}))
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.press("end", "x")
        await pilot.pause()
        assert "✗ '0.8x' is not a number" in app.text


async def test_no_pairs_are_no_error_until_they_are_submitted() -> None:
    app = ScreenApp(InstructionPairsScreen(""))
    async with app.run_test(size=(100, 30)) as pilot:
        note = app.screen.query_one("#pairs-note")
        assert not note.has_class("-wrong") and "no pairs yet" in app.text
        await pilot.press("ctrl+s")
        await pilot.pause()
        assert note.has_class("-wrong") and app.answer is UNSET


@pytest.mark.parametrize(
    ("make", "stops"), [(a_branch, "Training"), (NewRunScreen, "Training"), (NewLadderScreen, "S on its")]
)
async def test_a_form_closed_while_it_starts_a_run_says_that_the_start_goes_on(
    make: Callable[[], RunForm], stops: str
) -> None:
    form = make()
    app = ScreenApp(form)
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.pause()
        form._starting = True
        await pilot.press("escape")
        await until(pilot, lambda: app.answer is not UNSET)  # type: ignore[arg-type]
        (note,) = app._notifications
        assert "is being started already" in note.message and stops in note.message


@pytest.mark.parametrize("measures", [False, True])
async def test_a_form_that_starts_nothing_or_only_measures_is_closed_silently(measures: bool) -> None:
    form = NewRunScreen()
    app = ScreenApp(form)
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.pause()
        if measures:  # of a time budget: closing the form cancels it, and the start
            form._starting, form.estimate.measurement = True, Measurement()  # type: ignore[assignment]
        await pilot.press("escape")
        await until(pilot, lambda: app.answer is not UNSET)  # type: ignore[arg-type]
        assert not app._notifications


class Measurement:
    def cancel(self) -> None:
        """It was not begun."""
