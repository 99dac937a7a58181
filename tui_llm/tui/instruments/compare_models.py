"""The Compare models screen: the open model and one or two others on the same text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import ClassVar

from rich.text import Text
from textual import work

from tui_llm.common.display import fit, visible, visible_token
from tui_llm.common.numbers import percent
from tui_llm.facts import report
from tui_llm.instruments.compare_models import words
from tui_llm.instruments.compare_models.question import (
    ComparedModel,
    CompareModelsQuestion,
    ModelComparison,
    SharedCandidate,
)
from tui_llm.tui.instruments.open_keys import COMPARE_MODELS
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.full import FullScreen
from tui_llm.tui.kit.live import deliver
from tui_llm.tui.kit.over import Row
from tui_llm.tui.kit.text import beside, wrapped
from tui_llm.tui.state.context import LabContext
from tui_llm.tui.state.openers import opens

NUMBER = 10  # cells of a column of numbers
NARROW = 8  # the same, where the tables are narrow
BESIDE = 32  # cells of a model's table from which they stand side by side: two models
BESIDE_THREE = 24  # the same, three models
WIDE = 100  # cells from which the two comparisons stand side by side
HINT = "Enter compares · nano, a run, a folder or file; nano:int8, nano:half: in that format · Esc cancels"
NONE = (
    "m chooses the model to compare with: a shipped model, a run, a folder (also one checkpoint of a run), a GGUF file; "
    "nano:int8 is nano with 8 bits a weight. a adds a third one"
)

OPEN = COMPARE_MODELS
_key = CommandFactory("compare_models", "Compare models")
KEYS = (
    _key("compare_models_choose", "m", "other model", "Choose the model to compare with", "choose(0)"),
    _key("compare_models_third", "a", "third model", "Choose a third model; an empty name removes it", "choose(1)"),
    _key("compare_models_seed", "r", "seed", "Draw all continuations with the next seed", "next_seed"),
    _key("compare_models_copy", "y", "copy", "Copy what is shown as a table (tab-separated)", "copy"),
    _key("close_compare_models", "escape,q,V,ampersand", "back", "Back to the five panes", "close", importance=WAY_OUT),
)  # fmt: skip


@opens("compare_models", LabContext.has_reading, LabContext.has_text)
class CompareModelsScreen(FullScreen):
    tour_name = "compare_models"
    TITLE_WORDS: ClassVar[str] = "Compare models"
    own_keys = KEYS
    BINDINGS = bindings(KEYS)

    def __init__(self, context: LabContext) -> None:
        super().__init__()
        self.context = context
        self.request = context.lab.current_request()
        self.others: tuple[str, ...] = ()
        self.seed = 1
        self.found: ModelComparison | None = None
        self.problem = ""

    def on_mount(self) -> None:
        super().on_mount()
        self.action_choose(0)  # at once: the keys behind the one that opened this screen are the model's name

    # ── actions ──

    def action_choose(self, number: int) -> None:
        """Ask for the second or the third model."""
        if number > len(self.others):
            number = len(self.others)  # a third one without a second one
        title = "The third model" if number else "The other model"
        known = self.others[number] if number < len(self.others) else ""
        weights = self.context.weights
        if not (number or known) and weights is not None and weights.name != "nano":
            known = "nano"
        asking = AskScreen(title, HINT, known)
        self.app.push_screen(asking, partial(self._chosen, number))
        if not known:
            self._propose(asking)

    @work(thread=True, group="proposal", exclusive=True)
    def _propose(self, asking: AskScreen) -> None:
        """Put the newest run that has weights into the empty line. Reading the runs takes time: not on this thread."""
        from tui_llm.training.run.snapshot import most_recent

        run = most_recent()
        if run is not None and run.name not in self.others and run.checkpoints():
            deliver(asking, asking.propose, run.name)

    def _chosen(self, number: int, name: str | None) -> None:
        if name is None:
            return
        kept = (*self.others[:number], name.strip(), *self.others[number + 1 :])
        others = tuple(other for other in kept if other)
        if others and others != self.others:
            self.others, self.found = others, None
            self._ask()

    def action_next_seed(self) -> None:
        if self.others:
            self.seed, self.found = self.seed + 1, None
            self._ask()

    def _ask(self) -> None:
        self.problem = ""
        self.refill()
        question = CompareModelsQuestion(self.request, self.others, self.seed)
        self.context.questions.ask(self, question, self._take, self._fail)

    def _take(self, found: ModelComparison) -> None:
        self.found = found
        self.refill()

    def _fail(self, problem: str) -> None:
        self.found, self.problem = None, problem
        self.refill()

    # ── what is shown ──

    def subject(self) -> str:
        if self.found is not None:
            names = words.names(self.found)
            return f"{', '.join(names[:-1])} and {names[-1]}"
        return f"with {' and '.join(self.others)}" if self.others else ""

    def content(self, width: int) -> tuple[list[Text], Sequence[Text]]:
        muted = self.style("muted")
        if self.problem:
            lines = wrapped(Text(visible(self.problem), style=self.style("bad")), width)
            return [], [*lines, Text(), *wrapped(Text(NONE, style=muted), width)]
        if not self.others:
            return [], wrapped(Text(NONE, style=muted), width)
        if self.found is None:
            reading = f"reading the text with {visible(' and '.join(self.others))} …"
            return [], wrapped(Text(reading, style=muted), width)
        found, half = self.found, (width - 2) // 2
        if width >= WIDE:
            compared = beside((self._divergences(found, half), self._text(found, half)), half)
        else:
            compared = [*self._divergences(found, width), *self._text(found, width)]
        return [], [*self._predictions(found, width), *compared, *self._continuations(found, width)]

    def _title(self, text: str, width: int) -> list[Text]:
        return [Text(), *wrapped(Text(text, style=self.style("strong")), width)]

    def _predictions(self, found: ModelComparison, width: int) -> list[Text]:
        note = f"next token · raw p: softmax of the logits · p: after the sampler ({fmt.sampler(self.request.sampler)})"
        count = len(found.models)
        room = (width - 2 * (count - 1)) // count
        wide = room >= (BESIDE - 1 if count == 2 else BESIDE_THREE)
        sides = zip(words.names(found), found.models, strict=True)
        tables = [self._table(name, side, room if wide else width) for name, side in sides]
        lines = wrapped(Text(note, style=self.style("muted")), width)
        for choices in words.choices_lines(found):
            lines += wrapped(Text(choices), width)
        if wide:
            return [*lines, *beside(tables, room)]
        return [*lines, *(line for table in tables for line in (*table, Text()))][:-1]

    def _table(self, name: str, side: ComparedModel, width: int) -> list[Text]:
        number = NUMBER if width >= BESIDE - 2 else NARROW
        muted, cells = self.style("muted"), max(4, width - 2 * number)
        lines = [Text(fit(name, width).rstrip(), style=self.style("accent"), no_wrap=True)]
        lines.append(Text(fit("token", cells) + "raw p".rjust(number) + "p".rjust(number), muted, no_wrap=True))
        shown = side.reading.distribution
        assert shown is not None
        for row in shown.candidates:
            line = Text(fit(visible_token(row.text) or "∅", cells), self.style("strong"), no_wrap=True)
            line.append(percent(row.raw_probability).rjust(number), "not bold")
            lines.append(line.append((percent(row.probability) if row.kept else "–").rjust(number), "not bold"))
        rest = f"{fmt.count(shown.rest.count)} others"
        shares = percent(shown.rest.raw_probability).rjust(number) + percent(shown.rest.probability).rjust(number)
        return [*lines, Text(fit(rest, cells) + shares, muted, no_wrap=True)]

    def _divergences(self, found: ModelComparison, width: int) -> list[Text]:
        lines = self._title("The next token: where raw p differs most", width)
        for line in words.divergence_lines(found):
            lines += wrapped(Text(line), width)
        if not found.differences:
            return lines
        letters = words.LETTERS[: len(found.models)]
        two = len(letters) == 2
        last = "B − A" if two else "max − min"
        lines.append(self._row("token", (*(f"{letter} raw p" for letter in letters), last), width, "muted"))
        for one in found.differences:
            apart = _signed(one) if two else one.difference
            points = f"{fmt.signed(100 * apart)} %" if two else f"{100 * apart:.2f} %"
            cells = (*("–" if p is None else percent(p) for p in one.raw_probabilities), points)
            lines.append(self._row(visible_token(one.text), cells, width))
        return lines

    def _text(self, found: ModelComparison, width: int) -> list[Text]:
        lines = self._title("The text: where the losses differ most", width)
        lines += wrapped(Text(words.text_line(found)), width)
        letters = words.LETTERS[: len(found.models)]
        two = len(letters) == 2
        if found.most:
            last = "B − A" if two else "max − min"
            lines.append(self._row("piece", (*(f"{letter} bits" for letter in letters), last), width, "muted"))
        for one in found.most:
            apart = one.bits[1] - one.bits[0] if two else max(one.bits) - min(one.bits)
            lines.append(self._row(visible_token(one.text), (*map(words.bits, one.bits), words.bits(apart)), width))
        if target := words.target_line(found):
            lines += wrapped(Text(target), width)
        return lines

    def _row(self, name: str, cells: Sequence[str], width: int, style: str = "") -> Text:
        room = max(4, min(30, width - NUMBER * len(cells)))
        line = Text(fit(name or "∅", room), self.style(style or "strong"), no_wrap=True)
        return line.append("".join(cell.rjust(NUMBER) for cell in cells), self.style(style) if style else "not bold")

    def _continuations(self, found: ModelComparison, width: int) -> list[Text]:
        lines = self._title(f"A continuation of each, drawn with the same uniform numbers (seed {self.seed})", width)
        for name, side in zip(words.names(found), found.models, strict=True):
            text = words.continuation(side)
            lines += wrapped(Text(f"{name[0]}  ", self.style("accent")).append(visible(text), "default"), width)
        return lines

    def table(self) -> Iterable[Row]:
        found = self.found
        count = 2 if found is None else len(found.models)
        yield "what", "text", *("first", "second", "third")[:count]
        if found is None:
            return
        yield "choices", "", *(report.choices_text(side.reading.choices) for side in found.models)
        blank = ("",) * (count - 2)
        for one in found.divergences:
            pair = f"{words.LETTERS[one.first]}{words.LETTERS[one.second]}"
            yield "kl_bits", "" if count == 2 else pair, repr(one.forward), repr(one.reverse), *blank
        for row in found.differences:
            values = ("" if p is None else repr(p) for p in row.raw_probabilities)
            yield "raw_probability", visible(row.text), *values
        yield "bits", f"{found.bytes} bytes", *map(repr, found.bits)
        for piece in found.most:
            yield "bits", visible(piece.text), *map(repr, piece.bits)
        yield "continuation", "", *(visible(words.continuation(side)) for side in found.models)


def _signed(row: SharedCandidate) -> float:
    first, second = row.raw_probabilities
    return (second or 0.0) - (first or 0.0)
