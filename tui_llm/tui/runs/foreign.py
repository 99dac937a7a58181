"""Other people's checkpoints: a folder's steps with pins, logit lens, heads and samples, read in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from textual import work
from textual.app import ComposeResult
from textual.content import Content
from textual.screen import Screen

from tui_llm.common.display import truncate, visible
from tui_llm.common.errors import UserError, in_one_line
from tui_llm.common.numbers import counted
from tui_llm.facts.pin import Pin
from tui_llm.training.plan.foreign import ForeignProcess, ForeignProgress
from tui_llm.training.run import pins
from tui_llm.training.run.foreign.foreign_run import ForeignRun
from tui_llm.training.run.foreign.foreign_table import ForeignTable, read_table
from tui_llm.tui.kit.actions import FileActions
from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.live import deliver, is_live
from tui_llm.tui.kit.over import copy_rows
from tui_llm.tui.kit.widgets.bars import Bar, KeyBar
from tui_llm.tui.runs.foreign_lines import CheckpointLines, LensLines, table_rows

_key = CommandFactory("foreign", "Checkpoints of another program")
KEYS = (
    _key("read_checkpoints", "r", "read", "Read the pins, the logit lens, all heads and a sample of each checkpoint that has not been read", "read", importance=7),
    _key("stop_reading", "s", "stop", "Stop reading; what is known stays", "stop", importance=2),
    _key("open_checkpoint", "enter,o", "open", "Open the checkpoint under the cursor as the model of all panes", "open", importance=5),
    _key("foreign_learned", "h", "how it learned", "Show how the pinned prompts were learned over the checkpoints", "learned", importance=5),
    _key("foreign_samples", "t", "samples", "Show the samples of all checkpoints", "samples", importance=3),
    _key("foreign_heads", "asterisk", "heads", "Show the scores of all attention heads over the checkpoints", "heads", importance=3),
    _key("foreign_curves", "C", "curves", "Show the curves of the folder's log", "curves", importance=3),
    _key("previous_foreign_pin", "left_square_bracket", "pin", "Select the previous pin", "pin(-1)", together="pin", importance=4),
    _key("next_foreign_pin", "right_square_bracket", "pin", "Select the next pin", "pin(1)", together="pin", importance=4),
    _key("add_foreign_pin", "p", "new pin", "Add a prompt to read from each checkpoint: PROMPT, or PROMPT=>TARGET", "add_pin", importance=3),
    _key("copy_foreign", "y", "copy", "Copy the checkpoints (tab-separated)", "copy"),
    _key("close_foreign", "escape,q", "back", "Back to the runs; reading stops", "close", importance=WAY_OUT),
)  # fmt: skip


class ForeignScreen(BaseScreen, Screen[Path | None]):
    """Dismissed with the checkpoint to open as the model, or with None."""

    own_keys = KEYS
    BINDINGS = bindings(KEYS)
    DEFAULT_CSS = """
    ForeignScreen { layout: vertical; overflow: hidden; }
    ForeignScreen Lines { background: $background; border: round $primary; padding: 0 1; }
    ForeignScreen #foreign-steps { height: 3fr; }
    ForeignScreen #foreign-lens { height: 2fr; }
    """

    def __init__(self, run: ForeignRun) -> None:
        super().__init__()
        self.run_shown = run
        self.files = FileActions(self, self.reload)
        self._steps, self._lens = CheckpointLines(), LensLines()
        self._table: ForeignTable | None = None
        self._pin: Pin | None = None
        self._added: Pin | None = None  # shown as soon as the table has it
        self._process: ForeignProcess | None = None
        self._number = 0  # of readings begun; progress of any but the newest is dropped
        self._progress = ""
        self.reading = False

    def compose(self) -> ComposeResult:
        yield Bar(id="foreign-top")
        yield self._steps
        yield self._lens
        yield KeyBar()

    def on_mount(self) -> None:
        self._steps.focus()
        self.query_one(KeyBar).show_commands(command for command in KEYS if command.footer)
        self._say()
        self.reload()

    def on_unmount(self) -> None:
        self._cancel()

    # ── what is shown ────────────────────────────────────────────────────────────────────────────────────────────

    def reload(self) -> None:
        self._reload()

    @work(thread=True, exclusive=True, group="foreign-table")
    def _reload(self) -> None:
        table = read_table(self.run_shown)
        deliver(self, self._show, table)

    def _show(self, table: ForeignTable) -> None:
        self._table = table
        if self._added in table.pins:
            self._pin, self._added = self._added, None
        elif self._pin not in table.pins:
            self._pin = table.pins[0] if table.pins else None
        self._draw()

    def _draw(self) -> None:
        if self._table is None:
            return
        with self.app.batch_update():
            self._steps.show(self._table, self._pin)
            self._lens.show(self._steps.chosen, self._pin)
            self._say()

    def _say(self) -> None:
        parts: list[str | tuple[str, str]] = [(visible(self.run_shown.name), "bold")]
        if self._table is not None:
            parts.append(f"  {counted(len(self._table.steps), 'checkpoint')}")
            if self._pin is not None:
                at = self._table.pins.index(self._pin) + 1
                words = truncate(visible(pins.text_of(self._pin)), 40)
                parts.append((f"  pin {at} of {len(self._table.pins)}: {words}", "$text-muted"))
        if self._progress:
            parts.append((f"  {visible(self._progress)}", "$text-accent" if self.reading else "$text-warning"))
        self.query_one("#foreign-top", Bar).put(Content.assemble(*parts))

    # ── the process ──────────────────────────────────────────────────────────────────────────────────────────────

    def _cancel(self) -> None:
        self._number += 1
        process, self._process = self._process, None
        if process is not None:
            process.cancel()

    def action_read(self) -> None:
        if not self.reading:
            self._begin(())

    def _begin(self, wanted: tuple[Pin, ...]) -> None:
        self._cancel()
        self.reading, self._progress = True, "starting …"
        self._say()
        run, number, call_later = self.run_shown, self._number, self.app.call_later
        self.run_worker(
            lambda: self._work(number, run, wanted, call_later), name="foreign", group="foreign", thread=True
        )

    def _work(self, number: int, run: ForeignRun, wanted: tuple[Pin, ...], call_later: Callable[..., object]) -> None:
        problem = ""
        try:
            process = ForeignProcess(run, wanted)
            call_later(self._started, number, process)
            for record in process.records():
                deliver(self, self._found, number, record)
        except (UserError, OSError) as error:
            problem = in_one_line(error)
        deliver(self, self._ended, number, problem)

    def _started(self, number: int, process: ForeignProcess) -> None:
        if number == self._number and is_live(self):
            self._process = process
        else:
            process.cancel()

    def _found(self, number: int, record: ForeignProgress) -> None:
        if number != self._number:
            return
        self._progress = f"{record.text} ({record.at:,} of {record.of:,})" if record.of else record.text
        self._say()
        if record.read:
            self.reload()

    def _ended(self, number: int, problem: str) -> None:
        if number != self._number:
            return
        self._process, self.reading, self._progress = None, False, ""
        if problem:
            self._progress = f"! {problem}"
            self.files.notify(problem, "error")
        self._say()
        self.reload()

    # ── actions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def action_stop(self) -> None:
        if self.reading:
            self._cancel()
            self.reading, self._progress = False, "stopped; r reads the others"
            self._say()
            self.reload()

    def action_open(self) -> None:
        if self._steps.chosen is not None:
            self.dismiss(self._steps.chosen.path)

    def action_learned(self) -> None:
        from tui_llm.tui.runs.pin_history import LearnedScreen

        self.app.push_screen(LearnedScreen(self.run_shown))

    def action_samples(self) -> None:
        from tui_llm.tui.runs.samples import SamplesScreen

        self.app.push_screen(SamplesScreen(self.run_shown))

    def action_heads(self) -> None:
        from tui_llm.tui.runs.head_history import RunHeadsScreen

        self.app.push_screen(RunHeadsScreen(self.run_shown))

    def action_curves(self) -> None:
        from tui_llm.tui.runs.curves.screen import CurvesScreen

        self.app.push_screen(CurvesScreen([self.run_shown]))

    def action_pin(self, by: int) -> None:
        if self._table is not None and self._pin is not None:
            known = self._table.pins
            self._pin = known[(known.index(self._pin) + by) % len(known)]
            self._draw()

    def action_add_pin(self) -> None:
        from tui_llm.tui.kit.ask import AskScreen

        def answered(text: str | None) -> None:
            if text is None or not text.strip():
                return
            try:
                pin = pins.parse(text)
            except UserError as error:
                self.files.notify(str(error), "error")
                return
            self._added = pin
            self._begin((pin,))

        hint = "PROMPT, or PROMPT=>TARGET; it is read from each checkpoint"
        self.app.push_screen(AskScreen("New pin", hint, spaces=True), answered)

    def table(self) -> Iterable[tuple[str, ...]]:
        return table_rows(self._table, self._pin) if self._table is not None else ()

    def action_copy(self) -> None:
        self.files.notify(copy_rows(self.app, list(self.table())))

    def action_close(self) -> None:
        self.dismiss(None)
