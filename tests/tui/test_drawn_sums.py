"""Adds up what is drawn: every sum on a screen is that of a column in sight, which its sentence names."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import fake_run
import pytest
from helpers import answered, drawn, until
from test_batch_screens import ScreenApp, put_batch
from test_pin_history import ScreenApp as PinApp
from test_pin_history import make as make_pins
from textual.pilot import Pilot

from tui_llm.engine import PipelineEngine
from tui_llm.facts.request import Request, Target
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.instruments.draws.question import DrawQuestion
from tui_llm.tui.app import LabApp
from tui_llm.tui.instruments.temperatures import TemperatureLines
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.kit.over import OverLab
from tui_llm.tui.runs.batch import BatchScreen

PROMPT = "Once upon a time, there was a little"
SIZES = [(80, 24), (120, 40), (200, 60)]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUI_LLM_HOME", str(tmp_path))


@asynccontextmanager
async def lab_at(size: tuple[int, int], *keys: str) -> AsyncIterator[tuple[LabApp, Pilot[Any]]]:
    """The app with the shipped model, after `keys`."""
    app = LabApp(lambda: PipelineEngine("cpu"), prompt=PROMPT)
    async with app.run_test(size=size) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", *keys)
        await answered(pilot, app.lab_screen)
        yield app, pilot


async def opened(app: LabApp, pilot: Pilot[Any], key: str, word: str) -> list[str]:
    """The lines of the screen that `key` opens, once `word` is on it."""
    await pilot.press(key)
    await until(pilot, lambda: isinstance(app.screen, OverLab) or key == "p")
    await until(pilot, lambda: word in "\n".join(drawn(app)))
    await pilot.pause()
    return drawn(app)


def column(lines: Sequence[str], name: str) -> tuple[int, int]:
    """The line of the table's head and the column (cell) at which the name of a right-aligned column ends."""
    for at, line in enumerate(lines):
        found = re.search(rf"(?<!\S){re.escape(name)}(?!\S)", line)
        if found and re.match(r"\W*(rank )?token\b", line):
            return at, found.end()
    raise AssertionError((name, lines))


def number(line: str, end: int) -> tuple[float, float] | None:
    """The number that ends at that cell, and by how much rounding may have moved it; None: there is none."""
    found = re.search(r"(<?)([−+]?[\d,]+(?:\.(\d+))?(?:e([+-]?\d+))?)( %)?$", line[:end])
    if not found or not found[2]:
        return None
    value = float(found[2].replace(",", "").replace("−", "-"))
    unit = 10.0 ** (int(found[4] or 0) - len(found[3] or ""))
    if "e" not in found[2] and value and unit == 1 and not found[5]:
        unit = 1.0
    elif found[3] and not found[5] and "e" not in found[2] and len(found[2].replace(".", "")) <= 3:
        unit = max(unit, 10.0 ** (math.floor(math.log10(abs(value) or 1)) - 2))  # three significant digits
    return (0.0, value) if found[1] else (value, unit / 2 if not found[1] else value)


