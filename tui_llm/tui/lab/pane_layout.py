"""Where the five panes stand. Room goes where the content is: a pane with few lines gets those, the table and the chart
get the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from textual import on
from textual.containers import Container
from textual.geometry import NULL_OFFSET, Region, Size
from textual.layout import ArrangeResult, Layout, WidgetPlacement
from textual.widget import Widget

from tui_llm.tui.state.messages import RoomWanted

FRAME = 2  # rows of a pane's border
FEWEST = {"tokens": 5, "loss": 7, "generate": 7, "training": 5}
USUAL = {"tokens": 4, "loss": 8, "generate": 7, "training": 3}  # rows of content, until a pane says how many it has
ELASTIC = 2, 5  # the share of a column that its table or chart gets at least


def share(height: int, fewest: Sequence[int], wanted: Sequence[int], rest: int) -> list[int]:
    """Divides `height` rows among panes: each gets its fewest; then those that want more get a row each in turn, the
    smallest first; what is left goes to the pane with the index `rest`."""
    rows = list(fewest)
    while sum(rows) > height:
        rows[rows.index(max(rows))] -= 1
    for _ in range(height - sum(rows)):
        short = [at for at, want in enumerate(wanted) if rows[at] < want]
        rows[min(short, key=lambda at: rows[at]) if short else rest] += 1
    return rows


def columns(size: Size, content: Mapping[str, int | None]) -> dict[str, Region]:
    """The regions of the five panes, in two columns. `content` is each pane's number of lines; None: any number.
    Without a training run the Training pane needs little, so Generate stands below it, and the table gets a column of
    its own."""
    left = max(size.width * 2 // 5, min(80, size.width * 9 // 20))
    running = content["training"] is None
    stacks: list[tuple[int, int, list[str], int]] = [  # x, width, panes, index of the one that gets what is left
        (0, left, ["tokens", "loss", "training", *([] if running else ["generate"])], 2 if running else 3),
        (left, size.width - left, ["logits", *(["generate"] if running else [])], 0),
    ]
    placed: dict[str, Region] = {}
    for x, width, names, rest in stacks:
        fewest, wanted = [], []
        for name in names:
            rows = content[name]
            fewest.append(FEWEST[name] if rows is not None else size.height * ELASTIC[0] // ELASTIC[1])
            wanted.append(0 if rows is None else rows + FRAME)
        y = 0
        for name, rows in zip(names, share(size.height, fewest, wanted, rest), strict=True):
            placed[name] = Region(x, y, width, rows)
            y += rows
    return placed


class PaneLayout(Layout):
    """One pane fills all; five are placed by `columns`."""

    name = "panes"

    def arrange(self, parent: Widget, children: list[Widget], size: Size, greedy: bool = True) -> ArrangeResult:
        assert isinstance(parent, PaneGrid)
        parent.pre_layout(self)
        whole = Region(0, 0, size.width, size.height)
        placed = columns(size, parent.content) if len(children) > 1 else {}
        return [
            WidgetPlacement(placed.get(child.id or "", whole), NULL_OFFSET, child.styles.margin, child)
            for child in children
        ]


class PaneGrid(Container):
    def __init__(self, *panes: Widget) -> None:
        super().__init__(*panes, id="panes")
        self._panes_layout = PaneLayout()
        self.content: dict[str, int | None] = {"logits": None, **USUAL}

    @property
    def layout(self) -> Layout:
        return self._panes_layout

    @on(RoomWanted)
    def _room_wanted(self, message: RoomWanted) -> None:
        """Lays the panes out again if that changes their sizes."""
        message.stop()
        before = columns(self.size, self.content)
        self.content[message.pane] = message.rows
        if columns(self.size, self.content) != before:
            self.children[0].refresh(layout=True)  # a widget's own request keeps its arrangement of its children
