"""The machine's measured peak: FLOP/s of matrix products and memory bandwidth. Every figure relative to the peak (MFU,
a roofline) uses these measurements, not a data sheet."""

from __future__ import annotations

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
from typing import Any

import torch

from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.common.files import write_json
from tui_llm.common.foreign_files import read_json
from tui_llm.llm.model.cpu_reader import cpu_name

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
_SIZES = (256, 512, 1024, 2048, 4096, 8192, 16384)  # sizes n of the n × n matrices
_ENOUGH = 0.1  # seconds per product: larger matrices would not be faster
_SPENT = 0.35  # seconds per precision, and for the memory
_OURS = 0.8  # minimum share of the CPU time that counts as an undisturbed measurement
_BYTES = {"cpu": 1 << 28, "cuda": 1 << 30}  # bytes to read: far more than any cache


@dataclass(frozen=True, slots=True)
class Machine:
    """Best of several tries on `device`, with `threads` CPU threads. A rate is None if the device can't do it.

    fp32, bf16: FLOP/s of square matrix products, 2 · n³ operations each, at torch's own settings (no TF32 unless it was
        enabled).
    read, copy: bytes/s of memory; a copy counts the bytes read and the bytes written.
    """

    device: str
    torch: str
    threads: int
    fp32: float | None
    bf16: float | None
    read: float | None
    copy: float | None
    quiet: bool  # whether the machine was otherwise idle; if not, a later measurement may be better
    instructions: str = ""  # of a CPU, those that torch uses: ATEN_CPU_CAPABILITY may limit them

    def peak(self, precision: str) -> float | None:
        """FLOP/s of the precision `fp32` or `bf16`."""
        return self.bf16 if precision == "bf16" else self.fp32


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
    except (UserError, KeyError, TypeError):
        return None
    rates = (found.fp32, found.bf16, found.read, found.copy)
    if any(rate is not None and not (isinstance(rate, int | float) and 0 < rate < 1e21) for rate in rates):
        return None  # the cache file is damaged
    return found if key(device).items() <= asdict(found).items() else None


def measure(device: torch.device) -> Machine:
    """Measure, in about a second, and cache the result if possible. If this or the cached measurement was made on a
    busy machine, keep the better rate of each."""
    before = known(device)
    wall, used = time.perf_counter(), time.process_time()
    rates = [_products(device, torch.float32), _products(device, torch.bfloat16)]
    used, wall = time.process_time() - used, time.perf_counter() - wall
    rates += _memory(device)
    quiet = device.type != "cpu" or used >= _OURS * wall * torch.get_num_threads()
    if before is not None and not (before.quiet and quiet):
        old = (before.fp32, before.bf16, before.read, before.copy)
        rates = [
            max((rate for rate in pair if rate is not None), default=None) for pair in zip(rates, old, strict=True)
        ]
        quiet = quiet or before.quiet
    fp32, bf16, read, copy = rates
    found = Machine(**key(device), fp32=fp32, bf16=bf16, read=read, copy=copy, quiet=quiet)
    with suppress(UserError):  # disk full: it is measured again next time
        write_json(_path(device), asdict(found))
    return found


def measure_in_subprocess(device: torch.device) -> Machine | None:
    """As `measure`, in a subprocess, so that its memory is freed and not attributed to this process. None on
    failure."""
    code = "import sys; from tui_llm.llm.model import device, machine; machine.measure(device.choose(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(device)]
    threads = str(torch.get_num_threads())
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    with suppress(OSError, subprocess.SubprocessError):
        subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=600, check=True)
        return known(device)
    return None


def machine(device: torch.device) -> Machine:
    """The cached measurement if it was made on an idle machine, else a new one."""
    found = known(device)
    return found if found and found.quiet else measure(device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _timed(work: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    began = time.perf_counter()
    work()
    _wait(device)
    return max(time.perf_counter() - began, 1e-9)


@torch.no_grad()
def _products(device: torch.device, dtype: torch.dtype) -> float | None:
    """The best FLOP/s over growing matrices, up to the size where launch overhead is negligible."""
    best, spent = 0.0, 0.0
    with suppress(RuntimeError):  # out of memory, or not supported: keep what was measured so far
        for n in _SIZES:
            a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
            out = torch.empty_like(a)
            took = [_timed(lambda: torch.mm(a, b, out=out), device)]  # noqa: B023 (called at once)
            # The first product of a size wakes threads and selects a kernel, so each size is timed at least twice.
            while len(took) < 2 or (min(took) >= _ENOUGH and spent + sum(took) < _SPENT):
                if took[0] > 2 * _SPENT:
                    break  # the device emulates this precision
                took.append(_timed(lambda: torch.mm(a, b, out=out), device))  # noqa: B023
            spent += sum(took)
            best = max(best, 2 * n**3 / min(took))
            if min(took) >= _ENOUGH or spent > _SPENT:
                break
    return best or None


@torch.no_grad()
def _memory(device: torch.device) -> list[float | None]:
    """Bytes/s of reading (a sum over all elements) and of copying."""
    size = _BYTES.get(device.type, 1 << 28)
    try:
        source = torch.ones(size // 4, device=device)
        target = torch.empty_like(source)
        rates: list[float | None] = []
        for work, moved in ((source.sum, size), (lambda: target.copy_(source), 2 * size)):
            took = [_timed(work, device)]  # the first one causes page faults
            while len(took) < 3 or (sum(took) < _SPENT / 2 and len(took) < 20):
                took.append(_timed(work, device))
            rates.append(moved / min(took))
    except RuntimeError:  # out of memory
        return [None, None]
    return rates
