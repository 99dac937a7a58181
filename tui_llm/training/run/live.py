"""What a terminal says of the runs that go on after the app has ended. Does not import torch."""

from __future__ import annotations

from tui_llm.common.display import visible
from tui_llm.common.errors import UserError
from tui_llm.training.run.run import runs

MOST = 10  # runs that are named


def farewell() -> list[str]:
    """Lines that name the live runs, and say how to watch and to stop them; none if there is no live run."""
    try:
        live = [run for run in runs() if run.taken()]
    except (UserError, OSError):
        return []
    lines = []
    for run in live[:MOST]:
        status = run.status()
        does = {"paused": "is still paused", "starting": "is still starting"}.get(status.state, "goes on training")
        lines.append(f"run {visible(run.name)} {does} (step {status.step:,} of {status.steps:,})")
    if not lines:
        return []
    if len(live) > MOST:
        lines.append(f"and {len(live) - MOST:,} more runs: tui-llm runs")
    if len(live) == 1:
        stop = f"stop it: tui-llm stop {visible(live[0].name)} (it saves first)"
        return [*lines, f"watch it: tui-llm, pane 4 · {stop}"]
    return [*lines, "watch them: tui-llm, then R · stop one: tui-llm stop NAME (it saves first)"]
