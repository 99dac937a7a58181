"""The chart of a run's losses, and the curves in bounded memory that it is drawn from."""

from __future__ import annotations

import math

import pytest
from helpers import drawn, until
from hypothesis import given
from hypothesis import strategies as st
from textual.app import App, ComposeResult

from tui_llm.tui.run_watch import Envelope, decimate
from tui_llm.tui.widgets.loss_chart import Curves, LossChart, log_ticks, nice_ticks

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
    assert {(step, values[step - 1]) for step, _ in points} == set(points)  # all of them are points of the curve
    kept = [value for _, value in points]
    assert (min(kept), max(kept)) == (min(values), max(values))


def test_what_is_no_finite_number_stays_out_of_an_envelope() -> None:
    envelope = Envelope()
    for step, value in ((1, math.nan), (2, math.inf), (3, 2.0), (-1, 1.0), (10**400, 1.0)):
        envelope.add(step, value)
    assert envelope.points() == ((3, 2.0),)


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
        rows = app.query_one(LossChart).render().plain.split("\n")
        curve = [any("⠁" <= character <= "⣿" for character in row) for row in rows[1:]]  # below the legend
        assert sum(curve) > 10


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
async def test_degenerate_curves_are_drawn_without_a_word_on_the_terminal(
    curves: Curves, capfd: pytest.CaptureFixture[str]
) -> None:
    for log_axis in (False, True):
        app = ChartApp(curves, log_axis)
        async with app.run_test(size=(60, 12)):
            text = app.query_one(LossChart).render().plain
            finite = any(math.isfinite(value) for _, value in [*curves.train, *curves.validation])
            assert ("no step" in text) != finite
    assert capfd.readouterr() == ("", "")


async def test_it_is_painted_at_most_twice_a_second_and_ends_with_the_newest() -> None:
    app = ChartApp(CURVES)
    async with app.run_test(size=(60, 12)) as pilot:
        chart = app.query_one(LossChart)
        painted = chart._painted
        for step in range(2001, 2010):
            chart.show(Curves([*CURVES.train, (step, 0.5)]))
        assert chart._painted == painted  # all of that at once: none of it painted yet
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
