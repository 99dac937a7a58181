"""Reading one token after the other, made fast on a CPU. `model.py` runs unchanged: its products are made by others.

A step of one token multiplies every weight once, so it takes as long as reading the weights from memory takes (a profile
has eight tenths of the time in these products). Two things help: read them at the memory's full speed, and make them
fewer bytes.

- `fp32`: the same weights, where they lie. torch makes these products with MKL, which reads a matrix for one token at half
  the speed of memory; oneDNN, which torch carries too, reads it at nearly full speed, and is a quarter faster on many
  tokens at once. Only the order of sums differs.
- `half`: 16-bit floats, sums in fp32. Biases, LayerNorms, positions, the residual stream, attention and the cache stay fp32.
- `int8`: 256 levels between the smallest and the largest weight of each group, in fp32 sums (affine rounding as in Jacob et
  al. 2018, section 2.1; of the weights only). Not the same numbers. A product with a vector is a sum of columns, weighted:
  what torch calls an embedding bag, with a kernel for such rows that keeps up with memory.

Letters: T tokens, C inputs, O outputs, V the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tui_llm.common.errors import UserError
from tui_llm.llm.model import device
from tui_llm.llm.model.model import GPT, Block, KVCache
from tui_llm.llm.model.predictor import GPTPredictor
from tui_llm.llm.model.weight_names import check_weights

_FEW = 5  # rows up to which products are made with 16- and 8-bit weights: for more, widening them first is faster
_ROWS = 4096  # outputs that are widened at once
_GROUP = 384  # outputs whose weights from one input share their levels; a multiple of 16
_STREAMED = 8  # reading a weight from memory takes a core as long as about so many multiply-adds with it


Function = Callable[[Tensor], Tensor]


class Predictor(GPTPredictor):
    """`GPTPredictor` on weights that `prepare` has laid down."""

    def __init__(self, model: GPT) -> None:
        super().__init__(model)
        self._step = _Step(model, self._cache) if model.device.type == "cpu" else None

    def run(self, ids: Sequence[int]) -> Tensor:
        if len(ids) == 1 and self._step is not None:
            with torch.inference_mode(), device.threads(self.parameters * _STREAMED):
                return self._step(ids[0])
        with torch.inference_mode(), device.threads(self.parameters * max(len(ids), _STREAMED)):
            return self.model.features(torch.tensor([ids], device=self.model.device), self._cache)[0].float().cpu()

    def head(self, features: Tensor, size: int) -> Tensor:
        T, C = features.shape
        with torch.inference_mode(), device.threads(max(T, _STREAMED) * C * size):
            logits: Tensor = self.model.head(features.to(self.model.device))
            return logits[:, :size].float().cpu()


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear` in fp32, by oneDNN where torch has it beside MKL. Keeps nothing for a gradient."""
    if _ONEDNN and x.device.type == "cpu":
        made: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")
        return made
    return F.linear(x, weight, bias)


_ONEDNN = (
    torch.backends.mkl.is_available()
    and torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)


class Exact(nn.Linear):
    """`nn.Linear` with its own weights; only who multiplies is another, as long as no gradient is wanted."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if torch.is_grad_enabled() else _linear(x, self.weight, self.bias)

    def one(self) -> Function:
        """`forward` of one token (1, C), which has all it needs at hand: looking a module's tensors up takes a while."""
        weight, bias = self.weight, self.bias
        return lambda x: _linear(x, weight, bias)


_Layer = tuple[Function, Function, Function, Function, Function, Function, Tensor, Tensor]


