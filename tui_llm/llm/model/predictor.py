"""What the engine asks of a model, whatever its architecture: tokens in, what the head reads out, logits from that.

A predictor remembers what it has read, so that a token is run once. `GPTPredictor` is our own GPT-2; `adapters` has the
models of others. Letters: T tokens, C what is kept of a token, V the ids that the head knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from tui_llm.llm.model import device
from tui_llm.llm.model.model import GPT, KVCache


class Predictor(Protocol):
    """One row of text at a time."""

    parameters: int
    layers: int
    heads: int
    width: int
    context: int  # tokens that it can see at once
    vocabulary: int  # V: rows of its head, those that only pad it included
    kept: int  # C: numbers that it gives back for each token

    def run(self, ids: Sequence[int]) -> Tensor:
        """(T, C), float32 on the CPU: what the head reads at each of `ids`, which stand after those read so far."""
        ...

    def crop(self, length: int) -> None:
        """Forgets all but the first `length` tokens that were read."""
        ...

    def head(self, features: Tensor, size: int) -> Tensor:
        """(T, C) from `run` → logits (T, size), float32 on the CPU: the first `size` ids."""
        ...

    def embedding(self) -> Tensor:
        """(V, C'): the vector that stands for each token where the model begins."""
        ...


class GPTPredictor:
    """Our own GPT-2, with its KV cache."""

    def __init__(self, model: GPT) -> None:
        self.model = model
        config = model.config
        self.parameters = config.parameters()
        self.layers, self.heads, self.width = config.layers, config.heads, config.width
        self.context, self.vocabulary, self.kept = config.context, config.vocabulary, config.width
        self._cache = KVCache(config, model.device)

    def run(self, ids: Sequence[int]) -> Tensor:
        with torch.inference_mode(), device.threads(self.parameters * len(ids)):
            return self.model.features(torch.tensor([ids], device=self.model.device), self._cache)[0].float().cpu()

    def crop(self, length: int) -> None:
        self._cache.crop(length)

    def head(self, features: Tensor, size: int) -> Tensor:
        with torch.inference_mode(), device.threads(features.numel() * size):
            weight = self.model.head.weight
            logits: Tensor = self.model.head(features.to(weight.device, weight.dtype))
            return logits[:, :size].float().cpu()

    def embedding(self) -> Tensor:
        return self.model.tokens.weight
