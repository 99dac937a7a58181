"""Tree attention: many continuations of one text in one forward pass.

All tokens of the tree form one row. Each attends to the text and to its own ancestors only; its position is the text's
length plus its depth. A token that many branches share is thus computed once. See Miao et al. 2023, "SpecInfer"
(arXiv:2305.09781). Letters: P tokens of text in the cache, T tokens of the tree, C the width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tui_llm.llm.model.model import GPT, KVCache


class TreeCache(KVCache):
    """A text's keys and values, plus, for one forward pass, those of a tree of tokens after it. The tree's are not
    stored.

    parents: for each tree token the index of its parent, which is smaller than its own; −1 for a child of the text.
    """

    def __init__(self, text: KVCache, parents: Sequence[int]) -> None:
        self.keys, self.values, self.length = text.keys, text.values, text.length
        device = text.keys.device
        self._depths = torch.zeros(len(parents), dtype=torch.long)
        seen = torch.zeros(len(parents), len(parents), dtype=torch.bool)
        for at, parent in enumerate(parents):
            if parent >= 0:
                seen[at] = seen[parent]
                self._depths[at] = self._depths[parent] + 1
            seen[at, at] = True
        past = torch.ones(len(parents), text.length, dtype=torch.bool)
        self._mask = torch.cat([past, seen], dim=1).to(device)  # (T, P + T)
        self._depths = self._depths.to(device)

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        past = slice(self.length)
        return (
            torch.cat([self.keys[layer, :, :, past], keys], dim=2),
            torch.cat([self.values[layer, :, :, past], values], dim=2),
        )

    def end(self, count: int) -> int:
        return self.length + int(self._depths.max()) + 1

    def positions(self, count: int) -> Tensor:
        return self.length + self._depths

    def mask(self, count: int, window: int = 0) -> Tensor | None:
        if not window:
            return self._mask
        where = self.positions(count)
        keys = torch.cat([torch.arange(self.length, device=where.device), where])
        return self._mask & (where[:, None] - keys < window)


def tree_features(model: GPT, text: KVCache, ids: Sequence[int], parents: Sequence[int]) -> Tensor:
    """Features (T, C), the input of the output head, for each token of a tree; see `TreeCache`. `text` is not modified.

    Raises ValueError if the deepest token would lie beyond the context.
    """
    with torch.inference_mode():
        return model.features(torch.tensor([list(ids)], device=model.device), TreeCache(text, parents))[0]
