"""The machine: every gauge of the watched run's GPUs and CPU, which number is which, and what other GPUs do now."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.screen import Screen

from tui_llm.common.display import visible
from tui_llm.common.numbers import duration
from tui_llm.facts.machine_reading import GpuReading, MachineReading
from tui_llm.llm.model.device_names import is_cpu
from tui_llm.llm.model.machine_reader import MachineReader
from tui_llm.training.run import gauges
from tui_llm.training.run.gauges import Gauge
from tui_llm.training.run.snapshot import RunSnapshot
from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.live import deliver
from tui_llm.tui.kit.over import copy_rows
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.kit.widgets.bars import KeyBar
from tui_llm.tui.kit.widgets.lines import Lines

INTERVAL = 2.0  # seconds between two readings
NAMES, VALUES = 12, 24  # cells of the first two columns
OWN = ("allocated", "reserved", "own", "memory")  # gauges of the reading process, which here is this app


class GaugeLines(Lines):
    """The run's newest gauges, then those of the machine now."""

    def __init__(self) -> None:
        super().__init__(id="gauges")
        self.snapshot: RunSnapshot | None = None
        self.now: MachineReading | None = None
        self._lines: list[Text] = []

    def show(self, snapshot: RunSnapshot | None, now: MachineReading | None) -> None:
        self.snapshot, self.now = snapshot, now
        self.border_title = Text.assemble("Machine  ", visible(snapshot.name) if snapshot else "")
        self.rebuild()

    def head(self, width: int) -> list[Text]:
        self._lines = [*self._of_run(width), *self._of_now(width)]
        return []

    def sections(self) -> list[tuple[str, list[Gauge]]]:
        """Titles with gauges: of the run, then of the machine now."""
        found = []
        machine = self.snapshot.machine if self.snapshot is not None else None
        if machine is not None:
            found += [(gauges.gpu_title(gpu), gauges.gpu_gauges(gpu)) for gpu in machine.gpus]
            found += [(machine.cpu.name or "CPU", gauges.cpu_gauges(machine.cpu))] if machine.cpu is not None else []
        if self.now is not None:
            found += [(f"now: {gauges.gpu_title(gpu)}", _not_own(gauges.gpu_gauges(gpu))) for gpu in self.now.gpus]
            if self.now.cpu is not None:
                found.append((f"now: {self.now.cpu.name or 'CPU'}", _not_own(gauges.cpu_gauges(self.now.cpu))))
        return found

    def _of_run(self, width: int) -> list[Text]:
        snapshot = self.snapshot
        if snapshot is None:
            return [Text("There is no run; n in Training starts one.", style=self.style("muted")), Text()]
        machine = snapshot.machine
        if machine is None:
            words = "No gauges of this run yet: its worker writes them at evaluations and every 20 steps."
            return [*wrapped(Text(words, style=self.style("muted")), width), Text()]
        ago = "" if snapshot.status.alive else "; the run does not train now"
        at = f"The run, as its worker read it {_ago(machine.time)}{ago}"
        lines = wrapped(Text(at, style=self.style("strong")), width)
        for note in (*gauges.notes(machine), *gauges.old_gpus(machine)):
            lines += wrapped(Text(f"! {visible(note)}", style=self.style("bad")), width)
        for gpu in machine.gpus:
            lines += self._section(gauges.gpu_title(gpu), gauges.gpu_gauges(gpu), width)
        if machine.cpu is not None:
            lines += self._section(machine.cpu.name or "CPU", gauges.cpu_gauges(machine.cpu), width)
        return [*lines, Text()]

    def _of_now(self, width: int) -> list[Text]:
        now = self.now
        if now is None:
            return [Text("reading this machine …", style=self.style("muted"))]
        lines = wrapped(Text("This machine now, all programs together", style=self.style("strong")), width)
        if now.problem:
            lines += wrapped(Text(f"! {visible(now.problem)}", style=self.style("bad")), width)
        for gpu in now.gpus:
            lines += self._one_line(gpu, width)
        if not now.gpus and not now.problem:
            lines.append(Text("no NVIDIA GPU", style=self.style("muted")))
        if now.cpu is not None:
            lines += self._section(now.cpu.name or "CPU", _not_own(gauges.cpu_gauges(now.cpu)), width)
        return lines

    def _one_line(self, gpu: GpuReading, width: int) -> list[Text]:
        words = gpu.problem or "  ".join(
            f"{one.name} {one.value}" for one in _not_own(gauges.gpu_gauges(gpu)) if one.name != "capability"
        )
        return wrapped(Text(f"{visible(gauges.gpu_title(gpu))}: {visible(words)}"), width)

    def _section(self, title: str, of: Iterable[Gauge], width: int) -> list[Text]:
        lines = [Text(visible(title), style=self.style("accent"))]
        indent = 2 + NAMES + VALUES
        for gauge in of:
            first = Text.assemble(
                "  ", (gauge.name.ljust(NAMES), self.style("muted")), (gauge.value.ljust(VALUES), self.style("strong"))
            )
            meaning = wrapped(Text(gauge.meaning, style=self.style("muted")), max(1, width - indent))
            if width - indent < 20:
                lines.append(first)
                lines += [Text.assemble("    ", line) for line in wrapped(Text(gauge.meaning, style=self.style("muted")), max(1, width - 4))]  # fmt: skip
                continue
            lines.append(Text.assemble(first, meaning[0] if meaning else ""))
            lines += [Text.assemble(" " * indent, line) for line in meaning[1:]]
        return lines

    def row_count(self, width: int) -> int:
        return len(self._lines)

    def row(self, index: int, width: int, selected: bool) -> Text:
        return self._lines[index].copy()


