"""Loss: how surprised the model is by a target, with the parts that the number is made of."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from tui_llm.display import fit, visible, visible_token
from tui_llm.reading import LossReading, Reading
from tui_llm.tui import format as fmt
from tui_llm.tui.panes.base import ReadingPane, wrapped
from tui_llm.tui.state import Lab
from tui_llm.tui.widgets.lines import Lines


class LossPane(ReadingPane, Lines):
    NAME = "loss"

    def __init__(self, lab: Lab) -> None:
        super().__init__(id="loss", classes="pane")
        self.lab = lab
        self._lines: list[Text] = []

    def on_mount(self) -> None:
        self.put_title()

    def show(self, reading: Reading) -> None:
        self.reading = reading
        self.rebuild()

    def head(self, width: int) -> list[Text]:
        self._lines = self._all_lines(width)
        return []

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
                return wrapped(Text(visible(reading.problem), style=self.style("bad")), width)
            return wrapped(Text("no target yet: press t to type one, or Enter on a row of Logits"), width)
        if loss.problem or not loss.tokens:
            why = visible(loss.problem or "the target is empty: press t to type one")
            return [
                *wrapped(self._target_line(loss), width),
                *wrapped(Text(why, style=self.style("bad")), width),
            ]
        lines = wrapped(self._target_line(loss), width)
        if len(loss.tokens) > 1:
            lines += self._token_rows(loss, width)
        lines += self._worked(loss, width)
        lines += self._bars(loss, width)
        return lines

    def _target_line(self, loss: LossReading) -> Text:
        line = Text("target ")
        line.append(visible_token(loss.text) or "∅", self.style("accent"))
        target = self.lab.target
        if target is not None and target.text is not None:
            spaced = target.text.startswith(" ")
            line.append(f"  {'with' if spaced else 'without'} its leading space (s)", self.style("muted"))
        else:
            line.append("  chosen from the table (t: type one)", self.style("muted"))
        if len(loss.tokens) > 1:
            line.append(f" · {fmt.count(len(loss.tokens))} tokens in this vocabulary", self.style("muted"))
        return line

    def _token_rows(self, loss: LossReading, width: int) -> list[Text]:
        """One row for each token of a longer target, each predicted with the ones before it given."""
        wide = width >= 48
        room = max(4, width - (36 if wide else 18))
        header = Text(fit("each given those before", room), style=self.style("muted"), no_wrap=True)
        names = (("rank", 8), ("logit", 9), ("p", 9), ("loss", 8)) if wide else (("p", 9), ("loss", 8))
        for name, cells in names:
            header.append(name.rjust(cells))
        rows = [header]
        for token in loss.tokens:
            row = Text(fit(visible_token(token.text), room), style=self.style("strong"), no_wrap=True)
            if wide:
                row.append(fmt.count(token.rank).rjust(8)).append(fmt.number(token.logit).rjust(9))
            row.append(fmt.percent(token.probability).rjust(9)).append(fmt.number(token.loss).rjust(8))
            rows.append(row)
        return rows

    def _worked(self, loss: LossReading, width: int) -> list[Text]:
        strong, muted = self.style("strong"), self.style("muted")
        lines = []
        if len(loss.tokens) == 1:
            token = loss.tokens[0]
            line = Text("loss = logsumexp − logit" + ("\n     = " if width < 58 else " = "))
            line.append(f"{fmt.number(token.logsumexp)} − {_bracketed(token.logit)} = ")
            line.append(f"{fmt.number(token.loss)} nats", strong)
            lines += wrapped(line, width)
            lines += wrapped(
                Text(
                    f"p {fmt.percent(token.probability)} · rank {fmt.count(token.rank)} · gradient p − y = "
                    f"{fmt.number(token.gradient, 3)}",
                    style=muted,
                ),
                width,
            )
        else:
            line = Text(f"sum {fmt.number(loss.sum)} nats ÷ {len(loss.tokens)} tokens = mean ")
            line.append(f"{fmt.number(loss.mean)} nats", strong)
            lines += wrapped(line, width)
        each = "" if len(loss.tokens) == 1 else " a token"
        lines += wrapped(
            Text(
                f"= {fmt.number(loss.bits)} bits{each} · perplexity {fmt.compact(loss.perplexity)}"
                f": one in {fmt.compact(loss.perplexity)}"
            ),
            width,
        )
        return lines

    def _bars(self, loss: LossReading, width: int) -> list[Text]:
        """This loss beside ln V, the loss of a model that knows nothing."""
        largest = max(loss.mean, loss.uniform_loss) if loss.mean < float("inf") else float("inf")
        room = max(0, width - 18)
        lines = []
        for name, value, style in (
            ("this loss", loss.mean, "bad" if loss.mean > loss.uniform_loss else "good"),
            ("ln V", loss.uniform_loss, "muted"),
        ):
            share = 1.0 if value >= largest else value / largest if largest > 0 else 0.0
            line = Text(no_wrap=True)
            line.append(name.ljust(10)).append(fmt.number(value).rjust(6)).append("  ")
            line.append(fmt.bar(share, room), self.style(style))
            lines.append(line)
        worse = loss.mean > loss.uniform_loss
        verdict = "worse than knowing nothing (ln V)" if worse else "ln V is the loss of knowing nothing"
        lines += wrapped(Text(verdict, style=self.style("bad" if worse else "muted")), width)
        return lines

    def table(self) -> Iterable[tuple[str, ...]]:
        yield "id", "bytes", "text", "rank", "logit", "logsumexp", "probability", "loss"
        if self.reading is not None and self.reading.loss is not None:
            for token in self.reading.loss.tokens:
                yield (
                    str(token.id),
                    token.bytes.hex(),
                    visible(token.text),
                    str(token.rank),
                    repr(token.logit),
                    repr(token.logsumexp),
                    repr(token.probability),
                    repr(token.loss),
                )


def _bracketed(value: float) -> str:
    text = fmt.number(value)
    return f"({text})" if value < 0 else text
