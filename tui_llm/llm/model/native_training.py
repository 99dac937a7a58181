"""Compile and load training.c, the parts of a training step between its matrix products. Only used where a compiler is found.

It is compiled for the CPU at hand, and kept where native.c is. As torch does, it obeys ATEN_CPU_CAPABILITY.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
from pathlib import Path

import torch

from tui_llm.llm.model import native, torch_private

OFF = "TUI_LLM_NATIVE_TRAINING"  # set to 0: train without it
_SOURCES = tuple(
    Path(__file__).with_name(name)
    for name in ("training.c", "training_attention.c", "training_products.c", "training_rotary.c", "training_vectors.h")
)
_FLAGS = ("-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC", "-shared")
_P, _N, _I, _F = ctypes.c_void_p, ctypes.c_long, ctypes.c_int, ctypes.c_float
_SIGNATURES: native.Signatures = {
    "product": ((*[_P] * 3, *[_N] * 3, *[_I] * 2), None),
    "weight_gradient": ((*[_P] * 3, *[_N] * 3, *[_I] * 2), None),
    "embed_norm": ((*[_P] * 9, *[_N] * 3, _F, _I, _I), None),
    "residual_norm": ((*[_P] * 9, *[_N] * 2, _F, _I, _I), None),
    "norm_backward": ((*[_P] * 11, *[_N] * 2, *[_I] * 4), None),
    "embedding_backward": ((*[_P] * 4, *[_N] * 5, *[_I] * 3), None),
    "gelu_forward": ((*[_P] * 3, *[_N] * 2, *[_I] * 2), None),
    "gelu_backward": ((*[_P] * 4, *[_N] * 2, *[_I] * 3), None),
    "softmax_loss": ((*[_P] * 4, *[_N] * 2, _F, *[_I] * 2), None),
    "embed_rms": ((*[_P] * 7, *[_N] * 2, _F, _I, _I), None),
    "embedded_backward": ((*[_P] * 3, *[_N] * 2, _I), None),
    "residual_rms": ((*[_P] * 6, *[_N] * 2, _F, _I, _I), None),
    "rms_backward": ((*[_P] * 8, *[_N] * 2, *[_I] * 4), None),
    "rotate": ((*[_P] * 6, *[_N] * 5, _F, _I, _I), None),
    "rotate_backward": ((*[_P] * 8, *[_N] * 5, *[_I] * 3), None),
    "squared_relu": ((*[_P] * 3, *[_N] * 2, _I, _I), None),
    "capped_loss": ((*[_P] * 4, *[_N] * 2, _F, _F, *[_I] * 2), None),
    "sum_losses": ((_P, _N), ctypes.c_double),
    "attention_forward": ((*[_P] * 6, *[_N] * 6, *[_I] * 2), None),
    "attention_backward": ((*[_P] * 6, _N, *[_P] * 2, *[_N] * 6, *[_I] * 3), None),
    "attention_weights": ((_N, _N), _N),
    "attention_room": ((_N, _N), _N),
    "training_chunks": ((_N,), _N),
    "widen": ((_P, _P, _N, _I, _I), None),
    "narrow": ((_P, _P, _N, _I), None),
    "sum_squares": ((_P, _P, _N, _I), ctypes.c_double),
    "adamw": ((*[_P] * 4, *[_N] * 2, *[_F] * 8, _I, _I), None),
}


def instructions() -> str:
    """The instructions it is compiled for: `AVX2`, `AVX-512` or `AVX-512 BF16`."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return "AVX2"
    return "AVX-512 BF16" if torch_private.multiplies_in_bfloat16() else "AVX-512"


_ARCHITECTURES = {
    "AVX2": ("-march=x86-64-v3",),
    "AVX-512": ("-march=x86-64-v4",),
    "AVX-512 BF16": ("-march=x86-64-v4", "-mavx512bf16"),
}


def why_not() -> str:
    """Why this machine can't use it, see `native.problem`."""
    return f"{OFF} is 0" if os.environ.get(OFF) == "0" else native.problem(_file())


@functools.cache
def _file() -> Path:
    parts = [*(source.read_bytes() for source in _SOURCES), " ".join((*_FLAGS, instructions())).encode()]
    return native.folder() / f"training-{hashlib.sha256(b''.join(parts)).hexdigest()[:16]}.so"


def must_compile() -> bool:
    """Whether the first call of `library` takes some seconds."""
    return not why_not() and not os.path.lexists(_file())


@functools.cache
def library() -> ctypes.CDLL | None:
    """The loaded library, see `native.load`."""
    if why_not():
        return None
    return native.load(_SOURCES[0], (*_FLAGS, *_ARCHITECTURES[instructions()]), _file(), _SIGNATURES)
