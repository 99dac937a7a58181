"""The commands of the other screens: runs, the form for a new run, help."""

from __future__ import annotations

from tui_llm.tui.kit.command import Command

SCREEN_COMMANDS: tuple[Command, ...] = (
    # Runs (the screen that R opens)
    Command(
        "watch_run",
        "enter",
        "watch",
        "Watch the run under the cursor in the Training pane",
        "Runs",
        "runs",
        "watch_run",
        ("runs",),
    ),
    Command(
        "mark_run",
        "space",
        "mark",
        "Lay the run's loss over the watched one's in the chart, or take it off (at most four)",
        "Runs",
        "runs",
        "mark_run",
        ("runs",),
    ),
    Command(
        "open_listed_run",
        "o",
        "open",
        "Open the run's newest checkpoint as the model of all panes",
        "Runs",
        "runs",
        "open_run",
        ("runs",),
    ),
    Command(
        "resume_listed_run",
        "e",
        "resume",
        "Resume a stopped or died run from its last checkpoint",
        "Runs",
        "runs",
        "resume_run",
        ("runs",),
    ),
    Command(
        "stop_listed_run",
        "S",
        "stop",
        "Stop the run: it saves, then leaves",
        "Runs",
        "runs",
        "stop_run",
        ("runs",),
    ),
    Command(
        "delete_run",
        "D,delete",
        "delete",
        "Delete the run and its checkpoints; asks first",
        "Runs",
        "runs",
        "delete_run",
        ("runs",),
    ),
    Command(
        "new_listed_run",
        "n",
        "new run",
        "Train a model on a text of yours",
        "Runs",
        "runs",
        "new_run",
        ("runs",),
    ),
    Command("leave_runs", "escape,q", "back", "Back to the five panes", "Runs", "runs", "leave", ("runs",)),
    # New run (the form that n opens)
    Command(
        "start_run",
        "ctrl+s",
        "start",
        "Make the run and start its worker",
        "New run",
        "new_run",
        "start",
        ("new_run",),
    ),
    Command(
        "leave_form",
        "escape",
        "cancel",
        "Back, without a new run",
        "New run",
        "new_run",
        "leave",
        ("new_run",),
    ),
    # Help
    Command("leave_help", "escape,q,question_mark,f1", "back", "Back from this help", "App", "help", "close"),
)
