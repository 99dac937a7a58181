"""What multiplies by a model's weights on a CPU: named kernels, and the choice of one for each weight format.

A kernel is a class of linear layer with the interface of `linear_layers.py`. `measure` times all that this machine can
use, once, and keeps the choice in the cache folder, for the CPU, its instructions, torch's version and the number of
threads. A model is opened with the kernel that was named, else the one kept, else `_default`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.common.files import write_json
from tui_llm.common.foreign_files import read_json
from tui_llm.llm.model import machine, native
from tui_llm.llm.model.linear_layers import Exact, FbgemmHalf, Half, Int8, Matrix, Reduced
from tui_llm.llm.model.native_layers import NativeExact, NativeHalf, NativeInt8
from tui_llm.llm.model.weight_names import KERNEL_VARIABLE, check_kernel

WRITTEN, PROMPT = 128, 64  # tokens that the choice is made for, one at a time and at once
_LAYERS = 8  # blocks of GPT-2 124M to measure with: 57 M weights, more than a cache holds in 8 bits
_WIDTH = 768
_LARGE = 50_000_000  # parameters: a model that takes longer to read from disk than native.c to compile
_ROUNDS = 5


def _fbgemm_missing() -> str:
    return "" if "fbgemm" in torch.backends.quantized.supported_engines else "this torch lacks fbgemm"


@dataclass(frozen=True, slots=True)
class Kernel:
    """`layer` is the class of the blocks' linear layers, `head` that of the output head and the embedding. `why_not`
    says why this machine can't use it, or returns an empty text."""

    name: str
    weights: str
    layer: type[nn.Module]
    head: type[Exact] | type[Reduced]
    why_not: Callable[[], str] = lambda: ""

    def reduced(self, weight: Matrix, bias: torch.Tensor | None) -> nn.Module:
        return self.layer(weight, bias)

    def table(self, weight: Matrix) -> Reduced:
        """The output head or the embedding (V, C)."""
        assert issubclass(self.head, Reduced)
        return self.head(weight, centre=self.head.centred)


KERNELS = (
    Kernel("torch", "fp32", Exact, Exact),
    Kernel("native", "fp32", NativeExact, NativeExact, native.why_not),
    Kernel("torch", "half", Half, Half),
    Kernel("fbgemm", "half", FbgemmHalf, Half, _fbgemm_missing),
    Kernel("native", "half", NativeHalf, NativeHalf, native.why_not),
    Kernel("torch", "int8", Int8, Int8),
    Kernel("native", "int8", NativeInt8, NativeInt8, native.why_not),
)


def of(weights: str) -> dict[str, Kernel]:
    """The kernels of a weight format, by name."""
    return {kernel.name: kernel for kernel in KERNELS if kernel.weights == weights}


def choose(weights: str, name: str = "", place: torch.device | None = None, parameters: int = 0) -> Kernel:
    """The kernel for a model of `parameters`: the one called `name`, or by the environment variable, else the one
    measured to be best, else a default. Raises `UserError` if the one named is unknown or can't be used here."""
    known = of(weights)
    name = name or os.environ.get(KERNEL_VARIABLE, "")
    if name:
        if check_kernel(name) not in known:
            raise UserError(f"there is no kernel {name!r} for {weights} weights; choose one of: {', '.join(known)}")
        if problem := _problem(known[name], place):
            raise UserError(f"the kernel {name} can't be used here: {problem}")
        return known[name]
    if place is not None and place.type != "cpu":
        return known["torch"]
    best = known.get((kept() or {}).get(weights, {}).get("kernel", ""))
    if best is not None and not _problem(best, place):
        return best
    return _default(known, parameters)


def _problem(kernel: Kernel, place: torch.device | None) -> str:
    if kernel.name != "torch" and place is not None and place.type != "cpu":
        return f"it is for the CPU, not for {place.type}"
    if not kernel.why_not() and kernel.name == "native":
        native.library()  # only then it is known whether it can be compiled and loaded
    return kernel.why_not()


def _default(known: dict[str, Kernel], parameters: int) -> Kernel:
    for name in ("native", "fbgemm"):
        if (kernel := known.get(name)) is None:
            continue
        # For a small model compiling takes longer than it saves; native int8 is closer to fp32, whatever the size.
        if name == "native" and kernel.weights != "int8" and parameters < _LARGE:
            continue
        if not _problem(kernel, None):
            return kernel
    return known["torch"]


# ── the choice that is kept ──────────────────────────────────────────────────────────────────────────────────────


def _key() -> list[Any]:
    return [*machine.key(torch.device("cpu")).values()]


def _path() -> Path:
    digest = hashlib.sha256(json.dumps(_key()).encode()).hexdigest()[:16]
    return paths.cache_dir() / "machine" / f"kernels-{digest}.json"


def kept() -> dict[str, Any] | None:
    """The kept measurement: for each weight format, `kernel` is the name of the best and `seconds` those of each for
    one token and for a prompt. None if there is none, or if it is damaged."""
    return _kept(_path())


@functools.lru_cache(4)
def _kept(path: Path) -> dict[str, Any] | None:
    with suppress(UserError, KeyError, TypeError, AttributeError):
        found = read_json(path)
        if found["key"] == _key() and all(kernel.name in found[kernel.weights]["seconds"] or kernel.why_not() for kernel in KERNELS):  # fmt: skip
            return {weights: found[weights] for weights in ("fp32", "half", "int8")}
    return None


def measure() -> dict[str, Any]:
    """Time every kernel that can be used, in a few seconds, and keep the result, which is that of `kept`."""
    found: dict[str, Any] = {weights: _measured(of(weights)) for weights in ("fp32", "half", "int8")}
    with suppress(UserError):  # disk full: it is measured again next time
        write_json(_path(), {"key": _key(), **found})
    _kept.cache_clear()
    return found


@torch.no_grad()
def _measured(known: dict[str, Kernel]) -> dict[str, Any]:
    usable = {name: kernel for name, kernel in known.items() if not _problem(kernel, None)}
    layers = {name: _layers(kernel) for name, kernel in usable.items()}
    taken: dict[str, list[list[float]]] = {name: [[], []] for name in usable}
    for number in range(_ROUNDS + 1):
        for name in usable:
            for rows, into in zip((1, PROMPT), taken[name], strict=True):
                if rows == 1 or number <= 2:
                    into.append(_seconds(layers[name], rows))
    seconds = {name: [min(times[1:]) for times in both] for name, both in taken.items()}  # the first one warms up
    best = min(seconds, key=lambda name: WRITTEN * seconds[name][0] + seconds[name][1])
    return {"kernel": best, "seconds": seconds}


def _layers(kernel: Kernel) -> list[nn.Module]:
    made: list[nn.Module] = []
    for _ in range(_LAYERS):
        for outputs, inputs in ((3, 1), (1, 1), (4, 1), (1, 4)):
            plain = nn.Linear(inputs * _WIDTH, outputs * _WIDTH).requires_grad_(False)
            if kernel.weights == "fp32":
                native.use_huge_pages(plain.weight)
                plain.__class__ = kernel.layer  # type: ignore[assignment]
            made.append(plain if kernel.weights == "fp32" else kernel.reduced(plain.weight, plain.bias))
    return made


def _seconds(layers: list[nn.Module], rows: int) -> float:
    wide = {width: torch.ones(rows, width) for width in (_WIDTH, 4 * _WIDTH)}
    began = time.perf_counter()
    for number, layer in enumerate(layers):
        layer(wide[4 * _WIDTH if number % 4 == 3 else _WIDTH])
    return time.perf_counter() - began
