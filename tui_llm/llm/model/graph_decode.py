"""Single-token decoding on CUDA: one launch of a CUDA graph for a token, instead of some 200 launches by Python.

A small model's kernels take a few microseconds each, less than Python takes to launch them. A CUDA graph records the
launches once and repeats them with one call, on the same memory: so nothing may depend on the position but the content of
tensors. The token's id and position are tensors, its keys and values are written at an index, and attention runs over the
whole cache with a mask.

`StaticStep` computes this on any device; `GraphStep` records it, on CUDA only. Letters as in `model.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tui_llm.llm.model.kv_cache import KVCache
from tui_llm.llm.model.model import GPT

_WARM_UP = 3  # runs before recording: libraries allocate their workspaces and choose kernels


class StaticCache(KVCache):
    """`cache`'s memory, seen by one token whose position is in a tensor (1,), so that all shapes stay the same.

    It clears the memory, since a masked value still is multiplied by 0, which NaN survives. `length` is not used.
    """

    def __init__(self, cache: KVCache) -> None:
        self.keys, self.values = cache.keys, cache.values
        self.keys[:, :, :, cache.length :] = 0
        self.values[:, :, :, cache.length :] = 0
        device, self.length = self.keys.device, 0
        self.position = torch.zeros(1, dtype=torch.long, device=device)
        self._places = torch.arange(self.keys.size(3), device=device)

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store the token's keys and values (1, H, 1, D); returns those of the whole context, (1, H, context, D)."""
        self.keys[layer].index_copy_(2, self.position, keys.to(self.keys.dtype))
        self.values[layer].index_copy_(2, self.position, values.to(self.values.dtype))
        return self.keys[layer], self.values[layer]

    def end(self, count: int) -> int:
        """The caller checks the position: reading it here would wait for the GPU."""
        return count

    def positions(self, count: int) -> Tensor:
        return self.position

    def mask(self, count: int, window: int = 0) -> Tensor | None:
        """True up to the token itself, with a `window` for that many, bool (1, context)."""
        seen = self._places <= self.position
        return (seen & (self._places > self.position - window) if window else seen)[None]


class StaticStep:
    """One token at a time through `model`, after the tokens in `cache`: features and logits, with static shapes."""

    def __init__(self, model: GPT, cache: KVCache) -> None:
        self.model, self.cache = model, cache
        self._static = StaticCache(cache)
        device = model.device
        self._id = torch.zeros(1, 1, dtype=torch.long, device=device)
        # Where the steps before the first token write: behind the tokens that the cache holds.
        self._static.position.fill_(min(cache.length, model.config.context - 1))
        with torch.inference_mode():
            features, logits = self._compute()
        pinned = device.type == "cuda"
        self._features = torch.empty(features.shape, pin_memory=pinned)
        self._logits = torch.empty(logits.shape, pin_memory=pinned)

    def _compute(self) -> tuple[Tensor, Tensor]:
        """Features (1, C) and logits (1, V) of the token in `_id`, fp32."""
        self._static.length = 0
        features = self.model.features(self._id, self._static)[0]
        return features.float(), self.model.logits(features).float()

    def _launch(self) -> tuple[Tensor, Tensor]:
        return self._compute()

    def __call__(self, id: int) -> tuple[Tensor, Tensor]:
        """Features (1, C) and logits (1, V) of token `id`, on the CPU; the next call overwrites both. Raises ValueError if
        the context is full."""
        past, context = self.cache.length, self.model.config.context
        if past >= context:
            raise ValueError(f"{past + 1} tokens in a context of {context}")
        self._id.fill_(id)
        self._static.position.fill_(past)
        features, logits = self._launch()
        self._features.copy_(features, non_blocking=True)
        self._logits.copy_(logits, non_blocking=True)
        if features.device.type == "cuda":
            torch.cuda.current_stream(features.device).synchronize()
        self.cache.length = past + 1
        return self._features, self._logits


class GraphStep(StaticStep):
    """`StaticStep` as a CUDA graph. Raises RuntimeError if the model can't be recorded."""

    def __init__(self, model: GPT, cache: KVCache) -> None:
        if not fits(model):
            raise RuntimeError(f"CUDA graphs are for CUDA, not for {model.device.type}")
        with torch.cuda.device(model.device), torch.inference_mode():
            super().__init__(model, cache)
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_WARM_UP):
                    self._compute()
            torch.cuda.current_stream().wait_stream(side)
            self._graph = torch.cuda.CUDAGraph()
            # Other threads of the app may use the GPU meanwhile.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._recorded = self._compute()

    def _launch(self) -> tuple[Tensor, Tensor]:
        self._graph.replay()
        return self._recorded


def fits(model: GPT) -> bool:
    """Whether `GraphStep` can be tried."""
    return model.device.type == "cuda"
