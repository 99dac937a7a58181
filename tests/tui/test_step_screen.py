"""The reading cursor of the loss chart, the screen of a recomputed step, and branches, through the real app."""

from __future__ import annotations

import dataclasses
import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_run
import pytest
from helpers import answered, drawn, make_app, unsafe, until
from textual.app import App
from textual.screen import Screen

from tests import HANG
from tests.training.run_helpers import words
from tests.training.run_helpers import work as in_a_process
from tui_llm.common.errors import UserError
from tui_llm.training.plan import launch
from tui_llm.training.plan.replay import Origin
from tui_llm.training.run import step_rows
from tui_llm.training.run.curve import ParentCurve, spikes
from tui_llm.training.run.run import find
from tui_llm.training.run.settings import TrainingSettings
from tui_llm.training.run.step_rows import Record
from tui_llm.training.worker.replay import StepReplay
from tui_llm.tui.runs import step as step_module
from tui_llm.tui.runs.branch import BranchScreen
from tui_llm.tui.runs.chart_export import loss_data
from tui_llm.tui.runs.loss_chart import Curves, LossChart, Other
from tui_llm.tui.runs.pane import TrainingPane
from tui_llm.tui.runs.step import ReplayScreen
from tui_llm.tui.runs.step_lines import StepLines
from tui_llm.tui.runs.step_row import StepRowScreen

SETTINGS = TrainingSettings(
    tokenizer="byte", layers=1, heads=2, width=16, block_size=16, batch_size=2, steps=60, learning_rate=1e-2,
    min_learning_rate=1e-3, warmup_steps=5, eval_every=30, eval_batches=2, checkpoint_every=20, sample_tokens=4,
    precision="fp32",
)  # fmt: skip


class InProcess:
    """A `ReplayProcess` that computes in this process."""

    made: list[InProcess] = []

    def __init__(
        self, run: Any, step: int, *, from_start: bool = False, gradients: bool = True, keep: bool = False
    ) -> None:
        self.run, self.step, self.from_start = run, step, from_start
        self.ready = False
        self.asked = [step]
        self.origin = Origin(0, 0, None)
        self.made.append(self)

    def again(self, step: int) -> None:
        assert self.ready
        self.asked.append(step)
        self.step, self.ready = step, False

    def finish(self) -> None:
        pass

    def records(self) -> Iterator[Record]:
        made: list[dict[str, Any]] = []
        work = StepReplay(self.run, self.step, made.append, from_start=self.from_start)
        made.append({"step": work.measure()})
        for value in (*made, *work.gradients()):
            if (record := step_rows.parse(json.loads(json.dumps(value)))) is not None:
                yield record
        self.ready = True

    def cancel(self) -> None:
        self.ready = False


class ScreenApp(App[None]):
    def __init__(self, screen: Screen[Any]) -> None:
        super().__init__()
        self.opened = screen

    def on_mount(self) -> None:
        self.push_screen(self.opened)

    @property
    def text(self) -> str:
        return "\n".join(drawn(self)).replace("\N{NO-BREAK SPACE}", " ")  # type: ignore[arg-type]


# ── the cursor ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_spikes_are_the_points_that_stand_out() -> None:
    points = [(step, 5.0 - step / 50) for step in range(1, 101)]
    assert spikes(points) == []
    points[40], points[70] = (41, 6.0), (71, 9.0)
    assert spikes(points) == [(71, 9.0), (41, 6.0)]
    assert spikes(points[:3]) == []


def test_an_exported_chart_of_a_branch_has_its_parent() -> None:
    parent = ParentCurve("tales", 40, [(step, 4.0) for step in range(1, 41)])
    data = loss_data("branch", Curves([(41, 3.0)], parent=parent), log_y=False)
    assert [(line.name, len(line.points)) for line in data.lines] == [("tales to step 40", 40), ("training", 1)]
    assert [line.name for line in loss_data("run", Curves([(1, 3.0)]), log_y=False).lines] == ["training"]


