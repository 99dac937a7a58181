"""The Temperatures screen: one column of probabilities per temperature, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from rich.text import Text
from textual.app import ComposeResult
from textual.widget import Widget

from tui_llm.common import numbers
from tui_llm.common.display import fit, visible, visible_token
from tui_llm.common.errors import UserError
from tui_llm.instruments.temperatures.question import Temperatures, parse
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.over import OverLab, Row
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.kit.widgets.bars import KeyBar
from tui_llm.tui.kit.widgets.lines import Lines

Fetch = Callable[[Widget, tuple[float, ...], Callable[[Any], object], Callable[[str], object]], None]
WIDTH = 9  # cells of a column
BAR = 10


class TemperatureLines(Lines):
    """The tokens with their probability at each temperature; the entropies below."""

    def __init__(self, words: str, penalised: bool) -> None:
        super().__init__(id="temperatures", classes="pane")
        self.found: Temperatures | None = None
        self.words, self.penalised = words, penalised
        self.problem = ""

    def on_mount(self) -> None:
        self.border_title = "Temperatures side by side"

    def show(self, found: Temperatures) -> None:
        self.found, self.problem = found, ""
        self.rebuild()

    def show_problem(self, line: str) -> None:
        self.problem = line
        self.rebuild()

    def head(self, width: int) -> list[Text]:
        lines = []
        if self.size.height > 8:
            logit = "penalised logit" if self.penalised else "logit"
            note = f"softmax of {logit} ÷ T, before any cut: low T sharpens, high T flattens, 0 is greedy"
            lines += wrapped(Text(note, style=self.style("muted")), width)[:2]
            if self.words:
                lines += wrapped(Text(self.words, style=self.style("accent")), width)[:1]
        if self.problem:
            return [*lines, *wrapped(Text(visible(self.problem), style=self.style("bad")), width)]
        if self.found is None:
            return [*lines, Text("…", style=self.style("muted"))]
        names = ["greedy" if c.temperature == 0 else f"T={c.temperature:.4g}" for c in self.found.columns]
        return [*lines, self._line("token", names, width, self.style("muted"))]

    def row_count(self, width: int) -> int:
        return 0 if self.found is None or self.problem else len(self.found.tokens) + bool(self.found.others)

    def row(self, index: int, width: int, selected: bool) -> Text:
        assert self.found is not None
        columns = self.found.columns
        if index >= len(self.found.tokens):
            shares, name = [column.rest for column in columns], f"{fmt.count(self.found.others)} others"
            return self._line(name, [numbers.percent(p) for p in shares], width, self.style("muted"), shares)
        shares = [column.probabilities[index] for column in columns]
        name = visible_token(self.found.tokens[index].text)
        return self._line(name, [numbers.percent(p) for p in shares], width, None, shares)

    def foot(self, width: int) -> list[Text]:
        if self.found is None or self.problem or self.size.height < 6:
            return []
        columns, muted = self.found.columns, self.style("muted")
        return [
            self._line("entropy, nats", [fmt.number(column.entropy, 3) for column in columns], width, muted),
            self._line("choices: e^entropy", [fmt.compact(column.choices) for column in columns], width, muted),
        ]

    def _line(self, name: str, cells: list[str], width: int, style: Any, shares: list[float] | None = None) -> Text:
        """A row with one cell per column and, if there is room, a bar after each."""
        bar = BAR if width >= 24 + len(cells) * (WIDTH + BAR + 1) else 0
        room = max(6, min(30, width - len(cells) * (WIDTH + (bar + 1 if bar else 0))))
        line = Text(no_wrap=True)
        line.append(fit(name, room), style or self.style("strong"))
        for at, cell in enumerate(cells):
            line.append(cell.rjust(WIDTH), style)
            if bar:
                line.append(" " + fmt.bar(shares[at] if shares else 0.0, bar), self.style("bar"))
        return line

    def selectable(self, index: int) -> bool:
        return self.found is not None and 0 <= index < len(self.found.tokens)


_key = CommandFactory("temperatures", "Temperatures")
KEYS = (
    _key("type_temperatures", "e,enter", "other temperatures", "Type other temperatures, such as 0.5, 1, 2", "type_temperatures"),
    _key("copy_temperatures", "y", "copy", "Copy the columns as a table (tab-separated)", "copy"),
    _key("close_temperatures", "escape,q,T", "back", "Back to the table", "close", importance=WAY_OUT),
)  # fmt: skip


class TemperaturesScreen(OverLab):
    """`penalised`: the logits are those after a repetition penalty."""

    tour_name = "temperatures"
    own_keys = KEYS
    BINDINGS = bindings(KEYS)

    def __init__(
        self, temperatures: tuple[float, ...], fetch: Fetch, words: str = "", *, penalised: bool = False
    ) -> None:
        super().__init__()
        self._temperatures, self._fetch, self._words, self._penalised = temperatures, fetch, words, penalised

    def compose(self) -> ComposeResult:
        yield TemperatureLines(self._words, self._penalised)
        yield KeyBar(id="keys")

    def on_mount(self) -> None:
        self.show_keys()
        self.lines.focus()
        self._ask()

    @property
    def lines(self) -> TemperatureLines:
        return self.query_one(TemperatureLines)

    def _ask(self) -> None:
        self._fetch(self, self._temperatures, self._take, self._show_problem)

    def _take(self, found: Temperatures) -> None:
        self.lines.show(found)

    def _show_problem(self, line: str) -> None:
        self.lines.show_problem(line)

    def action_type_temperatures(self) -> None:
        from tui_llm.tui.kit.ask import AskScreen

        def answered(text: str | None) -> None:
            if not text:
                return
            try:
                self._temperatures = parse(text)
            except UserError as error:
                self.notify(visible(str(error)), severity="error", markup=False)
                return
            self._ask()

        now = ", ".join(f"{t:g}" for t in self._temperatures)
        self.app.push_screen(AskScreen("Temperatures", "numbers from 0 (greedy) up, such as 0.5, 1, 2", now), answered)

    def table(self) -> Iterable[Row]:
        found = self.lines.found
        if found is None:
            return ()
        rows: list[Row] = [("id", "text", *(f"T={column.temperature:g}" for column in found.columns))]
        rows += [
            (str(token.id), visible(token.text), *(repr(column.probabilities[at]) for column in found.columns))
            for at, token in enumerate(found.tokens)
        ]
        rows.append(("", f"{found.others} others", *(repr(column.rest) for column in found.columns)))
        rows.append(("", "entropy", *(repr(column.entropy) for column in found.columns)))
        return rows
