"""A prompt that is longer than the model's context: every pane and screen says that the model sees its last tokens only."""

from __future__ import annotations

import pytest
from helpers import answered, drawn, make_app, until
from rich.cells import cell_len

from tui_llm.engine import PipelineEngine
from tui_llm.tui.app import LabApp
from tui_llm.tui.instruments.draws.draw import DrawScreen
from tui_llm.tui.kit.over import OverLab

LONG = "The" + " cat" * 299  # 300 tokens of nano, whose context is 256
FULL = "The" + " cat" * 255
SEES = "nano sees the last 256 of 300 tokens"
SCREENS = {
    "3 semicolon": "Why",
    "5 D": "The draw",
    "5 H": "draw many",
    "1 A": "Inside",
    "3 L": "Learn",
    "3 exclamation_mark": "Switch off",
    "2 T": "Temperatures",
    "5 T": "Tree",
}


def lab_app(prompt: str) -> LabApp:
    engine = PipelineEngine("cpu")
    return LabApp(lambda: engine, prompt=prompt)


async def test_every_pane_at_80_by_24() -> None:
    app = make_app(prompt="the cat " * 40)
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape")
        reading = app.lab_screen.reading
        assert reading is not None and reading.fed == 64 < len(reading.prompt_ids)
        for pane in "12345":
            await pilot.press(pane)
            await pilot.pause()
            lines = drawn(app)
            assert lines[0].startswith(f" nano sees the last 64 of {len(reading.prompt_ids)} tokens  2.6"), lines[0]
            assert {cell_len(line) for line in lines} == {80} and len(lines) == 24
        app.lab_screen.context.set_prompt("the cat")
        app.lab_screen.context.request_reading()
        await answered(pilot, app.lab_screen)
        assert "sees the last" not in "\n".join(drawn(app))


@pytest.mark.parametrize("keys", SCREENS)
async def test_every_screen_of_the_text(keys: str) -> None:
    app = lab_app(LONG)
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", *keys.split())
        await until(pilot, lambda: app.screen is not app.lab_screen)
        await until(pilot, lambda: "sees the last 256 of 300 tokens" in "\n".join(drawn(app)))
        assert {cell_len(line) for line in drawn(app)} == {80}, SCREENS[keys]


async def test_a_draw_before_the_context_was_full_saw_the_whole_text() -> None:
    app = lab_app(FULL)
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        assert lab.reading is not None and len(lab.reading.prompt_ids) == lab.reading.fed == 256
        await pilot.press("escape", "5", "g")
        await until(pilot, lambda: lab.reading is not None and len(lab.reading.prompt_ids) == 257)
        await answered(pilot, lab)
        await pilot.press("D")
        await until(pilot, lambda: isinstance(app.screen, DrawScreen))
        screen = app.screen
        assert isinstance(screen, OverLab)
        await pilot.press("left", "left", "right")
        await until(pilot, lambda: "sees the last 256 of 257" in "\n".join(drawn(app)))
        await pilot.press("left")
        await until(pilot, lambda: "sees the last" not in "\n".join(drawn(app)))


async def test_an_open_screen_follows_the_text() -> None:
    app = lab_app("The cat")
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "3", "semicolon")
        await until(pilot, lambda: isinstance(app.screen, OverLab))
        assert "sees the last" not in "\n".join(drawn(app))
        lab.context.set_prompt(LONG)
        lab.context.request_reading()
        await until(pilot, lambda: SEES in "\n".join(drawn(app)))
