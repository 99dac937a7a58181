"""The CPU's gauges: from files as Linux writes them, and on this machine against the standard library."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tui_llm.llm.model import cpu_reader
from tui_llm.llm.model.cpu_reader import CpuReader
from tui_llm.training.run import gauges


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of two packages with two cores of two threads each; this process may use cores 1 and 6."""
    monkeypatch.setattr(cpu_reader, "usable_cores", lambda: frozenset({1, 6}))
    (tmp_path / "proc/self").mkdir(parents=True)
    lines = []
    for core in range(8):
        lines += [f"processor\t: {core}", "model name\t: Some CPU", f"cpu MHz\t\t: {1000 + 100 * core}.5",
                  f"physical id\t: {core % 4 // 2}", f"core id\t\t: {core % 2}", ""]  # fmt: skip
    (tmp_path / "proc/cpuinfo").write_text("\n".join(lines))
    (tmp_path / "proc/meminfo").write_text("MemTotal:       16000000 kB\nMemAvailable:    8000000 kB\n")
    (tmp_path / "proc/self/cgroup").write_text("0::/user/job\n")
    (tmp_path / "sys/fs/cgroup/user/job").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("max 100000\n")
    (tmp_path / "sys/fs/cgroup/user/cpu.max").write_text("150000 100000\n")
    ticks(tmp_path, 0, 0)
    return tmp_path


def ticks(root: Path, busy: int, idle: int) -> None:
    """/proc/stat: cores 1 and 6 were busy and idle for so long; the others always busy."""
    rows = ["cpu  9 9 9 9 9 9 9 9 0 0"]
    for core in range(8):
        mine = core in (1, 6)
        rows.append(f"cpu{core} {busy if mine else 900} 1 1 {idle // 2 if mine else 0} {idle - idle // 2} 0 0 0 7 7")
    (root / "proc/stat").write_text("\n".join([*rows, "intr 5", ""]))


def test_cores_frequency_use_and_limits_are_those_of_the_process(root: Path) -> None:
    reader = CpuReader(root)
    assert reader.read().use is None  # no time has passed
    ticks(root, 30, 70)
    found = reader.read()
    assert found.use == pytest.approx(0.3) and (found.name, found.cores, found.quota) == ("Some CPU", 2, 1.5)
    assert found.physical_cores == 4 and found.frequency == pytest.approx(1350.5) and found.frequency_limit is None
    assert found.memory_total == 16_000_000 * 1024
    for core, mhz in ((1, 2_000_000), (6, 3_000_000)):
        folder = root / f"sys/devices/system/cpu/cpu{core}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(f"{mhz}\n")
        (folder / "cpuinfo_max_freq").write_text("4000000\n")
    found = reader.read()
    assert (found.frequency, found.frequency_limit) == (2500.0, 4000.0)
    shown = {gauge.name: gauge.value for gauge in gauges.cpu_gauges(found)}
    assert shown["frequency"] == "2.50 GHz, at most 4.00 GHz" and shown["cores"].endswith(", 1.5 at once")


def test_what_the_system_does_not_tell_is_not_available(tmp_path: Path) -> None:
    reader = CpuReader(tmp_path / "nothing")
    reader.read()
    found = reader.read()
    assert found.use is found.quota is found.frequency is found.physical_cores is None
    shown = {gauge.name: gauge.value for gauge in gauges.cpu_gauges(found)}
    assert shown["busy"] == shown["frequency"] == gauges.NA


@pytest.mark.parametrize("damaged", ["", "cpu0 x y", "cpu1 1 2\n", "\x00" * 99])
def test_damaged_files_are_not_available_either(root: Path, damaged: str) -> None:
    for name in ("proc/stat", "proc/cpuinfo", "proc/meminfo", "proc/self/cgroup", "sys/fs/cgroup/user/cpu.max"):
        (root / name).write_text(damaged)
    reader = CpuReader(root)
    found = reader.read()
    assert found.use is found.quota is found.frequency is found.physical_cores is None


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the cores of a process are not known here")
def test_this_machine_has_what_python_says() -> None:
    reader = CpuReader()
    sum(range(200_000))
    found = reader.read()
    assert found.machine_cores == os.cpu_count() and found.cores == len(os.sched_getaffinity(0))
    assert found.memory_total == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert found.busy_cores is not None and found.busy_cores > 0 and found.memory_process
    assert found.use is None or 0 <= found.use <= 1
