"""Linear layers that multiply with native.c: few rows at the speed of memory, more at that of arithmetic (gemm.c).

fp32's products of many rows are those of `linear_layers.linear`. Letters: T tokens, C inputs, O outputs, P the inputs
padded to whole blocks.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from tui_llm.common.errors import UserError
from tui_llm.llm.model import native
from tui_llm.llm.model.linear_layers import AT_ONCE, FEW, Exact, Function, Half, Matrix, Reduced

_BLOCK = 32  # int8 weights that share a scale, as in native.c
_ROWS = 6  # rows of inputs that gemm.c multiplies at a time


def _functions() -> ctypes.CDLL:
    """Raises `UserError` if native.c can't be used."""
    found = native.library()
    if found is None:
        raise UserError(f"the native kernel can't be used: {native.why_not()}")
    return found


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _product(function: Any, weight: Tensor, bias: Tensor | None) -> Function:
    """(T, C) → (T, O), with the weight's and the bias's addresses bound: they must not be moved, and are kept."""
    outputs, inputs = weight.shape
    at, offset = weight.data_ptr(), _pointer(bias)

    def product(x: Tensor, _kept: object = (weight, bias)) -> Tensor:
        x = x.contiguous()
        y = torch.empty(len(x), outputs)
        function(at, offset, x.data_ptr(), y.data_ptr(), len(x), outputs, inputs, torch.get_num_threads())
        return y

    return product


class NativeExact(Exact):
    """fp32, with the same weights."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.size(-1))
        if torch.is_grad_enabled() or len(flat) > FEW or x.device.type != "cpu" or x.dtype != torch.float32:
            return super().forward(x)
        return self.one()(flat).view(*x.shape[:-1], self.out_features)

    def one(self) -> Function:
        return _product(_functions().linear_fp32, self.weight, self.bias)


class NativeHalf(Half):
    """fp16 weights; unlike torch's product, the inputs stay fp32."""

    def pack(self, weight: Matrix) -> None:
        super().pack(weight)
        native.use_huge_pages(self.weight)

    def product(self, x: Tensor) -> Tensor:
        return self._product(x, None)

    def affine(self, x: Tensor) -> Tensor:
        return self._product(x, self.bias)

    def _product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        if len(x) <= FEW:
            return _product(_functions().linear_fp16, self.weight, bias)(x)
        x, (outputs, inputs) = x.contiguous(), self.weight.shape
        y = torch.empty(len(x), outputs)
        _functions().gemm_fp16(
            self.weight.data_ptr(), _pointer(bias), x.data_ptr(), y.data_ptr(),
            len(x), outputs, inputs, native.uses_avx512(), torch.get_num_threads(),
        )  # fmt: skip
        return y

    def one(self) -> Function:
        assert self.mean is None
        return _product(_functions().linear_fp16, self.weight, self.bias)


class NativeInt8(Reduced):
    """int8 weights with an fp16 scale for each block of 32 inputs, symmetric about 0. The inputs are rounded to 16 bits,
    with a scale for each block too, or for each row if the rows are many. That costs little beside the weights' rounding:
    an output is off by at most Σ|w| · max|x| ÷ 65,534."""

    scales: Tensor  # (O, P / 32), fp16
    centred = True

    def pack(self, weight: Matrix) -> None:
        self.padded = -(-self.inputs // _BLOCK) * _BLOCK
        self.register_buffer("weight", torch.empty(self.outputs, self.padded, dtype=torch.int8))
        self.register_buffer("scales", torch.empty(self.outputs, self.padded // _BLOCK, dtype=torch.float16))
        count = max(1, AT_ONCE // self.inputs)
        for at in range(
            0, self.outputs, count
        ):  # some at a time: a large vocabulary's fp32 weights are never in memory
            rows = weight[at : at + count].float().contiguous()
            _functions().pack_int8(
                rows.data_ptr(), self.weight[at:].data_ptr(), self.scales[at:].data_ptr(),
                len(rows), self.inputs, self.padded, torch.get_num_threads(),
            )  # fmt: skip
        native.use_huge_pages(self.weight)

    def product(self, x: Tensor) -> Tensor:
        return self._product(x, None)

    def affine(self, x: Tensor) -> Tensor:
        return self._product(x, self.bias)

    def _product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        if len(x) <= FEW:
            return self._few(bias)(x)
        x, T = x.contiguous(), len(x)
        y = torch.empty(T, self.outputs)
        rounded = torch.empty(-(-T // _ROWS) * _ROWS * self.padded, dtype=torch.int16)
        x_scales = torch.empty(T)
        _functions().gemm_int8(
            self.weight.data_ptr(), self.scales.data_ptr(), _pointer(bias), x.data_ptr(), y.data_ptr(),
            rounded.data_ptr(), x_scales.data_ptr(),
            T, self.outputs, self.inputs, native.uses_avx512(), torch.get_num_threads(),
        )  # fmt: skip
        return y

    def one(self) -> Function:
        assert self.mean is None
        return self._few(self.bias)

    def _few(self, bias: Tensor | None) -> Function:
        function, outputs, inputs, padded = _functions().linear_int8, self.outputs, self.inputs, self.padded
        at, scales, offset = self.weight.data_ptr(), self.scales.data_ptr(), _pointer(bias)

        def few(x: Tensor, _kept: object = (self.weight, self.scales, bias)) -> Tensor:
            x, T = x.contiguous(), len(x)
            y = torch.empty(T, outputs)
            rounded = torch.empty(T * padded, dtype=torch.int16)
            x_scales = torch.empty(T * padded // _BLOCK)
            function(
                at, scales, offset, x.data_ptr(), y.data_ptr(), rounded.data_ptr(), x_scales.data_ptr(),
                T, outputs, inputs, padded, torch.get_num_threads(),
            )  # fmt: skip
            return y

        return few

    def _unpacked(self, first: int, count: int) -> Tensor:
        """Rows of the weight in fp32 (count, C)."""
        made = torch.empty(count, self.inputs)
        _functions().unpack_int8(
            self.weight.data_ptr(), self.scales.data_ptr(), made.data_ptr(),
            first, count, self.inputs, self.padded, torch.get_num_threads(),
        )  # fmt: skip
        return made

    def rows(self, ids: Tensor | slice) -> Tensor:
        if isinstance(ids, slice):
            return self._unpacked(0, self.outputs)[ids]
        if ids.numel() == 1:  # while text is generated
            return self._unpacked(range(self.outputs)[int(ids)], 1).view(*ids.shape, -1)
        blocks = self.weight[ids].unflatten(-1, (-1, _BLOCK)).float() * self.scales[ids].float()[..., None]
        return blocks.flatten(-2)[..., : self.inputs]
