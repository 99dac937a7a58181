"""How it learned: the pinned prompts of the watched run over all its evaluations."""

from __future__ import annotations

from collections.abc import Iterable

from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from tui_llm.common import numbers
from tui_llm.common.display import truncate, visible, visible_token
from tui_llm.common.errors import UserError
from tui_llm.llm.tokens.token_bytes import token_text
from tui_llm.training.run import pins, probe_log
from tui_llm.training.run.pins import Pin
from tui_llm.training.run.probe_log import Probe
from tui_llm.training.run.run import Run
from tui_llm.training.run.snapshot import ProbeSnapshot
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.command import CommandFactory, bindings
from tui_llm.tui.kit.over import OverLab, Row
from tui_llm.tui.kit.widgets.bars import Bar, KeyBar
from tui_llm.tui.kit.widgets.probability_chart import Named, Probabilities, ProbabilityChart
from tui_llm.tui.runs.pin_list import PinList
from tui_llm.tui.runs.probe_table import ProbeTable
from tui_llm.tui.runs.probe_watcher import ProbeWatcher
from tui_llm.tui.runs.words import pinned_words, state_words
from tui_llm.tui.tour.pane import left_of

PINS = 5  # most lines of the list of pins
NO_PIN = "no prompt is pinned: Esc, then P in one of the five panes pins the prompt and target shown there"


_key = CommandFactory("learned", "How it learned")
KEYS = (
    _key("leave_learned", "escape,q,h", "back", "Back to the five panes", "leave"),
    _key("earlier_moment", "left", "earlier", "Go to the previous evaluation", "scrub(-1)", together="moment"),
    _key("later_moment", "right", "later", "Go to the next evaluation; after the last one, stay with the newest", "scrub(1)", together="moment"),
    _key("much_earlier_moment", "shift+left", "much earlier", "Go ten evaluations back", "scrub(-10)", footer=()),
    _key("much_later_moment", "shift+right", "much later", "Go ten evaluations forward", "scrub(10)", footer=()),
    _key("first_moment", "home", "first", "Go to step 0, the model before any training", "scrub_to(0)", footer=()),
    _key("last_moment", "end", "newest", "Go to the newest evaluation and stay with it", "scrub_to(-1)", footer=()),
    _key("mark_moment", "space", "mark", "Mark this evaluation: the table shows the changes since it; again: unmark", "mark"),
    _key("previous_pin", "up,shift+tab", "previous pin", "Select the pin above", "choose(-1)", together="pin"),
    _key("next_pin", "down,tab", "next pin", "Select the pin below", "choose(1)", together="pin"),
    _key("pin_listed", "P,delete", "pin/unpin", "Unpin the selected prompt (its readings are kept), or pin it again", "pin"),
    _key("log_probability", "l", "log", "Make the axis logarithmic, or linear again", "log_axis"),
    _key("copy_learned", "y", "copy", "Copy the table (tab-separated)", "copy"),
    _key("table_up", "pageup", "table up", "Scroll the table up", "page(-1)", footer=()),
    _key("table_down", "pagedown", "table down", "Scroll the table down", "page(1)", footer=()),
)  # fmt: skip


