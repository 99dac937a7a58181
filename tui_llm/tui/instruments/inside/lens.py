"""The logit lens or tuned lens as a table: one row for the embedding and one for each layer."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from tui_llm.common import numbers as common_numbers
from tui_llm.common.display import fit, token_label, visible
from tui_llm.instruments.lens.question import Lens
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.kit.widgets.lines import Lines

GUESS, WIDEST = 19, 28  # least and most cells of a likely token with its probability
CHOSEN = {"asked": "the target", "next": "the text's own next token", "likeliest": "the model's likeliest"}

TITLES = {
    False: "Logit lens · the prediction if the model ended after this layer",
    True: "Tuned lens · the prediction, through a translator fitted to each layer",
}


class LensTable(Lines):
    def __init__(self) -> None:
        super().__init__(id="inside-lens", classes="pane")
        self.lens: Lens | None = None

    def on_mount(self) -> None:
        self.border_title = Text(TITLES[False])

    def clear(self) -> None:
        self.lens = None
        self.rebuild()

    def show(self, lens: Lens) -> None:
        self.lens = lens
        self.border_title = Text(TITLES[lens.tuned])
        self.rebuild()

    def head(self, width: int) -> list[Text]:
        lens = self.lens
        if lens is None:
            return []
        target = Text(f"{CHOSEN[lens.chosen]} ", self.style("muted"))
        target.append(token_label(lens.target.text), self.style("accent"))
        steps = "translator, final norm, output head" if lens.tuned else "final norm, output head"
        target.append(
            f" · {steps}, after the embedding and each block · KL: from the model's prediction, in nats",
            "not bold",
        )
        names = Text(
            "after".ljust(6)
            + "p(target)".rjust(9)
            + "rank".rjust(7)
            + "entropy".rjust(8)
            + "KL".rjust(7)
            + "  likeliest",
            style=self.style("muted"),
            no_wrap=True,
        )
        lines = [*wrapped(target, width)[:2], names]
        return lines if self.size.height > 6 else lines[-1:]

    def row_count(self, width: int) -> int:
        return len(self.lens.rows) if self.lens is not None else 0

    def row(self, index: int, width: int, selected: bool) -> Text:
        assert self.lens is not None
        row = self.lens.rows[index]
        line = Text(no_wrap=True)
        line.append(("emb." if row.layer is None else str(row.layer).rjust(4)).ljust(6), self.style("muted"))
        line.append(common_numbers.percent(row.probability).rjust(9), self.style("strong"))
        line.append(fmt.count(row.rank).rjust(7), "not bold")
        line.append(fmt.number(row.entropy).rjust(8) + fmt.number(row.divergence).rjust(7), "not bold")
        room = max(0, width - line.cell_len)
        count = max(1, min(len(row.guesses), room // GUESS))
        cells = max(GUESS, min(WIDEST, room // count))
        for guess in row.guesses[:count]:
            own = guess.token.id == self.lens.target.id
            text = fit(("▶" if own else "") + token_label(guess.token.text), cells - 10)
            line.append("  " + text, self.style("accent" if own else "strong"))
            line.append(common_numbers.percent(guess.probability).rjust(8), "not bold")
        return line

    def table(self) -> Iterable[tuple[str, ...]]:
        count = len(self.lens.rows[0].guesses) if self.lens is not None else 0
        tops = [
            name for nth in range(1, count + 1) for name in (f"top{nth}_id", f"top{nth}_text", f"top{nth}_probability")
        ]
        yield ("layer", "target", "target_probability", "target_rank", "entropy", "divergence", *tops, "lens")
        for row in self.lens.rows if self.lens is not None else ():
            assert self.lens is not None
            numbers = (repr(row.probability), str(row.rank), repr(row.entropy), repr(row.divergence))
            guesses = [
                cell for g in row.guesses for cell in (str(g.token.id), visible(g.token.text), repr(g.probability))
            ]
            yield (
                "embedding" if row.layer is None else str(row.layer),
                visible(self.lens.target.text),
                *numbers,
                *guesses,
                "tuned" if self.lens.tuned else "logit",
            )
