"""What a copy of the weights learned, and the effects: before and after, side by side."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from tui_llm.common import numbers as common_numbers
from tui_llm.common.display import fit, truncate, visible, visible_token
from tui_llm.common.numbers import adding
from tui_llm.facts.pin import Pin
from tui_llm.facts.recipe import OPTIMIZERS
from tui_llm.instruments.learn.question import Learned, PinChange
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.text import packed, wrapped
from tui_llm.tui.kit.widgets.lines import Lines
from tui_llm.tui.runs.pin_list import end_of

NO_PINS = "no prompt is pinned: P in the five panes pins one; this table then shows how its loss changes"


class LearnedLines(Lines):
    def __init__(self) -> None:
        super().__init__(id="learned-lines")
        self.learned: Learned | None = None
        self._lines: list[Text] = []

    def show(self, learned: Learned) -> None:
        self.learned = learned
        self.rebuild()

    def head(self, width: int) -> list[Text]:
        learned = self.learned
        if learned is None:
            self._lines = [Text("reading …", style=self.style("muted"))]
        else:
            self._lines = [
                *self._target(learned, width),
                *self._steps(learned, width),
                *self._candidates(learned, width),
                *self._pins(learned, width),
            ]
        return []

    def row_count(self, width: int) -> int:
        return len(self._lines)

    def row(self, index: int, width: int, selected: bool) -> Text:
        return self._lines[index].copy()

    # ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _title(self, text: str, width: int) -> Text:
        return Text(truncate(f"── {text} ".ljust(width, "─"), width), style=self.style("muted"), no_wrap=True)

    def _target(self, learned: Learned, width: int) -> list[Text]:
        target = visible_token("".join(token.text for token in learned.target))
        prompt = visible(learned.prompt)
        room = max(4, width - len("prompt … → ") - min(30, len(target)))
        line = Text("prompt ", no_wrap=True).append(end_of(prompt, room)).append(" → ", self.style("muted"))
        line.append(truncate(target, 30), self.style("accent"))
        each = "" if len(learned.target) == 1 else " a token"
        before, after = learned.before, learned.after
        rows = [line]
        change = after.loss - before.loss
        (later, earlier), moved = adding([after.loss, -before.loss], change, 3)
        text = Text(f"loss {earlier.removeprefix('−')} → {later} nats{each}")
        if learned.steps:
            text.append(f"  ({'+' if change > 0 else ''}{moved})", self.style("bad" if change > 0 else "good"))
        p = f"p {common_numbers.precise_percent(before.probability)} → {common_numbers.precise_percent(after.probability)}"
        of = "" if len(learned.target) == 1 else " of its first token"
        rank = f"rank{of} {fmt.count(before.rank)} → {fmt.count(after.rank)}"
        return rows + packed([text, Text(p), Text(rank)], width, "   ")

    def _steps(self, learned: Learned, width: int) -> list[Text]:
        """The table of steps, with their losses as bars."""
        each = "" if len(learned.target) == 1 else " a token"
        largest = max(learned.before.loss, *(one.loss for one in learned.steps), 1e-9)
        wide = width >= 64
        recipe = 24 if wide else 14
        header = f"{'step':>4}  {fit('taken with', recipe)}" + ("|gradient|".rjust(11) if wide else "")
        rows = [
            self._title("steps", width),
            Text(truncate(f"{header}{'loss':>8}{'p':>9}  loss{each}", width), style=self.style("muted"), no_wrap=True),
        ]
        states = [(0, "the open model", "", learned.before.loss, learned.before.probability)]
        for one in learned.steps:
            name = f"{OPTIMIZERS[one.recipe.optimizer]} {one.recipe.learning_rate:g}"
            states.append((one.number, name, fmt.compact(one.gradient_norm), one.loss, one.probability))
        bar = max(0, width - len(header) - 19)
        for number, name, gradient, loss, probability in states:
            line = Text(f"{number:>4}  ", no_wrap=True)
            line.append(fit(name, recipe)).append(gradient.rjust(11) if wide else "", self.style("muted"))
            line.append(fmt.number(loss, 3).rjust(8)).append(common_numbers.percent(probability).rjust(9)).append("  ")
            line.append(fmt.bar(loss / largest, bar), self.style("bar"))
            rows.append(line)
        return rows

    def _candidates(self, learned: Learned, width: int) -> list[Text]:
        room = max(6, min(28, width - 46))
        bar = max(0, width - room - 36)
        rows = [
            self._title("the next token: the likeliest before and after, and the target ◆", width),
            Text(
                truncate(f"  {fit('token', room)}{'before':>9}{'after':>9}{'points':>10}  after", width),
                style=self.style("muted"),
                no_wrap=True,
            ),
        ]
        for row in learned.candidates:
            change = row.after - row.before
            line = Text(no_wrap=True).append("◆ " if row.target else "  ", self.style("accent"))
            line.append(fit(visible_token(row.token.text), room), self.style("strong"))
            line.append(common_numbers.percent(row.before).rjust(9)).append(common_numbers.percent(row.after).rjust(9))
            line.append(
                _points(change).rjust(10), self.style("good" if change > 0 else "bad" if change < 0 else "muted")
            )
            line.append("  ").append(fmt.bar(row.after, bar), self.style("bar"))
            rows.append(line)
        return rows

    def _pins(self, learned: Learned, width: int) -> list[Text]:
        rows = [self._title("pinned prompts: forgetting", width)]
        if not learned.pins:
            return rows + wrapped(Text(NO_PINS, style=self.style("muted")), width)
        wide = width >= 76
        room = max(8, width - (55 if wide else 27))
        header = fit("prompt → target", room) + f"{'loss before':>13}{'after':>8}"
        header += f"{'p before':>10}{'after':>9}{'changed':>13}" if wide else ""
        rows.append(Text(truncate(header, width), style=self.style("muted"), no_wrap=True))
        for one in learned.pins:
            rows += self._pin_rows(one, room, wide, width)
        if wide:
            rows += wrapped(
                Text(
                    "changed: KL divergence of the next token's prediction, in nats (0 = identical)",
                    style=self.style("muted"),
                ),
                width,
            )
        return rows

    def _pin_rows(self, one: PinChange, room: int, wide: bool, width: int) -> list[Text]:
        line = Text(fit(pin_name(one.pin, room), room), no_wrap=True)
        if one.problem:
            return [line, *wrapped(Text("  " + visible(one.problem), style=self.style("bad")), width)]
        if one.loss_before is not None and one.loss_after is not None:
            worse = one.loss_after > one.loss_before + 0.0005
            line.append(fmt.number(one.loss_before, 3).rjust(13))
            line.append(fmt.number(one.loss_after, 3).rjust(8), self.style("bad" if worse else "good"))
            if wide:
                line.append(common_numbers.percent(one.probability_before or 0.0).rjust(10))
                line.append(common_numbers.percent(one.probability_after or 0.0).rjust(9))
        else:
            first = [visible_token(token.text) if token else "" for token in (one.first_before, one.first_after)]
            line.append(fit(f"  {truncate(first[0], 18)} → {truncate(first[1], 18)}", 40 if wide else 21))
        if wide:
            line.append(fmt.compact(one.divergence).rjust(13), self.style("muted"))
        return [line]

    def table(self) -> Iterable[tuple[str, ...]]:
        """All that is shown, section by section, each with its own header."""
        learned = self.learned
        if learned is None:
            return
        yield "", "loss", "probability", "rank"
        for name, state in (("before", learned.before), ("after", learned.after)):
            yield name, repr(state.loss), repr(state.probability), str(state.rank)
        yield "step", "optimizer", "step size", "gradient norm", "loss", "probability"
        for one in learned.steps:
            numbers = (one.gradient_norm, one.loss, one.probability)
            yield str(one.number), one.recipe.optimizer, repr(one.recipe.learning_rate), *map(repr, numbers)
        yield "id", "bytes", "text", "p before", "p after", "rank before", "rank after"
        for r in learned.candidates:
            token = str(r.token.id), r.token.bytes.hex(), visible(r.token.text)
            yield *token, repr(r.before), repr(r.after), str(r.rank_before), str(r.rank_after)
        yield (
            "prompt",
            "target",
            "loss before",
            "loss after",
            "p before",
            "p after",
            "likeliest before",
            "after",
            "KL",
            "problem",
        )
        for w in learned.pins:
            yield (
                visible(w.pin.prompt),
                visible(w.pin.target or ""),
                *("" if value is None else repr(value)
                  for value in (w.loss_before, w.loss_after, w.probability_before, w.probability_after)),
                *(visible(token.text) if token else "" for token in (w.first_before, w.first_after)),
                repr(w.divergence),
                visible(w.problem),
            )  # fmt: skip


def pin_name(pin: Pin, room: int) -> str:
    if not pin.target:
        return truncate(visible(pin.prompt), room)
    target = truncate(visible_token(pin.target), max(3, room // 3))
    return truncate(f"{end_of(visible(pin.prompt), max(3, room - len(target) - 3))} → {target}", room)


def _points(change: float) -> str:
    """A change of probability in percentage points."""
    return ("+" if change > 0 else "") + fmt.number(100 * change, 2)
