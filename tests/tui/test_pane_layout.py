"""The panes' shares of the screen: room goes where the content is, heads are one line, no line is a single word."""

from __future__ import annotations

import contextlib
import itertools
import random
import re
from pathlib import Path

import fake_run
import pytest
from helpers import answered, drawn, make_app, until
from rich.cells import cell_len
from rich.text import Text
from test_loss_pane import app_of
from textual.geometry import Region, Size
from textual.pilot import Pilot

from tui_llm.facts.request import Target
from tui_llm.tui.app import LabApp
from tui_llm.tui.kit.text import running, wrapped
from tui_llm.tui.kit.widgets.lines import Lines
from tui_llm.tui.lab.lab import LabScreen
from tui_llm.tui.lab.pane_layout import columns, share
from tui_llm.tui.runs.loss_chart import LossChart

SIZES = [(120, 40), (200, 60)]
ONE = (80, 24)  # one pane at a time
NAMES = ("tokens", "logits", "loss", "training", "generate")
PROMPT = "Once upon a time, there was a little"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUI_LLM_HOME", str(tmp_path))
    return tmp_path


def texts(lab: LabScreen, name: str) -> list[str]:
    """The visible lines of a pane that shows a reading."""
    pane = lab.panes[name]
    assert isinstance(pane, Lines)
    return [pane._text_at(y, pane.line_width).plain for y in range(pane.scrollable_content_region.height)]


async def resized(pilot: Pilot[None], app: LabApp, size: tuple[int, int]) -> None:
    """Gives the terminal this size, and waits until all is laid out and drawn for it."""
    await pilot.resize_terminal(*size)
    await until(pilot, lambda: app.screen.size == size)
    await pilot.pause()


# ── the arithmetic ───────────────────────────────────────────────────────────────────────────────────────────────


def test_rows_are_shared_without_rest() -> None:
    chance = random.Random(1)
    for _ in range(500):
        count = chance.randint(1, 4)
        fewest = [chance.randint(1, 12) for _ in range(count)]
        wanted = [chance.randint(0, 60) for _ in range(count)]
        height = chance.randint(sum(fewest), 90)
        rows = share(height, fewest, wanted, chance.randrange(count))
        assert sum(rows) == height
        assert all(row >= least for row, least in zip(rows, fewest, strict=True))
        if sum(map(max, fewest, wanted)) <= height:
            assert all(row >= want for row, want in zip(rows, wanted, strict=True)), "what is wanted fits"


@pytest.mark.parametrize("training", [None, 4])
def test_the_panes_tile_the_screen(training: int | None) -> None:
    chance = random.Random(2)
    for width, height in itertools.product(range(100, 260, 7), range(20, 80, 5)):
        content = {name: chance.randint(1, 50) for name in ("tokens", "loss", "generate")}
        placed = columns(Size(width, height), {**content, "logits": None, "training": training})
        assert set(placed) == set(NAMES)
        assert sum(region.area for region in placed.values()) == width * height
        assert all(Region(0, 0, width, height).contains_region(region) for region in placed.values())
        assert not any(a.overlaps(b) for a, b in itertools.combinations(placed.values(), 2))
        assert all(region.height >= 3 for region in placed.values())
        share = placed["logits"].height / height
        assert share >= 0.39, "the table's share"
        if training is None:
            assert placed["training"].height / height >= 0.39, "the chart's share"


def test_a_sentence_does_not_end_with_a_lone_word() -> None:
    sentence = "T=0.8, top-p 0.9 · entropy 2.19 nats = 8.94 choices · logsumexp 11.73"
    for width in range(24, 75):
        lines = wrapped(Text(sentence), width)
        assert " ".join(line.plain.strip() for line in lines) == sentence
        assert all(cell_len(line.plain.rstrip()) <= width for line in lines)
        assert len(lines) == len(running(Text(sentence), width)), "no more lines than it needs"
        assert len(lines) == 1 or " " in lines[-1].plain.strip(), width


# ── the real app ─────────────────────────────────────────────────────────────────────────────────────────────────


async def settled(pilot: object, app: LabApp) -> None:
    """Waits until the panes have their sizes, and have handled them: the layout is there before its Resize events."""
    grid = app.lab_screen.query_one("#panes")
    await answered(pilot, app.lab_screen)  # type: ignore[arg-type]
    await until(
        pilot,  # type: ignore[arg-type]
        lambda: (
            {p.id: p.outer_size for p in grid.children}
            == {name: region.size for name, region in columns(grid.size, grid.content).items()}
        ),  # type: ignore[attr-defined]
    )
    await pilot.pause()  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [ONE, *SIZES], ids=str)
