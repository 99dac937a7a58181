"""The loss chart, and the bounded-memory curves that it is drawn from."""

from __future__ import annotations

import dataclasses
import math
import time
from types import SimpleNamespace

import pytest
from helpers import drawn, until
from hypothesis import given
from hypothesis import strategies as st
from textual.app import App, ComposeResult

from tui_llm.common.ticks import log_ticks, nice_ticks
from tui_llm.training.run.curve import Average, Envelope, decimate, moving_average
from tui_llm.tui.kit.widgets import chart as charts
from tui_llm.tui.runs.loss_chart import Curves, LossChart, Other

CURVES = Curves(
    [(step, 1 + 7 * math.exp(-step / 300)) for step in range(1, 2001)],
    [(step, 1.2 + 7 * math.exp(-step / 300)) for step in range(100, 2001, 100)],
    [("ln V", 8.0), ("unigrams", 6.0)],
)
losses = st.floats(-1e6, 1e6)


class ChartApp(App[None]):
    def __init__(self, curves: Curves, log_axis: bool = False) -> None:
        super().__init__()
        self.curves, self.log_axis = curves, log_axis

    def compose(self) -> ComposeResult:
        yield LossChart()

    def on_mount(self) -> None:
        chart = self.query_one(LossChart)
        chart.log_axis = self.log_axis
        chart.show(self.curves)


# ── curves ───────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(losses, min_size=1, max_size=400))
def test_an_envelope_is_bounded_and_keeps_each_buckets_extremes(values: list[float]) -> None:
    envelope = Envelope(16)
    for step, value in enumerate(values, 1):
        envelope.add(step, value)
    points = envelope.points()
    assert len(points) <= 2 * 16
    assert points == tuple(sorted(points))
    assert {(step, values[step - 1]) for step, _ in points} == set(points)  # all are points of the original curve
    kept = [value for _, value in points]
    assert (min(kept), max(kept)) == (min(values), max(values))


def test_non_finite_numbers_stay_out_of_an_envelope() -> None:
    envelope = Envelope()
    for step, value in ((1, math.nan), (2, math.inf), (3, 2.0), (-1, 1.0), (10**400, 1.0)):
        envelope.add(step, value)
    assert envelope.points() == ((3, 2.0),)


@given(st.lists(losses, min_size=1, max_size=300), st.integers(1, 50))
def test_a_moving_average_is_the_plain_mean_of_the_last_steps(values: list[float], window: int) -> None:
    envelope = Envelope()
    for step, value in enumerate(values, 1):
        envelope.add(step, value)
    plain = [values[max(0, at + 1 - window) : at + 1] for at in range(len(values))]
    wanted = [(step, pytest.approx(sum(part) / len(part), abs=1e-6)) for step, part in enumerate(plain, 1)]
    assert list(moving_average(envelope.sums(), window)) == wanted


def test_the_average_of_a_curve_longer_than_its_buckets_is_exact_where_the_window_ends_between_them() -> None:
    values = [math.sin(step / 50) + step % 7 for step in range(1024)]
    envelope = Envelope(128)
    for step, value in enumerate(values):
        envelope.add(step, value)
    points = moving_average(envelope.sums(), 64)  # 8 buckets of 8 steps
    assert len(points) == 128
    for step, mean in points[8:]:
        assert mean == pytest.approx(sum(values[step - 63 : step + 1]) / 64)


def test_an_average_forgets_a_spike_that_has_left_its_window() -> None:
    envelope = Envelope()
    for step in range(1, 101):
        envelope.add(step, 1e17 if step == 20 else 2.0)
    assert [mean for step, mean in moving_average(envelope.sums(), 10) if step >= 30] == [2.0] * 71


@given(st.lists(losses, min_size=1, max_size=300), st.integers(1, 40))
def test_decimation_leaves_two_points_a_column_and_every_spike(values: list[float], columns: int) -> None:
    points = list(enumerate(values, 1))
    kept = decimate(points, columns)
    assert len(kept) <= max(2, 2 * columns)
    assert set(kept) <= set(points)
    assert max(v for _, v in kept) == max(values) and min(v for _, v in kept) == min(values)


@given(st.floats(0, 1e6), st.floats(1e-6, 1e6), st.integers(2, 12))
def test_ticks_lie_on_the_axis_and_are_not_too_many(low: float, span: float, most: int) -> None:
    slack = 1e-6 * (low + span)
    for ticks in (nice_ticks(low, low + span, most), log_ticks(low + 1e-6, low + 1e-6 + span, most)):
        assert 2 <= len(ticks) <= most
        assert all(low - slack <= tick <= low + span + slack + 1e-6 for tick in ticks)


