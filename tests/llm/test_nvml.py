"""GPUs through NVML: NVIDIA's own binding on a fake of the driver's C library, with nvml.h's return codes."""

from __future__ import annotations

import re
import sys
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.fake_nvml import (
    ARGUMENT_VERSION_MISMATCH,
    DRIVER_NOT_LOADED,
    GB,
    GPU_IS_LOST,
    LIB_RM_VERSION_MISMATCH,
    NO_PERMISSION,
    NOT_SUPPORTED,
    RESET_REQUIRED,
    UNKNOWN,
    Card,
    FakeNvml,
    install,
)
from tui_llm.common.errors import UserError
from tui_llm.facts.machine_reading import GpuReading
from tui_llm.llm.model import device, device_gauges
from tui_llm.llm.model.machine_reader import UNSEEN, CudaDevice, MachineReader
from tui_llm.llm.model.nvml import MISSING, PROBLEMS, Nvml
from tui_llm.training.run import gauges

pytest.importorskip("pynvml", reason="nvidia-ml-py, a dependency, is not installed")

A, B, C = "GPU-aaaaaaaa-0000-0000-0000-000000000000", "GPU-bbbbbbbb-0000-0000-0000-000000000000", "GPU-cccccccc-1"
CUDA = torch.device("cuda", 0)
READINGS = ("use", "memory_used", "memory_total", "temperature", "power", "power_limit", "sm_clock", "memory_clock", "processes")  # fmt: skip


def only(monkeypatch: pytest.MonkeyPatch, card: Card, **more: Any) -> GpuReading:
    """The reading of the only GPU of a machine."""
    install(monkeypatch, FakeNvml([card], **more))
    (found,) = Nvml().all()
    return found


