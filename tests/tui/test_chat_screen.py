"""The Chat screen on the real engine, with an instruct copy made in the test."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import answered, drawn, unsafe, until

from tui_llm.engine import PipelineEngine
from tui_llm.facts.request import Request
from tui_llm.instruments.sft.question import InstructQuestion
from tui_llm.llm.data.instruction_pairs import Pair
from tui_llm.tour.lesson_file import find, read
from tui_llm.tour.step import TOUR
from tui_llm.tui.app import LabApp
from tui_llm.tui.instruments.chat import ChatScreen
from tui_llm.tui.keymap import BY_ID
from tui_llm.tui.kit.ask import AskScreen


def instruct_copy(path: Path) -> Path:
    engine = PipelineEngine("cpu")
    engine.open("nano")
    engine.answer(InstructQuestion(Request(), (Pair("Who", "A small model."),), 6, name=str(path)))
    return path


@pytest.mark.parametrize("size", [(80, 24), (40, 12)])
async def test_an_answer_its_tokens_and_the_raw_text(tmp_path: Path, size: tuple[int, int]) -> None:
    engine = PipelineEngine("cpu")
    app = LabApp(lambda: engine, model=str(instruct_copy(tmp_path / "copy")), prompt="Once")
    async with app.run_test(size=size) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "at")
        await until(pilot, lambda: isinstance(app.screen, AskScreen))
        await pilot.press(*"Who", "enter")
        await until(pilot, lambda: isinstance(app.screen, ChatScreen) and app.screen.part and not app.screen.answering)
        screen = app.screen
        assert isinstance(screen, ChatScreen) and screen.answers[0][-1].ends
        await pilot.press("t")
        await pilot.pause()
        lines = drawn(app)
        assert not unsafe(lines) and all(len(line) <= size[0] for line in lines)
        if size[0] == 80:
            assert "A small model." in "\n".join(lines) and "ln raw p" in "\n".join(lines)
        await pilot.press("w")
        await pilot.pause()
        assert "fed to the model" in "\n".join(drawn(app)) and screen.part is not None
        assert screen.part.fed_text == "Who\n"
        await pilot.press("y")
        assert app.clipboard.startswith("answer\tid\ttext\t")
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.lab_screen)


@pytest.mark.parametrize("size", [(80, 24), (40, 12)])
async def test_a_special_token_typed_in_a_message_is_said_to_be_text(tmp_path: Path, size: tuple[int, int]) -> None:
    engine = PipelineEngine("cpu")
    app = LabApp(lambda: engine, model=str(instruct_copy(tmp_path / "copy")), prompt="Once")
    async with app.run_test(size=size) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "at")
        await until(pilot, lambda: isinstance(app.screen, AskScreen))
        await pilot.press(*"Who<|endoftext|>", "enter")
        await until(pilot, lambda: isinstance(app.screen, ChatScreen) and app.screen.part and not app.screen.answering)
        words = " ".join(" ".join(drawn(app)).split())
        assert "<|endoftext|> in a message is fed as plain text, not as the special token" in words
        assert not unsafe(drawn(app)) and all(len(line) <= size[0] for line in drawn(app))


async def test_stopping_an_answer_keeps_the_screen_open(tmp_path: Path) -> None:
    engine = PipelineEngine("cpu")
    app = LabApp(lambda: engine, model=str(instruct_copy(tmp_path / "copy")), prompt="Once")
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "at")
        await until(pilot, lambda: isinstance(app.screen, AskScreen))
        await pilot.press(*"Once upon", "enter")
        await until(pilot, lambda: isinstance(app.screen, ChatScreen))
        screen = app.screen
        assert isinstance(screen, ChatScreen)
        await pilot.press("ctrl+c", "x")
        await until(pilot, lambda: not screen.answering)
        assert app.screen is screen and app.is_running


async def test_a_base_model_is_refused_with_what_to_do() -> None:
    engine = PipelineEngine("cpu")
    app = LabApp(lambda: engine, prompt="Once upon a time")
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "at")
        await until(pilot, lambda: any("it is a base model" in one.message for one in app._notifications))
        assert app.screen is app.lab_screen
        (said,) = (one for one in app._notifications if "it is a base model" in one.message)
        steps = read(find(TOUR)).steps
        (at,) = (
            at for at, step in enumerate(steps) if any(part.ask and part.ask.form == "pairs" for part in step.parts)
        )
        assert f"step {at + 1} of the tour, “{steps[at].title}”" in said.message
        assert f"{BY_ID['sft'].key_text} fine-tunes a copy" in said.message
        assert said.timeout >= len(said.message) / 20  # characters a second; a quick reader's
