"""What the tour's checks look at: the state of the lab, the newest reading, what instruments answered, the watched run."""

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
    """The watched run. loss, unigram, bigram and uniform in nats a token; None where they are not known yet."""

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
    """`reading` is the answer to the newest request, None while that is awaited. `screen` is `lab`, or what is open over
    it; `view` is what it shows. `typed` are the learner's answers to the tour's own questions."""

    prompt: str = ""
    typing: bool = False
    asking: bool = False  # a small window waits for an answer; `typing` then too
    reading: Reading | None = None
    steps: tuple[GeneratedToken, ...] = ()
    streaming: bool = False
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    screen: str = "lab"
    view: str = ""
    place: str = "logits"  # the pane that has, or last had, the focus
    token_view: str = "text"
    stage: int = 0  # of the table: 0 is its overview
    answers: Mapping[type[Question], Any] = field(default_factory=dict)
    problems: Mapping[type[Question], str] = field(default_factory=dict)  # why an instrument had no answer
    run: RunFacts | None = None
    pins: int = 0
    model: str = ""
    typed: Mapping[str, str] = field(default_factory=dict)

    def answer(self, question: type[Question], kind: type[Answer]) -> Answer | None:
        found = self.answers.get(question)
        return found if isinstance(found, kind) else None

    @property
    def tokens(self) -> tuple[Token, ...]:
        """The text's tokens in the model's own vocabulary: the last ones of very many."""
        return self.reading.tokens.tokens if self.reading is not None else ()

    @property
    def count(self) -> int:
        return len(self.reading.prompt_ids) if self.reading is not None else 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of a check. `words`: what was just seen where it is done, what is missing where it isn't."""

    done: bool
    words: str


def not_yet(now: Facts, what: str, keys: str) -> Outcome:
    """`what` is still to be done with `keys`, of the panes; and what has to be left before they work."""
    if now.asking:
        return missing("a window is open: Enter takes what stands there, Esc leaves it")
    if now.screen != "lab":
        return missing(f"{what}: Esc back to the panes, then {keys}")
    if now.typing:
        return missing(f"{what}: you are typing; {{leave}}, then {keys}")
    return missing(f"{what}: {keys}")


def done(words: str) -> Outcome:
    return Outcome(True, words)


def missing(words: str) -> Outcome:
    return Outcome(False, words)
