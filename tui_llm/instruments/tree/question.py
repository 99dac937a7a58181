"""A tree of continuations: what may follow a text, recursively, and the probability of each path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tui_llm.facts.model import Weights
from tui_llm.facts.request import Question
from tui_llm.facts.tokens import Token

Path = tuple[int, ...]  # ids after the request's text
BATCH = 32  # paths per question: some tenths of a second at most on a small model


@dataclass(frozen=True, slots=True)
class BranchQuestion(Question["Branches"]):
    """The `count` most probable next tokens after each of `paths`, by raw probability: a repetition penalty changes their
    `drawn` alone."""

    paths: tuple[Path, ...] = ()
    count: int = 3


@dataclass(frozen=True, slots=True)
class SampleQuestion(Question["Branches"]):
    """A sampled branch: up to `count` tokens after `path`, drawn with the request's sampler. Ends after
    a token that ends a text. Each draw depends only on the seed and the token's number in the continuation (the request's own
    continuation and `path` included)."""

    path: Path = ()
    count: int = 1
    seed: int = 1


@dataclass(frozen=True, slots=True)
class KnownQuestion(Question["Known"]):
    """The open model's tokens with the ids `ids`: a tree from a file must have the same."""

    uses_parts: ClassVar[bool] = False
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class NextToken:
    """One candidate for the next token.

    log_probability: ln p of the raw probability.
    drawn: the probability after temperature, cuts and renormalization; 0 if it was cut.
    rank: 1 + the number of strictly greater logits.
    u: the number that selected it; None if it was listed, not drawn, or the step was greedy.
    ends: whether generation ends after it (EOS), as after `<|endoftext|>`. Other special tokens, such as those of a chat
        template, don't end a text.
    """

    token: Token
    log_probability: float
    drawn: float
    rank: int
    u: float | None = None
    ends: bool = False


@dataclass(frozen=True, slots=True)
class BranchPoint:
    """The tokens that may follow `path`, in descending order of raw probability, or the one that was drawn."""

    path: Path
    nexts: tuple[NextToken, ...]


@dataclass(frozen=True, slots=True)
class Branches:
    """The answer: a `BranchPoint` for each path or drawn token. `run` is the number of tokens run through the model."""

    weights: Weights
    branchings: tuple[BranchPoint, ...]
    run: int
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Known:
    """The answer: the `tokens` with the question's ids, and which of these end a text. `text` has the ids of the request's
    text in the open model."""

    weights: Weights
    text: tuple[int, ...]
    tokens: tuple[Token, ...]
    ends: frozenset[int] = frozenset()
