"""Fast single-token decoding on a CPU: replaces the linear layers of `model.py` by faster or smaller ones.

A decoding step for one token multiplies by every weight once, so its time is that of reading the weights from memory
(profiled: 80 % of the time is in these products). It gets faster by reading them at full memory bandwidth, and by
making them smaller.

- `fp32`: the same weights, in place. Results differ only by the order of summation.
- `half`: fp16 weights, accumulated in fp32. Biases, LayerNorms, position embeddings, the residual stream, attention and
  the cache stay fp32.
- `int8`: weight-only quantization to 8 bits with a scale for each small group. Changes the results.

What multiplies, torch's products or those of native.c, is chosen by `kernels.py`.

Letters: T tokens, C inputs, O outputs, V the vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tui_llm.common import memory
from tui_llm.common.errors import UserError
from tui_llm.llm.model import device, graph_decode, kernels, native, native_step
from tui_llm.llm.model.graph_decode import GraphStep, StaticStep
from tui_llm.llm.model.kernels import Kernel
from tui_llm.llm.model.kv_cache import KVCache
from tui_llm.llm.model.linear_layers import Exact, Function, Matrix, Reduced, Rows
from tui_llm.llm.model.model import GPT, Attention, Block, activation
from tui_llm.llm.model.native_step import NativeStep
from tui_llm.llm.model.predictor import GPTPredictor
from tui_llm.llm.model.weight_names import check_weights

_STREAMED = 8  # reading one weight from memory takes a core about as long as this many multiply-adds


class FastPredictor(GPTPredictor):
    """`GPTPredictor` for a model whose layers `prepare` has replaced. Without `steps` all tokens go through the model's
    modules, so that their hooks are called."""

    def __init__(self, model: GPT, kernel: str = "torch", *, steps: bool = True) -> None:
        super().__init__(model)
        self.kernel = kernel
        self._step: _Step | _SwitchedStep | NativeStep | None = None
        if steps and model.device.type == "cpu":
            step = NativeStep if native_step.fits(model) else _Step if model.config.plain else _SwitchedStep
            self._step = step(model, self._cache)
        self.static_step: StaticStep | None = None  # on CUDA, from the first single token on
        self._records = steps and graph_decode.fits(model)
        self._last: tuple[Tensor, Tensor] | None = None  # features and logits of `static_step`

    def run(self, ids: Sequence[int]) -> Tensor:
        if len(ids) == 1 and self._step is not None:
            with torch.inference_mode(), device.threads(self.parameters * _STREAMED):
                return self._step(ids[0])
        if len(ids) == 1 and self._records:
            self._record()
        if len(ids) == 1 and self.static_step is not None:
            with torch.inference_mode():
                features, logits = self.static_step(ids[0])
                self._last = features.clone(), logits.clone()
                return self._last[0]
        with torch.inference_mode(), device.threads(self.parameters * max(len(ids), _STREAMED)):
            if isinstance(self._step, NativeStep) and self._step.takes(len(ids)):
                return self._step.prompt(ids)
            return self.model.features(torch.tensor([ids], device=self.model.device), self._cache)[0].float().cpu()

    def head(self, features: Any, size: int) -> Tensor:
        features = torch.as_tensor(features)
        if self._last is not None and torch.equal(features, self._last[0]):  # computed with them
            return self._last[1][:, :size]
        T, C = features.shape
        with torch.inference_mode(), device.threads(max(T, _STREAMED) * C * size):
            logits = self.model.logits(features.to(self.model.device))
            return logits[:, :size].float().cpu()

    def _record(self) -> None:
        """Record `static_step`, once. A model that can't be recorded is run by Python."""
        self._records = False
        with contextlib.suppress(RuntimeError):  # out of memory too
            self.static_step = GraphStep(self.model, self._cache)


_Layer = tuple[Function, Function, Function, Function, Function, Function, Tensor, Tensor]


