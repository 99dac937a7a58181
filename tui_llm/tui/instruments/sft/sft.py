"""The Fine-tune screen: a copy of the model learns question–answer pairs, with the loss on the answers only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import ClassVar

from rich.text import Text

from tui_llm.common.display import visible, visible_token
from tui_llm.common.errors import UserError
from tui_llm.common.numbers import counted
from tui_llm.facts.request import Request
from tui_llm.instruments.sft.question import (
    LEARNING_RATE,
    MOST_STEPS,
    InstructQuestion,
    PairsFileQuestion,
    SftQuestion,
    SftState,
    TunedPair,
)
from tui_llm.llm.data.instruction_pairs import EXAMPLES, Pair, parse, show
from tui_llm.tui.instruments.copy_saver import WRITING, CopySaver
from tui_llm.tui.instruments.open_keys import SFT
from tui_llm.tui.instruments.sft.pairs import InstructionPairsScreen
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit import token_shades
from tui_llm.tui.kit.ask import AskScreen, ask_setting, typed_number
from tui_llm.tui.kit.columns import spark
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.full import FullScreen
from tui_llm.tui.kit.over import Row
from tui_llm.tui.kit.progress import Progress
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.state.context import LabContext
from tui_llm.tui.state.openers import opens

MANY = (1, 4, 12)
NONE = "i types pairs, each a line QUESTION => ANSWER; f reads them from a .jsonl or .tsv file"

OPEN = SFT
_key = CommandFactory("sft", "Fine-tune (SFT)")
KEYS = (
    _key("sft_pairs", "i", "pairs", "Type the pairs, each a line QUESTION => ANSWER", "pairs"),
    _key("sft_file", "f", "file", "Read the pairs from a .jsonl or .tsv file; asks for its name", "file", importance=-1),
    _key("sft_step", "space,enter", "step", "Take the next steps on the copy, all pairs in each; n sets how many", "step"),
    _key("sft_many", "n", "at once", "Take 1, 4 or 12 steps at once", "many"),
    _key("sft_undo", "u,backspace", "undo", "Undo the last step: restores exactly the weights before it", "undo"),
    _key("sft_reset", "r", "undo all", "Go back to the open model's weights", "reset", importance=-1),
    _key("sft_rate", "e", "learning rate", "Type the learning rate; the copy begins anew", "rate"),
    _key("sft_keep", "k", "keep", "Save the copy as a new model folder with a card; asks for its name", "keep", importance=1),
    _key("sft_open", "o", "open it", "Open the model that was saved in the five panes", "open"),
    _key("sft_copy", "y", "copy", "Copy the answers' tokens with their losses as a table (tab-separated)", "copy"),
    _key("close_sft", "escape,q,I", "back", "Stop; otherwise back to the five panes, which drops the pairs and the copy (k saves it)", "leave", importance=WAY_OUT),
)  # fmt: skip


@opens("sft", LabContext.is_open, LabContext.is_unchanged)
class SftScreen(FullScreen):
    """Holds the pairs and how many steps the copy is to have taken; asks for one step at a time, so that each is seen."""

    shows_text = False  # pairs
    tour_name = "sft"
    TITLE_WORDS: ClassVar[str] = "Fine-tune (SFT)"
    own_keys = KEYS
    BINDINGS = bindings(KEYS)

    def __init__(self, context: LabContext) -> None:
        super().__init__()
        self.context = context
        self.pairs: tuple[Pair, ...] = ()
        self.learning_rate = LEARNING_RATE
        self.many = MANY[1]
        self.goal = 0  # how many steps the copy is to have taken
        self.state: SftState | None = None
        self.answers: dict[int, str] = {}  # the copy's newest answers, by pair, and after how many steps
        self.answered_at = 0
        self.progress = Progress(self, self.refill)
        self.saver = CopySaver(self, context, self.progress)

    def on_mount(self) -> None:
        super().on_mount()
        self.action_pairs()  # at once: the keys behind the one that opened this screen are typed there

    def on_unmount(self) -> None:
        self.context.questions.forget(SftQuestion)

    # ── questions ──

    def _ask(self, doing: str) -> None:
        """Ask for the copy's state at the goal, or one step nearer to it."""
        done = len(self.state.losses) if self.state is not None else 0
        at = min(self.goal, done + 1)
        question = SftQuestion(Request(), self.pairs, at, self.learning_rate, answers=at == self.goal)
        self.context.questions.ask(self, question, self._take, self._fail)
        self.progress.start(doing)

    def _take(self, state: SftState) -> None:
        self.state = state
        done = len(state.losses)
        if state.question.answers:
            self.answers = {at: one.answer_after for at, one in enumerate(state.pairs) if one.answer_after is not None}
            self.answered_at = done
        if done < self.goal:
            self._ask(f"step {done + 1} of {self.goal}")
        else:
            self.goal = done
            self.progress.end()

    def _fail(self, problem: str) -> None:
        """After a failure the copy is where it was before that step."""
        self.goal = len(self.state.losses) if self.state is not None else 0
        self.progress.end(problem)

    def _begin(self, pairs: tuple[Pair, ...]) -> None:
        """Begin with a new copy."""
        self.pairs, self.state, self.goal, self.answers = pairs, None, 0, {}
        self._ask("reading the pairs")

    # ── actions ──

    def action_pairs(self) -> None:
        def answered(text: str | None) -> None:
            if text is not None:
                self._begin(parse(text))

        text = show(self.pairs or EXAMPLES)
        self.app.push_screen(InstructionPairsScreen(text, "takes them"), answered)

    def action_file(self) -> None:
        def answered(path: str | None) -> None:
            if path and path.strip():
                question = PairsFileQuestion(Request(), path.strip())
                self.context.questions.ask(self, question, self._begin, self._fail)
                self.progress.start("reading the file")

        hint = '.jsonl: {"question": …, "answer": …} a line · others: question, tab, answer · Esc cancels'
        self.app.push_screen(AskScreen("A file of pairs", hint), answered)

    def action_step(self) -> None:
        if not self.pairs:
            self.context.notify(NONE)
        elif self.goal >= MOST_STEPS:
            self.context.notify(f"at most {MOST_STEPS:,} steps here; tui-llm train --from trains further")
        else:
            self.goal = min(MOST_STEPS, self.goal + self.many)
            self._ask("taking the steps")

    def action_many(self) -> None:
        self.many = MANY[(MANY.index(self.many) + 1) % len(MANY)]
        self.refill()

    def action_undo(self) -> None:
        self._go_back(len(self.state.losses) - 1 if self.state is not None else -1)

    def action_reset(self) -> None:
        self._go_back(0 if self.state is not None and self.state.losses else -1)

    def _go_back(self, at: int) -> None:
        if at < 0:
            self.context.notify("there is no step to undo")
        else:
            self.goal = at
            self._ask("undoing")

    def action_rate(self) -> None:
        def take(text: str) -> None:
            rate = typed_number(text, LEARNING_RATE)
            if not 0 < rate <= 1:
                raise UserError(f"the learning rate is {rate:g}; give one above 0 and up to 1")
            self.learning_rate = rate
            if self.pairs:
                self._begin(self.pairs)

        asking = AskScreen("Learning rate of AdamW", "Enter sets it · Esc cancels", f"{self.learning_rate:g}")
        ask_setting(self, asking, take, self.context.warn)

    def action_keep(self) -> None:
        steps = len(self.state.losses) if self.state is not None else 0
        if not steps or self.progress.doing:
            self.context.notify("there is nothing to save yet: take a step first (Space)")
            return

        def question(name: str) -> InstructQuestion:
            return InstructQuestion(Request(), self.pairs, steps, self.learning_rate, name)

        self.saver.save(question, lambda _: counted(steps, "step"), unnamed="no name: assistant")

    def action_open(self) -> None:
        self.saver.open()

    @property
    def _can_stop(self) -> bool:
        return self.progress.doing not in ("", WRITING)

    def action_leave(self) -> None:
        """Stop what is waited for; if there is nothing to stop, close, which drops the pairs and the copy."""
        if self._can_stop:
            for kind in (SftQuestion, PairsFileQuestion):
                self.context.questions.forget(kind)
            self.goal = len(self.state.losses) if self.state is not None else 0
            self.progress.end()
        else:
            self.action_close()

    # ── what is shown ──

    def subject(self) -> str:
        weights = self.context.weights
        return f"a copy of {weights.name}; the open model does not change" if weights is not None else ""

    def content(self, width: int) -> tuple[list[Text], Sequence[Text]]:
        head = self._head(width)
        if self.state is None:
            return head, []
        lines: list[Text] = []
        for at, one in enumerate(self.state.pairs):
            lines += self._pair(at, one, width)
        lines += wrapped(self._legend(), width)
        return head, lines

    def _head(self, width: int) -> list[Text]:
        muted = self.style("muted")
        state, lines = self.state, list[Text]()
        if state is not None:
            curve = (*state.losses, state.loss)[-24:] if state.losses else ()
            text = Text(f"loss on the answers: {fmt.number(state.first)} → ", style=self.style("strong"))
            text.append(fmt.number(state.loss), self.style("accent"))
            text.append(
                f" nats per token, over {state.answer_tokens} of {counted(state.tokens, 'token')}: the questions have none "
                f"· after {counted(len(state.losses), 'step')} {spark(curve, 0.0)}",
                "not bold",
            )
            lines += wrapped(text, width)
        elif not self.pairs:
            lines += wrapped(Text(NONE, style=muted), width)
        elif not self.progress.doing and not self.progress.problem:  # stopped before they were read
            words = f"{counted(len(self.pairs), 'pair')}, not read yet: Space takes the first steps, i types others"
            lines += wrapped(Text(words, style=muted), width)
        note = f"next: {counted(self.many, 'step')} of AdamW, learning rate {self.learning_rate:g}"
        if self.saver.folder:
            note += f" · saved as {visible(PurePath(self.saver.folder).name)}: o opens it"
        lines += wrapped(Text(note, style=muted), width)
        progress = self.progress
        if progress.problem:
            lines += wrapped(Text(visible(progress.problem), style=self.style("bad")), width)
        if progress.doing:
            seconds = f"{progress.seconds:.0f} s  " if progress.is_long else ""
            stops = "Esc stops" if self._can_stop else ""
            lines.append(Text(f"{progress.doing} … {seconds}{stops}"[:width], style=self.style("accent")))
        return [*lines, Text()]

    def _pair(self, at: int, one: TunedPair, width: int) -> list[Text]:
        lines = wrapped(Text(f"{at + 1}  ", self.style("accent")).append(visible(one.pair.question), "default"), width)
        answer = Text("   ")
        for token, cost in zip(one.tokens, one.after, strict=True):
            shade = token_shades.grade("surprisal", cost)
            answer.append(visible_token(token.text) or "∅", self.style(f"token-shade-{shade.level}"))
            answer.append(f"{shade.mark} ", self.style("muted"))
        lines += wrapped(answer, width)
        muted = self.style("muted")
        before, after = (sum(costs) / len(costs) for costs in (one.before, one.after))
        lines += wrapped(Text(f"   loss {fmt.number(before)} → {fmt.number(after)} nats per token", style=muted), width)
        if one.answer_before is not None:
            lines += wrapped(Text("   before  ", muted).append(visible(one.answer_before), "default"), width)
        if self.answered_at and at in self.answers:
            steps = counted(self.answered_at, "step")
            lines += wrapped(
                Text(f"   after {steps}  ", muted).append(visible(self.answers[at]), self.style("strong")), width
            )
        return [*lines, Text()]

    def _legend(self) -> Text:
        line = Text("each answer token's −ln p in nats: ", self.style("muted"))
        for shade, name in token_shades.legend("surprisal"):
            line.append(f"{shade.mark} {name}", self.style(f"token-shade-{shade.level}")).append("  ", "default")
        line.append("· an answer's last token ends it · answers are greedy", self.style("muted"))
        return line

    def table(self) -> Iterable[Row]:
        yield "question", "id", "token", "loss_before", "loss_after"
        for one in self.state.pairs if self.state is not None else ():
            for token, before, after in zip(one.tokens, one.before, one.after, strict=True):
                yield visible(one.pair.question), str(token.id), visible(token.text), repr(before), repr(after)
