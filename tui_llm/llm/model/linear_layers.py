"""Linear layers and embeddings for inference: the same weights multiplied faster, or weights of fewer bits.

A linear layer is one of the classes that `kernels.KERNELS` lists: those here compute with torch, those of
`native_layers.py` with native.c. Letters: T tokens, C inputs, O outputs, V the vocabulary.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tui_llm.common.errors import UserError
from tui_llm.llm.model import torch_private

FEW = 5  # up to this many rows, multiply by the packed weights; beyond, converting them to fp32 first is faster
ROWS = 4096  # outputs converted to fp32 at a time
BEYOND = "a weight of this model is beyond float16's range; try --weights fp32"
AT_ONCE = 1 << 19  # weights of a large matrix in fp32 at a time
_GROUP = 384  # group size: outputs whose weights from one input share a scale; a multiple of 16

Function = Callable[[Tensor], Tensor]


class Matrix(Protocol):
    """A weight (O, C) in fp32 of which a slice of rows can be had: a tensor, or one that is read from its file on demand."""

    @property
    def shape(self) -> Sequence[int]: ...

    def __getitem__(self, rows: slice) -> Tensor: ...


class Centred:
    """A matrix minus the mean of its rows. Both the mean and what is read are computed from some rows at a time, into one
    buffer: a slice is valid until the next one is read."""

    def __init__(self, matrix: Matrix) -> None:
        self._matrix, self.shape = matrix, matrix.shape
        rows, inputs = int(matrix.shape[0]), int(matrix.shape[1])
        count = max(1, AT_ONCE // inputs)
        sums = (matrix[at : at + count].sum(0, dtype=torch.float64) for at in range(0, rows, count))
        self.mean = (functools.reduce(operator.iadd, sums) / rows).float()
        self._buffer = torch.empty(0, inputs)

    def __getitem__(self, rows: slice) -> Tensor:
        found = self._matrix[rows]
        if len(found) > len(self._buffer):
            self._buffer = torch.empty_like(found)
        return torch.sub(found, self.mean, out=self._buffer[: len(found)])


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear` in fp32, by oneDNN if torch has both it and MKL. Not differentiable."""
    if torch_private.HAS_ONEDNN_LINEAR and x.device.type == "cpu":
        return torch_private.onednn_linear(x, weight, bias)
    return F.linear(x, weight, bias)


class Exact(nn.Linear):
    """`nn.Linear` that multiplies through `linear` when grad mode is disabled; same weights."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if torch.is_grad_enabled() else linear(x, self.weight, self.bias)

    def one(self) -> Function:
        """A function equal to `forward` for one token (1, C), with its tensors bound: module attribute lookup is
        slow."""
        weight, bias = self.weight, self.bias
        return lambda x: linear(x, weight, bias)


class Reduced(nn.Module):
    """A linear layer (O, C) with its weights in fewer bits; input and output are fp32.

    With `centre`, the mean of the weight's rows is subtracted and kept in fp32. An output head's logits often share a
    large offset (around −100 in GPT-2) that comes from this mean and would waste precision.
    """

    weight: Tensor
    bias: Tensor | None
    mean: Tensor | None
    centred = True  # whether an output head of this class should be centred

    def __init__(self, weight: Matrix, bias: Tensor | None = None, *, centre: bool = False) -> None:
        super().__init__()
        self.outputs, self.inputs = weight.shape
        centred = Centred(weight) if centre else None
        self.register_buffer("bias", bias)
        self.register_buffer("mean", centred.mean if centred else None)
        self.pack(centred or weight)

    def pack(self, weight: Matrix) -> None:
        """Convert the weight (O, C) and register it as buffers."""
        raise NotImplementedError

    def product(self, x: Tensor) -> Tensor:
        """(T, C) → (T, O), both fp32, without bias and mean."""
        raise NotImplementedError

    def affine(self, x: Tensor) -> Tensor:
        """`product` plus the bias."""
        y = self.product(x)
        return y if self.bias is None else y.add_(self.bias)

    def one(self) -> Function:
        """A function equal to `forward` for one token (1, C), for a layer without a mean."""
        raise NotImplementedError

    def _offset(self) -> Tensor:
        assert self.mean is None
        return torch.zeros(self.outputs) if self.bias is None else self.bias

    def rows(self, ids: Tensor | slice) -> Tensor:
        """Rows of the weight in fp32, without the mean."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) → (…, O), both fp32."""
        flat = x.reshape(-1, x.size(-1))
        if not len(flat):  # no kernel takes this
            return x.new_empty(*x.shape[:-1], self.outputs)
        y = self.affine(flat)
        if self.mean is not None:
            y += (flat @ self.mean)[:, None]
        return y.view(*x.shape[:-1], -1)


