"""The neurons of one MLP: what each adds to the target's logit and to the rival's, and the tokens that it promotes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from rich.text import Text

from tui_llm.common.display import fit, token_label, visible
from tui_llm.instruments.why.question import Neurons, NeuronsQuestion
from tui_llm.instruments.why.sums import LogitSum, neuron_sum
from tui_llm.tui.instruments.why.lines import NAME, NUMBER, SumLines
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.full import FullScreen, Lazy
from tui_llm.tui.kit.over import Row
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.state.context import LabContext

BAR, ACTIVATION, LEAST_TOKENS = 21, 12, 12  # cells

_key = CommandFactory("neurons", "Why this token")
KEYS = (
    _key("neurons_copy", "y", "copy", "Copy what is shown as a table (tab-separated)", "copy"),
    _key("close_neurons", "escape,q", "back", "Back to the parts", "close", importance=WAY_OUT),
)  # fmt: skip


class NeuronsScreen(FullScreen):
    TITLE_WORDS: ClassVar[str] = "Neurons"
    own_keys = KEYS
    BINDINGS = bindings(KEYS)

    def __init__(self, context: LabContext, question: NeuronsQuestion) -> None:
        super().__init__()
        self.made = SumLines(self)
        self.context, self.question = context, question
        self.neurons: Neurons | None = None
        self.sum: LogitSum | None = None
        self.problem = ""

    def on_mount(self) -> None:
        super().on_mount()
        self.listing.can_select = True
        self.context.questions.ask(self, self.question, self._take, self._fail)

    def _take(self, found: Neurons) -> None:
        self.neurons, self.sum = found, neuron_sum(found)
        self.refill()
        self.listing.on_focus()

    def _fail(self, problem: str) -> None:
        self.problem = problem
        self.refill()

    def subject(self) -> str:
        return f"of MLP {self.question.layer}" + (f" of {self.neurons.weights.name}" if self.neurons else "")

    def content(self, width: int) -> tuple[list[Text], Sequence[Text]]:
        found, total, muted = self.neurons, self.sum, self.style("muted")
        if self.problem:
            return wrapped(Text(visible(self.problem), style=self.style("bad")), width), []
        if found is None or total is None:
            return [], [Text("computing …", style=muted)]
        head: list[Text] = []
        if self.listing.size.height >= 12:
            note = "activation × what the neuron writes, projected onto the two tokens; promotes: the tokens it raises most"
            head += wrapped(Text(note, style=muted), width)[:2]
        room = width - NAME - 3 * (NUMBER + 1) - ACTIVATION
        bar = self.made.bar_cells(width - ACTIVATION - LEAST_TOKENS, BAR)
        tokens = room - (bar + 2 if bar else 0) - 2
        names = self.made.column_names("neuron", found.target, found.rival, bar)
        names.append("activation".rjust(ACTIVATION))
        if tokens >= LEAST_TOKENS:
            names.append("  promotes")
        most = max((abs(line.difference) for line in total.lines), default=0)
        head += [names, self.made.total_line(total)]
        return head, Lazy(len(total.lines), lambda at: self._row(found, total, at, bar, most, tokens))

    def _row(self, found: Neurons, total: LogitSum, at: int, bar: int, most: int, tokens: int) -> Text:
        line = self.made.sum_line(total, at, bar, most)
        if at < len(found.neurons):
            neuron = found.neurons[at]
            line.append(fmt.number(neuron.activation).rjust(ACTIVATION), self.style("muted"))
            if tokens >= LEAST_TOKENS:
                labels = " ".join(token_label(token.text) for token in neuron.promoted)
                line.append("  " + fit(labels, tokens), "not bold")
        return line

    def table(self) -> Iterable[Row]:
        yield "neuron", "activation", "value", "rival", "difference", "promoted"
        for one in self.neurons.neurons if self.neurons is not None else ():
            promoted = " ".join(visible(token.text) for token in one.promoted)
            numbers = (repr(one.activation), repr(one.value), repr(one.rival), repr(one.value - one.rival))
            yield str(one.number), *numbers, promoted
