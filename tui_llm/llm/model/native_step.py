"""Tokens through all blocks with native.c: one with `step`, many with `prompt`; no call of torch between the products.

Letters: T tokens, C the width.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tui_llm.llm.model import native
from tui_llm.llm.model.linear_layers import FEW
from tui_llm.llm.model.model import GPT, Block, KVCache
from tui_llm.llm.model.native_layers import NativeExact, NativeHalf, NativeInt8

_FORMATS: tuple[type[nn.Module], ...] = (NativeExact, NativeHalf, NativeInt8)  # in the order of native.c's enum
_P, _N = ctypes.c_void_p, ctypes.c_long


class _Linear(ctypes.Structure):
    _fields_ = (("weight", _P), ("scales", _P), ("bias", _P), ("outputs", _N), ("inputs", _N))


class _Norm(ctypes.Structure):
    _fields_ = (("weight", _P), ("bias", _P))


class _NativeBlock(ctypes.Structure):
    _fields_ = (
        ("norm1", _Norm), ("norm2", _Norm), ("qkv", _Linear), ("out", _Linear), ("up", _Linear), ("down", _Linear),
        ("keys", _P), ("values", _P),
    )  # fmt: skip


class _Model(ctypes.Structure):
    _fields_ = (
        ("blocks", ctypes.POINTER(_NativeBlock)), ("norm", _Norm), ("layers", _N), ("width", _N), ("hidden", _N), ("heads", _N),
        ("context", _N), ("epsilon", ctypes.c_float), ("format", ctypes.c_int), ("exact_gelu", ctypes.c_int),
    )  # fmt: skip


def _layers(block: nn.Module) -> tuple[nn.Module, ...]:
    assert isinstance(block, Block)
    return block.attention.qkv, block.attention.out, block.mlp.up, block.mlp.down


def fits(model: GPT) -> bool:
    """Whether it is a GPT-2 without switches, all linear layers of the blocks are native.c's, of one weight format, and the library is there."""
    kinds = {type(layer) for block in model.blocks for layer in _layers(block)}
    return model.config.plain and len(kinds) == 1 and kinds < {*_FORMATS} and native.library() is not None


class NativeStep:
    """`model.features` with a cache, for one token or, unless the GELU is the exact one, for many. Binds the addresses of the weights and the cache: they must not be
    moved."""

    def __init__(self, model: GPT, cache: KVCache) -> None:
        library = native.library()
        assert library is not None
        self.model, self.cache, self._library = model, cache, library
        config = model.config
        blocks = (_NativeBlock * config.layers)(*(_block(block, cache, at) for at, block in enumerate(model.blocks)))
        kind = type(_layers(model.blocks[0])[0])
        self._model = _Model(
            blocks, _norm(model.norm), config.layers, config.width, config.hidden, config.heads, config.context,
            config.epsilon, _FORMATS.index(kind), config.exact_gelu,
        )  # fmt: skip
        self._threads, self._room = 0, torch.empty(0)

    def __call__(self, id: int) -> Tensor:
        """The features (1, C) of token `id`. Raises ValueError if the context is full."""
        past, threads = self._past(1), torch.get_num_threads()
        if threads > self._threads:
            self._room = torch.empty(self._library.step_room(ctypes.byref(self._model), threads))
            self._threads = threads
        x = (self.model.tokens(torch.tensor([id])) + self.model.positions.weight[past]).contiguous()  # (1, C)
        y = torch.empty_like(x)
        self._library.step(ctypes.byref(self._model), x.data_ptr(), y.data_ptr(), self._room.data_ptr(), past, threads)
        self.cache.length = past + 1
        return y

    def prompt(self, ids: Sequence[int]) -> Tensor:
        """The features (T, C) of tokens. Raises ValueError if they exceed the context."""
        T, threads, model = len(ids), torch.get_num_threads(), ctypes.byref(self._model)
        past = self._past(T)
        x = (self.model.tokens(torch.tensor(ids)) + self.model.positions.weight[past : past + T]).contiguous()
        y, room = torch.empty_like(x), torch.empty(self._library.prompt_room(model, past, T, threads))
        self._library.prompt(
            model, x.data_ptr(), y.data_ptr(), room.data_ptr(), past, T, native.uses_avx512(), threads
        )  # fmt: skip
        self.cache.length = past + T
        return y

    def takes(self, count: int) -> bool:
        """Whether `prompt` is faster than the model's modules for that many tokens."""
        return count > FEW and not self.model.config.exact_gelu

    def _past(self, count: int) -> int:
        past, context = self.cache.length, self.model.config.context
        if past + count > context:
            raise ValueError(f"{past + count} tokens in a context of {context}")
        return past


def _block(block: nn.Module, cache: KVCache, number: int) -> _NativeBlock:
    assert isinstance(block, Block)
    keys, values = cache.keys[number, 0], cache.values[number, 0]  # (H, context, D)
    linear = [_linear(layer) for layer in _layers(block)]
    return _NativeBlock(_norm(block.norm1), _norm(block.norm2), *linear, keys.data_ptr(), values.data_ptr())


def _norm(layer: nn.LayerNorm | nn.RMSNorm) -> _Norm:
    assert isinstance(layer, nn.LayerNorm)
    return _Norm(layer.weight.data_ptr(), layer.bias.data_ptr())


def _linear(layer: nn.Module) -> _Linear:
    assert isinstance(layer, NativeExact | NativeHalf | NativeInt8) and layer.bias is not None
    scales, (outputs, inputs) = None, layer.weight.shape
    if isinstance(layer, NativeInt8):  # its weight is padded
        scales, inputs = layer.scales.data_ptr(), layer.inputs
    return _Linear(layer.weight.data_ptr(), scales, layer.bias.data_ptr(), outputs, inputs)
