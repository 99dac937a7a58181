"""Head detectors: previous-token, duplicate-token and induction scores of every attention head.

Each score is defined by a pattern P (T, T) of zeros and ones, which says for every query token q at which tokens k a head
of that kind looks. They are those of TransformerLens' `head_detector`:

    previous    P[q, k] = 1 if k = q − 1
    duplicate   P[q, k] = 1 if k < q and token k = token q
    induction   P[q, k] = 1 if k ≤ q and token k − 1 = token q, for an earlier token k − 1 < q

The score of a head with attention weights A (T, T), whose rows sum to 1, is the mean attention to the pattern's tokens
over the n queries that have any:

    score = (1 / n) Σ_q Σ_k A[q, k] P[q, k]                                   from 0 to 1

`detect_head(…, error_measure="mul")` of TransformerLens divides by Σ A = T instead: its score is ours × n / T. On random
tokens repeated once, our induction and duplicate scores are the means of the diagonals T/2 − 1 and T/2 below the main
one, as in TransformerLens' demos. Induction heads: Elhage et al. 2021, "A Mathematical Framework for Transformer
Circuits"; Olsson et al. 2022, "In-context Learning and Induction Heads" (arXiv:2209.11895). Duplicate-token heads: Wang
et al. 2022 (arXiv:2211.00593). Letters as in `model.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from tui_llm.common.errors import Overtaken, UserError
from tui_llm.facts.head_scores import DUPLICATE, INDUCTION, PREVIOUS, SCORES, HeadScore, PatternCounts
from tui_llm.llm.model import device, inside
from tui_llm.llm.model.model import GPT

SEQUENCES = 4
SHORTEST = 2  # random tokens: with one, the induction head's token is the query itself

Patterns = Iterable[Tensor]
"""The attention weights of the layers in turn, each (H, T, T)."""


def patterns(ids: Sequence[int]) -> dict[str, Tensor]:
    """P of each score for a text of T tokens: bool (T, T)."""
    tokens = torch.tensor(list(ids), dtype=torch.long)
    T = len(tokens)
    same = (tokens[:, None] == tokens).tril(-1)  # [q, k]: token k is an earlier occurrence of token q
    after = torch.zeros(T, T, dtype=torch.bool)
    after[:, 1:] = same[:, :-1]
    before = torch.zeros(T, T, dtype=torch.bool)
    before.diagonal(-1).fill_(True)
    return {INDUCTION: after, PREVIOUS: before, DUPLICATE: same}


def repeated(ids: Sequence[int], length: int, seed: int, start: int | None = None) -> list[int]:
    """`length` random tokens of `ids`, then the same once more, after the token `start` unless it is None.

    They are drawn without replacement, so that each token of the second half has one earlier occurrence. The same seed
    gives the same tokens.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = [ids[at] for at in torch.randperm(len(ids), generator=generator)[:length].tolist()]
    return [*([] if start is None else [start]), *drawn, *drawn]


def room(context: int, length: int, tokens: int, start: int | None = None) -> int:
    """The largest number of random tokens up to `length` that fit the context twice, at most `tokens`, the number of
    different ones. Raises `UserError` if fewer than `SHORTEST` do."""
    most = min(length, (context - (start is not None)) // 2, tokens)
    if tokens < SHORTEST:
        raise UserError(f"a vocabulary of {tokens} tokens is too small for the detector; open another model")
    if most < SHORTEST:
        raise UserError(
            f"a context of {context} tokens is too short for the detector: it needs {2 * SHORTEST + (start is not None)} for random "
            "tokens, repeated; open another model"
        )
    return most


def ordinary(size: int, is_special: Callable[[int], bool]) -> list[int]:
    """The ids that random tokens are drawn from: all of the vocabulary but the special tokens."""
    return [id for id in range(size) if not is_special(id)]


@torch.inference_mode()
def attention_of(traced: inside.Trace, overtaken: Callable[[], bool] = lambda: False) -> Iterator[Tensor]:
    """The attention weights of every layer in turn, (H, T, T), from a trace: softmax(q · k ÷ √D) over the tokens up to
    the query, but for those that it does not attend to. Raises `Overtaken` between two layers."""
    T = len(traced.ids)
    masked = torch.full((T, T), -math.inf).triu(1)
    for at in range(T):
        masked[at, traced.hidden(at)] = -math.inf
    for queries, keys in zip(traced.queries, traced.keys, strict=True):
        if overtaken():
            raise Overtaken
        q, k = queries.float().cpu(), keys.float().cpu()
        with device.threads(q.numel() * T):
            yield (q @ k.transpose(-1, -2) / math.sqrt(q.size(-1)) + masked).softmax(-1)


class Scorer:
    """Adds up scores over texts. `scores` then has the mean over all queries of all texts."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None  # (scores, N, H)
        self._counts = torch.zeros(len(SCORES), dtype=torch.long)
        self._tokens = 0

    def add(self, ids: Sequence[int], layers: Patterns) -> None:
        """`layers`: the attention weights of the text, each (H, T, T)."""
        wanted = patterns(ids)
        masks = torch.stack([wanted[score] for score in SCORES])  # (scores, T, T)
        made = torch.stack(
            [torch.einsum("hqk,sqk->sh", weights.double(), masks.double()) for weights in layers], dim=1
        )  # (scores, N, H)
        self._sums = made if self._sums is None else self._sums + made
        self._counts += masks.any(-1).sum(-1)
        self._tokens += len(ids)

    @property
    def counts(self) -> PatternCounts:
        return PatternCounts(self._tokens, *self._counts.tolist())

    def scores(self) -> tuple[HeadScore, ...]:
        """All heads, in the order of layers and heads. Raises `UserError` if the attention holds NaN."""
        assert self._sums is not None
        if not self._sums.isfinite().all():
            raise UserError(
                "the attention holds NaN: the weights are damaged or training has diverged; open another model or an "
                "earlier checkpoint"
            )
        rows = [
            (total / count).tolist() if count else None
            for total, count in zip(self._sums, self._counts.tolist(), strict=True)
        ]
        _, layers, heads = self._sums.shape
        return tuple(
            HeadScore(layer, head, *(None if row is None else row[layer][head] for row in rows))
            for layer in range(layers)
            for head in range(heads)
        )


def score(model: GPT, texts: Iterable[Sequence[int]], overtaken: Callable[[], bool] = lambda: False) -> Scorer:
    """The scores of all heads on texts of token ids. Raises `UserError` and `Overtaken`."""
    scorer = Scorer()
    for ids in texts:
        scorer.add(ids, attention_of(inside.trace(model, ids, overtaken), overtaken))
    return scorer
