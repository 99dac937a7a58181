"""Why this token: the screen at 80 × 24, by keyboard, on the real engine and on hostile answers."""

from __future__ import annotations

import pytest
from fake_engine import HOSTILE, FakeEngine
from helpers import answered, drawn, make_app, unsafe, until
from textual.pilot import Pilot

from tui_llm.engine import PipelineEngine
from tui_llm.facts.interventions import HEAD, MLP, POSITIONS, TOKENS, Intervention, ModelPart, all_parts
from tui_llm.facts.place import Place
from tui_llm.instruments.why.question import (
    NeuronOfLogit,
    Neurons,
    NeuronsQuestion,
    PartOfLogit,
    Why,
    WhyQuestion,
)
from tui_llm.tui.app import LabApp
from tui_llm.tui.instruments.inside.heads import HeadGrid
from tui_llm.tui.instruments.inside.inside import InsideScreen
from tui_llm.tui.instruments.why.lines import bar_around_zero
from tui_llm.tui.instruments.why.neurons import NeuronsScreen
from tui_llm.tui.instruments.why.why import WhyScreen

TEXT = "Once upon a time, there was a little girl named"


@pytest.fixture
def engine() -> PipelineEngine:  # one for each app: only one thread may use it, and an app may end during an answer
    return PipelineEngine("cpu")


def units(text: str) -> int:
    return round(float(text.replace("−", "-").replace("+", "").replace(",", "")) * 1000)


def rows(app: LabApp) -> list[tuple[str, list[int]]]:
    """The names and the three numbers of the lines of a table."""
    assert isinstance(app.screen, WhyScreen | NeuronsScreen)
    found = []
    width = app.screen.listing.line_width
    fixed, lines = app.screen.content(width)
    for line in [*fixed, *(lines[at] for at in range(len(lines)))]:
        name, rest = line.plain[:19].strip(" ▸"), line.plain[19:52].split()
        if len(rest) == 3 and all("." in number for number in rest):
            try:
                found.append((name, [units(number) for number in rest]))
            except ValueError:
                continue
    return found


async def opened(pilot: Pilot[None], app: LabApp) -> WhyScreen:
    await answered(pilot, app.lab_screen)
    await pilot.press("escape", "semicolon")
    await until(pilot, lambda: isinstance(app.screen, WhyScreen) and app.screen.why is not None)
    assert isinstance(app.screen, WhyScreen)
    return app.screen


def check_sums(table: list[tuple[str, list[int]]]) -> None:
    """The first line is the sum of the others, and each difference is that of its line."""
    (_, total), *terms = table
    assert [sum(numbers) for numbers in zip(*(numbers for _, numbers in terms), strict=True)] == total
    assert all(value - rival == difference for _, (value, rival, difference) in table)


async def test_what_is_drawn_adds_up_in_every_order_and_group(engine: PipelineEngine) -> None:
    app = LabApp(lambda: engine, model="nano", prompt=TEXT)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        assert any("why ·Lily" in line and "not ·Lucy" in line for line in drawn(app))
        table = rows(app)
        assert table[0][0] == "sum = logit" and len(table) == 1 + len(screen.why.parts)  # type: ignore[union-attr]
        check_sums(table)
        sizes = [abs(numbers[2]) for _, numbers in table[1:]]
        assert sizes == sorted(sizes, reverse=True)
        await pilot.press("o")
        values = [numbers[0] for _, numbers in rows(app)[1:]]
        assert values == sorted(values, reverse=True)
        await pilot.press("o")
        assert [name for name, _ in rows(app)[1:4]] == ["token embedding", "position embedding", "attention bias 0"]
        for names in (
            {"embeddings", "layer 0", "layer 1", "layer 2", "layer 3", "final norm bias"},
            {"embeddings", "heads", "MLPs", "biases"},
        ):
            await pilot.press("g")
            groups = rows(app)
            check_sums(groups)
            assert {name for name, _ in groups[1:]} == names and groups[0] == table[0]
        kinds = dict(rows(app))
        parts = table[1:]
        assert kinds["MLPs"] == [sum(n[at] for name, n in parts if name.startswith("MLP")) for at in range(3)]


async def test_a_head_opens_the_attention_and_an_mlp_its_neurons(engine: PipelineEngine) -> None:
    app = LabApp(lambda: engine, model="nano", prompt=TEXT)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        assert screen.sum is not None
        parts = [line.part for line in screen.sum.lines]
        for _ in range(parts.index(ModelPart(HEAD, 3, 2))):
            await pilot.press("down")
        await pilot.press("enter")
        await until(
            pilot, lambda: isinstance(app.screen, InsideScreen) and app.screen.query_one(HeadGrid).attention is not None
        )
        grid = app.screen.query_one(HeadGrid)
        assert (grid.layer_number, grid.head_number) == (3, 2) and "(head 3.2)" in "".join(drawn(app))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is screen)
        await pilot.press("home")
        for _ in range(parts.index(ModelPart(MLP, 3))):
            await pilot.press("down")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, NeuronsScreen) and app.screen.neurons is not None)
        check_sums(rows(app))
        assert isinstance(app.screen, NeuronsScreen) and app.screen.neurons is not None
        (_, value), *_ = rows(app)
        assert abs(value[0] - dict(rows_of(screen))["MLP 3"]) <= 1
        await pilot.press("escape", "escape")
        await until(pilot, lambda: app.screen is app.lab_screen)


