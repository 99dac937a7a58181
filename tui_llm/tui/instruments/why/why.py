"""The Why screen: the target's logit as a sum over the parts of the model, beside that of a rival token."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from rich.text import Text

from tui_llm.common.display import token_label, truncate, visible
from tui_llm.facts.interventions import HEAD, MLP, TOKENS, ModelPart
from tui_llm.facts.model import Weights
from tui_llm.instruments.why.question import NeuronsQuestion, Why, WhyQuestion
from tui_llm.instruments.why.sums import FORWARD, KINDS, LAYERS, ORDERS, PARTS, TABLES, LogitSum, logit_sum
from tui_llm.tui.instruments.why.keys import KEYS
from tui_llm.tui.instruments.why.lines import SumLines
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.command import bindings
from tui_llm.tui.kit.full import FullScreen, Lazy
from tui_llm.tui.kit.over import Row
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.state.context import LabContext
from tui_llm.tui.state.openers import opens

CHOSEN = {
    "asked": "the chosen target",
    "next": "the text's next token",
    "likeliest": "the model's likeliest",
}
TITLES = {PARTS: "part", LAYERS: "layer", KINDS: "kind"}
Typed = Callable[[str], None]


@opens("why", LabContext.has_reading, LabContext.has_text)
class WhyScreen(FullScreen):
    """The text is the lab's when the screen opens. `number` is the token whose prediction is explained: the one before
    the token cursor."""

    tour_name = "why"
    TITLE_WORDS: ClassVar[str] = "Why this token"
    own_keys = KEYS
    BINDINGS = bindings(KEYS)

    def __init__(self, context: LabContext) -> None:
        super().__init__()
        self.made = SumLines(self)
        self.context = context
        self._take_text()
        position, reading = self.request.position, context.reading
        first = 0 if reading is None else len(reading.prompt_ids) - reading.fed
        self.number = None if position is None else max(first, position - 1)
        self.rival: int | None = None
        self.rival_text: str | None = None
        self.order, self.table_name = ORDERS[0], TABLES[0]
        self.why: Why | None = None
        self.sum: LogitSum | None = None
        self.problem = ""

    def on_mount(self) -> None:
        super().on_mount()
        self.listing.can_select = True
        self.ask()

    def _take_text(self) -> None:
        """The lab's text and target, in the model that is open now."""
        self._model = self.context.model
        self.request = self.context.lab.current_request()
        asked = self.request.target
        self.target = None if asked is None or asked.own or asked.likeliest else asked

    def reopened(self, weights: Weights) -> None:
        if weights.name != self._model:  # its tokens may be others
            self._take_text()
            self.number = self.rival = None
        self.ask()

    # ── the question ─────────────────────────────────────────────────────────────────────────────────────────────

    def ask(self) -> None:
        """Asks for the parts. The target that was chosen is that of the text's end; elsewhere it is the text's own next
        token."""
        at_end = self.number is None or self.why is None or self.number == self.why.place.count - 1
        target = self.target if at_end and self.number is None else None
        request = dataclasses.replace(self.request, target=target)
        self.context.questions.ask(
            self, WhyQuestion(request, self.number, self.rival, self.rival_text), self._take, self._fail
        )

    def _take(self, why: Why) -> None:
        self.why, self.problem = why, ""
        self._arrange()
        self.listing.on_focus()

    def _fail(self, problem: str) -> None:
        self.problem = problem
        self.refill()

    def _arrange(self) -> None:
        if self.why is not None:
            self.sum = logit_sum(self.why, self.table_name, self.order)
        self.refill()

    # ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────

    def subject(self) -> str:
        if self.why is None:
            return ""
        weights = self.why.weights
        step = "" if weights.step is None else f" at step {fmt.count(weights.step)}"
        return f"{weights.name}{step}"

    def content(self, width: int) -> tuple[list[Text], Sequence[Text]]:
        muted, why, found = self.style("muted"), self.why, self.sum
        head = wrapped(Text(visible(self.problem), style=self.style("bad")), width) if self.problem else []
        if why is None or found is None:
            return head, [] if self.problem else [Text("computing …", style=muted)]
        tall = self.listing.size.height >= 12
        head += wrapped(self._sentence(why, found), width)[: 2 if tall else 1]
        if tall:
            kinds = logit_sum(why, KINDS, FORWARD)
            told = " · ".join(f"{line.name} {kinds.signed(line.difference)}" for line in kinds.lines)
            head += wrapped(Text(f"of the difference: {told}", style=muted), width)[:2]
            note = f"sorted by {self.order} (o) · σ of the final norm, frozen: {why.scale:.4g}"
            head += wrapped(Text(note, style=muted), width)[:1]
        bar = self.made.bar_cells(width)
        head += [
            self.made.column_names(TITLES[self.table_name], why.target, why.rival, bar),
            self.made.total_line(found),
        ]
        most = max((abs(line.difference) for line in found.lines), default=0)
        return head, Lazy(len(found.lines), lambda at: self.made.sum_line(found, at, bar, most))

    def _sentence(self, why: Why, found: LogitSum) -> Text:
        place, strong = why.place, self.style("strong")
        line = Text("after token ").append(f"{fmt.count(place.number + 1)} of {fmt.count(place.count)} ")
        line.append(truncate(token_label(place.token.text), 20), strong).append(": why ")
        line.append(truncate(token_label(why.target.text), 20), self.style("accent"))
        line.append(f" ({CHOSEN[why.chosen]})", self.style("muted")).append(" and not ")
        line.append(truncate(token_label(why.rival.text), 20), self.style("accent")).append("? logit ")
        line.append(found.text(found.total.value), strong).append(" against ")
        return line.append(found.text(found.total.rival), strong).append(
            f": {found.signed(found.total.difference)}", "not bold"
        )

    def table(self) -> Iterable[Row]:
        yield "part", "layer", "head", "value", "rival", "difference"
        why = self.why
        if why is not None:
            for one in why.parts:
                layer, head = (str(number) if number >= 0 else "" for number in (one.part.layer, one.part.head))
                yield one.part.name, layer, head, repr(one.value), repr(one.rival), repr(one.value - one.rival)
            yield "sum", "", "", repr(why.logit), repr(why.rival_logit), repr(why.logit - why.rival_logit)

    # ── actions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def action_order(self) -> None:
        self.order = ORDERS[(ORDERS.index(self.order) + 1) % len(ORDERS)]
        self._arrange()

    def action_table(self) -> None:
        self.table_name = TABLES[(TABLES.index(self.table_name) + 1) % len(TABLES)]
        self._arrange()

    def action_token(self, by: int) -> None:
        if self.why is None:
            return
        place = self.why.place
        number = place.number + by
        if place.first <= number < place.count:
            self.number = None if number == place.count - 1 else number
            self.rival = self.rival_text = None
            self.ask()

    def action_choose_rival(self, by: int) -> None:
        if self.why is None:
            return
        ids = [token.id for token in self.why.likeliest if token.id != self.why.target.id]
        if not ids:
            return
        now = ids.index(self.why.rival.id) if self.why.rival.id in ids else -by
        self.rival, self.rival_text = ids[max(0, min(now + by, len(ids) - 1))], None
        self.ask()

    def action_rival(self) -> None:
        self._type("Rival", "Enter compares with it · #464: the token with that id", self._typed_rival)

    def _typed_rival(self, text: str) -> None:
        self.rival, self.rival_text = None, text
        self.ask()

    def action_target(self) -> None:
        self._type("Target", "Enter explains its first token, after the end of the text", self._typed_target)

    def _typed_target(self, text: str) -> None:
        from tui_llm.facts.request import Target

        self.target, self.number = Target(text=text), None
        self.ask()

    def _type(self, title: str, hint: str, take: Typed) -> None:
        from tui_llm.tui.kit.ask import AskScreen

        def answered(text: str | None) -> None:
            if text:
                take(text)

        self.app.push_screen(AskScreen(title, hint, " ", spaces=True), answered)

    def action_open(self) -> None:
        found, at = self.sum, self.listing.cursor
        if self.why is None or found is None or at is None or at >= len(found.lines):
            return
        part = found.lines[at].part
        if part is None:
            self.action_table()
        else:
            self._open(self.why, part)

    def _open(self, why: Why, part: ModelPart) -> None:
        from tui_llm.tui.instruments.inside.inside import InsideScreen
        from tui_llm.tui.instruments.why.neurons import NeuronsScreen

        if part.kind == MLP:
            pair = why.target.id, why.rival.id
            question = NeuronsQuestion(self.request, why.place.number, part.layer, *pair)
            self.app.push_screen(NeuronsScreen(self.context, question))
            return
        if part.kind == HEAD:
            view, layer, head = "attention", part.layer, part.head
        elif part.kind == TOKENS:
            view, layer, head = "neighbours", None, None
        else:
            self.notify(f"{part.name} has no page of its own", markup=False, timeout=3)
            return
        request = dataclasses.replace(self.request, target=None)
        self.app.push_screen(
            InsideScreen(self.context, request, None, why.place.number, view=view, layer=layer, head=head)
        )