def test_linear_ticks_are_round() -> None:
    assert nice_ticks(0.7, 9.3, 5) == [2, 4, 6, 8]
    assert nice_ticks(0, 1000, 5) == [0, 500, 1000]


# ── drawing ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 40), (5, 3), (20, 5), (40, 9), (80, 24), (300, 80)])
@pytest.mark.parametrize("log_axis", [False, True])
async def test_it_fits_any_size(size: tuple[int, int], log_axis: bool) -> None:
    app = ChartApp(CURVES, log_axis)
    async with app.run_test(size=size):
        lines = app.query_one(LossChart).render().plain.split("\n")
        assert len(lines) <= size[1]
        assert all(len(line) <= size[0] for line in lines)


async def test_the_lines_differ_without_colour_and_carry_their_names() -> None:
    app = ChartApp(CURVES)
    async with app.run_test(size=(80, 24)):
        text = app.query_one(LossChart).render().plain
        assert "training 1.01" in text and "× validation 1.21" in text
        assert "╌╌ ln V = 8.00" in text and "┈┈ unigrams = 6.00" in text
        assert text.count("×") > 5 and any("⠁" <= character <= "⣿" for character in text)


async def test_a_spike_of_one_step_is_seen() -> None:
    flat = [(step, 2.0) for step in range(1, 20_001)]
    spiked = [(step, 9.0 if step == 13_000 else 2.0) for step, _ in flat]
    app = ChartApp(Curves(spiked))
    async with app.run_test(size=(60, 20)):
        chart = app.query_one(LossChart)

        def height() -> int:
            rows = chart.render().plain.split("\n")[1:]  # without the legend
            return sum(any("⠁" <= character <= "⣿" for character in row) for row in rows)

        assert height() > 10
        chart.zoom(1)
        assert height() > 10  # steps 10,000 to 20,000
        chart.zoom(1)
        assert height() == 1  # 18,000 to 20,000: without the spike
        for _ in range(6):
            chart.pan(-1)
        assert height() > 10  # 12,000 to 14,000


async def test_a_zoomed_chart_names_its_steps_and_the_lines_outside_of_it() -> None:
    app = ChartApp(CURVES)
    async with app.run_test(size=(80, 24)):
        chart = app.query_one(LossChart)
        assert chart.range() == (1, 2000)
        chart.zoom(1)
        assert chart.range() == (1000.5, 2000) and "last half" in chart.render().plain
        chart.zoom(1)
        chart.zoom(1)  # no further zoom
        text = chart.render().plain
        assert chart.range() == (pytest.approx(1800.1), 2000)
        assert "last tenth" in text and "1,900" in text and "1,000" not in text
        assert "ln V 8 ↑" in text and "unigrams 6 ↑" in text and "ln V =" not in text
        chart.pan(1)
        assert "last tenth" in chart.render().plain
        chart.pan(-1)
        assert "steps 1,700 to 1,900" in chart.render().plain
        for _ in range(50):
            chart.pan(-1)
        assert chart.range() == (1, pytest.approx(200.9)) and "last tenth" not in chart.render().plain
        chart.zoom(-1)
        chart.zoom(-1)
        assert chart.range() == (1, 2000) and "last" not in chart.render().plain


async def test_a_range_without_a_loss_says_so() -> None:
    app = ChartApp(Curves([(1, 2.0), (2, 3.0), (100, math.nan)]))
    async with app.run_test(size=(60, 12)):
        chart = app.query_one(LossChart)
        chart.zoom(1)
        assert "no loss was recorded in these steps" in chart.render().plain


async def test_an_average_is_drawn_over_the_points_with_marks_of_its_own() -> None:
    average = Average(0.05, 100, tuple((step, 4.0) for step in range(1, 2001)))
    app = ChartApp(dataclasses.replace(CURVES, averages=(average,)))
    async with app.run_test(size=(80, 24)):
        chart = app.query_one(LossChart)
        blocks = set("▀▄▌▐▖▗▘▝▞▚")
        assert not blocks & set(chart.render().plain)
        chart.smooth()
        text = chart.render().plain
        assert "mean of 100 steps (5 %) 4" in text
        assert sum(character in blocks for character in text) > 60
        assert any("⠁" <= character <= "⣿" for character in "".join(text.split("\n")[2:]))
        chart.smooth()
        assert not blocks & set(chart.render().plain)


