"""What is asked: a request for a reading, its target, and the base class of instruments' questions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from tui_llm.facts.sampler import SamplerSettings


@dataclass(frozen=True, slots=True)
class Target:
    """What the loss asks for: one token chosen by id, text that is encoded on its own and teacher-forced, or (`own`) the
    token that the text itself goes on with at the request's position."""

    text: str | None = None
    id: int | None = None
    own: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One moment to read: the prompt's text, and the ids that were generated after it (never re-encoded)."""

    number: int = 0
    prompt: str = ""
    continuation: tuple[int, ...] = ()
    allow_special: bool = False  # `<|endoftext|>` typed in the prompt is the special token, not 13 characters
    start_token: bool = False  # put an explicit `<|endoftext|>` in front, shown as a token like any other
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    target: Target | None = None
    tokenizer: str | None = None  # vocabulary that the Tokens pane shows; None is the model's own
    top: int = 200  # how many candidates to carry
    token_window: int = 4096  # how many of the last tokens to carry
    position: int | None = None  # read the prediction after so many tokens of the text; None: after all of them
    scores: bool = False  # how each token of the text was predicted, too
    overrides: tuple[tuple[int, float], ...] = ()  # what if: (id, logit) set by hand, in this one prediction
    chat: bool = False  # the prompt is a message: feed it as the model's chat template writes it

    @property
    def empty(self) -> bool:
        """There is no token: nothing to look at, and nothing to predict from."""
        return not (self.prompt or self.continuation or self.start_token or self.chat)


@dataclass(frozen=True, slots=True)
class Question:
    """What one of the `instruments` is asked about a moment, beyond its Reading. Each kind is a subclass in `facts/`."""

    request: Request
    writes: ClassVar[bool] = False  # answering it writes a file that the user asked for: the app's end waits for that
