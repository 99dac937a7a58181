"""One step of a run, recomputed: its rows with their places in the corpus, and what made its loss and its gradient."""

from __future__ import annotations

import math
import threading
import time

from textual.app import ComposeResult
from textual.screen import Screen

from tui_llm.common.display import visible
from tui_llm.common.errors import UserError, in_one_line
from tui_llm.training.plan import replay
from tui_llm.training.plan.replay import Origin, ReplayProcess
from tui_llm.training.run.run import Run
from tui_llm.training.run.step_rows import Record, ReplayResult
from tui_llm.tui.kit.actions import FileActions
from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.live import deliver
from tui_llm.tui.kit.over import copy_rows
from tui_llm.tui.kit.widgets.bars import KeyBar
from tui_llm.tui.runs.step_lines import StepLines
from tui_llm.tui.runs.step_row import StepRowScreen

PATIENCE = 2.0  # seconds for which a step that is wanted no more may still be recomputed; then its process is ended

_key = CommandFactory("step", "A step")
KEYS = (
    _key("step_tokens", "enter", "tokens", "Show the row's tokens, each with its loss", "tokens", importance=3),
    _key("step_order", "o", "order", "Order rows and tokens by their part in the gradient's norm, or in the loss again", "order"),
    _key("step_before", "left", "step", "Recompute the step before", "go(-1)", together="step"),
    _key("step_after", "right", "step", "Recompute the next step", "go(1)", together="step"),
    _key("step_branch", "b", "branch", "Branch: a new run that continues from before this step with other settings or without a file", "branch", importance=2),
    _key("step_stop", "s", "stop", "Stop recomputing; what is known stays", "stop"),
    _key("step_from_start", "g", "go on", "Recompute from the run's beginning, although that takes long", "from_start"),
    _key("copy_step", "y", "copy", "Copy the rows with their places and parts (tab-separated)", "copy"),
    _key("close_step", "escape,q", "back", "Back to the chart", "close", importance=WAY_OUT),
)  # fmt: skip


class ReplayScreen(BaseScreen, Screen[tuple[Run, int] | None]):
    """Recomputes step `step` of `run` in a process of its own and shows the results as they come.

    Dismissed with None, or with (run, step) to branch after that step.
    """

    BINDINGS = bindings(KEYS)
    DEFAULT_CSS = """
    ReplayScreen Lines { height: 1fr; border: round $primary; background: $background; padding: 0 1; }
    """

    def __init__(self, run: Run, step: int) -> None:
        super().__init__()
        self.run_shown, self.step = run, step
        self.files = FileActions(self, lambda: None)
        self._list = StepLines(run.name, step)
        self._process: ReplayProcess | None = None
        self._one = threading.Lock()  # held by the thread that reads the process
        self._number = 0  # of recomputations begun; results of any but the newest are dropped

    def compose(self) -> ComposeResult:
        yield self._list
        yield KeyBar()

    def on_mount(self) -> None:
        self._list.focus()
        self.query_one(KeyBar).show_commands(KEYS)
        self._begin()

    def on_unmount(self) -> None:
        self._cancel()

    # ── the process ──────────────────────────────────────────────────────────────────────────────────────────────

    def _cancel(self) -> None:
        """Ends the process, and with it the thread that reads it."""
        self._number += 1
        process, self._process = self._process, None
        if process is not None:
            process.cancel()

    def _begin(self, *, from_start: bool = False) -> None:
        """Recomputes the step, on a thread that reads what the process writes. The process stays for the next step; one that is
        still at work on another step is asked to end with it."""
        self._number += 1
        if self._process is not None and not self._process.ready:
            self._process.finish()
        shown, number = self._list, self._number
        shown.step, shown.replay, shown.problem, shown.origin, shown.running = self.step, ReplayResult(), "", "", True
        shown.show()
        run, step = self.run_shown, self.step
        self.run_worker(lambda: self._work(number, run, step, from_start), name="replay", group="replay", thread=True)

    def _work(self, number: int, run: Run, step: int, from_start: bool) -> None:
        problem = ""
        with self._one:
            if number != self._number:  # another step was chosen meanwhile
                return
            try:
                process = self._start(number, run, step, from_start)
                until = math.inf
                for record in process.records():
                    if number == self._number:
                        deliver(self, self._found, number, record)
                    elif time.monotonic() > (until := min(until, time.monotonic() + PATIENCE)):
                        process.cancel()
            except (UserError, OSError) as error:
                problem = in_one_line(error).replace("--from-start does it", "g does it")
            deliver(self, self._ended, number, problem)

    def _start(self, number: int, run: Run, step: int, from_start: bool) -> ReplayProcess:
        """The process at work on the step: the one that is ready, or a new one."""
        replay.check(run, step)
        process = self._process
        if process is not None and process.ready and (process.from_start == from_start or step == process.step + 1):
            process.again(step)
            deliver(self, self._origin_found, number, process.origin)
            return process
        if process is not None:
            process.cancel()
        deliver(self, self._origin_found, number, replay.origin(run, step - 1))
        self._process = process = ReplayProcess(run, step, from_start=from_start, keep=True)
        if number != self._number:  # it may be that nobody ends it
            process.cancel()
        return process

    def _origin_found(self, number: int, found: Origin) -> None:
        if number == self._number:
            self._list.origin = found.line
            self._list.show()

    def _found(self, number: int, record: Record) -> None:
        if number != self._number:
            return
        replay = self._list.replay
        replay.add(record)
        if replay.step is not None and len(replay.shares) < len(replay.step.rows):
            replay.progress = f"the rows’ parts in the gradient: {len(replay.shares):,} of {len(replay.step.rows):,}"
        self._list.show()

    def _ended(self, number: int, problem: str) -> None:
        if number == self._number:
            self._list.running, self._list.problem = False, problem
            self._list.show()

    # ── actions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def action_go(self, by: int) -> None:
        last = self.run_shown.last_metric()
        if last is not None and 1 <= self.step + by <= last.step:
            self.step += by
            self._begin()

    def action_stop(self) -> None:
        if self._list.running:
            self._cancel()
            self._list.running, self._list.problem = False, "stopped; ← and → recompute a step"
            self._list.show()

    def action_from_start(self) -> None:
        if not self._list.running and self._list.replay.step is None:
            self._begin(from_start=True)

    def action_tokens(self) -> None:
        entry, step = self._list.chosen, self._list.replay.step
        if step is None or entry is None:
            return
        row = entry.row or (step.rows[entry.rank.row] if entry.rank else None)
        if row is not None:
            at = entry.rank.position if entry.rank else 0
            self.app.push_screen(StepRowScreen(self.run_shown.name, step, row, self._list.places(row), at))

    def action_branch(self) -> None:
        self.dismiss((self.run_shown, self.step - 1))

    def action_order(self) -> None:
        if not self._list.replay.complete:
            self.files.notify("the parts in the gradient are not known yet", "warning")
            return
        self._list.by_gradient = not self._list.by_gradient
        self._list.show()

    def action_copy(self) -> None:
        rows = [tuple(map(visible, row)) for row in self._list.table()]
        self.files.notify(copy_rows(self.app, rows))

    def action_close(self) -> None:
        self.dismiss(None)