async def test_a_zoomed_chart_shows_the_newest_steps_of_the_run_beside_a_longer_one() -> None:
    app = ChartApp()
    async with app.run_test(size=(100, 24)):
        chart = app.query_one(LossChart)
        chart.show(Curves([(step, 3.0) for step in range(1, 102)], others=(Other("long", [(1, 3.0), (1000, 2.0)]),)))
        assert chart.range() == (1, 1000)
        chart.zoom(1)
        assert chart.range() == (51, 101)
        chart.show_all_steps()
        assert chart.range() == (1, 1000)


class ChartApp(App[None]):
    def compose(self) -> Iterator[LossChart]:
        yield LossChart()


async def test_the_cursor_reads_every_curve_and_stays_in_sight() -> None:
    train = [(step, 4.0 - step / 100 + 3 * (step == 57)) for step in range(41, 201)]
    parent = [(step, 4.0 - step / 100 + 2 * (step == 20)) for step in range(1, 41)]
    curves = Curves(train, [(step, 3.5) for step in range(50, 201, 50)], parent=ParentCurve("tales", 40, parent))
    app = ChartApp()
    async with app.run_test(size=(120, 24)) as pilot:
        chart = app.query_one(LossChart)
        chart.show(curves)
        await until(pilot, lambda: "tales to step 40 3.6" in str(chart.render()))
        assert chart.next_spike(1) and chart.cursor == 57
        shown = str(chart.render())
        assert (
            "│ step 57" in shown and "training 6.4300" in shown and "validation 3.5000 at 50" in shown and "┊" in shown
        )
        assert chart.next_spike(1) and chart.cursor == 20
        assert "training" not in str(chart.render()) and "tales to step 40 5.8000" in str(chart.render())
        chart.next_spike(-1)
        chart.move_cursor(2)
        assert chart.cursor == 59
        chart.move_cursor(10_000)
        assert chart.cursor is None and "step" not in str(chart.render()).splitlines()[0].replace("to step", "")
        chart.zoom(1)
        chart.zoom(1)  # the last tenth
        chart.move_cursor(-100)
        assert chart.cursor == 101
        left, right = chart.range()
        assert left <= 101 <= right
        chart.move_cursor(-10_000)
        assert chart.cursor == 1


# ── a step ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "text.txt").write_text(words(2000))
    draw = random.Random(7)
    (folder / "noise.txt").write_text("".join(chr(draw.randrange(33, 127)) for _ in range(200)))
    return folder


