"""The lab's state, which all panes show: prompt, continuation, sampler, target. The only copy; imports no Textual."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

from tui_llm.facts.interventions import Intervention
from tui_llm.facts.prediction import GeneratedToken
from tui_llm.facts.reading import Reading
from tui_llm.facts.request import Request, Target
from tui_llm.facts.sampler import APP_TEMPERATURE, APP_TOP_P, SamplerSettings
from tui_llm.instruments.scratch.question import EXAMPLE
from tui_llm.instruments.steer.question import Direction
from tui_llm.instruments.temperatures.question import USUAL
from tui_llm.tui.kit.token_shades import PLAIN
from tui_llm.tui.state.history import History, TextChange

VOCABULARIES: tuple[str | None, ...] = (None, "gpt2", "cl100k_base", "o200k_base", "word", "char", "byte")
TEMPERATURES = (
    0.0,
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.7,
    0.8,
    0.9,
    1.0,
    1.1,
    1.2,
    1.3,
    1.4,
    1.5,
    1.6,
    1.7,
    1.8,
    1.9,
    2.0,
)
TOP_PS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 1.0)
TOP_KS = (1, 2, 3, 5, 10, 20, 40, 50, 100, 200, 500, 1000, math.inf)  # ∞: off
MIN_PS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)
LARGEST_SEED = 9999
END_OF_TEXT = "<|endoftext|>"


def step(values: tuple[float, ...], now: float, direction: int) -> float:
    """The next value above (+1) or below (−1) `now`, which need not be one of them; `now` itself if there is none."""
    if direction > 0:
        return next((value for value in values if value > now + 1e-9), now)
    return next((value for value in reversed(values) if value < now - 1e-9), now)


LEASTS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1)
BUDGETS = (100, 1_000, 10_000, 100_000)
DEEPEST = 64


@dataclass(slots=True)
class GrowthSettings:
    """The settings for growing a tree of continuations: see `tree.Growth`."""

    count: int = 3
    depth: int = 4
    least: float = 1e-3
    budget: int = 1_000

    def deepen(self, by: int) -> None:
        self.depth = max(1, min(DEEPEST, self.depth + by))

    def bound(self, direction: int) -> None:
        at = min(range(len(LEASTS)), key=lambda at: abs(LEASTS[at] - self.least)) + direction
        self.least = LEASTS[max(0, min(len(LEASTS) - 1, at))]

    def next_budget(self) -> None:
        self.budget = BUDGETS[(BUDGETS.index(self.budget) + 1) % len(BUDGETS)]


def further(top_k: int, direction: int) -> int:
    """The next top-k: fewer tokens (−1) or more (+1); after the largest comes 0, which means all."""
    value = step(TOP_KS, top_k or math.inf, direction)
    return 0 if math.isinf(value) else int(value)


def where(request: Request) -> tuple[object, ...]:
    """The fields of a request that identify its prediction, given the model: the text before it."""
    return (
        request.prompt,
        request.continuation,
        request.allow_special,
        request.start_token,
        request.chat,
        request.position,
    )


def target_text(target: Target | None, reading: Reading | None) -> tuple[str | None, bool]:
    """A target of `reading` as text, and whether there is a target that can't be written as text. At the end of the text
    there is no own next token, so no target."""
    if target is None or (target.id is None and not target.own and not target.likeliest):
        return (target.text if target else None), False
    rows = [*(reading.loss.tokens if reading and reading.loss else ())]
    if target.id is None and not rows:
        return None, False
    data = next((row.token.bytes for row in rows if target.id is None or row.token.id == target.id), b"")
    try:
        return data.decode() or None, not data
    except UnicodeDecodeError:
        return None, True


@dataclass(frozen=True, slots=True)
class Cursor:
    """The token cursor: on token `position` (from 0) of the text in which it was placed. `target` was the loss's target
    then: a target chosen later has priority over the text's own next token."""

    position: int
    text: tuple[object, ...]
    target: Target | None


