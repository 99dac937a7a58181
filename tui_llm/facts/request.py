"""A request for a reading, its target, and the base class of the instruments' questions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from tui_llm.facts.interventions import Intervention
from tui_llm.facts.sampler import SamplerSettings

Answer = TypeVar("Answer")
if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    AnswerOf = TypeVarWithDefault("AnswerOf", covariant=True, default=Any)  # `Question` alone is `Question[Any]`
else:
    AnswerOf = TypeVar("AnswerOf", covariant=True)  # a default needs Python 3.13


@dataclass(frozen=True, slots=True)
class Target:
    """What the loss is computed for: a token id, a text (tokenized on its own, then teacher-forced), with `own` the
    text's own next token at the request's position, or with `likeliest` the token with the largest logit there."""

    text: str | None = None
    id: int | None = None
    own: bool = False
    likeliest: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One position of a text to read: the prompt, and the ids generated after it (never re-tokenized)."""

    number: int = 0
    prompt: str = ""
    continuation: tuple[int, ...] = ()
    allow_special: bool = False  # in the prompt, `<|endoftext|>` is the special token, not 13 characters
    start_token: bool = False  # prepend `<|endoftext|>`, shown as a token like any other
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    target: Target | None = None
    tokenizer: str | None = None  # vocabulary of the Tokens pane; None: the model's own
    top: int = 200  # number of candidates in the reading
    token_window: int = 4096  # number of tokens in the reading, counted from the end
    position: int | None = None  # predict after this many tokens of the text; None: after all of them
    scores: bool = False  # also score each token of the text
    overrides: tuple[tuple[int, float], ...] = ()  # (id, logit) overrides for this one prediction
    chat: bool = False  # apply the model's chat template to the prompt
    interventions: tuple[Intervention, ...] = ()  # changes of the model's parts

    @property
    def empty(self) -> bool:
        """Whether there is no token at all, so nothing to predict from."""
        return not (self.prompt or self.continuation or self.start_token or self.chat)


@dataclass(frozen=True, slots=True)
class Question(Generic[AnswerOf]):
    """The base class of instruments' questions: a request, and what to compute beyond its Reading. `LensQuestion`, a
    `Question["Lens"]`, is answered with a `Lens`; both are in `instruments/lens/question.py`."""

    request: Request
    writes: ClassVar[bool] = False  # answering writes a file, so the app waits for it before exiting
    queued: ClassVar[bool] = False  # a newer question of its kind waits for this one instead of replacing it
    uses_parts: ClassVar[bool] = True  # the answer depends on what the model's parts compute
    unchanged_only: ClassVar[str] = ""  # why it can't be answered while parts are changed: said before "switch …"

    @property
    def key(self) -> object:
        """Of two questions that wait for an answer and have the same key, the newer one replaces the older one. So a
        question by which the user changes something has a key of its own, or is `queued`."""
        return id(self) if self.queued else type(self)