def test_every_value_is_what_nvml_has_in_our_units(monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(monkeypatch, Card(A)) == GpuReading(
        name="NVIDIA H100 80GB HBM3", index=0, uuid=A, memory_used=6 * GB, memory_total=85 * GB, use=0.97, temperature=61,
        power=412.345, power_limit=700.0, sm_clock=1980, memory_clock=2619, processes=1, capability="9.0",
    )  # fmt: skip
    nvml = Nvml()
    assert (nvml.driver, nvml.cuda, nvml.problem) == ("570.86.15", "12.8", "")


FUNCTIONS = {
    "nvmlDeviceGetUtilizationRates": ("use",),
    "nvmlDeviceGetMemoryInfo": ("memory_used", "memory_total"),
    "nvmlDeviceGetTemperature": ("temperature",),
    "nvmlDeviceGetPowerUsage": ("power",),
    "nvmlDeviceGetEnforcedPowerLimit": ("power_limit",),
    "nvmlDeviceGetClockInfo": ("sm_clock", "memory_clock"),
    "nvmlDeviceGetComputeRunningProcesses": ("processes",),
}


@pytest.mark.parametrize("code", [NOT_SUPPORTED, NO_PERMISSION, UNKNOWN])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_a_gpu_does_not_give_is_none_and_nothing_else_is(
    monkeypatch: pytest.MonkeyPatch, function: str, code: int
) -> None:
    errors = {function: code, f"{function}V": code}
    found = only(monkeypatch, Card(A, errors=errors))
    assert {name for name in READINGS if getattr(found, name) is None} == set(FUNCTIONS[function])
    assert found.problem == (PROBLEMS["NO_PERMISSION"] if code == NO_PERMISSION else "")
    shown = {gauge.name: gauge.value for gauge in gauges.gpu_gauges(found)}
    assert gauges.NA in " ".join(shown.values()) and "None" not in " ".join(shown.values())


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_that_an_older_driver_lacks_gives_none(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    """pynvml then raises NVMLError_FunctionNotFound, and of unversioned functions NVMLLibraryMismatchError, which is no NVMLError."""
    missing = tuple(f"{function}{suffix}" for suffix in ("", "_v2", "_v3", "V"))
    found = only(monkeypatch, Card(A), missing=missing)
    assert {name for name in READINGS if getattr(found, name) is None} == set(FUNCTIONS[function])


def test_older_structures_are_asked_where_newer_ones_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    older = ("nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetComputeRunningProcesses_v3")
    found = only(monkeypatch, Card(A, processes=3), missing=older)
    assert found.memory_used == 6.5 * GB and found.processes == 3  # version 1 counts what the driver reserves
    found = only(monkeypatch, Card(A, errors={"nvmlDeviceGetMemoryInfo_v2": ARGUMENT_VERSION_MISMATCH}))
    assert found.memory_used == 6.5 * GB
    found = only(monkeypatch, Card(A), missing=("nvmlDeviceGetTemperature",))
    assert found.temperature == 61


def test_a_value_that_nvml_marks_as_not_available_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    found = only(monkeypatch, Card(A, milliwatts=2**32 - 1, used=2**64 - 1, sm=2**32 - 1, use=2**32 - 1))
    assert found.power is found.memory_used is found.sm_clock is found.use is None and found.temperature == 61


@pytest.mark.parametrize("code", [GPU_IS_LOST, RESET_REQUIRED])
def test_a_lost_gpu_has_a_line_and_no_number(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    first, second = Card(A), Card(B, use=12)
    install(monkeypatch, FakeNvml([first, second]))
    nvml = Nvml()
    assert [gpu.use for gpu in nvml.all()] == [0.97, 0.12]
    first.errors = {"nvmlDeviceGetPowerUsage": code}  # while it is read
    lost, other = nvml.all()
    words = PROBLEMS["GPU_IS_LOST" if code == GPU_IS_LOST else "RESET_REQUIRED"]
    assert lost.problem == words and lost.index == 0 and all(getattr(lost, name) is None for name in READINGS)
    assert other.use == 0.12 and not other.problem
    first.lose(code)  # before it is read
    lost, _ = nvml.all()
    assert lost == GpuReading(index=0, problem=words)
    found = nvml.find(A)
    assert found is not None and found.problem == words
    assert gauges.notes(MachineReader([CudaDevice("cuda:0", "H100", A)], nvml=nvml).read()) == [f"cuda:0: {words}"]


@pytest.mark.parametrize(
    ("code", "name"), [(DRIVER_NOT_LOADED, "DRIVER_NOT_LOADED"), (LIB_RM_VERSION_MISMATCH, "LIB_RM_VERSION_MISMATCH")]
)
def test_without_a_driver_one_line_says_why(monkeypatch: pytest.MonkeyPatch, code: int, name: str) -> None:
    install(monkeypatch, FakeNvml([Card(A)], init=code))
    read = MachineReader([CudaDevice("cuda:0", "H100", A)], nvml=Nvml()).read()
    assert gauges.notes(read) == [PROBLEMS[name]]
    assert read.gpus == (GpuReading(name="H100", device="cuda:0", uuid=A),)


def test_without_the_library_or_the_binding_one_line_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes

    import pynvml

    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", ctypes.CDLL)

    def absent(_name: str) -> None:
        raise OSError("libnvidia-ml.so.1: cannot open shared object file")

    monkeypatch.setattr(pynvml, "CDLL", absent)
    assert Nvml().problem == PROBLEMS["LIBRARY_NOT_FOUND"] and Nvml().all() == []
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert Nvml().problem == MISSING and Nvml().find(A) is None


# ── MIG ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_mig_instance_has_its_own_memory_and_the_cards_temperature_and_power(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(A, "00000000:3B:00.0", mig_mode=1, processes=5)
    instance = Card("MIG-11111111-2222", name="NVIDIA H100 MIG 1g.10gb", used=2 * GB, total=10 * GB, parent=card,
                    errors=dict.fromkeys(("nvmlDeviceGetTemperature", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetClockInfo"), NOT_SUPPORTED))  # fmt: skip
    install(monkeypatch, FakeNvml([card, instance]))
    for uuid in ("11111111-2222", "MIG-11111111-2222"):
        found = Nvml().find(uuid)
        assert found is not None and found.mig and found.use is None and found.processes is None
        assert (found.memory_used, found.memory_total, found.temperature, found.power) == (2 * GB, 10 * GB, 61, 412.345)
    by_bus = Nvml().find("99999999", card.bus_id)
    assert by_bus is not None and by_bus.mig and by_bus.use is by_bus.memory_used is by_bus.memory_total is None


# ── which GPU is which ───────────────────────────────────────────────────────────────────────────────────────────────


def cuda(monkeypatch: pytest.MonkeyPatch, *seen: tuple[str, int]) -> None:
    """torch sees these GPUs, (UUID without its prefix, PCI bus), in this order."""

    def properties(index: int) -> SimpleNamespace:
        uuid, bus = seen[index]
        return SimpleNamespace(name=f"card {bus}", uuid=uuid, pci_domain_id=0, pci_bus_id=bus, pci_device_id=0)

    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(seen))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)


@pytest.mark.parametrize("visible", [(0, 1, 2), (2, 0), (1,), (2, 1, 0)], ids=["all", "2,0", "1", "fastest first"])
def test_torchs_index_is_mapped_by_uuid_whatever_the_order(
    monkeypatch: pytest.MonkeyPatch, visible: tuple[int, ...]
) -> None:
    """CUDA_VISIBLE_DEVICES (indices or UUIDs) and CUDA_DEVICE_ORDER change torch's numbers, never NVML's."""
    cards = [Card(uuid, use=10 * n) for n, uuid in enumerate((A, B, C))]
    install(monkeypatch, FakeNvml(cards))
    cuda(monkeypatch, *((cards[n].uuid.removeprefix("GPU-"), n) for n in visible))
    read = MachineReader(device_gauges.cuda_devices(8), nvml=Nvml()).read()
    assert [(gpu.device, gpu.index, gpu.use) for gpu in read.gpus] == [
        (f"cuda:{i}", n, n / 10) for i, n in enumerate(visible)
    ]
    every = MachineReader(device_gauges.cuda_devices(8), every=True, nvml=Nvml()).read()
    assert sorted(gpu.index for gpu in every.gpus if gpu.index is not None) == [0, 1, 2]
    assert [gpu.device for gpu in every.gpus[len(visible) :]] == [""] * (3 - len(visible))


def test_without_a_uuid_the_bus_id_says_which_gpu_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeNvml([Card(A, "00000000:3B:00.0", use=1), Card(B, "00000000:AF:00.0", use=2)]))
    cuda(monkeypatch, ("", 0xAF))
    (one,) = MachineReader(device_gauges.cuda_devices(1), nvml=Nvml()).read().gpus
    assert (one.index, one.use) == (1, 0.02)
    cuda(monkeypatch, ("dddd", 0x01))  # hidden from NVML
    (one,) = MachineReader(device_gauges.cuda_devices(1), nvml=Nvml()).read().gpus
    assert one.problem == UNSEEN and one.use is None and one.name == "card 1"


def test_allocated_and_reserved_are_torchs_and_of_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeNvml([Card(A), Card(B, errors={"nvmlDeviceGetMemoryInfo": NOT_SUPPORTED})]))
    cuda(monkeypatch, ("bbbbbbbb-0000-0000-0000-000000000000", 2), ("aaaaaaaa-0000-0000-0000-000000000000", 1))
    for name, value in (("memory_allocated", 3), ("max_memory_allocated", 4), ("memory_reserved", 5)):
        monkeypatch.setattr(torch.cuda, name, lambda _device, value=value: value * GB)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (70 * GB, 84 * GB))
    read = MachineReader(device_gauges.cuda_devices(2), nvml=Nvml()).read()
    assert read.gpus[0].memory_used is None
    own, other = device_gauges.with_allocator(read, CUDA).gpus
    assert (own.allocated, own.allocated_peak, own.reserved) == (3 * GB, 4 * GB, 5 * GB)
    assert (own.memory_used, own.memory_total) == (14 * GB, 84 * GB)  # NVML has none: CUDA's
    assert other == read.gpus[1] and other.allocated is None and other.memory_used == 6 * GB

    def lost(_device: object) -> int:
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(torch.cuda, "memory_allocated", lost)
    assert device_gauges.with_allocator(read, CUDA).gpus[0].reserved is None


def test_of_amds_gpus_only_torchs_memory_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = MachineReader([CudaDevice("cuda:0", "MI300X")], nvidia=False, note=device_gauges.AMD)
    read = reader.read()
    assert read.gpus == (GpuReading(name="MI300X", device="cuda:0"),) and gauges.notes(read) == [device_gauges.AMD]


def test_mps_has_its_three_numbers_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    for n, name in enumerate(("current_allocated_memory", "driver_allocated_memory", "recommended_max_memory"), 1):
        monkeypatch.setattr(torch.mps, name, lambda n=n: n * GB)
    read = MachineReader().read()
    (gpu,) = device_gauges.with_allocator(read, torch.device("mps")).gpus
    assert (gpu.device, gpu.allocated, gpu.reserved, gpu.memory_total) == ("mps", GB, 2 * GB, 3 * GB)
    set_here = {field.name for field in fields(gpu) if getattr(gpu, field.name) not in (None, "", False)}
    assert set_here == {"name", "device", "allocated", "reserved", "memory_total"}
    assert [gauge.value for gauge in gauges.gpu_gauges(gpu)] == ["1.0 GB", "2.0 GB", "3.0 GB", gauges.NA]


# ── a line for what is wrong ─────────────────────────────────────────────────────────────────────────────────────────


def test_busy_full_and_old_gpus_have_a_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeNvml([Card(A, processes=3, used=84 * GB, capability=(7, 5))]))
    read = MachineReader([CudaDevice("cuda:0", "T4", A)], nvml=Nvml()).read()
    lines = [*gauges.notes(read), *gauges.old_gpus(read)]
    assert len(lines) == 3
    assert "the card is full, 84.0 GB of 85.0 GB in use" in lines[0]
    assert "2 other processes compute on it too" in lines[1] and "compute capability 7.5 has no bf16" in lines[2]


@pytest.mark.parametrize(
    ("built", "driver_cuda", "said"),
    [
        (None, 12080, "built without CUDA"),
        ("13.0", 12080, "the driver 570.86.15 runs CUDA 12.8 at most and this torch is built for CUDA 13.0; update"),
        ("12.9", 12020, "CUDA_VISIBLE_DEVICES may hide it"),
    ],
)
def test_why_torch_cannot_use_the_gpu(
    monkeypatch: pytest.MonkeyPatch, built: str | None, driver_cuda: int, said: str
) -> None:
    install(monkeypatch, FakeNvml([Card(A)], cuda=driver_cuda))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built)
    assert said in device_gauges.cuda_problem(Nvml())
    monkeypatch.setattr(device_gauges, "is_cpu", lambda _name: False)
    with pytest.raises(UserError, match=re.escape(said)):
        device.choose("cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_gauges.cuda_problem(Nvml()) == ""
