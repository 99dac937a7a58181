"""What happened to the watched run between two snapshots: it is done, it died, or an alarm was raised."""

from __future__ import annotations

from tui_llm.training.run.snapshot import RunSnapshot
from tui_llm.tui.kit import format as fmt


class RunNews:
    """What was there when a run was first read is no news."""

    def __init__(self) -> None:
        self._name = ""
        self._alive = False
        self._seen: set[tuple[str, int]] = set()

    def of(self, now: RunSnapshot | None) -> list[str]:
        """Returns a line for each new thing; it contains foreign text (the run's name, its message)."""
        if now is None or now.reading:
            return []
        alarms = now.health.alarms if now.health is not None else ()
        if now.name != self._name:
            self._name, self._alive, self._seen = now.name, now.status.alive, {one.key for one in alarms}
            return []
        new = [one for one in alarms if one.key not in self._seen]
        self._seen |= {one.key for one in new}
        lines = [f"{now.name}: {one.kind} at step {fmt.count(one.step)}" for one in new]
        if self._alive and not now.status.alive:
            lines += self._end(now)
        self._alive = now.status.alive
        return lines

    def _end(self, now: RunSnapshot) -> list[str]:
        """A run that was told to stop is no news."""
        status = now.status
        loss = f", loss {fmt.number(now.last.loss, 3)}" if now.last is not None else ""
        where = f"step {fmt.count(status.step)} of {fmt.count(status.steps)}{loss}"
        if status.state == "finished":
            return [f"{now.name} is done: {where}"]
        if status.state == "died":
            return [f"{now.name} died: {where}"]
        return [f"{now.name} failed: {where}; {status.summary}"] if status.state == "failed" else []
