"""A batch of prompts and answers as tensors, and ln π of the answers' tokens: what preferences and rewards are learned from.

Letters: N rows, T tokens of the longest row, C the width, V the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tui_llm.llm.learn.instruct import IGNORE
from tui_llm.llm.model.model import GPT, capped

Row = tuple[Sequence[int], Sequence[int]]  # a prompt and one answer to it, as ids


def padded(rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Inputs and targets (N, T), padded on the right, where causal attention ignores the padding. targets[n, t] is the
    token after inputs[n, t] where that is one of the answer's, else `IGNORE`."""
    length = max(len(prompt) + len(answer) - 1 for prompt, answer in rows)
    inputs = torch.zeros(len(rows), length, dtype=torch.long)
    targets = torch.full((len(rows), length), IGNORE, dtype=torch.long)
    for row, (prompt, answer) in enumerate(rows):
        ids = torch.tensor([*prompt, *answer])
        inputs[row, : len(ids) - 1] = ids[:-1]
        targets[row, len(prompt) - 1 : len(ids) - 1] = ids[len(prompt) :]
    return inputs, targets


def token_log_probabilities(
    model: GPT,
    inputs: Tensor,
    targets: Tensor,
    size: int,
    products: torch.dtype | None = None,
    *,
    temperature: float = 1.0,
    features: Tensor | None = None,
) -> Tensor:
    """ln π of every answer token (N, T) at a temperature, in nats, 0 where `targets` is `IGNORE`; float32, or the model's
    float64.

    `size` is V: ids beyond it only pad the embedding. The output head runs on the answers' positions only. `products` as
    for `GPT.features`. `features`: those before each answer token (answer tokens, C), if they are known. Gradients flow
    if grad mode is enabled.
    """
    answer = targets != IGNORE
    if features is None:
        features = model.features(inputs, products=products)[answer]
    weight = model.head.weight[:size]
    logits = F.linear(features, weight) if products is None else F.linear(features.to(products), weight.to(products))
    logits = capped(logits if logits.dtype == torch.float64 else logits.float(), model.config.softcap)
    if temperature != 1:
        logits = logits / temperature
    logs = -F.cross_entropy(logits, targets[answer], reduction="none")
    return torch.zeros(targets.shape, dtype=logs.dtype, device=logs.device).masked_scatter(answer, logs)
