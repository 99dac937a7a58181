"""All alarms of the watched run, each with its evidence and what people do about it; and the band of the end's loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rich.text import Text
from textual.app import ComposeResult
from textual.screen import Screen

from tui_llm.common.display import visible
from tui_llm.training.run.alarm_detectors import RECENT
from tui_llm.training.run.alarm_kinds import KINDS, Alarm
from tui_llm.training.run.health import Health
from tui_llm.training.run.loss_band import END
from tui_llm.training.run.settings import PRETRAINING
from tui_llm.training.run.snapshot import RunSnapshot
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.over import copy_rows
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.kit.widgets.bars import KeyBar
from tui_llm.tui.kit.widgets.lines import Lines

INTERVAL = 0.5  # seconds between two looks at the pane's snapshot


def band_words(health: Health) -> str:
    """The band, and what it is made from."""
    band = health.band
    if band is None:
        return ""
    if band.missing:
        return band.missing
    runs = (
        "no earlier run of this shape" if not band.earlier else f"{fmt.count(band.earlier)} earlier runs of this shape"
    )
    runs = runs.replace("1 earlier runs", "1 earlier run")
    return (
        f"{band.words}: the mean training loss of the last {fmt.count(band.window)} steps ({100 * END:.0f} %), expected"
        f" {fmt.number(band.expected, band.places)}; from this run so far, the learning rates that it still has, and {runs}"
    )


def judged_words(first: int | None) -> str:
    """From which step on a loss is compared with those before it. Before that a leap of the loss is no alarm."""
    rule = f"a loss is compared with the {RECENT} before it, after the warm-up"
    if first is None:
        return f"No step was looked at for a spike or an outlier row yet: {rule}."
    return f"Steps before {fmt.count(first)} were not looked at for a spike or an outlier row: {rule}."


class AlarmLines(Lines):
    """The band, then each alarm, the newest first. The cursor is on a line of one."""

    def __init__(self) -> None:
        super().__init__(id="alarms")
        self.snapshot: RunSnapshot | None = None
        self._lines: list[Text] = []
        self._alarms: dict[int, Alarm] = {}  # by the numbers of its lines

    def show(self, snapshot: RunSnapshot | None) -> None:
        before = self.chosen
        self.snapshot = snapshot
        self.border_title = Text.assemble("Is this normal?  ", visible(snapshot.name) if snapshot else "")
        self.rebuild()
        chosen = self.chosen
        if before is not None and (chosen is None or chosen.key != before.key):  # newer alarms stand above it now
            self._place_cursor(next((at for at, alarm in self._alarms.items() if alarm.key == before.key), 0))

    def rebuild(self) -> None:
        super().rebuild()
        if self.cursor is None:
            self._place_cursor(0, quiet=True)

    @property
    def chosen(self) -> Alarm | None:
        """The alarm under the cursor."""
        return None if self.cursor is None else self._alarms.get(self.cursor)

    def cursor_moved(self) -> None:
        """Brings what stands above the first alarm, and below the last one, into sight with it."""
        if self.cursor == min(self._alarms, default=None):
            self.scroll_to(y=0, animate=False)
        elif self.cursor == max(self._alarms, default=None):
            self.scroll_to(y=self.max_scroll_y, animate=False)

    def head(self, width: int) -> list[Text]:
        self._lines = self._laid(width)
        return []

    def _laid(self, width: int) -> list[Text]:
        snapshot, self._alarms = self.snapshot, {}
        if snapshot is None or snapshot.health is None:
            return [Text("nothing was read of this run yet", style=self.style("muted"))]
        health, muted = snapshot.health, self.style("muted")
        lines = wrapped(Text(words, style=self.style("strong")), width) if (words := band_words(health)) else []
        if not health.alarms:
            kinds = f"no alarm: none of {', '.join(KINDS)}. {judged_words(health.judged_from)}"
            if snapshot.objective != PRETRAINING:
                kinds = "no alarm; a run that learns from answers has only the one for numbers that are not finite"
            return [*lines, *([Text()] if lines else []), *wrapped(Text(kinds, style=muted), width)]
        advised = set[str]()  # the advice for a kind is said once
        for alarm in reversed(health.alarms):
            title = f"! {alarm.kind} at step {fmt.count(alarm.step)}"
            title += f", since step {fmt.count(alarm.since)}" if alarm.since != alarm.step else ""
            lines += [Text()] if lines else []
            first = len(lines)
            lines += wrapped(Text(title, style=self.style("bad")), width)
            lines += wrapped(Text(visible(alarm.evidence)), width)
            lines += [] if alarm.kind in advised else wrapped(Text(alarm.advice, style=muted), width)
            advised.add(alarm.kind)
            self._alarms |= dict.fromkeys(range(first, len(lines)), alarm)
        if health.left_out:
            lines += [Text(), Text(f"and {fmt.count(health.left_out)} later ones", style=muted)]
        if snapshot.objective == PRETRAINING:
            lines += [Text(), *wrapped(Text(judged_words(health.judged_from), style=muted), width)]
        return lines

    def row_count(self, width: int) -> int:
        return len(self._lines)

    def row(self, index: int, width: int, selected: bool) -> Text:
        return self._lines[index].copy()

    def selectable(self, index: int) -> bool:
        return index in self._alarms


_key = CommandFactory("alarms", "Alarms")
KEYS = (
    _key("open_alarm_step", "enter", "its step", "Recompute the step at which the alarm begins: its rows with their places in the corpus, and what made its loss", "open_step", importance=3),
    _key("copy_alarms", "y", "copy", "Copy all alarms (tab-separated)", "copy"),
    _key("close_alarms", "escape,q", "back", "Back to the five panes", "close", importance=WAY_OUT),
)  # fmt: skip


class AlarmsScreen(BaseScreen, Screen[None]):
    """Shows what the Training pane has read: `snapshot` returns it. `open_step` opens a step of that run."""

    own_keys = KEYS
    BINDINGS = bindings(KEYS)
    DEFAULT_CSS = """
    AlarmsScreen Lines { height: 1fr; border: round $primary; background: $background; padding: 0 1; }
    """

    def __init__(self, snapshot: Callable[[], RunSnapshot | None], open_step: Callable[[int], object]) -> None:
        super().__init__()
        self._snapshot, self._open_step = snapshot, open_step

    def compose(self) -> ComposeResult:
        yield AlarmLines()
        yield KeyBar()

    def on_mount(self) -> None:
        self.query_one(AlarmLines).focus()
        self.query_one(KeyBar).show_commands(self.own_keys)
        self.set_interval(INTERVAL, self.reload)
        self.reload()

    def reload(self) -> None:
        now, lines = self._snapshot(), self.query_one(AlarmLines)
        if lines.snapshot is None or (
            now is not None and (now.health, now.name) != (lines.snapshot.health, lines.snapshot.name)
        ):
            lines.show(now)

    def table(self) -> Iterable[tuple[str, ...]]:
        yield "kind", "step", "since", "evidence", "advice"
        snapshot = self._snapshot()
        for alarm in snapshot.health.alarms if snapshot is not None and snapshot.health is not None else ():
            yield alarm.kind, str(alarm.step), str(alarm.since), visible(alarm.evidence), alarm.advice

    def action_open_step(self) -> None:
        alarm = self.query_one(AlarmLines).chosen
        if alarm is None:
            self.notify("there is no alarm to open", severity="warning")
        else:
            self._open_step(max(1, alarm.since))

    def action_copy(self) -> None:
        self.notify(copy_rows(self.app, list(self.table())), markup=False)

    def action_close(self) -> None:
        self.dismiss(None)
