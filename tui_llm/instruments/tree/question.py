"""A tree of continuations: what may follow a text, what may follow that, and how likely each way is."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.facts.model import Weights
from tui_llm.facts.request import Question
from tui_llm.facts.tokens import Token

Path = tuple[int, ...]  # ids after the request's text
BATCH = 32  # nodes that are asked for at once: some tenths of a second at most on a small model


@dataclass(frozen=True, slots=True)
class BranchQuestion(Question):
    """The `count` likeliest next tokens after each of `paths`."""

    paths: tuple[Path, ...] = ()
    count: int = 3


@dataclass(frozen=True, slots=True)
class SampleQuestion(Question):
    """A branch of up to `count` tokens, drawn with the request's sampler after `path`; it ends after `<|endoftext|>`. The draw
    of a token is fixed by the seed and the token's number in the continuation (the request's own and `path` counted)."""

    path: Path = ()
    count: int = 1
    seed: int = 1


@dataclass(frozen=True, slots=True)
class KnownQuestion(Question):
    """What the open model's tokens `ids` are: to check what a file says of them."""

    ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Next:
    """One token that may come next. `log_probability` is ln p of the model's own (raw) probability; `drawn` is the
    probability after temperature, cuts and renormalising, 0 where a cut takes it; `rank` counts strictly greater logits,
    from 1; `u` is the number that drew it, None where it was listed or the step greedy."""

    token: Token
    log_probability: float
    drawn: float
    rank: int
    u: float | None = None


@dataclass(frozen=True, slots=True)
class Branching:
    """What may follow `path`: likeliest first, or the one that was drawn."""

    path: Path
    nexts: tuple[Next, ...]


@dataclass(frozen=True, slots=True)
class Branches:
    """`run` is how many tokens were run through the model for it."""

    weights: Weights
    branchings: tuple[Branching, ...]
    run: int
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Known:
    """`text` are the ids that the request's text is for the open model."""

    weights: Weights
    text: tuple[int, ...]
    tokens: tuple[Token, ...]
