"""The Compare models screen on the real engine: nano beside itself, a model that does not open, sizes."""

from __future__ import annotations

import threading

import pytest
from fake_run import checkpoint, make
from helpers import answered, drawn, question_editor, unsafe, until, workers_done
from textual import events
from textual.keys import key_to_character

from tests import HANG
from tui_llm.engine import PipelineEngine
from tui_llm.training.run.run import Run
from tui_llm.tui.app import LabApp
from tui_llm.tui.instruments.compare_models import CompareModelsScreen
from tui_llm.tui.kit import key_order
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.kit.widgets.prompt import PromptEditor


@pytest.mark.parametrize("size", [(120, 40), (80, 24), (40, 12)])
async def test_two_models_side_by_side(size: tuple[int, int]) -> None:
    engine = PipelineEngine("cpu")
    app = LabApp(lambda: engine, prompt="Once upon a time")
    async with app.run_test(size=size) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "ampersand")
        await until(pilot, lambda: isinstance(app.screen, AskScreen))
        await pilot.press(*"nope", "enter")
        await until(pilot, lambda: isinstance(app.screen, CompareModelsScreen) and app.screen.problem)
        screen = app.screen
        assert isinstance(screen, CompareModelsScreen)
        assert "nope" in screen.problem and "m chooses" in " ".join(drawn(app))
        await pilot.press("m")
        await until(pilot, lambda: isinstance(app.screen, AskScreen))
        await pilot.press(*"nano", "enter")
        await until(pilot, lambda: screen.found is not None)
        await pilot.pause()
        lines = drawn(app)
        assert not unsafe(lines) and all(len(line) <= size[0] for line in lines)
        assert "A nano" in " ".join(lines) and "raw p" in " ".join(lines)
        if size[0] == 120:
            text = "\n".join(lines)
            assert "KL(A ‖ B) = 0.00 bits" in text and "B − A" in text and "(seed 1)" in text
            first = screen.found
            await pilot.press("r")
            await until(pilot, lambda: screen.found is not first)
            await until(pilot, lambda: "(seed 2)" in "\n".join(drawn(app)))
        await pilot.press("y")
        assert app.clipboard.startswith("what\ttext\tfirst\tsecond\n")
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.lab_screen)


async def test_the_newest_run_is_proposed_until_another_name_is_typed() -> None:
    checkpoint(make("trained", done=10), 10)
    app = LabApp(lambda: PipelineEngine("cpu"), prompt="Once upon a time")
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "ampersand")
        editor = await question_editor(pilot)
        await until(pilot, lambda: editor.text == editor.selected_text == "trained")  # read on a worker thread


async def test_the_runs_are_listed_off_the_ui_thread_and_never_replace_what_is_typed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go, threads = threading.Event(), list[threading.Thread]()

    def slow() -> Run:
        threads.append(threading.current_thread())
        go.wait(HANG)
        return make("slow", done=10)

    monkeypatch.setattr("tui_llm.training.run.snapshot.most_recent", slow)
    monkeypatch.setattr(Run, "checkpoints", lambda _run: [(10, None)])
    app = LabApp(lambda: PipelineEngine("cpu"), prompt="Once upon a time")
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        threads.clear()
        await pilot.press("escape", "V")
        await until(pilot, lambda: isinstance(app.screen, AskScreen) and threads)
        await pilot.press(*"nano")  # the screen listens while the runs are read
        asking = app.screen
        go.set()
        await workers_done(pilot)
        await pilot.pause()
        assert app.screen is asking and asking.query_one(PromptEditor).text == "nano"
        assert threading.main_thread() not in threads


@pytest.mark.parametrize("size", [(200, 60), (80, 24), (30, 10)])
async def test_three_models_and_two_weight_formats(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_order, "LOST_AFTER", HANG)  # no key is handled before the one in front of it
    app = LabApp(lambda: PipelineEngine("cpu"), prompt="Once upon a time")
    async with app.run_test(size=size) as pilot:
        await answered(pilot, app.lab_screen)
        for key in ("escape", "V", *"nano", "colon", *"int8", "enter"):  # in one read of the terminal
            app.post_message(events.Key(key, key if len(key) == 1 else key_to_character(key)))
        await until(pilot, lambda: isinstance(app.screen, CompareModelsScreen) and app.screen.found)
        screen = app.screen
        assert isinstance(screen, CompareModelsScreen)
        await pilot.press("a")
        await until(pilot, lambda: isinstance(app.screen, AskScreen))
        await pilot.press(*"nano", "enter")
        await until(pilot, lambda: screen.found is not None and len(screen.found.models) == 3)
        await pilot.pause()
        lines = drawn(app)
        assert not unsafe(lines) and all(len(line) <= size[0] for line in lines)
        if size[0] == 200:
            text = "\n".join(lines)
            assert "A nano, B nano, int8 and C nano" in text and "max − min" in text
            assert "KL(A ‖ C) = 0.00 bits" in text and "KL(C ‖ B)" in text
        await pilot.press("y")
        assert app.clipboard.startswith("what\ttext\tfirst\tsecond\tthird\n")
        await pilot.press("V")
        await until(pilot, lambda: app.screen is app.lab_screen)


async def test_a_cancelled_choice_says_what_to_do() -> None:
    engine = PipelineEngine("cpu")
    app = LabApp(lambda: engine, prompt="Once upon a time")
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "ampersand")
        await until(pilot, lambda: isinstance(app.screen, AskScreen))
        await pilot.press("escape")
        await until(pilot, lambda: "m chooses the model to compare with" in "\n".join(drawn(app)))