class Half(Reduced):
    """fp16 weights. Raises `UserError` if a weight overflows fp16."""

    def pack(self, weight: Matrix) -> None:
        half = weight[:].half()
        if half.isinf().any():
            raise UserError(BEYOND)
        self.register_buffer("weight", half.contiguous())

    def product(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return F.linear(x.half(), self.weight).float()
        if len(x) == 1:
            return torch.mv(self.weight, x[0].half()).float()[None]
        if len(x) <= FEW:
            return torch.stack([torch.mv(self.weight, row) for row in x.half()]).float()
        return torch.cat([linear(x, part.float(), None) for part in self.weight.split(ROWS)], dim=-1)

    def one(self) -> Function:
        weight, bias = self.weight, self._offset()
        return lambda x: torch.mv(weight, x[0].half()).float().add_(bias)[None]

    def rows(self, ids: Tensor | slice) -> Tensor:
        return self.weight[ids].float()


class FbgemmHalf(Reduced):
    """fp16 weights, packed for fbgemm; the inputs stay fp32. Not for a head that is also the embedding: single rows can
    only be had by unpacking all."""

    def pack(self, weight: Matrix) -> None:
        whole = weight[:].float()
        if whole.half().isinf().any():
            raise UserError(BEYOND)
        self.packed = torch_private.fbgemm_half(whole.contiguous())

    def product(self, x: Tensor) -> Tensor:
        return torch_private.fbgemm_half_linear(x, self.packed)

    def one(self) -> Function:
        packed, bias = self.packed, self._offset()
        return lambda x: torch_private.fbgemm_half_linear(x, packed).add_(bias)

    def rows(self, ids: Tensor | slice) -> Tensor:
        return torch_private.fbgemm_half_weight(self.packed)[ids]


class Int8(Reduced):
    """Outputs are split into groups. A group is stored as C rows, one per input, each followed by its scale and its
    minimum, as torch's byte-rowwise format has it. The offset that all logits share is part of the minimum, so no mean
    is needed."""

    centred = False
    ids: Tensor  # the index of every row, int32
    bags: Tensor  # the index of each group's first row, int32

    def pack(self, weight: Matrix) -> None:
        self.groups = -(-self.outputs // _GROUP)
        size = min(_GROUP, -(-self.outputs // 16) * 16)
        packed = torch.empty(self.groups, self.inputs, size + 8, dtype=torch.uint8)
        for group, into in enumerate(packed):  # one at a time: a large vocabulary's fp32 weights are never in memory
            rows = weight[group * size : (group + 1) * size]
            spare = rows[-1:].expand(size - len(rows), -1)  # padding that keeps the group's range
            into.copy_(torch_private.pack_bytes(torch.cat((rows, spare)).T.contiguous()))
        packed = packed.view(-1, size + 8)
        self.register_buffer("weight", packed)  # (groups × C, size + 8), bytes
        self.register_buffer("ids", torch.arange(len(packed), dtype=torch.int32), persistent=False)
        self.register_buffer("bags", self.ids[:: self.inputs].contiguous(), persistent=False)

    def product(self, x: Tensor) -> Tensor:
        T, C = x.shape
        if T > FEW:
            # Convert one group at a time, so that its fp32 copy stays in the CPU's cache and reuses allocated memory.
            parts = [linear(x, self._wide(group).T, None) for group in range(self.groups)]
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
