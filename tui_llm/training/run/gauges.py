"""Model FLOPs utilization, computed from a run's files; and the gauges of its machine as words. Does not import torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tui_llm.common.numbers import memory_size
from tui_llm.facts.machine_reading import CpuReading, GpuReading, MachineReading
from tui_llm.training.run.metrics import MetricsTail

RECENT = 1 << 16  # bytes of metrics: a few hundred steps, of which every 20th has the gauges


def mfu(
    facts: Mapping[str, Any], tokens_per_second: float | None, flops_per_token: float | None = None
) -> float | None:
    """Returns the model FLOPs utilization (MFU) as a fraction: tokens/s × FLOPs per token ÷ peak FLOP/s.

    The definition is that of PaLM (Chowdhery et al. 2022, appendix B): recomputed activations do not count.

    `facts` is the content of the run's status.json: `flops_per_token` (see `cost.flops_per_token`), `peak_flops` (of
    one process's device, measured by `llm/model/machine.py` in the precision of the run's matrix products), and
    `processes` (default 1). Returns None if one of the values is missing, and if the rate is higher than the peak: then the
    peak was measured wrong. The argument `flops_per_token` is that of the steps (`Metric`), where they differ.
    """
    share = _share(facts, tokens_per_second, flops_per_token)
    return None if share is None or share > 1 else share


def above_peak(facts: Mapping[str, Any], tokens_per_second: float, flops_per_token: float | None = None) -> bool:
    """Whether a step was faster than the peak in `facts` allows, which proves that peak wrong."""
    share = _share(facts, tokens_per_second, flops_per_token)
    return share is not None and share > 1


def _share(facts: Mapping[str, Any], tokens_per_second: float | None, flops_per_token: float | None) -> float | None:
    flops = _positive(flops_per_token) or _positive(facts.get("flops_per_token"))
    peak = _positive(facts.get("peak_flops"))
    rate, processes = _positive(tokens_per_second), _positive(facts.get("processes", 1))
    if flops is None or peak is None or rate is None or processes is None:
        return None
    whole = peak * processes  # 0 where a damaged file has two tiny numbers
    return rate / whole * flops if whole > 0 else None  # in this order: ∞ ÷ ∞ would be NaN


def newest(metrics: Path) -> MachineReading | None:
    """The newest gauges in a metrics.jsonl, of its last `RECENT` bytes; None if there are none."""
    tail = MetricsTail(metrics)
    try:
        tail.offset = max(0, metrics.stat().st_size - RECENT)
    except OSError:
        return None
    return next((found.machine for found in reversed(tail.new()) if found.machine is not None), None)


def _positive(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value < sys.float_info.max else None


def flops_text(rate: float) -> str:
    """Formats a number of FLOP/s: 98 GFLOP/s, 1.2 TFLOP/s."""
    return f"{rate / 1e12:.3g} TFLOP/s" if rate >= 999.5e9 else f"{rate / 1e9:.3g} GFLOP/s"


# ── the gauges of a machine, as words ────────────────────────────────────────────────────────────────────────────────

NA = "N/A"
FULL = 0.97  # of the card's memory in use, from which it counts as full
LEAST_BF16 = 8  # major compute capability from which NVIDIA's GPUs multiply in bf16 (Ampere)


class Gauge(NamedTuple):
    """One gauge: its name, its value as text (`NA` if it was not read), and which number it is."""

    name: str
    value: str
    meaning: str


def gpu_gauges(gpu: GpuReading) -> list[Gauge]:
    """The gauges of one GPU, in the order in which they are shown."""
    if gpu.device == "mps":
        return [
            Gauge("allocated", size(gpu.allocated), "in tensors of the reading process (torch.mps.current_allocated_memory)"),
            Gauge("reserved", size(gpu.reserved), "held by the process: tensors, cache, Metal (torch.mps.driver_allocated_memory)"),
            Gauge("recommended", size(gpu.memory_total), "the most that Metal recommends (torch.mps.recommended_max_memory)"),
            Gauge("utilization", NA, "macOS tells it to administrators only (sudo powermetrics)"),
        ]  # fmt: skip
    peak = "" if gpu.allocated_peak is None else f", at most {memory_size(gpu.allocated_peak)}"
    of_card = "of the MIG instance, " if gpu.mig else ""
    return [
        Gauge("utilization", share(gpu.use), "part of the last second or less in which a kernel ran; not how well it used the GPU: that is MFU" + (" (MIG has none)" if gpu.mig else "")),
        Gauge("allocated", size(gpu.allocated) + peak, "in tensors of the run's first process (torch.cuda.memory_allocated)"),
        Gauge("reserved", size(gpu.reserved), "held by torch's allocator: these tensors and its cache (torch.cuda.memory_reserved)"),
        Gauge("on the card", part(gpu.memory_used, gpu.memory_total, memory_size), f"{of_card}by all programs, with CUDA's own part (nvidia-smi: memory.used)"),
        Gauge("temperature", NA if gpu.temperature is None else f"{gpu.temperature} °C", "of the GPU's chip (temperature.gpu)"),
        Gauge("power", part(gpu.power, gpu.power_limit, watts), "now, of the limit that holds (power.draw, enforced.power.limit)"),
        Gauge("clocks", f"SM {megahertz(gpu.sm_clock)}, memory {megahertz(gpu.memory_clock)}", "now (clocks.sm, clocks.mem)"),
        Gauge("processes", NA if gpu.processes is None else f"{gpu.processes:,}", "that compute on it, this run's included"),
        Gauge("capability", gpu.capability or NA, "compute capability; from 8.0 on it multiplies in bf16"),
    ]  # fmt: skip


def cpu_gauges(cpu: CpuReading) -> list[Gauge]:
    """The gauges of a CPU, in the order in which they are shown."""
    quota = "" if cpu.quota is None else f", {cpu.quota:.3g} at once"
    limit = "" if cpu.frequency_limit is None else f", at most {gigahertz(cpu.frequency_limit)}"
    return [
        Gauge("cores", f"{whole(cpu.cores)} of {whole(cpu.machine_cores)}{quota}", f"logical cores that the process may use, of the machine's; physical: {whole(cpu.physical_cores)}"),
        Gauge("busy", share(cpu.use), "of these cores, by all programs, since the reading before"),
        Gauge("own", NA if cpu.busy_cores is None else f"{cpu.busy_cores:.1f} cores", "kept busy by the reading process alone"),
        Gauge("frequency", gigahertz(cpu.frequency) + limit, "mean of these cores; a virtual machine often has only a nominal one"),
        Gauge("memory", size(cpu.memory_process), "of the reading process (resident)"),
        Gauge("free memory", f"{size(cpu.memory_free)} of {size(cpu.memory_total)}", "what the process can still get under all limits, and what the machine has"),
    ]  # fmt: skip


def size(count: float | None) -> str:
    return NA if count is None else memory_size(count)


def share(value: float | None) -> str:
    return NA if value is None else f"{100 * value:.0f} %"


def whole(count: int | None) -> str:
    return NA if count is None else f"{count:,}"


def megahertz(value: float | None) -> str:
    return NA if value is None else f"{value:,.0f} MHz"


def gigahertz(value: float | None) -> str:
    return NA if value is None else f"{value / 1000:.2f} GHz"


def watts(value: float) -> str:
    return f"{value:,.0f} W"


def part(value: float | None, limit: float | None, text: Callable[[float], str]) -> str:
    if value is None:
        return NA
    return text(value) if limit is None else f"{text(value)} of {text(limit)}"


def gpu_title(gpu: GpuReading) -> str:
    """What tells a GPU from the others: torch's name for it, nvidia-smi's number, the product. Not sanitized."""
    number = "" if gpu.index is None else f"GPU {gpu.index}"
    return " · ".join(part for part in (gpu.device, number, gpu.name) if part) or "GPU"


def notes(machine: MachineReading, processes: int = 1) -> list[str]:
    """What a person should know of the GPUs, a line each: lost, without permission, full, shared with other programs. `processes`
    of the run share a GPU. Not sanitized."""
    lines = [machine.problem] if machine.problem else []
    for gpu in machine.gpus:
        where = gpu.device or (f"GPU {gpu.index}" if gpu.index is not None else "GPU")
        if gpu.problem:
            lines.append(f"{where}: {gpu.problem}")
        used, total = gpu.memory_used, gpu.memory_total
        if used is not None and total and used >= FULL * total:
            ours = "" if gpu.reserved is None else f"; {memory_size(gpu.reserved)} are this run's"
            lines.append(f"{where}: the card is full, {memory_size(used)} of {memory_size(total)} in use{ours}; a smaller batch size helps")  # fmt: skip
        if gpu.device and gpu.processes is not None and gpu.processes > processes:
            others = gpu.processes - processes
            lines.append(f"{where}: {others} other {'process computes' if others == 1 else 'processes compute'} on it too, perhaps this app; that slows the run")  # fmt: skip
    return lines


def old_gpus(machine: MachineReading) -> list[str]:
    """A line for each GPU of the run that is too old to multiply in bf16."""
    return [
        f"{gpu.device}: compute capability {gpu.capability} has no bf16, so it trains in fp32"
        for gpu in machine.gpus
        if gpu.device and (major := _major(gpu.capability)) is not None and major < LEAST_BF16
    ]


def _major(capability: str) -> int | None:
    number = capability.partition(".")[0]
    return int(number) if number.isascii() and number.isdigit() else None
