"""The other forms: an empty field shows no error until it is left or the form is submitted."""

from __future__ import annotations

import pytest
from test_runs_screen import UNSET, ScreenApp

from tui_llm.facts.sampler import SamplerSettings
from tui_llm.tui.instruments.sampler import SamplerScreen
from tui_llm.tui.instruments.sft.pairs import InstructionPairsScreen


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
