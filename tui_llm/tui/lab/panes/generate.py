"""The Generate pane: the text continues from the prompt, one drawn token at a time; each step can be inspected."""

from __future__ import annotations

import math
from collections.abc import Iterable

from rich.text import Text

from tui_llm.common import numbers as common_numbers
from tui_llm.common.display import fit, truncate, visible, visible_token
from tui_llm.common.numbers import counted
from tui_llm.facts.prediction import Distribution, GeneratedToken
from tui_llm.facts.reading import Reading
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.command import Command, CommandFactory, bindings
from tui_llm.tui.kit.text import NO_TEXT, packed, running, wrapped
from tui_llm.tui.lab.panes.base import ReadingPane
from tui_llm.tui.state.lab import Lab
from tui_llm.tui.state.messages import StepShown, TokensAccepted, TreeWanted

TALL, TABLE = 22, 14  # rows from which the pane has room for a table, and those that it doesn't get
HEAD, STEPS, MOST_STEPS = 7, 8, 24  # lines above the steps; steps that the pane has room for: so many more, at most
TAIL = 400  # last characters of prompt and text, from which the few visible lines are made


def step_label(step: GeneratedToken) -> str:
    """The token that a step drew. Bytes that do not complete a character yet are shown as bytes."""
    return visible_token(step.text) if step.text else "".join(f"<0x{byte:02X}>" for byte in step.bytes)


def step_cells(width: int, number: str, token: str, u: str, p: str, rank: str, mark: str = " ") -> str:
    """A step's row; the token gets the width that the numbers leave."""
    numbers = f"{u:>8} {p:>8} {rank:>7}" if width >= 38 else f"{p:>8}"
    room = max(1, width - len(numbers) - 7)
    return f"{mark}{number:>4} {fit(token, room)} {numbers}"


_key = CommandFactory("generate", "Generate")
KEYS = (
    Command("draw", "g", "one token", "Draw one token and append it", "Generate", "lab", "draw", ("logits", "generate")),
    Command("stream", "space", "stream", "Stream: draw token after token, until Space again", "Generate", "lab", "stream", ("generate",), importance=1),
    _key("earlier_step", "left", "earlier", "Show how the previous token was chosen", "step(-1)", together="step"),
    _key("later_step", "right", "later", "Show how the next token was chosen", "step(1)", together="step"),
    _key("show_draw", "D", "the draw", "Show where u falls on the cumulative distribution, and what it selects under other settings", "show_draw", importance=1),
    _key("draw_many", "H", "draw many", "Draw the next token many times: counts beside expected counts", "draw_many"),
    Command("steer_lower", "minus", "steer", "Lower the coefficient of the direction that is added; a stream goes on with it", "Steer", "lab", "steer(-1)", together="steer", importance=-3),
    Command("steer_raise", "plus,equals_sign", "steer", "Raise the coefficient of the direction that is added; a stream goes on with it", "Steer", "lab", "steer(1)", together="steer", importance=-3),
    Command("undo", "u", "undo", "Undo the last change of the text, typed or drawn; the line under the prompt names it (ctrl+z while typing)", "Text", "lab", "undo_text", ("generate",)),
    Command("redo", "U", "redo", "Redo the change that was undone (ctrl+y while typing)", "Text", "lab", "redo_text"),
    Command("clear", "c", "clear", "Remove all generated tokens", "Generate", "lab", "clear_tokens", ("generate",)),
    Command("seed", "r", "new seed", "Draw with another seed; the same seed gives the same text", "Generate", "lab", "seed", ("generate",)),
    _key("accept", "enter", "keep text", "Move the generated text into the prompt (it is encoded again there)", "accept"),
    _key("tree", "T", "tree", "Open the tree of continuations of this text", "tree", importance=1),
)  # fmt: skip


