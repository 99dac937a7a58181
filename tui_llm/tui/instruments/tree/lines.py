"""A tree of continuations, one line per token; only visible lines are drawn, so that ten thousand cost no more than
thirty."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.style import Style
from rich.text import Text

from tui_llm.common import numbers as common_numbers
from tui_llm.common.display import fit, truncate, visible, visible_token
from tui_llm.instruments.tree.tree import Node, Tree
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.text import running, wrapped
from tui_llm.tui.kit.widgets.lines import Lines

NO_TREE = "there is no text yet: Esc, then i types some; o opens a saved tree"
TAIL = 400  # last characters of the text, from which the few visible lines are made
CUT = Style(strike=True)


@dataclass(frozen=True, slots=True)
class TreeColumn:
    head: str
    width: int
    least: int  # the list's width from which the column is shown


P, DRAWN = TreeColumn("raw p", 8, 24), TreeColumn("drawn p", 8, 64)
SURPRISAL, PATH, TOTAL = TreeColumn("−ln p", 6, 56), TreeColumn("path p", 8, 36), TreeColumn("total", 6, 72)
BAR = TreeColumn("", 12, 96)
COLUMNS = (P, BAR, DRAWN, SURPRISAL, PATH, TOTAL)


class TreeLines(Lines):
    def __init__(self) -> None:
        super().__init__(id="tree")
        self.shown_tree: Tree | None = None
        self.count = 3  # how many tokens `e` would add
        self.nodes: list[Node] = []
        self._at: dict[Node, int] = {}
        self._path_nodes: set[Node] = set()

    def show(self, tree: Tree, node: Node | None = None) -> None:
        """Shows the tree as it is now. The cursor moves to `node`, or stays on its node or, if that is gone, moves to
        the nearest ancestor that is still there."""
        stay = node or (self.here if self.shown_tree is tree else None) or tree.root
        self.shown_tree = tree
        self.nodes = list(tree.nodes(shown=True))
        self._at = {shown: at for at, shown in enumerate(self.nodes)}
        while stay not in self._at and stay.parent is not None:
            stay = stay.parent
        self._put(self._at.get(stay, 0))

    @property
    def here(self) -> Node | None:
        at = self.cursor
        return self.nodes[at] if at is not None and 0 <= at < len(self.nodes) else None

    def go(self, node: Node) -> None:
        if node in self._at:
            self._put(self._at[node])

    def _put(self, at: int) -> None:
        self.cursor = at
        self.cursor_moved()
        self._show_cursor()

    def cursor_moved(self) -> None:
        here = self.here
        self._path_nodes = {*here.path_nodes} if here is not None else set()
        self.rebuild()

    # ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────

    def head(self, width: int) -> list[Text]:
        tree, here, room = self.shown_tree, self.here, self.size.height
        if tree is None or here is None or room < 4:
            return []
        muted = self.style("muted")
        text = Text(visible(tree.request.prompt[-TAIL:], newlines=True), style=muted)
        text.append(visible("".join(token.text for token in tree.continued[-TAIL:]), newlines=True), muted)
        text.append(visible(here.text[-TAIL:], newlines=True), self.style("generated"))
        lines = running(text, width)[-(1 if room < 12 else 2) :]
        if tree.request.empty and not tree.root.children:
            return wrapped(Text(NO_TREE, self.style("accent")), width)
        lines.append(self._about(tree, here, width))
        if room >= 14:
            legend = (
                f"raw p: the model's own · drawn p: {fmt.sampler(tree.request.sampler)} (struck out: cut) · −ln p: nats · "
                "path p: product of raw p along the path · total: its −ln p"
            )
            lines += wrapped(Text(legend, style=muted), width)[: 3 if room >= 18 else 2]
        heads = [fit_right(column.head, column.width) for column in self._columns(width)]
        line = Text(fit("  depth, token", self._room(width)) + " ".join(["", *heads]), style=muted, no_wrap=True)
        return [*lines, line]

    def _about(self, tree: Tree, here: Node, width: int) -> Text:
        count = fmt.count(tree.weights.vocabulary)
        line = Text(no_wrap=True)
        if here.name:
            line.append(visible(here.name), self.style("accent")).append("  ")
        if here.children:
            covered = common_numbers.percent(here.covered)
            line.append(
                f"{fmt.count(len(here.children))} of {count} next tokens, their raw p sums to {covered}",
                self.style("strong"),
            )
            line.append(f"  branch: {fmt.count(here.size - (here.parent is None))} tokens", self.style("muted"))
        elif here.ends:
            line.append("the text ends here", self.style("strong"))
        else:
            line.append(f"no children yet: e adds the {self.count} likeliest, g draws", self.style("accent"))
        if here.u is not None:
            line.append(f"  drawn by u = {here.u:.4f}", self.style("muted"))
        line.truncate(width)
        return line

    def _columns(self, width: int) -> list[TreeColumn]:
        return [column for column in COLUMNS if width >= column.least]

    def _room(self, width: int) -> int:
        """The cells for the token and what precedes it."""
        return max(1, width - sum(column.width + 1 for column in self._columns(width)))

    def row_count(self, width: int) -> int:
        tree = self.shown_tree
        return 0 if tree is None or (tree.request.empty and not tree.root.children) else len(self.nodes)

    def selectable(self, index: int) -> bool:
        return 0 <= index < len(self.nodes)

    def row(self, index: int, width: int, selected: bool) -> Text:
        if not 0 <= index < len(self.nodes):
            return Text()
        node, room = self.nodes[index], self._room(width)
        line = self._token(node, room, index == self.cursor)
        if node.token is None:
            return line
        cells = {
            P: common_numbers.percent(node.probability),
            DRAWN: common_numbers.percent(node.drawn),
            SURPRISAL: fmt.number(node.surprisal, 2),
            PATH: common_numbers.percent(node.path_probability),
            TOTAL: fmt.number(node.total, 2),
        }
        for column in self._columns(width):
            line.append(" ")
            if column is BAR:
                line.append(fmt.bar(node.probability, BAR.width), self.style("bar"))
            else:
                style = self.style("strong" if column is PATH else "muted" if column is DRAWN else "plain-cell")
                line.append(fit_right(cells[column], column.width), style)
        return line

    def style(self, name: str) -> Style:
        return Style() if name == "plain-cell" else super().style(name)

    def _token(self, node: Node, room: int, chosen: bool) -> Text:
        """`▸ 2     ▾ ·cat  name`, in exactly `room` cells. For deep nodes the indentation is relative to the cursor's
        depth."""
        line = Text("▸" if chosen else " ", no_wrap=True)
        line.append(f"{node.depth:>3} ", self.style("muted"))
        steps = max(0, (room - 20) // 2)
        here = self.here
        hidden = max(0, (here.depth if here else 0) - steps // 2) if steps else node.depth
        indent = min(max(0, node.depth - hidden), steps)
        line.append("  " * indent + ("‹" if 0 < node.depth <= hidden else ""))
        line.append("▹ " if node.collapsed and node.children else "▾ " if node.children else "· ", self.style("muted"))
        if node.token is None:
            tree = self.shown_tree
            words = (
                f"the text ({fmt.count(len(tree.text_ids))} token{'s' * (len(tree.text_ids) != 1)})"
                if tree and tree.text_ids
                else "the text"
            )
            line.append(words, self.style("strong"))
        else:
            style = self.style("generated" if node in self._path_nodes else "strong")
            line.append(visible_token(node.token.text), style if node.drawn > 0 else style + CUT)
        if node.name:
            line.append(" ").append(visible(node.name), self.style("accent"))
        if line.cell_len > room:
            cut = truncate(line.plain, room)
            line.truncate(max(0, room - 1))
            line.append(cut[-1:])
        line.append(" " * max(0, room - line.cell_len))
        line.truncate(room)
        return line

    # ── copying ──────────────────────────────────────────────────────────────────────────────────────────────────

    def table(self) -> Iterable[tuple[str, ...]]:
        """The lines as rows of cells, the header first."""
        yield ("depth", "id", "bytes", "text", "raw_probability", "drawn_probability", "surprisal", "path_probability",
               "total_surprisal", "rank", "u", "name", "path")  # fmt: skip
        for node in self.nodes:
            if node.token is None:
                continue
            numbers = (node.probability, node.drawn, node.surprisal, node.path_probability, node.total)
            yield (
                str(node.depth),
                str(node.id),
                node.token.bytes.hex(),
                visible(node.token.text),
                *map(repr, numbers),
                str(node.rank),
                "" if node.u is None else repr(node.u),
                visible(node.name),
                " ".join(map(str, node.path)),
            )


def fit_right(text: str, width: int) -> str:
    return " " * (width - len(text)) + text
