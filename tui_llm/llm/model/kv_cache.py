"""The KV cache, and which tokens a token attends to. Letters as in `model.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from tui_llm.llm.model.shape import GPTConfig


class KVCache:
    """The keys and values of the tokens processed so far, so that only new tokens have to be run.

    Allocates space for one row of `context` tokens: 2 × layers × context × K × D numbers.
    """

    def __init__(
        self, config: GPTConfig, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        shape = (config.layers, 1, config.key_heads, config.context, config.size)  # (layers, 1, K, context, D)
        # Not cleared: what is not written takes no memory, and what was not written is never read.
        self.keys = torch.empty(shape, device=device, dtype=dtype)
        self.values = torch.empty(shape, device=device, dtype=dtype)
        self.length = 0  # P: number of tokens in the cache

    def crop(self, length: int) -> None:
        """Discard all but the first `length` tokens. The memory is not cleared; later tokens overwrite it."""
        self.length = min(self.length, length)

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values (1, K, T, D) after the old ones; returns all of them, each (1, K, P + T, D)."""
        end = self.length + keys.size(2)
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def end(self, count: int) -> int:
        """The number of positions in use after adding `count` tokens."""
        return self.length + count

    def positions(self, count: int) -> Tensor:
        """The positions of the next `count` tokens, (T,)."""
        return torch.arange(self.length, self.length + count, device=self.keys.device)

    def mask(self, count: int, window: int = 0) -> Tensor | None:
        """The attention mask of the next `count` tokens, see `attention_mask`."""
        return attention_mask(count, self.length, window, self.keys.device)


def attention_mask(count: int, past: int, window: int, device: torch.device) -> Tensor | None:
    """The attention mask of `count` tokens after `past` ones, bool (T, P + T): True for the tokens up to the token itself,
    with a `window` for that many. None if it would be all True, or if plain causal attention is the same."""
    cuts = 0 < window < past + count
    if not cuts and (not past or count == 1):
        return None
    seen = torch.ones(count, past + count, dtype=torch.bool, device=device).tril(past)
    return seen.triu(past - window + 1) if cuts else seen
