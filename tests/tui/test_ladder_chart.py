"""The chart of a ladder: which curve is whose, what is unknown, and what damaged metrics do."""

from __future__ import annotations

import math

import pytest
from rich.style import Style
from textual.theme import BUILTIN_THEMES

from tui_llm.training.plan import ladder_rungs
from tui_llm.training.plan.ladder import Ladder
from tui_llm.training.plan.ladder_results import LadderResults, RungEvaluation, RungResult
from tui_llm.tui.runs import ladder_chart
from tui_llm.tui.runs.curves import plot
from tui_llm.tui.runs.curves.styles import Styles

NAMES = tuple(rung.name for rung in ladder_rungs.RUNGS)


def results(*curves: list[tuple[int, float, float | None, float]]) -> LadderResults:
    """Points are (step, seconds, FLOPs, loss)."""
    ladder = Ladder("up", ("/text.txt",), "toy", "steps", 100.0, NAMES[: len(curves)])
    rungs = tuple(
        RungResult(ladder_rungs.find(name), f"up-{at}-{name}", "finished", "", 9, 9, 9,
                   tuple(RungEvaluation(step, 10 * step, seconds, flops, loss) for step, seconds, flops, loss in curve))
        for at, (name, curve) in enumerate(zip(NAMES, curves, strict=False))
    )  # fmt: skip
    return LadderResults(ladder, rungs, 1.0)


def shown(found: LadderResults, axis: str = "tokens", width: int = 70, height: int = 14) -> tuple[list[str], int]:
    styles = Styles(Style.null(), BUILTIN_THEMES["textual-dark"].to_color_system().generate(), 16, 1)
    lines, count = ladder_chart.lines(found, axis, width, height, styles, Style.null())
    assert all(line.cell_len <= width for line in lines)
    return [line.plain for line in lines], count


def falling(end: float, steps: int = 10) -> list[tuple[int, float, float | None, float]]:
    return [(step, float(step), 1e9 * step, end + 5 * math.exp(1 - step)) for step in range(1, steps + 1)]


def test_each_of_fifteen_rungs_has_a_mark_of_its_own() -> None:
    """Rungs that end at the same loss stand side by side."""
    lines, count = shown(results(*(falling(1 + at // 2 / 10) for at in range(15))))
    text = "".join(line.split("┤", 1)[-1] for line in lines[:-2])
    assert count == 15 and sorted(char for char in text if char.isalnum()) == sorted("0123456789abcde")
    assert len({ladder_chart.mark(number) for number in range(15)}) == 15
    for theme in ("textual-dark", "textual-light", "nord", "gruvbox"):
        styles = Styles(Style.null(), BUILTIN_THEMES[theme].to_color_system().generate(), 15, 1)
        assert len({styles(number) for number in range(15)}) == 15, theme


def test_runs_over_each_other_have_signs_of_their_own() -> None:
    assert [plot.mark(number, 5) for number in range(5)] == list(plot.MARKS)
    assert len({plot.mark(number, 15) for number in range(15)}) == 15


def test_the_first_tenth_does_not_squeeze_the_rest() -> None:
    lines, _ = shown(results(falling(1.0, 40), falling(1.2, 40)))
    top = float(next(line for line in lines if line.split("┤")[0].strip()).split("┤")[0])
    assert top < 3 and lines[-1] == "validation loss by tokens, without the first tenth"
    short, _ = shown(results(falling(1.0, 3)))
    assert short[-1] == "validation loss by tokens"


@pytest.mark.parametrize("axis", ["tokens", "time", "flops", "step"])
def test_what_is_not_known_is_left_out(axis: str) -> None:
    """A run whose status has no FLOPs yet, no time in its metrics, a single point, no point at all."""
    unknown = [(step, 0.0, None, 3.0) for step in (1, 5, 9)]
    lines, count = shown(results(falling(1.0), unknown, [(1, 0.0, None, 2.0)], []), axis)
    assert lines and count == {"flops": 1, "time": 1}.get(axis, 3)
    lines, count = shown(results(unknown), axis)
    assert count == (axis != "flops") and bool(lines) == (axis != "flops")
    assert shown(results([]), axis) == ([], 0)
    for size in ((1, 1), (12, 2), (20, 40)):
        shown(results(falling(1.0), unknown), axis, *size)
