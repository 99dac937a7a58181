"""The draw on the screen: where u lands, replay under other settings, many draws, hostile tokens, failures."""

from __future__ import annotations

import pytest
from draw_helpers import answer_draw, draw_tokens, make_engine
from helpers import answered, drawn, make_app, unsafe, until
from rich.cells import cell_len

from tui_llm.facts.request import Request
from tui_llm.instruments.draws.question import Draw, DrawQuestion, HistogramQuestion
from tui_llm.tui.instruments.draws.draw import DrawScreen
from tui_llm.tui.instruments.draws.draw_lines import owners
from tui_llm.tui.instruments.draws.draw_many import DrawManyScreen
from tui_llm.tui.lab.panes.generate import GeneratePane

# ── the draw ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_draw_and_its_replay() -> None:
    engine = make_engine()
    app = make_app(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "5")
        await draw_tokens(pilot, lab, 2)
        await pilot.press("left", "D")
        await until(pilot, lambda: isinstance(app.screen, DrawScreen) and app.screen.draw)
        screen = app.screen
        assert isinstance(screen, DrawScreen) and screen.draw is not None
        first = lab.lab.steps[0]
        assert screen.draw.u == first.u and screen.draw.landings[0].hit.candidate.id == first.id
        text = "\n".join(drawn(app))
        assert f"u = {first.u:.4f}" in text and "token 1 of 2" in text and "▲" in text and "drawn: T=0.8" in text

        async def press(key: str) -> Draw:
            asked = len(engine.questions)
            await pilot.press(key)
            await until(pilot, lambda: len(engine.questions) > asked and not screen.waiting)
            assert screen.draw is not None
            return screen.draw

        assert (await press("right_square_bracket")).landings[1].sampler.temperature == 1.6
        assert (await press("left_square_bracket")).landings[1].sampler.temperature == 1.5
        assert (await press("left_curly_bracket")).landings[1].sampler.top_p == 0.85
        assert (await press("right_curly_bracket")).landings[1].sampler.top_p == 0.9
        assert (await press("minus")).u == pytest.approx(max(0.0, first.u - 0.01), abs=1e-4)
        assert "tried: T=0.8" in "\n".join(drawn(app))
        assert (await press("plus")).u == pytest.approx(first.u, abs=1e-4)
        assert (await press("r")).u == first.u
        assert (await press("right")).u == lab.lab.steps[1].u
        await press("right")
        question = engine.questions[-1]
        assert isinstance(question, DrawQuestion)
        assert question.u is None and question.index == 2 and question.seed == lab.lab.seed
        assert question.request.continuation == lab.lab.continuation and "the next token" in "\n".join(drawn(app))
        await pilot.press("right")
        assert screen.index == 2
        await pilot.press("y")
        assert app.clipboard.startswith("id\tbytes\ttext\tnext (T=0.8")
        assert app.clipboard.count("\tu") >= 2
        await pilot.press("escape")
        await pilot.pause()
        assert app.screen is lab


@pytest.mark.parametrize("size", [(1, 1), (80, 24)])
async def test_hostile_tokens_in_the_draw_and_the_histogram(size: tuple[int, int]) -> None:
    engine = make_engine(hostile=True)
    engine.logits = lambda ids: [9.0 - 0.3 * id if id < 12 else -9.0 for id in range(1000)]  # type: ignore[method-assign]
    app = make_app(engine)
    async with app.run_test(size=size) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        pane = lab.query_one(GeneratePane)
        pane.action_show_draw()
        await until(pilot, lambda: isinstance(app.screen, DrawScreen) and app.screen.draw)
        await pilot.pause()
        assert not unsafe(drawn(app)) and all(cell_len(line) == size[0] for line in drawn(app))
        await pilot.press("escape")
        pane.action_draw_many()
        await until(pilot, lambda: isinstance(app.screen, DrawManyScreen) and not app.screen.waiting)
        await pilot.pause()
        assert not unsafe(drawn(app)) and all(cell_len(line) == size[0] for line in drawn(app))
        if size == (120, 40):
            assert any("[red]x" in line for line in drawn(app))


def test_each_cell_of_the_bar_belongs_to_the_token_at_its_middle() -> None:
    engine = make_engine()
    engine.open("nano")
    request = Request(prompt="The cat sat on the")
    question = DrawQuestion(request, (request.sampler,), 0.999)
    (landing,) = answer_draw(engine, question).landings
    cells = owners(landing, 0.999, 50)
    assert cells[-1] == landing.hit.place
    for cell, place in enumerate(cells[:-1]):
        holder = next((s.place for s in landing.segments if s.start <= (cell + 0.5) / 50 < s.stop), None)
        assert place == holder
    assert owners(landing, 0.5, 0) == []


async def test_a_failed_draw_is_one_line() -> None:
    from tui_llm.common.errors import UserError

    engine = make_engine()

    def fail(_question: DrawQuestion) -> Draw:
        raise UserError("there is nothing [/] to draw\x1b from")

    engine.answers[DrawQuestion] = fail
    app = make_app(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "5", "D")
        await until(pilot, lambda: isinstance(app.screen, DrawScreen) and app.screen.problem)
        assert "there is nothing [/] to draw␛ from" in drawn(app)[0]
        await pilot.press("y")


# ── many draws ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_many_draws() -> None:
    engine = make_engine()
    app = make_app(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "5")
        await draw_tokens(pilot, lab, 1)
        await pilot.press("H")
        await until(pilot, lambda: isinstance(app.screen, DrawManyScreen) and not app.screen.waiting)
        screen = app.screen
        assert isinstance(screen, DrawManyScreen)

        async def press(key: str) -> HistogramQuestion:
            asked = len(engine.questions)
            await pilot.press(key)
            await until(pilot, lambda: len(engine.questions) > asked and not screen.waiting)
            found = engine.questions[-1]
            assert isinstance(found, HistogramQuestion)
            return found

        text = "\n".join(drawn(app))
        assert "1,000 draws at T=0.8, top-p 0.9" in text and "χ² = 12.5" in text and "┃" in text
        assert "−3.5!" in text and "± 3.2" in text
        assert (await press("plus")).count == 10_000
        assert (await press("equals_sign")).count == 100_000
        for count in (10_000, 1_000, 100, 10):
            assert (await press("minus")).count == count
        assert (await press("right_square_bracket")).request.sampler.temperature == 0.9
        assert (await press("left_square_bracket")).request.sampler.temperature == 0.8
        assert (await press("left_curly_bracket")).request.sampler.top_p == 0.85
        assert (await press("right_curly_bracket")).request.sampler.top_p == 0.9
        assert (await press("left")).request.continuation == ()
        assert (await press("right")).request.continuation == lab.lab.continuation
        await press("r")
        await pilot.press("y")
        assert app.clipboard.startswith("id\tbytes\ttext\tprobability\tdrawn") and "7 others" in app.clipboard
        await pilot.press("q")
        await pilot.pause()
        assert app.screen is lab
