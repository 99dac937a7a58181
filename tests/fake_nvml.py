"""NVML's C functions as NVIDIA documents them, for the real binding `pynvml` to call: values, return codes, missing functions."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

GB = 10**9

# NVML_ERROR_…, as nvml.h has them
SUCCESS, UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND = 0, 1, 2, 3, 4, 6
INSUFFICIENT_SIZE, DRIVER_NOT_LOADED, FUNCTION_NOT_FOUND, GPU_IS_LOST, RESET_REQUIRED = 7, 9, 13, 15, 16
LIB_RM_VERSION_MISMATCH, ARGUMENT_VERSION_MISMATCH, UNKNOWN = 18, 25, 999


@dataclass
class Card:
    """A GPU, or with `parent` a MIG instance of one. `errors`: the name of a function → the code that it returns."""

    uuid: str
    bus_id: str = ""
    name: str = "NVIDIA H100 80GB HBM3"
    use: int = 97
    used: int = 6 * GB
    reserved: int = GB // 2
    total: int = 85 * GB
    temperature: int = 61
    milliwatts: int = 412_345
    limit: int = 700_000
    sm: int = 1980
    memory: int = 2619
    processes: int = 1
    capability: tuple[int, int] = (9, 0)
    mig_mode: int = 0
    parent: Card | None = None
    errors: dict[str, int] = field(default_factory=dict)

    def lose(self, code: int = GPU_IS_LOST) -> None:
        """From now on every function of this GPU returns `code`."""
        self.errors = _All(code)


class _All(dict[str, int]):
    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code

    def get(self, _key: str, _default: Any = None) -> Any:
        return self.code


class FakeNvml:
    """Stands for the loaded library libnvidia-ml. `missing`: functions that this driver's version does not have."""

    def __init__(
        self, cards: list[Card], missing: tuple[str, ...] = (), init: int = SUCCESS, cuda: int = 12080
    ) -> None:
        self.cards, self.missing, self.init, self.cuda = cards, missing, init, cuda
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., int]:
        if name.startswith("_") or name in self.missing:
            raise AttributeError(name)
        plain = name.removesuffix("_v2").removesuffix("_v3")

        def function(*arguments: Any) -> Any:
            self.calls.append(name)
            if name == "nvmlErrorString":
                return b"an error"
            if (found := getattr(FakeNvml, f"_{plain}", None)) is not None:
                return found(self, *arguments)
            card = self._card(arguments[0])
            error = card.errors.get(name, card.errors.get(plain, 0))
            return error or READ[plain](card, name, *arguments[1:])

        return function

    # ── of the library ──

    def _nvmlInitWithFlags(self, _flags: int) -> int:
        return self.init

    def _nvmlShutdown(self) -> int:
        return SUCCESS

    def _nvmlSystemGetDriverVersion(self, buffer: Any, _size: Any) -> int:
        buffer.value = b"570.86.15"
        return SUCCESS

    def _nvmlSystemGetCudaDriverVersion(self, version: Any) -> int:
        version._obj.value = self.cuda
        return SUCCESS

    def _nvmlDeviceGetCount(self, count: Any) -> int:
        count._obj.value = sum(card.parent is None for card in self.cards)
        return SUCCESS

    # ── finding a GPU ──

    def _give(self, card: Card, handle: Any, name: str) -> int:
        if error := card.errors.get(name):
            return int(error)
        ctypes.c_void_p.from_buffer(handle._obj).value = 1 + self.cards.index(card)
        return SUCCESS

    def _card(self, handle: Any) -> Card:
        return self.cards[(ctypes.cast(handle, ctypes.c_void_p).value or 0) - 1]

    def _nvmlDeviceGetHandleByIndex(self, index: Any, handle: Any) -> int:
        whole = [card for card in self.cards if card.parent is None]
        if index.value >= len(whole):
            return INVALID_ARGUMENT
        return self._give(whole[index.value], handle, "nvmlDeviceGetHandleByIndex")

    def _nvmlDeviceGetHandleByUUID(self, uuid: Any, handle: Any) -> int:
        card = next((card for card in self.cards if card.uuid.encode() == uuid.value), None)
        return NOT_FOUND if card is None else self._give(card, handle, "nvmlDeviceGetHandleByUUID")

    def _nvmlDeviceGetHandleByPciBusId(self, bus_id: Any, handle: Any) -> int:
        card = next((card for card in self.cards if card.bus_id and card.bus_id.encode() == bus_id.value), None)
        return NOT_FOUND if card is None else self._give(card, handle, "nvmlDeviceGetHandleByPciBusId")

    def _nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, instance: Any, handle: Any) -> int:
        parent = self._card(instance).parent
        return INVALID_ARGUMENT if parent is None else self._give(parent, handle, "")

    def _nvmlDeviceIsMigDeviceHandle(self, handle: Any, found: Any) -> int:
        found._obj.value = self._card(handle).parent is not None
        return SUCCESS

    def _nvmlDeviceGetIndex(self, handle: Any, index: Any) -> int:
        card = self._card(handle)
        if error := card.errors.get("nvmlDeviceGetIndex"):
            return int(error)
        index._obj.value = [card for card in self.cards if card.parent is None].index(card)
        return SUCCESS