class LearnedScreen(OverLab):
    """Follows the newest evaluation until the user moves the scrubber away from it."""

    own_keys = KEYS
    BINDINGS = bindings(KEYS)
    DEFAULT_CSS = """
    LearnedScreen PinList, LearnedScreen ProbeTable { padding: 0 1; }
    LearnedScreen #learned-chart { margin: 0 1; }
    LearnedScreen #learned-moment { height: 1; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def __init__(self, run: Run | None) -> None:
        super().__init__()
        self.run_shown = run
        self.snapshot: ProbeSnapshot | None = None
        self.pins: tuple[Pin, ...] = ()
        self.chosen: Pin | None = None
        self.saved: list[tuple[int, Probe]] = []  # the chosen pin's evaluations: (step, probe)
        self.step: int | None = None  # the scrubber's step; None follows the newest
        self.marked: int | None = None

    def compose(self) -> ComposeResult:
        yield ProbeWatcher(self.run_shown)
        yield Bar(id="learned-top")
        yield PinList(id="learned-pins")
        yield ProbabilityChart(id="learned-chart")
        yield Static(id="learned-moment")
        yield ProbeTable(id="learned-table")
        yield KeyBar(id="learned-keys")

    def on_mount(self) -> None:
        self.show_keys()

    def on_resize(self) -> None:
        self._show()

    # ── what is shown ────────────────────────────────────────────────────────────────────────────────────────────

    @on(ProbeWatcher.Seen)
    def _seen(self, message: ProbeWatcher.Seen) -> None:
        message.stop()
        self.snapshot = message.snapshot
        self.pins = message.snapshot.pins
        if self.chosen not in self.pins:
            self.chosen = self.pins[0] if self.pins else None
        self._show()

    def _show(self, *, now: bool = False) -> None:
        snapshot = self.snapshot
        if snapshot is None or not self.is_mounted:
            return
        self.saved = probe_log.of_pin(snapshot.moments, self.chosen) if self.chosen else []
        here, marked = self.here, self._moment(self.marked) if self.marked is not None else None
        chart, table = self.query_one(ProbabilityChart), self.query_one(ProbeTable)
        with self.app.batch_update():
            self._show_top(snapshot)
            self._show_pins(snapshot)
            table.show(here, marked)
            height = left_of(self).height
            table.styles.height = max(
                1, min(table.wanted_height(), (height - 3) // 2 + 1 if height < 40 else height // 2)
            )
            self._show_moment(here, marked)
            lines = probe_log.lines(self.saved)
            steps = [step for step, _ in self.saved]
            chart.show(
                Probabilities(
                    tuple(self._named(line, here) for line in lines),
                    steps[0] if steps else 0,
                    steps[-1] if steps else 1,
                    here[0] if here else None,
                    marked[0] if marked else None,
                    self._nothing(snapshot),
                ),
                now=now,
            )

    @property
    def here(self) -> tuple[int, Probe] | None:
        """The evaluation at the scrubber."""
        return self._moment(self.step)

    def _moment(self, step: int | None) -> tuple[int, Probe] | None:
        """The saved evaluation at `step` or the last before it, or the first of all; the newest if `step` is None."""
        if not self.saved:
            return None
        return self.saved[-1] if step is None else probe_log.nearest(self.saved, step) or self.saved[0]

    def _named(self, line: probe_log.Line, here: tuple[int, Probe] | None) -> Named:
        if line.bytes is None:
            name = f"target {truncate(visible_token(self.chosen.target or ''), 40)}" if self.chosen else "target"
        else:
            name = truncate(visible_token(token_text(line.bytes)), 16)
        return Named(name, line.points, dict(line.points).get(here[0]) if here else None)

    def _nothing(self, snapshot: ProbeSnapshot) -> str:
        if self.chosen is None:
            return NO_PIN
        if snapshot.status is None:
            return "no training run is watched: n in the Training pane starts one, and it reads the pinned prompts"
        if self.saved:
            return "nothing could be read"
        if self.chosen in snapshot.running:
            return "not read yet: a run reads its pins at its next evaluation"
        return f"{snapshot.name} does not read this one: P pins it there too"

    def _show_top(self, snapshot: ProbeSnapshot) -> None:
        parts: list[str | tuple[str, str]] = [("How it learned  ", "bold")]
        if snapshot.status is not None:
            words, style = state_words(snapshot.status.state)
            parts += [(words, f"bold {style}"), "  ", (visible(snapshot.name), "bold")]
            parts.append(f"  step {fmt.count(snapshot.status.step)} of {fmt.count(snapshot.status.steps)}")
        if snapshot.problem:
            parts.append((f"  ! {visible(snapshot.problem)}", "$text-error"))
        self.query_one("#learned-top", Bar).put(Content.assemble(*parts))

    def _show_pins(self, snapshot: ProbeSnapshot) -> None:
        newest = snapshot.moments[-1] if snapshot.moments else None
        says = {}
        for pin in self.pins:
            probe = newest.of(pin) if newest else None
            if probe is None:
                says[pin] = "not read yet" if pin in snapshot.running else "not read now"
            elif probe.probability is not None:
                says[pin] = f"{numbers.percent(probe.probability)}  loss {fmt.number(probe.loss or 0.0, 2)}"
            else:
                says[pin] = "" if probe.guesses else "can't be read"
        found = self.query_one(PinList)
        found.styles.height = max(1, min(len(self.pins), PINS, (left_of(self).height - 4) // 5))
        found.display = bool(self.pins)
        found.show(self.pins, self.chosen, snapshot.mine, says)

    def _show_moment(self, here: tuple[int, Probe] | None, marked: tuple[int, Probe] | None) -> None:
        line = self.query_one("#learned-moment", Static)
        if here is None:
            line.update(Content())
            return
        step, probe = here
        at = [saved for saved, _ in self.saved].index(step) + 1
        parts: list[str | tuple[str, str]] = [(f"step {fmt.count(step)}", "bold")]
        parts.append((f" ({at} of {len(self.saved)}{', newest' if self.step is None else ''})", "$text-muted"))
        if marked is not None:
            parts.append((f"  since step {fmt.count(marked[0])}", "bold $text-accent"))
            if probe.loss is not None and marked[1].loss is not None:
                change = fmt.number(probe.loss - marked[1].loss, 3)
                parts.append(
                    f"  target's loss {fmt.number(marked[1].loss, 3)} → {fmt.number(probe.loss, 3)} ({change})"
                )
        elif probe.loss is not None and probe.probability is not None:
            parts.append(f"  target {numbers.percent_said(probe.probability)}  loss {fmt.number(probe.loss, 3)} nats")
        if marked is None and probe.entropy is not None:
            parts.append(("  entropy " + fmt.number(probe.entropy, 2), "$text-muted"))
        line.update(Content.assemble(*parts))

    # ── actions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def action_scrub(self, moments: int) -> None:
        here = self.here
        if here is None:
            return
        at = [step for step, _ in self.saved].index(here[0]) + moments
        self.step = None if at >= len(self.saved) - 1 and moments > 0 else self.saved[max(0, at)][0]
        self._show(now=True)

    def action_scrub_to(self, end: int) -> None:
        if self.saved:
            self.step = None if end < 0 else self.saved[0][0]
            self._show(now=True)

    def action_mark(self) -> None:
        here = self.here
        if here is not None:
            self.marked = None if self.marked == here[0] else here[0]
            self._show(now=True)

    def action_choose(self, direction: int) -> None:
        if self.chosen is not None:
            self._choose(self.pins[(self.pins.index(self.chosen) + direction) % len(self.pins)])

    @on(PinList.Chosen)
    def _clicked(self, message: PinList.Chosen) -> None:
        message.stop()
        self._choose(message.pin)

    def _choose(self, pin: Pin) -> None:
        if pin != self.chosen and pin in self.pins:
            self.chosen = pin
            self._show(now=True)

    def action_pin(self) -> None:
        pin = self.chosen
        if pin is None:
            return
        try:
            pinned = pins.toggle(pin, self.run_shown)
        except UserError as error:
            self.notify(visible(str(error)), severity="error", markup=False)
            return
        self.notify(pinned_words(pin, pinned, self.run_shown.name if self.run_shown else ""), markup=False, timeout=3)
        self.query_one(ProbeWatcher).look()

    def action_log_axis(self) -> None:
        self.query_one(ProbabilityChart).toggle_log()

    def action_page(self, direction: int) -> None:
        table = self.query_one(ProbeTable)
        table.scroll_to(y=table.scroll_offset.y + direction * max(1, table.size.height - 2), animate=False)

    def table(self) -> Iterable[Row]:
        return self.query_one(ProbeTable).table()
