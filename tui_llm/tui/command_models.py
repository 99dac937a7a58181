"""The commands about the open model itself."""

from __future__ import annotations

from tui_llm.tui.command import Command

MODEL_COMMANDS: tuple[Command, ...] = (
    Command(
        "chat",
        "J",
        "chat template",
        "Feed the prompt as a message in the model's chat template, or as plain text",
        "Tokens",
        "lab",
        "chat",
    ),
)