async def test_a_spike_is_found_by_cursor_and_branched_without_its_file(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spike's step, file, offset and tokens; the same run without that file, over it in one chart."""
    monkeypatch.setattr(step_module, "ReplayProcess", InProcess)
    started: list[str] = []
    monkeypatch.setattr(launch, "start", lambda run: started.append(run.name))
    run = launch.create("tales", [str(corpus)], SETTINGS, preset="toy", device="cpu")
    assert in_a_process(run) == 0, run.log_path.read_text()
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "4")
        pane = app.query_one(TrainingPane)
        await until(pilot, lambda: pane.snapshot is not None and len(pane.snapshot.train) == 60)
        await pilot.press("up")
        chart = app.query_one(LossChart)
        await until(pilot, lambda: chart.cursor is not None)
        step = chart.cursor
        assert step is not None
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ReplayScreen))
        shown = app.screen.query_one(StepLines)
        await until(pilot, lambda: not shown.running)
        assert not shown.problem, shown.problem
        text = " ".join(line.strip("│ ") for line in drawn(app))
        assert f"Step {step} of tales" in text and "matches the log: yes, bit for bit" in text
        assert "what made this: row" in text and "of ‖g‖" in text and "by file: noise.txt" in text
        row = shown.replay.ordered()[0]
        noise = [part for part in row.parts if part.place.file == str(corpus / "noise.txt")]
        assert noise and f"noise.txt, byte {noise[0].place.offset:,}" in text
        data, offset = (corpus / "noise.txt").read_bytes(), noise[0].place.offset or 0
        mine = b"".join(token.bytes for token in row.tokens[noise[0].first :] if not token.special)
        assert data[offset:].startswith(mine) or mine.startswith(data[offset:])

        await pilot.press("o")
        await until(pilot, lambda: "Rows by their part in the gradient’s norm" in "\n".join(drawn(app)))
        await pilot.press("o", "home", "enter")  # its tokens
        await until(pilot, lambda: isinstance(app.screen, StepRowScreen))
        await until(pilot, lambda: f"the batch of step {step}" in "\n".join(drawn(app)))
        assert unsafe(drawn(app)) == set()
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, ReplayScreen))

        await pilot.press("b")
        await until(pilot, lambda: isinstance(app.screen, BranchScreen))
        assert app.screen.text("step") == str(step - 1)
        assert not app.screen.query("#minutes")  # a branch ends by its number of steps
        await until(pilot, lambda: "noise.txt, text.txt" in "\n".join(drawn(app)))
        for character in "noise.txt":
            await pilot.press("full_stop" if character == "." else character)
        await pilot.press("ctrl+s")
        await until(pilot, lambda: started)
        made = find(started[0])
        assert made.config().corpus == (str(corpus / "text.txt"),)
        assert (made.config().parent, made.config().parent_step) == ("tales", step - 1)
        assert in_a_process(made) == 0, made.log_path.read_text()
        await until(pilot, lambda: pane.snapshot is not None and pane.snapshot.name == made.name)
        pane.reload()
        await until(pilot, lambda: pane.snapshot is not None and pane.snapshot.train and pane.others)
        await until(pilot, lambda: chart.curves.parent is not None and chart.curves.others)
        assert chart.curves.parent is not None and chart.curves.parent.name == "tales"
        assert [point[0] for point in chart.curves.parent.train] == list(range(1, step))
        assert [other.name for other in chart.curves.others] == ["tales"]
        before, after = dict(chart.curves.others[0].train), dict(chart.curves.train)
        assert after[step] < before[step] - 0.5  # the spike is gone


async def test_one_process_serves_step_after_step_and_only_the_newest_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, cut = threading.Event(), threading.Event()

    class Slow(InProcess):
        def finish(self) -> None:
            cut.set()

        def records(self) -> Iterator[Record]:
            if len(self.asked) == 2:  # the second step's rows take long
                begun.set()
                cut.wait(HANG)
            value = {**HOSTILE, "step": self.step}
            record = step_rows.parse(json.loads(json.dumps({"step": value})))
            assert record is not None
            yield record
            self.ready = True

    monkeypatch.setattr(step_module, "ReplayProcess", Slow)
    monkeypatch.setattr(Slow, "made", [])
    app = ScreenApp(ReplayScreen(fake_run.make("tales", done=40), 7))
    async with app.run_test(size=(100, 30)) as pilot:
        shown = app.opened.query_one(StepLines)

        def known(step: int) -> bool:
            return not shown.running and shown.replay.step is not None and shown.replay.step.step == step

        await until(pilot, lambda: known(7))
        await pilot.press("right")
        await until(pilot, begun.is_set)
        await pilot.press("right", "right")  # while it is at work; 9 is passed over, or not, and 10 is shown
        await until(pilot, lambda: known(10))
        (only,) = Slow.made
        assert only.asked[:2] == [7, 8] and only.asked[-1] == 10 and cut.is_set()
        await pilot.press("left")
        await until(pilot, lambda: known(9))
        await pilot.press("s", "right")
        await until(pilot, lambda: known(10))
        assert len(Slow.made) <= 2


async def test_what_cannot_be_recomputed_is_said_and_can_be_insisted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    run = fake_run.make("tales", steps=100, done=50)
    asked: list[bool] = []

    def refuse(_run: Any, step: int, *, from_start: bool = False, keep: bool = False) -> Any:
        asked.append(from_start)
        raise UserError(f"step {step} is far from the last checkpoint before it: --from-start does it")

    monkeypatch.setattr(step_module, "ReplayProcess", refuse)
    monkeypatch.setattr(step_module.replay, "origin", lambda *_: Origin(0, 41, 5000.0))
    app = ScreenApp(ReplayScreen(run, 42))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "step 42 is far" in app.text)
        assert "g does it" in app.text
        await pilot.press("right", "right")
        await until(pilot, lambda: "step 44 is far" in app.text)
        await pilot.press("g")
        await until(pilot, lambda: asked[-1])
        run.write_config(dataclasses.replace(run.config(), nproc=2))
        await pilot.press("left")
        await until(pilot, lambda: "2 processes are not recomputed" in app.text)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is not app.opened)


