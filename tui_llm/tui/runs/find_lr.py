"""A learning rate for a new run: short runs in a subprocess, their losses on a chart, the pick."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from textual.app import ComposeResult
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from tui_llm.common.display import visible
from tui_llm.common.errors import UserError, in_one_line
from tui_llm.common.numbers import counted, duration
from tui_llm.training.plan.find_lr import RateFinder, RateRecord, RateResult, basis
from tui_llm.tui.kit.actions import FileActions
from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.live import deliver, is_live
from tui_llm.tui.kit.over import copy_rows
from tui_llm.tui.kit.widgets.bars import Bar, KeyBar
from tui_llm.tui.runs.find_lr_chart import RateChart
from tui_llm.tui.tour.pane import left_of

_key = CommandFactory("find_lr", "A learning rate")
KEYS = (
    _key("take_rate", "enter", "take", "Take the pick into the form", "take", importance=2),
    _key("again_rate", "r", "again", "Try again, from the beginning", "again"),
    _key("stop_rate", "s", "stop", "Stop trying; what is known stays", "stop"),
    _key("copy_rates", "y", "copy", "Copy rates, steps and losses (tab-separated)", "copy"),
    _key("close_rate", "escape,q", "keep", "Keep the rate of the form", "close", importance=WAY_OUT),
)  # fmt: skip

Find = Callable[[], RateFinder]
"""Starts a search. Called on a thread; raises `UserError`."""


class FindRateScreen(BaseScreen, Screen[float | None]):
    """Dismissed with the picked learning rate, or with None. `own` is the form's rate."""

    BINDINGS = bindings(KEYS)
    DEFAULT_CSS = """
    FindRateScreen { layout: vertical; }
    FindRateScreen RateChart { border: round $primary; background: $background; }
    FindRateScreen #doing { height: 1; padding: 0 1; }
    FindRateScreen #basis { height: auto; max-height: 5; padding: 0 1; color: $text-muted; }
    FindRateScreen.-low RateChart { border: none; }
    FindRateScreen.-low #basis { max-height: 1; }
    """

    def __init__(self, find: Find, own: str) -> None:
        super().__init__()
        self._find, self._own = find, own
        self.files = FileActions(self, lambda: None)
        self.result = RateResult()
        self.problem = ""
        self.running = False
        self._finder: RateFinder | None = None
        self._number = 0  # of searches begun; results of any but the newest are dropped

    def compose(self) -> ComposeResult:
        yield Bar(id="title")
        yield RateChart()
        yield Static(id="doing")
        yield Static(id="basis")
        yield KeyBar()

    def on_mount(self) -> None:
        self.query_one("#title", Bar).put(
            Content.styled("A learning rate: the last validation loss (nats per token) against the rate", "bold")
        )
        self.query_one(KeyBar).show_commands(KEYS)
        self._begin()

    def on_resize(self) -> None:
        self.set_class(left_of(self).height < 14, "-low")

    def on_unmount(self) -> None:
        self._cancel()

    # ── the search ───────────────────────────────────────────────────────────────────────────────────────────────

    def _cancel(self) -> None:
        self._number += 1
        finder, self._finder = self._finder, None
        if finder is not None:
            finder.process.kill()  # its thread waits for it, and deletes its files

    def _begin(self) -> None:
        self._cancel()
        self.result, self.problem, self.running = RateResult(), "", True
        self._show()
        number, find, call_later = self._number, self._find, self.app.call_later
        self.run_worker(lambda: self._work(number, find, call_later), name="find_lr", group="find_lr", thread=True)

    def _work(self, number: int, find: Find, call_later: Callable[..., object]) -> None:
        problem = ""
        try:
            finder = find()
            call_later(self._started, number, finder)
            for record in finder.records():
                deliver(self, self._found, number, record)
        except (UserError, OSError) as error:
            problem = in_one_line(error)
        deliver(self, self._ended, number, problem)

    def _started(self, number: int, finder: RateFinder) -> None:
        if number == self._number and is_live(self):
            self._finder = finder
        else:
            finder.process.kill()

    def _found(self, number: int, record: RateRecord) -> None:
        if number == self._number:
            self.result.add(record)
            self._show()

    def _ended(self, number: int, problem: str) -> None:
        if number == self._number:
            self._finder, self.running, self.problem = None, False, problem
            self._show()

    # ── what is shown ────────────────────────────────────────────────────────────────────────────────────────────

    def _show(self) -> None:
        self.query_one(RateChart).show(self.result)
        self.query_one("#doing", Static).update(Content(visible(self._doing())))
        lines = self._legend() if self.result.pick is None else basis(self.result.pick)
        self.query_one("#basis", Static).update(Content("\n".join(map(visible, lines))))

    def _doing(self) -> str:
        result, progress = self.result, self.result.progress
        if result.pick is not None:
            return f"┃ pick: {result.pick.rate:g}, instead of {self._own} (Enter takes it)"
        if self.problem:
            return f"✗ {self.problem}"
        if progress is None or progress.doing or not progress.steps:
            return f"{progress.doing if progress and progress.doing else 'starting'} …"
        loss = "" if progress.loss is None else f", training loss {progress.loss:.3f}"
        left = "" if progress.left is None else f"; at most about {duration(progress.left)} more"
        return f"rate {progress.rate:g}: step {progress.step:,} of {progress.steps:,}{loss}{left}"

    def _legend(self) -> list[str]:
        if self.result.begin is None:
            return ["each rate is tried by a short run of its own; about a minute"]
        marks = ["× few steps", "o many steps", "↑ above the chart", "! diverged or learned nothing"]
        speed = f"{self.result.begin.step_seconds:.2g} s a step on {self.result.begin.device}"
        return ["   ".join(marks), f"{counted(len(self.result.trials), 'trial')} so far; {speed}"]

    def table(self) -> Iterable[tuple[str, ...]]:
        yield "rate", "steps", "validation_loss"
        for trial in self.result.trials:
            yield f"{trial.rate:g}", str(trial.steps), "" if trial.loss is None else f"{trial.loss:.6f}"

    # ── actions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def action_take(self) -> None:
        if self.result.pick is None:
            self.files.notify("there is no pick yet; Esc keeps the rate of the form", "warning")
            return
        self.dismiss(self.result.pick.rate)

    def action_again(self) -> None:
        if not self.running:
            self._begin()

    def action_stop(self) -> None:
        if self.running:
            self._cancel()
            self.running, self.problem = False, "stopped; r tries again"
            self._show()

    def action_copy(self) -> None:
        self.files.notify(copy_rows(self.app, list(self.table())))

    def action_close(self) -> None:
        self.dismiss(None)
