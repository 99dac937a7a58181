"""The Fine-tune screen on the real engine: type pairs, step, undo, save, open; hostile pairs; sizes."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from fake_engine import FakeEngine
from helpers import answered, drawn, make_app, unsafe, until

from tests import HANG
from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.engine import PipelineEngine
from tui_llm.instruments.sft.question import PairsFileQuestion, SftQuestion
from tui_llm.tui.app import LabApp
from tui_llm.tui.instruments.copy_saver import WRITING
from tui_llm.tui.instruments.sft.pairs import InstructionPairsScreen, PairsEditor
from tui_llm.tui.instruments.sft.sft import SftScreen
from tui_llm.tui.kit import progress
from tui_llm.tui.kit.ask import AskScreen


async def opened(pilot, app: LabApp, pairs: str) -> SftScreen:  # type: ignore[no-untyped-def]
    await answered(pilot, app.lab_screen)
    await pilot.press("escape", "I")
    await until(pilot, lambda: isinstance(app.screen, InstructionPairsScreen))
    app.screen.query_one(PairsEditor).set_text(pairs)
    await pilot.press("ctrl+s")
    await until(pilot, lambda: isinstance(app.screen, SftScreen) and app.screen.state is not None)
    assert isinstance(app.screen, SftScreen)
    return app.screen


async def test_type_step_undo_save_and_open() -> None:
    app = LabApp(lambda: PipelineEngine("cpu"), prompt="Once upon a time")
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot, app, "Who are you? => I am Tim.\nWhat is red? => A rose.")
        await pilot.pause()
        assert "0 steps" in "\n".join(drawn(app)) and "before" in "\n".join(drawn(app))
        await pilot.press("k")  # nothing to save yet
        assert app.screen is screen
        await pilot.press("space")
        await until(
            pilot, lambda: screen.state is not None and len(screen.state.losses) == 4 and not screen.progress.doing
        )
        assert screen.state is not None
        losses = screen.state.losses
        await pilot.pause()
        text = "\n".join(drawn(app))
        assert "after 4 steps" in text and "I·am" not in text and "rose" in text
        await pilot.press("u")
        await until(
            pilot, lambda: screen.state is not None and len(screen.state.losses) == 3 and not screen.progress.doing
        )
        assert screen.state.losses == losses[:3]
        await pilot.press("n", "space")  # 12 more
        await until(
            pilot, lambda: screen.state is not None and len(screen.state.losses) == 15 and not screen.progress.doing
        )
        assert screen.state.losses[:4] == losses
        assert [one.answer_after for one in screen.state.pairs] == ["I am Tim.", "A rose."]
        await pilot.press("y")
        assert app.clipboard.startswith("question\tid\ttoken\tloss_before\tloss_after\n")
        await pilot.press("k")
        await until(pilot, lambda: isinstance(app.screen, AskScreen))
        await pilot.press(*"tim", "enter")
        await until(pilot, lambda: screen.saver.folder == str(paths.models_dir() / "tim"))
        assert (paths.models_dir() / "tim" / "README.md").is_file()
        await pilot.press("o")
        await until(pilot, lambda: app.screen is app.lab_screen)
        await until(pilot, lambda: app.lab_screen.context.weights is not None and app.lab_screen.context.weights.name == "tim")  # fmt: skip


@pytest.mark.parametrize("size", [(80, 24), (30, 8)])
async def test_hostile_pairs_at_every_size(size: tuple[int, int], tmp_path: Path) -> None:
    app = LabApp(lambda: PipelineEngine("cpu"), prompt="Once upon a time")
    async with app.run_test(size=size) as pilot:
        screen = await opened(pilot, app, "[/]\x1b[31mred\u202e? => [red]\x1b]0;title\x07 no\u200d\n字 => é" + "x" * 40)
        screen.many = 1
        await pilot.press("space")
        await until(
            pilot, lambda: screen.state is not None and len(screen.state.losses) == 1 and not screen.progress.doing
        )
        await pilot.pause()
        lines = drawn(app)
        assert not unsafe(lines) and all(len(line) <= size[0] for line in lines)
        await pilot.press("f")
        await until(pilot, lambda: isinstance(app.screen, AskScreen))
        await pilot.press(*"nope", "enter")
        await until(pilot, lambda: screen.progress.problem)
        assert "nope" in screen.progress.problem and screen.state is not None
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, AskScreen))
        await pilot.press(*"nan", "enter")
        await until(pilot, lambda: app.screen is screen)
        assert screen.learning_rate == 5e-4
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.lab_screen)


async def test_pairs_that_do_not_fit_are_one_line_and_others_can_be_typed() -> None:
    app = LabApp(lambda: PipelineEngine("cpu"), prompt="Once upon a time")
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "I")
        await until(pilot, lambda: isinstance(app.screen, InstructionPairsScreen))
        app.screen.query_one(PairsEditor).set_text("word " * 300 + "=> x")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: isinstance(app.screen, SftScreen) and app.screen.progress.problem)
        await until(pilot, lambda: "shorten" in "\n".join(drawn(app)))
        await pilot.press("i")
        await until(pilot, lambda: isinstance(app.screen, InstructionPairsScreen))
        app.screen.query_one(PairsEditor).set_text("a =>")
        await pilot.press("ctrl+s")  # refused in the form: an empty answer
        assert isinstance(app.screen, InstructionPairsScreen)
        await pilot.press("escape", "escape")
        await until(pilot, lambda: app.screen is app.lab_screen)


async def test_esc_stops_what_is_waited_for_and_keeps_the_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SHOWN_AFTER", HANG)  # else a slow machine shows seconds too
    engine = FakeEngine()
    waiting, go_on = threading.Event(), threading.Event()

    def slow(question: object) -> object:
        waiting.set()
        assert go_on.wait(HANG)
        raise UserError("nobody waits for this")

    engine.answers |= {SftQuestion: slow, PairsFileQuestion: slow}
    app = make_app(engine)
    try:
        async with app.run_test(size=(100, 30)) as pilot:
            await answered(pilot, app.lab_screen)
            await pilot.press("escape", "I")
            await until(pilot, lambda: isinstance(app.screen, InstructionPairsScreen))
            app.screen.query_one(PairsEditor).set_text("a => b\nc => d")
            await pilot.press("ctrl+s")
            await until(pilot, waiting.is_set)
            screen = app.screen
            assert isinstance(screen, SftScreen)
            await until(pilot, lambda: "reading the pairs" in "\n".join(drawn(app)))
            await pilot.press("escape")
            await pilot.pause()
            assert app.screen is screen and not screen.progress.doing and len(screen.pairs) == 2
            assert "2 pairs, not read yet: Space" in "\n".join(drawn(app))
            for doing in ("reading the file", "undoing"):  # the first key stops it, whatever it is
                screen.progress.start(doing)
                await pilot.pause()
                assert f"{doing} … Esc stops" in "\n".join(drawn(app))
                await pilot.press("escape")
                assert app.screen is screen and not screen.progress.doing
            screen.progress.start(WRITING)  # nothing stops this: closing the screen does not either
            await pilot.pause()
            assert WRITING in "\n".join(drawn(app)) and "Esc stops" not in "\n".join(drawn(app))
            await pilot.press("escape")
            await until(pilot, lambda: app.screen is app.lab_screen)
            go_on.set()
    finally:
        go_on.set()
