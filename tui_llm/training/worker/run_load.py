"""How much other processes slow this one down. Linux only; elsewhere nothing is known."""

from __future__ import annotations

from pathlib import Path


def _times() -> tuple[int, int]:
    """Nanoseconds that this process's threads have run, and waited for a core while they could have run (schedstat)."""
    ran = waited = 0
    for task in Path("/proc/self/task").iterdir():
        try:
            one, other, _ = (task / "schedstat").read_text(encoding="ascii").split()
        except (OSError, ValueError):
            continue
        ran, waited = ran + int(one), waited + int(other)
    return ran, waited


class RunLoad:
    """Measures from its construction on."""

    def __init__(self) -> None:
        self._began = self._now()

    def _now(self) -> tuple[int, int] | None:
        try:
            return _times()
        except OSError:
            return None

    def contention(self) -> float | None:
        """The time that this process took, relative to what it would take with the cores for itself: 1 or more; None if unknown."""
        now = self._now()
        if self._began is None or now is None or now[0] <= self._began[0]:
            return None
        return 1.0 + max(0, now[1] - self._began[1]) / (now[0] - self._began[0])
