"""Opening the black box: what the blocks of a GPT hand on to one another, and what each head looks at.

`trace` runs the model's own blocks over a text once and keeps what a forward pass lets go. From it come, for any token of
that text, the attention of every head (Vaswani et al. 2017, arXiv:1706.03762) and the logit lens: the prediction as it
stands after each block (nostalgebraist, "interpreting GPT: the logit lens", 2020). Letters as in `model.py`: T tokens, C
the width, H heads, D = C ÷ H, V the vocabulary; N is the number of blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tui_llm.common.errors import Overtaken
from tui_llm.llm.model import device
from tui_llm.llm.model.model import GPT, Attention, Block


@dataclass(frozen=True, slots=True)
class Trace:
    """One text on its way through the model. Queries and keys stand for the attention of all tokens in T × C numbers a
    block, where the weights themselves would take H × T × T."""

    ids: tuple[int, ...]
    residuals: Tensor  # (N + 1, T, C): the residual stream before the first block, and after each
    queries: Tensor  # (N, H, T, D)
    keys: Tensor  # (N, H, T, D)


def projections(attention: Attention, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What a layer makes of its input x (T, C): its queries, keys and values, each (H, T, D)."""
    T, C = x.shape
    q, k, v = (
        part.view(T, attention.heads, C // attention.heads).transpose(0, 1) for part in attention.qkv(x).split(C, dim=1)
    )
    return q, k, v


@torch.inference_mode()
def trace(model: GPT, ids: Sequence[int], overtaken: Callable[[], bool] = lambda: False) -> Trace:
    """Runs `ids` (1 to `context` of them) through the model. Raises `Overtaken` between two blocks, ValueError where
    they are none or too many."""
    config, T = model.config, len(ids)
    if not 1 <= T <= config.context:
        raise ValueError(f"{T} tokens in a context of {config.context}")
    x = model.tokens(torch.tensor([list(ids)], device=model.device))
    x = x + model.positions(torch.arange(T, device=model.device))  # (1, T, C)
    shape = (config.layers, config.heads, T, config.width // config.heads)
    queries, keys = x.new_empty(shape), x.new_empty(shape)
    residuals = x.new_empty(config.layers + 1, T, config.width)
    residuals[0] = x[0]
    for layer, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        if overtaken():
            raise Overtaken
        with device.threads(config.parameters() // config.layers * T):
            queries[layer], keys[layer], _ = projections(block.attention, block.norm1(x)[0])
            x = block(x)  # the block itself, so that nothing here can differ from what the model does
        residuals[layer + 1] = x[0]
    return Trace(tuple(ids), residuals, queries, keys)


@torch.inference_mode()
def attention(traced: Trace, at: int) -> Tensor:
    """(N, H, at + 1), float32 on the CPU: how each head of each block spread its attention when it stood at token number
    `at`, over the tokens up to itself: softmax(q · k ÷ √D). Each row sums to 1; later tokens are masked."""
    queries = traced.queries[:, :, at].float()  # (N, H, D)
    keys = traced.keys[:, :, : at + 1].float()  # (N, H, at + 1, D)
    with device.threads(keys.numel()):
        scores = (keys @ queries[..., None])[..., 0] / math.sqrt(queries.size(-1))
        return scores.softmax(-1).cpu()


@torch.inference_mode()
def lens(model: GPT, traced: Trace, at: int) -> Tensor:
    """(N + 1, V), float32 on the CPU: the logits for the token after number `at`, had the model ended before its first
    block, and after each: the last LayerNorm and the head on the residual stream. The last row is the model's own."""
    x = model.norm(traced.residuals[:, at])  # (N + 1, C)
    with device.threads(x.numel() * model.config.vocabulary):
        # The last row by itself, as the model computes it: a product of several rows rounds otherwise.
        return torch.cat((model.head(x[:-1]), model.head(x[-1:]))).float().cpu()