class GeneratePane(ReadingPane):
    NAME = "generate"
    BINDINGS = bindings(KEYS, "generate")

    def __init__(self, lab: Lab) -> None:
        super().__init__(id="generate", classes="pane")
        self.lab = lab
        self._shown = 0

    def on_mount(self) -> None:
        self.put_title()

    def show(self, reading: Reading | None) -> None:
        """Shows a reading; None if only the steps or settings have changed."""
        if reading is not None:
            self.reading = reading
        if len(self.lab.steps) != self._shown:  # the cursor follows the newest step
            self._shown = len(self.lab.steps)
            self.cursor = self._shown - 1 if self._shown else None
        self.rebuild()
        self._show_cursor()

    # ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────

    def head(self, width: int) -> list[Text]:
        sampler, lab = self.lab.sampler, self.lab
        strong, muted = self.style("strong"), self.style("muted")
        temperature = Text("temperature ").append(fmt.setting(sampler.temperature), strong)
        parts = [
            temperature.append(" greedy" if sampler.greedy else "", strong).append(" [ ]", muted),
            Text("top-p ").append(fmt.setting(sampler.top_p), strong).append(" { }", muted),
            Text("seed ").append(str(lab.seed), strong).append(" r", muted),
        ]
        if lab.speed is not None:
            parts.append(Text(fmt.compact(lab.speed), strong).append(" tokens/s", muted))
        lines = packed(parts, width)[:2]
        small = self.size.height < 7
        if lab.position is not None and not small:
            lines += wrapped(Text(self._position_note(), style=self.style("accent")), width)[:2]
        lines += self._text_lines(width)[-(1 if small else 2 if self.size.height < 14 else 5) :]
        if lab.note and not small:
            lines += wrapped(Text(visible(lab.note), style=muted), width)[: 1 if self.size.height < 14 else 2]
        if not small:
            lines += self._candidate_lines(width)
        if lab.steps:
            lines.append(self._columns_line(width))
        return lines

    def content_rows(self, width: int) -> int:
        """The same for several steps, so that the pane grows now and then while tokens are drawn."""
        steps = len(self.lab.steps)
        return HEAD + 1 + min(MOST_STEPS, STEPS * math.ceil(steps / STEPS)) if steps else HEAD

    def _position_note(self) -> str:
        """Says that the other panes show the token cursor's position, while tokens are drawn at the end."""
        position, reading = self.lab.position or 0, self.reading
        of = f" of {fmt.count(len(reading.prompt_ids))}" if reading is not None else ""
        return f"other panes: at token {fmt.count(position + 1)}{of}; draws continue from the end"

    def _text_lines(self, width: int) -> list[Text]:
        lab = self.lab
        text = Text(visible(lab.prompt[-TAIL:], newlines=True), style=self.style("muted"))
        if lab.steps:
            text.append(visible(lab.generated_text[-TAIL:], newlines=True), self.style("generated"))
            text.append("▌" if lab.streaming else "", self.style("accent"))
        elif lab.empty:
            text.append(f" ▸ {NO_TEXT}", self.style("accent"))
        else:
            hint = Text("▸ g draws one token, Space streams", style=self.style("accent"))
            return [*packed([*running(text, width), hint], width, " ")]
        return running(text, width)

    def _selected_step(self) -> GeneratedToken | None:
        steps = self.lab.steps
        if not steps:
            return None
        at = self.cursor if self.cursor is not None and 0 <= self.cursor < len(steps) else len(steps) - 1
        return steps[at]

    def _candidate_lines(self, width: int) -> list[Text]:
        """What the step under the cursor was drawn from: its likeliest candidates, and u."""
        step = self._selected_step()
        if step is None:
            return self._next_lines(width)
        if not step.candidates:
            return []
        muted = self.style("muted")
        kept = f" {counted(step.kept, 'token')}" if step.kept else ""
        how = [f"step {step.index + 1} chose from{kept}", f"by p({fmt.sampler(step.sampler)})"]
        how += [] if step.u is None else [f"with u = {step.u:.4f}"]
        parts = []
        likeliest = [candidate for candidate in step.candidates[:12] if candidate.kept or candidate.id == step.id]
        if step.id not in (candidate.id for candidate in likeliest):  # not among the likeliest: shown first
            parts.append(self._candidate(step_label(step), step.probability, True).append(" …"))
        parts += [
            self._candidate(visible_token(candidate.text), candidate.probability, candidate.id == step.id)
            for candidate in likeliest
        ]
        says = packed([Text(part, style=muted) for part in how], width, " ")
        return [*says, *packed(parts, width)][: 2 if self.size.height < 14 else 4]

    def _next_lines(self, width: int) -> list[Text]:
        """What the first step will be drawn from."""
        distribution = self.reading.distribution if self.reading is not None else None
        if distribution is None or self.stale or self.lab.position is not None:
            return []
        line = Text(f"step 1 chooses from {counted(distribution.kept, 'token')} by p:", style=self.style("muted"))
        if self.size.height >= TALL:
            return [*wrapped(line, width), *self._intervals(distribution, width)]
        kept = [candidate for candidate in distribution.candidates[:12] if candidate.kept]
        parts = [self._candidate(visible_token(one.text), one.probability, False) for one in kept]
        return [*wrapped(line, width), *packed(parts, width)][: 2 if self.size.height < 14 else 4]

    def _intervals(self, distribution: Distribution, width: int) -> list[Text]:
        """The tokens that the first step can draw, each with its part of the cumulative distribution, on which u falls."""
        rows = list(zip(distribution.candidates, distribution.intervals(), strict=False))[: self.size.height - TABLE]
        room = max(8, min(24, width - 46))
        head = f"  {fit('token', room)}{'p':>9}  {'u from – to':<15}"
        lines = [Text(truncate(head, width), style=self.style("muted"), no_wrap=True)]
        for candidate, (start, stop) in rows:
            line = Text("  ", no_wrap=True).append(fit(visible_token(candidate.text), room), self.style("strong"))
            line.append(f"{common_numbers.percent(candidate.probability):>9}  {start:.4f} – {stop:.4f}  ")
            line.append(fmt.bar(candidate.probability, max(0, min(24, width - line.cell_len))), self.style("bar"))
            lines.append(line)
        more = distribution.kept - len(rows)
        note = "g draws: the token whose interval holds u is next; D shows its u"
        note = f"{counted(more, 'more token')} · {note}" if more else note
        return [*lines, *wrapped(Text(note, style=self.style("muted")), width)]

    def _candidate(self, label: str, probability: float, chosen: bool) -> Text:
        part = Text(style=self.style("muted"))
        part.append(f"{'▸' if chosen else ''}{label}", self.style("generated" if chosen else "strong"))
        return part.append(f" {common_numbers.percent(probability)}")

    def _columns_line(self, width: int) -> Text:
        return Text(step_cells(width, "#", "token", "u", "drawn p", "rank"), style=self.style("muted"), no_wrap=True)

    def row_count(self, width: int) -> int:
        return len(self.lab.steps)

    def row(self, index: int, width: int, selected: bool) -> Text:
        if index >= len(self.lab.steps):
            return Text()
        step = self.lab.steps[index]
        # A token that was in the text already, or was put there by the user, was not drawn.
        u = (
            f"{step.u:.4f}"
            if step.u is not None
            else "by hand"
            if step.by_hand
            else "greedy"
            if step.sampler.greedy
            else "given"
        )
        cells = step_cells(
            width,
            f"{step.index + 1}",
            step_label(step),
            u,
            common_numbers.percent(step.probability) if step.probability else "cut",
            fmt.count(step.rank),
            mark="▸" if selected else " ",
        )
        return Text(cells, no_wrap=True)

    def selectable(self, index: int) -> bool:
        return 0 <= index < len(self.lab.steps)

    def cursor_moved(self) -> None:
        self.rebuild()

    def action_step(self, direction: int) -> None:
        self._step(direction)

    def _index(self) -> int:
        step = self._selected_step()
        return 0 if step is None else self.lab.steps.index(step)

    def action_show_draw(self) -> None:
        self._show_step(StepShown(self._index()))

    def action_draw_many(self) -> None:
        self._show_step(StepShown(len(self.lab.steps), many=True))

    def _show_step(self, wanted: StepShown) -> None:
        if self.lab.empty:
            self.notify(NO_TEXT, markup=False, timeout=3)
        else:
            self.post_message(wanted)

    def action_tree(self) -> None:
        self.post_message(TreeWanted())

    def action_accept(self) -> None:
        if self.lab.steps:
            self.post_message(TokensAccepted())

    def table(self) -> Iterable[tuple[str, ...]]:
        yield "index", "id", "bytes", "text", "u", "probability", "rank", "sampler", "seed"
        for step in self.lab.steps:
            yield (
                str(step.index),
                str(step.id),
                step.bytes.hex(),
                visible(step.text),
                "" if step.u is None else repr(step.u),
                repr(step.probability),
                str(step.rank),
                fmt.sampler(step.sampler),
                str(step.seed),
            )
