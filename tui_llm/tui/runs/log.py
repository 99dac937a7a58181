"""The log of a run's worker: what it and its libraries printed. It can be searched and filtered, and follows its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text
from textual import events, work
from textual.app import ComposeResult
from textual.message import Message
from textual.screen import Screen
from textual.worker import get_current_worker

from tui_llm.common.display import truncate, visible
from tui_llm.common.numbers import file_size
from tui_llm.training.run.run import Run
from tui_llm.training.run.worker_log import LogLine, WorkerLog
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.live import deliver
from tui_llm.tui.kit.over import copy_rows
from tui_llm.tui.kit.text import running
from tui_llm.tui.kit.widgets.bars import KeyBar
from tui_llm.tui.kit.widgets.lines import Lines

INTERVAL = 0.5  # seconds between two looks at the file's size
LEFT = 2000  # characters of a line that are shown
WHEEL = 3  # lines
_REVERSE = Style(reverse=True)


@dataclass(frozen=True, slots=True)
class LogWindow:
    """Some lines of the file, of `size` bytes. at_end: the last one is the file's last."""

    lines: tuple[LogLine, ...] = ()
    size: int = 0
    at_end: bool = True
    problem: str = ""


class LogLines(Lines):
    """The lines of a window, wrapped; at the end of the file its last rows, elsewhere its first ones."""

    class Moved(Message):
        """A key or the wheel moves the window by `lines`; to an end of the file with ±`FAR`."""

        def __init__(self, lines: int) -> None:
            self.lines = lines
            super().__init__()

    FAR = 1 << 40

    def __init__(self) -> None:
        super().__init__(id="log")
        self.window = LogWindow()
        self.words = ""  # that are marked
        self._laid: list[Text] = []

    def show(self, window: LogWindow, words: str) -> None:
        self.window, self.words = window, words
        self.rebuild()

    def head(self, width: int) -> list[Text]:
        self._laid, window, height = [], self.window, max(1, self.size.height)
        if window.problem:
            return running(Text(visible(window.problem), style=self.style("bad")), width)
        if not window.lines:
            what = (
                f"no line contains {truncate(visible(self.words), 40)!r}"
                if self.words
                else "the worker has printed nothing yet"
            )
            return [Text(what, style=self.style("muted"))]
        for line in reversed(window.lines) if window.at_end else window.lines:
            rows = self._wrapped(line, width)
            self._laid = rows + self._laid if window.at_end else self._laid + rows
            if len(self._laid) >= height:
                break
        self._laid = self._laid[-height:] if window.at_end else self._laid[:height]
        return []

    def _wrapped(self, line: LogLine, width: int) -> list[Text]:
        shown = Text(visible(line.text[:LEFT]))
        if len(line.text) > LEFT:
            shown.append(f" … {fmt.count(len(line.text) - LEFT)} more characters", style=self.style("muted"))
        if self.words:
            plain, sought, at = shown.plain.casefold(), visible(self.words).casefold(), 0
            while sought and len(plain) == len(shown.plain) and (at := plain.find(sought, at)) >= 0:
                shown.stylize(self.style("accent") + _REVERSE, at, at + len(sought))
                at += len(sought)
        return running(shown, width) or [Text()]

    @property
    def shown_lines(self) -> int:
        """Number of lines that a page moves."""
        return max(1, min(len(self.window.lines), self.size.height - 1))

    def row_count(self, width: int) -> int:
        return len(self._laid)

    def row(self, index: int, width: int, selected: bool) -> Text:
        return self._laid[index].copy()

    def action_scroll_up(self) -> None:
        self.post_message(self.Moved(-1))

    def action_scroll_down(self) -> None:
        self.post_message(self.Moved(1))

    def action_page_up(self) -> None:
        self.post_message(self.Moved(-self.shown_lines))

    def action_page_down(self) -> None:
        self.post_message(self.Moved(self.shown_lines))

    def action_scroll_home(self) -> None:
        self.post_message(self.Moved(-self.FAR))

    def action_scroll_end(self) -> None:
        self.post_message(self.Moved(self.FAR))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.post_message(self.Moved(-WHEEL))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.post_message(self.Moved(WHEEL))