HOSTILE = {
    "step": 7, "begun": 0, "loss": 2.0, "grad_norm": 1.0, "lr": 1e-3, "logged": None, "why": "\x1b[31m[red]",
    "unplaced": "", "dropout": True, "special": [],
    "bytes": {"0": "1b5b33316d", "1": "e78cab", "2": "5b2f5d"},
    "rows": [{"row": 0, "ids": [0, 1, 2], "losses": [None, 3.0], "parts": [[0, ["/x/\x1b[31m[/].txt", 5, None]]]},
             {"row": 1, "ids": [2, 1, 0], "losses": [1.0, 1.0], "parts": []}],
    "pins": [{"prompt": "\x1b]0;x\x07", "target": None, "token": 0, "before": 0.5, "after": 0.25, "loss_before": 0.7,
              "loss_after": 1.4, "problem": ""},
             {"prompt": "[/]", "target": "x", "token": None, "before": None, "after": None, "loss_before": None,
              "loss_after": None, "problem": "\x9b1m too long"}],
    "top": [[0, 0, ["/x/\x1b[31m[/].txt", 5, 2]], [1, 1, None]],
}  # fmt: skip


@pytest.mark.parametrize("size", [(1, 1), (80, 24), (200, 60)])
async def test_hostile_text_is_safe_at_any_size(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    class Hostile(InProcess):
        def records(self) -> Iterator[Record]:
            for value in ({"step": HOSTILE}, {"row": 0, "norm": 1.0, "share": -0.2, "tokens": [0.1, -0.3]},
                          {"row": 1, "norm": 2.0, "share": 1.2, "tokens": [1.0, 0.2]}):  # fmt: skip
                record = step_rows.parse(json.loads(json.dumps(value)))
                assert record is not None
                yield record

    monkeypatch.setattr(step_module, "ReplayProcess", Hostile)
    app = ScreenApp(ReplayScreen(fake_run.make("tales", done=20), 7))
    async with app.run_test(size=size) as pilot:
        shown = app.opened.query_one(StepLines)
        await until(pilot, lambda: not shown.running)
        assert not shown.problem
        if size == (200, 60):
            assert "−20.0 %" in app.text and "120.0 %" in app.text  # a row that pulls against the batch
        await pilot.press("down", "down", "y", "home", "end")
        assert unsafe(drawn(app)) == set()  # type: ignore[arg-type]
        if size == (1, 1):  # no line is in sight
            return
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, StepRowScreen))
        assert unsafe(drawn(app)) == set()  # type: ignore[arg-type]


async def test_the_form_says_what_is_wrong_beside_each_field() -> None:
    run = fake_run.make("tales", steps=100, done=50)
    screen = BranchScreen(run, 40, run.config())
    app = ScreenApp(screen)
    async with app.run_test(size=(120, 60)) as pilot:
        await until(pilot, lambda: "Branch of tales" in app.text)
        assert "tales-at-40" in app.text
        screen.query_one("#learning_rate").value = "x"  # type: ignore[attr-defined]
        screen.query_one("#step").value = "-1"  # type: ignore[attr-defined]
        screen.query_one("#name").value = "tales"  # type: ignore[attr-defined]
        await until(
            pilot, lambda: all(words in app.text for words in ("a whole number of steps", "a number", "already exists"))
        )
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "learning rate: " in app.text)
        assert app.screen is screen
        for name, text in (("learning_rate", "0.001"), ("step", "70"), ("name", "other")):
            screen.query_one(f"#{name}").value = text  # type: ignore[attr-defined]
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "has taken 50 steps" in app.text)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is not screen)
