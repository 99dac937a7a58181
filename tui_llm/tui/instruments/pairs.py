"""The Training pairs screen: each input of the text with the token to predict, and the model's loss on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from rich.cells import cell_len
from rich.text import Text

from tui_llm.common import numbers as common_numbers
from tui_llm.common.display import fit, visible, visible_token
from tui_llm.instruments.pairs.question import Pairs, PairsQuestion
from tui_llm.llm.tokens.token_bytes import token_text
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit import token_shades as shades
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.full import FullScreen, Lazy
from tui_llm.tui.kit.over import Row
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.state.context import LabContext
from tui_llm.tui.state.openers import opens

NUMBERS = (("loss", 9), ("p", 10), ("rank", 8))


_key = CommandFactory("pairs", "Training pairs")
KEYS = (
    _key("pairs_copy", "y", "copy", "Copy what is shown as a table (tab-separated)", "copy"),
    _key("close_pairs", "escape,q,E", "back", "Back to the five panes", "close", importance=WAY_OUT),
)  # fmt: skip


@opens("pairs", LabContext.has_reading, LabContext.has_text)
class PairsScreen(FullScreen):
    shows_text = False  # it says so itself
    tour_name = "pairs"
    TITLE_WORDS: ClassVar[str] = "Training pairs"
    own_keys = KEYS
    BINDINGS = bindings(KEYS)

    def __init__(self, context: LabContext) -> None:
        super().__init__()
        self.context = context
        self.pairs: Pairs | None = None
        self.problem = ""

    def on_mount(self) -> None:
        super().on_mount()
        self.context.questions.ask(self, PairsQuestion(self.context.lab.current_request()), self._take, self._fail)

    def _take(self, pairs: Pairs) -> None:
        self.pairs = pairs
        self.refill()

    def _fail(self, problem: str) -> None:
        self.problem = problem
        self.refill()

    def subject(self) -> str:
        return f"of the text, with {self.pairs.weights.name}'s loss on each" if self.pairs is not None else ""

    def content(self, width: int) -> tuple[list[Text], Sequence[Text]]:
        strong, muted, pairs = self.style("strong"), self.style("muted"), self.pairs
        if self.problem:
            return [], wrapped(Text(visible(self.problem), style=self.style("bad")), width)
        if pairs is None:
            return [], [Text("computing …", style=muted)]
        if pairs.count < 2:
            note = "one token makes no pair of input and target: Esc, then i types more"
            return [], wrapped(Text(note, style=self.style("accent")), width)
        line = Text(
            f"{fmt.count(pairs.count)} tokens make {fmt.count(pairs.count - 1)} pair{'s' * (pairs.count > 2)}", strong
        )
        line.append(": the model reads the input and predicts the target", "not bold")
        head = wrapped(line, width)
        if pairs.mean is not None:
            head += wrapped(Text(f"mean loss {fmt.number(pairs.mean, 3)} nats: what a training step lowers"), width)
        if pairs.first:
            head += wrapped(Text(f"the last {fmt.count(len(pairs.scores))} pairs are listed", style=muted), width)
        if pairs.fed < pairs.count:
            note = f"only the last {fmt.count(pairs.fed)} tokens, the model's context, were read: earlier pairs have no loss"
            head += wrapped(Text(note, style=muted), width)
        columns = "".join(name.rjust(cells) for name, cells in NUMBERS)
        room = max(8, width - len(columns) - 3)
        into = room // 3
        title = fit("input", room - into) + " → " + fit("target", into) + columns
        head.append(Text(title, style=muted, no_wrap=True))
        return head, Lazy(len(pairs.scores), lambda at: self._row(at, room - into, into))

    def _row(self, at: int, room: int, into: int) -> Text:
        assert self.pairs is not None
        tokens, score = self.pairs.tokens, self.pairs.scores[at]
        # The end of the input, as much as fits; characters split over tokens are joined, and the last token is
        # highlighted.
        begin = max(0, at + 1 - room)
        text = visible_token(token_text(b"".join(token.bytes for token in tokens[begin : at + 1])))
        more = "…" if begin or self.pairs.first or cell_len(text) > room else ""
        while text and cell_len(text) + len(more) > room:
            text = text[max(1, (cell_len(text) + len(more) - room) // 2) :]
        last = visible_token(tokens[at].text)
        last = last if text.endswith(last) else ""
        line = Text(" " * (room - cell_len(more + text)), no_wrap=True)
        line.append(more + text[: len(text) - len(last)], self.style("muted")).append(last, self.style("strong"))
        line.append(" → ", self.style("muted"))
        line.append(fit(visible_token(tokens[at + 1].text) or "∅", into), self.style("accent"))
        if score is None:
            return line.append("–".rjust(NUMBERS[0][1]), self.style("muted"))
        shade = shades.shade("surprisal", score)
        line.append(f"{shade.mark} {fmt.number(score.surprisal)}".rjust(9), self.style(f"token-shade-{shade.level}"))
        return line.append(common_numbers.percent(score.probability).rjust(10)).append(fmt.count(score.rank).rjust(8))

    def table(self) -> Iterable[Row]:
        yield "pair", "input_id", "input", "target_id", "target", "loss", "probability", "rank"
        if self.pairs is None:
            return
        for at, score in enumerate(self.pairs.scores):
            one, two = self.pairs.tokens[at : at + 2]
            numbers = (
                ("", "", "") if score is None else (repr(score.surprisal), repr(score.probability), str(score.rank))
            )
            yield str(self.pairs.first + at), str(one.id), visible(one.text), str(two.id), visible(two.text), *numbers
