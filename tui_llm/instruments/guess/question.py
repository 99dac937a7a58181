"""The guessing game's round, with what the models gave to each token, and bets that are typed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tui_llm.facts.model import Weights
from tui_llm.facts.request import Question
from tui_llm.facts.tokens import Token

TURNS, MOST_TURNS = 10, 200  # tokens to guess in a round: by default, and at most
CHOICES, MOST_CHOICES = 10, 50  # tokens in the list of choices


@dataclass(frozen=True, slots=True)
class RoundQuestion(Question["GuessRound"]):
    """Choose `turns` consecutive tokens, by the seed, of `text`, or of a shipped paragraph if it is None. The request's
    own text is not used, only its settings."""

    text: str | None = None
    seed: int = 1
    turns: int = TURNS
    choices: int = CHOICES


@dataclass(frozen=True, slots=True)
class BetsQuestion(Question["Bets"]):
    """The typed `line` as bets on the next token of the text `before`; `#2` is the second of `choices`."""

    uses_parts: ClassVar[bool] = False
    line: str = ""
    before: str = ""
    choices: tuple[Token, ...] = ()


@dataclass(frozen=True, slots=True)
class Bet:
    """A probability, in percent, that the player gives to a token."""

    token: Token
    percent: int


@dataclass(frozen=True, slots=True)
class Bets:
    """The bets of a line; `notes` say what was assumed to read it."""

    bets: tuple[Bet, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Opponent:
    """A model that the player is compared with: its name, and where its numbers are from."""

    name: str
    about: str = ""


@dataclass(frozen=True, slots=True)
class GuessTurn:
    """One token to guess.

    position: its number in the text, from 0; before: the text before it.
    probabilities: of `token`, one for each of the round's opponents; bits: −log2 of them, computed from the logits (inf
        where the probability is 0).
    choices: the open model's likeliest tokens, in alphabetical order; whether `token` is one of them is left to chance.
    favourites: the open model's three likeliest tokens, with their probabilities.
    """

    position: int
    before: str
    token: Token
    probabilities: tuple[float, ...]
    bits: tuple[float, ...]
    choices: tuple[Token, ...]
    favourites: tuple[tuple[Token, float], ...]


@dataclass(frozen=True, slots=True)
class GuessRound:
    """The tokens to guess. `opponents`: unigram first, the open model last. `uniform`: log2 of the vocabulary's size, the
    bits of a uniform guess. `source`: the text's title, empty if it is the user's."""

    weights: Weights
    seed: int
    source: str
    uniform: float
    opponents: tuple[Opponent, ...]
    turns: tuple[GuessTurn, ...]
