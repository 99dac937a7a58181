"""How much other processes slow this one down. Linux only; elsewhere nothing is known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

Times = Mapping[str, tuple[int, int]]


def _times() -> Times:
    """Of each thread of this process, the nanoseconds that it has run, and waited for a core while it could have run (schedstat)."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            ran, waited, _ = (task / "schedstat").read_text(encoding="ascii").split()
            found[task.name] = int(ran), int(waited)
        except (OSError, ValueError):
            continue
    return found


class RunLoad:
    """Measures from its construction on."""

    def __init__(self) -> None:
        self._began = self._now()

    def _now(self) -> Times | None:
        try:
            return _times() or None
        except OSError:
            return None

    def _since(self) -> list[tuple[int, int]] | None:
        """Of each thread, the nanoseconds since the construction that it ran and waited; None if unknown."""
        now = self._now()
        if self._began is None or now is None:
            return None
        before = ((name, self._began.get(name, (0, 0))) for name in now)
        return [(now[name][0] - ran, max(0, now[name][1] - waited)) for name, (ran, waited) in before]

    def contention(self) -> float | None:
        """The time that this process took, relative to what it would take with the cores for itself: 1 or more; None if unknown."""
        found = self._since()
        ran = sum(one for one, _ in found or ())
        return 1.0 + sum(waited for _, waited in found) / ran if found and ran > 0 else None

    def longest_wait(self) -> float | None:
        """The seconds that the thread that waited longest has waited for a core; None if unknown."""
        found = self._since()
        return max(waited for _, waited in found) / 1e9 if found else None
