"""The nearest neighbours of a token among the embeddings, nearest first."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from tui_llm.common.display import fit, token_label, visible
from tui_llm.facts.tokens import Token
from tui_llm.instruments.neighbours.question import Neighbours
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.kit.widgets.lines import Lines


class NeighbourTable(Lines):
    def __init__(self) -> None:
        super().__init__(id="inside-neighbours", classes="pane")
        self.neighbours: Neighbours | None = None

    def on_mount(self) -> None:
        self.border_title = Text("Embedding neighbours")

    def clear(self) -> None:
        self.neighbours = self.cursor = None
        self.rebuild()

    def show(self, neighbours: Neighbours) -> None:
        self.neighbours = neighbours
        self.cursor = None
        self.rebuild()
        self._place_cursor(0)

    @property
    def selected(self) -> Token | None:
        if self.neighbours is None or self.cursor is None:
            return None
        return self.neighbours.nearest[self.cursor].token

    def selectable(self, index: int) -> bool:
        return True

    def head(self, width: int) -> list[Text]:
        found = self.neighbours
        if found is None:
            return []
        line = Text("nearest to ", self.style("muted"))
        line.append(token_label(found.token.text), self.style("accent"))
        line.append(
            f" (id {found.token.id}): the cosine of the angle between two embeddings of {found.width} numbers; 1 = same "
            "direction, 0 = orthogonal",
            "not bold",
        )
        names = Text("".rjust(4) + "  " + "token".ljust(24) + "id".rjust(8) + "cosine".rjust(9), no_wrap=True)
        names.stylize(self.style("muted"))
        lines = [*wrapped(line, width)[:2], names]
        return lines if self.size.height > 6 else lines[-1:]

    def row_count(self, width: int) -> int:
        return len(self.neighbours.nearest) if self.neighbours is not None else 0

    def row(self, index: int, width: int, selected: bool) -> Text:
        assert self.neighbours is not None
        near = self.neighbours.nearest[index]
        line = Text(no_wrap=True).append(str(index + 1).rjust(4) + "  ", self.style("muted"))
        line.append(fit(token_label(near.token.text), 24), self.style("strong"))
        line.append(str(near.token.id).rjust(8) + fmt.number(near.cosine, 3).rjust(9) + "  ", "not bold")
        line.append(fmt.bar(near.cosine, max(0, min(40, width - line.cell_len))), self.style("bar"))
        return line

    def table(self) -> Iterable[tuple[str, ...]]:
        yield "rank", "id", "bytes", "text", "cosine"
        for at, near in enumerate(self.neighbours.nearest if self.neighbours is not None else (), 1):
            yield str(at), str(near.token.id), near.token.bytes.hex(), visible(near.token.text), repr(near.cosine)
