"""The Patch and the Steer screen in the real app, on nano."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_engine import HOSTILE, FakeEngine
from helpers import answered, drawn, make_app, unsafe, until
from textual.pilot import Pilot

from tests import HANG
from tui_llm.common.errors import Overtaken
from tui_llm.engine import PipelineEngine
from tui_llm.facts.interventions import ATTENTION, PATCH, RESIDUAL, STEER, Intervention, ModelPart
from tui_llm.facts.request import Question, Request
from tui_llm.instruments.patch.question import PatchCell, PatchGrid, PatchPiece, PatchQuestion
from tui_llm.tui.app import LabApp
from tui_llm.tui.instruments.patch.grid import mark
from tui_llm.tui.instruments.patch.patch import PatchScreen
from tui_llm.tui.instruments.steer import SteerScreen
from tui_llm.tui.kit.ask import AskScreen

CLEAN, CHANGED = "Tom and Lily went out. Tom gave the ball to", "Tom and Lily went out. Lily gave the ball to"


def nano(prompt: str) -> LabApp:
    return LabApp(lambda: PipelineEngine("cpu"), model="nano", prompt=prompt)


async def typed(app: LabApp, pilot: Pilot[None], text: str) -> None:
    """Types into the form that is open, and confirms."""
    await until(pilot, lambda: isinstance(app.screen, AskScreen) and app.screen.query("#answer"))
    app.screen.dismiss(text)
    await pilot.pause()


def text_of(app: LabApp) -> str:
    return "\n".join(drawn(app))


async def test_a_grid_by_key_and_enter_patches_every_pane() -> None:
    app = nano(CHANGED)
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        plain = lab.reading.distribution  # type: ignore[union-attr]
        await pilot.press("escape", "percent_sign")
        await typed(app, pilot, CLEAN)
        screen = app.screen
        assert isinstance(screen, PatchScreen)
        await until(pilot, lambda: screen.grid is not None and screen.grid.complete)
        grid = screen.grid
        assert grid is not None
        wanted = PatchGrid(whole_grid(screen))
        assert grid.effects == [pytest.approx(row, abs=1e-4) for row in wanted.effects]
        assert "≠" in text_of(app) or "Tom" in text_of(app)
        await pilot.press("p")
        await until(pilot, lambda: screen.grid is not None and screen.grid.piece.kind == ATTENTION)
        await pilot.press("p", "p")
        await until(pilot, lambda: screen.grid is not None and screen.grid.complete and screen.grid.piece.kind == RESIDUAL)  # fmt: skip
        await until(pilot, lambda: any(line.split()[:1] == ["4"] for line in drawn(app)))
        lines = drawn(app)
        head, row = (next(at for at, line in enumerate(lines) if line.split()[:1] == [name]) for name in ("clean", "1"))
        await pilot.click(offset=(lines[head].index("·Tom") + 1, row))
        differing = next(at for at in range(len(grid.piece.tokens)) if grid.piece.differs(at))
        assert (screen.lines.cursor, screen.lines.column) == (1, differing)
        screen.lines.go_to(0, next(at for at in range(len(grid.piece.tokens)) if grid.piece.differs(at)))
        await pilot.press("n", "v", "v", "enter")
        await until(pilot, lambda: app.screen is lab)
        await answered(pilot, lab)
        (patch,) = lab.lab.interventions
        assert patch.how == PATCH and patch.part.layer == 0
        made = lab.reading.distribution  # type: ignore[union-attr]
        logits = {row.id: row.logit for row in made.candidates}  # type: ignore[union-attr]
        target, rival = grid.piece.target.id, grid.piece.rival.id
        assert logits[target] - logits[rival] == pytest.approx(grid.piece.clean, abs=1e-3)
        assert made != plain


def whole_grid(screen: PatchScreen) -> PatchPiece:
    engine = PipelineEngine("cpu")
    engine.open("nano")
    return engine.answer(PatchQuestion(screen.request, screen.context.lab.clean_prompt))


async def test_a_coefficient_without_a_direction_names_the_key_that_opens_steer() -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "5", "plus")
        await until(pilot, lambda: any("opens Steer" in one.message for one in app._notifications))
        (line,) = [one.message for one in app._notifications if "opens Steer" in one.message]
        await pilot.press(line.partition(" opens Steer")[0][-1])
        await until(pilot, lambda: isinstance(app.screen, SteerScreen))


async def test_a_direction_by_key_saved_loaded_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    app = nano("The dog was")
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "colon")
        await until(pilot, lambda: isinstance(app.screen, SteerScreen))
        screen = app.screen
        assert isinstance(screen, SteerScreen)
        await pilot.press("enter", "w")  # there is no direction yet
        assert app.screen is screen
        await pilot.press("t")
        await typed(app, pilot, "Lily was so happy")
        await pilot.press("a")
        await typed(app, pilot, "Lily was so sad")
        await until(pilot, lambda: screen.found is not None)
        assert "before block 2" in text_of(app) and "steered" in text_of(app)
        await pilot.press("plus", "left_square_bracket")
        await until(pilot, lambda: screen.found is not None and screen.found.direction.layer == 1)
        assert screen.found is not None and screen.found.coefficient == 1.5
        await pilot.press("w")
        file = tmp_path / "happy.safetensors"
        await typed(app, pilot, str(file))
        await until(pilot, file.is_file)
        await pilot.press("o")
        await typed(app, pilot, str(file))
        await until(pilot, lambda: screen.found is not None and screen.found.direction.file == str(file))
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is lab)
        await answered(pilot, lab)
        (one,) = lab.lab.interventions
        assert one.how == STEER and one.coefficient == 1.5 and one.file == str(file)


class Busy(PipelineEngine):
    """Reads only while `gate` is set."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.gate = threading.Event()
        self.gate.set()

    def read(self, request, overtaken=lambda: False):  # type: ignore[no-untyped-def]
        self.gate.wait(HANG)
        return super().read(request, overtaken)


