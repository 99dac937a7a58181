"""Intermediate values of a GPT forward pass: residual stream, attention weights and the logit lens.

`trace` runs the model's own blocks over a text once and stores what a forward pass discards. From it come, for any
token of the text, the attention weights of every head (Vaswani et al. 2017, arXiv:1706.03762) and the logit lens: the
prediction after each block (nostalgebraist, "interpreting GPT: the logit lens", 2020). Letters as in `model.py`: T
tokens, C the width, H heads, D = C ÷ H, V the vocabulary; N is the number of blocks.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tui_llm.common.errors import Overtaken
from tui_llm.llm.model import device
from tui_llm.llm.model.model import GPT, Attention, Block, Rotation, capped
from tui_llm.llm.model.tuned_lens import TunedLens


@dataclass(frozen=True, slots=True)
class Trace:
    """The intermediate values of one forward pass. Stores queries and keys, T × C numbers per block, rather than the
    attention weights, H × T × T. Rotated and normalized, if the model does that; keys are those of each query head."""

    ids: tuple[int, ...]
    residuals: Tensor  # (N + 1, T, C): what each block gets, then what the final LayerNorm gets
    queries: Tensor  # (N, H, T, D)
    keys: Tensor  # (N, H, T, D)
    cut: tuple[int, ...] = ()  # tokens to which no other attends (see `interventions`)
    window: int = 0  # number of tokens that a token attends to, itself included; 0: all

    def hidden(self, at: int) -> list[int]:
        """The earlier tokens that token number `at` does not attend to."""
        before = range(at - self.window + 1) if self.window else ()
        return sorted({*before, *(token for token in self.cut if token < at)})


def projections(attention: Attention, x: Tensor, rotation: Rotation | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The queries, keys and values of each query head, (H, T, D) each, of an attention layer for its input x (T, C)."""
    q, k, v = attention.split(attention.qkv(x), rotation)
    return q, attention.shared(k), attention.shared(v)


@torch.inference_mode()
def trace(model: GPT, ids: Sequence[int], overtaken: Callable[[], bool] = lambda: False) -> Trace:
    """Run `ids` (1 to `context` of them) through the model. Raises `Overtaken` between two blocks, ValueError if `ids`
    is empty or too long."""
    config, T = model.config, len(ids)
    if not 1 <= T <= config.context:
        raise ValueError(f"{T} tokens in a context of {config.context}")
    where = torch.arange(T, device=model.device)
    x, rotation = model.embed(torch.tensor([list(ids)], device=model.device), where)  # (1, T, C)
    shape = (config.layers, config.heads, T, config.size)
    queries, keys = x.new_empty(shape), x.new_empty(shape)
    residuals = x.new_empty(config.layers + 1, T, config.width)
    cut: tuple[int, ...] = ()
    for layer, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        if overtaken():
            raise Overtaken
        attention = block.attention
        # The block's own forward, hooks included, so that the trace can't differ from the model.
        with device.threads(config.parameters() // config.layers * T), _seen(block) as seen:
            x = block(x, rotation=rotation)
        residuals[layer] = seen[block][0]
        queries[layer], keys[layer], _ = projections(attention, block.norm1.forward(seen[block])[0], rotation)
        cut = getattr(vars(attention).get("forward"), "cut", cut)
    with _seen(model.norm) as seen:
        model.norm(x)
    residuals[config.layers] = seen[model.norm][0]
    return Trace(tuple(ids), residuals, queries, keys, cut, config.window)


@contextmanager
def _seen(*modules: nn.Module) -> Iterator[dict[nn.Module, Tensor]]:
    """The inputs of modules in the forward passes of this context, after other hooks."""
    seen: dict[nn.Module, Tensor] = {}
    handles = [
        module.register_forward_pre_hook(lambda module, args: seen.__setitem__(module, args[0])) for module in modules
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def attention(traced: Trace, at: int) -> Tensor:
    """The attention weights of token number `at` in each head of each block: softmax(q · k ÷ √D) over the tokens up to
    itself. (N, H, at + 1), float32 on the CPU; each row sums to 1."""
    queries = traced.queries[:, :, at].float()  # (N, H, D)
    keys = traced.keys[:, :, : at + 1].float()  # (N, H, at + 1, D)
    with device.threads(keys.numel()):
        scores = (keys @ queries[..., None])[..., 0] / math.sqrt(queries.size(-1))
        scores[..., traced.hidden(at)] = -math.inf
        return scores.softmax(-1).cpu()


@torch.inference_mode()
def lens(model: GPT, traced: Trace, at: int, tuned: TunedLens | None = None) -> Tensor:
    """The logit lens for the token after number `at`: the final LayerNorm and output head applied to the residual
    stream before the first block and after each; with `tuned`, the tuned lens. (N + 1, V), float32 on the CPU; the last
    row is the model's own logits."""
    streams = traced.residuals[:, at]  # (N + 1, C)
    x = model.norm.forward(
        streams if tuned is None else tuned.all_translated(streams)
    )  # without hooks: the trace met them
    with device.threads(x.numel() * model.config.vocabulary):
        # The last row separately, as the model computes it: a product of several rows rounds differently.
        return torch.cat((model.logits(x[:-1]), model.logits(x[-1:]))).float().cpu()


@torch.inference_mode()
def unembedded(model: GPT, streams: Tensor) -> Tensor:
    """The final LayerNorm and output head applied to residual streams (n, C): logits (n, V), float32 on the CPU. Hooks
    on the LayerNorm do not apply: they change the last block's stream."""
    with device.threads(streams.numel() * model.config.vocabulary):
        return model.logits(model.norm.forward(streams)).float().cpu()


class GPTReadout:
    """The residual streams of a GPT, and what its final LayerNorm and output head make of them, for `learn.fit_lens`.
    vocabulary: the number of ids; those that only pad the embedding are left out."""

    def __init__(self, model: GPT, vocabulary: int) -> None:
        self.model, self.vocabulary = model, vocabulary
        self.layers, self.width = model.config.layers, model.config.width
        # Copies: tensors of inference mode can't be part of a gradient.
        self._norm = copy.deepcopy(model.norm).requires_grad_(False)
        self._head = model.head.weight.detach()[:vocabulary].clone()

    def streams(self, ids: Sequence[int]) -> Tensor:
        """The residual streams (N + 1, T, C) before the first block and after each."""
        return trace(self.model, ids).residuals.clone()

    def logits(self, stream: Tensor) -> Tensor:
        """Final LayerNorm and output head applied to streams (n, C): (n, V)."""
        return capped(nn.functional.linear(self._norm(stream), self._head), self.model.config.softcap)
