"""Byte-pair encoding, one merge at a time: to be watched. (tiktoken does the same for every reading, much faster.)

A word starts as its bytes. Of all neighbouring pairs that are tokens together, the one whose token was learned first, the
lowest rank, is merged (the leftmost, where it is there twice); until no pair is a token.
(Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units"; GPT-2: openai/gpt-2, src/encoder.py.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

# A merge costs a look at all pairs, and there are as many as bytes: a longer word is no sight either.
LONGEST = 256

Rank = Callable[[bytes], int | None]


@dataclass(frozen=True, slots=True)
class State:
    """A word on its way. ranks[i] is the rank of parts[i] + parts[i + 1] joined, None where that is no token; `best` is
    the i that is merged next, None where nothing is left to merge."""

    parts: tuple[bytes, ...]
    ranks: tuple[int | None, ...]
    best: int | None


@dataclass(frozen=True, slots=True)
class Replay:
    """states[0] is the bytes, states[i] is after i merges. `whole`: the word itself is a token that these merges do not
    lead to; tiktoken looks it up before it merges anything (cl100k_base and o200k_base may have such words)."""

    word: bytes
    states: tuple[State, ...]
    whole: bool

    @property
    def tokens(self) -> tuple[bytes, ...]:
        """What the word is encoded as."""
        return (self.word,) if self.whole else self.states[-1].parts


def replay(word: bytes, rank: Rank) -> Replay:
    """Every state of `word`. `rank` says when a token was learned, None where the bytes are no token. Raises ValueError
    where the word is longer than `LONGEST` bytes."""
    if len(word) > LONGEST:
        raise ValueError(f"a word of {len(word):,} bytes is too long to watch; {LONGEST} at most")
    states = [_state(tuple(word[at : at + 1] for at in range(len(word))), rank)]
    while (best := states[-1].best) is not None:
        parts = states[-1].parts
        states.append(_state((*parts[:best], parts[best] + parts[best + 1], *parts[best + 2 :]), rank))
    return Replay(word, tuple(states), len(states[-1].parts) > 1 and rank(word) is not None)


def _state(parts: tuple[bytes, ...], rank: Rank) -> State:
    ranks = tuple(rank(left + right) for left, right in pairwise(parts))
    known = [(value, at) for at, value in enumerate(ranks) if value is not None]
    return State(parts, ranks, min(known)[1] if known else None)
