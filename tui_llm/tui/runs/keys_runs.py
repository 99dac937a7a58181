"""The commands of the Runs screen and of the form for a new run that do more than choose one."""

from __future__ import annotations

from tui_llm.tui.kit.command import Command


def _runs(id: str, keys: str, label: str, tooltip: str, action: str) -> Command:
    return Command(id, keys, label, tooltip, "Runs", "runs", action, ("runs",))


RUN_COMMANDS: tuple[Command, ...] = (
    _runs("continue_run", "plus", "more steps", "Give the run more steps and go on: asks for the new total", "continue_run"),
    _runs("compare_runs", "c", "compare", "The marked runs and the one under the cursor side by side", "compare_runs"),
    _runs("rename_run", "r", "rename", "Give the run another name", "rename_run"),
    _runs("export_run", "x", "export", "Write the run's newest checkpoint as a model folder", "export_run"),
    Command(
        "copy_comparison", "y", "copy", "Copy the comparison of runs, tab-separated", "Runs", "comparison", "copy",
        ("comparison",),
    ),
    Command("leave_comparison", "escape,q", "back", "Back to the runs", "Runs", "comparison", "leave", ("comparison",)),
    Command(
        "estimate_run", "ctrl+e", "estimate",
        "Measure a few real steps: tokens per second and the time for all steps; again to stop", "New run", "new_run",
        "estimate", ("new_run",), priority=True,
    ),
)  # fmt: skip
