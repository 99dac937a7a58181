"""Byte-pair encoding, one merge at a time, for display. (Readings use tiktoken, which gives the same result faster.)

A word starts as its bytes. Of all adjacent pairs whose concatenation is a token, the one with the lowest rank (learned
first) is merged, the leftmost on a tie, until no pair is a token. (Sennrich et al. 2016, "Neural Machine Translation of
Rare Words with Subword Units"; GPT-2: openai/gpt-2, src/encoder.py.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

# Maximum length in bytes. Every merge scans all pairs, so time is quadratic in the length.
LONGEST = 256

Rank = Callable[[bytes], int | None]


@dataclass(frozen=True, slots=True)
class State:
    """A word between two merges.

    ranks: ranks[i] is the rank of parts[i] + parts[i + 1], None if that is no token.
    best: the i that is merged next, None if no merge is left.
    """

    parts: tuple[bytes, ...]
    ranks: tuple[int | None, ...]
    best: int | None


@dataclass(frozen=True, slots=True)
class Replay:
    """All states of a word: states[0] is its bytes, states[i] the state after i merges. `whole`: the word is a token
    that its merges do not produce; tiktoken looks a whole word up before merging (occurs in cl100k_base and
    o200k_base)."""

    word: bytes
    states: tuple[State, ...]
    whole: bool

    @property
    def tokens(self) -> tuple[bytes, ...]:
        """The tokens that the word is encoded as."""
        return (self.word,) if self.whole else self.states[-1].parts


def replay(word: bytes, rank: Rank) -> Replay:
    """Compute every state of `word`. `rank` maps bytes to the rank of that token, None if they are no token. Raises
    ValueError if the word is longer than `LONGEST` bytes."""
    if len(word) > LONGEST:
        raise ValueError(f"a word of {len(word):,} bytes is too long to show merge by merge; {LONGEST} at most")
    states = [_state(tuple(word[at : at + 1] for at in range(len(word))), rank)]
    while (best := states[-1].best) is not None:
        parts = states[-1].parts
        states.append(_state((*parts[:best], parts[best] + parts[best + 1], *parts[best + 2 :]), rank))
    return Replay(word, tuple(states), len(states[-1].parts) > 1 and rank(word) is not None)


def _state(parts: tuple[bytes, ...], rank: Rank) -> State:
    ranks = tuple(rank(left + right) for left, right in pairwise(parts))
    known = [(value, at) for at, value in enumerate(ranks) if value is not None]
    return State(parts, ranks, min(known)[1] if known else None)


def out_of_order(merges: Sequence[tuple[bytes, bytes]], alphabet: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """The first of `merges` that tiktoken would not do as they say, or None.

    tiktoken knows a merge by its result and its rank alone. That is the same if each token's own bytes end in its merge:
    no merge of a lower rank joins bytes across the boundary between its two parts. Merges that were learned from text
    are so. `alphabet`: the single bytes, in the order of their ranks.
    """
    names = list(alphabet)
    ranks = {name: rank for rank, name in enumerate(names)}
    first = len(names)
    left, right = list(range(first)), list(range(first))  # the parts of each token; a byte is its own
    for pair in merges:
        token = pair[0] + pair[1]
        if token in ranks or pair[0] not in ranks or pair[1] not in ranks:
            return pair
        ranks[token] = len(names)
        names.append(token)
        left.append(ranks[pair[0]])
        right.append(ranks[pair[1]])
    known = ranks.get
    for made in range(first, len(names)):
        # Undo the later merge of the two that meet at the boundary, again and again: these pairs were adjacent once,
        # before the merge of rank `limit`.
        a, b, limit = left[made], right[made], made
        while True:
            rank = known(names[a] + names[b])
            if rank is not None and rank < limit:
                return merges[made - first]
            if a > b and a >= first:
                limit, a = a, right[a]
            elif b >= first:
                limit, b = b + 1, left[b]
            else:
                break
    return None
