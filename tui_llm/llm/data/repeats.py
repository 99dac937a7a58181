"""Random letters, repeated: each document is a few different random letters, and then the same once more.

    qxbtnmpdqxbtnmpd

Nothing but the repetition can be predicted, so a model learns little else than to find the earlier occurrence of the
current letter and to copy what followed it: induction (Olsson et al. 2022, arXiv:2209.11895).

The entropy is known exactly. A document draws its number of letters n uniformly from `SHORTEST` to `LONGEST`, then n of
the `LETTERS` without replacement. A letter that was there before begins the repetition, so the rest is determined, the
end included:

    floor = (ln(number of lengths) + E[Σ_{i<n} ln(26 − i)]) / E[2 n + 1]     in nats per token, `<|endoftext|>` included
"""

from __future__ import annotations

import math
import random
import string
from collections.abc import Callable, Iterator

from tui_llm.llm.tokens.text import END_OF_TEXT

LETTERS = string.ascii_lowercase
SHORTEST, LONGEST = 8, 20  # letters, before they are repeated


def text(seed: int, size: int) -> Iterator[str]:
    """Whole documents with a separator after each, until they have at least `size` characters (all ASCII)."""
    rng = random.Random(seed)
    while size > 0:
        count = SHORTEST + _below(rng, LONGEST - SHORTEST + 1)
        letters = list(LETTERS)
        for at in range(count):  # Fisher–Yates, with numbers that are the same on every Python
            other = at + _below(rng, len(letters) - at)
            letters[at], letters[other] = letters[other], letters[at]
        piece = "".join(letters[:count]) * 2 + f"\n{END_OF_TEXT}\n"
        yield piece
        size -= len(piece)


def _below(rng: random.Random, count: int) -> int:
    return int(rng.random() * count)


def floor(encode: Callable[[str], list[int]], *, separator: bool) -> float | None:
    """The entropy rate in nats per token; None unless every letter is a token of its own, in any text, and a separator
    follows each document."""
    ids = encode(LETTERS)
    if not separator or len(set(ids)) != len(LETTERS) or encode(LETTERS[::-1]) != ids[::-1]:
        return None
    lengths = range(SHORTEST, LONGEST + 1)
    letters = math.fsum(math.log(len(LETTERS) - at) for count in lengths for at in range(count)) / len(lengths)
    tokens = math.fsum(2 * count + 1 for count in lengths) / len(lengths)
    return (math.log(len(lengths)) + letters) / tokens