def _not_own(of: Iterable[Gauge]) -> list[Gauge]:
    """The gauges that are not of the reading process alone."""
    return [gauge for gauge in of if gauge.name not in OWN]


def _ago(when: float) -> str:
    seconds = max(0.0, time.time() - when)
    return "just now" if seconds < 2 else f"{duration(seconds)} ago"


_key = CommandFactory("machine", "Machine")
KEYS = (
    _key("copy_machine", "y", "copy", "Copy all gauges with what they mean (tab-separated)", "copy"),
    _key("close_machine", "escape,q", "back", "Back to the five panes", "close", importance=WAY_OUT),
)  # fmt: skip


class MachineScreen(BaseScreen, Screen[None]):
    """Shows what the Training pane has read, `snapshot`, and reads the machine itself, on a thread."""

    own_keys = KEYS
    BINDINGS = bindings(KEYS)
    DEFAULT_CSS = """
    MachineScreen Lines { height: 1fr; border: round $primary; background: $background; padding: 0 1; }
    """

    def __init__(self, snapshot: Callable[[], RunSnapshot | None]) -> None:
        super().__init__()
        self._snapshot = snapshot
        self._reader: MachineReader | None = None
        self._busy = False

    def compose(self) -> ComposeResult:
        yield GaugeLines()
        yield KeyBar()

    def on_mount(self) -> None:
        self.query_one(GaugeLines).focus()
        self.query_one(KeyBar).show_commands(self.own_keys)
        self.set_interval(INTERVAL, self.reload)
        self._show(None)
        self.reload()

    def reload(self) -> None:
        """Reads the machine, unless a reading is in progress."""
        if not self._busy:
            self._busy = True
            self._read()

    @work(thread=True, group="machine")
    def _read(self) -> None:
        try:
            if self._reader is None:
                self._reader = MachineReader(every=not is_cpu("auto"))
            found = self._reader.read()
        finally:
            self._busy = False
        deliver(self, self._show, found)

    def _show(self, now: MachineReading | None) -> None:
        self.query_one(GaugeLines).show(self._snapshot(), now)

    def on_unmount(self) -> None:
        if self._reader is not None:
            with contextlib.suppress(Exception):  # a reading may be in progress
                self._reader.close()

    def table(self) -> Iterable[tuple[str, ...]]:
        yield "of", "gauge", "value", "meaning"
        for title, of in self.query_one(GaugeLines).sections():
            for gauge in of:
                yield visible(title), gauge.name, visible(gauge.value), gauge.meaning

    def action_copy(self) -> None:
        self.notify(copy_rows(self.app, list(self.table())), markup=False)

    def action_close(self) -> None:
        self.dismiss(None)
