"""The machine's measured peak: FLOP/s of matrix products and memory bandwidth. Every figure relative to the peak (MFU,
a roofline) uses these measurements, not a data sheet, and only those that no other process disturbed."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tui_llm.common import paths, run_load
from tui_llm.common.errors import UserError
from tui_llm.common.files import write_json
from tui_llm.common.foreign_files import read_json
from tui_llm.llm.model.cpu_reader import cpu_name

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
_RATES = ("fp32", "bf16", "read", "copy")
_SIZES = (256, 512, 1024, 2048, 4096, 8192, 16384)  # sizes n of the n × n matrices
_ENOUGH = 0.1  # seconds per product: larger matrices would not be faster
_SPENT = 0.35  # seconds per precision, and for the memory
_LONG = 0.005  # seconds from which a product is large enough to reach the peak, and its disturbance is noticed
_CALM = 0.03  # of the time, at most: how long a thread waited for a core in an undisturbed measurement
_PATIENCE = 2.0  # seconds more per precision, and for the memory, to find a moment in which nothing disturbs
_BYTES = {"cpu": 1 << 28, "cuda": 1 << 30}  # bytes to read: far more than any cache


@dataclass(frozen=True, slots=True)
class Machine:
    """Best of several tries on `device`, with `threads` CPU threads. A rate is None if the device can't do it.

    fp32, bf16: FLOP/s of square matrix products, 2 · n³ operations each, at torch's own settings (no TF32 unless it was
        enabled).
    read, copy: bytes/s of memory; a copy counts the bytes read and the bytes written.
    disturbed: the names of the rates during whose measurement the threads had to wait for a core. The machine can do more, so these
        are lower bounds, and nothing is shown relative to them.
    """

    device: str
    torch: str
    threads: int
    fp32: float | None
    bf16: float | None
    read: float | None
    copy: float | None
    disturbed: tuple[str, ...] = ()
    instructions: str = ""  # of a CPU, those that torch uses: ATEN_CPU_CAPABILITY may limit them

    def peak(self, name: str) -> float | None:
        """The rate `fp32`, `bf16`, `read` or `copy`; None if it is unknown or only a lower bound."""
        rate: float | None = getattr(self, name)
        return None if name in self.disturbed else rate


def device_name(device: torch.device) -> str:
    """The hardware's product name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return cpu_name()  # on macOS a GPU is the same chip


def key(device: torch.device) -> dict[str, Any]:
    """What a measurement is kept for: it is not used with another of these."""
    name, cpu = device_name(device), device.type == "cpu"
    return {
        "device": name if cpu else f"{name} ({device.type})",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability() if cpu else "",
    }


def _path(device: torch.device) -> Path:
    digest = hashlib.sha256(json.dumps([*key(device).values()]).encode()).hexdigest()[:16]
    return paths.cache_dir() / "machine" / f"{digest}.json"


def known(device: torch.device) -> Machine | None:
    """The cached measurement for this device, its instructions, torch's version and the number of threads; None if there is none."""
    try:
        raw = read_json(_path(device))
        found = Machine(**{name: raw[name] for name in Machine.__dataclass_fields__})
        found = dataclasses.replace(found, disturbed=tuple(name for name in _RATES if name in found.disturbed))
    except (UserError, KeyError, TypeError):
        return None
    rates = (getattr(found, name) for name in _RATES)
    if any(rate is not None and not (isinstance(rate, int | float) and 0 < rate < 1e21) for rate in rates):
        return None  # the cache file is damaged
    return found if key(device).items() <= asdict(found).items() else None


def discard(device: torch.device, name: str) -> None:
    """Marks the cached rate `name` as a lower bound: something was faster, so its measurement was disturbed unnoticed."""
    found = known(device)
    if found is not None:
        _cache(device, dataclasses.replace(found, disturbed=tuple({*found.disturbed, name})))


def _cache(device: torch.device, found: Machine) -> None:
    with suppress(UserError):  # disk full: it is measured again next time
        write_json(_path(device), asdict(found))


def measure(device: torch.device) -> Machine:
    """Measure, in about a second, on a busy machine up to six, and cache the result if possible. A rate whose measurement
    was disturbed replaces a cached one only if it is higher."""
    before = known(device)
    products = [_products(device, dtype) for dtype in PRECISIONS.values()]
    rates = dict(zip(_RATES, [*products, *_memory(device)], strict=True))
    for name in _RATES:
        rate, old = rates[name], None if before is None else _rate(before, name)
        if old is not None and (rate is None or (rate.disturbed and old.value >= rate.value)):
            rates[name] = old
    fp32, bf16, read, copy = (None if rate is None else rate.value for rate in rates.values())
    disturbed = tuple(name for name, rate in rates.items() if rate is not None and rate.disturbed)
    found = Machine(**key(device), fp32=fp32, bf16=bf16, read=read, copy=copy, disturbed=disturbed)
    _cache(device, found)
    return found


