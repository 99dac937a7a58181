"""Steering in the lab: the coefficient of the direction that is added, raised and lowered while text streams."""

from __future__ import annotations

import dataclasses

from tui_llm.facts.interventions import STEER
from tui_llm.instruments.steer.question import steps_of
from tui_llm.tui.state.context import LabContext


class SteeringController:
    def __init__(self, context: LabContext) -> None:
        self.context, self.lab = context, context.lab

    def coefficient(self, direction: int) -> None:
        """The next coefficient of the direction that was added last. A stream goes on with it."""
        on = self.lab.interventions
        at = next((at for at in reversed(range(len(on))) if on[at].how == STEER), None)
        if at is None:
            from tui_llm.tui.instruments.steer import OPEN  # imported when it is needed: it imports a screen

            self.context.notify(f"no direction is added: {OPEN.key_text} opens Steer, which makes one")
            return
        changed = dataclasses.replace(on[at], coefficient=steps_of(on[at].coefficient, direction))
        self.lab.intervene((*on[:at], changed, *on[at + 1 :]))
        self.context.refresh_generation()
        self.context.request_reading()
