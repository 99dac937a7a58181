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
from tui_llm.facts.pin import Pin
from tui_llm.llm.tokens.token_bytes import token_text
from tui_llm.training.run import pin_readings, pins
from tui_llm.training.run.foreign.foreign_run import ForeignRun
from tui_llm.training.run.pin_readings import PinReading
from tui_llm.training.run.pins_snapshot import PinsSnapshot
from tui_llm.training.run.run import Run
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.over import OverLab, Row
from tui_llm.tui.kit.widgets.bars import Bar, KeyBar
from tui_llm.tui.kit.widgets.probability_chart import Named, Probabilities, ProbabilityChart
from tui_llm.tui.runs.pin_list import PinList
from tui_llm.tui.runs.pin_table import PinTable
from tui_llm.tui.runs.pins_watcher import PinsWatcher
from tui_llm.tui.runs.words import pinned_words, state_words
from tui_llm.tui.tour.pane import left_of

PINS = 5  # most lines of the list of pins
NO_PIN = "no prompt is pinned: Esc, then P in one of the five panes pins the prompt and target shown there"


_key = CommandFactory("learned", "How it learned")
KEYS = (
    _key("close_learned", "escape,q,h", "back", "Back to the five panes", "close", importance=WAY_OUT),
    _key("earlier_evaluation", "left", "earlier", "Go to the previous evaluation", "scrub(-1)", together="evaluation"),
    _key("later_evaluation", "right", "later", "Go to the next evaluation; after the last one, stay with the newest", "scrub(1)", together="evaluation"),
    _key("much_earlier_evaluation", "shift+left", "much earlier", "Go ten evaluations back", "scrub(-10)", footer=()),
    _key("much_later_evaluation", "shift+right", "much later", "Go ten evaluations forward", "scrub(10)", footer=()),
    _key("first_evaluation", "home", "first", "Go to step 0, the model before any training", "scrub_to(0)", footer=()),
    _key("last_evaluation", "end", "newest", "Go to the newest evaluation and stay with it", "scrub_to(-1)", footer=()),
    _key("mark_evaluation", "space", "mark", "Mark this evaluation: the table shows the changes since it; again: unmark", "mark"),
    _key("previous_pin", "up,shift+tab", "previous pin", "Select the pin above", "choose(-1)", together="pin"),
    _key("next_pin", "down,tab", "next pin", "Select the pin below", "choose(1)", together="pin"),
    _key("pin_listed", "P,delete", "pin/unpin", "Unpin the selected prompt (its readings are kept), or pin it again", "pin"),
    _key("log_probability", "l", "log", "Make the axis logarithmic, or linear again", "log_axis"),
    _key("export_learned", "x", "export", "Write the chart to a new file: .svg, .png or .csv", "export"),
    _key("copy_learned", "y", "copy", "Copy the table (tab-separated)", "copy"),
    _key("table_up", "pageup", "table up", "Scroll the table up", "page(-1)", footer=()),
    _key("table_down", "pagedown", "table down", "Scroll the table down", "page(1)", footer=()),
)  # fmt: skip


