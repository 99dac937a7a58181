"""A CUDA device that is not there: tensors that say they are on `cuda:0`, refuse what a real one refuses, and compute on the CPU.

It finds the commonest faults of code that has never run on a GPU: a tensor made on the CPU that meets one of the device, and
a `numpy()` without `cpu()`. Use it as `with fake_cuda(monkeypatch): …`; `choose("cuda")` and `to("cuda")` then work. It has no
kernels: numbers, speed and memory are the CPU's.

Rules as torch has them: tensors of one operation are on one device, except a CPU tensor without dimensions, an index that is on
the CPU, and `copy_`.
"""

from __future__ import annotations

import contextlib
import types
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

from tui_llm.llm.model import fast_decode
from tui_llm.llm.model.graph_decode import StaticStep

CUDA = torch.device("cuda", 0)
_FREE = {"aten.copy_", "aten._to_copy", "aten.index", "aten.index_put_", "aten.index_put", "aten._index_put_impl_"}
_ON_THE_CPU = {"numpy", "__array__"}


class FakeCudaTensor(torch.Tensor):
    """A tensor on `cuda:0`; `elem` holds its numbers."""

    elem: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # the mode below does it

    @staticmethod
    def __new__(cls, elem: torch.Tensor) -> FakeCudaTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls, elem.shape, strides=elem.stride(), storage_offset=elem.storage_offset(), dtype=elem.dtype,
            requires_grad=elem.requires_grad,
        )  # fmt: skip
        made.elem = elem.detach()
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CUDA

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    @property
    def is_cpu(self) -> bool:  # type: ignore[override]
        return False

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"FakeCuda({self.elem})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise RuntimeError("a tensor on CUDA is pickled")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        flat, _ = tree_flatten((args, kwargs))
        tensors = [one for one in flat if isinstance(one, torch.Tensor)]
        name = str(func).rpartition(".")[0]
        if name not in _FREE:
            plain = [one for one in tensors if not isinstance(one, FakeCudaTensor) and one.dim() > 0]
            if plain:
                raise RuntimeError(f"Expected all tensors to be on the same device, but {name} met cuda:0 and cpu")
        elif name.startswith("aten.index") and not isinstance(args[0], FakeCudaTensor):
            raise RuntimeError(f"indices should be either on cpu or on the same device as the indexed tensor ({name})")
        elem = tree_map(lambda one: one.elem if isinstance(one, FakeCudaTensor) else one, (args, kwargs or {}))
        out = func(*elem[0], **elem[1])
        inputs = {id(one.elem): one for one in tensors if isinstance(one, FakeCudaTensor)}

        def wrapped(one: Any) -> Any:
            if not isinstance(one, torch.Tensor):
                return one
            if name == "aten.copy_" and not isinstance(args[0], FakeCudaTensor):
                return args[0]
            return inputs.get(id(one)) if id(one) in inputs else FakeCudaTensor(one)

        return tree_map(wrapped, out)


class _ToDevice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cuda: bool) -> torch.Tensor:
        elem = x.elem if isinstance(x, FakeCudaTensor) else x.detach()
        return FakeCudaTensor(elem.clone()) if cuda else elem.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        g = gradients[0]
        return (g.elem if isinstance(g, FakeCudaTensor) else FakeCudaTensor(g)), None


def _moved(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    cuda = device.type == "cuda"
    if isinstance(x, FakeCudaTensor) == cuda:
        return x
    with torch._C.DisableTorchFunction():
        return _ToDevice.apply(x, cuda)


class _Mode(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if isinstance(args[0] if args else None, torch.Tensor) and name in (
            "to",
            "cpu",
            "cuda",
            "pin_memory",
            *_ON_THE_CPU,
            "tolist",
        ):
            return self._method(func, name, args, kwargs)
        kwargs.pop("pin_memory", None)
        device = kwargs.get("device")
        if device is not None and torch.device(device).type == "cuda":
            kwargs["device"] = "cpu"
            needs = kwargs.pop("requires_grad", False)
            made = func(*args, **kwargs)
            return _moved(made, CUDA).requires_grad_(needs) if needs else _moved(made, CUDA)
        return func(*args, **kwargs)

    def _method(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        x, rest = args[0], list(args[1:])
        fake = isinstance(x, FakeCudaTensor)
        if name in _ON_THE_CPU and fake:
            raise TypeError(
                "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."
            )
        if name == "tolist":
            return func(x.detach().elem if fake else x)
        if name == "cpu":
            return _moved(x, torch.device("cpu"))
        if name in ("cuda", "pin_memory"):
            return x if name == "pin_memory" else _moved(x, CUDA)
        if name != "to":
            return func(*args, **kwargs)
        target = kwargs.pop("device", None)
        if target is None and rest and isinstance(rest[0], str | torch.device | int):
            target = rest.pop(0)
        elif rest and isinstance(rest[0], torch.Tensor):
            other = rest.pop(0)
            target, rest = other.device, [other.dtype, *rest]
        kwargs.pop("non_blocking", None)
        rest = [one for one in rest if isinstance(one, torch.dtype)]  # not `non_blocking`
        made = (
            x
            if target is None
            else _moved(x, torch.device(target))
            if torch.device(target).type != "meta"
            else func(*args)
        )
        return func(made, *rest, **kwargs) if rest or kwargs else made


def _enter_without_gradients(self: Any) -> None:
    self.before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)


def _leave_without_gradients(self: Any, *_: object) -> None:
    torch.set_grad_enabled(self.before)


@contextlib.contextmanager
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Any:
    """In the body, this machine has a `cuda:0`. Modules move by their parameters being swapped, so tied ones stay tied."""
    for name, value in {
        "is_available": lambda: True, "device_count": lambda: 1, "synchronize": lambda *_: None, "empty_cache": lambda: None,
        "mem_get_info": lambda *_: (1 << 34, 1 << 34), "get_device_name": lambda *_: "Fake", "memory_reserved": lambda *_: 0,
        "get_device_capability": lambda *_: (9, 0), "max_memory_allocated": lambda *_: 1, "set_device": lambda *_: None,
        "current_device": lambda: 0, "memory_allocated": lambda *_: 0,
        "is_bf16_supported": lambda *_, **__: True, "device": lambda *_: contextlib.nullcontext(),
        "current_stream": lambda *_: types.SimpleNamespace(synchronize=lambda: None),
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(fast_decode, "GraphStep", StaticStep)
    # Wrappers have no version counter to share. The class is changed, as functions may have been decorated with it before.
    monkeypatch.setattr(torch.inference_mode, "__enter__", _enter_without_gradients)
    monkeypatch.setattr(torch.inference_mode, "__exit__", _leave_without_gradients)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with _Mode():
            yield
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)
