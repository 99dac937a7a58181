"""Actions on files, carried out on a worker thread; each reports its result in one line."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

from textual.widget import Widget

from tui_llm.common.display import visible
from tui_llm.common.errors import UserError, in_one_line
from tui_llm.tui.kit.live import deliver


class FileActions:
    """`owner` is the pane or screen that has the keys; `reload` reads the files again."""

    def __init__(self, owner: Widget, reload: Callable[[], object]) -> None:
        self.owner, self.reload = owner, reload

    def notify(self, line: str, severity: Literal["information", "warning", "error"] = "information") -> None:
        self.owner.notify(visible(line), severity=severity, markup=False)

    def act(self, action: Callable[[], object], done: str = "") -> None:
        """Runs `action` on a worker thread, says `done` if it succeeded, then calls `reload`."""
        # The app's: a thread of a closed screen can't find it any more.
        work = functools.partial(self._act, action, done, self.owner.app.call_later)
        self.owner.run_worker(work, name="act", group="file-actions", thread=True)

    def _act(self, action: Callable[[], object], done: str, call_later: Callable[..., object]) -> None:
        try:
            action()
        except (UserError, OSError) as error:
            call_later(self.notify, in_one_line(error), "error")
        else:
            if done:
                call_later(self.notify, done)
        deliver(self.owner, self.reload)
