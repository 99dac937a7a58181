"""A model or a checkpoint that is opened while a screen of another one is open: no screen mixes the numbers of two."""

from __future__ import annotations

from typing import Any

import pytest
from helpers import answered, until

from tests.byte_models import save_byte_model
from tui_llm.engine import PipelineEngine
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.tui.app import LabApp
from tui_llm.tui.instruments.ablate.ablate import AblateScreen
from tui_llm.tui.instruments.heads import HeadsScreen
from tui_llm.tui.instruments.patch.patch import PatchScreen
from tui_llm.tui.kit.ask import AskScreen

TEXT = "the cat sat. the cat"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Models of other shapes: three layers with four heads, and two layers with two."""
    top = tmp_path_factory.mktemp("models")
    shapes = GPTConfig(257, 64, layers=3, heads=4, width=16), GPTConfig(257, 64, layers=2, heads=2, width=8)
    first, second = (
        str(save_byte_model(top / name, shape)) for name, shape in zip(("first", "second"), shapes, strict=True)
    )
    return first, second


def names(screen: Any) -> set[str]:
    """The models whose numbers the screen shows; empty while it has none."""
    if isinstance(screen, PatchScreen):
        return {screen.grid.piece.weights.name} if screen.grid is not None and screen.grid.complete else set()
    if isinstance(screen, AblateScreen):
        done = screen.state is not None and screen.effects is not None and not screen.waiting
        return {screen.state.weights.name, screen.effects.weights.name} if done else set()  # type: ignore[union-attr]
    if isinstance(screen, HeadsScreen):
        return {screen.found.weights.name, screen.loss.weights.name} if screen.found and screen.loss else set()
    found = screen.why if hasattr(screen, "why") else screen.found
    return {found.weights.name} if found is not None else set()


@pytest.mark.parametrize(
    "keys",
    [("percent_sign",), ("exclamation_mark",), ("semicolon",), ("asterisk",), ("A", "g"), ("A", "b"), ("A", "B")],
    ids="+".join,
)
async def test_an_open_screen_asks_the_new_model(keys: tuple[str, ...], folders: tuple[str, str]) -> None:
    app = LabApp(lambda: PipelineEngine("cpu"), model=folders[0], prompt=TEXT)
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape")
        for key in keys:
            before = app.screen
            await pilot.press(key)
            await until(pilot, lambda before=before: app.screen is not before)
        if isinstance(app.screen, AskScreen):
            app.screen.dismiss("the dog sat. the cat")
            await until(pilot, lambda: isinstance(app.screen, PatchScreen))
        screen = app.screen
        await until(pilot, lambda: names(screen) == {"first"})
        if "b" in keys:
            await pilot.press("right_square_bracket", "right_square_bracket")  # a block that the other has not
        await pilot.press(*["down"] * 4, *["right"] * 9)
        lab.context.client.open(folders[1])
        await until(pilot, lambda: names(screen) == {"second"})
        await pilot.press("up", "left", "down", "right")
        await pilot.pause()
        if isinstance(screen, PatchScreen):
            grid = screen.grid
            assert grid is not None and len(grid.effects) == 3
            assert all(effect is not None for row in grid.effects for effect in row)
        if isinstance(screen, AblateScreen):
            assert (screen.grid.layers, screen.grid.heads, len(screen.found)) == (2, 2, 12)
