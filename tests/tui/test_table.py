"""The logits table: stages, the whole vocabulary, search, orders, what-if, choosing a token by hand, the sampler."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
from fake_engine import VOCABULARY, FakeEngine
from helpers import answered, drawn, make_app, text, unsafe, until
from textual.pilot import Pilot

from tui_llm.common.errors import UserError
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.instruments.temperatures.question import TemperatureColumn, Temperatures, TemperaturesQuestion
from tui_llm.tui.app import LabApp
from tui_llm.tui.instruments.sampler import SETTINGS, SamplerScreen, parsed
from tui_llm.tui.instruments.temperatures import TemperaturesScreen
from tui_llm.tui.kit.widgets.vocab_columns import stage_columns, stage_pages, total
from tui_llm.tui.lab.candidate_table import new_logit
from tui_llm.tui.lab.panes.logits import LogitsPane
from tui_llm.tui.state.lab import Lab, further


async def ready(app: LabApp, pilot: Pilot[None]) -> LogitsPane:
    lab = app.lab_screen
    await answered(pilot, lab)
    await until(pilot, lambda: lab.reading is not None and lab.reading.loss is not None)
    await pilot.press("escape", "2")
    await pilot.pause()
    return app.lab_screen.query_one(LogitsPane)


async def typed(pilot: Pilot[None], line: str) -> None:
    """Answers the dialog that asks for a line."""
    await until(pilot, lambda: pilot.app.screen.query("#answer"))
    editor = pilot.app.screen.query_one("#answer")
    editor.set_text(line)  # type: ignore[attr-defined]
    await pilot.press("enter")
    await pilot.pause()


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_stages_one_after_another_with_their_sums(size: tuple[int, int]) -> None:
    app = make_app()
    async with app.run_test(size=size) as pilot:
        pane = await ready(app, pilot)
        seen: set[str] = set()
        assert "Σ all 1,000" in text(app) and " shown" in text(app) and "choices" in text(app)
        pages = 0
        for _ in range(9):
            await pilot.press("C")
            await pilot.pause()
            if not pane.stage:
                break
            seen |= {column.what for column in pane._columns}
            pages += 1
            on = "C: next page" if pane.stage < pane.stages else "C: back"
            page = f"stages, page {pane.stage} of {pane.stages}" if pane.stages > 1 else "stages"
            assert f"2 Logits & softmax · {page} · {on}" in text(app)
            assert "so that no e^x overflows" in text(app).replace("┃", "")
            assert sum(line.count("100.0 %") for line in drawn(app)) >= 1
        assert seen == {"token", "logit", "scaled", "numerator", "tempered", "cut", "p"}
        assert pane.stage == 0, "after the last page comes the overview"
        assert "softmax ━" in text(app) and pages == (2 if size == (120, 40) else 1)


def test_pages_of_stages_overlap_and_fit() -> None:
    for settings in (SamplerSettings(), SamplerSettings(repetition_penalty=1.2)):
        names = [column.what for column in stage_columns(settings)]
        for width in (1, 5, 20, 36, 50, 58, 74, 120):
            pages = [[c.what for c in page][1:] for page in stage_pages(width, settings)]
            joined = pages[0] + [name for page in pages[1:] for name in page[1:]]
            assert joined == names
            assert all(a[-1] == b[0] for a, b in itertools.pairwise(pages))
            assert all(total(page) <= max(width, 36) for page in stage_pages(width, settings))


async def test_every_row_of_the_vocabulary_can_be_scrolled_to() -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        pane = await ready(app, pilot)
        assert pane.row_count(80) == VOCABULARY + 1, "and the cut"
        await pilot.press("end")
        await until(pilot, lambda: pane.selected is not None)
        assert pane.selected is not None and pane.selected.rank == VOCABULARY
        assert all(pane.candidate_at(index) is not None for index in pane.in_sight)
        for _ in range(3):
            await pilot.press("pageup")
        await until(pilot, lambda: all(pane.candidate_at(index) for index in pane.in_sight))
        ranks = [row.rank for index in pane.in_sight if (row := pane.candidate_at(index))]
        assert ranks == sorted(ranks) and VOCABULARY - 100 < ranks[0] < VOCABULARY - 20


async def test_orders_keep_the_cursors_token() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        pane = await ready(app, pilot)
        await pilot.press("down", "down")
        row = pane.selected
        assert row is not None
        for order in ("id", "text", "length", "probability"):
            await pilot.press("O")
            await until(pilot, lambda order=order: pane.order == order and pane.selected is not None)
            await until(pilot, lambda: pane.selected is not None and pane.selected.id == row.id)
            shown = [found for index in pane.in_sight if (found := pane.candidate_at(index))]
            if order == "id":
                assert [found.id for found in shown] == sorted(found.id for found in shown)
                assert "order: by id" in text(app)


async def test_find_by_text_and_by_id_and_find_next() -> None:
    app = make_app(FakeEngine(hostile=True))
    async with app.run_test(size=(80, 24)) as pilot:
        pane = await ready(app, pilot)
        await pilot.press("F")
        await typed(pilot, "w99")
        await until(pilot, lambda: pane.search_words != "")
        assert "match 1 of 11" in text(app)
        await until(pilot, lambda: pane.selected is not None)
        first = pane.selected
        assert first is not None and "w99" in first.text
        await pilot.press("N")
        await until(pilot, lambda: "match 2 of 11" in pane.search_words)
        await until(pilot, lambda: pane.selected is not None and pane.selected.id != first.id)
        await pilot.press("F")
        await typed(pilot, "#4")
        await until(pilot, lambda: pane.selected is not None and pane.selected.id == 4)
        await pilot.press("F")
        await typed(pilot, "[/]\x1b[31m\u202e")
        await until(pilot, lambda: "no token matches" in pane.search_words)
        assert not unsafe(drawn(app))


async def test_what_if_applies_everywhere_and_is_marked_until_undone() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        pane, lab = await ready(app, pilot), app.lab_screen
        await pilot.press("home", "enter")
        await answered(pilot, lab)
        await pilot.press("down", "down")
        row, loss = pane.selected, lab.reading.loss.sum  # type: ignore[union-attr]
        assert row is not None
        await pilot.press("e")
        await typed(pilot, "20")
        await answered(pilot, lab)
        assert lab.reading.distribution.candidates[0].id == row.id  # type: ignore[union-attr]
        assert lab.reading.loss.sum > loss + 3  # type: ignore[union-attr]
        assert "what if: 1 logit changed" in drawn(app)[0], "in the top line"
        assert sum("what if: 1 logit changed" in line for line in drawn(app)) == 2, "and in the pane"
        await pilot.press("home")
        await pilot.press("e")
        await typed(pilot, "-1")
        await answered(pilot, lab)
        assert lab.lab.overrides == ((row.id, 19.0),)
        await pilot.press("e")
        await typed(pilot, "[/]")
        await pilot.pause()
        assert lab.lab.overrides == ((row.id, 19.0),)
        await pilot.press("E")
        await answered(pilot, lab)
        assert lab.reading.loss.sum == loss and "what if:" not in text(app)  # type: ignore[union-attr]


@pytest.mark.parametrize("how", ["type", "draw", "append", "model"])
async def test_changed_logits_are_dropped_when_the_text_changes_and_that_is_reported(how: str) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(app, pilot)
        lab = app.lab_screen
        await pilot.press("e")
        await typed(pilot, "20")
        await answered(pilot, lab)
        assert lab.lab.overrides
        if how == "type":
            await pilot.press("i", "x")
        elif how == "model":
            lab.models.open("small")
        else:
            await pilot.press("g" if how == "draw" else "a")
        await until(pilot, lambda: not lab.lab.overrides)
        await until(pilot, lambda: any("dropped" in note.message for note in app._notifications))
        await answered(pilot, lab)
        assert lab.reading.request.overrides == ()  # type: ignore[union-attr]


async def test_a_token_chosen_by_hand_is_appended_with_its_own_reading() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        pane, lab = await ready(app, pilot), app.lab_screen
        await pilot.press("down", "down", "down")
        row = pane.selected
        assert row is not None
        await pilot.press("a")
        await answered(pilot, lab)
        step = lab.lab.steps[-1]
        assert (step.id, step.u, step.by_hand) == (row.id, None, True)
        assert step.candidates[0] == pane_first(step) and lab.reading.request.continuation == (row.id,)  # type: ignore[union-attr]
        assert "by hand" in text(app)


def pane_first(step: object) -> object:
    return step.candidates[0]  # type: ignore[attr-defined]


async def test_sampler_keys_and_form() -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        pane, lab = await ready(app, pilot), app.lab_screen
        await pilot.press("left_parenthesis", "greater_than_sign")
        assert (lab.lab.sampler.top_k, lab.lab.sampler.min_p) == (1000, 0.01)
        await pilot.press("right_parenthesis", "less_than_sign", "K")
        await pilot.pause()
        assert (lab.lab.sampler.top_k, lab.lab.sampler.min_p) == (0, 0.0)
        form = app.screen
        assert isinstance(form, SamplerScreen)
        form.query_one("#top_p").value = "7[/]"  # type: ignore[attr-defined]
        form.query_one("#repetition_penalty-on").value = True  # type: ignore[attr-defined]
        form.query_one("#temperature-on").value = False  # type: ignore[attr-defined]
        await pilot.press("ctrl+s")
        await pilot.pause()
        assert app.screen is form and "is not a number" in text(app), "a wrong value says why, and stays"
        form.query_one("#top_p").value = "0.5"  # type: ignore[attr-defined]
        await pilot.press("ctrl+s")
        await pilot.pause()
        assert lab.lab.sampler == SamplerSettings(1.0, 0, 0.5, 0.0, 1.2)
        assert lab.lab.switched_off["temperature"] == 0.8, "what is switched off is remembered"
        await answered(pilot, lab)
        assert "rep 1.2" in text(app)
        await pilot.press("C")
        await pilot.pause()
        assert pane.stage == 1 and "penalised" in text(app)


async def test_the_form_says_how_generate_differs_and_takes_its_settings() -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        _, lab = await ready(app, pilot), app.lab_screen
        await pilot.press("K")
        await until(pilot, lambda: isinstance(app.screen, SamplerScreen))
        await pilot.pause()
        shown = " ".join(text(app).replace("│", " ").split())
        assert "generate's top-p is of what top-k left" in shown and "generate has top-k 50 by default" in shown
        await pilot.press("ctrl+g")
        await pilot.pause()
        assert "as generate: top-p is of what" in text(app)
        await pilot.press("ctrl+s")
        await answered(pilot, lab)
        assert lab.lab.sampler == SamplerSettings.of_generate(0.8)
        assert "top-k 50, in sequence" in text(app)
        await pilot.press("K")
        await until(pilot, lambda: isinstance(app.screen, SamplerScreen))
        app.screen.query_one("#sequential_cuts").value = False  # type: ignore[attr-defined]
        await pilot.press("ctrl+s")
        await answered(pilot, lab)
        assert not lab.lab.sampler.sequential_cuts


def test_the_sampler_form_parses_and_refuses_values() -> None:
    by_name = {setting.name: setting for setting in SETTINGS}
    assert parsed(by_name["top_k"], " 40 ") == 40 and parsed(by_name["min_p"], "1e-2") == 0.01
    for name, wrong in (("top_k", "1.5"), ("top_k", "-1"), ("top_p", "2"), ("temperature", "nan"), ("min_p", ""),
                        ("repetition_penalty", "0")):  # fmt: skip
        with pytest.raises(UserError):
            parsed(by_name[name], wrong)


def test_new_logits() -> None:
    assert new_logit("3.5", 9) == new_logit("=3.5", 9) == new_logit(" = 3.5 ", 9) == 3.5
    assert new_logit("+1", 2.5) == 3.5 and new_logit("-0.5", 2) == new_logit(" − 0.5", 2) == 1.5
    assert new_logit("=-0.5", 2) == new_logit("=−0.5", 2) == -0.5 and new_logit("=+1", 2) == 1
    assert new_logit("−inf", 0) == new_logit("=-inf", 7) == new_logit("-inf", -math.inf) == -math.inf
    for wrong in ("", "x", "inf", "+inf", "=inf", "nan", "1 x", "=", "==1", "+-1", "by 1", "[/]"):
        with pytest.raises(UserError, match="is not a logit"):
            new_logit(wrong, 0)


def test_top_k_goes_through_all() -> None:
    seen, now = [], 0
    while now != 1:
        now = further(now, -1)
        seen.append(now)
    assert seen == [1000, 500, 200, 100, 50, 40, 20, 10, 5, 3, 2, 1] and further(1, -1) == 1
    assert further(1000, 1) == 0 == further(0, 1)


def test_a_changed_logit_belongs_to_one_reading() -> None:
    lab = Lab("a")
    seen = lab.request()
    lab.change_logit(3, 1.0, seen)
    lab.change_logit(4, 2.0, seen)
    lab.change_logit(3, 5.0, seen)
    assert lab.request().overrides == ((4, 2.0), (3, 5.0))
    lab.prompt = "b"
    assert lab.request().overrides == () and lab.dropped == 2
    lab.prompt = "a"
    assert lab.request().overrides == (), "it does not come back by itself"


async def test_temperatures_side_by_side() -> None:
    engine = FakeEngine(hostile=True)

    def answer(question: TemperaturesQuestion) -> Temperatures:
        columns = tuple(TemperatureColumn(t, (0.5, 0.25), 0.25, 1.04, 2.83) for t in question.temperatures)
        return Temperatures((engine.token(0), engine.token(4)), 998, columns)

    engine.answers[TemperaturesQuestion] = answer
    app = make_app(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(app, pilot)
        await pilot.press("T")
        await until(pilot, lambda: "T=0.5" in text(app))
        screen = app.screen
        assert isinstance(screen, TemperaturesScreen)
        assert "T=2" in text(app) and "25.0 %" in text(app) and "1.040" in text(app) and "998 others" in text(app)
        await pilot.press("e")
        await typed(pilot, "0, 3")
        await until(pilot, lambda: "T=3" in text(app) and "greedy" in text(app))
        assert not unsafe(drawn(app))
        await pilot.press("e")
        await typed(pilot, "[/]")
        await pilot.press("y")
        await pilot.pause()
        assert app.clipboard.startswith("id\ttext\tT=0\tT=3\n")
        assert "softmax of logit ÷ T" in text(app)
        await pilot.press("escape")
        app.lab_screen.lab.sampler = dataclasses.replace(app.lab_screen.lab.sampler, repetition_penalty=1.3)
        app.lab_screen.context.request_reading()
        await answered(pilot, app.lab_screen)
        await pilot.press("T")
        await until(pilot, lambda: "softmax of penalised logit ÷ T" in text(app))
        await pilot.resize_terminal(1, 1)
        await pilot.pause()
        await pilot.press("q")
        await pilot.pause()
        assert app.screen is app.lab_screen


async def test_the_scratch_table() -> None:
    from tui_llm.instruments.scratch.answer import scratch
    from tui_llm.instruments.scratch.question import ScratchQuestion

    engine = FakeEngine()
    engine.answers[ScratchQuestion] = lambda question: scratch(question)
    app = make_app(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(app, pilot)
        await pilot.press("X")
        await until(pilot, lambda: "moon" in text(app) and "86.6 %" in text(app))
        editor = app.screen.query_one("#prompt")
        editor.set_text("a=1 [/]\x1b=1")  # type: ignore[attr-defined]
        await until(pilot, lambda: text(app).count("50.0 %") >= 2)
        assert not unsafe(drawn(app))
        await pilot.press("escape", "left_square_bracket", "C")
        await until(pilot, lambda: "÷ sum" in text(app) and "so that no e^x overflows" in text(app))
        await pilot.press("y")
        assert app.clipboard.startswith("rank\tid\t") and app.clipboard.count("\n") == 3
        editor.set_text("a=b")  # type: ignore[attr-defined]
        await until(pilot, lambda: "'a=b' is not TOKEN=LOGIT" in text(app))
        editor.set_text("a=2")  # type: ignore[attr-defined]
        await pilot.press("T")
        await until(pilot, lambda: "T=0.5" in text(app))
        await pilot.press("escape", "left_curly_bracket", "left_parenthesis", "greater_than_sign", "K")
        await pilot.pause()
        assert isinstance(app.screen, SamplerScreen)
        await pilot.press("escape")
        await pilot.resize_terminal(1, 1)
        await pilot.pause()
        await pilot.press("q")
        await pilot.pause()
        assert app.screen is app.lab_screen and app.lab_screen.lab.scratch == "a=2", "what was typed is kept"


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (30, 8)])
async def test_nothing_crashes_on_tiny_screens(size: tuple[int, int]) -> None:
    app = make_app(FakeEngine(hostile=True))
    async with app.run_test(size=size) as pilot:
        await ready(app, pilot)
        for key in (
            "C",
            "C",
            "C",
            "O",
            "O",
            "end",
            "up",
            "N",
            "escape",
            "E",
            "e",
            "escape",
            "K",
            "escape",
            "X",
            "escape",
            "escape",
        ):
            await pilot.press(key)
            await pilot.pause()
        assert not unsafe(drawn(app))


async def test_copied_rows_contain_the_stages() -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(app, pilot)
        await pilot.press("y")
        header, first, *_ = app.clipboard.split("\n")
        assert header.split("\t")[10:] == ["penalised", "scaled", "numerator", "tempered", "changed"]
        assert len(first.split("\t")) == len(header.split("\t"))


async def test_beside_the_tour_no_line_above_the_stages_is_cut() -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        pane = await ready(app, pilot)
        await pilot.press("f2", "C")
        await until(pilot, lambda: "x = logit ÷ T" in text(app))
        line = next(line for line in drawn(app) if "x = logit ÷ T" in line).strip(" ┃")
        assert line == pane.shift_words()[0]