class _Step:
    """`model.features` for one token with a cache: the same operations in the same order, without what only longer
    inputs, training or other devices need. In a small model that overhead costs as much as the products."""

    def __init__(self, model: GPT, cache: KVCache) -> None:
        self.model, self.cache, self.heads = model, cache, model.config.heads
        self.layers = [_layer(block, cache, number) for number, block in enumerate(model.blocks)]
        self.norm = _norm(model.norm)
        self.scale = (model.config.width // self.heads) ** -0.5
        self.nothing = torch.zeros(1, 1, 1)
        self.approximate = "none" if model.config.exact_gelu else "tanh"

    def __call__(self, id: int) -> Tensor:
        """The features (1, C) of token `id`. Raises ValueError if the context is full."""
        past, context = self.cache.length, self.model.config.context
        if past >= context:
            raise ValueError(f"{past + 1} tokens in a context of {context}")
        x = self.model.tokens(torch.tensor([id])) + self.model.positions.weight[past]  # (1, C)
        C = x.size(1)
        for norm1, qkv, out, norm2, up, down, keys, values in self.layers:
            q, k, v = qkv(norm1(x)).view(3, self.heads, 1, C // self.heads).unbind()  # (H, 1, D)
            keys.narrow(1, past, 1).copy_(k)
            values.narrow(1, past, 1).copy_(v)
            seen, there = keys.narrow(1, 0, past + 1), values.narrow(1, 0, past + 1)  # (H, P + 1, D), not copied
            # For one query two products are faster than scaled_dot_product_attention.
            scores = torch.baddbmm(self.nothing, q, seen.transpose(1, 2), beta=0, alpha=self.scale)  # (H, 1, P + 1)
            x = x + out(torch.bmm(scores.softmax(-1), there).view(1, C))
            x = x + down(F.gelu(up(norm2(x)), approximate=self.approximate))
        self.cache.length = past + 1
        return self.norm(x)


class _SwitchedStep:
    """The same for a model with architecture switches."""

    def __init__(self, model: GPT, cache: KVCache) -> None:
        self.model, self.cache = model, cache
        self.layers = [_layer(block, cache, number) for number, block in enumerate(model.blocks)]
        self.splits = [_attention(block).split for block in model.blocks]
        self.norm = _norm(model.norm)
        self.key_heads, self.window = model.config.key_heads, model.config.window
        self.scale = model.config.size**-0.5
        self.nothing = torch.zeros(1, 1, 1)
        self.activation = activation(model.config)

    def __call__(self, id: int) -> Tensor:
        """The features (1, C) of token `id`. Raises ValueError if the context is full."""
        past, context = self.cache.length, self.model.config.context
        if past >= context:
            raise ValueError(f"{past + 1} tokens in a context of {context}")
        x, rotation = self.model.embed(torch.tensor([id]), torch.tensor([past]))  # (1, C)
        C = x.size(1)
        first = max(0, past + 1 - self.window) if self.window else 0
        for split, layer in zip(self.splits, self.layers, strict=True):
            norm1, qkv, out, norm2, up, down, keys, values = layer
            q, k, v = split(qkv(norm1(x)), rotation)  # (H, 1, D), (K, 1, D)
            keys.narrow(1, past, 1).copy_(k)
            values.narrow(1, past, 1).copy_(v)
            seen, there = (
                one.narrow(1, first, past + 1 - first) for one in (keys, values)
            )  # (K, P + 1, D), not copied
            q = q.view(self.key_heads, -1, q.size(2))  # (K, H / K, D): the query heads that share keys
            # For one query two products are faster than scaled_dot_product_attention.
            scores = torch.baddbmm(self.nothing, q, seen.transpose(1, 2), beta=0, alpha=self.scale)  # (K, H / K, P + 1)
            x = x + out(torch.bmm(scores.softmax(-1), there).view(1, C))
            x = x + down(self.activation(up(norm2(x))))
        self.cache.length = past + 1
        return self.norm(x)


def _layer(block: nn.Module, cache: KVCache, number: int) -> _Layer:
    assert isinstance(block, Block)
    attention, mlp = block.attention, block.mlp
    return (
        _norm(block.norm1),
        _one(attention.qkv),
        _one(attention.out),
        _norm(block.norm2),
        _one(mlp.up),
        _one(mlp.down),
        cache.keys[number, 0],  # (K, context, D)
        cache.values[number, 0],
    )


def _attention(block: nn.Module) -> Attention:
    assert isinstance(block, Block)
    return block.attention


def _one(layer: nn.Module) -> Function:
    assert isinstance(layer, Exact | Reduced)
    return layer.one()


def _norm(layer: nn.LayerNorm | nn.RMSNorm) -> Function:
    shape, weight = list(layer.normalized_shape), layer.weight
    if isinstance(layer, nn.RMSNorm):
        return lambda x: torch.rms_norm(x, shape, weight, layer.eps)
    bias, eps = layer.bias, layer.eps
    return lambda x: torch.layer_norm(x, shape, weight, bias, eps)


def predictor(model: GPT, weights: str = "fp32", kernel: str = "") -> FastPredictor:
    """Prepare `model` and wrap it. Modifies `model` in place, see `prepare`. Raises `UserError` if that is
    impossible."""
    chosen = prepare(model, weights, kernel=kernel)
    return FastPredictor(model, chosen.name)


_REDUCED = ("attention.qkv", "attention.out", "mlp.up", "mlp.down")


def is_reduced(name: str) -> bool:
    """Whether `prepare` replaces this parameter of `GPT`, unless the format is fp32."""
    return name in ("tokens.weight", "head.weight") or name.endswith(tuple(f".{layer}.weight" for layer in _REDUCED))


@torch.no_grad()
def prepare(
    model: GPT,
    weights: str,
    read: Callable[[str], Matrix] | None = None,
    *,
    kernel: str = "",
    place: torch.device | None = None,
) -> Kernel:
    """Replace the linear layers and the embedding of an inference-only model by those of the format `weights`, in
    place. With `read`, the weights are those that it returns for a parameter's name, not the model's own. `kernel`: its
    name, see `kernels.choose`. `place`: where a model is that has no weights of its own yet. Returns the one used. Raises `UserError` on an unknown format or kernel, on int8 off the
    CPU, and on a weight that overflows fp16."""
    check_weights(weights)
    place = model.device if place is None else place
    if weights == "int8" and place.type != "cpu":
        raise UserError(f"int8 weights are for the CPU, not for {place.type}; try --weights half, or --device cpu")
    chosen = kernels.choose(weights, kernel, place, model.config.parameters())
    if weights == "fp32":
        for layer in model.modules():
            if type(layer) is nn.Linear:
                layer.__class__ = chosen.layer  # type: ignore[assignment]
                native.use_huge_pages(layer.weight)
        return chosen
    matrix = read or (lambda name: model.get_parameter(name).detach())
    tied = model.head.weight is model.tokens.weight
    for number, block in enumerate(model.blocks):  # each replaced one is freed before the next is converted
        for name in _REDUCED:
            bias: Any = block.get_submodule(name).bias
            bias = None if bias is None else bias.detach()
            block.set_submodule(name, chosen.reduced(matrix(f"blocks.{number}.{name}.weight"), bias))
        memory.trim()
    rows = chosen.table(matrix("tokens.weight"))
    head = rows if tied else chosen.table(matrix("head.weight"))
    model.tokens, model.head = Rows(rows), head  # type: ignore[assignment]
    memory.trim()
    return chosen
