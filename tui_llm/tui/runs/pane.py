"""The Training pane: shows the watched run, read from its directory. The run goes on without the pane, which finds it
again."""

from __future__ import annotations

import math
from collections.abc import Iterable

from textual import events
from textual.app import ComposeResult
from textual.containers import Container
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from tui_llm.common import numbers
from tui_llm.common.display import truncate, visible
from tui_llm.common.numbers import duration, memory_size
from tui_llm.common.paths import run_model
from tui_llm.facts.tokens import BYTES_AND_END
from tui_llm.training.run.run import Run
from tui_llm.training.run.snapshot import RunSnapshot
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.actions import FileActions
from tui_llm.tui.kit.command import PANE_TITLES, PANES, bindings
from tui_llm.tui.runs import alarm_words, answer_lines
from tui_llm.tui.runs.keys import KEYS
from tui_llm.tui.runs.loss_chart import Curves, LossChart, Other
from tui_llm.tui.runs.run_news import RunNews
from tui_llm.tui.runs.run_watcher import RunWatcher
from tui_llm.tui.runs.watched_run import KEYS as RUN_KEYS
from tui_llm.tui.runs.watched_run import WatchedRunController
from tui_llm.tui.runs.words import sample_text, state_words
from tui_llm.tui.state.messages import CheckpointSaved, ModelChosen, RoomWanted, RunNoticed, RunWatched

WIDE = 96  # columns from which the sample is placed beside the chart

LOW = 12  # rows below which only the most important facts stand beside the chart
LEAST_BAR = 4  # cells of the bar of progress
FACTS_FROM = 18  # rows from which corpus, preset and device have a line

RESUMABLE = ("new", "stopped", "died", "failed")


def state_line(snapshot: RunSnapshot) -> Content:
    words, style = state_words(snapshot.status.state)
    parts: list[str | tuple[str, str]] = [(words, f"bold {style}"), "  ", (visible(snapshot.name), "bold")]
    if snapshot.status.state == "running" and snapshot.pause_requested:
        parts.append(("  pausing: it saves first", "$text-muted"))
    if snapshot.reading:
        parts.append(("  reading its metrics …", "$text-muted"))
    return Content.assemble(*parts)


def facts_line(snapshot: RunSnapshot) -> Content:
    """The line with corpus, preset, device, precision and size."""
    config, status = snapshot.config, snapshot.status
    parts = []
    if config is not None:
        names = [visible(place.rstrip("/").rsplit("/", 1)[-1]) for place in config.corpus]
        more = f" and {len(names) - 2} more" if len(names) > 2 else ""
        parts += [truncate(", ".join(names[:2]), 40) + more] if names else []
        parts.append(answer_lines.objective(config.settings) or f"preset {visible(config.preset)}")
    if config is not None and config.parent:
        parts.append(f"branch of {truncate(visible(config.parent), 24)} after step {fmt.count(config.parent_step)}")
    device = status.device or (config.device if config else None)
    if device:
        parts.append(visible(device))
    if status.precision:
        parts.append(visible(status.precision))
    if status.parameters:
        parts.append(f"{fmt.parameters(status.parameters)} parameters")
    if status.vocabulary:
        byte = f" ({BYTES_AND_END})" if config and config.settings.tokenizer == "byte" else ""
        parts.append(f"V = {fmt.count(status.vocabulary)}{byte}")
    return Content.styled(" · ".join(parts), "$text-muted")


def progress_line(snapshot: RunSnapshot, width: int) -> Content:
    """The run's state, name and progress; two lines if one is too narrow."""
    status, state = snapshot.status, state_line(snapshot)
    head = f"step {fmt.count(status.step)} of {fmt.count(status.steps)} "
    left = "" if snapshot.seconds_left is None else f"  {duration(snapshot.seconds_left)} left"
    tail = f" {100 * snapshot.progress:.0f} %{left}"
    beside = state.cell_length + 2 + len(head) + len(tail) <= width
    room = min(60, width - (state.cell_length + 2 if beside else 0) - len(head) - len(tail) - 2)
    bar = ("▕", (fmt.bar(snapshot.progress, room), "$primary"), "▏") if room >= LEAST_BAR else ()
    if not bar:
        tail = tail.lstrip()
    return Content.assemble(state, "  " if beside else "\n", head, *bar, tail)


