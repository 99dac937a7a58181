"""Reading one token after the other, made fast on a CPU. `model.py` runs unchanged: only how its weights lie is another.

A step of one token multiplies every weight once, so it takes as long as reading the weights from memory takes (a profile
has nine tenths of the time in these products). Two things help: lay them so that they are read at full speed, and make
them fewer bytes.

- `fp32`: the same weights. Where a matrix has more outputs than inputs (qkv, the MLP's first, the head) it is laid down
  column by column: `F.linear` then adds up scaled rows, all at once, where it would make one short sum for each output.
  Done matrix by matrix in place: no memory beyond the largest matrix, for a moment. Only the order of sums differs.
- `half`: 16-bit floats, sums in fp32. Biases, LayerNorms, positions, the residual stream, attention and the cache stay fp32.
- `int8`: a scale for each output, and one for each token that is read (absmax, symmetric; Dettmers et al. 2022, LLM.int8(),
  section 2, without its outliers). Products and sums are exact integers, their inputs are not: not the same numbers.

Letters: T tokens, C inputs, O outputs, V the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tui_llm.errors import UserError
from tui_llm.llm import device
from tui_llm.llm.model import GPT, Block, KVCache
from tui_llm.llm.predictor import GPTPredictor
from tui_llm.llm.weight_names import check_weights

_FEW = 5  # rows up to which 16-bit products are made as they are: for more, widening the weights first is faster
_ROWS = 4096  # outputs that are widened at once
_STREAMED = 8  # reading a weight from memory takes a core as long as about so many multiply-adds with it


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


Function = Callable[[Tensor], Tensor]
_Layer = tuple[Function, Function, Function, Function, Function, Function, Tensor, Tensor]


class _Step:
    """`model.features` for one token and a cache: the same operations in the same order, without what only longer rows,
    training or another device need. In a small model calling all that costs as much as the products."""

    def __init__(self, model: GPT, cache: KVCache) -> None:
        self.model, self.cache, self.heads = model, cache, model.config.heads
        self.layers = [_layer(block, cache, number) for number, block in enumerate(model.blocks)]
        self.norm = _norm(model.norm)

    def __call__(self, id: int) -> Tensor:
        """(1, C). Raises ValueError where the context is full."""
        past, context = self.cache.length, self.model.config.context
        if past >= context:
            raise ValueError(f"{past + 1} tokens in a context of {context}")
        x = self.model.tokens(torch.tensor([id])) + self.model.positions.weight[past]  # (1, C)
        C = x.size(1)
        for norm1, qkv, out, norm2, up, down, keys, values in self.layers:
            q, k, v = qkv(norm1(x)).view(3, 1, self.heads, 1, C // self.heads).unbind()  # (1, H, 1, D)
            keys.narrow(2, past, 1).copy_(k)
            values.narrow(2, past, 1).copy_(v)
            seen, there = keys.narrow(2, 0, past + 1), values.narrow(2, 0, past + 1)  # (1, H, P + 1, D), not copied
            x = x + out(F.scaled_dot_product_attention(q, seen, there).view(1, C))
            x = x + down(F.gelu(up(norm2(x)), approximate="tanh"))
        self.cache.length = past + 1
        return self.norm(x)


def _layer(block: nn.Module, cache: KVCache, number: int) -> _Layer:
    assert isinstance(block, Block)
    attention, mlp = block.attention, block.mlp
    return (
        _norm(block.norm1),
        _product(attention.qkv),
        _product(attention.out),
        _norm(block.norm2),
        _product(mlp.up),
        _product(mlp.down),
        cache.keys[number],  # (1, H, context, D)
        cache.values[number],
    )


def _norm(layer: nn.LayerNorm) -> Function:
    return lambda x: torch.layer_norm(x, layer.normalized_shape, layer.weight, layer.bias, layer.eps)


def _product(layer: nn.Module) -> Function:
    if not isinstance(layer, nn.Linear):
        return layer.forward
    weight, bias = layer.weight.t(), layer.bias
    return lambda x: torch.addmm(bias, x, weight)


def predictor(model: GPT, weights: str = "fp32") -> Predictor:
    """Takes `model` over: its weights are another afterwards. Raises `UserError` where that can't be."""
    prepare(model, weights)
    return Predictor(model)


@torch.no_grad()
def prepare(model: GPT, weights: str) -> None:
    """Lays the weights of a model that is only read down anew, in place. Raises `UserError`."""
    check_weights(weights)
    place = model.device
    if weights == "fp32":
        if place.type == "cpu" and torch.backends.mkl.is_available():
            _lay_down(model)
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
    head = kind(model.head.weight.detach(), centre=True)
    rows = head if tied else kind(model.tokens.weight.detach(), centre=True)
    model.tokens, model.head = Rows(rows), head  # type: ignore[assignment]


def _lay_down(model: GPT) -> None:
    tied = model.head.weight is model.tokens.weight
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features > m.in_features]
    for layer in layers:
        layer.weight = nn.Parameter(layer.weight.detach().T.contiguous().T, requires_grad=layer.weight.requires_grad)
        if tied and layer is model.head:
            model.tokens.weight = layer.weight


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
        return torch.cat([F.linear(x, part.float()) for part in self.weight.split(_ROWS)], dim=-1)

    def rows(self, ids: Tensor | slice) -> Tensor:
        return self.weight[ids].float()


class Int8(Reduced):
    scale: Tensor  # (O,)

    def pack(self, weight: Tensor) -> None:
        scale = weight.abs().amax(1).clamp_min(1e-20) / 127
        self.register_buffer("scale", scale)
        self.register_buffer("weight", (weight / scale[:, None]).round().to(torch.int8).contiguous())

    def product(self, x: Tensor) -> Tensor:
        step = x.abs().amax(1, keepdim=True).clamp_min_(1e-20).div_(127)  # (T, 1)
        sums = torch._int_mm((x / step).round_().to(torch.int8), self.weight.t())  # (T, O), int32: exact
        return sums.float().mul_(self.scale).mul_(step)

    def rows(self, ids: Tensor | slice) -> Tensor:
        return self.weight[ids].float() * self.scale[ids][..., None]


class Rows(nn.Module):
    """The token embedding: the rows of `table`, which is the head's own where the two are tied."""

    def __init__(self, table: Reduced) -> None:
        super().__init__()
        self.table = table

    def forward(self, ids: Tensor) -> Tensor:
        assert self.table.mean is not None
        return self.table.rows(ids) + self.table.mean

    @property
    def weight(self) -> Tensor:
        """(V, C) in fp32: made anew each time."""
        return self.forward(slice(None))  # type: ignore[arg-type]
