"""The model's parts that are switched off or changed: sets them, marks them, and adapts them to another model."""

from __future__ import annotations

from tui_llm.facts.interventions import Intervention, fitting, named
from tui_llm.facts.model import Weights
from tui_llm.tui.state.context import LabContext

KEY = "0"  # switches all of them on


class ChangedModelController:
    def __init__(self, context: LabContext) -> None:
        self.context, self.lab = context, context.lab
        self._said: tuple[Intervention, ...] = ()  # of which the user was told that they outlast the text

    def set(self, interventions: tuple[Intervention, ...]) -> None:
        """Changes these parts and no others; the panes follow."""
        if interventions != self.lab.interventions:
            self.lab.intervene(interventions)
            self._said = ()
            self.context.request_reading()

    def all_on(self) -> None:
        """Switches every part on again."""
        off = self.lab.interventions
        self.set(())
        self.context.notify(f"switched on again: {named(off)}; u undoes" if off else "every part is on")

    def prompt_edited(self) -> None:
        """Says once that the parts stay as they are."""
        if self.lab.interventions and self._said != self.lab.interventions:
            self._said = self.lab.interventions
            self.context.notify(f"still for the new text: {named(self._said)}; Esc, then {KEY} switches on")

    def opened(self, before: Weights | None, weights: Weights) -> None:
        """Drops what another model does not have, or what was taken from another model's values."""
        if not self.lab.interventions:
            return
        same = before is not None and (before.vocabulary, before.width) == (weights.vocabulary, weights.width)
        kept, dropped = fitting(self.lab.interventions, weights.layers, weights.heads, same and before is not None)
        self.lab.interventions = self.lab.history.interventions = kept
        words = [f"dropped, as {weights.name} has no such part or values: {named(dropped)}"] if dropped else []
        words += [f"still: {named(kept)}; {KEY} switches on"] if kept else []
        self.context.notify("; ".join(words))