@dataclass(slots=True)
class Lab:
    prompt: str
    sampler: SamplerSettings = field(
        default_factory=lambda: SamplerSettings(temperature=APP_TEMPERATURE, top_p=APP_TOP_P)
    )
    target: Target | None = None  # None: nobody chose one, so it is the likeliest token
    target_at: tuple[object, ...] | None = None  # `where` it was chosen; None: unknown
    target_model: str = ""  # of a remembered target by id: the model that it is a token of
    target_before_own: Target | None = None  # what `n` of the Loss pane restores
    tokenizer: str | None = None
    allow_special: bool = False
    start_token: bool = False
    chat: bool = False
    seed: int = 1
    steps: tuple[GeneratedToken, ...] = ()
    streaming: bool = False
    note: str = ""  # why the last generation stopped, or what happened to its tokens
    number: int = 0  # of the newest request
    overrides: tuple[
        tuple[int, float], ...
    ] = ()  # what if: logits set by the user, for the one prediction `changed_at`
    changed_at: tuple[object, ...] = ()
    dropped: int = 0  # changed logits that the last request dropped, because it is for another prediction
    switched_off: dict[str, float] = field(default_factory=dict)  # values of the sampler settings that are switched off
    scratch: str = EXAMPLE  # text of the scratch table: the user's own tokens and logits
    temperatures: tuple[float, ...] = USUAL  # compared side by side
    colour: str = PLAIN  # what colours the tokens (`token_shades.KINDS`)
    cursor: Cursor | None = None
    speed: float | None = None  # tokens per second of the newest generation
    interventions: tuple[Intervention, ...] = ()  # the model's parts that are switched off or changed
    clean_prompt: str = ""  # of the patch grid; the text is the changed one
    direction: Direction = field(default_factory=Direction)  # to steer along
    history: History = field(init=False)

    def __post_init__(self) -> None:
        self.history = History(self.prompt, self.steps)

    @property
    def continuation(self) -> tuple[int, ...]:
        return tuple(step.id for step in self.steps)

    @property
    def generated_text(self) -> str:
        return "".join(step.text for step in self.steps)

    @property
    def empty(self) -> bool:
        """Whether there is no token to feed, as `Request.empty`."""
        return not (self.prompt or self.steps or self.start_token or self.chat)

    # ── the token cursor ──

    @property
    def _text(self) -> tuple[object, ...]:
        return self.prompt, self.continuation, self.allow_special, self.start_token, self.chat

    @property
    def position(self) -> int | None:
        """The number of tokens before the reading; None means all of them, and any change of the text resets it to
        None."""
        return self.cursor.position if self.cursor is not None and self.cursor.text == self._text else None

    def place(self, position: int | None) -> None:
        """Moves the token cursor to token `position`; None means the end."""
        if position is None:
            self.cursor = None
            return
        target = self.cursor.target if self.cursor is not None and self.position is not None else self.target
        self.cursor = Cursor(position, self._text, target)

    @property
    def requested_target(self) -> Target:
        """The loss's target: inside the text its own next token, unless another was chosen there; at the end the likeliest
        token, until one is chosen."""
        if self.position is not None and self.cursor is not None and self.target is self.cursor.target:
            return Target(own=True)
        return self.target or Target(likeliest=True)

    @property
    def target_left_over(self) -> bool:
        """Whether the requested target was chosen for another text, or at another position of it."""
        if self.target_at is None or self.requested_target is not self.target or self.target.own:
            return False
        return self.target_at != where(self.current_request())

    def choose_target(self, target: Target | None) -> None:
        """Sets the target for the current text. None: it follows the likeliest token."""
        self.target, self.target_model = target, ""
        self.target_at = None if target is None else where(self.current_request())

    def request(self, top: int = 200) -> Request:
        """A request for the current state, with a new number. Records the text for undo, and drops changed logits of
        another prediction."""
        self.number += 1
        self.history.record(self.prompt, self.steps)
        made = self.current_request(top)
        if self.overrides and not made.overrides:
            self.drop_changes()
        return made

    def current_request(self, top: int = 200) -> Request:
        """The request for the current state, for an instrument's question: without a new number, as no reading is made."""
        made = Request(
            number=self.number,
            prompt=self.prompt,
            continuation=self.continuation,
            allow_special=self.allow_special,
            start_token=self.start_token,
            sampler=self.sampler,
            target=self.requested_target,
            tokenizer=self.tokenizer,
            top=top,
            position=self.position,
            scores=self.colour != PLAIN,
            chat=self.chat,
            interventions=self.interventions,
        )
        return dataclasses.replace(made, overrides=self.overrides) if where(made) == self.changed_at else made

    def intervene(self, interventions: tuple[Intervention, ...]) -> None:
        """Changes which of the model's parts are changed; undo reverts it."""
        self.history.record(self.prompt, self.steps)
        self.history.record_parts(interventions)
        self.interventions = interventions

    def change_logit(self, id: int, value: float, seen: Request) -> None:
        """What if: sets the logit of token `id` in the prediction that `seen` requests."""
        if where(seen) != self.changed_at:
            self.overrides, self.changed_at = (), where(seen)
        self.overrides = (*((other, was) for other, was in self.overrides if other != id), (id, value))

    def undo_changes(self) -> bool:
        had, self.overrides = bool(self.overrides), ()
        return had

    def drop_changes(self) -> None:
        """Drops the changed logits: they belong to another prediction or another model."""
        self.dropped, self.overrides = len(self.overrides), ()

    def change_top_k(self, direction: int) -> None:
        """Changes top-k: fewer tokens (−1) or more (+1), up to all."""
        self.sampler = dataclasses.replace(self.sampler, top_k=further(self.sampler.top_k, direction))

    def change_min_p(self, direction: int) -> None:
        self.sampler = dataclasses.replace(self.sampler, min_p=step(MIN_PS, self.sampler.min_p, direction))

    def change_temperature(self, direction: int) -> None:
        temperature = step(TEMPERATURES, self.sampler.temperature, direction)
        self.sampler = dataclasses.replace(self.sampler, temperature=temperature)

    def change_top_p(self, direction: int) -> None:
        self.sampler = dataclasses.replace(self.sampler, top_p=step(TOP_PS, self.sampler.top_p, direction))

    def next_vocabulary(self) -> None:
        at = VOCABULARIES.index(self.tokenizer) if self.tokenizer in VOCABULARIES else -1
        self.tokenizer = VOCABULARIES[(at + 1) % len(VOCABULARIES)]

    def toggle_leading_space(self) -> bool:
        """Adds or removes the space before a typed target. Returns False if the target is a row of the table (its bytes
        are fixed) or there is none."""
        if self.target is None or self.target.text is None:
            return False
        text = self.target.text
        self.choose_target(Target(text=text[1:] if text.startswith(" ") else " " + text))
        return True

    def before_step(self, index: int) -> Request:
        """The request for the prediction from which generated token `index` was drawn, or will be, changed logits
        included; without a new number."""
        step = self.steps[index] if index < len(self.steps) else None
        made = Request(
            prompt=self.prompt,
            continuation=self.continuation[:index],
            allow_special=self.allow_special,
            start_token=self.start_token,
            chat=self.chat,
            sampler=self.sampler if step is None else step.sampler,
            interventions=self.interventions if step is None else step.interventions,
        )
        if step is not None:
            return dataclasses.replace(made, overrides=step.overrides)
        return dataclasses.replace(made, overrides=self.overrides) if where(made) == self.changed_at else made

    def undo(self) -> TextChange | None:
        """Reverts the last change of the text and returns it; None if there is none."""
        self.history.record(self.prompt, self.steps)
        return self._moved(self.history.undo())

    def redo(self) -> TextChange | None:
        """Repeats the change that was undone last and returns it; None if there is none."""
        self.history.record(self.prompt, self.steps)
        return self._moved(self.history.redo())

    def _moved(self, change: TextChange | None) -> TextChange | None:
        if change is not None:
            self.prompt, self.steps, self.note = self.history.prompt, self.history.steps, ""
            self.interventions = self.history.interventions
        return change

    def change_format(
        self, *, allow_special: bool | None = None, start_token: bool | None = None, chat: bool | None = None
    ) -> None:
        """Changes how the prompt becomes tokens. That drops the continuation, which was drawn after other tokens, and undo
        does not bring it back."""
        before = self.allow_special, self.start_token, self.chat
        self.allow_special = self.allow_special if allow_special is None else allow_special
        self.start_token = self.start_token if start_token is None else start_token
        self.chat = self.chat if chat is None else chat
        if (self.allow_special, self.start_token, self.chat) != before:
            self.clear("the prompt's format changed: its continuation was dropped" if self.steps else "")
            self.history.forget_steps(keep_parts=True)

    def clear(self, note: str = "") -> bool:
        had, self.steps, self.note, self.speed = bool(self.steps), (), note, None
        return had
