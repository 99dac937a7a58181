"""The Ladder screen: what each idea since GPT-2 buys, a run a rung: their table, and all their curves in one chart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual import work

from tui_llm.common.display import fit, visible
from tui_llm.common.errors import UserError
from tui_llm.common.numbers import counted, duration
from tui_llm.training.plan import climb, ladder_results
from tui_llm.training.plan import ladder as ladders
from tui_llm.training.plan.ladder_results import LadderReader, LadderResults, RungResult
from tui_llm.training.run.curve_charts import AXES
from tui_llm.training.run.run import Run
from tui_llm.tui.kit.actions import FileActions
from tui_llm.tui.kit.command import WAY_OUT, Command, CommandFactory, bindings
from tui_llm.tui.kit.confirm import ConfirmScreen
from tui_llm.tui.kit.format import compact
from tui_llm.tui.kit.full import FullScreen
from tui_llm.tui.kit.live import deliver
from tui_llm.tui.kit.over import Row
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.runs import ladder_chart
from tui_llm.tui.runs.chart_export import ask_export
from tui_llm.tui.runs.curves.styles import Styles
from tui_llm.tui.runs.words import state_words
from tui_llm.tui.state.context import LabContext
from tui_llm.tui.state.openers import opens

INTERVAL = 2.0  # seconds between two looks at the files
ALIVE = ("starting", "running", "paused")
COLUMNS = (("state", 12), ("steps", 16), ("loss", 9), ("tokens", 10), ("time", 13), ("×tokens", 9), ("×time", 8))
NARROW = ("state", "loss", "tokens", "×tokens", "×time")  # of a narrow terminal
NARROWER = ("tokens", "state", "×time", "loss")  # what leaves first where these don't fit either: a number is never cut
LEAST_ROOM = 8  # cells of a rung's name
NOTHING = (
    "no ladder yet. n starts one: GPT-2's recipe with AdamW first, then Muon, then one more idea a rung, each as a run with the "
    "same budget. The table says what each needs to the first rung's loss."
)

OPEN = Command(
    "ladder", "number_sign", "ladder",
    "Ladder: what each idea since GPT-2 buys, one run a rung with the same budget, all curves in one chart",
    "Ladder", "lab", "app.open('ladder')",
)  # fmt: skip
_key = CommandFactory("ladder", "Ladder")
KEYS = (
    _key("ladder_new", "n", "new", "Start a ladder: text, budget, rungs", "new", importance=4),
    _key("ladder_go_on", "e", "go on", "Go on with a ladder that was stopped or has failed; finished rungs stay", "go_on", importance=3),
    _key("ladder_stop", "S", "stop", "Stop the ladder: the run that is trained saves, then ends", "stop", importance=3),
    _key("ladder_axis", "a", "by", "Draw over the next of: tokens, seconds of the steps, FLOPs, steps", "axis", importance=3),
    _key("ladder_about", "w", "what it does", "Say what the next rung does, and its source", "about", importance=2),
    _key("ladder_before", "left_square_bracket", "ladder", "Show the ladder before: the list is by age", "other(1)", together="ladder"),
    _key("ladder_after", "right_square_bracket", "ladder", "Show the next newer ladder", "other(-1)", together="ladder"),
    _key("ladder_curves", "C", "curves", "Show all curves of all rungs in a grid", "curves", importance=2),
    _key("ladder_export", "x", "export", "Write the chart to a new file: .svg, .png or .csv", "export", importance=2),
    _key("ladder_copy", "y", "copy", "Copy the table (tab-separated)", "copy"),
    _key("delete_ladder", "D,delete", "delete", "Delete the ladder with all its runs and their checkpoints; asks first", "delete"),
    _key("close_ladder", "escape,q", "back", "Back to the five panes", "close", importance=WAY_OUT),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LadderState:
    """What a look at the files gave: the names of all ladders, the newest first, and of the one that is `shown` the results (None:
    its file can't be read) and whether it is climbed."""

    names: tuple[str, ...] = ()
    results: LadderResults | None = None
    climbed: bool = False
    problem: str = ""
    shown: str = ""


def look(name: str, reader: LadderReader) -> LadderState:
    """Reads the ladder `name`, or the newest one where there is none of that name."""
    climb.reap()
    names = tuple(ladders.names())
    if not names:
        return LadderState()
    name = name if name in names else names[0]
    try:
        results = reader.read(ladders.find(name))
    except UserError as error:
        return LadderState(names, problem=str(error), shown=name)
    climbed, done = ladders.climbed(name), all(one.state == "finished" for one in results.rungs)
    return LadderState(names, results, climbed, "" if climbed or done else climb.trouble(name), name)


def fitting(width: int) -> list[tuple[str, int]]:
    """The columns of the table, with their cells, that fit beside a rung's name into `width` cells."""
    columns = [(name, cells) for name, cells in COLUMNS if width >= 92 or name in NARROW]
    for name in NARROWER:
        if LEAST_ROOM + 4 + sum(cells for _, cells in columns) > width:
            columns = [column for column in columns if column[0] != name]
    return columns


@opens("ladder")
class LadderScreen(FullScreen):
    TITLE_WORDS: ClassVar[str] = "Ladder"
    shows_model = False
    shows_text = False
    own_keys = KEYS
    BINDINGS = bindings(KEYS)

    def __init__(self, context: LabContext) -> None:
        super().__init__()
        self.context = context
        self.found = LadderState()
        self.chosen = ""  # the name of the ladder that is shown; empty: the newest
        self.axis = "tokens"
        self.about: int | None = None  # the number of the rung whose sentence is shown
        self.was_read = False  # whether the files were looked at
        self._busy = False
        self._reader = LadderReader()
        self.files = FileActions(self, self.reload)

    def on_mount(self) -> None:
        super().on_mount()
        self.set_interval(INTERVAL, self.reload)
        self.app.theme_changed_signal.subscribe(self, lambda _theme: self.refill())
        self.reload()

    def reload(self) -> None:
        """Reads the ladder again, unless a read is in progress."""
        if not self._busy:
            self._busy = True
            self._reload(self.chosen or "")

    @work(thread=True, group="ladder")
    def _reload(self, name: str) -> None:
        try:
            found = look(name, self._reader)
        finally:
            self._busy = False
        deliver(self, self._show, name, found)

    def _show(self, asked: str, found: LadderState) -> None:
        if asked != (self.chosen or ""):  # another one was chosen meanwhile
            self.reload()
        elif not self.was_read or found != self.found:
            self.found, self.was_read = found, True
            if found.results is not None:
                self.chosen = found.results.ladder.name
            self.refill()

    # ── what is shown ────────────────────────────────────────────────────────────────────────────────────────────

    def subject(self) -> str:
        results = self.found.results
        if results is None:
            return ""
        ladder = results.ladder
        return f"{ladder.name}: {ladder.budget} a rung, preset {ladder.preset}"

    def content(self, width: int) -> tuple[list[Text], Sequence[Text]]:
        state = self.found
        if not self.was_read:
            return [], [Text("reading the ladders …", style=self.style("muted"))]
        if state.results is None:
            words = state.problem or NOTHING
            return [], wrapped(Text(visible(words), style=self.style("bad" if state.problem else "muted")), width)
        columns = fitting(width)
        room = max(LEAST_ROOM, min(20, width - 4 - sum(cells for _, cells in columns)))
        head, lines = wrapped(self._head(state), width), list[Text]()
        if state.problem:
            head += wrapped(Text(visible(state.problem), style=self.style("bad")), width)
        title = "".join(name.rjust(cells) for name, cells in columns)
        head.append(Text(f"   {fit('rung', room)}{title}", style=self.style("muted"), no_wrap=True))
        styles = Styles(Style.null(), self.app.theme_variables, len(state.results.rungs) + 1, 1)
        for number, one in enumerate(state.results.rungs):
            lines.append(self._row(number, one, columns, room, styles))
        for one in state.results.rungs:
            if one.state in ("failed", "died") and one.message:
                lines += wrapped(Text(visible(f"{one.rung.name} {one.state}: {one.message}"), self.style("bad")), width)
        if (now := self._explained(state.results)) is not None:
            lines += wrapped(
                Text(f"{now.rung.name}: {now.rung.sentence} ({now.rung.source})", self.style("muted")), width
            )
        room = self.listing.size.height - len(head) - len(lines) - 1
        return head, [*lines, *self._chart(state.results, width, room, styles)]

    def _head(self, state: LadderState) -> Text:
        assert state.results is not None
        results = state.results
        done = sum(one.state == "finished" for one in results.rungs)
        line = Text(f"{done} of {len(results.rungs)} rungs finished", self.style("strong"), no_wrap=True)
        if state.climbed:
            alive = any(one.state in ALIVE for one in results.rungs)
            line.append(", training now" if alive else ", the next rung is measured or starts", "not bold")
        if results.target is not None:
            line.append(f"; ×: needed to loss {results.target:.4f}, {results.targets_run}", self.style("muted"))
        return line

    def _row(self, number: int, one: RungResult, columns: Sequence[tuple[str, int]], room: int, styles: Styles) -> Text:
        last = one.last
        assert self.found.results is not None
        tokens, time = self.found.results.ratios(one)
        values = {
            "state": state_words(one.state)[0] if one.state else "–",
            "steps": "–" if one.steps is None else f"{one.step:,}/{one.steps:,}",
            "loss": f"{last.loss:.4f}" if last else "–",
            "tokens": compact(last.tokens) if last else "–",
            "time": duration(last.seconds) if last else "–",
            "×tokens": "–" if tokens is None else f"{tokens:.2f}",
            "×time": "–" if time is None else f"{time:.2f}",
        }
        line = Text(f" {ladder_chart.mark(number)} ", styles(number), no_wrap=True).append(
            fit(visible(one.rung.name), room), "default"
        )
        for name, cells in columns:
            line.append(values[name].rjust(cells), "default")
        return line

    def _explained(self, results: LadderResults) -> RungResult | None:
        """The rung that was asked for; else the one that is trained, or the last one that was begun."""
        if self.about is not None:
            return results.rungs[self.about % len(results.rungs)]
        begun = [one for one in results.rungs if one.state]
        return next((one for one in begun if one.state in ("running", "starting")), begun[-1] if begun else None)

    def _chart(self, results: LadderResults, width: int, height: int, styles: Styles) -> list[Text]:
        muted = self.style("muted")
        lines, count = ladder_chart.lines(results, self.axis, width, height, styles, muted)
        if not count:
            known = any(one.evaluations for one in results.rungs)
            words = f"by {self.axis}: not known yet" if known else "the curves appear after the first evaluation"
            return [Text(words, style=muted)]
        return lines

    def table(self) -> Iterable[Row]:
        if self.found.results is not None:
            yield from ladder_results.table(self.found.results)

    # ── actions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def action_new(self) -> None:
        from tui_llm.tui.runs.new_ladder import NewLadderScreen

        self.app.push_screen(NewLadderScreen(ended=self._start_ended), self._made)

    def _start_ended(self, run: Run | None, problem: str) -> None:
        """The form was closed while it started a ladder."""
        if problem:
            self.files.notify(problem, "error")
        self._made(run)

    def _made(self, run: Run | None) -> None:
        if run is not None:
            self.chosen = ""  # the newest
            self.reload()

    def action_go_on(self) -> None:
        results = self.found.results
        if results is None:
            self.files.notify("there is no ladder yet; n starts one", "warning")
        elif all(one.state == "finished" for one in results.rungs):
            self.files.notify("all rungs of this ladder are finished", "warning")
        else:
            self.files.act(lambda: climb.detach(results.ladder), f"ladder {results.ladder.name} goes on")

    def action_stop(self) -> None:
        results = self.found.results
        if results is None or not self.found.climbed:
            self.files.notify("no ladder is trained here", "warning")
            return
        ladder = results.ladder

        def stop() -> None:
            if not climb.stop(ladder):
                raise UserError("the next rung is just starting; try again in some seconds")

        self.files.act(stop, f"ladder {ladder.name} saves, then stops; e goes on with it")

    def action_delete(self) -> None:
        name, results = self.found.shown, self.found.results
        if not name:
            self.files.notify("there is no ladder yet; n starts one", "warning")
            return
        if self.found.climbed or any(one.state in ALIVE for one in (results.rungs if results else ())):
            self.files.notify(f"ladder {name} is being trained; S stops it first", "warning")
            return
        count = sum(bool(one.state) for one in results.rungs) if results else 0
        runs = f" and its {counted(count, 'run')}, with all checkpoints" if count else ""
        damaged = "" if results else " Its file can't be read; its runs stay."

        def answered(yes: bool | None) -> None:
            if yes:
                self.chosen = ""  # the newest that is left
                self.files.act(lambda: ladders.delete(name), f"ladder {name} is deleted")

        self.app.push_screen(ConfirmScreen(f"Delete ladder {name}{runs}?{damaged}", "Delete"), answered)

    def action_axis(self) -> None:
        names = ["tokens", *(name for name in ("time", "flops", "step") if name in AXES)]
        self.axis = names[(names.index(self.axis) + 1) % len(names)]
        self.refill()

    def action_about(self) -> None:
        results = self.found.results
        if results is None:
            self.files.notify("there is no ladder yet; n starts one", "warning")
            return
        self.about = 0 if self.about is None else (self.about + 1) % len(results.rungs)
        self.refill()

    def action_other(self, by: int) -> None:
        names = self.found.names
        if len(names) < 2:
            self.files.notify("there is no other ladder", "warning")
            return
        at = names.index(self.chosen) if self.chosen in names else 0
        self.chosen, self.about = names[max(0, min(at + by, len(names) - 1))], None
        self.reload()

    def action_curves(self) -> None:
        results = self.found.results
        found = [] if results is None else [results.ladder.run(at) for at, one in enumerate(results.rungs) if one.state]
        if not found:
            self.files.notify("no rung has begun yet", "warning")
            return
        from tui_llm.tui.runs.curves.screen import CurvesScreen

        self.app.push_screen(CurvesScreen(found))

    def action_export(self) -> None:
        results = self.found.results
        if results is None:
            self.files.notify("there is no ladder yet; n starts one", "warning")
            return
        ask_export(
            self.app, self.files, ladder_results.chart(results, self.axis), f"ladder-{results.ladder.name}", None
        )
