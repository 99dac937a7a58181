"""The Reward screen: drawn answers with their rewards, and what each step changed in a copy of the weights."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.content import Content
from textual.events import Key

from tui_llm.common.display import visible
from tui_llm.common.numbers import counted, memory_size
from tui_llm.facts.policy import ADVANTAGES, AVERAGES, PolicyRecipe
from tui_llm.instruments.reward.question import (
    MOST_STEPS,
    PRESETS,
    RewardQuestion,
    RewardRun,
    SaveRewardedQuestion,
)
from tui_llm.llm.learn.reward import KINDS, SYNTAX, parse
from tui_llm.tui.instruments.copy_saver import CopySaver
from tui_llm.tui.instruments.reward.keys import KEYS, OPEN
from tui_llm.tui.instruments.reward.lines import RewardLines, recipe_line, rows
from tui_llm.tui.instruments.reward.settings import ASKED, changed, value_of
from tui_llm.tui.kit.ask import AskScreen, ask_setting
from tui_llm.tui.kit.command import bindings
from tui_llm.tui.kit.full import FullScreen, Listing
from tui_llm.tui.kit.over import Row
from tui_llm.tui.kit.progress import Progress
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.kit.widgets.bars import Bar, KeyBar
from tui_llm.tui.state.context import LabContext
from tui_llm.tui.state.lab import LARGEST_SEED
from tui_llm.tui.state.openers import opens

__all__ = ["KEYS", "OPEN", "RewardScreen"]

HAND = KINDS["hand"].name


@opens("reward", LabContext.has_reading, LabContext.has_text, LabContext.is_unchanged)
class RewardScreen(FullScreen):
    """Holds the rule and the recipe for the next step; the instrument brings the copy to the weights after each."""

    shows_text = False  # a prompt that does not fit is refused
    tour_name = "reward"
    TITLE_WORDS: ClassVar[str] = "Reward"
    own_keys = KEYS
    BINDINGS = bindings(KEYS)

    def __init__(self, context: LabContext) -> None:
        super().__init__()
        self.context = context
        self.request = dataclasses.replace(context.lab.current_request(), position=None, overrides=())
        self.spec, self.recipe, self.seed = PRESETS[0].spec, PolicyRecipe(), 1
        self.preset: int | None = None
        self.run: RewardRun | None = None
        self.goal = 0  # how many steps the copy is to have taken
        self.scores: list[float | None] = []  # by hand, of the group that is shown
        self.marked = 0
        self.numbers = False
        self._starts: list[int] = []  # the first line of each answer
        self.progress = Progress(self, self.refill)
        self.saver = CopySaver(self, context, self.progress)

    def compose(self) -> ComposeResult:
        yield Bar(id="full-top")
        yield Listing()
        yield Bar(id="reward-recipe")
        yield KeyBar(id="full-keys")

    def on_mount(self) -> None:
        super().on_mount()
        self._ask("drawing answers", None, ahead=False)

    def on_unmount(self) -> None:
        self.context.questions.forget(RewardQuestion)

    @property
    def at(self) -> int:
        """How many steps the copy has taken."""
        return len(self.run.steps) if self.run is not None else 0

    @property
    def by_hand(self) -> bool:
        return self.spec == HAND

    # ── questions ────────────────────────────────────────────────────────────────────────────────────────────────

    def _ask(self, doing: str, at: int | None, *, ahead: bool, scores: tuple[float, ...] | None = None) -> None:
        question = RewardQuestion(self.request, at, self.spec, self.recipe, self.seed, scores, ahead, keep=self.at)
        self.context.questions.ask(self, question, self._take, self._fail)
        self.progress.start(doing)

    def _take(self, run: RewardRun) -> None:
        first = self.run is None
        if first and run.steps:  # taken before this screen was opened
            self.spec, self.recipe, self.seed = run.steps[-1].spec, run.steps[-1].recipe, run.question.seed
        self.run = run
        self.scores = [None] * len(run.group.answers)
        self.marked = min(self.marked, len(self.scores) - 1)
        if self.goal > self.at and not first:
            self._ask(self.progress.doing, self.at + 1, ahead=False)
            return
        self.goal = self.at
        self.progress.end()

    def _fail(self, problem: str) -> None:
        self.goal = self.at
        self.progress.end(problem)

    # ── steps ────────────────────────────────────────────────────────────────────────────────────────────────────

    def action_step(self, count: int) -> None:
        if self.progress.doing or self.run is None:
            return
        if self.at + count > MOST_STEPS:
            self.context.notify(f"at most {MOST_STEPS} steps here; tui-llm train --reward trains further")
            return
        if self.by_hand:
            self._step_by_hand()
            return
        self.goal = self.at + count
        self._ask("taking a step" if count == 1 else f"taking {count} steps", self.at + 1, ahead=False)

    def _step_by_hand(self) -> None:
        assert self.run is not None
        if not (self.run.ahead and self.run.group.step.spec == HAND):
            self._ask("drawing answers", self.at, ahead=True)
            return
        given = [score for score in self.scores if score is not None]
        if len(given) < len(self.scores):
            left = counted(len(self.scores) - len(given), "answer")
            self.context.notify(f"{left} without a score: 0 to 9 scores the marked one (▸)")
            return
        self.goal = self.at + 1
        self._ask("taking a step", self.at + 1, ahead=False, scores=tuple(given))

    def action_draw(self) -> None:
        if not self.progress.doing and self.run is not None:
            self._ask("drawing answers", self.at, ahead=True)

    def action_undo(self) -> None:
        if self.progress.doing:
            return
        if not self.at:
            self.context.notify("there is no step to undo")
            return
        self.goal = self.at - 1
        self._ask("undoing", self.goal, ahead=False)

    def action_reset(self) -> None:
        if self.at and not self.progress.doing:
            self.goal = 0
            self._ask("undoing", 0, ahead=True)

    def action_leave(self) -> None:
        if self.goal > self.at + 1:
            self.goal = self.at + 1  # the step that is being taken is the last one
            self.context.notify("stops after this step")
        else:
            self.action_close()

    # ── scores by hand ───────────────────────────────────────────────────────────────────────────────────────────

    def on_key(self, event: Key) -> None:
        if event.key.isdigit() and len(event.key) == 1:
            event.stop()
            event.prevent_default()
            self._score(int(event.key))

    def action_score(self) -> None:
        """The keys 0 to 9 arrive in `on_key`, which knows the digit."""

    def _score(self, digit: int) -> None:
        run = self.run
        if self.progress.doing or run is None:
            return
        if not self.by_hand:
            self.spec, self.preset = HAND, None
            if not run.ahead:
                self.context.notify("rule: by hand. Space draws answers, 0 to 9 scores each, Space learns")
                self.refill()
                return
            # The group in sight is scored anew, by hand.
            answers = tuple(dataclasses.replace(one, reward=None, advantage=None) for one in run.group.answers)
            step = dataclasses.replace(run.group.step, spec=HAND, mean=None, deviation=None)
            self.run = dataclasses.replace(run, group=dataclasses.replace(run.group, step=step, answers=answers))
        if run.ahead:
            self.scores[self.marked] = float(digit)
            self.marked = min(self.marked + 1, len(self.scores) - 1)
        else:
            self.context.notify("these answers are learned already: Space draws the next ones")
        self.refill()
        self._show_marked()

    def action_mark(self, direction: int) -> None:
        self.marked = max(0, min(self.marked + direction, len(self.scores) - 1))
        self.refill()
        self._show_marked()

    def _show_marked(self) -> None:
        if self.marked < len(self._starts):
            self.listing.scroll_to(y=max(0, self._starts[self.marked] - 1), animate=False)

    # ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────

    def action_rule(self) -> None:
        asking = AskScreen("The rule that gives an answer's reward", f"one of {SYNTAX}", self.spec)
        ask_setting(self, asking, lambda text: self._change_rule(parse(text).spec), self.context.warn)

    def _change_rule(self, spec: str) -> None:
        self.spec, self.preset = spec, None
        if self.run is not None and self.run.ahead and not self.progress.doing:
            self._ask("scoring", self.at, ahead=True)
        self.refill()

    def action_preset(self) -> None:
        if self.progress.doing:
            return
        self.preset = 0 if self.preset is None else (self.preset + 1) % len(PRESETS)
        preset = PRESETS[self.preset]
        self.spec, self.recipe, self.seed, self.goal = preset.spec, preset.recipe, 1, 0
        self.request = dataclasses.replace(
            self.request, prompt=preset.prompt, continuation=(), start_token=False, chat=False
        )
        self._ask("drawing answers", 0, ahead=True)

    def action_setting(self, name: str) -> None:
        def take(text: str) -> None:
            self._change_recipe(changed(self.recipe, name, text))

        now = f"{value_of(self.recipe, name):g}"
        asking = AskScreen(ASKED[name], "for the next steps · Enter sets it", now)
        ask_setting(self, asking, take, self.context.warn)

    def _change_recipe(self, recipe: PolicyRecipe) -> None:
        self.recipe, self.preset = recipe, None
        if self.run is not None and self.run.ahead and not self.progress.doing:
            self._ask("drawing answers", self.at, ahead=True)
        self.refill()

    def action_advantage(self) -> None:
        self._cycle("advantage", tuple(ADVANTAGES))

    def action_average(self) -> None:
        self._cycle("average", tuple(AVERAGES))

    def _cycle(self, name: str, known: Sequence[str]) -> None:
        now = getattr(self.recipe.policy, name)
        chosen = known[(known.index(now) + 1) % len(known)]
        self._change_recipe(changed(self.recipe, name, chosen))

    def action_seed(self) -> None:
        self.seed = random.randint(1, LARGEST_SEED)
        self._change_recipe(self.recipe)

    def action_prompt(self) -> None:
        def answered(text: str | None) -> None:
            if text:
                self.request = dataclasses.replace(self.request, prompt=text, continuation=())
                self.goal, self.preset = 0, None
                self._ask("drawing answers", 0, ahead=True)

        hint = "Enter draws answers to it, from a new copy · Esc cancels"
        self.app.push_screen(AskScreen("The prompt", hint, self.request.prompt, spaces=True), answered)

    def action_numbers(self) -> None:
        self.numbers = not self.numbers
        self.refill()

    # ── saving ───────────────────────────────────────────────────────────────────────────────────────────────────

    def action_keep(self) -> None:
        if self.run is None or not any(step.learned for step in self.run.steps):
            self.context.notify("there is nothing to save yet: take a step first (Space)")
            return

        def question(name: str) -> SaveRewardedQuestion:
            return SaveRewardedQuestion(self.request, name)

        self.saver.save(question, lambda kept: counted(kept.steps, "step"))

    def action_open_saved(self) -> None:
        self.saver.open()

    # ── what is shown ────────────────────────────────────────────────────────────────────────────────────────────

    def subject(self) -> str:
        doing, several = self.progress.doing, self.goal > self.at + 1
        if self.progress.is_long or (doing and several):
            done = f", {self.at} of {self.goal}" if several else ""
            return f"{doing}{done} … {self.progress.seconds:.0f} s{'  Esc stops' if several else ''}"
        if self.run is None:
            return ""
        name = self.run.weights.name
        if not self.at:
            return f"a copy of {name}, nothing learned yet; the open model does not change"
        return f"a copy of {name} after {counted(self.at, 'step')}"

    def refill(self) -> None:
        super().refill()
        if self.is_mounted:
            parts: list[str | tuple[str, str]] = [("GRPO", "bold"), "  ", recipe_line(self.recipe, self.seed)]
            if self.run is not None and self.run.stored:
                parts.append((f"  undo {memory_size(self.run.stored_bytes)}", "$text-muted"))
            self.query_one("#reward-recipe", Bar).put(Content.assemble(*parts))

    def content(self, width: int) -> tuple[list[Text], Sequence[Text]]:
        lines, run, muted = RewardLines(self.style), self.run, self.style("muted")
        problem = self.progress.problem
        shown = wrapped(Text(f"! {visible(problem)}", style=self.style("bad")), width) if problem else []
        if run is None:
            return shown, [Text("" if problem else f"{self.progress.doing} …", muted)]
        prompt = Text("prompt  ", muted).append(visible(run.prompt), self.style("strong"))
        room = max(1, self.listing.size.height // 12)  # lines of each: the answers matter more
        kind = KINDS.get(self.spec.partition(":")[0])
        rule = Text("rule  ", muted).append(visible(self.spec), self.style("accent"))
        rule.append(f"  {kind.help if kind else ''}", muted)
        head = [*shown, *wrapped(prompt, width)[-room:], *wrapped(rule, width)[:room]]
        if self.preset is not None:
            head += wrapped(
                Text(f"preset {PRESETS[self.preset].name}, with nano  {PRESETS[self.preset].shows}", muted), width
            )[:room]
        body = lines.curves(run.steps, width, 2 if self.listing.size.height < 24 else 4)
        body += lines.about(run.group.step, run.ahead, width)
        answers, starts = lines.group(run.group, self.scores, width, self.marked, self.numbers)
        self._starts = [len(body) + start for start in starts]
        hint = "Space: a step · x: ten · u: undo · s: rule · v: presets · 0–9: by hand · k: keep the copy"
        body += [*answers, *wrapped(Text(hint, self.style("accent")), width)]
        return head, [*body, *lines.biases(self.recipe.policy, width)]

    def table(self) -> Iterable[Row]:
        return rows(self.run) if self.run is not None else ()
