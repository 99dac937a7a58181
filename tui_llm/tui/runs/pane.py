"""The Training pane: shows the watched run, read from its directory. The run goes on without the pane, which finds it
again."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from textual import events
from textual.app import ComposeResult
from textual.containers import Container
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from tui_llm.common.paths import run_model
from tui_llm.training.run.run import Run
from tui_llm.training.run.snapshot import RunSnapshot
from tui_llm.tui.kit.actions import FileActions
from tui_llm.tui.kit.command import PANE_TITLES, PANES, bindings
from tui_llm.tui.runs import alarm_words, answer_lines
from tui_llm.tui.runs.gauges_line import gauge_parts, note_line
from tui_llm.tui.runs.keys import KEYS
from tui_llm.tui.runs.loss_chart import LossChart
from tui_llm.tui.runs.pane_lines import NOTHING, curves, facts_line, flowed, message_line, numbers_line, progress_line
from tui_llm.tui.runs.run_news import RunNews
from tui_llm.tui.runs.run_watcher import RunWatcher
from tui_llm.tui.runs.watched_run import KEYS as RUN_KEYS
from tui_llm.tui.runs.watched_run import WatchedRunController
from tui_llm.tui.runs.words import sample_text
from tui_llm.tui.state.messages import CheckpointSaved, ModelChosen, RoomWanted, RunNoticed, RunWatched

WIDE = 96  # columns from which the sample is placed beside the chart

LOW = 12  # rows below which only the most important facts stand beside the chart
FACTS_FROM = 18  # rows from which corpus, preset and device have a line


class TrainingPane(Widget, can_focus=True):
    BINDINGS = bindings((*KEYS, *RUN_KEYS), "training")
    DEFAULT_CSS = """
    TrainingPane { overflow: hidden; }
    TrainingPane Static { width: 1fr; }
    TrainingPane #run-head, TrainingPane #run-message { height: auto; max-height: 6; }
    TrainingPane #run-message { display: none; max-height: 3; }
    TrainingPane #run-message.-some { display: block; }
    TrainingPane #run-body { height: 1fr; layout: vertical; display: none; }
    TrainingPane.-run #run-body { display: block; }
    TrainingPane #run-sample { height: auto; max-height: 3; }
    TrainingPane.-flat #run-sample { max-height: 2; }
    TrainingPane.-low #run-sample { display: none; }
    TrainingPane.-wide #run-body { layout: horizontal; }
    TrainingPane.-wide LossChart { width: 5fr; }
    TrainingPane.-wide #run-sample { width: 3fr; height: 1fr; max-height: 100%; padding-left: 2; }
    """

    def __init__(self) -> None:
        super().__init__(id="training", classes="pane")
        self.border_title = Content(f"{PANES.index('training') + 1} {PANE_TITLES['training']}")
        self.snapshot: RunSnapshot | None = None
        self.others: tuple[RunSnapshot, ...] = ()
        self._news = RunNews()
        self.curve = 0  # the quantity in the chart, of a run that learns from answers
        self._shown: dict[str, object] = {}
        self._room: int | None = 3  # lines of the pane, as it last said
        self.files = FileActions(self, self.reload)
        run = WatchedRunController(self, self.files, lambda: self.run_watched, lambda: self.snapshot, self._branched)
        self.action_batch = run.open_batch
        self.action_open_step = lambda: run.open_step(self.query_one(LossChart).cursor)
        self.action_samples = run.open_samples
        self.action_heads = run.open_heads
        self.action_alarms = run.open_alarms
        self.action_machine = run.open_machine
        self.action_worker_log = run.open_log
        self.action_curves = lambda: run.open_curves(self.watcher.compared_runs)
        self.action_export_chart = run.export_chart
        self.action_how_it_learned = run.open_history
        self.action_open_run = run.open_model
        self.action_pause_run = run.toggle_pause
        self.action_stop_run = run.stop
        self.action_resume_run = run.resume
        self.action_save_checkpoint = run.save_checkpoint
        self.action_learning_rate = run.change_learning_rate

    def compose(self) -> ComposeResult:
        yield RunWatcher()
        yield Static(Content("looking for a training run …"), id="run-head")
        yield Static(id="run-message")
        with Container(id="run-body"):
            yield LossChart(id="run-chart")
            yield Static(id="run-sample")

    # ── what is shown ────────────────────────────────────────────────────────────────────────────────────────────

    def on_run_watcher_updated(self, message: RunWatcher.Updated) -> None:
        message.stop()
        before, now = self.snapshot, message.snapshot
        if before and now and before.name != now.name:
            self.query_one(LossChart).show_all_steps()
        self.snapshot, self.others = now, message.others
        self._show()
        seen = (before.name, before.checkpoint) if before else None
        if now and now.checkpoint is not None and (now.name, now.checkpoint) != seen:
            self.post_message(CheckpointSaved(now.name, now.checkpoint))
        if lines := self._news.of(now):
            self.post_message(RunNoticed(lines))
        if now and before and now.name != before.name:
            self.post_message(RunWatched(now.name))

    def on_resize(self, _event: events.Resize) -> None:
        width, height = self.content_size
        self.set_class(width >= WIDE, "-wide")
        self.set_class(height < 15 and width < WIDE, "-flat")
        self.set_class(height < LOW and width < WIDE, "-low")
        self._show()

    def _show(self) -> None:
        snapshot = self.snapshot
        with self.app.batch_update():
            self.set_class(snapshot is not None, "-run")
            self._say_room()
            if snapshot is None:
                self._put("#run-head", NOTHING)
                self._put("#run-message", Content())
                return
            width, height = self.content_size
            parts = gauge_parts(snapshot) if height >= FACTS_FROM else []
            numbers = numbers_line(snapshot, width, 1 if height < LOW else 3, gauges=bool(parts))
            lines = [progress_line(snapshot, width), numbers, flowed(parts, width, 1), note_line(snapshot, width)]
            if height >= FACTS_FROM:
                lines.insert(1, facts_line(snapshot).truncate(max(1, width), ellipsis=True))
            if height >= LOW or (snapshot.health is not None and snapshot.health.alarms):
                lines.append(alarm_words.health_line(snapshot, width))
            self._put("#run-head", Content("\n").join([line for line in lines if line.plain]))
            self._put("#run-message", message_line(snapshot, width))
            self._put("#run-sample", sample_text(snapshot))
            self.query_one(LossChart).show(curves(snapshot, self.others, self.curve))

    def _say_room(self) -> None:
        """A run's chart takes all the room there is; without a run there are a few lines."""
        rows = (
            None if self.snapshot is not None else 1 + math.ceil(NOTHING.cell_length / max(20, self.content_size.width))
        )
        if rows != self._room:
            self._room = rows
            self.post_message(RoomWanted("training", rows))

    def _put(self, selector: str, content: Content) -> None:
        """Updates a part if its content has changed: an equal one would trigger a layout and a repaint."""
        if self._shown.get(selector) != (key := (content.plain, content.markup)):
            self._shown[selector] = key
            part = self.query_one(selector, Static)
            part.update(content)
            part.set_class(bool(content.plain), "-some")

    def table(self) -> Iterable[tuple[str, ...]]:
        """The curves as rows of cells for copying, the header first."""
        if self.snapshot is not None and self.snapshot.series:
            yield from answer_lines.table(self.snapshot)
            return
        yield "step", "loss", "val_loss"
        if self.snapshot is None:
            return
        train, validation = dict(self.snapshot.train), dict(self.snapshot.validation)
        for step in sorted(train.keys() | validation.keys()):
            yield (
                str(step),
                repr(train[step]) if step in train else "",
                repr(validation[step]) if step in validation else "",
            )

    # ── actions ──────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def watcher(self) -> RunWatcher:
        return self.query_one(RunWatcher)

    @property
    def run_watched(self) -> Run | None:
        return self.watcher.run_watched

    def follow(self, run: Run) -> None:
        """Watches `run` from now on."""
        self.watcher.follow(run)

    def on_focus(self) -> None:
        self.watcher.find()  # a run may have been started elsewhere

    def on_app_focus(self) -> None:
        self.watcher.find()

    def action_new_run(self) -> None:
        from tui_llm.tui.runs.new_run import NewRunScreen

        self.app.push_screen(NewRunScreen(ended=self._start_ended), self._made)

    def _start_ended(self, run: Run | None, problem: str) -> None:
        """The form was closed while it started a run."""
        if problem:
            self.files.notify(problem, "error")
        self._made(run)

    def _made(self, run: Run | None) -> None:
        if run is not None:
            self._watch_here(run)

    def _branched(self, parent: Run, run: Run) -> None:
        """Watches a new branch, with its parent in the same chart."""
        self.watcher.compare([parent])
        self._watch_here(run)

    def _watch_here(self, run: Run) -> None:
        """Watches a run that was chosen on another screen, and shows this pane, which may be hidden."""
        self.follow(run)
        self.call_later(self.run_action, "screen.pane('training')")

    def choose_run(self) -> None:
        """Opens the table of all runs."""
        from tui_llm.tui.runs.runs import RunsScreen

        screen = RunsScreen(self.watcher.compared)

        def left(choice: tuple[str, Run | None] | Path | None) -> None:
            self.watcher.compare(screen.marked_runs)
            if isinstance(choice, Path):  # a checkpoint of another program
                self.post_message(ModelChosen(str(choice)))
            else:
                self._chosen(choice)

        self.app.push_screen(screen, left)

    def _chosen(self, choice: tuple[str, Run | None] | None) -> None:
        """Handles the result of the Runs screen: (`watch`, `open` or `new`, the run), or None."""
        what, run = choice or ("", None)
        if what == "new":
            self.action_new_run()
        elif run is None:
            self.watcher.find()  # the watched run may have been deleted there
        else:
            if what == "open":
                self.post_message(ModelChosen(run_model(run.name)))
            self._watch_here(run)

    def action_log_axis(self) -> None:
        self.query_one(LossChart).toggle_log()

    def action_next_curve(self) -> None:
        if why := answer_lines.has_one_curve(self.run_watched, self.snapshot):
            self.files.notify(why, "warning")
            return
        self.curve += 1
        self._show()

    def action_smooth(self) -> None:
        self.query_one(LossChart).smooth()

    def action_move_cursor(self, amount: int) -> None:
        self.query_one(LossChart).move_cursor(amount)

    def action_next_spike(self, amount: int) -> None:
        if not self.query_one(LossChart).next_spike(amount):
            self.files.notify("no step's loss stands out in sight", "warning")
        elif self.snapshot is not None and self.snapshot.reading:
            self.files.notify("of the steps that have been read so far; the others follow", "warning")

    def action_zoom_steps(self, direction: int) -> None:
        self.query_one(LossChart).zoom(direction)

    def action_pan_steps(self, direction: int) -> None:
        self.query_one(LossChart).pan(direction)

    def reload(self) -> None:
        self.watcher.read()
