"""A full screen on one file of a run's directory: reads it on a worker thread, and again when it has changed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from textual import work
from textual.app import ComposeResult
from textual.screen import Screen

from tui_llm.common.errors import UserError, in_one_line
from tui_llm.training.run.run import Run
from tui_llm.tui.kit.actions import FileActions
from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.command import Command
from tui_llm.tui.kit.live import deliver
from tui_llm.tui.kit.over import copy_rows
from tui_llm.tui.kit.widgets.bars import KeyBar
from tui_llm.tui.kit.widgets.lines import Lines

INTERVAL = 0.5  # seconds between two checks of the file


class RunView(BaseScreen, Screen[None]):
    """A list and its key bar. A subclass names the file, reads it, and shows what was read."""

    own_keys: ClassVar[tuple[Command, ...]] = ()
    DEFAULT_CSS = """
    RunView Lines { height: 1fr; border: round $primary; background: $background; padding: 0 1; }
    """

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run_shown = run
        self.files = FileActions(self, self.reload)
        self._mark: tuple[int, int] | None = (-1, -1)  # matches no file, so that the first check reads it
        self._busy = False

    @abstractmethod
    def lines(self) -> Lines:
        """Creates the list."""

    @abstractmethod
    def path(self) -> Path:
        """The path of the file."""

    @abstractmethod
    def read(self) -> Any:
        """Reads the file, on the worker thread. Raises `UserError`."""

    @abstractmethod
    def show(self, found: Any, problem: str) -> None:
        """Shows what was read, or the reason why it can't be read (one line of foreign text)."""

    @abstractmethod
    def table(self) -> Iterable[tuple[str, ...]]:
        """The shown data as rows of cells for copying, the header first."""

    def compose(self) -> ComposeResult:
        yield self.lines()
        yield KeyBar()

    def on_mount(self) -> None:
        self.query_one(Lines).focus()
        self.query_one(KeyBar).show_commands(self.own_keys)
        self.set_interval(INTERVAL, self.reload)
        self.reload()

    def reload(self) -> None:
        if not self._busy:
            self._busy = True
            self._reload()

    @work(thread=True, group="reload")
    def _reload(self) -> None:
        try:
            mark = self._stat()
            if mark == self._mark:
                return
            found, problem = None, ""
            try:
                found = self.read()
            except (UserError, OSError) as error:
                problem = in_one_line(error)
            self._mark = mark
        finally:
            self._busy = False
        deliver(self, self.show, found, problem)

    def _stat(self) -> tuple[int, int] | None:
        try:
            stat = self.path().stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size

    def action_copy(self) -> None:
        self.files.notify(copy_rows(self.app, list(self.table())))

    def action_close(self) -> None:
        self.dismiss(None)
