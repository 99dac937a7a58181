"""Alarms and band as lines: in the Training pane, and for the chart."""

from __future__ import annotations

from textual.content import Content

from tui_llm.common.display import visible
from tui_llm.training.run.snapshot import RunSnapshot
from tui_llm.tui.kit import format as fmt

KEY = "N"


def health_line(snapshot: RunSnapshot, width: int) -> Content:
    """The newest alarm, or that there is none, and how the run will end; one line. Empty before the first step."""
    health = snapshot.health
    if health is None or snapshot.last is None:
        return Content()
    band = health.band.words if health.band is not None else ""
    if not health.alarms:
        return Content.styled(f"no alarm{f' · {band}' if band else ''}", "$text-muted").truncate(width, ellipsis=True)
    newest = health.alarms[-1]
    more = f"  {KEY}: all {health.count}" if health.count > 1 else f"  {KEY}: more"
    words = f"! {newest.kind} at step {fmt.count(newest.step)}: {visible(newest.evidence)}"
    room = max(1, width - len(more))
    return Content.assemble(
        Content.styled(words, "bold $text-warning").truncate(room, ellipsis=True), (more, "bold $text-accent")
    )


def end_of(snapshot: RunSnapshot) -> tuple[float, float] | None:
    """The band for the chart's right edge."""
    band = snapshot.health.band if snapshot.health is not None else None
    return None if band is None or band.missing else (band.low, band.high)
