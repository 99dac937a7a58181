"""Teacher forcing without a KV cache, for training and for single passes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tui_llm.llm.model.model import GPT


def forced_logits(model: GPT, ids: Sequence[int], wanted: Sequence[int], size: int) -> Tensor:
    """Logits (max(1, T), V) for the T tokens of `wanted` after `ids`, each given the true tokens before it, float32, on
    the model's device. Takes one forward pass as long as everything fits into the context; after that the window slides
    and each token takes one pass. `size` is V: ids beyond it only pad the embedding. Gradients flow if grad mode is
    enabled."""
    context, device = model.config.context, model.device
    window = list(ids[-context:])
    fits = max(0, min(context - len(window), len(wanted) - 1))
    rows = [model(torch.tensor([window + list(wanted[:fits])], device=device), last=fits + 1)[0]]
    for count in range(fits + 1, len(wanted)):
        window = [*ids, *wanted[:count]][-context:]
        rows.append(model(torch.tensor([window], device=device), last=1)[0])
    return torch.cat(rows)[:, :size].float()
