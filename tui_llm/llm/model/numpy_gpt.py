"""GPT-2 once more, in numpy: a second, independent implementation of `model.py`, for inference.

It reads small models while, or without, torch being imported, which takes far longer than a short text. The tests
compare the two. Letters: T tokens, P tokens already in the cache, C the width, H heads, D = C ÷ H, V the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tui_llm.common import memory
from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import open_foreign
from tui_llm.llm.model import stored_gpt
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.model.stored_gpt import StoredGPT, StoredParameter

Array = npt.NDArray[np.float32]

_erf = np.frompyfunc(math.erf, 1, 1)
MOST_PARAMETERS = 20_000_000  # larger models gain more from torch's kernels than its import takes
_BLAS = 48 << 20  # bytes that OpenBLAS takes at the first product; if it can't, it ends the process
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class NumpyGPT:
    """Implements `predictor.Predictor`. `weights` are by our parameter names, in the shapes of `model.GPT`'s."""

    def __init__(self, config: GPTConfig, weights: Mapping[str, Array]) -> None:
        self.config, self.weights = config, weights
        self.parameters = config.parameters()
        self._gelu = _exact_gelu if config.exact_gelu else _gelu
        self.layers, self.heads, self.width = config.layers, config.heads, config.width
        self.context, self.vocabulary, self.kept = config.context, config.vocabulary, config.width
        shape = (config.layers, config.heads, config.context, config.width // config.heads)
        self._keys, self._values = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self._length = 0  # P

    @np.errstate(all="ignore")  # damaged weights give NaN, which `softmax.check` reports
    def run(self, ids: Sequence[int]) -> Array:
        start, end = self._length, self._length + len(ids)
        if end > self.context:
            raise ValueError(f"{end} tokens in a context of {self.context}")
        x = self.weights["tokens.weight"][list(ids)] + self.weights["positions.weight"][start:end]  # (T, C)
        for layer in range(self.layers):
            block = f"blocks.{layer}"
            x = x + self._attention(self._norm(x, f"{block}.norm1"), layer)
            x = x + self._linear(
                self._gelu(self._linear(self._norm(x, f"{block}.norm2"), f"{block}.mlp.up")), f"{block}.mlp.down"
            )
        self._length = end
        return self._norm(x, "norm")

    def crop(self, length: int) -> None:
        self._length = min(self._length, length)

    @np.errstate(all="ignore")
    def head(self, features: Array, size: int) -> Array:
        weight = self.weights["tokens.weight" if self.config.tied else "head.weight"]
        return features @ weight[:size].T

    def embedding(self) -> Array:
        return self.weights["tokens.weight"]

    def _attention(self, x: Array, layer: int) -> Array:
        T, C = x.shape
        start, end = self._length, self._length + T
        qkv = self._linear(x, f"blocks.{layer}.attention.qkv").reshape(T, 3, self.heads, C // self.heads)
        q, k, v = qkv.transpose(1, 2, 0, 3)  # (H, T, D) each
        self._keys[layer, :, start:end], self._values[layer, :, start:end] = k, v
        scores = q @ self._keys[layer, :, :end].transpose(0, 2, 1) / math.sqrt(C // self.heads)  # (H, T, P + T)
        scores[:, np.arange(end) > np.arange(start, end)[:, None]] = -np.inf  # later tokens
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        y = (weights @ self._values[layer, :, :end]).transpose(1, 0, 2).reshape(T, C)
        return self._linear(y, f"blocks.{layer}.attention.out")

    def _linear(self, x: Array, name: str) -> Array:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _norm(self, x: Array, name: str) -> Array:
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + self.config.epsilon)
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


def _gelu(x: Array) -> Array:
    """GPT-2's approximation with tanh."""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def _exact_gelu(x: Array) -> Array:
    """x · Φ(x), with the normal distribution's Φ. numpy has no erf, the standard library has."""
    return x * (0.5 + 0.5 * _erf(x * math.sqrt(0.5)).astype(np.float32))


def fits(folder: Path) -> bool:
    """Whether `load` reads this model folder: a GPT-2 without switches, of at most `MOST_PARAMETERS`, with weights of a usual dtype. Raises
    `UserError` if it is damaged."""
    return _fits(stored_gpt.find(folder))


def _fits(stored: StoredGPT) -> bool:
    if stored.config.parameters() > MOST_PARAMETERS or not stored.config.plain:
        return False
    return all(parameter.tensor.info.dtype in _DTYPES for parameter in stored.tensors.values())


def load(folder: Path) -> NumpyGPT | None:
    """Load a model folder in float32; None if it is one for torch, see `fits`. Raises `UserError` if it can't be
    loaded."""
    stored = stored_gpt.find(folder)
    config, parameters = stored.config, stored.tensors
    if not _fits(stored):
        return None
    memory.check(stored_gpt.need(config) + _BLAS, memory.free_bytes(), f"opening {folder}")
    with memory.enough(f"open {folder}"):
        return NumpyGPT(config, {name: _array(parameter) for name, parameter in parameters.items()})


def _array(parameter: StoredParameter) -> Array:
    info, path = parameter.tensor.info, parameter.tensor.path
    data = bytearray(info.bytes)
    with open_foreign(path) as file:
        file.seek(info.begin)
        if file.readinto(data) != info.bytes:
            raise UserError(f"{path} can't be read to its end; it may be cut short: get it again")
    stored: Any = np.frombuffer(data, _DTYPES[info.dtype]).reshape(info.shape)
    if info.dtype == "BF16":  # the upper half of a float32
        stored = (stored.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):
        array: Array = stored.astype(np.float32, copy=False)
    return array.T if parameter.transposed else array
