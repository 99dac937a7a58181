"""What was read of a machine at one time: its GPUs and its CPU. A value that was not read is None, never a guess."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

LONGEST = 300  # characters of a text that is read from a file
MOST_GPUS = 64


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU. Memory is in bytes, power in watts, clocks in MHz, temperatures in °C.

    name: the product's name. index: its number in nvidia-smi, which is not torch's (see `device`). uuid: as nvidia-smi has it.
    device: torch's name for it in the process that read it, such as `cuda:0`; empty if that process does not use it.
    allocated, allocated_peak, reserved: of the reading process, from torch's allocator: in tensors now, at most so far, and
        what the allocator holds of the card, tensors and cache. Of a GPU that another process uses: None.
    memory_used, memory_total: on the card, by all processes together, as nvidia-smi has them. Of a MIG instance: the instance's.
        On MPS the total is what Metal recommends as the most, and `memory_used` is None.
    use: the share of the last sample period (1/6 to 1 second) in which a kernel was running, 0 to 1. None with MIG.
    temperature, power, power_limit, sm_clock, memory_clock: of the whole card, with MIG too.
    processes: the number of processes that compute on it, this one included.
    capability: the compute capability, such as `9.0`.
    mig: whether it is split into instances (Multi-Instance GPU).
    problem: why nothing, or not all, could be read, in one line; empty if all is well.
    """

    name: str = ""
    index: int | None = None
    uuid: str = ""
    device: str = ""
    allocated: int | None = None
    allocated_peak: int | None = None
    reserved: int | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    use: float | None = None
    temperature: int | None = None
    power: float | None = None
    power_limit: float | None = None
    sm_clock: int | None = None
    memory_clock: int | None = None
    processes: int | None = None
    capability: str = ""
    mig: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class CpuReading:
    """The CPU, as one process sees it. Memory is in bytes, frequencies in MHz.

    cores: the logical cores that the process may use (its affinity). quota: how many of them at once, if a cgroup limits it.
    machine_cores, physical_cores: logical and physical cores of the machine.
    frequency: the mean of the process's cores now; a virtual machine often has only its nominal one. frequency_limit: the
        largest that the kernel allows.
    use: the busy share of the process's cores, 0 to 1, by all programs, since the reading before.
    busy_cores: how many cores this process kept busy since the reading before; it computes with several threads.
    memory_total: of the machine. memory_free: what the process can still allocate, under all limits. memory_process: what it
        holds (resident).
    """

    name: str = ""
    cores: int | None = None
    quota: float | None = None
    machine_cores: int | None = None
    physical_cores: int | None = None
    frequency: float | None = None
    frequency_limit: float | None = None
    use: float | None = None
    busy_cores: float | None = None
    memory_total: int | None = None
    memory_free: int | None = None
    memory_process: int | None = None


@dataclass(frozen=True, slots=True)
class MachineReading:
    """`gpus` are those that were asked for, in that order. `problem` says in one line why no GPU, or no value of one, can be
    read; empty if there is nothing to say. `driver` and `cuda` are the NVIDIA driver's version and the newest CUDA it can run.
    `time` is in seconds since the epoch."""

    time: float = 0.0
    gpus: tuple[GpuReading, ...] = ()
    cpu: CpuReading | None = None
    problem: str = ""
    driver: str = ""
    cuda: str = ""


def as_json(reading: Any) -> dict[str, Any]:
    """The fields of a reading as JSON, without those that were not read."""
    found: dict[str, Any] = {}
    for field in fields(reading):
        value = getattr(reading, field.name)
        if field.name == "gpus":
            value = [as_json(gpu) for gpu in value]
        elif field.name == "cpu" and value is not None:
            value = as_json(value)
        if value not in (None, "", [], False):
            found[field.name] = value
    return found


def parse_machine(raw: Any) -> MachineReading | None:
    """The inverse of `as_json`; what is damaged in it counts as not read. None if `raw` is no object."""
    if not isinstance(raw, Mapping):
        return None
    gpus, cpu = raw.get("gpus"), raw.get("cpu")
    found = _values(MachineReading, raw, skip=("gpus", "cpu"))
    return MachineReading(
        **found,
        gpus=tuple(GpuReading(**_values(GpuReading, gpu)) for gpu in gpus[:MOST_GPUS] if isinstance(gpu, Mapping))
        if isinstance(gpus, list)
        else (),
        cpu=CpuReading(**_values(CpuReading, cpu)) if isinstance(cpu, Mapping) else None,
    )


def _values(record: type, raw: Mapping[str, Any], skip: tuple[str, ...] = ()) -> dict[str, Any]:
    """The undamaged values of the fields of a record."""
    found: dict[str, Any] = {}
    for field in fields(record):
        if field.name in skip or (value := raw.get(field.name)) is None:
            continue
        kind = str(field.type).partition(" | ")[0]
        if kind == "str" and isinstance(value, str):
            found[field.name] = value[:LONGEST]
        elif kind == "bool":
            found[field.name] = value is True
        elif kind in ("int", "float") and isinstance(value, int | float) and not isinstance(value, bool):
            number = _finite(value)
            if number is not None:
                found[field.name] = int(number) if kind == "int" else number
    return found


def _finite(value: float) -> float | None:
    """A number that is not negative and that a screen can show; None for others."""
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and 0 <= number < 2**63 else None
