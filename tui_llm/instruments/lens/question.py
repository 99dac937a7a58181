"""The logit lens and the tuned lens: the prediction after each block, of one token and of the whole text."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.facts.model import Weights
from tui_llm.facts.place import Place
from tui_llm.facts.request import Question
from tui_llm.facts.tokens import Token


def lens_name(tuned: bool) -> str:
    return "tuned lens" if tuned else "logit lens"


def layer_of(row: int) -> int | None:
    """The block, from 0, after which row number `row` of the lens reads the residual stream; None: the embedding."""
    return row - 1 if row else None


@dataclass(frozen=True, slots=True)
class LensQuestion(Question["Lens"]):
    """The logit lens after token number `number` of the text (from 0; None is the last), with the `top` most probable
    tokens.

    The target is the first token of the request's target; without one, the text's own next token; at the end of the
    text, the token that the whole model finds most probable. tuned: the tuned lens instead, if the model has one.
    """

    number: int | None = None
    top: int = 5
    tuned: bool = False


@dataclass(frozen=True, slots=True)
class LensGuess:
    token: Token
    probability: float


@dataclass(frozen=True, slots=True)
class LensRow:
    """The final LayerNorm and output head applied to the residual stream after block number `layer`, from 0;
    None: the embedding.

    rank: 1 + the number of tokens more probable than the target; entropy: in nats.
    divergence: KL(p ‖ q) = Σ p ln(p ÷ q) in nats, p the whole model's prediction and q this row's; 0 in the last row.
    """

    layer: int | None
    guesses: tuple[LensGuess, ...]
    probability: float  # of the target
    rank: int
    entropy: float
    divergence: float


@dataclass(frozen=True, slots=True)
class Lens:
    """`chosen` is the source of the target: `asked` (the request), `next` (the text) or `likeliest` (the whole
    model)."""

    weights: Weights
    place: Place
    target: Token
    chosen: str
    rows: tuple[LensRow, ...]  # N + 1 rows: the embedding, then each block
    tuned: bool = False


@dataclass(frozen=True, slots=True)
class LensGridQuestion(Question["LensGrid"]):
    """The logit lens of every token of the text, or of `count` tokens from token number `first` on; tokens before the
    context are left out. The target of each column is the first token of the request's target; without one, the text's
    own next token; at its end, the token that the whole model finds most probable. tuned: as in `LensQuestion`."""

    first: int = 0
    count: int | None = None
    top: int = 5
    tuned: bool = False


@dataclass(frozen=True, slots=True)
class LensCell:
    """A row's prediction after one token. logit: the largest one. probability, rank: of the column's target. entropy:
    in nats."""

    guesses: tuple[LensGuess, ...]
    logit: float
    probability: float
    rank: int
    entropy: float


@dataclass(frozen=True, slots=True)
class LensGrid:
    """rows[row][column]: row 0 is the embedding, row n + 1 is after block number n. The last row is the model's own prediction: it is made of the same
    logits as a `Reading`. place: the text; its `number` is that of the first column's token.
    """

    weights: Weights
    place: Place
    targets: tuple[Token, ...]  # of each column
    chosen: str  # their source, as in `Lens`, but for the text's last token
    rows: tuple[tuple[LensCell, ...], ...]
    tuned: bool = False

    def token(self, column: int) -> Token:
        """The token that the column's prediction follows."""
        return self.place.tokens[self.place.index + column]