async def test_all_four_baselines_are_distinct_and_no_name_covers_another() -> None:
    levels = [("ln V", 8.0), ("unigrams", 6.0), ("bigrams", 4.0), ("floor", 0.5)]
    app = ChartApp(dataclasses.replace(CURVES, levels=levels))
    async with app.run_test(size=(80, 30)):
        text = app.query_one(LossChart).render().plain
        for wanted in ("╌╌ ln V = 8.00", "┈┈ unigrams = 6.00", "── bigrams = 4.00", "══ floor = 0.50"):
            assert wanted in text
    near = [("ln V", 8.0), ("unigrams", 7.9)]
    app = ChartApp(dataclasses.replace(CURVES, levels=near))
    async with app.run_test(size=(80, 30)):
        text = app.query_one(LossChart).render().plain
        # in the legend, since there is no room next to the line
        assert "ln V = 8.00" in text and "┈ unigrams 7.9" in text


async def test_names_in_the_legend_shorten_where_they_would_be_cut() -> None:
    levels = [("ln V", 8.32), ("unigrams", 4.71), ("bigrams", 1.81), ("floor", 0.868), ("nano", 3.79)]
    curves = Curves([(1, 8.6), (80, 1.44)], [(1, 8.5), (80, 2.17)], levels)
    for width, wanted in ((100, "training 1.44  × validation 2.17"), (62, "train 1.44  × val 2.17")):
        app = ChartApp(curves)
        async with app.run_test(size=(width, 7)):
            legend = app.query_one(LossChart).render().plain.split("\n")[0]
            assert wanted in legend and "nano 3.79" in legend and "…" not in legend


async def test_other_runs_have_marks_and_names_of_their_own() -> None:
    others = [Other(name, [(step, loss) for step in range(1, 2001)]) for name, loss in (("one", 3.0), ("two", 5.0))]
    app = ChartApp(dataclasses.replace(CURVES, others=others))
    async with app.run_test(size=(80, 24)):
        text = app.query_one(LossChart).render().plain
        assert "+ one 3" in text and "o two 5" in text
        body = "\n".join(text.split("\n")[2:])
        assert body.count("+") > 10 and body.count("o") > 10


@pytest.mark.parametrize(
    "curves",
    [
        Curves(),
        Curves([(1, 2.0)]),
        Curves([(5, 2.0), (6, 2.0)], [(6, 2.0)], [("ln V", 2.0)]),
        Curves([(1, math.nan)]),
        Curves([(1, math.inf), (2, 3.0), (3, -math.inf)], [(2, math.nan)], [("ln V", math.inf)]),
        Curves([(1, 0.0), (2, 0.0)]),
        Curves([(1, -1.0), (2, 1e300), (3, -1e300)]),
        Curves([(1, 1e-300), (2, 2e-300)]),
        Curves([], [(1, 3.0)]),
        Curves([(10**11, 3.0), (10**12 - 1, 4.0)]),
    ],
)
async def test_degenerate_curves_are_drawn_without_warnings(curves: Curves, capfd: pytest.CaptureFixture[str]) -> None:
    for log_axis in (False, True):
        app = ChartApp(curves, log_axis)
        async with app.run_test(size=(60, 12)):
            text = app.query_one(LossChart).render().plain
            finite = any(math.isfinite(value) for _, value in [*curves.train, *curves.validation])
            assert ("no step" in text) != finite
    assert capfd.readouterr() == ("", "")


async def test_it_is_painted_at_most_twice_a_second_and_ends_with_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    app = ChartApp(CURVES)
    async with app.run_test(size=(60, 12)) as pilot:
        chart = app.query_one(LossChart)
        painted = chart._painted = time.monotonic()  # opening the app may have taken longer than REPAINT
        with monkeypatch.context() as patch:  # and so may these changes: no time passes between them
            patch.setattr(charts, "time", SimpleNamespace(monotonic=lambda: painted))
            for step in range(2001, 2010):
                chart.show(Curves([*CURVES.train, (step, 0.5)]))
        assert chart._painted == painted  # none of these changes has been painted yet
        await until(pilot, lambda: chart._painted > painted)
        await until(pilot, lambda: any("training 0.5" in line for line in drawn(app)))


@pytest.mark.parametrize("theme", ["textual-light", "ansi-dark", "ansi-light", "nord"])
async def test_it_takes_its_colours_from_the_theme(theme: str) -> None:
    app = ChartApp(CURVES)
    async with app.run_test(size=(60, 12)) as pilot:
        before = str(app.query_one(LossChart).render().spans)
        app.theme = theme
        await pilot.pause()
        assert str(app.query_one(LossChart).render().spans) != before