class _Step:
    """`model.features` for one token and a cache: the same operations in the same order, without what only longer rows,
    training or another device need. In a small model calling all that costs as much as the products."""

    def __init__(self, model: GPT, cache: KVCache) -> None:
        self.model, self.cache, self.heads = model, cache, model.config.heads
        self.layers = [_layer(block, cache, number) for number, block in enumerate(model.blocks)]
        self.norm = _norm(model.norm)
        self.scale = (model.config.width // self.heads) ** -0.5
        self.nothing = torch.zeros(1, 1, 1)

    def __call__(self, id: int) -> Tensor:
        """(1, C). Raises ValueError where the context is full."""
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
            x = x + down(F.gelu(up(norm2(x)), approximate="tanh"))
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


def predictor(model: GPT, weights: str = "fp32") -> Predictor:
    """Takes `model` over: its weights are another afterwards. Raises `UserError` where that can't be."""
    prepare(model, weights)
    return Predictor(model)


@torch.no_grad()
def prepare(model: GPT, weights: str) -> None:
    """Makes a model that is only read a faster one, in place. Raises `UserError`."""
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
    """A linear layer (O, C) whose weights are kept in fewer bits; takes and gives fp32.

    With `centre`, the mean of its rows is taken off the weights and kept apart in fp32. A head's logits often have a
    large common part (around −100 in GPT-2): it would use up the bits, and it comes from that mean."""

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
        raise NotImplementedError

    def product(self, x: Tensor) -> Tensor:
        """(T, C) → (T, O), both fp32."""
        raise NotImplementedError

    def one(self) -> Function:
        """`forward` of one token (1, C), of a layer with a bias and without a mean."""
        raise NotImplementedError

    def _offset(self) -> Tensor:
        assert self.bias is not None and self.mean is None
        return self.bias

    def rows(self, ids: Tensor | slice) -> Tensor:
        """Rows of the weights in fp32, without the mean."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.size(-1))
        y = self.product(flat)
        if self.mean is not None:
            y += (flat @ self.mean)[:, None]
        if self.bias is not None:
            y += self.bias
        return y.view(*x.shape[:-1], -1)


class Half(Reduced):
    def pack(self, weight: Tensor) -> None:
        half = weight.half()
        if half.isinf().any():
            raise UserError("a weight of this model is beyond what 16 bits can hold; try --weights fp32")
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


_bags = torch.ops.quantized.embedding_bag_byte_rowwise_offsets.default


class Int8(Reduced):
    """Groups of outputs lie one after the other: of each, C rows (its weights from one input), and behind each row, as
    torch has it, the size of a level and the lowest one. The common part of a head's logits is in the latter."""

    ids: Tensor  # of all rows, int32
    bags: Tensor  # where each group's begin, int32

    def pack(self, weight: Tensor) -> None:
        self.outputs, self.inputs = weight.shape
        self.groups = -(-self.outputs // _GROUP)
        size = min(_GROUP, -(-self.outputs // 16) * 16)
        spare = weight[-1:].expand(self.groups * size - self.outputs, -1)  # repeated, so as not to widen the levels
        padded = torch.cat((weight, spare)).view(self.groups, size, self.inputs)
        packed = torch.ops.quantized.embedding_bag_byte_prepack(padded.transpose(1, 2).reshape(-1, size))
        self.register_buffer("weight", packed)  # (groups × C, size + 8), bytes
        self.register_buffer("ids", torch.arange(len(packed), dtype=torch.int32), persistent=False)
        self.register_buffer("bags", self.ids[:: self.inputs].contiguous(), persistent=False)

    def product(self, x: Tensor) -> Tensor:
        T, C = x.shape
        if T > _FEW:
            # Group by group, so that what is widened stays in the cache, and in memory that the process has.
            parts = [_linear(x, self._wide(group).T, None) for group in range(self.groups)]
            return torch.cat(parts, dim=-1)[:, : self.outputs]
        if T == 1:
            return self._sums(x, self.ids, self.bags).view(1, -1)[:, : self.outputs]
        ids = self.ids.view(-1, 1, C).expand(-1, T, C).reshape(-1)
        made = self._sums(x, ids, torch.arange(0, len(ids), C, dtype=torch.int32))
        return made.view(self.groups, T, -1).transpose(0, 1).reshape(T, -1)[:, : self.outputs]

    def _sums(self, x: Tensor, ids: Tensor, bags: Tensor) -> Tensor:
        """A bag for each group and token: C rows, each weighted with what came in there. (groups × T, size)"""
        given = x.expand(self.groups, *x.shape).reshape(-1)
        made: Tensor = _bags(self.weight, ids, bags, False, 0, False, given)
        return made

    def one(self) -> Function:
        weight, ids, bags, groups, inputs = self.weight, self.ids, self.bags, self.groups, self.inputs
        outputs, bias = self.outputs, self._offset()

        def one(x: Tensor) -> Tensor:
            made = _bags(weight, ids, bags, False, 0, False, x.expand(groups, inputs).reshape(-1))
            return made.view(1, -1)[:, :outputs].add_(bias)

        return one

    def _wide(self, group: int) -> Tensor:
        """(C, size), fp32."""
        rows = self.weight[group * self.inputs : (group + 1) * self.inputs]
        wide: Tensor = torch.ops.quantized.embedding_bag_byte_unpack(rows)
        return wide

    def rows(self, ids: Tensor | slice) -> Tensor:
        if isinstance(ids, slice):
            return torch.cat([self._wide(group).T for group in range(self.groups)])[: self.outputs][ids]
        table = self.weight.view(self.groups, self.inputs, -1)
        size = table.size(2) - 8
        group = ids // size
        level, lowest = table[:, :, size:][group].view(torch.float32).unbind(-1)  # (T, C)
        return table[group, :, ids % size] * level + lowest


class Rows(nn.Module):
    """The token embedding: the rows of `table`, which is the head's own where the two are tied."""

    def __init__(self, table: Reduced) -> None:
        super().__init__()
        self.table = table

    def forward(self, ids: Tensor) -> Tensor:
        rows, mean = self.table.rows(ids), self.table.mean
        return rows if mean is None else rows + mean

    @property
    def weight(self) -> Tensor:
        """(V, C) in fp32: made anew each time."""
        return self.forward(slice(None))  # type: ignore[arg-type]
