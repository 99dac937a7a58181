"""The actions on the run under the Runs screen's cursor: resume, continue, stop, rename, export, compare, delete."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from textual.widget import Widget

from tui_llm.common import paths
from tui_llm.common.display import visible
from tui_llm.common.errors import UserError
from tui_llm.common.new_files import FORCE
from tui_llm.training.plan import launch, processes
from tui_llm.training.run.foreign.foreign_run import ForeignRun
from tui_llm.training.run.rename import rename
from tui_llm.training.run.run import Run
from tui_llm.tui.kit.actions import FileActions
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.kit.confirm import ConfirmScreen
from tui_llm.tui.kit.save import free_name
from tui_llm.tui.runs.compare import CompareScreen


def export(run: Run, folder: str) -> None:
    """Runs `tui-llm export` as a child process, as opening a checkpoint needs torch, which this process does not
    import. Raises `UserError` with the last line of that command's error output."""
    place = str(paths.absolute(folder))
    done = subprocess.run(
        [sys.executable, "-m", "tui_llm", "export", run.name, place],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=processes.child_environment(),
        text=True,
        errors="replace",
    )
    if done.returncode:
        line = (done.stderr.strip() or f"it ended with exit status {done.returncode}").splitlines()[-1]
        raise UserError(line.removeprefix("tui-llm: ").removesuffix(FORCE))


class RunActions:
    """`selected` is the run under the cursor, `marked` are those that are marked. `renamed` is called, on the worker
    thread, with a run's old and new name."""

    def __init__(
        self,
        screen: Widget,
        files: FileActions,
        selected: Callable[[], Run | None],
        marked: Callable[[], list[Run]],
        renamed: Callable[[str, str], None],
    ) -> None:
        self.screen, self.files = screen, files
        self.selected, self.marked, self.renamed = selected, marked, renamed

    def _ask(self, title: str, hint: str, text: str, take: Callable[[str], None]) -> None:
        def answered(answer: str | None) -> None:
            if answer is not None and answer.strip():
                take(answer.strip())

        self.screen.app.push_screen(AskScreen(visible(title), hint, text), answered)

    def resume(self) -> None:
        run = self.selected()
        if run is not None:
            if run.status().state == "finished":
                self.files.notify(f"{run.name} is finished", "warning")
            else:
                self.files.act(lambda: launch.resume(run))

    def stop(self) -> None:
        run = self.selected()
        if run is not None:
            self.files.act(lambda: launch.stop(run), f"{run.name} saves, then stops")

    def delete(self) -> None:
        run = self.selected()
        if run is None:
            return
        if run.status().alive:
            self.files.notify(f"{run.name} is being trained; stop it first", "warning")
            return
        question, button, done = f"Delete {run.name} and all its checkpoints?", "Delete", f"{run.name} is deleted"
        if isinstance(run, ForeignRun):
            question, button, done = f"Take {run.name} off the list? Its own files stay.", "Take off", f"{run.name} is off the list"  # fmt: skip

        def answered(yes: bool | None) -> None:
            if yes:
                self.files.act(run.delete, done)

        self.screen.app.push_screen(ConfirmScreen(question, button), answered)

    def extend(self) -> None:
        run = self.selected()
        if run is None:
            return
        if run.status().alive:
            self.files.notify(f"{run.name} is being trained; stop it first", "warning")
            return
        done = launch.resume_step(run)

        def more(answer: str) -> None:
            try:
                steps = int(answer.replace(",", "").replace("_", ""))
            except ValueError:
                self.files.notify(f"{answer!r} is not a number of steps; give a whole number above {done:,}", "error")
                return
            self.files.act(lambda: _continue(run, steps), f"{run.name} continues to step {steps:,}")

        hint = f"the new total, more than {done:,}: the learning rate of the remaining steps follows the new schedule"
        self._ask(f"Continue {run.name}", hint, str(2 * run.status().steps), more)

    def rename(self) -> None:
        run = self.selected()
        if run is None:
            return
        if run.status().alive:
            self.files.notify(f"{run.name} is being trained; stop it first, then rename it", "warning")
            return

        def named(name: str) -> None:
            def do() -> None:
                rename(run, name)
                self.renamed(run.name, name)

            self.files.act(do, f"{run.name} is now {name}")

        self._ask(f"Rename {run.name}", "letters, digits, '.', '_' and '-', at most 64", run.name, named)

    def export(self) -> None:
        run = self.selected()
        if run is None:
            return
        if not run.checkpoints():
            self.files.notify(f"{run.name} has no checkpoint yet", "warning")
            return

        def write(folder: str) -> None:
            self.files.notify(f"writing {folder} …")
            self.files.act(lambda: export(run, folder), f"{run.name} exported to the model folder {folder}")

        free = free_name(Path(run.name), folder=True)
        self._ask(f"Export {run.name}", "a new folder; nothing is overwritten", f"./{free}", write)

    def curves(self) -> None:
        from tui_llm.tui.runs.curves.screen import CurvesScreen

        if (run := self.selected()) is not None:
            self.screen.app.push_screen(CurvesScreen([run, *self.marked()]))

    def compare(self) -> None:
        run = self.selected()
        if run is None:
            return
        chosen = {one.name: one for one in (*self.marked(), run)}
        if len(chosen) < 2:
            self.files.notify(
                "only one run: mark others with Space first, then compare them with the one under the cursor",
                "warning",
            )
            return
        self.screen.app.push_screen(CompareScreen(list(chosen.values())))


def _continue(run: Run, steps: int) -> None:
    launch.set_steps(run, steps)
    launch.start(run)