async def test_a_tables_head_is_one_line(size: tuple[int, int]) -> None:
    app = make_app(prompt=PROMPT)
    async with app.run_test(size=size) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "2")
        for keys in ([], ["["], ["{", "{"], ["C"], ["C"], ["C"], ["z"]):
            await pilot.press(*({"[": "left_square_bracket", "{": "left_curly_bracket"}.get(k, k) for k in keys))
            await answered(pilot, lab)
            lines = texts(lab, "logits")
            head = next(at for at, line in enumerate(lines) if re.match(r"\s+(rank )?token\b", line))
            assert "p" in lines[head].split() or "p(" in lines[head] or "÷ T" in lines[head] or "renorm." in lines[head]
            assert re.search(r"logsumexp|÷ T", lines[head - 1]), "a sentence stands above it, not half of a name"
            assert re.search(r"\d", lines[head + 1]), "a row stands below it"


@pytest.mark.parametrize("size", [ONE, *SIZES], ids=str)
async def test_no_line_is_a_lone_word(size: tuple[int, int]) -> None:
    app, _ = app_of(prompt=PROMPT)
    async with app.run_test(size=size) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape")
        for target in (Target(id=3), Target(id=200), Target(text=" cat sat on")):
            lab.lab.target = target
            lab.readings.request()
            await answered(pilot, lab)
            for key, name in (("2", "logits"), ("3", "loss"), ("5", "generate"), ("g", "generate")):
                await pilot.press(key)
                await answered(pilot, lab)
                for line in texts(lab, name):
                    words = line.split()
                    assert len(words) != 1 or words[0] in ("…",), (name, line)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("runs", [False, True], ids=["no run", "a run"])
async def test_room_goes_where_the_content_is(size: tuple[int, int], runs: bool) -> None:
    if runs:
        fake_run.make("tales", steps=100, done=100, state="finished")
    app = make_app(prompt=PROMPT)
    async with app.run_test(size=size) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        if runs:
            await until(pilot, lambda: lab.panes.training.snapshot is not None)
        await settled(pilot, app)
        for name in ("tokens", "loss"):
            lines = texts(lab, name)
            assert sum(not line.strip() for line in lines) <= len(lines) // 2, f"half of {name} is empty"
            pane = lab.panes[name]
            assert isinstance(pane, Lines)
            assert pane.max_scroll_y == 0, f"{name} shows all it has"
        table = lab.panes.logits.size.height
        assert table >= 2 * max(lab.panes[name].size.height for name in ("tokens", "loss")), "the table is large"


@pytest.mark.parametrize("state", ["running", "finished", "stopped"])
async def test_the_chart_is_the_largest_part_of_its_pane(state: str) -> None:
    run = fake_run.make("tales", steps=100, done=100, state=state, message="" if state == "running" else "saved")
    app = make_app(prompt=PROMPT)
    alive = fake_run.alive(run) if state == "running" else contextlib.nullcontext()
    with alive:
        await _the_chart_is_large(app)


async def _the_chart_is_large(app: LabApp) -> None:
    async with app.run_test(size=ONE) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "4")
        await until(pilot, lambda: lab.panes.training.snapshot is not None)
        pane = lab.panes.training
        chart = pane.query_one(LossChart)
        for size in (ONE, *SIZES, (100, 30)):
            await resized(pilot, app, size)
            await until(pilot, lambda: chart.size.height > 0)
            assert chart.size.height >= pane.content_size.height / 2, (size, chart.size, pane.content_size)
            others = [pane.query_one(f"#{name}").size.height for name in ("run-head", "run-message", "run-sample")]
            assert chart.size.height > max(others), size
            text = "\n".join(drawn(app))
            for word in ("train", "val"):
                assert re.search(rf"(⣀⡠|×) {word}", text), f"the legend at {size}"


async def test_a_finished_run_offers_what_it_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    run = fake_run.make("tales", steps=100, done=100, state="finished", message="all 100 steps are done")
    fake_run.checkpoint(run, 100)
    app = make_app(prompt=PROMPT)
    opened: list[str] = []
    async with app.run_test(size=ONE) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "4")
        monkeypatch.setattr(lab.models, "open", opened.append)
        for size in (ONE, *SIZES, (100, 30)):
            await resized(pilot, app, size)
            await until(pilot, lambda: "O opens what was trained" in "\n".join(drawn(app)))
            await pilot.press("O")
            await until(pilot, lambda: opened)
            assert opened == ["run:tales"], size
            opened.clear()


@pytest.mark.parametrize("size", [ONE, *SIZES, (100, 30), (40, 16)], ids=str)
@pytest.mark.parametrize("text", [None, " cat sat on"], ids=["one token", "three"])
async def test_the_equation_stays_in_sight_beside_the_gradient(size: tuple[int, int], text: str | None) -> None:
    app, _ = app_of(prompt=PROMPT)
    async with app.run_test(size=size) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        lab.lab.target = Target(id=3) if text is None else Target(text=text)
        lab.readings.request()
        await answered(pilot, lab)
        await pilot.press("escape", "3", "p")
        await until(pilot, lambda: any("◆" in line for line in texts(lab, "loss")))
        await pilot.pause()
        for _ in range(3):
            lines = texts(lab, "loss")
            assert any(line.startswith("loss = ") for line in lines), lines
            assert any("nats" in line and "=" in line for line in lines[:5]), lines
            assert any(re.search("◆|▲|▼|sum ", line) for line in lines), "the gradient, in the same view"
            await pilot.press("pagedown")
