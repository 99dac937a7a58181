"""Learn this: optimizer steps on one prompt and target, on a copy of the weights, and their effects."""

from __future__ import annotations

from collections.abc import Iterable

from textual.app import ComposeResult
from textual.content import Content

from tui_llm.common.display import visible
from tui_llm.common.numbers import counted, memory_size
from tui_llm.facts.pin import Pin
from tui_llm.facts.reading import Reading
from tui_llm.facts.recipe import OPTIMIZERS, USUAL, Recipe, check
from tui_llm.instruments.learn.question import MOST_STEPS, KeepQuestion, Learned, LearnQuestion
from tui_llm.tui.instruments.copy_saver import ELSEWHERE, WRITING, CopySaver
from tui_llm.tui.instruments.learn.lines import LearnedLines
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.ask import AskScreen, ask_setting, typed_number
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.over import OverLab, Row
from tui_llm.tui.kit.progress import Progress
from tui_llm.tui.kit.widgets.bars import Bar, KeyBar
from tui_llm.tui.state.context import LabContext
from tui_llm.tui.state.lab import step

SIZES = tuple(float(f"{digit}e{power}") for power in range(-6, 1) for digit in (1, 2, 5))
MANY = (1, 5, 20)
CANCELLING = "going back to what is shown"


_key = CommandFactory("learn", "Learn this")
KEYS = (
    _key("learn_step", "space,enter", "step", "Take the next steps on the copy; n sets how many", "step"),
    _key("learn_undo", "u,backspace", "undo", "Undo the last step: restores exactly the weights before it", "undo"),
    _key("learn_reset", "r", "undo all", "Go back to the open model's weights", "reset"),
    _key("learn_optimizer", "o", "optimizer", "Switch the optimizer of the next steps: SGD or AdamW", "optimizer"),
    _key("learn_smaller", "left_square_bracket", "smaller steps", "Decrease the step size", "size(-1)", together="step size"),
    _key("learn_larger", "right_square_bracket", "larger steps", "Increase the step size", "size(1)", together="step size"),
    _key("learn_size", "e", "type it", "Type the step size", "type_size"),
    _key("learn_many", "n", "at once", "Take 1, 5 or 20 steps at once", "many"),
    _key("learn_keep", "k", "keep", "Save the copy as a new model folder; asks for its name", "keep"),
    _key("copy_learn", "y", "copy", "Copy everything shown (tab-separated)", "copy"),
    _key("close_learn", "escape,q,L", "back", "Cancel what is being computed; otherwise back to the five panes, which drops the copy (k saves it)", "close", importance=WAY_OUT),
)  # fmt: skip


