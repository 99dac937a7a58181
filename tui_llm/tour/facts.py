"""The state that the tour's checks read: the lab, the newest reading, instruments' answers, the watched run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tui_llm.facts.prediction import GeneratedToken
from tui_llm.facts.reading import Reading
from tui_llm.facts.request import Question
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.facts.tokens import Token

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The watched run. `loss`, `unigram`, `bigram` and `uniform` are in nats per token; None if not known yet."""

    name: str
    state: str
    step: int = 0
    steps: int = 0
    loss: float | None = None  # the last validation loss
    uniform: float | None = None
    unigram: float | None = None
    bigram: float | None = None
    sample_step: int | None = None
    sample: str = ""

    @property
    def alive(self) -> bool:
        return self.state in ("starting", "running", "paused")


@dataclass(frozen=True, slots=True)
class Facts:
    """The app's state.

    `reading` is the answer to the newest request, None until it arrives. `screen` is `lab` or the name of the screen on
    top of it; `view` is what that screen shows. `typed` are the learner's answers to the tour's own questions, by
    `Ask.key`.
    """

    prompt: str = ""
    typing: bool = False
    asking: bool = False  # a dialog waits for an answer; `typing` is then true too
    reading: Reading | None = None
    steps: tuple[GeneratedToken, ...] = ()
    streaming: bool = False
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    screen: str = "lab"
    view: str = ""
    place: str = "logits"  # the pane that has or last had the focus
    token_view: str = "text"
    stage: int = 0  # of the logits table; 0 is its overview
    answers: Mapping[type[Question], Any] = field(default_factory=dict)
    problems: Mapping[type[Question], str] = field(default_factory=dict)  # why an instrument failed
    run: RunFacts | None = None
    pins: int = 0
    model: str = ""
    scratch: str = ""  # what is typed in the scratch table, whether its screen is open or not
    typed: Mapping[str, str] = field(default_factory=dict)

    def answer(self, question: type[Question], kind: type[Answer]) -> Answer | None:
        """Returns the newest answer to a question of that type if it is of type `kind`, else None."""
        found = self.answers.get(question)
        return found if isinstance(found, kind) else None

    @property
    def tokens(self) -> tuple[Token, ...]:
        """The text's tokens in the model's vocabulary; for a very long text, only the last ones. None while the Tokens pane
        shows another vocabulary's."""
        if self.reading is None or self.reading.request.tokenizer is not None:
            return ()
        return self.reading.tokens.tokens

    @property
    def count(self) -> int:
        """Number of tokens of the prompt, without a start token in front and what was generated after it."""
        if self.reading is None:
            return 0
        request = self.reading.request
        return max(0, len(self.reading.prompt_ids) - len(request.continuation) - request.start_token)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a check. `words` says what was just observed if it is done, or what is missing if not."""

    done: bool
    words: str


def not_yet(now: Facts, what: str, keys: str) -> CheckResult:
    """Returns an outcome that says `what` is missing and which `keys` of the panes to press.

    If something else is open, closing it comes first.
    """
    if now.asking:
        return missing("a window is open: answer it, or Esc cancels")
    if now.screen != "lab":
        return missing(f"{what}: Esc back to the panes, then {keys}")
    if now.typing:
        return missing(f"{what}: you are typing; {{done_typing}}, then {keys}")
    return missing(f"{what}: {keys}")


def done(words: str) -> CheckResult:
    return CheckResult(True, words)


def missing(words: str) -> CheckResult:
    return CheckResult(False, words)
