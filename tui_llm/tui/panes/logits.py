"""Logits & softmax: the prediction for the next token, raw and as the sampler reshapes it."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from tui_llm.display import visible, visible_token
from tui_llm.reading import Reading, Target
from tui_llm.tui import format as fmt
from tui_llm.tui.commands import bindings
from tui_llm.tui.messages import TargetChosen
from tui_llm.tui.panes.base import ReadingPane, wrapped
from tui_llm.tui.state import Lab
from tui_llm.tui.widgets.vocab_table import VocabTable


class LogitsPane(ReadingPane, VocabTable):
    NAME = "logits"
    BINDINGS = bindings("logits")

    def __init__(self, lab: Lab) -> None:
        super().__init__(id="logits", classes="pane")
        self.lab = lab

    def on_mount(self) -> None:
        self.put_title()

    def show(self, reading: Reading) -> None:
        self.reading = reading
        target = None
        if reading.loss is not None and len(reading.loss.tokens) >= 1:
            target = reading.loss.tokens[0].id
        self.show_distribution(reading.distribution, target)

    def head(self, width: int) -> list[Text]:
        reading = self.reading
        if reading is None:
            return [Text("waiting for the model", style=self.style("muted"))]
        distribution = reading.distribution
        if distribution is None:
            why = visible(reading.problem or "there is nothing to predict from")
            return wrapped(Text(why, style=self.style("bad")), width)
        line = Text("next token", self.style("strong"))
        before = reading.position - reading.tokens.first - 1
        inside = reading.following is not None
        if inside:
            line.append(f" after {fmt.count(reading.position)} of {fmt.count(len(reading.prompt_ids))} tokens")
        if 0 <= before < len(reading.tokens.tokens) and reading.request.tokenizer is None:
            line.append(", " if inside else " after ")
            line.append(visible_token(reading.tokens.tokens[before].text), self.style("accent"))
        line.append(f" · kept {fmt.count(distribution.kept)} of {fmt.count(distribution.vocabulary)}")
        if distribution.kept < distribution.vocabulary and not distribution.sampler.greedy:
            line.append(f" ({fmt.percent(distribution.kept_mass)})")
        facts = Text(style=self.style("muted"))
        facts.append(
            f"{fmt.sampler(distribution.sampler)} · entropy {fmt.number(distribution.entropy)} nats"
            f" · logsumexp {fmt.number(distribution.logsumexp)}"
        )
        lines = [*wrapped(line, width)[:1], *wrapped(facts, width)[:1]] if self.size.height > 6 else []
        return [*lines, *self.header(width)]

    def action_pick(self) -> None:
        if self.selected is not None:
            self.post_message(TargetChosen(Target(id=self.selected.id)))

    def table(self) -> Iterable[tuple[str, ...]]:
        yield (
            "rank",
            "id",
            "bytes",
            "text",
            "logit",
            "e^logit",
            "raw_probability",
            "probability",
            "cumulative",
            "kept",
        )
        if self.distribution is not None:
            for row in self.distribution.candidates:
                yield (
                    str(row.rank),
                    str(row.id),
                    row.bytes.hex(),
                    visible(row.text),
                    repr(row.logit),
                    repr(row.exp_logit),
                    repr(row.raw_probability),
                    repr(row.probability),
                    repr(row.cumulative),
                    str(row.kept).lower(),
                )
