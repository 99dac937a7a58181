"""The Logits & softmax pane: the prediction of the next token, raw and as the sampler changes it."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from tui_llm.common import numbers
from tui_llm.common.display import visible, visible_token
from tui_llm.facts.interventions import mark
from tui_llm.facts.reading import Reading
from tui_llm.facts.request import Target
from tui_llm.instruments.vocabulary.question import ORDERS
from tui_llm.tui.instruments.sampler_keys import cut_keys
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.command import Command, CommandFactory, bindings
from tui_llm.tui.kit.text import with_key, wrapped
from tui_llm.tui.kit.widgets.vocab_columns import COLUMNS, cells
from tui_llm.tui.kit.widgets.vocab_table import VocabTable
from tui_llm.tui.lab.panes.base import ReadingPane
from tui_llm.tui.state.lab import Lab
from tui_llm.tui.state.messages import RowsWanted, TableCommand, TargetChosen


def what_if_words(reading: Reading | None) -> str:
    """How many logits of a reading were set by the user, in words; empty if none."""
    count = len(reading.request.overrides) if reading is not None else 0
    return "" if not count else f"what if: {count} logit{'s' if count > 1 else ''} changed"


def changes_words(reading: Reading | None) -> list[str]:
    """What is not as the model computes it, in words: changed parts, and logits that the user set."""
    parts = mark(reading.request.interventions) if reading is not None else ""
    return [words for words in (f"{parts}; 0 switches on" if parts else "", what_if_words(reading)) if words]


_key = CommandFactory("logits", "Logits")
PICK = _key("pick", "enter", "as target", "Make the row under the cursor the loss's target", "pick")
KEYS = (
    _key("stages", "C", "stages", "Show the stages from logit to probability, page by page, or the overview again", "stages", importance=1),
    _key("find_token", "F", "find", "Find a token in the whole vocabulary, by text or id", "table('find')"),
    _key("find_next", "N", "next match", "Go to the next token that matches", "table('next')", footer=(), importance=-1),
    _key("row_order", "O", "order", "Order the rows by probability, id, text or length", "table('order')", footer=()),
    _key("what_if", "e", "what if", "What if: type another logit for the row's token", "table('change')"),
    _key("what_if_undo", "E", "undo what if", "Undo what if: restore the model's own logits", "table('undo')", footer=(), importance=-1),
    _key("temperatures", "T", "temperatures", "Show temperatures side by side", "table('temperatures')", footer=()),
    _key("append_row", "a", "append", "Append the row's token to the text, instead of drawing one", "table('append')", footer=()),
    Command("scratch", "X", "scratch table", "Type your own tokens and logits, and show their softmax", "Logits", "lab", "scratch"),
    *cut_keys(CommandFactory("lab", "Sampler")),
    Command("sampler_form", "K", "sampler", "Type all sampler settings: temperature, top-k, top-p, min-p, repetition penalty", "Sampler", "lab", "sampler_form", ("logits", "generate")),
)  # fmt: skip


class LogitsPane(VocabTable, ReadingPane):
    NAME = "logits"
    BINDINGS = bindings((PICK, *KEYS), "logits")

    def __init__(self, lab: Lab) -> None:
        super().__init__(id="logits", classes="pane")
        self.lab = lab
        self.search = ""  # the last search text
        self.search_words = ""  # its result

    def on_mount(self) -> None:
        self.put_title()

    def title_words(self) -> str:
        return self.stage_words()

    def rebuild(self) -> None:
        super().rebuild()
        self.put_title()  # afterwards, as the number of pages depends on the width

    def show(self, reading: Reading) -> None:
        self.reading = reading
        target = None
        if reading.loss is not None and len(reading.loss.tokens) >= 1:
            target = reading.loss.tokens[0].token.id
        self.search_words = ""
        self.show_distribution(reading.distribution, target, (id for id, _ in reading.request.overrides))

    def head(self, width: int) -> list[Text]:
        reading = self.reading
        if reading is None:
            return [Text("waiting for the model", style=self.style("muted"))]
        distribution = reading.distribution
        if distribution is None:
            why = visible(with_key(reading.problem) or "there is nothing to predict from")
            return wrapped(Text(why, style=self.style("bad")), width)
        header = self.header(width)
        if self.size.height <= 6:
            return [header]
        line = Text("next token", self.style("strong"))
        before = reading.position - reading.tokens.first - 1
        inside = reading.following is not None
        if inside:
            line.append(f" after {fmt.count(reading.position)} of {fmt.count(len(reading.prompt_ids))} tokens")
        if 0 <= before < len(reading.tokens.tokens) and reading.request.tokenizer is None:
            line.append(", " if inside else " after ")
            line.append(visible_token(reading.tokens.tokens[before].text), self.style("accent"))
        line.append(f" · kept {fmt.count(distribution.kept)} of {fmt.count(distribution.vocabulary)}")
        if distribution.kept < distribution.vocabulary and not distribution.sampler.greedy and self.summed is not None:
            mass = f" ({numbers.percent(distribution.kept_mass)} of {self.summed})"
            line.append(mass if line.cell_len + len(mass) <= width else "")  # the cut line shows it too
        lines = wrapped(line, width)[:1]
        if changed := what_if_words(reading):
            lines += wrapped(Text(f"* {changed}; E undoes", style=self.style("accent")), width)[:1]
        lines += self.facts(width)
        notes = [f"order: {ORDERS[self.order]}"] if self.order != "probability" else []
        notes += [self.search_words] if self.search_words else []
        if notes:
            lines += wrapped(Text(" · ".join(notes), style=self.style("accent")), width)[:1]
        return [*lines, header]

    def want_rows(self, start: int, stop: int) -> None:
        self.post_message(RowsWanted(self.order, range(start, stop)))

    def show_search(self, words: str) -> None:
        self.search_words = visible(words)
        self.rebuild()

    # ── actions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def action_pick(self) -> None:
        if self.selected is not None:
            self.post_message(TargetChosen(Target(id=self.selected.id)))

    def action_stages(self) -> None:
        self.next_stage()

    def action_table(self, what: str) -> None:
        self.post_message(TableCommand(what))

    def table(self) -> Iterable[tuple[str, ...]]:
        """The overview's columns and all stages, for the rows that have arrived."""
        yield COLUMNS
        if self.distribution is not None:
            for place in sorted(self._held):
                yield cells(self._held[place], self._held[place].id in self.changed)
