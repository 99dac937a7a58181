"""The score of a guess, and a game: what was bet at each token, and the totals.

The player spreads 100 % of belief: some percents on tokens, at most `MOST` in all, and the rest over the whole vocabulary
as the unigram model does. That is a probability for every token, so its −log2 at the true token compares with a model's
surprisal, and on average the score is best where this probability (not the bet alone) is what the player believes. With no bet the score is that of unigram. (C. Shannon 1951, "Prediction
and Entropy of Printed English"; T. Cover and R. King 1978, "A Convergent Gambling Estimate of the Entropy of English".)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tui_llm.instruments.guess.question import Bet, GuessRound, GuessTurn

MOST = 99  # percent; the rest stays with unigram, so that a wrong guess costs a finite number of bits
RULE = (
    "Your bits = −log2 of the probability that your bets give the true token. What you don't bet is spread over all tokens "
    "as unigram does: by how often each occurs."
)


def laid(bets: Sequence[Bet]) -> int:
    """The sum of the bets, in percent."""
    return sum(bet.percent for bet in bets)


def probability(bets: Sequence[Bet], id: int, unigram: float) -> float:
    """The probability that `bets` give to token `id`, to which the unigram model gives `unigram`.

    Example: with 40 % on a token that unigram gives 0.1 %, it is 0.4 + 0.6 × 0.001 = 40.06 %.
    """
    return sum(bet.percent for bet in bets if bet.token.id == id) / 100 + (1 - laid(bets) / 100) * unigram


@dataclass(frozen=True, slots=True)
class Guess:
    """The player's bets at a turn, the probability that they give to the true token, and its −log2."""

    turn: GuessTurn
    bets: tuple[Bet, ...]
    probability: float
    bits: float


class GuessGame:
    """A round that is played. `guesses` are those made so far."""

    def __init__(self, round: GuessRound) -> None:
        self.round = round
        self.guesses: list[Guess] = []

    @property
    def turn(self) -> GuessTurn | None:
        """The turn to play, or None if the game is over."""
        at = len(self.guesses)
        return self.round.turns[at] if at < len(self.round.turns) else None

    def guess(self, bets: Sequence[Bet]) -> Guess:
        """Score `bets` on the current turn, and move to the next."""
        turn = self.turn
        assert turn is not None and laid(bets) <= MOST
        p = probability(bets, turn.token.id, turn.probabilities[0])
        made = Guess(turn, tuple(bets), p, -math.log2(p))
        self.guesses.append(made)
        return made

    @property
    def totals(self) -> tuple[float, ...]:
        """The sum of the bits over the tokens guessed: the player's, then each opponent's."""
        mine = math.fsum(guess.bits for guess in self.guesses)
        rest = (math.fsum(guess.turn.bits[at] for guess in self.guesses) for at in range(len(self.round.opponents)))
        return mine, *rest

    def beaten(self, opponent: int = -1) -> list[Guess]:
        """The guesses with fewer bits than the opponent's: of the open model, if none is named."""
        return [guess for guess in self.guesses if guess.bits < guess.turn.bits[opponent]]