_key = CommandFactory("log", "Worker's log")
KEYS = (
    _key("find_log", "slash", "find", "Find words in the log, backward from the end or from what is shown", "find", importance=3),
    _key("find_log_next", "n", "next", "Go to the next line with these words, later in the log", "find_next(1)", importance=1),
    _key("find_log_back", "N", "previous", "Go to the previous line with these words, earlier in the log", "find_next(-1)", importance=1),
    _key("filter_log", "ampersand", "filter", "Show only lines with some words; an empty answer shows all", "filter", importance=2),
    _key("follow_log", "f", "follow", "Follow the end of the log as it grows, or stop there", "follow", importance=2),
    _key("copy_log", "y", "copy", "Copy the lines in sight", "copy"),
    _key("close_log", "escape,q", "back", "Back to the five panes; stops a search", "close", importance=WAY_OUT),
)  # fmt: skip


class LogScreen(BaseScreen, Screen[None]):
    own_keys = KEYS
    BINDINGS = bindings(KEYS)
    DEFAULT_CSS = """
    LogScreen Lines { height: 1fr; border: round $primary; background: $background; padding: 0 1; }
    """

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run_shown = run
        self.following = True
        self.words = self.filtered = ""  # found and marked; that every line must contain
        self.note = ""
        self._list = LogLines()
        self._read_size = -1

    def compose(self) -> ComposeResult:
        yield self._list
        yield KeyBar()

    def on_mount(self) -> None:
        self._list.border_title = Text.assemble("Worker's log of ", visible(self.run_shown.name))
        self._list.focus()
        self.query_one(KeyBar).show_commands(self.own_keys)
        self.set_interval(INTERVAL, self.look)
        self._to_end()

    # ── reading, on a thread ─────────────────────────────────────────────────────────────────────────────────────

    def look(self) -> None:
        """Reads what was appended, while the end is followed."""
        if self.following:
            try:
                size = self.run_shown.log_path.stat().st_size
            except OSError:
                size = 0
            if size != self._read_size:
                self._read_size = size
                self._to_end()

    @work(thread=True, exclusive=True, group="log")
    def _read(self, what: Callable[[WorkerLog], LogWindow | None], note: str = "") -> None:
        """Shows the window that `what` returns; with None, only `note`. A later call ends an earlier one."""
        worker = get_current_worker()
        log = WorkerLog(self.run_shown.log_path, lambda: worker.is_cancelled)
        try:
            window = what(log)
        except OSError as error:
            window = LogWindow(problem=f"{self.run_shown.log_path} can't be read: {error.strerror or error}")
        if not worker.is_cancelled:
            deliver(self, self._show, window, note)

    def _show(self, window: LogWindow | None, note: str) -> None:
        self.note = note if window is None else ""
        if window is not None:
            self._list.show(window, self.words or self.filtered)
        self._say()

    def _say(self) -> None:
        window = self._list.window
        parts = [f"only lines with {truncate(visible(self.filtered), 24)!r}"] if self.filtered else []
        if window.lines:
            parts.append(f"{100 * window.lines[-1].end / max(1, window.size):.0f} % of {file_size(window.size)}")
        parts += ["following the end"] if self.following else []
        parts += [self.note] if self.note else []
        self._list.border_subtitle = Text(" · ".join(parts))

    @property
    def _rows(self) -> int:
        return max(1, self._list.size.height)

    @property
    def _room(self) -> tuple[int, int]:
        """Rows and columns."""
        return self._rows, max(1, self._list.line_width)

    def _to_end(self) -> None:
        rows, words = self._rows, self.filtered

        def read(log: WorkerLog) -> LogWindow:
            size = log.size()
            return LogWindow(tuple(log.before(size, rows, words)), size)

        self._read(read)

    def _from(self, offset: int, note: str = "") -> None:
        room, words = self._room, self.filtered
        self._read(lambda log: _forward(log, offset, room, words), note)

    # ── moving ───────────────────────────────────────────────────────────────────────────────────────────────────

    def on_log_lines_moved(self, message: LogLines.Moved) -> None:
        message.stop()
        by, window, room, words = message.lines, self._list.window, self._room, self.filtered
        if by >= LogLines.FAR:
            self.following = True
            self._to_end()
        elif by <= -LogLines.FAR:
            self.following = False
            self._from(0)
        elif window.lines:
            if by > 0 and window.at_end:
                return
            self.following = False
            top = self._top()
            if by < 0:
                self._read(lambda log: _up(log, top, -by, room, words))
            else:
                at = next((i for i, line in enumerate(window.lines) if line.offset == top), 0)
                self._from(window.lines[min(len(window.lines) - 1, at + by)].offset)

    def _top(self) -> int:
        """The offset of the first line in sight."""
        lines = self._list.window.lines
        if not self._list.window.at_end:
            return lines[0].offset
        height, width = self._room
        for line in reversed(lines):
            height -= _height(line, width)
            if height <= 0:
                return line.offset
        return lines[0].offset

    def on_resize(self) -> None:
        if self.following:
            self._to_end()

    # ── actions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def action_follow(self) -> None:
        self.following = not self.following
        if self.following:
            self._to_end()
        else:
            self._say()

    def action_find(self) -> None:
        self._ask(
            "Find in the log",
            "Enter finds · then n and N go to the next and the previous one · Esc cancels",
            self._find,
        )

    def action_filter(self) -> None:
        self._ask("Show only lines with", "empty: all lines · Esc cancels", self._filter, self.filtered)

    def _ask(self, title: str, hint: str, take: Callable[[str], None], text: str = "") -> None:
        from tui_llm.tui.kit.ask import AskScreen

        self.app.push_screen(AskScreen(title, hint, text), lambda answer: None if answer is None else take(answer))

    def _filter(self, words: str) -> None:
        self.filtered, self.following = words.strip(), True
        self._to_end()

    def _find(self, words: str) -> None:
        self.words = words.strip()
        if self.words:
            self._seek(-1, whole=True)
        else:
            self._list.show(self._list.window, self.filtered)

    def action_find_next(self, by: int) -> None:
        if self.words:
            self._seek(by)
        else:
            self.action_find()

    def _seek(self, by: int, whole: bool = False) -> None:
        """Goes to the nearest line with the words, after the first one in sight or before it; `whole`: the last one of all."""
        lines = self._list.window.lines
        words, room, filtered = self.words, self._room, self.filtered
        where = "" if whole else " later" if by > 0 else " earlier"
        nothing = f"no line{where} with {truncate(visible(words), 24)!r}"
        if not lines:
            self.note = nothing
            self._say()
            return
        top = self._top() if not whole else None
        first = next((line for line in lines if line.offset == top), lines[0])
        self.following, self.note = False, "searching …"
        self._say()

        def read(log: WorkerLog) -> LogWindow | None:
            if top is None:
                found = log.before(log.size(), 1, words)
            else:
                found = log.after(first.end, 1, words) if by > 0 else log.before(first.offset, 1, words)
            return _forward(log, found[0].offset, room, filtered, fills=False) if found else None

        self._read(read, nothing)

    def table(self) -> Iterable[tuple[str, ...]]:
        yield ("line",)
        for line in self._list.window.lines:
            yield (visible(line.text),)

    def action_copy(self) -> None:
        self.notify(copy_rows(self.app, list(self.table())), markup=False)

    def action_close(self) -> None:
        self.dismiss(None)


def _height(line: LogLine, width: int) -> int:
    """Number of rows that a line takes, about: words are not broken."""
    return max(1, -(-cell_len(visible(line.text[:LEFT])) // width))


def _forward(log: WorkerLog, offset: int, room: tuple[int, int], words: str, fills: bool = True) -> LogWindow:
    """The lines from `offset` on. Where these do not fill the screen, the file's last ones, unless `offset` must be the first."""
    (rows, width), size = room, log.size()
    lines = log.after(offset, rows, words)
    if fills and sum(_height(line, width) for line in lines) < rows:
        return LogWindow(tuple(log.before(size, rows, words)), size)
    return LogWindow(tuple(lines), size, at_end=False)


def _up(log: WorkerLog, offset: int, lines: int, room: tuple[int, int], words: str) -> LogWindow:
    above = log.before(offset, lines, words)
    return _forward(log, above[0].offset if above else offset, room, words)
