"""The gauges of the machine, read on a thread while the run trains, so that no step waits for a driver."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from types import TracebackType

import torch

from tui_llm.facts.machine_reading import MachineReading
from tui_llm.llm.model import device_gauges
from tui_llm.llm.model.machine_reader import CudaDevice, MachineReader
from tui_llm.llm.model.nvml import Nvml

log = logging.getLogger(__name__)

INTERVAL = 2.0  # seconds between two readings


def sampler(device: torch.device, wanted: str) -> MachineSampler:
    """The sampler of what a run trains on: its GPU, or those of all its processes on this machine, and the CPU.

    `wanted` is the device that the run asked for: with `auto` on a CPU, its reading says why the machine's GPU is not used.
    """
    devices = list[CudaDevice]()
    if device.type == "cuda":  # here, not on the thread, which has a current device of its own
        with contextlib.suppress(
            RuntimeError, AssertionError, AttributeError
        ):  # a run does not end for want of a gauge
            own = device_gauges.cuda_device(device)
            others = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            more = device_gauges.cuda_devices(others) if others > 1 else []
            devices = [own, *(one for one in more if one != own)]
    unused, amd = device.type == "cpu" and wanted == "auto", device.type == "cuda" and device_gauges.is_amd()

    def make() -> MachineReader:
        note = device_gauges.unused_gpus() if unused else device_gauges.AMD if amd else ""
        return MachineReader(devices, note=note, nvidia=not amd)

    return MachineSampler(make)


def gpu_problem() -> str:
    """Why the GPU that this process computes on does not answer, in one line; empty if NVML sees nothing wrong, or if it computes on
    none."""
    if torch.cuda.is_initialized():
        with contextlib.suppress(Exception), contextlib.closing(Nvml()) as nvml:  # whatever fails now is not the reason
            own = device_gauges.cuda_device(torch.device("cuda"))
            found = nvml.find(own.uuid, own.bus_id)
            return found.problem if found is not None else ""
    return ""


class MachineSampler:
    """Context manager: inside, a thread reads the machine every `interval` seconds. `newest` is None until it has been read.

    `make` makes the reader, on that thread: opening a driver's library takes time.
    """

    def __init__(self, make: Callable[[], MachineReader], interval: float = INTERVAL) -> None:
        self._make, self._interval = make, interval
        self._ended = threading.Event()
        self.newest: MachineReading | None = None

    def __enter__(self) -> MachineSampler:
        self._ended.clear()
        threading.Thread(target=self._work, name="machine gauges", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()

    def _work(self) -> None:
        try:
            with contextlib.closing(self._make()) as reader:
                while True:
                    self.newest = reader.read()
                    if self._ended.wait(self._interval):
                        return
        except Exception as error:  # of any kind: gauges are no reason to end a run
            log.warning("the machine's gauges can't be read: %s: %s", type(error).__name__, error)
