"""Keeps prompt, target and settings when another model is opened; turns the chat template on and off."""

from __future__ import annotations

import dataclasses

from tui_llm.facts.model import Weights
from tui_llm.facts.request import Target
from tui_llm.tui.state.base import LabBase


class Switching(LabBase):
    def switched(self, before: Weights | None, weights: Weights) -> None:
        """Keeps what means the same with `weights`: an id is another token in another vocabulary, so a target that was
        chosen by id becomes its text."""
        said = []
        target = self.lab.target
        if before is not None and _other(before, weights) and target is not None and target.id is not None:
            text, foreign = self.target_text(self.lab.target)
            self.lab.target = None if text is None else Target(text=text)
            if foreign:
                said.append("the target was not a whole character, so it was dropped")
        if self.lab.steps:
            self.lab.clear("the model changed: the continuation was dropped")
        if self.lab.chat and not weights.chat:
            self.lab.chat = False
            said.append(f"{weights.name} has no chat template: the prompt is plain text")
        if said:
            self.say("; ".join(said))

    def action_chat(self) -> None:
        if self.weights is None:
            return
        if not self.weights.chat:
            self.warn(f"{self.weights.name} has no chat template: it is a base model and continues plain text")
            return
        self.lab.chat = not self.lab.chat
        self.stop_stream()
        self.lab.clear("the prompt's format changed: its continuation was dropped" if self.lab.steps else "")
        self.say(
            "the prompt is now a message in the chat template" if self.lab.chat else "the prompt is now plain text"
        )
        self.ask()


def _other(before: Weights, weights: Weights) -> bool:
    """Whether it is another model, not another checkpoint of the same one."""
    one, other = (dataclasses.replace(each, step=None, device="", note="") for each in (before, weights))
    return one != other
