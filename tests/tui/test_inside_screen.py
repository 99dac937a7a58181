"""The screen that looks inside the model: every view by keyboard at 80 × 24, with answers of plain numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
from fake_engine import CONTEXT, HOSTILE, VOCABULARY, FakeEngine
from helpers import answered, drawn, make_app, unsafe, until
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.pilot import Pilot

from tui_llm.common.errors import UserError
from tui_llm.facts.place import Place
from tui_llm.facts.request import Request, Target
from tui_llm.instruments.attention.question import AttentionMap, AttentionQuestion, AttentionRow
from tui_llm.instruments.lens.question import Lens, LensGuess, LensQuestion, LensRow, layer_of
from tui_llm.instruments.neighbours.question import Neighbour, Neighbours, NeighboursQuestion
from tui_llm.tui.app import CommandProvider, LabApp
from tui_llm.tui.instruments.inside.heads import HeadGrid, measured_cell
from tui_llm.tui.instruments.inside.inside import InsideScreen
from tui_llm.tui.instruments.inside.neighbours import NeighbourTable
from tui_llm.tui.instruments.inside.text import TokenText
from tui_llm.tui.keymap import COMMANDS
from tui_llm.tui.kit.shades import LEVELS, SHADES, shade, short_percent

LAYERS, HEADS = 3, 4


def attention_row(weights: list[float]) -> AttentionRow:
    total = sum(weights)
    shares = [weight / total for weight in weights]
    entropy = -sum(share * math.log(share) for share in shares if share)
    return AttentionRow(tuple(shares), shares.index(max(shares)), entropy, math.exp(entropy))


class InsideEngine(FakeEngine):
    """A fake in which head h of layer l attends mostly to token (l + h) among the visible ones.

    Each number identifies its position.
    """

    def __init__(self, hostile: bool = False, layers: int = LAYERS, heads: int = HEADS) -> None:
        super().__init__(hostile)
        self.shape = layers, heads
        self.answers = {
            AttentionQuestion: self.attention,
            LensQuestion: self.lens,
            NeighboursQuestion: self.neighbours,
        }

    def place(self, request: Request, number: int | None) -> Place:
        ids = self.encode(request.prompt) + list(request.continuation)
        if not ids:
            raise UserError("there is no token to look from: type some text first")
        first = max(0, len(ids) - CONTEXT)
        return Place(tuple(map(self.token, ids[first:])), first, len(ids), len(ids) - 1 if number is None else number)

    def attention(self, question: AttentionQuestion) -> AttentionMap:
        place = self.place(question.request, question.number)
        seen = place.index + 1
        layers, heads = self.shape

        def one(at: int) -> AttentionRow:
            return attention_row([6.0 if token == at % seen else 1.0 for token in range(seen)])

        grid = tuple(tuple(one(layer + head) for head in range(heads)) for layer in range(layers))
        means = tuple(attention_row([sum(h.weights[t] for h in heads) for t in range(seen)]) for heads in grid)
        assert self.weights is not None
        return AttentionMap(self.weights, place, grid, means, attention_row([1.0] * seen))

    def lens(self, question: LensQuestion) -> Lens:
        place = self.place(question.request, question.number)
        assert self.weights is not None
        rows = tuple(
            LensRow(
                layer_of(layer),
                tuple(LensGuess(self.token((layer + nth) % 30), 0.5 / (nth + 1)) for nth in range(question.top)),
                0.1 * (layer + 1),
                10 - layer,
                5.0 - layer,
                3.0 - layer,
            )
            for layer in range(self.shape[0] + 1)
        )
        chosen = "asked" if question.request.target is not None else "next"
        return Lens(self.weights, place, self.token(3), chosen, rows)

    def neighbours(self, question: NeighboursQuestion) -> Neighbours:
        id = question.id
        if question.text is not None:
            if question.text not in self.ids:
                raise UserError(f"{question.text!r} is 2 tokens")
            id = self.ids[question.text]
        assert self.weights is not None
        near = tuple(Neighbour(self.token((id + nth) % VOCABULARY), 1 - nth / 50) for nth in range(1, 31))
        return Neighbours(self.weights, self.token(id), 128, 1.0, near)


async def opened(pilot: Pilot[None], app: LabApp) -> InsideScreen:
    await answered(pilot, app.lab_screen)
    await pilot.press("escape", "A")
    await until(pilot, lambda: isinstance(app.screen, InsideScreen))
    screen = app.screen
    assert isinstance(screen, InsideScreen)
    return screen


async def shown(pilot: Pilot[None], app: LabApp, *words: str) -> str:
    await until(pilot, lambda: all(word in "\n".join(drawn(app)) for word in words))
    return "\n".join(drawn(app))


def last(engine: FakeEngine, kind: type[Any]) -> Any:
    return [question for question in engine.questions if isinstance(question, kind)][-1]


async def test_attention_by_keyboard() -> None:
    engine = InsideEngine()
    app = make_app(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        text = await shown(pilot, app, "Token 5 of 5: ·the attends (the mean over all heads) to", "▲20%", "mean")
        assert "attends to The 20.0 %" in text and "5.0 effective tokens" in text
        await pilot.press("left", "left")
        await shown(pilot, app, "Token 3 of 5: ·sat attends", "▲33%")
        assert last(engine, AttentionQuestion).number == 2
        grid = screen.query_one(HeadGrid)
        await pilot.press("down")
        await shown(pilot, app, "attends (layer 0, the mean over its heads)")
        await pilot.press("down", "right_square_bracket")
        text = await shown(pilot, app, "(head 1.0) to", "attends to ·cat 75.0 %")
        assert "2  ·cat               75.0 %" in text  # and the list below it, sorted by weight
        assert (grid.layer_number, grid.head_number) == (1, 0) and "[█  75]" in text
        await pilot.press("left_square_bracket", "up", "up")
        await shown(pilot, app, "attends (the mean over all heads)")
        await pilot.press("home")
        await shown(pilot, app, "Token 1 of 5: The attends", "▲100%")
        await pilot.press("left", "end")
        await shown(pilot, app, "Token 5 of 5: ·the attends")
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.lab_screen)


async def test_what_the_grid_measures() -> None:
    app = make_app(InsideEngine())
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot, app)
        await shown(pilot, app, "Heads · the largest weight")
        for words in (
            "on the first token",
            "on the previous token",
            "on the token itself",
            "effective tokens",
            "the largest weight",
        ):
            await pilot.press("m")
            await shown(pilot, app, words)
    one = attention_row([6.0, 1.0, 1.0])
    place = Place((), 0, 3, 2)
    assert [measured_cell(one, place, name)[0] for name in ("strongest", "first", "before", "itself")] == [
        "75",
        "75",
        "12",
        "12",
    ]
    assert measured_cell(one, place, "effective_tokens") == ("2.1", shade(1 / one.effective_tokens))
    assert measured_cell(attention_row([1.0]), Place((), 0, 1, 0), "before") == ("—", " ")


async def test_its_memory_is_freed_once_it_has_closed() -> None:
    engine = InsideEngine()
    app = make_app(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot, app)
        before = engine.released
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.lab_screen and engine.released > before)


async def test_the_lens_and_its_target() -> None:
    engine = InsideEngine()
    app = make_app(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        app.lab_screen.lab.target = Target(text=" sat")
        await opened(pilot, app)
        await pilot.press("l")
        text = await shown(pilot, app, "Logit lens · the prediction", "emb.", "likeliest")
        assert last(engine, LensQuestion).request.target == app.lab_screen.lab.target is not None
        assert "10.0 %" in text and "the target ·sat" in text
        await pilot.press("left")
        await shown(pilot, app, "the text's own next token ·sat", "Token 4 of 5")
        assert last(engine, LensQuestion).request.target is None
        await pilot.press("y")
        header, first, *rest = app.clipboard.splitlines()
        assert header.startswith("layer\ttarget\ttarget_probability") and len(rest) == LAYERS
        assert first.split("\t")[:4] == ["embedding", " sat", "0.1", "10"] and len(first.split("\t")) == len(
            header.split("\t")
        )


async def test_from_neighbour_to_neighbour_and_back() -> None:
    engine = InsideEngine()
    app = make_app(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        await pilot.press("n")
        await shown(pilot, app, "nearest to ·the (id 2)", "·sat", "0.980")
        assert "Esc back" in drawn(app)[-1] and "/ search" in drawn(app)[-1]
        await pilot.press("down", "enter")
        await shown(pilot, app, "nearest to ·on (id 4)")
        await pilot.press("backspace")
        await shown(pilot, app, "nearest to ·the (id 2)")
        await pilot.press("backspace", "left")
        await shown(pilot, app, "nearest to ·on (id 4)", "Token 4 of 5")
        await pilot.press("slash")
        await pilot.press("space", *"moon", "enter")
        await shown(pilot, app, "nearest to ·moon (id 7)")
        await pilot.press("slash", *"no", "enter")
        await shown(pilot, app, "'no' is 2 tokens")
        await pilot.press("slash", "escape", "y")
        assert app.clipboard.splitlines()[0] == "rank\tid\tbytes\ttext\tcosine"
        assert len(app.clipboard.splitlines()) == 31
        assert screen.query_one(NeighbourTable).selected is not None


async def test_nothing_is_computed_before_it_is_opened_or_kept_after() -> None:
    engine = InsideEngine()
    app = make_app(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        assert not engine.questions
        await opened(pilot, app)
        await shown(pilot, app, "effective tokens")
        await pilot.press("q")
        await until(pilot, lambda: app.screen is app.lab_screen)
        assert app.lab_screen.inside.screen is None and not app.lab_screen.context.questions.pending


async def test_without_a_text() -> None:
    app = make_app(InsideEngine(), prompt="")
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot, app)
        await shown(pilot, app, "there is no text yet: Esc, then i types some; /")
        assert not app.screen.query_one(HeadGrid).display, "no empty frame"
        for key in (
            "left",
            "right",
            "home",
            "end",
            "down",
            "right_square_bracket",
            "m",
            "y",
            "l",
            "y",
            "n",
            "y",
            "enter",
        ):
            await pilot.press(key)
        await pilot.press("slash", "space", *"cat", "enter")
        await shown(pilot, app, "nearest to ·cat")


async def test_other_weights_are_asked_for_again() -> None:
    engine = InsideEngine()
    app = make_app(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot, app)
        await shown(pilot, app, "Inside nano", "effective tokens")
        before = len(engine.questions)
        app.lab_screen.models.open("other")
        await shown(pilot, app, "Inside other")
        await until(pilot, lambda: len(engine.questions) > before)


async def test_copying_the_chosen_head() -> None:
    app = make_app(InsideEngine())
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot, app)
        await shown(pilot, app, "effective tokens")
        await pilot.press("down", "right_square_bracket", "left", "y")
        await until(pilot, lambda: app.clipboard)
        rows = [line.split("\t") for line in app.clipboard.splitlines()]
        assert rows[0] == ["number", "id", "bytes", "text", "weight"]
        assert sum(float(row[-1]) for row in rows[1:]) == pytest.approx(1)


async def test_palette_help_and_footer_know_the_screen() -> None:
    app = make_app(InsideEngine())
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot, app)
        await shown(pilot, app, "effective tokens", "[ ] head")
        found = {hit.help async for hit in CommandProvider(screen).discover()}
        own = [command for command in COMMANDS if command.scope == "inside"]
        assert {command.tooltip for command in own} <= found
        for command in own:
            name = command.action.split("(")[0]
            assert hasattr(app if name.startswith("app.") else screen, f"action_{name.removeprefix('app.')}"), command
        await pilot.click("#keys", offset=(drawn(app)[-1].index("lens"), 0))
        await shown(pilot, app, "Logit lens · the prediction")
        await pilot.click("#inside-top", offset=(drawn(app)[0].index("Neighbours"), 0))
        await shown(pilot, app, "nearest to")


async def test_a_token_and_a_head_can_be_clicked() -> None:
    app = make_app(InsideEngine())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        await shown(pilot, app, "▲20%")
        line = next(
            at for at, text in enumerate(drawn(app)) if "·cat" in text and "·sat" in text and "attends" not in text
        )
        await pilot.click(offset=(drawn(app)[line].index("·cat") + 1, line))
        await shown(pilot, app, "Token 2 of 5")
        row = next(
            at for at, text in enumerate(drawn(app)) if text.startswith("┃") and text.strip("┃ ").startswith("1 ")
        )
        await pilot.click(offset=(22, row))
        await until(pilot, lambda: screen.query_one(HeadGrid).layer_number == 1)
        assert screen.query_one(HeadGrid).head_number == 1


@pytest.mark.parametrize("size", [(1, 1), (20, 5), (80, 24)], ids=str)
async def test_hostile_text_at_any_size(size: tuple[int, int]) -> None:
    engine = InsideEngine(hostile=True, layers=3, heads=30)
    app = make_app(engine, prompt="The cat")
    async with app.run_test(size=size) as pilot:
        await answered(pilot, app.lab_screen)
        real = engine.place
        ids = [engine.ids[text] for text in HOSTILE] * 8
        engine.place = lambda request, number: real(Request(continuation=tuple(ids)), number)  # type: ignore[method-assign]
        screen = await opened(pilot, app)
        await until(pilot, lambda: screen.place is not None)
        for keys in (
            ("left", "down", "right_square_bracket", "m"),
            ("l", "left"),
            ("n", "down", "enter"),
            ("a", "home"),
        ):
            await pilot.press(*keys)
            await until(pilot, lambda: not app.lab_screen.context.questions.pending)
            lines = drawn(app)
            assert not unsafe(lines), keys
            assert len(lines) <= size[1] and all(cell_len(line) <= size[0] for line in lines)


async def test_a_long_text_scrolls_to_the_token() -> None:
    app = make_app(InsideEngine(), prompt="The cat sat on the mat. " * 40)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        await shown(pilot, app, "the model sees the last 64 of", "▲")
        await pilot.press("home")
        await until(pilot, lambda: screen.place is not None and screen.place.index == 0)
        await shown(pilot, app, "▲100%")
        assert screen.query_one(TokenText).place is not None


@given(st.floats(0, 1))
def test_a_weight_has_a_sign_and_at_most_four_characters(weight: float) -> None:
    assert len(short_percent(weight)) <= 4
    assert shade(weight) == SHADES[sum(weight >= least for least in LEVELS)]


async def test_the_texts_own_next_token_is_no_target_of_the_lens_at_the_texts_end() -> None:
    engine = InsideEngine()
    app = make_app(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        app.lab_screen.lab.target = Target(own=True)
        await opened(pilot, app)
        await pilot.press("l")
        await shown(pilot, app, "Logit lens · the prediction", "likeliest")
        assert last(engine, LensQuestion).request.target is None