def rows_of(screen: WhyScreen) -> list[tuple[str, int]]:
    assert screen.sum is not None
    return [(line.name, line.value) for line in screen.sum.lines]


async def test_tokens_rivals_and_targets(engine: PipelineEngine) -> None:
    app = LabApp(lambda: engine, model="nano", prompt=TEXT)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        first = screen.why
        await pilot.press("comma")
        await until(pilot, lambda: screen.why is not first)
        assert screen.why is not None and screen.why.chosen == "next" and screen.why.target.text == " named"
        await pilot.press("full_stop")
        await until(pilot, lambda: screen.why is not None and screen.why.chosen == "likeliest")
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: screen.why is not None and screen.why.rival == screen.why.likeliest[2])
        await pilot.press("r")
        await until(pilot, lambda: app.screen is not screen)
        await pilot.press("backspace", *"#464", "enter")
        await until(pilot, lambda: screen.why is not None and screen.why.rival.id == 464)
        await pilot.press("t")
        await until(pilot, lambda: app.screen is not screen)
        await pilot.press(*"Tim", "enter")
        await until(pilot, lambda: screen.why is not None and screen.why.target.text == " Tim")
        await pilot.press("r")
        await until(pilot, lambda: app.screen is not screen)
        await pilot.press("backspace", *"#99999999", "enter")
        await until(pilot, lambda: "there is no token 99999999" in "".join(drawn(app)))


class HostileWhy(FakeEngine):
    def __init__(self) -> None:
        super().__init__(hostile=True)
        self.answers = {WhyQuestion: self.why, NeuronsQuestion: self.neurons}

    def why(self, question: WhyQuestion) -> Why:
        assert self.weights is not None
        tokens = tuple(map(self.token, range(len(HOSTILE))))
        parts = tuple(PartOfLogit(part, 1.25, -0.004 * at) for at, part in enumerate(all_parts(2, 3)))
        assert parts[0].part == ModelPart(TOKENS) and parts[1].part == ModelPart(POSITIONS)
        totals = sum(one.value for one in parts), sum(one.rival for one in parts)
        place = Place(tokens, 0, len(tokens), len(tokens) - 1 if question.number is None else question.number)
        return Why(self.weights, place, tokens[4], "asked", tokens[6], *totals, *totals, tokens, 1.0, parts)

    def neurons(self, question: NeuronsQuestion) -> Neurons:
        assert self.weights is not None
        tokens = tuple(map(self.token, range(len(HOSTILE))))
        rows = tuple(NeuronOfLogit(at, 0.5, 1e6, -1e-9, tokens) for at in range(30))
        return Neurons(self.weights, tokens[0], tokens[1], question.layer, rows, 1_234_567, (0.1, -1e9), (0.0, 0.0))


@pytest.mark.parametrize("size", [(120, 40), (80, 24), (30, 8), (1, 1)])
async def test_hostile_tokens_and_every_size(size: tuple[int, int]) -> None:
    app = make_app(HostileWhy())
    async with app.run_test(size=size) as pilot:
        screen = await opened(pilot, app)
        for key in ("g", "g", "g", "o", "y", "down"):
            await pilot.press(key)
            assert not unsafe(drawn(app))
        screen.listing.cursor = [line.part for line in screen.sum.lines].index(ModelPart(MLP, 1))  # type: ignore[union-attr]
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, NeuronsScreen))
        await pilot.pause()
        assert not unsafe(drawn(app))


def test_a_bar_goes_to_both_sides_of_zero() -> None:
    assert bar_around_zero(0, 4) == ("    ", "")
    assert bar_around_zero(1, 4) == ("    ", "████")
    assert bar_around_zero(-1, 4) == ("████", "")
    assert bar_around_zero(-0.375, 4) == ("  ▐█", "")
    assert bar_around_zero(0.5, 4) == ("    ", "██")


async def test_of_a_changed_model(engine: PipelineEngine) -> None:
    app = LabApp(lambda: engine, model="nano", prompt=TEXT)
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        app.lab_screen.context.intervene((Intervention(ModelPart(HEAD, 3, 2)),))
        await answered(pilot, app.lab_screen)
        screen = await opened(pilot, app)
        assert "head 3.2 off" in "".join(drawn(app))
        assert dict(rows_of(screen))["head 3.2"] == 0
        check_sums(rows(app))
