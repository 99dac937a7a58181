"""Many answers to one prompt, drawn at once: the prompt is run a single time, then each forward pass adds a token to every
answer. Answer k draws with numbers of its own, so it is what a single draw with its seed gives (up to rounding: a pass over
many rows sums in another order, which matters only where u falls on the edge between two tokens).

Letters: K answers, P tokens of the prompt, V the vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tui_llm.common.errors import Overtaken, UserError
from tui_llm.llm.model import device
from tui_llm.llm.model.model import GPT, KVCache
from tui_llm.llm.predict.generate import uniform
from tui_llm.llm.predict.softmax import Array, probabilities
from tui_llm.llm.tokens.tokenizer import Tokenizer

_FIRST = 64  # tokens that are sorted first


class GroupCache(KVCache):
    """Keys and values of K rows that begin with the same prompt, with room for `count` more tokens each."""

    def __init__(self, prompt: KVCache, rows: int, count: int) -> None:
        self.length = prompt.length
        shape = list(prompt.keys.shape)
        shape[1], shape[3] = rows, prompt.length + count
        self.keys, self.values = prompt.keys.new_empty(shape), prompt.values.new_empty(shape)
        self.keys[:, :, :, : self.length] = prompt.keys[:, :, :, : self.length]
        self.values[:, :, :, : self.length] = prompt.values[:, :, :, : self.length]


@dataclass(frozen=True, slots=True)
class DrawnAnswer:
    """An answer's tokens and its seed. `ended`: the last token is an end-of-text token."""

    seed: int
    ids: tuple[int, ...]
    ended: bool

    def text(self, tokenizer: Tokenizer, previous: int) -> str:
        """What a reward scores: the text after a prompt whose last token is `previous`, without an end-of-text token."""
        return tokenizer.decode(self.ids[:-1] if self.ended else self.ids, previous)


def row_seed(seed: int, row: int) -> int:
    """The seed of answer number `row`, from 0 on, over all groups that are drawn with `seed`: 31 bits of a hash, so that the
    answers of different seeds have no numbers in common. `generate` with it gives the same answer."""
    digest = hashlib.sha256(f"tui-llm answer {seed} {row}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def draw_group(
    model: GPT,
    ids: Sequence[int],
    seeds: Sequence[int],
    *,
    size: int,
    count: int,
    temperature: float = 1.0,
    ends: Callable[[int], bool] = lambda id: False,
    overtaken: Callable[[], bool] = lambda: False,
) -> list[DrawnAnswer]:
    """Draw an answer of up to `count` tokens to the prompt `ids` for each of the K `seeds`, from the whole distribution at
    `temperature` > 0. Token number i of an answer uses `uniform(seed, i)`.

    size: V; ids from there on only pad the embedding. ends: whether an id is an end-of-text token.
    Raises `Overtaken` between two tokens, and `UserError` if there is no prompt, it does not fit into the context with
    the answers, or a logit is not finite.
    """
    check_room(len(ids), count, model.config.context)
    rows = len(seeds)
    drawn: list[list[int]] = [[] for _ in seeds]
    ended = [False] * rows
    with torch.no_grad(), device.threads(model.config.parameters() * rows):
        prompt = KVCache(model.config, model.device, model.dtype)
        features = model.features(torch.tensor([list(ids)], device=model.device), prompt)[:, -1]
        features = features.expand(rows, -1)
        cache = GroupCache(prompt, rows, count)
        for index in range(count):
            if overtaken():
                raise Overtaken
            numbers = [uniform(seed, index) for seed in seeds]
            chosen = _choose(model.logits(features)[:, :size], numbers, temperature)
            for row, id in enumerate(chosen):
                if not ended[row]:
                    drawn[row].append(id)
                    ended[row] = ends(id)
            if all(ended) or index == count - 1:
                break
            features = model.features(torch.tensor(chosen, device=model.device)[:, None], cache)[:, 0]
    return [DrawnAnswer(*one) for one in zip(seeds, map(tuple, drawn), ended, strict=True)]


def check_room(prompt: int, count: int, context: int) -> None:
    """Raises `UserError` if there is no prompt, or if `count` tokens after it exceed the context."""
    if not prompt:
        raise UserError("the prompt is empty: type some text, or put <|endoftext|> in front")
    if prompt + count - 1 > context:
        raise UserError(
            f"the context is full: {prompt:,} tokens of prompt and {count:,} of answer, but the model sees {context:,} at once; "
            "shorten the prompt or the answers"
        )


def _choose(logits: Tensor, numbers: Sequence[float], temperature: float) -> list[int]:
    """Inverse-CDF sampling of each row of logits (K, V) by its own number, as `Processed.place` does with all tokens kept:
    tokens in descending order of logits, ties by lower id."""
    values: Array = logits.float().cpu().numpy()
    tempered = probabilities(values, temperature)
    masses = tempered.sum(-1)
    return [_place(*row) for row in zip(values, tempered, masses.tolist(), numbers, strict=True)]


def _place(values: Array, tempered: Array, mass: float, u: float) -> int:
    """The id that u selects. Sorts the most probable tokens only, as long as u falls among them."""
    if len(values) > 4 * _FIRST:
        first = np.argpartition(values, -_FIRST)[-_FIRST:]
        first = first[np.lexsort((first, -values[first]))]
        place = int(np.searchsorted(tempered[first].cumsum() / mass, u, side="right"))
        # Among tokens that tie with the last one, those of the lowest ids may be missing.
        if place < _FIRST and values[first[place]] > values[first[-1]]:
            return int(first[place])
    order = np.argsort(-values, kind="stable")
    sums = tempered[order].cumsum() / mass
    kept = int((tempered > 0).sum())
    return int(order[min(int(np.searchsorted(sums, u, side="right")), kept - 1)])
