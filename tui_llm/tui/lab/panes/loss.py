"""The Loss pane: how surprised the model is by a target, with the terms of the loss."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from tui_llm.common import numbers
from tui_llm.common.display import fit, visible, visible_token
from tui_llm.common.numbers import adding, counted, difference
from tui_llm.facts.prediction import LossReading
from tui_llm.facts.reading import Reading
from tui_llm.facts.request import Target
from tui_llm.instruments.gradient.question import Gradient, GradientQuestion
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.command import CommandFactory, bindings
from tui_llm.tui.kit.text import packed, with_key, wrapped
from tui_llm.tui.lab.panes.base import ReadingPane
from tui_llm.tui.state.lab import Lab
from tui_llm.tui.state.messages import GradientWanted, LearnWanted, TargetChosen

LEAST_SCROLLED = 3  # lines of the gradient below the equation

_key = CommandFactory("loss", "Loss")
KEYS = (
    _key("own_target", "n", "own next", "Use the text's own next token (at the token cursor) as the target, or restore the previous target", "own_target"),
    _key("gradient", "p", "gradient", "Show the gradient p − y as bars, token by token for a longer target, then hide it", "gradient", importance=1),
    _key("learn", "L", "learn this", "Take optimizer steps on this prompt and target, on a copy of the weights", "learn", importance=1),
)  # fmt: skip


class LossPane(ReadingPane):
    NAME = "loss"
    BINDINGS = bindings(KEYS)

    def __init__(self, lab: Lab) -> None:
        super().__init__(id="loss", classes="pane")
        self.lab = lab
        self.index: int | None = None  # index of the target's token whose gradient is shown
        self._gradient: Gradient | None = None
        self._no_gradient = ""
        self._reveal = False  # scroll to the gradient once it arrives
        self._lines: list[Text] = []  # those that scroll
        self._target: list[Text] = []
        self._equation: list[Text] = []  # the loss and its terms
        self._bars_at = 0  # first line of the gradient

    def on_mount(self) -> None:
        self.put_title()

    def show(self, reading: Reading) -> None:
        self.reading = reading
        self._ask_gradient()
        self.rebuild()

    def head(self, width: int) -> list[Text]:
        """The target and its loss as an equation while the gradient is shown: only the lines below them scroll."""
        self._target, self._equation = [], []
        lines = self._all_lines(width)
        heads = [[*self._target, *self._equation], self._equation] if self.index is not None else []
        head = next((head for head in heads if len(head) + LEAST_SCROLLED <= self.size.height), [])
        above = [*self._target, *self._equation]
        above = above[: len(above) - len(head)]
        self._lines = [*above, *lines]
        self._bars_at += len(above)
        return head

    def content_rows(self, width: int) -> int:
        """In steps of two, as a target's name may need a second line."""
        return (len(self._head) + len(self._lines) + 1) // 2 * 2

    def row_count(self, width: int) -> int:
        return len(self._lines)

    def row(self, index: int, width: int, selected: bool) -> Text:
        return self._lines[index].copy()

    # ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _all_lines(self, width: int) -> list[Text]:
        reading = self.reading
        if reading is None:
            return [Text("waiting for the model", style=self.style("muted"))]
        loss = reading.loss
        if loss is None:
            if reading.problem:
                return wrapped(Text(visible(with_key(reading.problem)), style=self.style("bad")), width)
            return wrapped(Text("no target yet: press t to type one, or Enter on a row of Logits"), width)
        if loss.problem or not loss.tokens:
            why = visible(loss.problem or "the target is empty: press t to type one")
            return [
                *wrapped(self._target_line(loss), width),
                *wrapped(Text(why, style=self.style("bad")), width),
            ]
        losses, total = adding([token.loss.nats for token in loss.tokens], loss.sum, _places(loss))
        self._target = wrapped(self._target_line(loss), width)
        self._equation = self._loss_lines(loss, total, width)
        work = [*self._notes(loss, losses, width), *self._bars(loss, width)]
        self._bars_at = len(work)
        return [*work, *self._gradient_lines(width)]

    def _target_line(self, loss: LossReading) -> Text:
        target, muted = self.lab.requested_target, self.style("muted")
        own = target.own
        chosen = self.lab.target is not None and self.lab.target.own  # otherwise it comes from the token cursor
        line = Text("target ")
        line.append(visible_token(loss.text) or ("…" if own else "∅"), self.style("accent"))
        if own:
            line.append("  the text's own next token" + (" (n: restore the previous target)" if chosen else ""), muted)
        elif target.text is not None:
            spaced = target.text.startswith(" ")
            line.append(f"  {'with' if spaced else 'without'} its leading space (s)", muted)
        elif target.likeliest:
            line.append("  the likeliest token, until you choose one (t)", muted)
        else:
            line.append("  chosen from the table (t: type one)", muted)
        if len(loss.tokens) > 1:
            line.append(f" · {counted(len(loss.tokens), 'token')} in this vocabulary", muted)
        if self.lab.target_left_over:
            line.append(" · chosen for an earlier text; t chooses one for this", self.style("accent"))
        return line

    def _token_rows(self, loss: LossReading, losses: list[str], width: int) -> list[Text]:
        """One row for each token of a longer target, each predicted from those before it."""
        wide = width >= 48
        room = max(4, width - (36 if wide else 18))
        header = Text(fit("each given those before", room), style=self.style("muted"), no_wrap=True)
        names = (("rank", 8), ("logit", 9), ("raw p", 9), ("loss", 8)) if wide else (("raw p", 9), ("loss", 8))
        for name, cells in names:
            header.append(name.rjust(cells))
        rows = [header]
        for token, cost in zip(loss.tokens, losses, strict=True):
            row = Text(fit(visible_token(token.token.text), room), style=self.style("strong"), no_wrap=True)
            if wide:
                row.append(fmt.count(token.loss.rank).rjust(8)).append(fmt.number(token.loss.logit).rjust(9))
            row.append(numbers.percent(token.loss.probability).rjust(9)).append(cost.rjust(8))
            rows.append(row)
        return rows

    def _loss_lines(self, loss: LossReading, total: str, width: int) -> list[Text]:
        """The loss with its terms, as numbers that add up as printed."""
        strong = self.style("strong")
        if len(loss.tokens) > 1:
            line = Text(f"loss = sum {total} nats ÷ {counted(len(loss.tokens), 'token')} = mean ")
            return wrapped(line.append(f"{fmt.number(loss.mean, _places(loss))} nats", strong), width)
        one = loss.tokens[0].loss
        logsumexp, logit, cost = difference(one.logsumexp, one.logit, one.nats, _places(loss))
        line = Text("loss = logsumexp − logit" + ("\n     = " if width < 58 else " = "))
        return wrapped(line.append(f"{logsumexp} − {logit} = ").append(f"{cost} nats", strong), width)

    def _notes(self, loss: LossReading, losses: list[str], width: int) -> list[Text]:
        """The loss as a probability, or token by token for a longer target; in bits and as perplexity."""
        if len(loss.tokens) > 1:
            lines = self._token_rows(loss, losses, width)
        else:
            one, muted = loss.tokens[0].loss, self.style("muted")
            parts = (
                f"= −ln p with raw {numbers.p_equals(one.probability)}, rank {fmt.count(one.rank)};",
                f"{'gradient ' if width >= 58 else ''}p − y = {fmt.number(one.gradient, 3)}",
            )
            lines = packed([Text(part, style=muted) for part in parts], width, " ")
        places = _places(loss)
        perplexity = fmt.compact(loss.perplexity) if places == 2 else fmt.number(loss.perplexity, 3)
        parts = (
            f"surprise{'' if len(loss.tokens) == 1 else ' a token'}: {fmt.number(loss.bits, places)} bits",
            f"one in {perplexity} {'(perplexity, e^loss)' if width >= 58 else '(perplexity)'}",
        )
        return [*lines, *packed([Text(part) for part in parts], width, " · ")]

    def _bars(self, loss: LossReading, width: int) -> list[Text]:
        """This loss between two reference values: 0, a model that is certain and right, and ln V, one that knows
        nothing."""
        largest = max(loss.mean, loss.uniform_loss) if loss.mean < float("inf") else float("inf")
        worse = loss.mean > loss.uniform_loss
        name_room = 26 if width >= 52 else 13
        names = ("at p = 100 %", "this loss", "uniform guess (ln V)") if name_room > 20 else (
            "at 100 %", "this loss", "guess (ln V)")  # fmt: skip
        room = max(0, width - name_room - 9)
        lines = []
        for name, value, style in zip(
            names,
            (0.0, loss.mean, loss.uniform_loss),
            ("muted", "bad" if worse else "good", "muted"),
            strict=True,
        ):
            share = 1.0 if value >= largest else value / largest if largest > 0 else 0.0
            line = Text(no_wrap=True)
            line.append(fit(name, name_room)).append(fmt.number(value, _places(loss)).rjust(7)).append("  ")
            line.append(fmt.bar(share, room), self.style(style))
            lines.append(line)
        if worse:
            lines += wrapped(Text("worse than a uniform guess (ln V)", style=self.style("bad")), width)
        return lines

    # ── the gradient ─────────────────────────────────────────────────────────────────────────────────────────────

    def action_own_target(self) -> None:
        target = self.lab.target
        if target is None or not target.own:
            self.lab.target_before_own = target
            self.post_message(TargetChosen(Target(own=True)))
        else:
            self.post_message(TargetChosen(self.lab.target_before_own))

    def action_learn(self) -> None:
        self.post_message(LearnWanted())

    def action_gradient(self) -> None:
        """Shows the gradient for the target's first token, then for each further one, then none."""
        tokens = len(self.reading.loss.tokens) if self.reading and self.reading.loss else 0
        self.index = 0 if self.index is None else self.index + 1
        if self.index >= max(1, tokens):
            self.index = None
            self._gradient, self._no_gradient = None, ""
            self.post_message(GradientWanted(None))
        else:
            self._ask_gradient()
        self.rebuild()
        self._reveal = self.index is not None

    def _ask_gradient(self) -> None:
        reading = self.reading
        if self.index is None or reading is None:
            return
        if reading.loss is None or reading.loss.problem or not reading.loss.tokens:
            self._gradient = None
            return
        self.index = min(self.index, len(reading.loss.tokens) - 1)
        self.post_message(GradientWanted(GradientQuestion(reading.request, self.index)))

    def show_gradient(self, gradient: Gradient) -> None:
        self._gradient, self._no_gradient = gradient, ""
        self.rebuild()
        if self._reveal:
            self._reveal = False
            self.call_after_refresh(lambda: self.scroll_to(y=self._bars_at, animate=False))

    def no_gradient(self, problem: str) -> None:
        self._gradient, self._no_gradient = None, problem
        self.rebuild()

    def _gradient_lines(self, width: int) -> list[Text]:
        if self.index is None:
            return []
        muted, gradient = self.style("muted"), self._gradient
        if gradient is None:
            return wrapped(Text(visible(self._no_gradient) or "computing p − y …", style=muted), width)
        name = f" for token {gradient.question.index + 1} of {gradient.tokens}" if gradient.tokens > 1 else ""
        lines = wrapped(Text(f"gradient p − y{name}: moving against it lowers the loss", style=muted), width)
        rows = [(row.token, row.gradient, row.target) for row in gradient.rows]
        values = [gradient for _, gradient, _ in rows] + ([gradient.rest] if gradient.rest_count else [])
        shown, total = adding(values, 0.0, 3)
        room = max(4, min(22, width // 3))
        bar = max(0, width - room - 13)
        for (token, value, target), text in zip(rows, shown, strict=False):
            line = Text(no_wrap=True).append("◆ " if target else "  ", self.style("accent"))
            line.append(fit(visible_token(token.text), room), self.style("strong")).append(text.rjust(8))
            self._push(line, value, bar)
            lines.append(line)
        if gradient.rest_count:
            line = Text(
                "  " + fit(f"{fmt.count(gradient.rest_count)} others", room) + shown[-1].rjust(8),
                style=muted,
                no_wrap=True,
            )
            self._push(line, gradient.rest, bar)
            lines.append(line)
        lines.append(Text("  " + fit("sum", room) + total.rjust(8), style=muted, no_wrap=True))
        return lines

    def _push(self, line: Text, value: float, bar: int) -> None:
        """▲ if the loss falls when this logit rises, ▼ when it falls; the bar's length is |p − y|."""
        if value:
            line.append(" ▲ " if value < 0 else " ▼ ", self.style("good" if value < 0 else "bad"))
            line.append(fmt.bar(abs(value), bar), self.style("good" if value < 0 else "bad"))

    def table(self) -> Iterable[tuple[str, ...]]:
        yield "id", "bytes", "text", "rank", "logit", "logsumexp", "probability", "loss"
        loss = self.reading.loss if self.reading is not None else None
        if loss is None or not loss.tokens:
            return
        for token in loss.tokens:
            yield (
                str(token.token.id),
                token.token.bytes.hex(),
                visible(token.token.text),
                str(token.loss.rank),
                repr(token.loss.logit),
                repr(token.loss.logsumexp),
                repr(token.loss.probability),
                repr(token.loss.nats),
            )
        for name, value in (
            ("sum", loss.sum),
            ("mean", loss.mean),
            ("bits", loss.bits),
            ("perplexity", loss.perplexity),
            ("ln V", loss.uniform_loss),
        ):
            yield "", "", name, "", "", "", "", repr(value)
        if self.index is not None and self._gradient is not None:
            yield "id", "bytes", "text", "probability", "gradient p − y"
            for row in self._gradient.rows:
                cells = str(row.token.id), row.token.bytes.hex(), visible(row.token.text)
                yield *cells, repr(row.probability), repr(row.gradient)
            yield "", "", f"{self._gradient.rest_count} others", "", repr(self._gradient.rest)


def _places(loss: LossReading) -> int:
    """Decimal places of a loss, of its terms and of its tokens' losses."""
    return numbers.loss_places((loss.mean, *(token.loss.nats for token in loss.tokens)))
