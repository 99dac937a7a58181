"""The logit lens: the prediction as it stands after each block."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.facts.model import Weights
from tui_llm.facts.place import Place
from tui_llm.facts.request import Question
from tui_llm.facts.tokens import Token


@dataclass(frozen=True, slots=True)
class LensQuestion(Question):
    """After token number `number` of the text (from 0; None is the last), with the `top` likeliest tokens.

    The target is the request's (its first token, where it has several); without one, the text's own next token; at the
    end of the text, the token that the whole model finds likeliest.
    """

    number: int | None = None
    top: int = 5


@dataclass(frozen=True, slots=True)
class Guess:
    token: Token
    probability: float


@dataclass(frozen=True, slots=True)
class LensRow:
    """What the model would predict had it ended here: the last LayerNorm and the head on the residual stream after block
    number `layer`; 0 is the embedding alone.

    rank: 1 + tokens likelier than the target. entropy in nats. divergence: Σ p ln(p ÷ q) in nats, of the whole model's p
    from this row's q; 0 in the last row.
    """

    layer: int
    guesses: tuple[Guess, ...]
    probability: float  # of the target
    rank: int
    entropy: float
    divergence: float


@dataclass(frozen=True, slots=True)
class Lens:
    """`chosen` says where the target comes from: `asked`, `next` (of the text) or `likeliest` (of the whole model)."""

    weights: Weights
    place: Place
    target: Token
    chosen: str
    rows: tuple[LensRow, ...]  # N + 1: the embedding's, then each block's
