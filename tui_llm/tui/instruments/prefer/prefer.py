"""The Prefer screen: two answers, a choice by key, and what it changed in a copy of the weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.content import Content

from tui_llm.common import paths
from tui_llm.common.display import visible
from tui_llm.common.errors import UserError
from tui_llm.common.numbers import counted, memory_size
from tui_llm.facts.preference import DPO, RECIPE, PreferenceRecipe, RankedPair
from tui_llm.instruments.prefer.question import (
    AnswersQuestion,
    PreferQuestion,
    Preferred,
    SavePreferredQuestion,
    TwoAnswers,
)
from tui_llm.tui.instruments.copy_saver import CopySaver
from tui_llm.tui.instruments.prefer.keys import KEYS, OPEN
from tui_llm.tui.instruments.prefer.lines import PreferLines, both, column
from tui_llm.tui.kit.ask import AskScreen, ask_setting, typed_number
from tui_llm.tui.kit.command import bindings
from tui_llm.tui.kit.full import FullScreen, Listing
from tui_llm.tui.kit.over import Row
from tui_llm.tui.kit.progress import Progress
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.kit.widgets.bars import Bar, KeyBar
from tui_llm.tui.state.context import LabContext
from tui_llm.tui.state.openers import opens

__all__ = ["KEYS", "OPEN", "PreferScreen"]

SAME = (
    "! the two answers are the same, so there is nothing to choose: r redraws one, t sets another temperature, a and b type "
    "answers, p another prompt"
)
NAMES = {"beta": "β", "learning_rate": "learning rate", "steps": "steps per choice", "sft_weight": "SFT weight"}


@opens("prefer", LabContext.has_reading, LabContext.has_text, LabContext.is_unchanged)
class PreferScreen(FullScreen):
    """Holds the pairs that were ranked; the instrument brings the copy to the weights after them."""

    shows_text = False  # it says itself what is left out
    tour_name = "prefer"
    TITLE_WORDS: ClassVar[str] = "Prefer"
    own_keys = KEYS
    BINDINGS = bindings(KEYS)

    def __init__(self, context: LabContext) -> None:
        super().__init__()
        self.context = context
        self.request = dataclasses.replace(context.lab.current_request(), position=None, overrides=())
        self.recipe = PreferenceRecipe()
        self.preferred: Preferred | None = None
        self.two: TwoAnswers | None = None
        self.chosen: int | None = None  # which answer was chosen: its result is shown
        self.seeds: tuple[int, int] = (1, 2)
        self.texts: tuple[str | None, str | None] = (None, None)
        self.numbers = False
        self.file = ""
        self.progress = Progress(self, self.refill)
        self._then: Callable[[], object] | None = None  # to be done when nothing is waited for
        self.saver = CopySaver(self, context, self.progress)

    def compose(self) -> ComposeResult:
        yield Bar(id="full-top")
        yield Listing()
        yield Bar(id="prefer-recipe")
        yield KeyBar(id="full-keys")

    def on_mount(self) -> None:
        super().on_mount()
        self._ask("opening the copy", PreferQuestion(self.request), self._begin)

    def on_unmount(self) -> None:
        self.context.questions.forget(AnswersQuestion)

    @property
    def ranked(self) -> tuple[RankedPair, ...]:
        return self.preferred.ranked if self.preferred is not None else ()

    # ── questions ────────────────────────────────────────────────────────────────────────────────────────────────

    def _ask(self, doing: str, question: Any, take: Callable[[Any], None]) -> None:
        def taken(answer: Any) -> None:
            self.progress.end()
            take(answer)
            self._go_on()

        def failed(problem: str) -> None:
            self.progress.end(problem)
            self._go_on()

        self.progress.start(doing)
        self.context.questions.ask(self, question, taken, failed)

    def _go_on(self) -> None:
        if self._then is not None and not self.progress.doing:
            then, self._then = self._then, None
            then()

    def _when_done(self, then: Callable[[], object]) -> None:
        """Does it now, or after what is waited for: two answers to another prompt are drawn once a choice is learned."""
        self._then = then
        self._go_on()

    def _begin(self, preferred: Preferred) -> None:
        self.preferred = preferred
        self.file = preferred.file or self._new_file(preferred)
        count = len(preferred.ranked)
        self.seeds = (2 * count + 1, 2 * count + 2)
        if preferred.ranked:
            self.recipe = preferred.ranked[-1].recipe
        self._draw()

    def _new_file(self, preferred: Preferred) -> str:
        name = "".join(c if c.isalnum() or c in "._-" else "-" for c in preferred.weights.name)[:64]
        try:
            folder = paths.data_dir() / "pairs"
        except UserError as error:
            self.progress.problem = str(error)
            return ""
        return str(folder / f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}.jsonl")

    def _draw(self) -> None:
        self.two, self.chosen = None, None
        question = AnswersQuestion(self.request, self.ranked, self.seeds, self.texts)
        self._ask("drawing two answers", question, self._drawn)

    def _drawn(self, two: TwoAnswers) -> None:
        self.two = two
        self.refill()

    def _prefer(self, doing: str, ranked: tuple[RankedPair, ...], take: Callable[[Preferred], None]) -> None:
        def taken(preferred: Preferred) -> None:
            self.preferred = preferred
            self.progress.problem = f"the pairs are not saved: {preferred.unsaved}" if preferred.unsaved else ""
            take(preferred)

        self._ask(doing, PreferQuestion(self.request, ranked, self.file), taken)

    # ── actions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def action_choose(self, side: int) -> None:
        two = self.two
        if two is None or self.chosen is not None or self.progress.doing:
            return
        answers = (two.left.ids, two.right.ids)
        if answers[0] == answers[1]:
            return  # the list says it

        def taken(preferred: Preferred) -> None:
            self.chosen = side
            self.refill()

        pair = RankedPair(two.prompt, answers[side], answers[1 - side], self.recipe)
        self._prefer("learning the choice", (*self.ranked, pair), taken)

    def action_next(self) -> None:
        if self.chosen is not None:
            self._advance()

    def action_neither(self) -> None:
        if not self.progress.doing:
            self._advance()

    def _advance(self) -> None:
        first = max(self.seeds) + 1
        self.seeds, self.texts = (first, first + 1), (None, None)
        self._draw()

    def action_redraw(self, side: int) -> None:
        if self.chosen is None and not self.progress.doing:
            self._replace(side, None, max(self.seeds) + 1)

    def _replace(self, side: int, text: str | None, seed: int) -> None:
        seeds, texts = list(self.seeds), list(self.texts)
        seeds[side], texts[side] = seed, text
        self.seeds, self.texts = (seeds[0], seeds[1]), (texts[0], texts[1])
        self._draw()

    def action_undo(self) -> None:
        if self.progress.doing:
            return
        if not self.ranked:
            self.context.notify("there is no choice to undo")
            return
        self._prefer("undoing", self.ranked[:-1], lambda _: self._draw())

    def action_type_answer(self, side: int) -> None:
        if self.chosen is not None or self.progress.doing:
            return

        def answered(text: str | None) -> None:
            if text:
                self._replace(side, text, self.seeds[side])

        title = f"Answer {'AB'[side]}: it follows the prompt; mind its leading space"
        before = self.texts[side] or ""
        self.app.push_screen(AskScreen(title, "Enter takes it · Esc cancels", before, spaces=True), answered)

    def action_prompt(self) -> None:
        def answered(text: str | None) -> None:
            if text:
                self._when_done(lambda: ask(text))

        def ask(text: str) -> None:
            self.request = dataclasses.replace(self.request, prompt=text, continuation=())
            self._advance()

        hint = "Enter draws two answers to it · Esc cancels"
        self.app.push_screen(AskScreen("The prompt", hint, self.request.prompt, spaces=True), answered)

    def action_temperature(self) -> None:
        now = self.request.sampler.temperature

        def take(text: str) -> None:
            sampler = dataclasses.replace(self.request.sampler, temperature=typed_number(text, now))

            def draw() -> None:
                self.request = dataclasses.replace(self.request, sampler=sampler)
                if self.chosen is None:
                    self._draw()

            self._when_done(draw)

        asking = AskScreen("The answers' temperature", "Enter draws both answers with it · Esc cancels", f"{now:g}")
        ask_setting(self, asking, take, self.context.warn)

    def action_setting(self, name: str) -> None:
        dpo = name in DPO
        setting = (DPO if dpo else RECIPE)[name]
        value = getattr(self.recipe.dpo if dpo else self.recipe, name)

        def take(text: str) -> None:
            fields: dict[str, Any] = {name: typed_number(text, value)}
            self._set(**({"dpo": dataclasses.replace(self.recipe.dpo, **fields)} if dpo else fields))

        asking = AskScreen(f"{NAMES[name]}: {setting.help}", "for the next choices · Enter sets it", f"{value:g}")
        ask_setting(self, asking, take, self.context.warn)

    def _set(self, **fields: Any) -> None:
        self.recipe = dataclasses.replace(self.recipe, **fields)
        self.refill()

    def action_length(self) -> None:
        dpo = self.recipe.dpo
        self._set(dpo=dataclasses.replace(dpo, length_normalized=not dpo.length_normalized))

    def action_numbers(self) -> None:
        self.numbers = not self.numbers
        self.refill()

    def action_keep(self) -> None:
        if not self.ranked:
            self.context.notify("there is nothing to save yet: choose an answer first (← or →)")
            return

        def question(name: str) -> SavePreferredQuestion:
            return SavePreferredQuestion(self.request, self.ranked, name)

        self.saver.save(question, lambda kept: counted(kept.pairs, "pair"))

    def action_open_saved(self) -> None:
        self.saver.open()

    # ── what is shown ────────────────────────────────────────────────────────────────────────────────────────────

    def subject(self) -> str:
        if self.progress.is_long:
            return f"{self.progress.doing} … {self.progress.seconds:.0f} s"
        if self.preferred is None:
            return ""
        name, count = self.preferred.weights.name, len(self.ranked)
        if not count:
            return f"a copy of {name}, nothing learned yet; the open model does not change"
        return f"a copy of {name} after {counted(count, 'choice')}"

    def refill(self) -> None:
        super().refill()
        if self.is_mounted:
            self._show_recipe()

    def _show_recipe(self) -> None:
        recipe = self.recipe
        parts: list[str | tuple[str, str]] = [
            ("DPO", "bold"),
            f"  β {recipe.dpo.beta:g} · learning rate {recipe.learning_rate:g} · {counted(recipe.steps, 'step')} a choice",
            f" · {'per token' if recipe.dpo.length_normalized else 'sums'} · SFT {recipe.dpo.sft_weight:g}",
        ]
        if self.preferred is not None and self.preferred.stored:
            parts.append((f"  undo {memory_size(self.preferred.stored_bytes)}", "$text-muted"))
        self.query_one("#prefer-recipe", Bar).put(Content.assemble(*parts))

    def content(self, width: int) -> tuple[list[Text], Sequence[Text]]:
        lines, two = PreferLines(self.style), self.two
        problem = self.progress.problem
        shown = wrapped(Text(f"! {visible(problem)}", style=self.style("bad")), width) if problem else []
        if two is None:
            return shown, [Text("" if problem else f"{self.progress.doing} …", self.style("muted"))]
        prompt = wrapped(Text("prompt  ", self.style("muted")).append(visible(two.text), self.style("strong")), width)
        room = max(1, self.listing.size.height // 4)
        head = [*shown, *prompt[-room:], Text()]
        if self.chosen is not None and self.preferred is not None and self.preferred.changes:
            return head, self._result(lines, self.preferred, width)
        half = column(width)
        answers = both(
            lines.drawn("A", "←", two.left, half, self.numbers),
            lines.drawn("B", "→", two.right, half, self.numbers),
            width,
        )
        body = [*answers, Text(), *lines.legend(width, changes=False)]
        if two.left.ids == two.right.ids:
            body += wrapped(Text(SAME, self.style("bad")), width)
        else:
            body += wrapped(Text("← A is better · → B is better · = neither", self.style("accent")), width)
        return head, body + (lines.curves(self.preferred, width) if self.preferred is not None else [])

    def _result(self, lines: PreferLines, preferred: Preferred, width: int) -> list[Text]:
        change, half = preferred.changes[-1], column(width)
        names = ("A, chosen", "B, rejected") if self.chosen == 0 else ("B, chosen", "A, rejected")
        chosen = lines.changed(names[0], preferred.chosen, change.chosen_tokens, half, self.numbers)
        rejected = lines.changed(names[1], preferred.rejected, change.rejected_tokens, half, self.numbers)
        sides = (chosen, rejected) if self.chosen == 0 else (rejected, chosen)
        body = [*both(*sides, width), *lines.legend(width, changes=True), Text(), *lines.change(change, width)]
        body += lines.notes(change, preferred.ranked[-1].recipe.dpo, width)
        body += lines.curves(preferred, width)
        if self.file and not preferred.unsaved:
            body += [Text(), *wrapped(Text(f"pairs: {visible(self.file)}", self.style("muted")), width)]
        return [*body, *wrapped(Text("Enter: the next pair · u: undo · k: keep the copy", self.style("accent")), width)]

    def table(self) -> Iterable[Row]:
        if self.two is not None and self.chosen is None:
            yield "answer", "id", "token", "ln p"
            for name, answer in (("A", self.two.left), ("B", self.two.right)):
                for token, log in zip(answer.tokens, answer.logs, strict=True):
                    yield name, str(token.id), visible(token.text), repr(log)
        if self.preferred is None or not self.ranked:
            return
        fields = ("chosen_logp", "rejected_logp", "chosen_reward", "rejected_reward", "margin", "loss")
        yield "pair", *(f"{name} {when}" for when in ("before", "after") for name in fields), "agreed", "KL"
        for number, change in enumerate(self.preferred.changes, 1):
            states = (repr(getattr(state, name)) for state in (change.before, change.after) for name in fields)
            yield str(number), *states, "" if change.agreed is None else str(change.agreed).lower(), repr(change.kl)
        yield "answer", "id", "token", "ln p before", "ln p after"
        last = self.preferred.changes[-1]
        sides = (("chosen", self.preferred.chosen, last.chosen_tokens), ("rejected", self.preferred.rejected, last.rejected_tokens))  # fmt: skip
        for name, tokens, logs in sides:
            for token, (before, after) in zip(tokens, logs, strict=True):
                yield name, str(token.id), visible(token.text), repr(before), repr(after)
