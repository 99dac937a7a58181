"""The Block screen: what one block computes for one token, from LayerNorm to the MLP's neurons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from rich.text import Text

from tui_llm.common import numbers
from tui_llm.common.display import token_label, visible
from tui_llm.facts.model import Weights
from tui_llm.facts.request import Question
from tui_llm.instruments.block.question import (
    BlockFlow,
    BlockHead,
    BlockQuestion,
    HeadKey,
    Neuron,
    NormStatistics,
    Push,
    PushedToken,
)
from tui_llm.tui.instruments.token_screen import TokenPage
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.full import FullScreen
from tui_llm.tui.kit.over import Row
from tui_llm.tui.kit.text import packed, wrapped
from tui_llm.tui.state.context import LabContext

KEYS_OF_A_HEAD, NEURONS, TOKENS = 8, 24, 8
BAR = 8  # cells

_key = CommandFactory("block", "Block")
KEYS = (
    _key("block_left", "left", "token", "The previous token of the text", "token(-1)", priority=True, together="token"),
    _key("block_right", "right", "token", "The next token of the text", "token(1)", priority=True, together="token"),
    _key("block_before", "left_square_bracket", "block", "The previous block", "block(-1)", together="block"),
    _key("block_next", "right_square_bracket", "block", "The next block", "block(1)", together="block"),
    _key("block_copy", "y", "copy", "Copy heads and neurons as a table (tab-separated)", "copy"),
    _key("close_block", "escape,q,b", "back", "Close the block", "close", importance=WAY_OUT),
)


class BlockScreen(FullScreen):
    tour_name = "block"
    TITLE_WORDS: ClassVar[str] = "Block"
    own_keys = KEYS
    BINDINGS = bindings(KEYS)

    def __init__(self, context: LabContext, number: int | None = None) -> None:
        super().__init__()
        self.page = TokenPage(self, context, self.question, number)
        self.layer_number = 0

    def on_mount(self) -> None:
        super().on_mount()
        self.page.ask()

    def on_unmount(self) -> None:
        self.page.forget(BlockQuestion)

    def reopened(self, weights: Weights) -> None:
        self.layer_number = min(self.layer_number, weights.layers - 1)
        self.page.reopened(weights)

    @property
    def found(self) -> BlockFlow | None:
        return self.page.found

    def question(self) -> Question[BlockFlow]:
        return BlockQuestion(self.page.request, self.layer_number, self.page.number, KEYS_OF_A_HEAD, NEURONS, TOKENS)

    def action_block(self, by: int) -> None:
        layers = self.page.context.weights.layers if self.page.context.weights is not None else 1
        wanted = max(0, min(self.layer_number + by, layers - 1))
        if wanted != self.layer_number:
            self.layer_number = wanted
            self.page.ask()

    def action_token(self, by: int) -> None:
        if self.found is not None:
            self.page.move(self.found.place, by)

    def subject(self) -> str:
        found = self.found
        if found is None:
            return ""
        return f"{found.layer} of 0 to {len(found.norms) - 2}, {self.page.place_words(found.weights, found.place)}"

    # ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────

    def content(self, width: int) -> tuple[list[Text], Sequence[Text]]:
        found, lines = self.found, self.page.instead(width)
        if lines or found is None:
            return [], lines
        most = max(found.norms)
        lines += packed(
            [self._words("‖stream‖"), *(self._norm(at, norm, most) for at, norm in enumerate(found.norms))], width
        )
        lines.append(self._statistics(1, found.norm1))
        lines.append(self._words("heads: norm of what each adds, the tokens it attends to (q·k ÷ √D)"))
        largest = max(head.norm for head in found.heads) or 1.0
        for head in found.heads:
            lines += self._head(head, largest, width)
        lines.append(self._added("attention", found.attention, found.middle))
        change = found.change
        if change is not None and change.replaced:
            words = f"still computed, but replaced: attention, and the MLP of the stream with it, whose norm is {fmt.figures(change.computed)}"
            lines += wrapped(self._words(words), width)
        lines.append(self._statistics(2, found.norm2))
        active = f"{fmt.count(found.active)} of {fmt.count(found.hidden)} neurons are above 0 before {found.activation}"
        then = "those that add most:" if found.neurons else "what they add is replaced"
        lines.append(self._words(f"MLP: {active}; {then}"))
        largest = max((one.norm for one in found.neurons), default=1.0) or 1.0
        for neuron in found.neurons:
            lines.append(self._neuron(neuron, largest, width))
        end = found.norms[found.layer + 1]
        lines.append(self._added("MLP", found.mlp, end if change is None else change.before))
        if change is not None:
            lines.append(self._added(change.names, change.added, end))
        return [], lines

    def _words(self, words: str) -> Text:
        return Text(words, style=self.style("muted"))

    def _norm(self, at: int, norm: float, most: float) -> Text:
        assert self.found is not None
        here = at in (self.found.layer, self.found.layer + 1)
        part = Text(f"block {at - 1} " if at else "embedding ", self.style("accent" if here else "muted"), no_wrap=True)
        part.append(fmt.bar(norm / most if most else 0.0, 4), self.style("bar"))
        return part.append(f" {fmt.figures(norm)}", self.style("strong" if here else "muted"))

    def _statistics(self, number: int, one: NormStatistics) -> Text:
        line = Text(no_wrap=True).append(f"{one.name} {number}", self.style("strong"))
        if one.mean is None:
            return line.append(f"  divides by the root mean square {fmt.number(one.sigma, 4)}", "not bold")
        return line.append(
            f"  subtracts the mean {fmt.number(one.mean, 4)}, divides by σ = {fmt.number(one.sigma, 4)}", "not bold"
        )

    def _added(self, name: str, norm: float, after: float) -> Text:
        line = Text(no_wrap=True).append(f"→ {name} adds ", self.style("muted"))
        line.append(fmt.figures(norm), self.style("strong"))
        return line.append(f"; ‖stream‖ is now {fmt.figures(after)}", self.style("muted"))

    def _head(self, head: BlockHead, largest: float, width: int) -> list[Text]:
        assert self.found is not None
        line = Text(no_wrap=True).append(f"{self.found.layer}.{head.head}".ljust(6), self.style("accent"))
        line.append(fmt.bar(head.norm / largest, BAR), self.style("bar"))
        line.append(fmt.figures(head.norm).rjust(7) + " ", self.style("strong"))
        for key in head.keys:
            part = self._key_text(key)
            if line.cell_len + part.cell_len > width:
                break
            line.append_text(part)
        below = Text(" " * (6 + BAR + 8), no_wrap=True)
        self._append_push(below, head.push, width)
        return [line, below]

    def _key_text(self, key: HeadKey) -> Text:
        part = Text(" " + token_label(key.token.text), self.style("strong"))
        part.append(f" {numbers.percent(key.weight)}", "not bold")
        return part.append(f" ({fmt.number(key.score)})", self.style("muted"))

    def _neuron(self, one: Neuron, largest: float, width: int) -> Text:
        line = Text(no_wrap=True).append(f"#{one.number}".ljust(6), self.style("accent"))
        line.append(fmt.bar(one.norm / largest, BAR), self.style("bar"))
        line.append(fmt.figures(one.norm).rjust(7), self.style("strong"))
        line.append(f" {fmt.number(one.hidden)}→{fmt.number(one.activation)}".ljust(14), "not bold")
        self._append_push(line, one.push, width)
        return line

    def _append_push(self, line: Text, push: Push, width: int) -> None:
        """As many promoted and suppressed tokens as there is room for, two thirds of it for the promoted."""
        stop = line.cell_len + (width - line.cell_len) * 3 // 5
        for sign, tokens, end in (("▲", push.promoted, stop), ("▼", push.suppressed, width)):
            parts = list(self._pushed(sign, tokens))
            for part in parts:
                if line.cell_len + part.cell_len > end:
                    break
                line.append_text(part)

    def _pushed(self, sign: str, tokens: Sequence[PushedToken]) -> Iterable[Text]:
        for nth, one in enumerate(tokens):
            part = Text(f" {sign}" if not nth else " ", self.style("good" if sign == "▲" else "bad"))
            part.append(token_label(one.token.text), "not bold")
            yield part.append(f" {fmt.number(one.logit)}", self.style("muted"))

    def table(self) -> Iterable[Row]:
        yield "part", "norm", "token", "weight", "score", "logit", "what"
        if self.found is None:
            return
        for head in self.found.heads:
            name, norm = f"head {self.found.layer}.{head.head}", repr(head.norm)
            for key in head.keys:
                yield name, norm, visible(key.token.text), repr(key.weight), repr(key.score), "", f"key {key.number}"
            yield from self._push_rows(name, norm, head.push)
        for one in self.found.neurons:
            yield from self._push_rows(f"neuron {self.found.layer}.{one.number}", repr(one.norm), one.push)

    def _push_rows(self, name: str, norm: str, push: Push) -> Iterable[Row]:
        for what, tokens in (("promoted", push.promoted), ("suppressed", push.suppressed)):
            for one in tokens:
                yield name, norm, visible(one.token.text), "", "", repr(one.logit), what
