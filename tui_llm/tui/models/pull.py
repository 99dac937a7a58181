"""Pulls a model from the Models screen: runs `tui-llm models pull` as a child process and shows its progress.

The hub's library and its connections stay out of the app's process, and terminating the child is enough to cancel: what
it has downloaded is kept for the next pull.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from rich.text import Text
from textual import work
from textual.widgets import Static

from tui_llm.common.display import visible
from tui_llm.common.numbers import file_size
from tui_llm.training.plan import launch
from tui_llm.tui.kit.actions import ActsOnRuns
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.kit.live import deliver

_BAR = 20  # cells


def progress_line(now: dict[str, Any]) -> str:
    """The progress of a pull, as one line. Foreign text, not made visible yet."""
    doing, done, total = str(now.get("doing", "")), now.get("done", 0), now.get("total", 0)
    if not isinstance(done, int) or not isinstance(total, int) or total <= 0:
        return doing
    full = min(_BAR, _BAR * done // total)
    return f"{'█' * full}{'░' * (_BAR - full)} {100 * done / total:.0f} %  {file_size(done)} of {file_size(total)}  {doing}"


class PullsModels(ActsOnRuns):
    _child: subprocess.Popen[str] | None = None
    _left = False

    def action_pull(self) -> None:
        if self._child is not None:
            self.say("a model is being pulled already; c cancels it", "warning")
            return

        def answered(name: str | None) -> None:
            if name is not None and name.strip():
                self._pull(name.strip())

        hint = "gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2, or OWNER/NAME on the hub"
        self.app.push_screen(AskScreen("Pull a model", hint, "gpt2"), answered)

    def command(self, name: str) -> list[str]:
        return [sys.executable, "-m", "tui_llm", "models", "pull", "--progress", "--json", "--", name]

    @work(thread=True, group="models-pull")
    def _pull(self, name: str) -> None:
        child = self._child = subprocess.Popen(
            self.command(name), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env=launch.environment(), text=True, errors="replace",
        )  # fmt: skip
        deliver(self, self._tell, f"starting to pull {name}")
        said = ""
        assert child.stderr is not None
        for line in child.stderr:
            try:
                now = json.loads(line)
            except ValueError:
                now = None
            if isinstance(now, dict):
                deliver(self, self._tell, f"{name}: {progress_line(now)}")
            elif line.strip():
                said = line.strip().removeprefix("tui-llm: ")
        code = child.wait()
        self._child = None
        if not self._left:
            deliver(self, self._ended, name, code, said)

    def _tell(self, line: str) -> None:
        shown = self.query_one("#models-pull", Static)
        shown.set_class(not line, "-hidden")
        shown.update(Text(visible(line), no_wrap=True, overflow="ellipsis"))

    def _ended(self, name: str, code: int, said: str) -> None:
        self._tell("")
        if code == 0:
            self.say(f"{name} is pulled; Enter opens it")
            self.look()
        elif code < 0:
            self.say(f"{name} is cancelled; pulling it again resumes")
        else:
            self.say(said or f"pulling {name} ended with exit status {code}", "error")

    def action_cancel_pull(self) -> None:
        if self._child is not None:
            self._child.terminate()
        else:
            self.say("nothing is being pulled")

    def on_unmount(self) -> None:
        self._left = True
        if self._child is not None:
            self._child.terminate()