def _text(attribute: str) -> Callable[..., int]:
    def read(card: Card, _name: str, buffer: Any, _size: Any) -> int:
        buffer.value = getattr(card, attribute).encode()
        return SUCCESS

    return read


def _number(attribute: str) -> Callable[..., int]:
    def read(card: Card, _name: str, *arguments: Any) -> int:
        arguments[-1]._obj.value = getattr(card, attribute)
        return SUCCESS

    return read


def _memory(card: Card, name: str, info: Any) -> int:
    """Version 1 counts what the driver reserves as used, version 2 does not (nvml.h)."""
    memory = info._obj
    memory.total = card.total
    memory.free = card.total - card.used - card.reserved
    memory.used = card.used if name.endswith("_v2") else card.used + card.reserved
    return SUCCESS


def _use(card: Card, _name: str, rates: Any) -> int:
    if card.mig_mode or card.parent is not None:
        return NOT_SUPPORTED
    rates._obj.gpu = card.use
    return SUCCESS


def _clock(card: Card, _name: str, kind: Any, clock: Any) -> int:
    clock._obj.value = {1: card.sm, 2: card.memory}[kind.value]
    return SUCCESS


def _mig_mode(card: Card, _name: str, current: Any, pending: Any) -> int:
    current._obj.value = pending._obj.value = card.mig_mode
    return SUCCESS


def _capability(card: Card, _name: str, major: Any, minor: Any) -> int:
    major._obj.value, minor._obj.value = card.capability
    return SUCCESS


def _processes(card: Card, _name: str, count: Any, array: Any) -> int:
    room, count._obj.value = count._obj.value, card.processes
    return SUCCESS if room >= card.processes else INSUFFICIENT_SIZE


def _temperature_v(card: Card, _name: str, temperature: Any) -> int:
    temperature._obj.temperature = card.temperature
    return SUCCESS


READ: dict[str, Callable[..., int]] = {
    "nvmlDeviceGetUUID": _text("uuid"),
    "nvmlDeviceGetName": _text("name"),
    "nvmlDeviceGetTemperature": _number("temperature"),
    "nvmlDeviceGetTemperatureV": _temperature_v,
    "nvmlDeviceGetPowerUsage": _number("milliwatts"),
    "nvmlDeviceGetEnforcedPowerLimit": _number("limit"),
    "nvmlDeviceGetMemoryInfo": _memory,
    "nvmlDeviceGetUtilizationRates": _use,
    "nvmlDeviceGetClockInfo": _clock,
    "nvmlDeviceGetMigMode": _mig_mode,
    "nvmlDeviceGetCudaComputeCapability": _capability,
    "nvmlDeviceGetComputeRunningProcesses": _processes,
}


def install(monkeypatch: pytest.MonkeyPatch, fake: FakeNvml) -> FakeNvml:
    """Puts `fake` where the binding has the loaded library."""
    import pynvml

    monkeypatch.setattr(pynvml, "nvmlLib", fake)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    return fake