def numbers_line(snapshot: RunSnapshot, width: int, most: int) -> Content:
    """The newest numbers, the important ones first, in at most `most` lines."""
    last = snapshot.last
    if last is None:
        return Content()
    parts = answer_lines.measured(snapshot) or [("loss", fmt.number(last.loss, 3))]
    if snapshot.last_validation is not None and not snapshot.series:
        parts.append(("validation", fmt.number(snapshot.last_validation[1], 3)))
    if snapshot.perplexity is not None and width >= 100:
        parts.append(("perplexity", fmt.compact(snapshot.perplexity)))
    parts += [("lr", f"{last.lr:.2e}"), ("gradient", fmt.compact(last.grad_norm))]
    if snapshot.tokens_per_second is not None:
        parts.append(("tokens/s", f"{snapshot.tokens_per_second:,.0f}"))
    if snapshot.mfu is not None:
        parts.append(("MFU", numbers.percent(snapshot.mfu)))
    if snapshot.epoch is not None and width >= 90:
        parts.append(("epoch", fmt.number(snapshot.epoch, 2)))
    if snapshot.memory_bytes is not None:
        parts.append(("memory", memory_size(snapshot.memory_bytes)))
    if snapshot.gpu_use is not None:
        parts.append(("GPU", f"{100 * snapshot.gpu_use:.0f} %"))
    return _flowed(parts, width, most)


def _flowed(parts: Iterable[tuple[str, str]], width: int, most: int) -> Content:
    """Names with their values, as many per line as fit; a name is never separated from its value."""
    lines: list[list[Content]] = [[]]
    room = 0
    for name, value in parts:
        part = Content.assemble((f"{name} ", "$text-muted"), (value, "bold"))
        if lines[-1] and part.cell_length + 2 > room:
            lines.append([])
        room = (room if lines[-1] else width + 2) - part.cell_length - 2
        lines[-1].append(part)
    return Content("\n").join([Content("  ").join(line) for line in lines[:most]])


def message_line(snapshot: RunSnapshot, width: int) -> Content:
    """The worker's message, and how to resume the run or to open what it trained; empty while all goes well."""
    status = snapshot.status
    if not (status.summary or status.state in RESUMABLE):
        return Content()
    hint = "O opens what was trained  " if status.state == "finished" and snapshot.checkpoint is not None else ""
    hint = "e resumes it  " if status.state in RESUMABLE and snapshot.config else hint
    if status.state in RESUMABLE and hint and status.fits:
        hint = f"e resumes it at batch {status.fits[0]} × {status.fits[1]}  "
    if status.state == "finished" and hint and len(hint) + len(status.summary) > width:
        return Content.styled(hint, "bold $text-accent")  # that it is finished is said above
    style = "$text-error" if status.state in ("failed", "died") or status.problem else "$text-muted"
    return Content.assemble((hint, "bold $text-accent"), (visible(status.summary), style))


def curves(snapshot: RunSnapshot, others: Iterable[RunSnapshot] = (), number: int = 0) -> Curves:
    """The chart's curves: those of a run, and of the runs that are compared with it. `number` chooses one of the quantities of a
    run that learns from answers."""
    if snapshot.series:
        return answer_lines.curves(snapshot, others, number)
    levels = [
        ("ln V", snapshot.uniform_loss),
        ("unigrams", snapshot.unigram_loss),
        ("bigrams", snapshot.bigram_loss),
        ("floor", snapshot.floor_loss),
        *([] if snapshot.shipped is None else [(truncate(visible(snapshot.shipped[0]), 24), snapshot.shipped[1])]),
    ]
    return Curves(
        snapshot.train,
        snapshot.validation,
        tuple((name, value) for name, value in levels if value is not None),
        snapshot.averages,
        tuple(Other(other.name, other.train, other.averages) for other in others if not other.series),
        end=alarm_words.end_of(snapshot),
        parent=snapshot.parent,
    )


NOTHING = Content.assemble(
    "No training run yet.\n",
    ("n", "bold $text-accent"),
    "  starts one: it trains a small GPT-2 on your own text, in a separate process that"
    " continues when this window closes.",
)


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
            self.query_one(LossChart).cursor = None
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
            lines = [progress_line(snapshot, width), numbers_line(snapshot, width, 1 if height < LOW else 3)]
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

        def left(choice: tuple[str, Run | None] | None) -> None:
            self.watcher.compare(screen.marked_runs)
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

    def action_zoom_steps(self, direction: int) -> None:
        self.query_one(LossChart).zoom(direction)

    def action_pan_steps(self, direction: int) -> None:
        self.query_one(LossChart).pan(direction)

    def reload(self) -> None:
        self.watcher.read()
