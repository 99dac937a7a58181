"""The map of a model's parts and their ranking, as lines of text. Nothing here computes a model's number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.style import Style
from rich.text import Text

from tui_llm.common.display import fit
from tui_llm.common.numbers import percent, printed_change
from tui_llm.facts.interventions import ATTENTION, HEAD, LAYER, MLP, POSITIONS, TOKENS, Intervention, ModelPart
from tui_llm.instruments.ablate.question import Effects, PartEffect, TargetValues
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.full import clickable
from tui_llm.tui.kit.shades import SHADES, level

LABEL = 7  # cells of a row's name
SIGNS = {"zero": "×", "mean": "μ", "patch": "⇄", "steer": "+"}
Styles = Callable[[str], Style]


@dataclass(frozen=True, slots=True)
class PartGrid:
    """The parts of a model of so many layers and heads as rows: one per layer, then the embeddings."""

    layers: int
    heads: int
    positions: bool = True  # whether the model embeds positions

    @property
    def rows(self) -> int:
        return self.layers + 1

    def parts(self, row: int) -> tuple[ModelPart, ...]:
        if row >= self.layers:
            return (ModelPart(TOKENS), ModelPart(POSITIONS)) if self.positions else (ModelPart(TOKENS),)
        heads = (ModelPart(HEAD, row, head) for head in range(self.heads))
        return (*heads, ModelPart(ATTENTION, row), ModelPart(MLP, row), ModelPart(LAYER, row))

    def place(self, part: ModelPart) -> tuple[int, int] | None:
        """Row and column; None if it is not in the grid."""
        row = self.layers if part.kind in (TOKENS, POSITIONS) else part.layer
        parts = self.parts(row)
        return (row, parts.index(part)) if part in parts else None

    def names(self) -> list[str]:
        return [*map(str, range(self.heads)), "attn", "MLP", "layer"]


def change(values: TargetValues, base: TargetValues) -> float:
    """How much the loss rises, in nats."""
    return values.loss - base.loss


def effect_cell(effect: float | None, largest: float, digits: int) -> str:
    """A shade and a signed number: `▓+1.28`; with 0 digits the shade and the sign only."""
    if effect is None:
        return "·" + " " * (digits or 1)
    shade = SHADES[level(abs(effect) / largest)] if largest else SHADES[0]
    if not digits:
        return shade + ("+" if effect >= 0.005 else "−" if effect <= -0.005 else " ")
    for places in (2, 1, 0):
        text = fmt.signed(effect, places)
        if len(text) <= digits:
            break
    return shade + text.rjust(digits)


class PartMap:
    """The map's lines for a width: numbers if all columns fit, else shades; else the columns around the cursor."""

    def __init__(
        self,
        grid: PartGrid,
        effects: Mapping[ModelPart, float],
        off: Sequence[Intervention],
        cursor: tuple[int, int],
        style: Styles,
    ) -> None:
        self.grid, self.effects, self.cursor, self.style = grid, effects, cursor, style
        self.off = {one.part: SIGNS[one.how] for one in off}
        self.largest = max((abs(effect) for effect in effects.values()), default=0.0)

    def lines(self, width: int, height: int) -> list[Text]:
        """At most `height` lines, the head included."""
        count = self.grid.heads + 3
        room = max(1, width - LABEL - 1)
        digits = next((digits for digits in (5, 4, 0) if count * self._cells(digits) <= room), 0)
        shown = max(1, min(count, room // self._cells(digits)))
        row, column = self.cursor
        first = max(0, min(column - shown // 2, count - shown))
        names = self.grid.names()[first : first + shown]
        head = Text(fit("layer", LABEL), self.style("muted"), no_wrap=True)
        cells = self._cells(digits)
        head.append("".join(name[: cells - 1].rjust(cells) for name in names))
        rows = max(1, min(self.grid.rows, height - 1))
        top = max(0, min(row - rows // 2, self.grid.rows - rows))
        return [head, *(self._row(at, first, shown, digits) for at in range(top, top + rows))]

    @staticmethod
    def _cells(digits: int) -> int:
        return 3 + (digits or 1)  # a bracket, the sign of a change, a shade, the number

    def _row(self, row: int, first: int, shown: int, digits: int) -> Text:
        embeddings = row == self.grid.layers
        label = "embed" if embeddings else str(row)
        line = Text(no_wrap=True).append(fit(label, LABEL), self.style("muted"))
        parts = self.grid.parts(row)
        here, column = self.cursor
        stop = len(parts) if embeddings else first + shown
        for at in range(0 if embeddings else first, stop):
            part = parts[at]
            start, chosen = len(line), row == here and at == column
            after = row == here and at == column + 1 and at > first
            line.append("[" if chosen else "]" if after else " ", self.style("accent"))
            line.append(self.off.get(part, " "), self.style("bad"))
            text = effect_cell(self.effects.get(part), self.largest, digits)
            line.append(text[0], self.style("bar"))
            line.append(text[1:], self.style("accent") if chosen else "not bold")
            if embeddings:
                name = (
                    "]token" if chosen and at == 0 else " token" if at == 0 else "]position" if chosen else " position"
                )
                line.append(name, self.style("muted"))
            clickable(line, row, at, start)
        if row == here and column == stop - 1 and not embeddings:
            line.append("]", self.style("accent"))
        return line


RANKING = (("loss change", 12), ("loss", 10), ("logit", 10), ("p", 10), ("rank", 8))


REPLACED = {"zero": "off", "mean": "at its mean", "patch": "from the other prompt"}


def ranking_head(width: int, style: Style, how: str) -> Text:
    room = _name_room(width)
    columns = _columns(width)
    return Text(
        "  " + fit(f"each part alone {REPLACED[how]}", room) + "".join(name.rjust(cells) for name, cells in columns),
        style,
        no_wrap=True,
    )


def _columns(width: int) -> tuple[tuple[str, int], ...]:
    return RANKING if width >= 70 else RANKING[:2]


def _name_room(width: int) -> int:
    return max(8, min(40, width - 2 - sum(cells for _, cells in _columns(width)) - 1))


def ranking_row(
    one: PartEffect, found: Effects, off: Mapping[ModelPart, str], chosen: bool, width: int, style: Styles
) -> Text:
    values = one.values
    cells = (
        printed_change(found.before.loss, values.loss),
        fmt.number(values.loss, 4),
        fmt.number(values.logit, 3),
        percent(values.probability),
        f"{values.rank:,}",
    )
    line = Text(no_wrap=True).append("▸" if chosen else " ", style("accent"))
    line.append(off.get(one.part, " "), style("bad"))
    line.append(fit(one.part.name, _name_room(width)), style("strong") if chosen else "not bold")
    for (name, room), cell in zip(_columns(width), cells, strict=False):
        line.append(cell.rjust(room), style("accent") if name == "loss change" else "not bold")
    return line
