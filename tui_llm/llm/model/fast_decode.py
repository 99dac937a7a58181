"""Fast single-token decoding on a CPU: replaces the linear layers of `model.py` by faster or smaller ones.

A decoding step for one token multiplies by every weight once, so its time is that of reading the weights from memory
(profiled: 80 % of the time is in these products). It gets faster by reading them at full memory bandwidth, and by
making them smaller.

- `fp32`: the same weights, in place. torch uses MKL for these products, which reads a matrix for one token at half the
  memory bandwidth. oneDNN, also part of torch, reaches nearly all of it, and is a quarter faster for many tokens at
  once. Results differ only by the order of summation.
- `half`: fp16 weights, accumulated in fp32. Biases, LayerNorms, position embeddings, the residual stream, attention and
  the cache stay fp32.
- `int8`: weight-only affine quantization to 256 levels between the minimum and maximum of each group (Jacob et al.
  2018, section 2.1), accumulated in fp32. Changes the results. A matrix-vector product is a weighted sum of columns, which is
  torch's embedding bag: its kernel for byte rows runs at memory bandwidth.

Letters: T tokens, C inputs, O outputs, V the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tui_llm.common.errors import UserError
from tui_llm.llm.model import device, torch_private
from tui_llm.llm.model.model import GPT, Block, KVCache
from tui_llm.llm.model.predictor import GPTPredictor
from tui_llm.llm.model.weight_names import check_weights

_FEW = 5  # up to this many rows, multiply by the packed weights; beyond, converting them to fp32 first is faster
_ROWS = 4096  # outputs converted to fp32 at a time
_GROUP = 384  # group size: outputs whose weights from one input share a scale; a multiple of 16
_STREAMED = 8  # reading one weight from memory takes a core about as long as this many multiply-adds


Function = Callable[[Tensor], Tensor]


class FastPredictor(GPTPredictor):
    """`GPTPredictor` for a model whose layers `prepare` has replaced. Without `steps` a single token goes through the
    model's modules too, so that their hooks are called."""

    def __init__(self, model: GPT, *, steps: bool = True) -> None:
        super().__init__(model)
        self._step = _Step(model, self._cache) if steps and model.device.type == "cpu" else None

    def run(self, ids: Sequence[int]) -> Tensor:
        if len(ids) == 1 and self._step is not None:
            with torch.inference_mode(), device.threads(self.parameters * _STREAMED):
                return self._step(ids[0])
        with torch.inference_mode(), device.threads(self.parameters * max(len(ids), _STREAMED)):
            return self.model.features(torch.tensor([ids], device=self.model.device), self._cache)[0].float().cpu()

    def head(self, features: Any, size: int) -> Tensor:
        features = torch.as_tensor(features)
        T, C = features.shape
        with torch.inference_mode(), device.threads(max(T, _STREAMED) * C * size):
            logits: Tensor = self.model.head(features.to(self.model.device))
            return logits[:, :size].float().cpu()


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear` in fp32, by oneDNN if torch has both it and MKL. Not differentiable."""
    if torch_private.HAS_ONEDNN_LINEAR and x.device.type == "cpu":
        return torch_private.onednn_linear(x, weight, bias)
    return F.linear(x, weight, bias)


class Exact(nn.Linear):
    """`nn.Linear` that multiplies through `_linear` when grad mode is disabled; same weights."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if torch.is_grad_enabled() else _linear(x, self.weight, self.bias)

    def one(self) -> Function:
        """A function equal to `forward` for one token (1, C), with its tensors bound: module attribute lookup is
        slow."""
        weight, bias = self.weight, self.bias
        return lambda x: _linear(x, weight, bias)


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
        cache.keys[number, 0],  # (H, context, D)
        cache.values[number, 0],
    )


def _one(layer: nn.Module) -> Function:
    assert isinstance(layer, Exact | Reduced)
    return layer.one()


def _norm(layer: nn.LayerNorm) -> Function:
    shape, weight, bias, eps = list(layer.normalized_shape), layer.weight, layer.bias, layer.eps
    return lambda x: torch.layer_norm(x, shape, weight, bias, eps)


def predictor(model: GPT, weights: str = "fp32") -> FastPredictor:
    """Prepare `model` and wrap it. Modifies `model` in place, see `prepare`. Raises `UserError` if that is
    impossible."""
    prepare(model, weights)
    return FastPredictor(model)


@torch.no_grad()
def prepare(model: GPT, weights: str) -> None:
    """Replace the linear layers and the embedding of an inference-only model by those of the format `weights`, in
    place. Raises `UserError` on an unknown format, on int8 off the CPU, and on a weight that overflows fp16."""
    check_weights(weights)
    place = model.device
    if weights == "fp32":
        for layer in model.modules():
            if type(layer) is nn.Linear:
                layer.__class__ = Exact
        return
    if weights == "int8" and place.type != "cpu":
        raise UserError(f"int8 weights are for the CPU, not for {place.type}; try --weights half, or --device cpu")
    kind = Half if weights == "half" else Int8
    for block in model.blocks:
        assert isinstance(block, Block)
        for parent, name in (
            (block.attention, "qkv"),
            (block.attention, "out"),
            (block.mlp, "up"),
            (block.mlp, "down"),
        ):
            layer = getattr(parent, name)
            setattr(parent, name, kind(layer.weight.detach(), layer.bias.detach()))
    tied = model.head.weight is model.tokens.weight
    head = kind(model.head.weight.detach(), centre=weights == "half")
    rows = head if tied else kind(model.tokens.weight.detach(), centre=weights == "half")
    model.tokens, model.head = Rows(rows), head  # type: ignore[assignment]


class Reduced(nn.Module):
    """A linear layer (O, C) with its weights in fewer bits; input and output are fp32.

    With `centre`, the mean of the weight's rows is subtracted and kept in fp32. An output head's logits often share a
    large offset (around −100 in GPT-2) that comes from this mean and would waste precision.
    """

    weight: Tensor
    bias: Tensor | None
    mean: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, centre: bool = False) -> None:
        super().__init__()
        mean = weight.mean(0) if centre else None
        self.register_buffer("bias", bias)
        self.register_buffer("mean", mean)
        self.pack(weight if mean is None else weight - mean)

    def pack(self, weight: Tensor) -> None:
        """Convert the weight (O, C) and register it as buffers."""
        raise NotImplementedError

    def product(self, x: Tensor) -> Tensor:
        """(T, C) → (T, O), both fp32, without bias and mean."""
        raise NotImplementedError

    def one(self) -> Function:
        """A function equal to `forward` for one token (1, C), for a layer with a bias and no mean."""
        raise NotImplementedError

    def _offset(self) -> Tensor:
        assert self.bias is not None and self.mean is None
        return self.bias

    def rows(self, ids: Tensor | slice) -> Tensor:
        """Rows of the weight in fp32, without the mean."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) → (…, O), both fp32."""
        flat = x.reshape(-1, x.size(-1))
        y = self.product(flat)
        if self.mean is not None:
            y += (flat @ self.mean)[:, None]
        if self.bias is not None:
            y += self.bias
        return y.view(*x.shape[:-1], -1)


class Half(Reduced):
    """fp16 weights. Raises `UserError` if a weight overflows fp16."""

    def pack(self, weight: Tensor) -> None:
        half = weight.half()
        if half.isinf().any():
            raise UserError("a weight of this model is beyond float16's range; try --weights fp32")
        self.register_buffer("weight", half.contiguous())

    def product(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return F.linear(x.half(), self.weight).float()
        if len(x) == 1:
            return torch.mv(self.weight, x[0].half()).float()[None]
        if len(x) <= _FEW:
            return torch.stack([torch.mv(self.weight, row) for row in x.half()]).float()
        return torch.cat([_linear(x, part.float(), None) for part in self.weight.split(_ROWS)], dim=-1)

    def one(self) -> Function:
        weight, bias = self.weight, self._offset()
        return lambda x: torch.mv(weight, x[0].half()).float().add_(bias)[None]

    def rows(self, ids: Tensor | slice) -> Tensor:
        return self.weight[ids].float()


class Int8(Reduced):
    """Outputs are split into groups. A group is stored as C rows, one per input, each followed by its scale and its
    minimum, as torch's byte-rowwise format has it. The offset that all logits share is part of the minimum, so no mean
    is needed."""

    ids: Tensor  # the index of every row, int32
    bags: Tensor  # the index of each group's first row, int32

    def pack(self, weight: Tensor) -> None:
        self.outputs, self.inputs = weight.shape
        self.groups = -(-self.outputs // _GROUP)
        size = min(_GROUP, -(-self.outputs // 16) * 16)
        spare = weight[-1:].expand(self.groups * size - self.outputs, -1)  # padding that keeps the group's range
        padded = torch.cat((weight, spare)).view(self.groups, size, self.inputs)
        packed = torch_private.pack_bytes(padded.transpose(1, 2).reshape(-1, size))
        self.register_buffer("weight", packed)  # (groups × C, size + 8), bytes
        self.register_buffer("ids", torch.arange(len(packed), dtype=torch.int32), persistent=False)
        self.register_buffer("bags", self.ids[:: self.inputs].contiguous(), persistent=False)

    def product(self, x: Tensor) -> Tensor:
        T, C = x.shape
        if T > _FEW:
            # Convert one group at a time, so that its fp32 copy stays in the CPU's cache and reuses allocated memory.
            parts = [_linear(x, self._wide(group).T, None) for group in range(self.groups)]
            return torch.cat(parts, dim=-1)[:, : self.outputs]
        if T == 1:
            return self._sums(x, self.ids, self.bags).view(1, -1)[:, : self.outputs]
        ids = self.ids.view(-1, 1, C).expand(-1, T, C).reshape(-1)
        made = self._sums(x, ids, torch.arange(0, len(ids), C, dtype=torch.int32))
        return made.view(self.groups, T, -1).transpose(0, 1).reshape(T, -1)[:, : self.outputs]

    def _sums(self, x: Tensor, ids: Tensor, bags: Tensor) -> Tensor:
        """One bag per group and token: C rows, weighted with the input's components. Returns (groups × T, size)."""
        given = x.expand(self.groups, *x.shape).reshape(-1)
        made: Tensor = torch_private.byte_bags(self.weight, ids, bags, False, 0, False, given)
        return made

    def one(self) -> Function:
        weight, ids, bags, groups, inputs = self.weight, self.ids, self.bags, self.groups, self.inputs
        outputs, bias = self.outputs, self._offset()

        def one(x: Tensor) -> Tensor:
            made = torch_private.byte_bags(weight, ids, bags, False, 0, False, x.expand(groups, inputs).reshape(-1))
            return made.view(1, -1)[:, :outputs].add_(bias)

        return one

    def _wide(self, group: int) -> Tensor:
        """The weights (C, size) of a group, in fp32."""
        rows = self.weight[group * self.inputs : (group + 1) * self.inputs]
        return torch_private.unpack_bytes(rows)

    def rows(self, ids: Tensor | slice) -> Tensor:
        if isinstance(ids, slice):
            return torch.cat([self._wide(group).T for group in range(self.groups)])[: self.outputs][ids]
        table = self.weight.view(self.groups, self.inputs, -1)
        size = table.size(2) - 8
        group = ids // size
        level, lowest = table[:, :, size:][group].view(torch.float32).unbind(-1)  # (T, C)
        return table[group, :, ids % size] * level + lowest


class Rows(nn.Module):
    """The token embedding: looks up the rows of `table`, which is the output head's own if the two are tied."""

    def __init__(self, table: Reduced) -> None:
        super().__init__()
        self.table = table

    def forward(self, ids: Tensor) -> Tensor:
        """ids (…) → embeddings (…, C), fp32."""
        rows, mean = self.table.rows(ids), self.table.mean
        return rows if mean is None else rows + mean

    @property
    def weight(self) -> Tensor:
        """The weight (V, C) in fp32, dequantized on each access."""
        return self.forward(slice(None))  # type: ignore[arg-type]
