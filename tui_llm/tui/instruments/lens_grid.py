"""The Lens grid screen: the likeliest token of each layer after each token of the text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import ClassVar

from rich.text import Text

from tui_llm.common import numbers
from tui_llm.common.display import fit, token_label, visible
from tui_llm.facts.model import Weights
from tui_llm.facts.request import Question
from tui_llm.instruments.lens.question import LensCell, LensGrid, LensGridQuestion, layer_of, lens_name
from tui_llm.tui.instruments.inside.keys import TUNED
from tui_llm.tui.instruments.token_screen import SHADES, TokenPage
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.full import FullScreen, clickable
from tui_llm.tui.kit.over import Row
from tui_llm.tui.kit.shades import LEVELS, level
from tui_llm.tui.kit.text import packed, wrapped
from tui_llm.tui.state.context import LabContext

LABEL, LEAST, WIDEST = 5, 9, 14  # cells of a layer's name, and of a column
COLUMNS = 128  # tokens asked for at a time
TOP = 5
RANKS = (1, 3, 10, 100)  # the largest rank of each shade, the darkest first
PROBABILITY, RANK = "probability of its token", "rank of the target"

_key = CommandFactory("lens_grid", "Lens grid")
KEYS = (
    _key("grid_left", "left", "token", "The previous token of the text", "across(-1)", priority=True, together="token"),
    _key("grid_right", "right", "token", "The next token of the text", "across(1)", priority=True, together="token"),
    _key("grid_up", "up", "layer", "The layer before", "down(-1)", priority=True, together="layer"),
    _key("grid_down", "down", "layer", "The next layer", "down(1)", priority=True, together="layer"),
    _key("grid_first", "home", "first", "The first token that the model sees", "end(0)", priority=True, footer=()),
    _key("grid_last", "end", "last", "The last token of the text", "end(-1)", priority=True, footer=()),
    _key("grid_colour", "k", "colour", "Colour a cell by the probability of its token, or by the rank of the target there",
         "colour"),
    _key("grid_target", "t", "target", "The target: the text's own next token at each token, or the lab's target at all",
         "target"),
    _key("grid_tuned", "u", "tuned", TUNED, "tuned"),
    _key("grid_copy", "y", "copy", "Copy the grid as a table (tab-separated)", "copy"),
    _key("close_grid", "escape,q,g", "back", "Close the grid", "close", importance=WAY_OUT),
)  # fmt: skip


class LensGridScreen(FullScreen):
    tour_name = "lens_grid"
    TITLE_WORDS: ClassVar[str] = "Lens grid"
    own_keys = KEYS
    BINDINGS = bindings(KEYS)

    def __init__(self, context: LabContext, number: int | None = None) -> None:
        super().__init__()
        self.page = TokenPage(self, context, self.question, number, self._taken, self._failed)
        self.tuned = False  # which lens
        self.row_number: int | None = None  # the row with the cursor; None is the last
        self.by_rank = False
        self.asked_target = False
        self._first = 0  # the first column on the screen

    def on_mount(self) -> None:
        super().on_mount()
        self.page.ask()

    def on_unmount(self) -> None:
        self.page.forget(LensGridQuestion)

    def reopened(self, weights: Weights) -> None:
        self.page.reopened(weights)

    @property
    def found(self) -> LensGrid | None:
        return self.page.found

    def question(self) -> Question[LensGrid]:
        target = self.page.context.lab.target if self.asked_target else None
        request = dataclasses.replace(self.page.request, target=target)
        count = self.found.place.count if self.found is not None else None
        if self.page.number is None:  # the end of the text: how long it is, the first answer says
            return LensGridQuestion(request, max(0, (count or 0) - COLUMNS), COLUMNS, TOP, self.tuned)
        return LensGridQuestion(request, max(0, self.page.number - COLUMNS // 2), COLUMNS, TOP, self.tuned)

    def _taken(self, found: LensGrid) -> None:
        if self.page.number is None and self.last_column < found.place.count - 1:
            self.page.ask()  # a text of more columns than are asked for at a time: go to its end

    def _failed(self, problem: str) -> bool:
        """Shows the logit lens if there is no tuned one."""
        if self.tuned:
            self.page.context.notify(problem)
            self.tuned = False
            self.page.ask()
            return True
        return False

    # ── the cursor ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def last_column(self) -> int:
        """The number of the last token that the answer has."""
        assert self.found is not None
        return self.found.place.number + len(self.found.targets) - 1

    @property
    def column(self) -> int:
        """The column with the cursor, among those of the answer."""
        assert self.found is not None
        number = self.found.place.count - 1 if self.page.number is None else self.page.number
        return max(0, min(number - self.found.place.number, len(self.found.targets) - 1))

    @property
    def row(self) -> int:
        assert self.found is not None
        last = len(self.found.rows) - 1
        return last if self.row_number is None else min(self.row_number, last)

    @property
    def cell(self) -> LensCell:
        assert self.found is not None
        return self.found.rows[self.row][self.column]

    def action_across(self, by: int) -> None:
        if self.found is not None:
            place = self.found.place
            now = place.number + self.column
            self._go(max(place.first, min(now + by, place.count - 1)))

    def action_end(self, end: int) -> None:
        if self.found is not None:
            self._go(self.found.place.count - 1 if end else self.found.place.first)

    def _go(self, number: int) -> None:
        assert self.found is not None
        self.page.number = number
        if self.found.place.number <= number <= self.last_column:
            self.refill()
        else:
            self.page.ask()

    def action_down(self, by: int) -> None:
        if self.found is not None:
            self.row_number = max(0, min(self.row + by, len(self.found.rows) - 1))
            self.refill()

    def cell_clicked(self, row: int, column: int) -> None:
        if self.found is not None:
            self.row_number = row
            self._go(self.found.place.number + column)

    def action_colour(self) -> None:
        self.by_rank = not self.by_rank
        self.refill()

    def action_tuned(self) -> None:
        self.tuned = not self.tuned
        self.page.ask()

    def action_target(self) -> None:
        target = self.page.context.lab.target
        if target is None or target.own:
            self.page.context.notify("no target is chosen: t in the five panes chooses one")
            return
        self.asked_target = not self.asked_target
        self.page.ask()

    # ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────

    def subject(self) -> str:
        found = self.found
        if found is None:
            return ""
        place = dataclasses.replace(found.place, number=found.place.number + self.column)
        return f"{lens_name(found.tuned)} · {self.page.place_words(found.weights, place)}"

    def content(self, width: int) -> tuple[list[Text], Sequence[Text]]:
        found, lines = self.found, self.page.instead(width)
        if lines or found is None:
            return [], lines
        shown, cells = self._columns(width)
        lines = self._legend(width)
        names = Text(" " * LABEL, no_wrap=True)
        for at in shown:
            style = "accent" if at == self.column else "muted"
            names.append(fit(" " + token_label(found.token(at).text), cells), self.style(style))
        lines.append(names)
        grid = [self._row(at, shown, cells) for at in range(len(found.rows))]
        details = self._details(width)
        room = self.listing.size.height - len(lines) - len(details)
        # The rows around the cursor, where not all have room beside the cell's details.
        if 0 < room < len(grid):
            first = max(0, min(self.row - room // 2, len(grid) - room))
            grid = grid[first : first + room]
        return [*lines, *grid], details

    def _columns(self, width: int) -> tuple[range, int]:
        """The columns on the screen, and their width."""
        assert self.found is not None
        count, room = len(self.found.targets), max(1, width - LABEL)
        cells = max(LEAST, min(WIDEST, room // max(1, count)))
        shown = max(1, min(count, room // cells))
        column = self.column
        self._first = max(0, min(self._first, column, count - shown))
        self._first = max(self._first, column - shown + 1)
        return range(self._first, self._first + shown), cells

    def _legend(self, width: int) -> list[Text]:
        colour = Text("colour: ", self.style("muted")).append(
            RANK if self.by_rank else PROBABILITY, self.style("strong")
        )
        if self.by_rank:
            bounds = [(4 - at, f"≤ {most}") for at, most in enumerate(RANKS)]
        else:
            bounds = [(at, f"≥ {numbers.percent(least)}") for at, least in reversed([*enumerate(LEVELS, 1)])]
        parts = [
            Text().append(SHADES[at], self.style(f"token-shade-{at}")).append(f" {words}", "not bold")
            for at, words in bounds
        ]
        return packed(
            [colour, *parts, Text("emb.: the embedding, then a row after each block, from 0", self.style("muted"))],
            width,
        )[:2]

    def _row(self, index: int, shown: range, cells: int) -> Text:
        assert self.found is not None
        here, layer = index == self.row, layer_of(index)
        name = "emb." if layer is None else str(layer)
        line = Text(name.rjust(LABEL - 1) + " ", self.style("accent" if here else "muted"), no_wrap=True)
        for at in shown:
            cell = self.found.rows[index][at]
            shade = rank_shade(cell.rank) if self.by_rank else level(cell.guesses[0].probability)
            style = self.style(f"token-shade-{shade}")
            selected = here and at == self.column
            text = SHADES[shade] + fit(token_label(cell.guesses[0].token.text), cells - 3)
            start = len(line)
            line.append("[" if selected else " ", self.style("accent")).append(text, style)
            line.append("]" if selected else " ", self.style("accent"))
            clickable(line, index, at, start)
        return line

    def _details(self, width: int) -> list[Text]:
        found, cell = self.found, self.cell
        assert found is not None
        target = found.targets[self.column]
        words = "the embedding" if (layer := layer_of(self.row)) is None else f"after block {layer}"
        if self.row == len(found.rows) - 1:
            words += ", the model's prediction"
        line = (
            Text(f"{words}: ", self.style("muted"))
            .append("target ")
            .append(token_label(target.text), self.style("accent"))
        )
        line.append(f" {numbers.percent(cell.probability)}, rank {fmt.count(cell.rank)}", "not bold")
        line.append(
            f" · entropy {fmt.number(cell.entropy)} nats · largest logit {fmt.number(cell.logit, 3)}",
            self.style("muted"),
        )
        lines = [Text(), *wrapped(line, width)]
        for nth, guess in enumerate(cell.guesses, 1):
            own = guess.token.id == target.id
            row = Text(f"{nth:>4}  ", self.style("muted"), no_wrap=True)
            row.append(
                fit(("▶" if own else " ") + token_label(guess.token.text), 22),
                self.style("accent" if own else "strong"),
            )
            row.append(numbers.percent(guess.probability).rjust(9) + "  ", "not bold")
            lines.append(
                row.append(fmt.bar(guess.probability, max(0, min(40, width - row.cell_len))), self.style("bar"))
            )
        return lines

    def table(self) -> Iterable[Row]:
        yield (
            "number",
            "text",
            "layer",
            "top_id",
            "top_text",
            "top_probability",
            "target",
            "target_probability",
            "target_rank",
            "entropy",
            "lens",
        )
        if self.found is None:
            return
        for at, target in enumerate(self.found.targets):
            for index, row in enumerate(self.found.rows):
                layer = layer_of(index)
                cell, best = row[at], row[at].guesses[0]
                yield (
                    str(self.found.place.number + at), visible(self.found.token(at).text), "embedding" if layer is None else str(layer), str(best.token.id),
                    visible(best.token.text), repr(best.probability), visible(target.text), repr(cell.probability),
                    str(cell.rank), repr(cell.entropy), "tuned" if self.found.tuned else "logit",
                )  # fmt: skip


def rank_shade(rank: int) -> int:
    """The shade of a rank, 4 for the likeliest token to 0."""
    return next((4 - at for at, most in enumerate(RANKS) if rank <= most), 0)
