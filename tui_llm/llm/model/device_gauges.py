"""What only torch knows of its devices: which GPU each is, what its allocator holds, and why CUDA can't be used."""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

import torch

from tui_llm.facts.machine_reading import GpuReading, MachineReading
from tui_llm.llm.model.cpu_reader import cpu_name
from tui_llm.llm.model.device_names import is_cpu
from tui_llm.llm.model.machine_reader import CudaDevice
from tui_llm.llm.model.nvml import Nvml

AMD = "of AMD's GPUs only the memory is read; rocm-smi shows their use, temperature and power"


def is_amd() -> bool:
    """Whether torch is built for AMD's GPUs (ROCm), which it calls cuda too."""
    return torch.version.hip is not None


def cuda_device(device: torch.device) -> CudaDevice:
    """The identity of a CUDA device. torch and NVML number GPUs differently (CUDA_VISIBLE_DEVICES, CUDA_DEVICE_ORDER), so the
    UUID and the PCI bus id say which one it is."""
    index = torch.cuda.current_device() if device.index is None else device.index
    found: Any = torch.cuda.get_device_properties(index)
    bus_id = ""
    with suppress(AttributeError, TypeError):  # older torch has no PCI properties
        bus_id = f"{found.pci_domain_id:08X}:{found.pci_bus_id:02X}:{found.pci_device_id:02X}.0"
    return CudaDevice(f"cuda:{index}", str(found.name), str(getattr(found, "uuid", "")), bus_id)


def cuda_devices(count: int) -> list[CudaDevice]:
    """The first `count` CUDA devices that torch sees."""
    return [cuda_device(torch.device("cuda", index)) for index in range(min(count, torch.cuda.device_count()))]


def with_allocator(reading: MachineReading, device: torch.device) -> MachineReading:
    """`reading` with what torch's allocator holds on `device`, and on MPS with the device itself.

    Where NVML gives no memory (it is not installed, MIG, unified memory), CUDA's own count is taken: used = total − free. Call it on
    the thread that computes: a call of CUDA's on another thread can spoil the recording of a CUDA graph.
    """
    if device.type == "mps":
        return replace(reading, gpus=(mps_reading(),))
    if device.type != "cuda":
        return reading
    own = f"cuda:{torch.cuda.current_device() if device.index is None else device.index}"
    return replace(reading, gpus=tuple(_allocated(gpu, device) if gpu.device == own else gpu for gpu in reading.gpus))


def _allocated(gpu: GpuReading, device: torch.device) -> GpuReading:
    with suppress(RuntimeError):  # the GPU is lost
        gpu = replace(
            gpu,
            allocated=torch.cuda.memory_allocated(device),
            allocated_peak=torch.cuda.max_memory_allocated(device),
            reserved=torch.cuda.memory_reserved(device),
        )
        if gpu.memory_used is None:
            free, total = torch.cuda.mem_get_info(device)
            gpu = replace(gpu, memory_used=total - free, memory_total=total)
        if not gpu.capability and not is_amd():
            major, minor = torch.cuda.get_device_capability(device)
            gpu = replace(gpu, capability=f"{major}.{minor}")
    return gpu


def mps_reading() -> GpuReading:
    """Apple's GPU: Metal tells of this process's memory only."""
    gpu = GpuReading(name=cpu_name(), device="mps")
    with suppress(RuntimeError):
        gpu = replace(gpu, allocated=torch.mps.current_allocated_memory(), reserved=torch.mps.driver_allocated_memory())
    with suppress(RuntimeError, AttributeError):  # recommended_max_memory: torch ≥ 2.6
        gpu = replace(gpu, memory_total=torch.mps.recommended_max_memory())
    return gpu


def why_no_cuda() -> str:
    """`cuda_problem` of this machine; empty too where no GPU's driver is installed."""
    if is_cpu("auto"):
        return ""
    with closing(Nvml()) as nvml:
        return cuda_problem(nvml)


def cuda_problem(nvml: Nvml) -> str:
    """Why torch can't use this machine's NVIDIA GPUs, and what helps; empty if it can, or if none is known of.

    Since CUDA 11 a driver runs programs of every minor version of its major version, and of all older ones (CUDA Compatibility
    guide, "minor version compatibility").
    """
    if torch.cuda.is_available():
        return ""
    gpus = nvml.all()
    if not gpus:
        return ""
    names = ", ".join(dict.fromkeys(gpu.name or "an NVIDIA GPU" for gpu in gpus))
    built = torch.version.cuda
    if built is None:
        return f"{names}: this torch is built without CUDA; install one with it (https://pytorch.org/get-started)"
    if nvml.cuda and int(nvml.cuda.partition(".")[0]) < int(built.partition(".")[0]):
        return (
            f"{names}: the driver {nvml.driver} runs CUDA {nvml.cuda} at most and this torch is built for CUDA {built}; update the"
            f" driver, or install a torch for CUDA {nvml.cuda.partition('.')[0]}"
        )
    if lost := next((gpu.problem for gpu in gpus if gpu.problem), ""):
        return lost
    return f"{names}: torch can't use it (CUDA_VISIBLE_DEVICES may hide it); `python -c 'import torch; torch.cuda.init()'` says why"
