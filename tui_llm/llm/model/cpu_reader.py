"""The CPU as this process sees it: cores, frequency, use, memory; from /proc and /sys on Linux, from sysctl on macOS. Does not
import torch. What the system does not tell is None."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tui_llm.common import memory
from tui_llm.facts.machine_reading import CpuReading

SAMPLED = 8  # cores whose frequency is read: the kernel may have to wake each one for it


class CpuReader:
    """Reads the CPU again and again; use and busy cores are of the time since the reading before, so the first has none.

    `root` is where /proc and /sys are.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self._mine = usable_cores()
        self._name = cpu_name(root)
        self._physical = _physical_cores(root)
        self._quota = _quota(root)
        self._total = _memory_total(root)
        self._times = self._busy_and_all()
        self._spent = time.process_time(), time.monotonic()

    def read(self) -> CpuReading:
        before, now = self._times, self._busy_and_all()
        (spent_before, at_before), spent = self._spent, (time.process_time(), time.monotonic())
        self._times, self._spent = now, spent
        passed = spent[1] - at_before
        use = None
        if before is not None and now is not None and now[1] > before[1]:
            use = min(1.0, max(0.0, (now[0] - before[0]) / (now[1] - before[1])))
        return CpuReading(
            name=self._name,
            cores=len(self._mine) if self._mine else os.cpu_count(),
            quota=self._quota,
            machine_cores=os.cpu_count(),
            physical_cores=self._physical,
            frequency=self._frequency(),
            frequency_limit=self._khz("cpuinfo_max_freq"),
            use=use,
            busy_cores=(spent[0] - spent_before) / passed if passed > 0 else None,
            memory_total=self._total,
            memory_free=memory.free_bytes(),
            memory_process=memory.resident_bytes(),
        )

    def _busy_and_all(self) -> tuple[int, int] | None:
        """Ticks that the process's cores were busy, and all their ticks, since the machine started. Waiting for a disk is idle, and
        guests are counted within `user`."""
        try:
            lines = (self.root / "proc/stat").read_text().splitlines()
            rows = [line.split() for line in lines if line.startswith("cpu") and line[3:4].isdigit()]
            mine = [[int(n) for n in row[1:9]] for row in rows if not self._mine or int(row[0][3:]) in self._mine]
        except (OSError, ValueError):
            return None
        if not mine or any(len(row) < 5 for row in mine):
            return None
        every = sum(map(sum, mine))
        return every - sum(row[3] + row[4] for row in mine), every

    def _frequency(self) -> float | None:
        """The mean frequency in MHz of the process's cores, or of some of them where there are many."""
        if (found := self._khz("scaling_cur_freq")) is not None:
            return found
        with suppress(OSError, ValueError):
            cores, core = list[float](), -1
            for line in (self.root / "proc/cpuinfo").read_text().splitlines():
                name, _, value = line.partition(":")
                if name.strip() == "processor":
                    core = int(value)
                elif name.strip() == "cpu MHz" and (not self._mine or core in self._mine):
                    cores.append(float(value))
            return _mean(cores)
        return None

    def _khz(self, name: str) -> float | None:
        """The mean of a file of cpufreq, in MHz."""
        found = []
        for core in sorted(self._mine or range(os.cpu_count() or 1))[:SAMPLED]:
            with suppress(OSError, ValueError):
                found.append(int((self.root / f"sys/devices/system/cpu/cpu{core}/cpufreq/{name}").read_text()) / 1000)
        return _mean(found)


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values and min(values) > 0 else None


def usable_cores() -> frozenset[int]:
    """The numbers of the logical cores that this process may use (Linux); empty if unknown: all of them."""
    with suppress(AttributeError, OSError):
        return frozenset(os.sched_getaffinity(0))
    return frozenset()


def cpu_name(root: Path = Path("/")) -> str:
    """The CPU's product name."""
    with suppress(OSError):  # Linux
        for line in (root / "proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return _sysctl("machdep.cpu.brand_string") or platform.processor() or platform.machine()


def _sysctl(name: str) -> str:
    """A value of sysctl on macOS; empty where there is none."""
    if sys.platform != "darwin":
        return ""
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5)
        return done.stdout.strip()
    return ""


def _physical_cores(root: Path) -> int | None:
    """Cores without their hardware threads: pairs of (package, core) in /proc/cpuinfo; on macOS, hw.physicalcpu."""
    with suppress(OSError, ValueError):
        if found := _packages_and_cores((root / "proc/cpuinfo").read_text().splitlines()):
            return len(found)
    count = _sysctl("hw.physicalcpu")
    return int(count) if count.isdecimal() else None


def _packages_and_cores(lines: Iterable[str]) -> set[tuple[str, str]]:
    found, package = set(), ""
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "physical id":
            package = value.strip()
        elif name.strip() == "core id":
            found.add((package, value.strip()))
    return found


def _quota(root: Path) -> float | None:
    """How many cores at once the cgroups of this process allow: the smallest limit of version 2, or version 1's; None for none."""
    limits = []
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if not controllers:
                place, top = root / "sys/fs/cgroup" / name.lstrip("/"), root / "sys/fs/cgroup"
                limits += [
                    _cpu_max(folder) for folder in (place, *place.parents) if folder == top or top in folder.parents
                ]
            elif "cpu" in controllers.split(","):
                for folder in (root / "sys/fs/cgroup/cpu" / name.lstrip("/"), root / "sys/fs/cgroup/cpu"):
                    limits.append(_ratio(folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us"))
    return min((limit for limit in limits if limit), default=None)


def _cpu_max(folder: Path) -> float | None:
    with suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    return None


def _ratio(quota: Path, period: Path) -> float | None:
    with suppress(OSError, ValueError, ZeroDivisionError):
        allowed = int(quota.read_text())
        return allowed / int(period.read_text()) if allowed > 0 else None
    return None


def _memory_total(root: Path) -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) * 1024
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None