def total(rows: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return math.fsum(value for value, _ in rows), math.fsum(error for _, error in rows) + 1e-9


def agrees(rows: Sequence[tuple[float, float]], shown: tuple[float, float]) -> bool:
    value, error = total(rows)
    return abs(value - shown[0]) <= error + shown[1]


def table(lines: Sequence[str], name: str) -> tuple[list[tuple[float, float]], list[tuple[float, float]], int]:
    """The numbers of a column above the cut, and all of them up to the sums; how many rows those are."""
    head, end = column(lines, name)
    above: list[tuple[float, float]] = []
    rows: list[tuple[float, float]] = []
    cut, count = False, 0
    for line in lines[head + 1 :]:
        if "Σ" in line or "╰" in line or "┗" in line:
            break
        if "── " in line:
            cut = True
            continue
        if (found := number(line, end)) is not None:
            rows.append(found)
            if not cut:
                above.append(found)
        count += 1
    return above, rows, count


SAMPLERS = [
    SamplerSettings(temperature=0.8, top_p=0.9),
    SamplerSettings(temperature=1.0, top_p=0.8),
    SamplerSettings(temperature=1.5, top_k=5),
    SamplerSettings(temperature=0.7, min_p=0.1),
    SamplerSettings(temperature=1.0),
    SamplerSettings(temperature=0.8, top_p=0.9, repetition_penalty=1.3),
    SamplerSettings(temperature=0.9, top_k=8, top_p=0.7, sequential_cuts=True),
]


@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_the_tables_sentences_and_sums_are_those_of_drawn_columns(size: tuple[int, int]) -> None:
    async with lab_at(size, "2") as (app, pilot):
        lab = app.lab_screen
        for sampler in SAMPLERS:
            lab.lab.sampler = sampler
            lab.readings.request()
            await answered(pilot, lab)
            for _page in range(4):
                await pilot.pause()
                lines = table_lines(app)
                check_cut(lines)
                check_sums(lines)
                await pilot.press("C")
            lab.panes.logits.stage = 0
            lab.panes.logits.rebuild()


async def test_without_cuts_a_sharp_temperature_cuts_nothing() -> None:
    async with lab_at((120, 40), "2") as (app, pilot):
        lab = app.lab_screen
        for temperature, says in ((0.1, ""), (0.002, "── p is 0 below: less than 5e-324")):
            lab.lab.sampler = SamplerSettings(temperature)
            lab.readings.request()
            await answered(pilot, lab)
            await pilot.pause()
            lines = table_lines(app)
            cuts = [line for line in lines if "──" in line]
            assert [line.startswith(says) for line in cuts] == ([True] if says else []), lines
            assert ("kept 4,096 of 4,096" in "\n".join(lines)) == (not says), lines


def table_lines(app: LabApp) -> list[str]:
    pane = app.lab_screen.panes.logits
    return [pane._text_at(y, pane.line_width).plain for y in range(pane.size.height)]


def check_cut(lines: list[str]) -> None:
    """The sentence of the cut names the column that it sums, which can be seen."""
    for line in lines:
        if found := re.search(r"cut: (.+?)(?: of .*)? above sums to ([\d.]+) %", line):
            name, sum_ = found[1], (float(found[2]), 0.05)
            above, _, _ = table(lines, name)
            assert above and agrees(above, sum_), (name, above, sum_, lines)
        elif "──" in line:
            assert "%" not in line, "a number without its column"
        if found := re.search(r"kept [\d,]+ of [\d,]+ \(([\d.]+) % of (p\([^)]*\)|[^()]+)\)", line):
            above, _, _ = table(lines, found[2] if "p" in found[2] else "÷ sum")
            assert agrees(above, (float(found[1]), 0.05)), line


def check_sums(lines: list[str]) -> None:
    head = next(line for line in lines if re.match(r"\s+(rank )?token\b", line))
    sums = next((line for line in lines if "shown" in line and "Σ" in line), None)
    if sums is None:
        return
    said = re.search(r"Σ (\d+) shown", sums)
    assert said
    for name in ("raw p", "p", "e^logit", "e^x", "÷ sum", "renorm.", *re.findall(r"p\([^)]*\)|p uncut", head)):
        if not re.search(rf"(?<!\S){re.escape(name)}(?!\S)", head.replace("raw p", "raw_p") if name == "p" else head):
            continue
        if name == "p":
            continue  # it ends where `raw p` may: compared below, by its place
        _, rows, count = table(lines, name)
        assert count == int(said[1])
        shown = number(sums, column(lines, name)[1])
        assert shown is not None and agrees(rows, shown), (name, rows, shown)


@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_a_longer_targets_losses_add_up(size: tuple[int, int]) -> None:
    async with lab_at(size, "3") as (app, pilot):
        lab = app.lab_screen
        lab.lab.target = Target(text=" girl named Lily")
        lab.readings.request()
        await answered(pilot, lab)
        pane = lab.panes.loss
        lines = [line.plain for line in pane._lines]
        head = next(at for at, line in enumerate(lines) if line.endswith("loss") and "raw p" in line)
        found = re.search(
            r"loss = sum ([\d.]+) nats ÷ (\d+) tokens = mean ([\d.]+) nats", " ".join(" ".join(lines).split())
        )
        assert found, lines
        losses = [float(line.split()[-1]) for line in lines[head + 1 : head + 1 + int(found[2])]]
        assert math.isclose(math.fsum(losses), float(found[1]), abs_tol=1e-6), "exactly as printed"
        assert abs(float(found[1]) / int(found[2]) - float(found[3])) <= 0.01


async def test_the_gradient_adds_up_to_zero() -> None:
    async with lab_at((120, 40), "3", "z") as (app, pilot):
        lines = await opened(app, pilot, "p", "others")
        rows = [float(m[1].replace("−", "-")) for line in lines if (m := re.search(r"(−?\d\.\d+) [▲▼]", line))]
        end = next(m[1] for line in lines if (m := re.search(r"sum +(−?\d\.\d+)", line)))
        assert len(rows) > 5
        assert math.isclose(math.fsum(rows), float(end.replace("−", "-")), abs_tol=1e-9)


@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_draws_are_counted_in_the_column_drawn(size: tuple[int, int]) -> None:
    async with lab_at(size, "5") as (app, pilot):
        lines = await opened(app, pilot, "H", " draws")
        total_ = next(int(m[1].replace(",", "")) for line in lines if (m := re.search(r"([\d,]+) draws", line)))
        _, rows, _ = table(lines, "drawn")
        assert math.fsum(value for value, _ in rows) == total_ == 1000


async def test_temperatures_add_up_to_one() -> None:
    async with lab_at((120, 40), "2") as (app, pilot):
        await opened(app, pilot, "T", "entropy, nats")
        shown = app.screen.query_one(TemperatureLines)
        width = shown.line_width
        head = shown.head(width)[-1].plain
        rows = [shown.row(at, width, False).plain for at in range(shown.row_count(width))]
        assert "others" in rows[-1]
        for name in re.findall(r"T=[\d.]+", head):
            _, end = column([head], name)
            assert agrees([found for row in rows if (found := number(row, end)) is not None], (100.0, 0.0)), name


async def test_the_draws_intervals_are_the_running_sum_of_p() -> None:
    async with lab_at((120, 40), "5", "g") as (app, pilot):
        lines = await opened(app, pilot, "D", "from – to")
        rows = [m for line in lines if (m := re.search(r"([\d.]+) %  ([\d.]+) – ([\d.]+)", line))]
        assert rows
        for row in rows:
            assert abs(float(row[1]) / 100 - (float(row[3]) - float(row[2]))) <= 0.0006
        assert any(row[3] == "1.0000" for row in rows)


async def test_letters_are_the_sum_of_the_column_times() -> None:
    async with lab_at((120, 40), "1") as (app, pilot):
        lines = await opened(app, pilot, "L", "the letter")
        said = next(int(m[1]) for line in lines if (m := re.search(r"occurs (\d+) time", line)))
        _, rows, _ = table(lines, "times")
        assert math.fsum(value for value, _ in rows) == said > 0


async def test_pairs_have_the_mean_of_the_column_loss() -> None:
    async with lab_at((120, 40), "1") as (app, pilot):
        lines = await opened(app, pilot, "E", "mean loss")
        mean = next(float(m[1]) for line in lines if (m := re.search(r"mean loss ([\d.]+) nats", line)))
        head = next(at for at, line in enumerate(lines) if "input" in line and "loss" in line)
        end = re.search(r"loss", lines[head]).end()  # type: ignore[union-attr]
        rows = [found[0] for line in lines[head + 1 :] if (found := number(line, end)) is not None]
        assert len(rows) == 8
        assert abs(math.fsum(rows) / len(rows) - mean) <= 0.006


async def test_the_weights_of_a_head_add_up_to_one() -> None:
    async with lab_at((120, 40)) as (app, pilot):
        await pilot.press("A")
        await until(pilot, lambda: "effective tokens" in "\n".join(drawn(app)))
        await pilot.pause()
        rows = [float(m[1]) for line in drawn(app) if (m := re.search(r"\s\d+  \S.*?([\d.]+) %  ", line))]
        assert len(rows) == 9 and abs(math.fsum(rows) - 100) <= 0.6, rows


async def test_learn_this_prints_differences_of_what_it_prints() -> None:
    async with lab_at((120, 40), "3") as (app, pilot):
        await opened(app, pilot, "L", "the open model")
        await pilot.press("space")
        await until(pilot, lambda: re.search(r"loss [\d.]+ → [\d.]+ nats +\(", "\n".join(drawn(app))))
        lines = drawn(app)
        text = "\n".join(lines)
        said = re.search(r"loss ([\d.]+) → ([\d.]+) nats +\(([−+]?[\d.]+)\)", text)
        assert said
        before, after, moved = (float(part.replace("−", "-")) for part in said.groups())
        assert math.isclose(after - before, moved, abs_tol=1e-9), "exactly as printed"
        rows = re.findall(r"([\d.]+) % +(≤?[\d.]+) % +([−+]?[\d.]+) ", text)
        assert len(rows) > 5
        for one, two, points in rows:
            if not two.startswith("≤"):
                assert abs(float(two) - float(one) - float(points.replace("−", "-"))) <= 0.11


async def test_the_trees_sentence_sums_the_column_raw_p() -> None:
    async with lab_at((120, 40), "5") as (app, pilot):
        await pilot.press("T")
        await until(pilot, lambda: "next tokens" in "\n".join(drawn(app)))
        lines = drawn(app)
        said = re.search(r"(\d+) of [\d,]+ next tokens, their raw p sums to ([\d.]+) %", "\n".join(lines))
        assert said
        head = next(line for line in lines if "depth, token" in line)
        after = lines[lines.index(head) + 2 :]  # the root, which has no p, is the first row
        rows = [
            (float(m[1]), 0.05) for line in after if (m := re.search(r"([\d.]+) %", line[head.index("raw p") - 3 :]))
        ]
        assert len(rows) == int(said[1]) and agrees(rows, (float(said[2]), 0.05)), (rows, said[0])


async def test_the_scratch_tables_sums_are_those_of_its_columns() -> None:
    async with lab_at((120, 40), "2") as (app, pilot):
        await pilot.press("X")
        await until(pilot, lambda: "raw p" in "\n".join(drawn(app)) and "mat" in "\n".join(drawn(app)))
        await pilot.press("escape")
        await pilot.pause()
        head = next(at for at, line in enumerate(drawn(app)) if re.search(r"token .*raw p", line))
        found = re.search(r"raw p", drawn(app)[head])
        assert found
        rows = [one for line in drawn(app)[head + 1 : head + 4] if (one := number(line, found.end())) is not None]
        assert len(rows) == 3 and agrees(rows, (100.0, 0.0)), drawn(app)


async def test_the_bets_and_the_rest_are_100_percent_and_the_score_is_the_sum_of_bits() -> None:
    async with lab_at((120, 40), "1") as (app, pilot):
        await opened(app, pilot, "Q", "your bet")
        await pilot.press("4", "down", "2")
        await until(pilot, lambda: "the other 40 %" in "\n".join(drawn(app)))
        bets = [int(m[1]) for line in drawn(app) if (m := re.search(r"(\d+) % {3}[█▏▎▍▌▋▊▉]", line))]
        assert bets == [40, 20] and sum(bets) + 40 == 100
        bits: dict[str, list[float]] = {"you": [], "unigram": [], "nano": []}
        while True:
            await pilot.press("enter")
            await until(pilot, lambda: "Enter: " in "\n".join(drawn(app)))
            lines = drawn(app)
            for name, found in bits.items():
                row = next(line for line in lines if re.match(rf" *{name}\b.*\d % +[\d.]+ ", line))
                cells = re.search(r"([\d.]+) % +([\d.]+) ", row)
                assert cells, row
                p, said = float(cells[1]) / 100, float(cells[2])  # p is rounded to 0.01 %, or to three digits
                low = -math.log2(p * 1.005 + 0.00005)
                assert low - 0.006 <= said <= (-math.log2(max(p * 0.995 - 0.00005, 1e-9))) + 0.006, row
                found.append(said)
            await pilot.press("enter")
            await pilot.pause()
            if "bits in all" in "\n".join(drawn(app)):
                break
        for name, found in bits.items():
            row = next(line for line in drawn(app) if re.match(rf" *{name} +[\d.]+ +[\d.]+", line))
            mean, total_ = (float(part) for part in re.findall(r"\d+\.\d+", row)[:2])
            assert (
                abs(math.fsum(found) - total_) <= 0.005 * (len(found) + 1) and abs(total_ / len(found) - mean) <= 0.006
            )


async def test_two_models_differences_are_those_of_the_columns() -> None:
    async with lab_at((120, 40), "2") as (app, pilot):
        await pilot.press("ampersand")
        await until(pilot, lambda: isinstance(app.screen, AskScreen))
        await pilot.press(*"nano", "enter")
        await until(pilot, lambda: "B − A" in "\n".join(drawn(app)))
        for line in drawn(app):
            for one, two, points in re.findall(r"([\d.]+) % +([\d.]+) % +([−+][\d.]+) %", line):
                assert abs(float(two) - float(one) - float(points.replace("−", "-"))) <= 0.11
            for one, two, rest in re.findall(r" {2}(\d+\.\d\d) +(\d+\.\d\d) +(−?\d+\.\d\d)(?! %)", line):
                assert abs(float(two) - float(one) - float(rest.replace("−", "-"))) <= 0.011


async def test_a_batchs_means_are_those_of_its_losses() -> None:
    run = fake_run.make("tales", done=10)
    tokens, losses = ["the", " cat", " sat", "!"], [[0.05, 3.25, 7.5], [1.0, 2.0, 3.5]]
    put_batch(run, [tokens, tokens], losses)
    app = ScreenApp(BatchScreen(run))
    async with app.run_test(size=(100, 24)) as pilot:
        await until(pilot, lambda: "row 2" in app.text)
        lines = app.text.split("\n")
        everything = re.search(r"mean loss ([\d.]+) of what is shown", app.text)
        drawn_: list[float] = []
        for number_ in (1, 2):
            at = next(at for at, line in enumerate(lines) if f"row {number_}  mean loss" in line)
            row = [float(one) for one in re.findall(r"\d+\.\d+", lines[at + 3])]
            mean = re.search(r"mean loss ([\d.]+)", lines[at])
            assert mean and len(row) == 3 and abs(math.fsum(row) / 3 - float(mean[1])) <= 0.006
            drawn_ += row
        assert everything and abs(math.fsum(drawn_) / 6 - float(everything[1])) <= 0.006


async def test_how_it_learned_prints_the_difference_of_what_it_prints() -> None:
    run = make_pins(0, 10, 50, 100)
    app = PinApp(run)
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: app.shown.snapshot is not None)
        await pilot.pause()
        await pilot.press("home", "right", "space", "end")
        await until(pilot, lambda: "since step" in app.text)
        said = re.search(r"target's loss ([\d.]+) → ([\d.]+) \(([−+][\d.]+)\)", app.text)
        assert said
        before, after, moved = (float(part.replace("−", "-")) for part in said.groups())
        assert math.isclose(after - before, moved, abs_tol=1e-9), "exactly as printed"
        rows = re.findall(r" ([\d.]+) % +([\d.]+) % +([−+][\d.]+) ", app.text)
        assert rows
        for one, two, points in rows:
            assert abs(float(two) - float(one) - float(points.replace("−", "-"))) <= 0.11


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_the_intervals_of_a_reading_are_those_of_the_draw(sampler: SamplerSettings) -> None:
    engine = PipelineEngine("cpu")
    engine.open("nano")
    request = Request(prompt=PROMPT, sampler=sampler)
    distribution = engine.read(request).distribution
    (landing,) = engine.answer(DrawQuestion(request, (sampler,), 0.5)).landings
    assert distribution is not None
    found = distribution.intervals()[: len(landing.segments)]
    assert len(found) == min(distribution.kept, len(distribution.candidates), len(landing.segments))
    for (start, stop), segment in zip(found, landing.segments, strict=False):
        assert math.isclose(start, segment.start, abs_tol=1e-6) and math.isclose(stop, segment.stop, abs_tol=1e-6)


async def test_a_tall_generate_pane_shows_what_u_falls_on() -> None:
    async with lab_at((200, 60), "5") as (app, pilot):
        await until(pilot, lambda: "u from – to" in "\n".join(drawn(app)))
        rows = [m for line in drawn(app) if (m := re.search(r"([\d.]+) %  ([\d.]+) – ([\d.]+)", line))]
        assert rows and rows[-1][3] == "1.0000"
        for row in rows:
            assert abs(float(row[1]) / 100 - (float(row[3]) - float(row[2]))) <= 0.0006
        await pilot.press("g")
        await until(pilot, lambda: "drawn p" in "\n".join(drawn(app)))
