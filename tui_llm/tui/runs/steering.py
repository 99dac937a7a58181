"""The Training pane's actions on the watched run, and the screens that it opens on it."""

from __future__ import annotations

from tui_llm.common.errors import UserError
from tui_llm.training.plan import launch
from tui_llm.training.run import changes
from tui_llm.training.run.run import Run
from tui_llm.training.run.snapshot import RunSnapshot
from tui_llm.tui.kit.actions import ActsOnRuns
from tui_llm.tui.kit.command import CommandFactory

_key = CommandFactory("training", "Training")
KEYS = (
    _key("batch", "B", "batch", "Show the watched run's next batch: x, y, and the loss of each token", "batch", importance=3),
    _key("samples", "T", "samples", "Show every sample of the watched run, one per evaluation", "samples", importance=2),
    _key("save_checkpoint", "V", "save now", "Save a checkpoint of the watched run now", "save_checkpoint"),
    _key("learning_rate", "L", "learning rate", "Change the watched run's peak learning rate from its next step on, and scale the schedule with it", "learning_rate"),
)  # fmt: skip


class SteersRun(ActsOnRuns):
    snapshot: RunSnapshot | None

    @property
    def run_watched(self) -> Run | None:
        raise NotImplementedError

    def _run_or_say(self, what: str) -> Run | None:
        run = self.run_watched
        if run is None:
            self.say(f"{what}: there is no run yet; n starts one", "warning")
        return run

    def action_batch(self) -> None:
        from tui_llm.tui.runs.batch import BatchScreen

        if (run := self._run_or_say("no batch to show")) is not None:
            self.app.push_screen(BatchScreen(run))

    def action_samples(self) -> None:
        from tui_llm.tui.runs.samples import SamplesScreen

        if (run := self._run_or_say("no samples to show")) is not None:
            self.app.push_screen(SamplesScreen(run))

    def action_save_checkpoint(self) -> None:
        if (run := self._run_or_say("nothing to save")) is not None:
            self.act(lambda: launch.save(run), f"{run.name} saves a checkpoint after this step")

    def action_learning_rate(self) -> None:
        run = self._run_or_say("no learning rate to change")
        if run is None:
            return
        try:
            peak = launch.peak_learning_rate(run)
        except UserError as error:
            self.say(str(error), "error")
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
            self.act(
                lambda: launch.change_learning_rate(run, peak),
                f"{run.name}: the learning rate peaks at {peak:g} from the next step on",
            )

        hint = f"now {now:g} · Enter scales the whole schedule · Esc cancels"
        self.app.push_screen(AskScreen("Peak learning rate", f"{why}\n{hint}" if why else hint, text), answered)