class LearnedScreen(OverLab):
    """Follows the newest evaluation until the user moves the scrubber away from it."""

    tour_name = "learned"
    own_keys = KEYS
    shows_model = False  # a run's
    shows_text = False
    BINDINGS = bindings(KEYS)
    DEFAULT_CSS = """
    LearnedScreen PinList, LearnedScreen PinTable { padding: 0 1; }
    LearnedScreen #learned-chart { margin: 0 1; }
    LearnedScreen #learned-evaluation { height: 1; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def __init__(self, run: Run | None) -> None:
        super().__init__()
        self.run_shown = run
        self.snapshot: PinsSnapshot | None = None
        self.pins: tuple[Pin, ...] = ()
        self.chosen: Pin | None = None
        self.saved: list[tuple[int, PinReading]] = []  # the chosen pin's evaluations: (step, reading)
        self.step: int | None = None  # the scrubber's step; None follows the newest
        self.marked: int | None = None

    def compose(self) -> ComposeResult:
        yield PinsWatcher(self.run_shown)
        yield Bar(id="learned-top")
        yield PinList(id="learned-pins")
        yield ProbabilityChart(id="learned-chart")
        yield Static(id="learned-evaluation")
        yield PinTable(id="learned-table")
        yield KeyBar(id="learned-keys")

    def on_mount(self) -> None:
        self.show_keys()

    def on_resize(self) -> None:
        self._show()

    # ── what is shown ────────────────────────────────────────────────────────────────────────────────────────────

    @on(PinsWatcher.Updated)
    def _updated(self, message: PinsWatcher.Updated) -> None:
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
        self.saved = pin_readings.of_pin(snapshot.evaluations, self.chosen) if self.chosen else []
        here, marked = self.here, self._evaluation(self.marked) if self.marked is not None else None
        chart, table = self.query_one(ProbabilityChart), self.query_one(PinTable)
        with self.app.batch_update():
            self._show_top(snapshot)
            self._show_pins(snapshot)
            table.show(here, marked)
            height = left_of(self).height
            table.styles.height = max(
                1, min(table.wanted_height(), (height - 3) // 2 + 1 if height < 40 else height // 2)
            )
            self._show_evaluation(here, marked)
            lines = pin_readings.lines(self.saved)
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
    def here(self) -> tuple[int, PinReading] | None:
        """The evaluation at the scrubber."""
        return self._evaluation(self.step)

    def _evaluation(self, step: int | None) -> tuple[int, PinReading] | None:
        """The saved evaluation at `step` or the last before it, or the first of all; the newest if `step` is None."""
        if not self.saved:
            return None
        return self.saved[-1] if step is None else pin_readings.nearest(self.saved, step) or self.saved[0]

    def _named(self, line: pin_readings.Line, here: tuple[int, PinReading] | None) -> Named:
        if line.bytes is None:
            name = f"target {truncate(visible_token(self.chosen.target or ''), 40)}" if self.chosen else "target"
        else:
            name = truncate(visible_token(token_text(line.bytes)), 16)
        return Named(name, line.points, dict(line.points).get(here[0]) if here else None)

    def _nothing(self, snapshot: PinsSnapshot) -> str:
        if self.chosen is None:
            return NO_PIN
        if snapshot.status is None:
            return "no training run is watched: n in the Training pane starts one, and it reads the pinned prompts"
        if self.saved:
            return "nothing could be read"
        if isinstance(self.run_shown, ForeignRun):
            return "not read yet: r on the screen of its checkpoints reads it"
        if self.chosen in snapshot.of_run:
            return "not read yet: a run reads its pins at its next evaluation"
        return f"{snapshot.name} does not read this one: P pins it there too"

    def _show_top(self, snapshot: PinsSnapshot) -> None:
        parts: list[str | tuple[str, str]] = [("How it learned  ", "bold")]
        if snapshot.status is not None:
            words, style = state_words(snapshot.status.state)
            parts += [(words, f"bold {style}"), "  ", (visible(snapshot.name), "bold")]
            parts.append(f"  step {fmt.count(snapshot.status.step)} of {fmt.count(snapshot.status.steps)}")
        if snapshot.problem:
            parts.append((f"  ! {visible(snapshot.problem)}", "$text-error"))
        self.query_one("#learned-top", Bar).put(Content.assemble(*parts))

    def _show_pins(self, snapshot: PinsSnapshot) -> None:
        newest = snapshot.evaluations[-1] if snapshot.evaluations else None
        notes = {}
        for pin in self.pins:
            reading = newest.of(pin) if newest else None
            if reading is None:
                notes[pin] = "not read yet" if pin in snapshot.of_run else "not read now"
            elif reading.probability is not None:
                notes[pin] = f"{numbers.percent(reading.probability)}  loss {fmt.number(reading.loss or 0.0, 2)}"
            else:
                notes[pin] = "" if reading.candidates else "can't be read"
        found = self.query_one(PinList)
        found.styles.height = max(1, min(len(self.pins), PINS, (left_of(self).height - 4) // 5))
        found.display = bool(self.pins)
        found.show(self.pins, self.chosen, snapshot.of_user, notes)

    def _show_evaluation(self, here: tuple[int, PinReading] | None, marked: tuple[int, PinReading] | None) -> None:
        line = self.query_one("#learned-evaluation", Static)
        if here is None:
            line.update(Content())
            return
        step, reading = here
        at = [saved for saved, _ in self.saved].index(step) + 1
        parts: list[str | tuple[str, str]] = [(f"step {fmt.count(step)}", "bold")]
        parts.append((f" ({at} of {len(self.saved)}{', newest' if self.step is None else ''})", "$text-muted"))
        if marked is not None:
            parts.append((f"  since step {fmt.count(marked[0])}", "bold $text-accent"))
            if reading.loss is not None and marked[1].loss is not None:
                change = reading.loss - marked[1].loss
                (later, earlier), moved = numbers.adding([reading.loss, -marked[1].loss], change, 3)
                parts.append(f"  target's loss {earlier.removeprefix('−')} → {later} ({'+' * (change > 0)}{moved})")
        elif reading.loss is not None and reading.probability is not None:
            parts.append(
                f"  target's raw p {numbers.precise_percent(reading.probability)}  loss {fmt.number(reading.loss, 3)} nats"
            )
        if marked is None and reading.entropy is not None:
            parts.append((f"  entropy {fmt.number(reading.entropy, 2)} nats", "$text-muted"))
        line.update(Content.assemble(*parts))

    # ── actions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def action_scrub(self, count: int) -> None:
        here = self.here
        if here is None:
            return
        at = [step for step, _ in self.saved].index(here[0]) + count
        self.step = None if at >= len(self.saved) - 1 and count > 0 else self.saved[max(0, at)][0]
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
        self.query_one(PinsWatcher).read()

    def action_log_axis(self) -> None:
        self.query_one(ProbabilityChart).toggle_log()

    def action_export(self) -> None:
        from tui_llm.tui.kit.actions import FileActions
        from tui_llm.tui.runs.chart_export import ask_export, probability_data

        chart, run = self.query_one(ProbabilityChart), self.run_shown
        name = run.name if run is not None else "pins"
        data = probability_data(
            f"{self.chosen.prompt[:40] if self.chosen else ''} ({name})", chart.shown, log_y=chart.log_axis
        )
        ask_export(self.app, FileActions(self, self._show), data, f"{name}-learned", run)

    def action_page(self, direction: int) -> None:
        table = self.query_one(PinTable)
        table.scroll_to(y=table.scroll_offset.y + direction * max(1, table.size.height - 2), animate=False)

    def table(self) -> Iterable[Row]:
        return self.query_one(PinTable).table()
