"""The Training pane's actions on the watched run: control it, and open screens that show its files."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual.widget import Widget

from tui_llm.common.errors import UserError
from tui_llm.common.paths import run_model
from tui_llm.training.plan import launch
from tui_llm.training.run import changes
from tui_llm.training.run.run import Run
from tui_llm.training.run.snapshot import RunSnapshot
from tui_llm.tui.kit.actions import FileActions
from tui_llm.tui.kit.command import CommandFactory
from tui_llm.tui.runs.open_step import open_step
from tui_llm.tui.state.messages import ModelChosen

_key = CommandFactory("training", "Training")
KEYS = (
    _key("batch", "B", "batch", "Show the watched run's next batch: x, y, and the loss of each token", "batch", importance=3),
    _key("samples", "T", "samples", "Show every sample of the watched run, one per evaluation", "samples", importance=2),
    _key("run_heads", "asterisk", "heads", "Show the scores of the watched run's attention heads, step by step: induction, previous token, duplicate token", "heads"),
    _key("alarms", "N", "normal?", "Is this normal? Show the watched run's alarms (spikes, divergence, plateaus, overfitting, low losses, dead gradients, outlier rows), and where its loss will end", "alarms", importance=2),
    _key("machine", "M", "machine", "Show the gauges of the watched run's GPUs and CPU: use, memory allocated, reserved and on the card, temperature, power, clocks; and what each one is", "machine", importance=1),
    _key("worker_log", "E", "log", "Show the log of the watched run's worker: find, filter, follow its end", "worker_log", importance=1),
    _key("bell", "D", "bell", "Ring and notify the desktop when the watched run is done, dies or raises an alarm, or be silent", "app.toggle_bell", footer=()),
    _key("run_curves", "C", "curves", "Show all curves of the watched run in a grid: losses, rates, and by layer gradients, updates and activations; over them those of the marked runs", "curves", importance=2),
    _key("export_chart", "F", "export chart", "Write the pane's chart to a new file: .svg, .png or .csv", "export_chart", footer=()),
    _key("save_checkpoint", "V", "save now", "Save a checkpoint of the watched run now", "save_checkpoint"),
    _key("learning_rate", "L", "learning rate", "Change the watched run's peak learning rate from its next step on, and scale the schedule with it", "learning_rate"),
)  # fmt: skip


class WatchedRunController:
    """`watched` returns the run, and `snapshot` what was last read of it; `branched` is called with a parent and its new
    branch."""

    def __init__(
        self,
        pane: Widget,
        files: FileActions,
        watched: Callable[[], Run | None],
        snapshot: Callable[[], RunSnapshot | None],
        branched: Callable[[Run, Run], object],
    ) -> None:
        self.pane, self.files, self.watched, self.snapshot, self.branched = pane, files, watched, snapshot, branched

    def _run_or_notify(self, what: str) -> Run | None:
        run = self.watched()
        if run is None:
            self.files.notify(f"{what}: there is no run yet; n starts one", "warning")
        return run

    def open_batch(self) -> None:
        from tui_llm.tui.runs.batch import BatchScreen

        if (run := self._run_or_notify("no batch to show")) is not None:
            self.pane.app.push_screen(BatchScreen(run))

    def open_step(self, step: int | None) -> None:
        """Opens the screen of a step, or of the newest one."""
        if (run := self._run_or_notify("no step to open")) is not None:
            open_step(self.pane.app, self.files, run, step, self.branched)

    def open_samples(self) -> None:
        from tui_llm.tui.runs.samples import SamplesScreen

        if (run := self._run_or_notify("no samples to show")) is not None:
            self.pane.app.push_screen(SamplesScreen(run))

    def open_heads(self) -> None:
        from tui_llm.tui.runs.head_history import RunHeadsScreen

        if (run := self._run_or_notify("no heads to show")) is not None:
            self.pane.app.push_screen(RunHeadsScreen(run))

    def open_alarms(self) -> None:
        from tui_llm.tui.runs.alarms import AlarmsScreen

        if self._run_or_notify("no alarms to show") is not None:
            self.pane.app.push_screen(AlarmsScreen(self.snapshot, self.open_step))

    def open_machine(self) -> None:
        """Opens the machine's gauges; this needs no run."""
        from tui_llm.tui.runs.gauges import MachineScreen

        self.pane.app.push_screen(MachineScreen(self.snapshot))

    def open_log(self) -> None:
        from tui_llm.tui.runs.log import LogScreen

        if (run := self._run_or_notify("no log to show")) is not None:
            self.pane.app.push_screen(LogScreen(run))

    def open_curves(self, others: Sequence[Run] = ()) -> None:
        from tui_llm.tui.runs.curves.screen import CurvesScreen

        if (run := self._run_or_notify("no curves to show")) is not None:
            self.pane.app.push_screen(CurvesScreen([run, *others], self.branched))

    def export_chart(self) -> None:
        from tui_llm.tui.runs.chart_export import ask_export, loss_data
        from tui_llm.tui.runs.loss_chart import LossChart

        if (run := self._run_or_notify("no chart to export")) is not None:
            chart = self.pane.query_one(LossChart)
            data = loss_data(run.name, chart.curves, log_y=chart.logarithmic)
            ask_export(self.pane.app, self.files, data, f"{run.name}-loss", run)

    def open_history(self) -> None:
        from tui_llm.tui.runs.pin_history import LearnedScreen

        self.pane.app.push_screen(LearnedScreen(self.watched()))

    def open_model(self) -> None:
        """Opens the run's newest checkpoint as the model of all panes."""
        run, snapshot = self.watched(), self.snapshot()
        if run is None or snapshot is None or snapshot.checkpoint is None:
            self.files.notify("no checkpoint to open yet", "warning")
        else:
            self.pane.post_message(ModelChosen(run_model(run.name)))

    # ── control ──────────────────────────────────────────────────────────────────────────────────────────────────

    def toggle_pause(self) -> None:
        snapshot, run = self.snapshot(), self.watched()
        if snapshot is None or run is None or not snapshot.status.alive:
            self.files.notify("nothing to pause: no run is being trained", "warning")
        else:
            self.files.act(lambda: (launch.unpause if run.control().get("paused") else launch.pause)(run))

    def stop(self) -> None:
        run = self.watched()
        if run is None:
            self.files.notify("nothing to stop: no run is being trained", "warning")
        else:
            self.files.act(lambda: launch.stop(run), f"{run.name} saves, then stops")

    def resume(self) -> None:
        run, snapshot = self.watched(), self.snapshot()
        if run is None or snapshot is None:
            self.files.notify("no run to resume; n starts one", "warning")
        elif snapshot.status.state == "finished":
            self.files.notify("this run is finished; n starts a new one", "warning")
        else:
            self.files.act(lambda: launch.resume(run))

    def save_checkpoint(self) -> None:
        if (run := self._run_or_notify("nothing to save")) is not None:
            self.files.act(lambda: launch.save(run), f"{run.name} saves a checkpoint after this step")

    def change_learning_rate(self) -> None:
        run = self._run_or_notify("no learning rate to change")
        if run is None:
            return
        try:
            peak = launch.peak_learning_rate(run)
        except UserError as error:
            self.files.notify(str(error), "error")
            return
        self._ask_for_rate(run, peak, f"{peak:g}")

    def _ask_for_rate(self, run: Run, now: float, text: str, why: str = "") -> None:
        from tui_llm.tui.kit.ask import AskScreen

        def answered(answer: str | None) -> None:
            if answer is None or not answer.strip():
                return
            try:
                peak = changes.parse_learning_rate(answer)
            except UserError as error:
                self._ask_for_rate(run, now, answer, str(error))
                return
            self.files.act(
                lambda: launch.change_learning_rate(run, peak),
                f"{run.name}: the learning rate peaks at {peak:g} from the next step on",
            )

        hint = f"now {now:g} · Enter scales the whole schedule · Esc cancels"
        self.pane.app.push_screen(AskScreen("Peak learning rate", f"{why}\n{hint}" if why else hint, text), answered)
