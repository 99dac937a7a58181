"""Pulls a model from the Models screen: runs `tui-llm models pull` as a child process and shows its progress.

The hub's library and its connections stay out of the app's process, and terminating the child is enough to cancel: what
it has downloaded is kept for the next pull.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from typing import Any

from rich.text import Text
from textual.widget import Widget
from textual.widgets import Static

from tui_llm.common.display import visible
from tui_llm.common.errors import message_line
from tui_llm.common.numbers import file_size
from tui_llm.training.plan import processes
from tui_llm.tui.kit.actions import FileActions
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.kit.live import deliver

_BAR = 20  # cells


def progress_line(progress: dict[str, Any]) -> str:
    """The progress of a pull, as one line. Contains foreign text: pass it through `visible` before showing it."""
    doing, done, total = str(progress.get("doing", "")), progress.get("done", 0), progress.get("total", 0)
    if not isinstance(done, int) or not isinstance(total, int) or total <= 0:
        return doing
    full = min(_BAR, _BAR * done // total)
    return f"{'█' * full}{'░' * (_BAR - full)} {100 * done / total:.0f} %  {file_size(done)} of {file_size(total)}  {doing}"


class ModelPull:
    """Pulls one model at a time. `owner` is the screen, `line` the part of it that shows the progress."""

    def __init__(self, owner: Widget, files: FileActions, line: Static) -> None:
        self.owner, self.files, self.line = owner, files, line
        self.child: subprocess.Popen[str] | None = None
        self._pulling = False  # from the answer on, also before there is a process
        self._closed = self._cancelled = False

    def ask(self) -> None:
        """Asks for the name of a model, and pulls it."""
        if self._busy():
            return

        def answered(name: str | None) -> None:
            if name is not None and name.strip() and not self._busy():
                self._pulling, self._cancelled = True, False
                work = functools.partial(self._pull, name.strip())
                self.owner.run_worker(work, name="pull", group="models-pull", thread=True)

        hint = "gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2, or OWNER/NAME on the hub"
        self.owner.app.push_screen(AskScreen("Pull a model", hint, "gpt2"), answered)

    @property
    def is_running(self) -> bool:
        return self._pulling

    def _busy(self) -> bool:
        if self._pulling:
            self.files.notify("a model is being pulled already; c cancels it", "warning")
        return self._pulling

    def command(self, name: str) -> list[str]:
        return [sys.executable, "-m", "tui_llm", "models", "pull", "--progress", "--json", "--", name]

    def _pull(self, name: str) -> None:
        try:
            child = self.child = subprocess.Popen(
                self.command(name), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                env=processes.child_environment(), text=True, errors="replace",
            )  # fmt: skip
        except (OSError, ValueError) as error:  # ValueError: an argument can't hold the name
            deliver(self.owner, self._ended, name, 1, f"can't pull {name[:80]}: {message_line(error)}")
            return
        if self._closed or self._cancelled:  # before the child was started, so nothing could end it
            child.terminate()
        deliver(self.owner, self._show, f"starting to pull {name}")
        problem = ""
        assert child.stderr is not None
        for line in child.stderr:
            try:
                progress = json.loads(line)
            except ValueError:
                progress = None
            if isinstance(progress, dict):
                deliver(self.owner, self._show, f"{name}: {progress_line(progress)}")
            elif line.strip():  # an error, as the command line prints it
                problem = line.strip().removeprefix("tui-llm: ")
        code = child.wait()
        self.child = None
        if not self._closed:
            deliver(self.owner, self._ended, name, code, problem)

    def _show(self, line: str) -> None:
        self.line.set_class(not line, "-hidden")
        self.line.update(Text(visible(line), no_wrap=True, overflow="ellipsis"))

    def _ended(self, name: str, code: int, problem: str) -> None:
        self._pulling = False
        self._show("")
        if code == 0:
            self.files.notify(f"{name} is pulled; Enter opens it")
            self.files.reload()
        elif code < 0:  # ended by a signal: `cancel`
            self.files.notify(f"{name} is cancelled; pulling it again resumes")
        else:
            self.files.notify(problem or f"pulling {name} ended with exit status {code}", "error")

    def cancel(self) -> None:
        if not self._pulling:
            self.files.notify("nothing is being pulled")
            return
        self._cancelled = True
        if (child := self.child) is not None:
            child.terminate()

    def close(self) -> None:
        """Ends the pull and reports nothing: the screen is closing."""
        self._closed = True
        if self.child is not None:
            self.child.terminate()
