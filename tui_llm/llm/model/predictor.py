"""`Predictor`, the interface to a model of any architecture: token ids → features → logits.

A predictor caches what it has processed, so that each token is run once. `GPTPredictor` is for our own GPT-2,
`numpy_gpt.NumpyGPT` the one without torch; `adapters` has those for other models. Letters: T tokens, C the features per token, V the ids that the head knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from tui_llm.llm.model import device
from tui_llm.llm.model.model import GPT, KVCache


class Predictor(Protocol):
    """One row of text at a time (batch size 1)."""

    parameters: int
    layers: int
    heads: int
    width: int
    context: int  # context length in tokens
    vocabulary: int  # V: rows of its output head, padding included
    kept: int  # C: features per token

    def run(self, ids: Sequence[int]) -> Any:
        """Features (T, C) of `ids`, the input of the output head, float32 on the CPU: a tensor or an array. `ids`
        follow the tokens already run."""
        ...

    def crop(self, length: int) -> None:
        """Discard all but the first `length` tokens that were run."""
        ...

    def head(self, features: Any, size: int) -> Any:
        """Features (T, C) from `run`, in an array too → logits (T, size), float32 on the CPU: the first `size` ids."""
        ...

    def embedding(self) -> Any:
        """The input token embedding (V, C'), where C' is the model's width."""
        ...


class GPTPredictor:
    """A predictor for our own GPT-2, with its KV cache."""

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

    def head(self, features: Any, size: int) -> Tensor:
        features = torch.as_tensor(features)
        with torch.inference_mode(), device.threads(features.numel() * size):
            weight = self.model.head.weight
            logits = self.model.logits(features.to(weight.device, weight.dtype))
            return logits[:, :size].float().cpu()

    def embedding(self) -> Tensor:
        return self.model.tokens.weight
