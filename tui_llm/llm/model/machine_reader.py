"""Read the machine's gauges again and again: its GPUs through NVML, its CPU. Does not import torch; `device_gauges` adds what only
torch knows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tui_llm.facts.machine_reading import GpuReading, MachineReading
from tui_llm.llm.model.cpu_reader import CpuReader
from tui_llm.llm.model.nvml import Nvml

UNSEEN = "NVML does not know this GPU, so only torch's numbers are shown"


@dataclass(frozen=True, slots=True)
class CudaDevice:
    """What torch knows of one of its CUDA devices: its name there (`cuda:0`), the product's, UUID and PCI bus id."""

    device: str
    name: str = ""
    uuid: str = ""
    bus_id: str = ""


class MachineReader:
    """Reads `devices`, in their order; with `every`, then all other GPUs that NVML shows. `note` is the problem of a
    machine that has no other. `nvml` is for tests.

    NVML is opened only if there is something to ask it, so not with `nvidia` false: `devices` are AMD's then. Use it on one thread.
    """

    def __init__(
        self,
        devices: Sequence[CudaDevice] = (),
        *,
        every: bool = False,
        nvml: Nvml | None = None,
        note: str = "",
        nvidia: bool = True,
    ) -> None:
        self.devices = tuple(devices)
        self.every, self.note = every, note
        self._cpu = CpuReader()
        self._nvml = nvml or (Nvml() if nvidia and (devices or every) else None)

    def read(self) -> MachineReading:
        """The machine now. Never raises: what can't be read is None, and `problem` says why."""
        nvml = self._nvml
        if nvml is None:
            own = tuple(GpuReading(name=one.name, device=one.device) for one in self.devices)
            return MachineReading(time.time(), own, self._cpu.read(), self.note)
        gpus = [self._of(nvml, device) for device in self.devices]
        if self.every:
            seen = {gpu.index for gpu in gpus if gpu.index is not None}
            gpus += [gpu for gpu in nvml.all() if gpu.index not in seen]
        problem = nvml.problem or self.note
        return MachineReading(time.time(), tuple(gpus), self._cpu.read(), problem, nvml.driver, nvml.cuda)

    @staticmethod
    def _of(nvml: Nvml, device: CudaDevice) -> GpuReading:
        found = nvml.find(device.uuid, device.bus_id)
        if found is None:
            found = GpuReading(uuid=device.uuid, problem="" if nvml.problem else UNSEEN)
        return replace(found, device=device.device, name=found.name or device.name)

    def close(self) -> None:
        """Releases NVML."""
        if self._nvml is not None:
            self._nvml.close()
