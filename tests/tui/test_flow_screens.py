"""Lens grid, block and backward pass by keyboard, on the real engine; hostile text; every size."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from helpers import answered, drawn, make_app, text, unsafe, until
from textual.pilot import Pilot

from tui_llm.common.numbers import percent
from tui_llm.engine import PipelineEngine
from tui_llm.facts.interventions import LAYER, MEAN, Intervention, ModelPart
from tui_llm.facts.request import Target
from tui_llm.tui.app import LabApp
from tui_llm.tui.instruments.backward import BackwardScreen, heat
from tui_llm.tui.instruments.block import BlockScreen
from tui_llm.tui.instruments.inside.inside import InsideScreen
from tui_llm.tui.instruments.inside.lens import LensTable
from tui_llm.tui.instruments.lens_grid import LensGridScreen, rank_shade
from tui_llm.tui.kit import format as fmt

FlowScreen = BackwardScreen | BlockScreen | LensGridScreen
SCREENS = (BackwardScreen, BlockScreen, LensGridScreen)
TEXT = "Once upon a time, there was a little girl"


@asynccontextmanager
async def opened(
    key: str, prompt: str = TEXT, size: tuple[int, int] = (80, 24)
) -> AsyncIterator[tuple[Pilot[None], LabApp, FlowScreen]]:
    """The screen that `key` opens from Inside, with its answer."""
    app = make_app(PipelineEngine("cpu"), prompt)  # type: ignore[arg-type]
    async with app.run_test(size=size) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "A")
        await until(pilot, lambda: isinstance(app.screen, InsideScreen))
        await pilot.press("l", key)
        await until(pilot, lambda: isinstance(app.screen, SCREENS))
        screen = app.screen
        assert isinstance(screen, SCREENS)
        await until(pilot, lambda: screen.found is not None or screen.page.problem)
        yield pilot, app, screen


async def shown(pilot: Pilot[None], app: LabApp, *words: str) -> None:
    await until(pilot, lambda: all(word in text(app) for word in words))


async def test_the_lens_grid_by_keyboard() -> None:
    async with opened("g") as (pilot, app, screen):
        assert isinstance(screen, LensGridScreen) and screen.found is not None
        await shown(pilot, app, "token 10 of 10: ·girl", "after block 3, the model's prediction", "emb.")
        await pilot.press("left", "up", "up")
        await shown(pilot, app, "token 9 of 10: ·little", "after block 1: target ·girl")
        cell = screen.found.rows[2][8]
        assert screen.cell is cell and f"rank {cell.rank} " in text(app)
        await pilot.press("k")
        await shown(pilot, app, "colour: rank of the target", "≤ 100")
        await pilot.press("home")
        await shown(pilot, app, "token 1 of 10: Once")
        await pilot.press("up", "up", "up", "up", "left")
        await shown(pilot, app, "the embedding: target ·upon")
        await pilot.press("t")
        await until(pilot, lambda: any("no target is chosen" in str(note.message) for note in app._notifications))
        app.lab_screen.lab.choose_target(Target(text=" mat"))
        await pilot.press("t")
        await shown(pilot, app, "target ·mat")
        await pilot.press("end")
        await shown(pilot, app, "token 10 of 10: ·girl", "target ·mat")
        rows = list(screen.table())
        assert len(rows) == 1 + 10 * 5 and len({len(row) for row in rows}) == 1
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, InsideScreen))


async def test_one_key_switches_between_logit_and_tuned_lens() -> None:
    async with opened("g") as (pilot, app, screen):
        assert isinstance(screen, LensGridScreen)
        await shown(pilot, app, "logit lens · token 10 of 10: ·girl")
        await pilot.press("u")
        await shown(pilot, app, "tuned lens · token 10 of 10: ·girl")
        assert screen.found is not None and screen.found.tuned
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, InsideScreen))
        table = app.screen.query_one(LensTable)
        await shown(pilot, app, "Logit lens · the prediction if the model ended after this layer")
        assert {row[-1] for row in table.table()} == {"lens", "logit"}
        await pilot.press("u")
        await shown(pilot, app, "Tuned lens · the prediction, through a translator fitted to each layer ━")
        assert {row[-1] for row in table.table()} == {"lens", "tuned"}
        await pilot.press("g")  # the grid opens with the same lens
        await until(pilot, lambda: isinstance(app.screen, LensGridScreen))
        await shown(pilot, app, "tuned lens · token 10 of 10: ·girl")


async def test_a_model_without_a_tuned_lens_shows_its_logit_lens_and_says_how_to_fit_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tui_llm.llm.model.tuned_lens_file.NAME", "none.safetensors")

    def said(app: LabApp) -> int:
        return sum("tui-llm fit-lens TEXT … --model nano" in str(note.message) for note in app._notifications)

    async with opened("g") as (pilot, app, screen):
        assert isinstance(screen, LensGridScreen)
        await pilot.press("u")
        await until(pilot, lambda: said(app) == 1)
        await until(pilot, lambda: screen.found is not None and not screen.tuned and not screen.page.problem)
        await shown(pilot, app, "logit lens · token 10 of 10: ·girl")
        app.clear_notifications()
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, InsideScreen))
        await pilot.press("u")
        await until(pilot, lambda: said(app) == 1)
        await shown(pilot, app, "Logit lens · the prediction if the model ended after this layer")


async def test_the_lens_grid_scrolls_through_a_long_text() -> None:
    async with opened("g", " cat dog" * 100) as (pilot, app, _screen):
        await shown(pilot, app, "token 200 of 200")
        await pilot.press("home")
        await shown(pilot, app, "token 1 of 200: ·cat", "after block 3")
        await pilot.press(*["right"] * 12)
        await shown(pilot, app, "token 13 of 200")
        await pilot.press("end")
        await shown(pilot, app, "token 200 of 200: ·dog")


async def test_the_block_by_keyboard() -> None:
    async with opened("b", size=(80, 40)) as (pilot, app, screen):
        assert isinstance(screen, BlockScreen)
        await shown(pilot, app, "0 of 0 to 3, token 10 of 10: ·girl", "LayerNorm 1", "LayerNorm 2", "0.0 ", "0.3 ")
        await pilot.press("right_square_bracket", "right_square_bracket")
        await shown(pilot, app, "2 of 0 to 3", "2.3 ", "neurons are above 0 before GELU", "▲", "▼")
        await pilot.press("left")
        await shown(pilot, app, "token 9 of 10: ·little")
        assert screen.found is not None and screen.found.place.number == 8
        await pilot.press("left_square_bracket", "right", "right")
        await shown(pilot, app, "1 of 0 to 3, token 10 of 10")
        rows = list(screen.table())
        assert len(rows) > 100 and len({len(row) for row in rows}) == 1
        await pilot.press("b")
        await until(pilot, lambda: isinstance(app.screen, InsideScreen))


async def test_a_block_whose_layer_is_replaced_adds_up() -> None:
    app = make_app(PipelineEngine("cpu"), TEXT)  # type: ignore[arg-type]
    async with app.run_test(size=(110, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        app.lab_screen.context.intervene((Intervention(ModelPart(LAYER, 0), MEAN, (5, 6, 7)),))
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "A")
        await until(pilot, lambda: isinstance(app.screen, InsideScreen))
        await pilot.press("l", "b")
        await until(pilot, lambda: isinstance(app.screen, BlockScreen) and app.screen.found is not None)
        screen = app.screen
        assert isinstance(screen, BlockScreen) and screen.found is not None
        found, change = screen.found, screen.found.change
        assert change is not None and change.before == found.norms[0] != found.norms[1]
        start, end, added = (fmt.figures(one) for one in (found.norms[0], found.norms[1], change.added))
        assert fmt.figures(change.computed) not in (start, end)
        await shown(
            pilot, app, f"attention adds 0; ‖stream‖ is now {start}", f"with it, whose norm is {fmt.figures(change.computed)}",
            f"MLP adds 0; ‖stream‖ is now {start}", f"→ layer 0 at its mean adds {added}; ‖stream‖ is now {end}",
        )  # fmt: skip
        await pilot.press("right_square_bracket")  # nothing of this block is changed
        await until(pilot, lambda: screen.found is not None and screen.found.layer == 1)
        await until(pilot, lambda: "at its mean adds" not in text(app) and "still computed" not in text(app))


async def test_the_backward_pass_by_keyboard() -> None:
    async with opened("B", size=(80, 30)) as (pilot, app, screen):
        assert isinstance(screen, BackwardScreen) and screen.found is not None
        await shown(pilot, app, "of the loss on the target", "grad_norm", "query", "norms", "‖∂L/∂e‖", "Once")
        reading = app.lab_screen.context.reading
        assert reading is not None and reading.loss is not None
        assert screen.found.loss == pytest.approx(reading.loss.tokens[0].loss.nats, abs=1e-4)
        await pilot.press("o")
        await shown(pilot, app, "largest gradient first")
        norms = [one.norm for one in screen.ordered(screen.found)]
        assert norms == sorted(norms, reverse=True)
        await pilot.press("w")
        await shown(pilot, app, "the mean loss of 9 tokens of the text")
        rows = list(screen.table())
        assert len(rows) == 1 + len(screen.found.norms) + 9
        await pilot.press("B")
        await until(pilot, lambda: isinstance(app.screen, InsideScreen))


def line_of(app: LabApp, first: str) -> int:
    """The line of the screen whose first word is `first`."""
    return next(at for at, line in enumerate(drawn(app)) if line.split()[:1] == [first])


async def test_a_click_selects_a_cell_of_the_lens_grid() -> None:
    async with opened("g") as (pilot, app, screen):
        assert isinstance(screen, LensGridScreen)
        await shown(pilot, app, "token 10 of 10: ·girl")
        names = next(line for line in drawn(app) if "·little" in line and "·was" in line)
        await pilot.click(offset=(names.index("·little") + 2, line_of(app, "1")))
        await shown(pilot, app, "token 9 of 10: ·little", "after block 1: target ·girl")
        assert screen.cell is screen.found.rows[2][8]  # type: ignore[union-attr]
        await pilot.click(offset=(names.index("·was") + 1, line_of(app, "emb.")))
        await shown(pilot, app, "token 7 of 10: ·was", "the embedding: target ·a")
        await pilot.click(offset=(2, 1))  # the legend is no cell
        await shown(pilot, app, "token 7 of 10: ·was", "the embedding: target ·a")


async def test_a_cell_of_the_gradient_norms_is_selected_by_key_and_by_click() -> None:
    async with opened("B") as (pilot, app, screen):
        assert isinstance(screen, BackwardScreen) and screen.found is not None
        found = screen.found
        await shown(pilot, app, "selected: block 0, query: ", "% of grad_norm²")
        await pilot.press("right", "right", "down")
        await shown(pilot, app, "selected: block 1, value: ")
        head = next(line for line in drawn(app) if line.split()[:1] == ["block"])
        await pilot.click(offset=(head.index("down") + 3, line_of(app, "3")))
        await shown(pilot, app, "selected: block 3, MLP down: ")
        share = found.cell(3, "MLP down").norm ** 2 / found.grad_norm**2
        assert f"{percent(share)} of grad_norm²" in text(app)
        await pilot.press("down")
        await shown(pilot, app, "selected: final LayerNorm: ")
        line = next(line for line in drawn(app) if "position embedding" in line)
        await pilot.click(offset=(line.index("position embedding") + 3, drawn(app).index(line)))
        await shown(pilot, app, "selected: position embedding: ")
        await pilot.press("up", "left", "left", "left")
        await shown(pilot, app, "selected: block 3, query: ")


@pytest.mark.parametrize("key", ["g", "b", "B"])
async def test_hostile_text_at_every_size(key: str) -> None:
    async with opened(key, "[/]\x1b[31m \u202e[red] [link='x] \x07") as (pilot, app, screen):
        assert not unsafe(drawn(app))
        for size in ((1, 1), (10, 4), (40, 10), (200, 60)):
            await pilot.resize_terminal(*size)
            await pilot.press("left", "down")
            await pilot.pause()
            assert not unsafe(drawn(app))
        assert screen.found is not None


def test_shades() -> None:
    assert [rank_shade(rank) for rank in (1, 2, 3, 4, 10, 11, 100, 101)] == [4, 3, 3, 2, 2, 1, 1, 0]
    assert [heat(norm, 8.0) for norm in (8.0, 4.1, 3.9, 0.1, 0.0)] == [4, 4, 3, 0, 0]
