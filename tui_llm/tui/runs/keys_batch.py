"""The commands that look into a run and steer it: its batch, its samples, a checkpoint now, another learning rate."""

from __future__ import annotations

from tui_llm.tui.kit.command import Command

BATCH_COMMANDS: tuple[Command, ...] = (
    Command(
        "batch",
        "B",
        "batch",
        "See the batch that the watched run learns from next: x, y, and the loss of each token",
        "Training",
        "training",
        "batch",
        ("training",),
        importance=3,
    ),
    Command(
        "samples",
        "T",
        "samples",
        "See every text that the watched run's model wrote, one at each evaluation",
        "Training",
        "training",
        "samples",
        ("training",),
        importance=2,
    ),
    Command(
        "save_checkpoint",
        "V",
        "save now",
        "Save a checkpoint of the watched run now",
        "Training",
        "training",
        "save_checkpoint",
        ("training",),
    ),
    Command(
        "learning_rate",
        "L",
        "learning rate",
        "Change the watched run's learning rate from its next step on: the peak, and the whole schedule with it",
        "Training",
        "training",
        "learning_rate",
        ("training",),
    ),
    # The batch (the screen that B opens)
    Command("ask_batch", "r", "show now", "Show the batch of the run's next step", "Batch", "batch", "ask", ("batch",)),
    Command("copy_batch", "y", "copy", "Copy the batch's tokens and losses (tab-separated)", "Batch", "batch", "copy",
            ("batch",)),
    Command("leave_batch", "escape,q", "back", "Back to the five panes", "Batch", "batch", "leave", ("batch",),
            importance=3),
    Command("batch_help", "question_mark", "help", "Show all keys and what the numbers mean", "Batch", "batch",
            "app.show_help", ("batch",), importance=9),
    # The samples (the screen that T opens)
    Command("copy_samples", "y", "copy", "Copy all samples (tab-separated)", "Samples", "samples", "copy", ("samples",)),
    Command("leave_samples", "escape,q", "back", "Back to the five panes", "Samples", "samples", "leave", ("samples",),
            importance=3),
    Command("samples_help", "question_mark", "help", "Show all keys and what the numbers mean", "Samples", "samples",
            "app.show_help", ("samples",), importance=9),
)  # fmt: skip
