"""Prefer: draw two answers to a prompt, learn which one was chosen, on a copy of the weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from tui_llm.facts.model import Weights
from tui_llm.facts.preference import PairChange, PreferenceRecipe, RankedPair
from tui_llm.facts.request import Question
from tui_llm.facts.tokens import Token

MOST_PAIRS = 200
ANSWER_TOKENS, MOST_ANSWER_TOKENS = 32, 128


@dataclass(frozen=True, slots=True)
class AnswersQuestion(Question["TwoAnswers"]):
    """Two answers to the request's prompt from the copy after `ranked`. Each is drawn with its seed and the request's
    sampler, up to `count` tokens, or is the text that was typed."""

    unchanged_only: ClassVar[str] = "a copy is trained from the model as it is"
    ranked: tuple[RankedPair, ...] = ()
    seeds: tuple[int, int] = (1, 2)
    texts: tuple[str | None, str | None] = (None, None)
    count: int = ANSWER_TOKENS


@dataclass(frozen=True, slots=True)
class PreferredAnswer:
    """An answer's tokens, and ln π of each under the copy, in nats. `seed` is None if it was typed; `ended`: its last
    token is an end-of-text token."""

    tokens: tuple[Token, ...]
    logs: tuple[float, ...]
    seed: int | None
    ended: bool

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(token.id for token in self.tokens)

    @property
    def logp(self) -> float:
        return sum(self.logs)


@dataclass(frozen=True, slots=True)
class TwoAnswers:
    """`prompt` is the ids before the answers, `text` the end of the prompt's text, raw."""

    question: AnswersQuestion
    weights: Weights
    prompt: tuple[int, ...]
    text: str
    left: PreferredAnswer
    right: PreferredAnswer


@dataclass(frozen=True, slots=True)
class PreferQuestion(Question["Preferred"]):
    """The copy after the choices `ranked`: missing ones are learned, others undone, so that asking twice changes nothing.
    None: whatever was learned since the model was opened. `file`: the pairs are written there as they are ranked, a row of
    JSON each; empty: nowhere."""

    unchanged_only: ClassVar[str] = "a copy is trained from the model as it is"
    ranked: tuple[RankedPair, ...] | None = None
    file: str = ""
    writes: ClassVar[bool] = True
    queued: ClassVar[bool] = True  # a screen that opens again waits for the choice made before it closed


@dataclass(frozen=True, slots=True)
class Preferred:
    """What the copy learned.

    ranked, changes: the pairs, and what each changed.
    chosen, rejected: the tokens of the last pair.
    stored, stored_bytes: states that undo restores at once; it recomputes older ones.
    file: where the pairs are; `unsaved`: why they could not be written.
    """

    question: PreferQuestion | PreferTextQuestion
    weights: Weights
    ranked: tuple[RankedPair, ...]
    changes: tuple[PairChange, ...]
    chosen: tuple[Token, ...]
    rejected: tuple[Token, ...]
    stored: int
    stored_bytes: int
    file: str
    unsaved: str

    @property
    def agreements(self) -> tuple[int, int]:
        """(pairs that the model agreed with before it learned them, pairs for which that can be said)"""
        known = [one.agreed for one in self.changes if one.agreed is not None]
        return sum(known), len(known)


@dataclass(frozen=True, slots=True)
class PreferTextQuestion(Question["Preferred"]):
    """Learn one pair of texts on a fresh copy: the command's and Python's question."""

    unchanged_only: ClassVar[str] = "a copy is trained from the model as it is"
    chosen: str = ""
    rejected: str = ""
    recipe: PreferenceRecipe = field(default_factory=PreferenceRecipe)


@dataclass(frozen=True, slots=True)
class SavePreferredQuestion(Question["SavedPreferred"]):
    """Write the copy as a new model folder, with `name` and `force` as in `KeepQuestion`."""

    unchanged_only: ClassVar[str] = "a copy is saved of the model as it is"
    ranked: tuple[RankedPair, ...] = ()
    name: str = ""
    force: bool = False
    writes: ClassVar[bool] = True
    queued: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class SavedPreferred:
    name: str
    folder: str
    pairs: int