async def test_two_directions_that_are_saved_while_the_engine_is_busy_are_both_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    engine = Busy()
    app = LabApp(lambda: engine, model="nano", prompt="The dog was")
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "colon")
        await until(pilot, lambda: isinstance(app.screen, SteerScreen))
        screen = app.screen
        assert isinstance(screen, SteerScreen)
        await pilot.press("t")
        await typed(app, pilot, "happy")
        await pilot.press("a")
        await typed(app, pilot, "sad")
        await until(pilot, lambda: screen.found is not None)
        engine.gate.clear()
        screen.context.request_reading()
        files = [tmp_path / f"{name}.safetensors" for name in ("first", "second")]
        for file in files:
            await pilot.press("w")
            await typed(app, pilot, str(file))
        engine.gate.set()
        await until(pilot, lambda: any("second" in one.message for one in app._notifications))
        assert all(file.is_file() for file in files)


class Recorded(FakeEngine):
    """Records the coefficient with which each token is drawn; from token 4 on it waits for `go`."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.coefficients: list[float] = []

    def generate(self, request: Request, *, seed: int, start: int, count: int, stop: Any = lambda: False) -> Any:
        while start >= 4 and not self.go.wait(0.001) and not stop():
            pass
        self.coefficients.append(request.interventions[0].coefficient)
        return super().generate(request, seed=seed, start=start, count=count, stop=stop)


async def test_a_stream_goes_on_with_the_new_coefficient() -> None:
    engine = Recorded()
    app = make_app(engine)
    async with app.run_test(size=(100, 30)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "5", "plus")
        assert not lab.lab.interventions  # nothing is steered yet
        lab.lab.intervene((Intervention(ModelPart(RESIDUAL, 2), STEER, (1,), (2,), coefficient=1.0),))
        await pilot.press("space")
        await until(pilot, lambda: len(engine.coefficients) == 4)
        await pilot.press("plus", "plus")
        engine.go.set()
        await until(pilot, lambda: len(engine.coefficients) > 8)
        assert engine.coefficients[:4] == [1.0] * 4 and engine.coefficients[6:8] == [2.0] * 2
        await pilot.press("minus", "escape")
        await until(pilot, lambda: lab.lab.interventions[0].coefficient == 1.5)  # the stream keeps the app busy


async def test_a_damaged_file_is_said_in_a_line(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"\x1b]0;[/]\x07" * 20)
    app = nano("The dog was")
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "colon", "o")
        await typed(app, pilot, str(file))
        screen = app.screen
        assert isinstance(screen, SteerScreen)
        await until(pilot, lambda: screen.problem)
        await until(pilot, lambda: "can't be read as a steering" in text_of(app))
        assert not unsafe(drawn(app))


class Slow(FakeEngine):
    """Answers pieces of a grid until it is interrupted."""

    def __init__(self) -> None:
        super().__init__(hostile=True)
        self.started, self.stopped = threading.Event(), threading.Event()

    def answer(self, question: Question, overtaken: Callable[[], bool] = lambda: False) -> Any:
        if not isinstance(question, PatchQuestion):
            return super().answer(question, overtaken)
        if question.known:
            self.started.set()
            while not overtaken():
                self.stopped.wait(0.001)
            self.stopped.set()
            raise Overtaken
        assert self.weights is not None
        tokens = tuple(dataclasses.replace(self.token(at), text=text) for at, text in enumerate(HOSTILE))
        cells = tuple(PatchCell(layer, token, float(token - 4)) for layer in range(3) for token in range(6))
        return PatchPiece(
            self.weights, RESIDUAL, tokens, (None, *tokens[::-1][1:]), (0, 1, 2, 3), tokens[0], tokens[1], 4.0, 0.0,
            tuple(range(len(tokens) - 1)), (0, 3), cells, 1, 3,
        )  # fmt: skip


@pytest.mark.parametrize("key", ["escape", "space"])
async def test_computing_stops_by_key(key: str) -> None:
    engine = Slow()
    app = make_app(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "percent_sign")
        await typed(app, pilot, "[red]clean\x1b")
        await until(pilot, engine.started.is_set)
        screen = app.screen
        assert isinstance(screen, PatchScreen)
        await until(pilot, lambda: "33 % computed" in text_of(app))
        for size in ((120, 40), (200, 60), (20, 5), (1, 1), (80, 24)):
            await pilot.resize_terminal(*size)
            await pilot.press("v", "n", "left", "right", "m")
            assert not unsafe(drawn(app))
        await pilot.press("left", "left")
        await pilot.press(key)
        await until(pilot, engine.stopped.is_set)
        if key == "space":
            assert "stopped" in text_of(app) and screen.grid is not None
            screen.lines.go_to(0, 0)
            await pilot.press("enter")  # no token of the clean prompt is aligned with it
            assert app.screen is screen and not app.lab_screen.lab.interventions
        else:
            assert app.screen is app.lab_screen


def test_a_cell_has_a_sign_without_colours() -> None:
    signs = [mark(share, True, True) for share in (None, 0.0, 0.02, 0.5, 2.0, -0.02, -0.5)]
    assert signs == [" ", " ", "░", "█", "█", "·", "#"]
    assert mark(1.0, True, False) == "×" and mark(None, False, True) == "?"
