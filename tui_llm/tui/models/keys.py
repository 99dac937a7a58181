"""The commands of the open model's chat template, of the Models screen and of what it opens."""

from __future__ import annotations

from tui_llm.tui.kit.command import Command


def _models(id: str, keys: str, label: str, tooltip: str, action: str) -> Command:
    return Command(id, keys, label, tooltip, "Models", "models", action, ("models",))


MODEL_COMMANDS: tuple[Command, ...] = (
    Command("chat", "J", "chat template", "Feed the prompt as a message in the model's chat template, or as plain text", "Tokens", "lab", "chat"),
    _models("open_model", "enter", "open", "Open the model under the cursor", "open"),
    _models("pull_model", "p", "pull", "Bring a model from the Hugging Face Hub: asks for its name", "pull"),
    _models("cancel_pull", "c", "cancel", "Stop pulling; what came stays, and pulling again goes on there", "cancel_pull"),
    _models("model_info", "i", "info", "What is known of the model, and its card", "info"),
    _models("delete_model", "D,delete", "delete", "Delete a pulled model; asks first", "delete"),
    _models("leave_models", "escape,q,m", "back", "Back, with the model that is open; a pull is stopped", "close"),
    Command("copy_model_info", "y", "copy", "Copy what is known of the model, tab-separated", "Models", "model_info", "copy", ("model_info",)),
    Command("leave_model_info", "escape,q,i", "back", "Back to the models", "Models", "model_info", "close", ("model_info",)),
)  # fmt: skip
