"""The Switch off screen: a map of the model's parts with the effect of each alone on the target's loss, and switches."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from functools import partial
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult

from tui_llm.common import numbers
from tui_llm.common.display import token_label, truncate, visible
from tui_llm.facts.interventions import KEY, MEAN, PATCH, ZERO, Intervention, ModelPart, named
from tui_llm.facts.model import Weights
from tui_llm.instruments.ablate.changes import intervention
from tui_llm.instruments.ablate.question import (
    AblateQuestion,
    Ablation,
    Effects,
    EffectsQuestion,
    PartEffect,
    Reference,
    ReferenceQuestion,
    TargetValues,
    ranked_parts,
)
from tui_llm.tui.instruments.ablate.keys import KEYS
from tui_llm.tui.instruments.ablate.lines import REPLACED, SIGNS, PartGrid, PartMap, change, ranking_head, ranking_row
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.command import bindings
from tui_llm.tui.kit.full import FullScreen, Lazy, Listing, clickable
from tui_llm.tui.kit.over import Row
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.kit.widgets.bars import Bar, KeyBar
from tui_llm.tui.state.context import LabContext
from tui_llm.tui.state.openers import opens

HOWS = (ZERO, MEAN, PATCH)
CHOSEN = {"likeliest": "the likeliest token", "next": "the text's own next token", "asked": "the lab's target"}


class PartListing(Listing):
    """The arrow keys move in the map, which is among the fixed lines; PgUp and PgDn scroll the ranking."""

    screen: AblateScreen

    def action_scroll_up(self) -> None:
        self.screen.move(-1, 0)

    def action_scroll_down(self) -> None:
        self.screen.move(1, 0)

    def action_scroll_left(self) -> None:
        self.screen.move(0, -1)

    def action_scroll_right(self) -> None:
        self.screen.move(0, 1)


@opens("ablate", LabContext.has_reading, LabContext.has_text)
class AblateScreen(FullScreen):
    tour_name = "ablate"
    TITLE_WORDS: ClassVar[str] = "Switch off"
    own_keys = KEYS
    shows_model = False  # it says itself what is off
    BINDINGS = bindings(KEYS)

    def __init__(self, context: LabContext) -> None:
        super().__init__()
        self.context = context
        weights = context.weights
        assert weights is not None  # `has_reading`
        self.grid = PartGrid(weights.layers, weights.heads, weights.positions)
        self._take_text(weights)
        self.row, self.column = 0, 0
        self.how = ZERO
        self.prompt = ""
        self.reference: Reference | None = None  # of `PATCH`
        self.own: Reference | None = None  # the text itself, for means over it
        self.state: Ablation | None = None  # without and with what is off now
        self.effects: Effects | None = None  # of the rows that have arrived
        self.found: dict[ModelPart, PartEffect] = {}
        self.waiting: list[tuple[ModelPart, ...]] = []  # rows that are not computed yet
        self.stopped = False
        self.number: int | None = None  # of the token that attention can be switched off to, among those that are seen
        self.token_effect: tuple[int, TargetValues] | None = None
        self.problem = ""

    @property
    def off(self) -> tuple[Intervention, ...]:
        return self.context.lab.interventions

    @property
    def part(self) -> ModelPart:
        """The part under the cursor."""
        return self.grid.parts(self.row)[self.column]

    # ── layout ───────────────────────────────────────────────────────────────────────────────────────────────────

    def compose(self) -> ComposeResult:
        yield Bar(id="full-top")
        yield PartListing()
        yield KeyBar(id="full-keys")

    def on_mount(self) -> None:
        super().on_mount()
        self._begin()

    def on_unmount(self) -> None:
        self.context.questions.forget(EffectsQuestion)
        self.context.questions.forget(ReferenceQuestion)
        self.context.questions.forget(AblateQuestion)  # but for a switch, which is still made

    def reopened(self, weights: Weights) -> None:
        """The map, the ranking and the state are of one model."""
        if weights.name != self._model:
            self._take_text(weights)
        self.grid = PartGrid(weights.layers, weights.heads, weights.positions)
        self.row = min(self.row, self.grid.rows - 1)
        self.column = min(self.column, len(self.grid.parts(self.row)) - 1)
        self.how = ZERO if self.how == PATCH else self.how  # the other prompt may have other tokens
        self.reference = self.own = self.state = self.number = self.token_effect = None
        self._begin()

    def _take_text(self, weights: Weights) -> None:
        """The lab's text, without what is off there: the questions switch the parts themselves."""
        self._model, request = weights.name, self.context.lab.current_request()
        self.request = dataclasses.replace(request, interventions=(), overrides=(), scores=False)

    def _begin(self) -> None:
        self._ask_own()
        self._ask_state(self.off)
        self._start()

    # ── questions ────────────────────────────────────────────────────────────────────────────────────────────────

    def _ask_own(self) -> None:
        self.context.questions.ask(self, ReferenceQuestion(self.request), partial(setattr, self, "own"), self._fail)

    def _ask_state(self, wanted: tuple[Intervention, ...]) -> None:
        self.context.questions.ask(self, AblateQuestion(self.request, wanted), self._state_known, self._fail)

    def _state_known(self, found: Ablation) -> None:
        self.problem = ""
        if found.interventions == self.off:
            self.state = found
        else:  # the effect of the attention to one token, or the state before a switch
            parts = [one.part for one in found.interventions]
            if len(parts) == 1 and parts[0].kind == KEY:
                self.token_effect = parts[0].layer, found.after
            if self.state is None or self.state.interventions != self.off:
                self._ask_state(self.off)
        self.refill()

    def _start(self) -> None:
        """Computes the effects, row by row."""
        self.found, self.effects, self.stopped = {}, None, False
        self.waiting = ranked_parts(self.grid.layers, self.grid.heads, self.grid.positions)
        self._go_on()

    def _go_on(self) -> None:
        if not self.waiting or self.stopped:
            self.refill()
            return
        reference = self.reference if self.how == PATCH else None
        ids, shift = (reference.ids, reference.shift) if reference is not None else ((), 0)
        question = EffectsQuestion(self.request, self.waiting[0], self.how, ids, shift)
        self.context.questions.ask(self, question, self._effects_known, self._fail)

    def _effects_known(self, found: Effects) -> None:
        self.waiting = self.waiting[1:]
        self.found |= {one.part: one for one in found.parts}
        self.effects = dataclasses.replace(found, parts=tuple(self.found.values()))
        if self.number is None and len(found.text) > 1:
            cursor = self.context.lab.position
            last = len(found.text) - 2  # the last token would only lose the attention to itself, which it keeps
            self.number = last if cursor is None else max(0, min(cursor - found.cropped, last))
        self._go_on()
        self.refill()

    def _fail(self, problem: str) -> None:
        self.problem, self.waiting = problem, []
        self.refill()

    # ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────

    def subject(self) -> str:
        name = self.context.model
        total = sum(map(len, ranked_parts(self.grid.layers, self.grid.heads, self.grid.positions)))
        busy = f"  {len(self.found)} of {total} parts{', stopped: r goes on' if self.stopped else ' …'}"
        switching = "  switching …" if self.context.wanted_parts() is not None else ""
        return name + switching + (busy if self.waiting else "")

    def content(self, width: int) -> tuple[list[Text], Sequence[Text]]:
        head: list[Text] = []
        if self.problem:
            head += wrapped(Text(visible(self.problem), style=self.style("bad")), width)
        head += self._target_lines(width) + self._switch_lines(width)
        found = self.effects
        effects = {part: change(one.values, found.before) for part, one in self.found.items()} if found else {}
        place = (self.row, self.column)
        room = max(2, min(self.grid.rows + 1, (self.size.height - 2 - len(head)) * 2 // 3))
        head += PartMap(self.grid, effects, self.off, place, self.style).lines(width, room)
        if found is None:
            return head, () if self.problem else [Text("computing …", style=self.style("muted"))]
        head.append(ranking_head(width, self.style("muted"), self.how))
        rows = found.ranked()
        off = {one.part: SIGNS[one.how] for one in self.off}

        def row(at: int) -> Text:
            line = ranking_row(rows[at], found, off, rows[at].part == self.part, width, self.style)
            if (place := self.grid.place(rows[at].part)) is not None:
                clickable(line, *place)
            return line

        return head, Lazy(len(rows), row)

    def _target_lines(self, width: int) -> list[Text]:
        state = self.state
        if state is None:
            return [Text("target …", style=self.style("muted"))]
        target = token_label("".join(token.text for token in state.target))
        line = Text("target ").append(target, self.style("accent")).append(f", {CHOSEN[state.chosen]}: ")
        before, after = state.before, state.after
        line.append(f"loss {before.loss:.4f}", self.style("strong"))
        if not self.off:
            line.append(
                f" nats, logit {fmt.number(before.logit, 3)}, p {numbers.percent(before.probability)}, rank {before.rank:,}"
            )
            return [*wrapped(line, width), Text("every part is on", style=self.style("good"))]
        line.append(
            f" → {after.loss:.4f} nats ({numbers.printed_change(before.loss, after.loss)})", self.style("strong")
        )
        line.append(
            f", logit {fmt.number(before.logit, 3)} → {fmt.number(after.logit, 3)}, p {numbers.percent(before.probability)} → "
        )
        line.append(f"{numbers.percent(after.probability)}, rank {before.rank:,} → {after.rank:,}")
        changed = Text(f"changed model: {named(self.off)}", self.style("bad"))
        return [*wrapped(line, width), *wrapped(changed, width)[:2]]

    def _switch_lines(self, width: int) -> list[Text]:
        muted = self.style("muted")
        what = {
            ZERO: "zero",
            MEAN: "its mean over the text",
            PATCH: f"its value after ‘{truncate(visible(self.prompt), 30)}’",
        }
        here = next((one for one in self.off if one.part == self.part), None)
        line = Text().append(self.part.name, self.style("accent"))
        line.append(f" is {'on' if here is None else here.name.removeprefix(self.part.name).strip()}", "not bold")
        line.append("; Enter switches it " + ("on" if here is not None else f"to {what[self.how]}"), muted)
        if (one := self.found.get(self.part)) is not None and self.effects is not None:
            line.append(
                f"; alone {REPLACED[self.how]}: {numbers.printed_change(self.effects.before.loss, one.values.loss)} nats",
                "not bold",
            )
        lines = wrapped(line, width)[:2]
        if self.number is not None and self.effects is not None:
            number = self.number + self.effects.cropped
            token = Text().append("attention to token ", muted)
            token.append(f"{number} {token_label(self.effects.text[self.number].text)}", self.style("accent"))
            cut = any(one.part == ModelPart(KEY, number) for one in self.off)
            token.append(f" is {'off' if cut else 'on'}; t switches it {'on' if cut else 'off'}", muted)
            if self.token_effect is not None and self.token_effect[0] == number:
                token.append(
                    f"; alone {numbers.printed_change(self.effects.before.loss, self.token_effect[1].loss)} nats"
                )
            lines += wrapped(token, width)[:1]
        return lines

    def table(self) -> Iterable[Row]:
        yield "part", "layer", "head", "loss_change", "loss", "logit", "probability", "rank", "replaced_by"
        found = self.effects
        for one in found.ranked() if found is not None else ():
            values, part = one.values, one.part
            assert found is not None
            cells = (change(values, found.before), values.loss, values.logit, values.probability)
            place = (str(number) if number >= 0 else "" for number in (part.layer, part.head))
            yield part.name, *place, *map(repr, cells), str(values.rank), self.how

    # ── actions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def move(self, down: int, right: int) -> None:
        """Moves the cursor in the map."""
        self.row = max(0, min(self.row + down, self.grid.rows - 1))
        self.column = max(0, min(self.column + right, len(self.grid.parts(self.row)) - 1))
        self._show_in_ranking()
        self.refill()

    def cell_clicked(self, row: int, column: int) -> None:
        self.row, self.column = row, column
        self.move(0, 0)

    def _show_in_ranking(self) -> None:
        rows = [one.part for one in self.effects.ranked()] if self.effects is not None else []
        if self.part in rows:
            at, listing = rows.index(self.part), self.listing
            room = max(1, listing.size.height - len(listing.fixed))
            top = listing.scroll_offset.y
            if not top <= at < top + room:
                listing.scroll_to(y=max(0, at - room // 2), animate=False)

    def action_ranked(self, by: int) -> None:
        rows = [one.part for one in self.effects.ranked()] if self.effects is not None else []
        if rows:
            at = rows.index(self.part) + by if self.part in rows else 0
            place = self.grid.place(rows[max(0, min(at, len(rows) - 1))])
            assert place is not None
            self.row, self.column = place
            self.move(0, 0)

    def action_switch(self) -> None:
        self._switch(self.part)

    def _switch(self, part: ModelPart) -> None:
        now = self.off if (wanted := self.context.wanted_parts()) is None else wanted
        wanted = tuple(one for one in now if one.part != part)
        if wanted == now:
            reference = self.reference if self.how == PATCH else self.own
            if reference is None:  # the text has not been read yet
                return
            wanted = (*now, intervention(part, self.how, reference))
        self._set(wanted)

    def _set(self, wanted: tuple[Intervention, ...]) -> None:
        self.context.switch(self, self.request, wanted, self._state_known, self._fail)

    def action_all_on(self) -> None:
        self._set(())

    def action_how(self) -> None:
        """Replaces by the next of zero, mean and the value after another prompt."""
        following = HOWS[(HOWS.index(self.how) + 1) % len(HOWS)]
        if following == PATCH and self.reference is None:
            # Until its values are known, the effects that are on their way are those of the present one.
            self.action_prompt(or_zero=True)
        else:
            self.how = following
            self._start()

    def action_prompt(self, or_zero: bool = False) -> None:
        """Asks for another prompt. or_zero: without one, parts are replaced by zero instead of as now."""
        from tui_llm.tui.kit.ask import AskScreen

        def answered(text: str | None) -> None:
            if text:
                self.prompt = text
                question = ReferenceQuestion(self.request, text)
                self.context.questions.ask(self, question, self._other_prompt, partial(self._other_prompt, None))
            elif or_zero and self.how == MEAN:
                self.how = ZERO
                self._start()

        self.app.push_screen(AskScreen("Another prompt", "its values replace the text's", self.prompt), answered)

    def _other_prompt(self, reference: Reference | None, problem: str = "") -> None:
        self.how, self.problem = PATCH if reference else ZERO, problem
        self.reference = reference or self.reference
        if self.own is None:  # the question about the other prompt has replaced that about the text itself
            self._ask_own()
        self._start()

    def action_token(self, by: int) -> None:
        """Chooses another token, and asks for the effect of cutting the attention to it."""
        if self.number is None or self.effects is None:
            return
        self.number = max(0, min(self.number + by, len(self.effects.text) - 2))
        self._ask_state((Intervention(ModelPart(KEY, self.number + self.effects.cropped)),))
        self.refill()

    def action_attention(self) -> None:
        if self.number is None or self.effects is None:
            self.notify("there is no earlier token to attend to: type more text", timeout=3)
        else:
            self._switch(ModelPart(KEY, self.number + self.effects.cropped))

    def action_rank(self) -> None:
        """Stops computing the effects, or goes on."""
        if self.waiting:
            self.stopped = not self.stopped
            if self.stopped:
                self.context.questions.forget(EffectsQuestion)
            self._go_on()
        else:
            self._start()
