"""NVIDIA's GPUs as nvidia-smi sees them, through NVML, the library that nvidia-smi reads too. Does not import torch.

Each value is read alone: what a GPU, a driver or this process's rights do not give is None, never 0. The package
nvidia-ml-py (module `pynvml`) is NVIDIA's binding; without it, or without a driver, `problem` says so.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

from tui_llm.facts.machine_reading import GpuReading

T = TypeVar("T")

MISSING = "nvidia-ml-py is not installed, so the GPU's use, temperature, power and clocks are unknown; pip install nvidia-ml-py"

# NVML's documented return codes → what people can do. Others are told with NVML's own words.
PROBLEMS = {
    "DRIVER_NOT_LOADED": "the NVIDIA driver is not loaded; load it (modprobe nvidia), or restart the machine",
    "LIBRARY_NOT_FOUND": "the NVIDIA driver's library (libnvidia-ml) is not installed here; in a container, pass --gpus all",
    "LIB_RM_VERSION_MISMATCH": "the NVIDIA driver was updated while it was loaded; restart the machine",
    "NO_PERMISSION": "this user may not read the GPU; ask for access to /dev/nvidia*",
    "GPU_IS_LOST": "the GPU is lost: it no longer answers on its bus; restart the machine",
    "RESET_REQUIRED": "the GPU must be reset before it computes again: nvidia-smi --gpu-reset, or restart the machine",
    "INSUFFICIENT_POWER": "the GPU's power cables are not connected properly",
    "IRQ_ISSUE": "the kernel has a problem with the GPU's interrupts; restart the machine",
    "FUNCTION_NOT_FOUND": "the NVIDIA driver is too old for nvidia-ml-py; update the driver",
}
FATAL = ("GPU_IS_LOST", "RESET_REQUIRED")  # what was read of the same GPU just before is not true any more
NOTED = ("NO_PERMISSION",)
NOT_AVAILABLE = (2**32 - 1, 2**64 - 1)  # what NVML fills in for a value that it does not have


class Nvml:
    """NVML, opened once for the process. `problem` says why it can't be; then there are no GPUs.

    `library` is the module `pynvml`, for tests another one. Not thread-safe: use it on one thread.
    """

    def __init__(self, library: ModuleType | Any | None = None) -> None:
        self.problem = self.driver = self.cuda = ""
        self._lib: Any = library
        self._open = False
        if library is None:
            try:
                import pynvml
            except ImportError:
                self.problem = MISSING
                return
            self._lib = pynvml
        try:
            self._lib.nvmlInit()
        except self._lib.NVMLError as error:
            self.problem = self._words(error)
            return
        self._open = True
        self.driver = _text(self._value(self._lib.nvmlSystemGetDriverVersion) or "")
        version = self._value(lambda: self._lib.nvmlSystemGetCudaDriverVersion_v2()) or self._value(
            lambda: self._lib.nvmlSystemGetCudaDriverVersion()
        )
        self.cuda = f"{version // 1000}.{version % 1000 // 10}" if version else ""

    def close(self) -> None:
        """Releases the library; nothing can be read afterwards."""
        if self._open:
            self._open = False
            with contextlib.suppress(self._lib.NVMLError):
                self._lib.nvmlShutdown()

    def all(self) -> list[GpuReading]:
        """Reads every GPU that this process may see, in nvidia-smi's order."""
        if not self._open:
            return []
        try:
            count = int(self._lib.nvmlDeviceGetCount())
        except self._lib.NVMLError as error:
            self.problem = self._words(error)
            return []
        return [self._at(index) for index in range(count)]

    def _at(self, index: int) -> GpuReading:
        try:
            handle = self._lib.nvmlDeviceGetHandleByIndex(index)
        except self._lib.NVMLError as error:
            return GpuReading(index=index, problem=self._words(error))
        return dataclasses.replace(self.read(handle), index=index)

    def find(self, uuid: str, bus_id: str = "") -> GpuReading | None:
        """Reads the GPU, or the MIG instance, that CUDA knows by this UUID (with or without its prefix), or else by this PCI bus
        id. CUDA's and torch's index is of no use here: it depends on CUDA_VISIBLE_DEVICES and on CUDA_DEVICE_ORDER, whose
        default, the fastest GPU first, is not NVML's order.

        Returns None if NVML has no such GPU. One that is lost is returned with its problem.
        """
        if not self._open:
            return None
        bare = uuid.removeprefix("GPU-").removeprefix("MIG-")
        searches: list[Callable[[], Any]] = []
        if bare:
            by_uuid = self._lib.nvmlDeviceGetHandleByUUID
            names = [uuid] if uuid != bare else [f"GPU-{bare}", f"MIG-{bare}"]
            searches += [lambda name=name: by_uuid(name.encode()) for name in names]  # type: ignore[misc]
        if bus_id:
            searches.append(lambda: self._lib.nvmlDeviceGetHandleByPciBusId(bus_id.encode()))
        lost: GpuReading | None = None
        for search in searches:
            try:
                handle = search()
            except self._lib.NVMLError as error:
                if self._code(error) in (*FATAL, *NOTED):
                    lost = GpuReading(uuid=uuid, problem=self._words(error))
                continue
            return self.read(handle)
        return lost

    # ── one GPU ──────────────────────────────────────────────────────────────────────────────────────────────────

    def read(self, handle: Any) -> GpuReading:
        """Reads one GPU or MIG instance."""
        lib, problems = self._lib, list[str]()

        def value(read: Callable[[], T]) -> T | None:
            return self._value(read, problems)

        is_instance = bool(_number(value(lambda: lib.nvmlDeviceIsMigDeviceHandle(handle))))
        card = value(lambda: lib.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)) if is_instance else handle
        modes = value(lambda: lib.nvmlDeviceGetMigMode(card))
        mig = is_instance or bool(modes and modes[0])
        # The whole card's memory says nothing of the instance that a process computes on.
        memory = None if mig and not is_instance else self._memory(handle, problems)
        use = None if mig else value(lambda: lib.nvmlDeviceGetUtilizationRates(handle).gpu)
        power = _number(value(lambda: lib.nvmlDeviceGetPowerUsage(card)))
        limit = _number(value(lambda: lib.nvmlDeviceGetEnforcedPowerLimit(card)))
        capability = value(lambda: lib.nvmlDeviceGetCudaComputeCapability(card))
        processes = None if mig else value(lambda: lib.nvmlDeviceGetComputeRunningProcesses(handle))
        if processes is None and not mig:
            processes = value(lambda: lib.nvmlDeviceGetComputeRunningProcesses_v2(handle))  # drivers before 510
        found = GpuReading(
            name=_text(value(lambda: lib.nvmlDeviceGetName(handle)) or ""),
            index=_number(value(lambda: lib.nvmlDeviceGetIndex(card))),
            uuid=_text(value(lambda: lib.nvmlDeviceGetUUID(handle)) or ""),
            memory_used=memory[0] if memory else None,
            memory_total=memory[1] if memory else None,
            use=use / 100 if use is not None and 0 <= use <= 100 else None,
            temperature=_number(value(lambda: self._temperature(card))),
            power=None if power is None else power / 1000,
            power_limit=None if limit is None else limit / 1000,
            sm_clock=_number(value(lambda: lib.nvmlDeviceGetClockInfo(card, lib.NVML_CLOCK_SM))),
            memory_clock=_number(value(lambda: lib.nvmlDeviceGetClockInfo(card, lib.NVML_CLOCK_MEM))),
            processes=None if processes is None else len(processes),
            capability=f"{capability[0]}.{capability[1]}" if capability else "",
            mig=mig,
        )
        for code in FATAL:
            if code in problems:
                return GpuReading(name=found.name, index=found.index, uuid=found.uuid, mig=mig, problem=PROBLEMS[code])
        noted = next((PROBLEMS[code] for code in NOTED if code in problems), "")
        return dataclasses.replace(found, problem=noted)

    def _memory(self, handle: Any, problems: list[str]) -> tuple[int, int] | None:
        """Bytes in use and in all. Version 2 of the structure keeps what the driver reserves out of what is in use, as nvidia-smi
        does since the driver 510; older drivers have only version 1, as had their nvidia-smi."""
        lib = self._lib
        found = self._value(lambda: lib.nvmlDeviceGetMemoryInfo(handle, version=lib.nvmlMemory_v2))
        if found is None:
            found = self._value(lambda: lib.nvmlDeviceGetMemoryInfo(handle), problems)
        if found is None:
            return None
        used, total = _number(found.used), _number(found.total)
        return None if used is None or not total else (used, total)

    def _temperature(self, card: Any) -> int:
        """In °C. The newer function is asked where the older one is gone."""
        lib = self._lib
        try:
            return int(lib.nvmlDeviceGetTemperature(card, lib.NVML_TEMPERATURE_GPU))
        except (AttributeError, lib.NVMLError) as error:
            if isinstance(error, lib.NVMLError) and self._code(error) in FATAL:
                raise
            return int(lib.nvmlDeviceGetTemperatureV(card, lib.NVML_TEMPERATURE_GPU))

    def _value(self, read: Callable[[], T], problems: list[str] | None = None) -> T | None:
        """What `read` returns, or None; the code of its failure is added to `problems`. An older nvidia-ml-py has not all
        functions and arguments."""
        try:
            return read()
        except self._lib.NVMLError as error:
            if problems is not None:
                problems.append(self._code(error))
        except (
            Exception
        ):  # of the binding, not of NVML: it lacks the function, or has another version (NVMLLibraryMismatchError)
            pass
        return None

    def _code(self, error: Exception) -> str:
        """The name of NVML's return code without `NVML_ERROR_`; empty for one that has no advice here."""
        value = getattr(error, "value", None)
        return next((name for name in PROBLEMS if getattr(self._lib, f"NVML_ERROR_{name}", None) == value), "")

    def _words(self, error: Exception) -> str:
        return PROBLEMS.get(self._code(error)) or f"NVML can't read the GPU: {error}"


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _number(value: Any) -> int | None:
    """A whole number of NVML; None where it says that it has none."""
    value = getattr(value, "value", value)
    return None if value is None or value in NOT_AVAILABLE or value < 0 else int(value)
