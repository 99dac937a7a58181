"""The tokens in the model's context, with their KV cache, features and scores.

Each token is run through the blocks once. Its keys and values stay in the KV cache; its features, the input of the
output head, are stored too. The prediction at any position thus costs one product with the head, and appending a token
one forward pass of that token. Features and logits are numpy arrays, whatever computed them. Letters: V the vocabulary, C the width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tui_llm.common.errors import Overtaken
from tui_llm.facts.prediction import TokenLoss, TokenScore
from tui_llm.llm.predict import distribution, loss, softmax
from tui_llm.llm.predict.softmax import Array, as_array

if TYPE_CHECKING:
    from tui_llm.llm.model.predictor import Predictor

_CHUNK = 256  # tokens per forward pass; `overtaken` is checked between passes
_ROWS = 1 << 22  # logits computed at a time for `scores`
_ROOM = 1024  # initial capacity in tokens


class Window:
    """Up to `context` tokens. `size` is V, the number of ids in the vocabulary; `forwards` counts forward passes."""

    def __init__(self, predictor: Predictor, size: int) -> None:
        self.predictor, self.size = predictor, size
        self.ids: list[int] = []
        self.forwards = 0
        self._features = np.zeros((min(predictor.context, _ROOM), predictor.kept), np.float32)  # (capacity, C)
        self._scores: list[TokenScore] = []  # of ids[1:], computed on demand
        self._sorted: tuple[int, distribution.Sorted] | None = None
        self._logits: tuple[int, Array] | None = None

    @property
    def context(self) -> int:
        return self.predictor.context

    def feed(self, ids: Sequence[int], overtaken: Callable[[], bool] = lambda: False) -> int:
        """Replace the tokens by `ids` (at most `context`). The common prefix is not run again. Returns the number of
        tokens that were run. Raises `Overtaken`; the tokens fed until then stay."""
        same = 0
        for old, new in zip(self.ids, ids, strict=False):
            if old != new:
                break
            same += 1
        self.crop(same)
        for start in range(same, len(ids), _CHUNK):
            if overtaken():
                raise Overtaken
            part = list(ids[start : start + _CHUNK])
            self._keep(start, self._run(part))
            self.ids += part
        return len(ids) - same

    def crop(self, length: int) -> None:
        """Discard all but the first `length` tokens."""
        self.predictor.crop(length)
        del self.ids[length:], self._scores[max(0, length - 1) :]
        if self._logits is not None and self._logits[0] > length:
            self._logits = None
        if self._sorted is not None and self._sorted[0] > length:
            self._sorted = None

    def logits(self, position: int | None = None) -> Array:
        """Logits (V,), float32, for the token after the first `position` ones (None: after all of them).
        Raises ValueError if `position` is not between 1 and the number of tokens."""
        position = len(self.ids) if position is None else position
        if not 1 <= position <= len(self.ids):
            raise ValueError(f"position {position} of {len(self.ids)} tokens")
        if self._logits is None or self._logits[0] != position:
            self._logits = position, self._head(self._features[position - 1 : position])[0]
        return self._logits[1]

    def sorted(self, position: int | None = None) -> distribution.Sorted:
        """The logits in descending order."""
        position = len(self.ids) if position is None else position
        if self._sorted is None or self._sorted[0] != position:
            self._sorted = position, distribution.Sorted.of(self.logits(position))
        return self._sorted[1]

    def target_losses(
        self, wanted: Sequence[int], position: int | None = None, overtaken: Callable[[], bool] = lambda: False
    ) -> list[TokenLoss]:
        """Teacher forcing: the loss of each token of `wanted`, given the first `position` tokens and the true ones
        before it."""
        return loss.token_losses(self.target_logits(wanted, position, overtaken), wanted)

    def target_logits(
        self, wanted: Sequence[int], position: int | None = None, overtaken: Callable[[], bool] = lambda: False
    ) -> Array:
        """Logits (T, V) for each token of `wanted`, given the first `position` tokens and the true ones before it.
        Tokens that the window already holds are not run again; if the context is full, the window slides."""
        position = len(self.ids) if position is None else position
        rows = [self.logits(position)]
        read, before = list(self.ids), self.ids[:position]
        if len(wanted) > 1:
            try:
                rows += self._forced(before, list(wanted), overtaken)
            finally:
                self.feed(read)  # restore the window
        return np.stack(rows)

    def _forced(self, before: list[int], wanted: list[int], overtaken: Callable[[], bool]) -> list[Array]:
        """The logits for wanted[1:]."""
        fits = min(len(wanted) - 1, self.context - len(before))
        self.feed(before + wanted[:fits], overtaken)
        rows = list(self._head(self._features[len(before) : len(before) + fits]))
        for count in range(fits + 1, len(wanted)):  # each further token drops the first one
            if overtaken():
                raise Overtaken
            self.feed((before + wanted[:count])[-self.context :], overtaken)
            rows.append(self.logits())
        return rows

    def scores(self, overtaken: Callable[[], bool] = lambda: False) -> list[TokenScore]:
        """How each token but the first was predicted from the tokens before it."""
        while len(self._scores) < len(self.ids) - 1:
            if overtaken():
                raise Overtaken
            start = len(self._scores)
            stop = min(len(self.ids) - 1, start + max(1, _ROWS // self.size))
            logits = self._head(self._features[start:stop])  # (rows, V)
            losses = loss.token_losses(logits, self.ids[start + 1 : stop + 1])
            entropies = softmax.entropies(logits).tolist()
            self._scores += [TokenScore(*both) for both in zip(losses, entropies, strict=True)]
        return list(self._scores)

    def _keep(self, start: int, features: Array) -> None:
        """Store features (T, C) at position `start`, growing the buffer as needed."""
        end, room = start + len(features), len(self._features)
        if end > room:
            larger = np.zeros((min(self.context, max(end, 2 * room)), self.predictor.kept), np.float32)
            larger[:start] = self._features[:start]
            self._features = larger
        self._features[start:end] = features

    def _run(self, ids: list[int]) -> Array:
        """Features (T, C) of `ids`, which follow the tokens already run."""
        self.forwards += 1
        return as_array(self.predictor.run(ids))

    def _head(self, features: Array) -> Array:
        """(T, C) → (T, V), without the ids that only pad the embedding."""
        return as_array(self.predictor.head(features, self.size))
