"""The Two models screen: the open model and another one on the same text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import ClassVar

from rich.text import Text

from tui_llm.common.display import fit, visible, visible_token
from tui_llm.common.numbers import percent
from tui_llm.instruments.versus import words
from tui_llm.instruments.versus.question import Versus, VersusQuestion, VersusSide
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.command import WAY_OUT, Command, CommandFactory, bindings
from tui_llm.tui.kit.full import FullScreen
from tui_llm.tui.kit.over import Row
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.state.context import LabContext
from tui_llm.tui.state.openers import opens

NUMBER = 10  # cells of a column of numbers
BESIDE = 64  # cells from which the two models stand side by side
WIDE = 100  # cells from which the two comparisons do
HINT = "Enter compares · nano, a run, a model folder or file (m in the panes lists them) · Esc cancels"
NONE = (
    "m chooses the model to compare with: a shipped model, a run, a folder (also one checkpoint of a run), a GGUF file"
)

OPEN = Command(
    "versus",
    "ampersand",
    "two models",
    "Compare with another model on this text: predictions, losses in bits, KL, a continuation of each",
    "Two models",
    "lab",
    "app.open('versus')",
)
_key = CommandFactory("versus", "Two models")
KEYS = (
    _key("versus_model", "m", "other model", "Choose the model to compare with", "choose"),
    _key("versus_seed", "r", "seed", "Draw both continuations with the next seed", "next_seed"),
    _key("versus_copy", "y", "copy", "Copy what is shown as a table (tab-separated)", "copy"),
    _key("close_versus", "escape,q,ampersand", "back", "Back to the five panes", "close", importance=WAY_OUT),
)  # fmt: skip


def _beside(one: list[Text], two: list[Text], width: int) -> list[Text]:
    """Lines of `width` cells each, side by side."""
    lines = []
    for left, right in zip_longest(one, two, fillvalue=Text()):
        gap = " " * (width + 2 - left.cell_len)
        lines.append(Text(no_wrap=True).append_text(left).append(gap, "default").append_text(right))
    return lines


@opens("versus", LabContext.has_reading, LabContext.has_text)
class VersusScreen(FullScreen):
    tour_name = "versus"
    TITLE_WORDS: ClassVar[str] = "Two models"
    own_keys = KEYS
    BINDINGS = bindings(KEYS)

    def __init__(self, context: LabContext) -> None:
        super().__init__()
        self.context = context
        self.request = context.lab.current_request()
        self.other, self.seed = "", 1
        self.found: Versus | None = None
        self.problem = ""

    def on_mount(self) -> None:
        super().on_mount()
        self.call_after_refresh(self.action_choose)

    # ── actions ──

    def action_choose(self) -> None:
        from tui_llm.tui.kit.ask import AskScreen

        self.app.push_screen(AskScreen("The other model", HINT, self.other or self._likely()), self._chosen)

    def _likely(self) -> str:
        """nano or, if that is open, the newest run that has weights: typing replaces it."""
        from tui_llm.training.run.snapshot import most_recent

        weights = self.context.weights
        if weights is not None and weights.name != "nano":
            return "nano"
        run = most_recent()
        return run.name if run is not None and run.checkpoints() else ""

    def _chosen(self, name: str | None) -> None:
        if name is not None and name.strip():
            self.other, self.found = name.strip(), None
            self._ask()

    def action_next_seed(self) -> None:
        if self.other:
            self.seed += 1
            self._ask()

    def _ask(self) -> None:
        self.problem = ""
        self.refill()
        question = VersusQuestion(self.request, self.other, self.seed)
        self.context.questions.ask(self, question, self._take, self._fail)

    def _take(self, found: Versus) -> None:
        self.found = found
        self.refill()

    def _fail(self, problem: str) -> None:
        self.found, self.problem = None, problem
        self.refill()

    # ── what is shown ──

    def subject(self) -> str:
        if self.found is not None:
            return " and ".join(words.names(self.found))
        return f"with {self.other}" if self.other else ""

    def content(self, width: int) -> tuple[list[Text], Sequence[Text]]:
        muted = self.style("muted")
        if self.problem:
            lines = wrapped(Text(visible(self.problem), style=self.style("bad")), width)
            return [], [*lines, Text(), *wrapped(Text(NONE, style=muted), width)]
        if not self.other:
            return [], wrapped(Text(NONE, style=muted), width)
        if self.found is None:
            return [], wrapped(Text(f"reading the text with {visible(self.other)} …", style=muted), width)
        found, half = self.found, (width - 2) // 2
        if width >= WIDE:
            compared = _beside(self._divergence(found, half), self._text(found, half), half)
        else:
            compared = [*self._divergence(found, width), *self._text(found, width)]
        return [], [*self._predictions(found, width), *compared, *self._continuations(found, width)]

    def _title(self, text: str, width: int) -> list[Text]:
        return [Text(), *wrapped(Text(text, style=self.style("strong")), width)]

    def _sides(self, found: Versus) -> tuple[tuple[str, VersusSide], tuple[str, VersusSide]]:
        first, second = words.names(found)
        return (first, found.first), (second, found.second)

    def _predictions(self, found: Versus, width: int) -> list[Text]:
        note = f"next token · raw p: softmax of the logits · p: after the sampler ({fmt.sampler(self.request.sampler)})"
        beside = width >= BESIDE
        room = (width - 2) // 2 if beside else width
        one, two = (self._table(name, side, room) for name, side in self._sides(found))
        lines = wrapped(Text(note, style=self.style("muted")), width)
        if not beside:
            return [*lines, *one, Text(), *two]
        return [*lines, *_beside(one, two, room)]

    def _table(self, name: str, side: VersusSide, width: int) -> list[Text]:
        muted, cells = self.style("muted"), max(4, width - 2 * NUMBER)
        lines = [Text(fit(name, width).rstrip(), style=self.style("accent"), no_wrap=True)]
        lines.append(Text(fit("token", cells) + "raw p".rjust(NUMBER) + "p".rjust(NUMBER), muted, no_wrap=True))
        shown = side.reading.distribution
        assert shown is not None
        for row in shown.candidates:
            line = Text(fit(visible_token(row.text) or "∅", cells), self.style("strong"), no_wrap=True)
            line.append(percent(row.raw_probability).rjust(NUMBER), "not bold")
            lines.append(line.append((percent(row.probability) if row.kept else "–").rjust(NUMBER), "not bold"))
        rest = f"{fmt.count(shown.rest.count)} others"
        shares = percent(shown.rest.raw_probability).rjust(NUMBER) + percent(shown.rest.probability).rjust(NUMBER)
        return [*lines, Text(fit(rest, cells) + shares, muted, no_wrap=True)]

    def _divergence(self, found: Versus, width: int) -> list[Text]:
        lines = self._title("The next token: where raw p differs most", width)
        lines += wrapped(Text(words.divergence_line(found.divergence)), width)
        if found.divergence is None:
            return lines
        lines.append(self._row("token", ("A raw p", "B raw p", "B − A"), width, "muted"))
        for one in found.divergence.most:
            points = f"{100 * (one.second - one.first):+.2f} %".replace("-", "−")
            lines.append(self._row(visible_token(one.text), (percent(one.first), percent(one.second), points), width))
        return lines

    def _text(self, found: Versus, width: int) -> list[Text]:
        lines = self._title("The text: where the losses differ most", width)
        lines += wrapped(Text(words.text_line(found)), width)
        if found.most:
            lines.append(self._row("piece", ("A bits", "B bits", "B − A"), width, "muted"))
        for one in found.most:
            numbers = words.bits(one.first), words.bits(one.second), words.bits(one.second - one.first)
            lines.append(self._row(visible_token(one.text), numbers, width))
        if target := words.target_line(found):
            lines += wrapped(Text(target), width)
        return lines

    def _row(self, name: str, cells: Sequence[str], width: int, style: str = "") -> Text:
        room = max(4, min(30, width - NUMBER * len(cells)))
        line = Text(fit(name or "∅", room), self.style(style or "strong"), no_wrap=True)
        return line.append("".join(cell.rjust(NUMBER) for cell in cells), self.style(style) if style else "not bold")

    def _continuations(self, found: Versus, width: int) -> list[Text]:
        lines = self._title(f"A continuation of each, drawn with the same uniform numbers (seed {self.seed})", width)
        for name, side in self._sides(found):
            text = words.continuation(side)
            lines += wrapped(Text(f"{name[0]}  ", self.style("accent")).append(visible(text), "default"), width)
        return lines

    def table(self) -> Iterable[Row]:
        yield "what", "text", "first", "second"
        found = self.found
        if found is None:
            return
        if found.divergence is not None:
            yield "kl_bits", "", repr(found.divergence.forward), repr(found.divergence.reverse)
            for row in found.divergence.most:
                yield "raw_probability", visible(row.text), repr(row.first), repr(row.second)
        yield "bits", f"{found.bytes} bytes", repr(found.first_bits), repr(found.second_bits)
        for piece in found.most:
            yield "bits", visible(piece.text), repr(piece.first), repr(piece.second)
        yield "continuation", "", *(visible(words.continuation(side)) for side in (found.first, found.second))