def measure_in_subprocess(device: torch.device) -> Machine | None:
    """As `measure`, in a subprocess with as many threads, so that its memory is freed and not attributed to this process,
    which waits meanwhile: its idle threads sleep. None on failure."""
    code = "import sys; from tui_llm.llm.model import device, machine; machine.measure(device.choose(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(device)]
    threads = str(torch.get_num_threads())
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    with suppress(OSError, subprocess.SubprocessError):
        subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=600, check=True)
        return known(device)
    return None


def machine(device: torch.device) -> Machine:
    """The cached measurement if nothing disturbed it, else a new one."""
    found = known(device)
    return found if found and not found.disturbed else measure(device)


class _Rate(NamedTuple):
    """`disturbed`: the threads had to wait, so `value` is a lower bound."""

    value: float
    disturbed: bool


def _rate(found: Machine, name: str) -> _Rate | None:
    value: float | None = getattr(found, name)
    return None if value is None else _Rate(value, name in found.disturbed)


class _Try(NamedTuple):
    """`waited`: the seconds that a thread of this process waited for a core, at most; None if the system does not say."""

    seconds: float
    waited: float | None


def _disturbed(tries: list[_Try], device: torch.device) -> bool:
    """Whether other processes slowed the fastest of these, or it was too short to know. Where the system does not say how long
    threads waited, two tries must agree."""
    if device.type != "cpu":
        return False
    best, *others = sorted(tries)
    if best.seconds < _LONG:
        return True
    if best.waited is None:
        return not others or others[0].seconds > (1 + _CALM) * best.seconds
    return best.waited > _CALM * best.seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _timed(work: Callable[[], object], device: torch.device) -> _Try:
    _wait(device)
    load = run_load.RunLoad()
    began = time.perf_counter()
    work()
    _wait(device)
    return _Try(max(time.perf_counter() - began, 1e-9), load.longest_wait())


@torch.no_grad()
def _products(device: torch.device, dtype: torch.dtype) -> _Rate | None:
    """The best FLOP/s over growing matrices, up to the size where launch overhead is negligible."""
    best, spent, patience = _Rate(0.0, True), 0.0, _PATIENCE
    with suppress(RuntimeError):  # out of memory, or not supported: keep what was measured so far
        for n in _SIZES:
            a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
            work = functools.partial(torch.mm, a, b, out=torch.empty_like(a))
            took = [_timed(work, device)]
            # The first product of a size wakes threads and selects a kernel, so each size is timed at least twice.
            while len(took) < 2 or (min(took).seconds >= _ENOUGH and spent + _sum(took) < _SPENT):
                if took[0].seconds > 2 * _SPENT:
                    break  # the device emulates this precision
                took.append(_timed(work, device))
            spent += _sum(took)
            while min(took).seconds >= _LONG and patience > min(took).seconds and _disturbed(took, device):
                took.append(_timed(work, device))
                patience -= took[-1].seconds
            best = max(best, _Rate(2 * n**3 / min(took).seconds, _disturbed(took, device)))
            if min(took).seconds >= _ENOUGH or spent > _SPENT:
                break
    return best if best.value else None


def _sum(tries: list[_Try]) -> float:
    return sum(one.seconds for one in tries)


@torch.no_grad()
def _memory(device: torch.device) -> list[_Rate | None]:
    """Bytes/s of reading (a sum over all elements) and of copying."""
    size = _BYTES.get(device.type, 1 << 28)
    try:
        source = torch.ones(size // 4, device=device)
        target = torch.empty_like(source)
        rates: list[_Rate | None] = []
        patience = _PATIENCE
        for work, moved in ((source.sum, size), (lambda: target.copy_(source), 2 * size)):
            took = [_timed(work, device)]  # the first one causes page faults
            while len(took) < 3 or (_sum(took) < _SPENT / 2 and len(took) < 20):
                took.append(_timed(work, device))
            while patience > min(took).seconds and _disturbed(took, device):
                took.append(_timed(work, device))
                patience -= took[-1].seconds
            rates.append(_Rate(moved / min(took).seconds, _disturbed(took, device)))
    except RuntimeError:  # out of memory
        return [None, None]
    return rates
