"""The scores of a run's attention heads at each evaluation: a map of all heads at one step, and the best heads over all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from tui_llm.common.display import visible
from tui_llm.facts.head_scores import SCORES, best
from tui_llm.training.run import head_readings
from tui_llm.training.run.head_readings import HeadEvaluation
from tui_llm.training.run.run import Run
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.shades import LEGEND, shade
from tui_llm.tui.kit.widgets.bars import Bar, KeyBar
from tui_llm.tui.kit.widgets.head_map import TITLES, HeadMap
from tui_llm.tui.kit.widgets.lines import Lines
from tui_llm.tui.runs.run_view import RunView

NAME = 16  # cells of a score's name

_key = CommandFactory("run_heads", "Heads of a run")
KEYS = (
    _key("close_run_heads", "escape,q,asterisk", "back", "Back to the five panes", "close", importance=WAY_OUT),
    _key("heads_earlier", "left", "earlier", "Go to the previous evaluation", "scrub(-1)", priority=True, together="evaluation"),
    _key("heads_later", "right", "later", "Go to the next evaluation; after the last one, stay with the newest", "scrub(1)", priority=True, together="evaluation"),
    _key("heads_much_earlier", "shift+left", "much earlier", "Go ten evaluations back", "scrub(-10)", footer=()),
    _key("heads_much_later", "shift+right", "much later", "Go ten evaluations forward", "scrub(10)", footer=()),
    _key("heads_first", "home", "first", "Go to step 0, the model before any training", "scrub_to(0)", priority=True, footer=()),
    _key("heads_newest", "end", "newest", "Go to the newest evaluation and stay with it", "scrub_to(-1)", priority=True, footer=()),
    _key("run_head_left", "left_square_bracket", "head", "Select the previous head; ↑ and ↓ select the layer", "head(-1)", together="head"),
    _key("run_head_right", "right_square_bracket", "head", "Select the next head; ↑ and ↓ select the layer", "head(1)", together="head"),
    _key("run_heads_score", "m", "score", "Show the map of the next score, where not all fit", "score"),
    _key("export_run_heads", "x", "export", "Write the best heads' scores at all evaluations to a new file: .svg, .png or .csv", "export"),
    _key("copy_run_heads", "y", "copy", "Copy the scores at all evaluations (tab-separated)", "copy"),
)  # fmt: skip


class RunHeadsScreen(RunView):
    """Follows the newest evaluation until the user moves to an earlier one."""

    tour_name = "run_heads"
    own_keys = KEYS
    BINDINGS = bindings(KEYS)
    DEFAULT_CSS = """
    RunHeadsScreen #run-heads-facts { height: auto; padding: 0 1; }
    """

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._map = HeadMap("run-heads")
        self.saved: list[HeadEvaluation] = []
        self.step: int | None = None  # None follows the newest
        self.problem = ""
        self.loaded = False

    def compose(self) -> ComposeResult:
        yield Bar(id="run-heads-top")
        yield Static(id="run-heads-facts")
        yield self._map
        yield KeyBar()

    def lines(self) -> Lines:
        return self._map

    def path(self) -> Path:
        return self.run_shown.heads_path

    def read(self) -> list[HeadEvaluation]:
        return head_readings.evaluations(self.run_shown)

    def show(self, found: Any, problem: str) -> None:
        self.problem, self.loaded, first = problem, True, not self.saved
        self.saved = found or []
        newest = self.saved[-1] if self.saved else None
        if first and newest is not None and (top := best(newest.scores, SCORES[0])) is not None:
            self._map.show(newest.scores)
            self._map.select(top.layer, top.head)
        self._show()

    def on_resize(self) -> None:
        self._show()

    @property
    def here(self) -> HeadEvaluation | None:
        """The evaluation that is shown."""
        if self.step is None:
            return self.saved[-1] if self.saved else None
        return head_readings.nearest(self.saved, self.step)

    def _show(self) -> None:
        if not self.is_mounted or not self.loaded:
            return
        here = self.here
        top: list[str | tuple[str, str]] = [("Heads of ", "bold"), (visible(self.run_shown.name), "bold")]
        if here is not None:
            at = self.saved.index(here) + 1
            newest = ", newest" if self.step is None else ""
            top.append(f"  step {fmt.count(here.step)} ({at} of {len(self.saved)}{newest})")
        with self.app.batch_update():
            self.query_one("#run-heads-top", Bar).put(Content.assemble(*top))
            self._map.border_title = Text("mean attention to the pattern's tokens, 0 to 1")
            self._map.border_subtitle = Text(LEGEND if self.size.width >= 60 else "")
            self._map.show(here.scores if here is not None else ())
            self.query_one("#run-heads-facts", Static).update(self._facts(here))

    def _facts(self, here: HeadEvaluation | None) -> Content:
        if self.problem:
            return Content.styled(visible(self.problem), "$text-error")
        if here is None:
            return Content.styled(head_readings.NONE_YET, "$text-muted")
        return Content("\n").join([*(self._best_line(here, score) for score in SCORES), self._selected_line()])

    def _best_line(self, here: HeadEvaluation, score: str) -> Content:
        """The best head at this step, and the largest score of any head over all evaluations."""
        top = best(here.scores, score)
        if top is None:
            return Content()
        values = [
            (one.step, (found.of(score) or 0.0) if (found := best(one.scores, score)) is not None else 0.0)
            for one in self.saved
        ]
        room = max(0, self.size.width - NAME - 20)
        return Content.assemble(
            (TITLES[score].ljust(NAME), "$text-muted"),
            (f"{top.name:>6} ", "bold $text-accent"),
            (f"{top.of(score):.3f}  ", "bold"),
            self._course(values, here.step, room),
        )

    def _selected_line(self) -> Content:
        one = self._map.selected
        if one is None:
            return Content()
        numbers = " · ".join(f"{score} {one.of(score):.3f}" for score in SCORES)
        return Content.assemble(("head ".ljust(NAME), "$text-muted"), (f"{one.name:>6} ", "bold"), numbers)

    @staticmethod
    def _course(values: list[tuple[int, float]], step: int, room: int) -> Content:
        """A character for each evaluation, or for as many as fit: the shade of the best head's score. The evaluation that
        is shown is between brackets."""
        count = min(len(values), max(1, room - 2))
        at = next(nth for nth, (one, _) in enumerate(values) if one == step)
        shown = [nth * (len(values) - 1) // max(1, count - 1) for nth in range(count)]
        nearest = min(shown, key=lambda nth: abs(nth - at))
        pieces: list[str | tuple[str, str]] = []
        for nth in shown:
            sign = shade(values[nth][1]).replace(" ", "·")
            pieces += ["[", (sign, "bold $text-accent"), "]"] if nth == nearest else [(sign, "$text-accent")]
        return Content.assemble(*pieces)

    @on(HeadMap.Moved)
    def _moved(self) -> None:
        if self.is_mounted and self.loaded:
            self.query_one("#run-heads-facts", Static).update(self._facts(self.here))

    # ── actions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def action_scrub(self, count: int) -> None:
        here = self.here
        if here is not None:
            at = self.saved.index(here) + count
            self.step = None if at >= len(self.saved) - 1 and count > 0 else self.saved[max(0, at)].step
            self._show()

    def action_scrub_to(self, end: int) -> None:
        if self.saved:
            self.step = None if end < 0 else self.saved[0].step
            self._show()

    def action_head(self, by: int) -> None:
        self._map.move(by)

    def action_export(self) -> None:
        from tui_llm.tui.runs.chart_export import ask_export, head_data

        ask_export(
            self.app,
            self.files,
            head_data(self.run_shown.name, self.saved),
            f"{self.run_shown.name}-heads",
            self.run_shown,
        )

    def action_score(self) -> None:
        self._map.next_score()

    def table(self) -> Iterable[tuple[str, ...]]:
        yield "step", "layer", "head", *SCORES
        for one in self.saved:
            for head in one.scores:
                yield str(one.step), str(head.layer), str(head.head), *(repr(head.of(score)) for score in SCORES)