class LearnScreen(OverLab):
    """Asks the instrument through the lab; holds how many steps the copy is to have taken, and the recipe for the next
    ones."""

    tour_name = "learn"
    own_keys = KEYS
    BINDINGS = bindings(KEYS)
    DEFAULT_CSS = """
    LearnScreen LearnedLines { height: 1fr; padding: 0 1; }
    """

    def __init__(self, context: LabContext, reading: Reading, pins: tuple[Pin, ...]) -> None:
        super().__init__()
        self.context, self._moment, self._pins = context, reading, pins
        self.recipe = Recipe()
        self.many = 1
        self.at = 0  # how many steps the copy is to have taken
        self.learned: Learned | None = None
        self.progress = Progress(self, self._show_top)
        self.saver = CopySaver(self, context, self.progress, ELSEWHERE)

    def compose(self) -> ComposeResult:
        yield Bar(id="learn-top")
        yield LearnedLines()
        yield Bar(id="learn-recipe")
        yield KeyBar(id="learn-keys")

    def on_mount(self) -> None:
        self.show_keys()
        self.query_one(LearnedLines).focus()
        self._ask("reading the prompt and the pinned prompts")

    def on_unmount(self) -> None:
        self.context.questions.forget(LearnQuestion)

    # ── questions ────────────────────────────────────────────────────────────────────────────────────────────────

    def _ask(self, doing: str) -> None:
        question = LearnQuestion(self._moment.request, self.at, self.recipe, self._pins)
        self.progress.start(doing)
        self.context.questions.ask(self, question, self._take, self._fail)

    def _take(self, learned: Learned) -> None:
        self.learned = learned
        self.query_one(LearnedLines).show(learned)
        self.progress.end()

    def _fail(self, problem: str) -> None:
        """Sets the number of steps back to those that were shown last: after a failure the copy is there, or nearer to
        the open model."""
        self.at = min(self.at, len(self.learned.steps) if self.learned is not None else 0)
        self.progress.end(problem)

    @property
    def _can_cancel(self) -> bool:
        """Whether Esc cancels what is waited for, and does not close the screen, which would drop the copy."""
        return self.learned is not None and self.progress.doing not in ("", WRITING, CANCELLING)

    def action_close(self) -> None:
        if self._can_cancel and self.learned is not None:
            self.at = len(self.learned.steps)
            self._ask(CANCELLING)  # in place of the question that is being answered
        else:
            super().action_close()

    # ── what is shown ────────────────────────────────────────────────────────────────────────────────────────────

    def _show_top(self) -> None:
        weights, done = (self.learned or self._moment).weights, len(self.learned.steps) if self.learned else 0
        at = "" if weights.step is None else f" at step {fmt.count(weights.step)}"
        parts: list[str | tuple[str, str]] = [("Learn this  ", "bold"), f"a copy of {visible(weights.name)}{at}"]
        progress = self.progress
        if progress.problem:
            parts += [("  ! ", "bold $text-error"), (visible(progress.problem), "$text-error")]
        elif progress.is_long:
            parts.append(f"  {progress.doing} … {progress.seconds:.0f} s")
            parts += [("  Esc cancels", "$text-muted")] if self._can_cancel else []
        else:
            parts.append(f" after {done} step{'' if done == 1 else 's'}" if done else ", nothing learned yet")
            note = "  the open model does not change"
            if Content.assemble(*parts).cell_length + len(note) < self.size.width:
                parts.append((note, "$text-muted"))
        self.query_one("#learn-top", Bar).put(Content.assemble(*parts))
        self._show_recipe()

    def _show_recipe(self) -> None:
        recipe, learned = self.recipe, self.learned
        many = "1 step" if self.many == 1 else f"{self.many} steps"
        parts: list[str | tuple[str, str]] = [
            f"next: {many} of ",
            (f"{OPTIMIZERS[recipe.optimizer]}, step size {recipe.learning_rate:g}", "bold $text-accent"),
        ]
        if learned is not None:
            kept = f", undo {memory_size(learned.kept_bytes)}" if learned.kept else ""
            parts.append((f"  memory: copy {memory_size(learned.copy_bytes)}{kept}", "$text-muted"))
        self.query_one("#learn-recipe", Bar).put(Content.assemble(*parts))

    # ── actions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def action_step(self) -> None:
        if self.at >= MOST_STEPS:
            self.context.notify(f"at most {MOST_STEPS} steps here; tui-llm train --from trains further")
            return
        self.at = min(MOST_STEPS, self.at + self.many)
        self._ask("taking the step" if self.many == 1 else f"taking {self.many} steps")

    def action_undo(self) -> None:
        if self.at > 0:
            self.at -= 1
            self._ask("undoing")
        else:
            self.context.notify("there is no step to undo")

    def action_reset(self) -> None:
        self.at = 0
        self._ask("undoing")

    def action_optimizer(self) -> None:
        names = tuple(OPTIMIZERS)
        name = names[(names.index(self.recipe.optimizer) + 1) % len(names)]
        self.recipe = Recipe(name, USUAL[name])
        self._ask("measuring the copy's memory")  # it depends on the optimizer

    def action_size(self, direction: int) -> None:
        self._resize(step(SIZES, self.recipe.learning_rate * (1 + 1e-7 * direction), direction))

    def _resize(self, size: float) -> None:
        self.recipe = Recipe(self.recipe.optimizer, size)
        self._show_recipe()

    def action_type_size(self) -> None:
        def take(text: str) -> None:
            self._resize(check(Recipe(self.recipe.optimizer, typed_number(text, 0.001))).learning_rate)

        title, hint = "Step size (learning rate)", "Enter sets it · Esc cancels"
        ask_setting(self, AskScreen(title, hint, f"{self.recipe.learning_rate:g}"), take, self.context.warn)

    def action_many(self) -> None:
        self.many = MANY[(MANY.index(self.many) + 1) % len(MANY)]
        self._show_recipe()

    def action_keep(self) -> None:
        if self.learned is None or not self.learned.steps:
            self.context.notify("there is nothing to save yet: take a step first (Space)")
            return

        def question(name: str) -> KeepQuestion:
            return KeepQuestion(self._moment.request, name)

        self.saver.save(question, lambda kept: counted(kept.steps, "step"))

    def table(self) -> Iterable[Row]:
        return self.query_one(LearnedLines).table()
