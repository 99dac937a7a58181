"""The model's parts that are switched off or changed: sets them, marks them, and adapts them to another model."""

from __future__ import annotations

from collections.abc import Callable

from textual.widget import Widget

from tui_llm.common.display import token_label
from tui_llm.facts.interventions import fitting, named
from tui_llm.facts.model import Weights
from tui_llm.facts.request import Request, Target
from tui_llm.instruments.ablate.question import SWITCH, AblateQuestion, Ablation
from tui_llm.tui.kit.live import is_live
from tui_llm.tui.state.context import LabContext, Parts
from tui_llm.tui.state.lab import where

KEY = "0"  # switches all of them on


class ChangedModelController:
    def __init__(self, context: LabContext) -> None:
        self.context, self.lab = context, context.lab
        self._said: Parts = ()  # of which the user was told that they outlast the text
        self.wanted: Parts | None = None  # of a switch that is not done yet

    def set(self, interventions: Parts) -> None:
        """Changes these parts and no others; the panes follow. A switch that is not done yet is then made on top of them,
        unless every part is to be on."""
        if not interventions:
            self._cancel()
        if interventions != self.lab.interventions:
            self.lab.intervene(interventions)
            self._said = ()
            self.context.request_reading()

    # ── switching once it is known to be possible ──

    def switch(
        self,
        owner: Widget,
        request: Request,
        wanted: Parts,
        done: Callable[[Ablation], object],
        failed: Callable[[str], object],
    ) -> None:
        """See `context.SwitchParts`."""
        base, self.wanted = self.lab.interventions, wanted

        def possible(found: Ablation) -> None:
            if (on_top := _on_top(self.lab.interventions, base, wanted)) != wanted:  # others were changed meanwhile
                self.switch(owner, request, on_top, done, failed)
                return
            self.wanted = None
            self._keep_target(request, found)
            self.set(found.interventions)
            if is_live(owner):
                done(found)
            elif self.context.weights is not None:
                self.context.reopened(self.context.weights)  # what is open now shows the model as it was

        def impossible(problem: str) -> None:
            self.wanted = None
            (failed if is_live(owner) else self.context.warn)(problem)

        self.context.questions.ask(None, AblateQuestion(request, wanted, switches=True), possible, impossible)

    def _cancel(self) -> bool:
        """Drops the switch that is not done yet; returns whether there was one."""
        had, self.wanted = self.wanted is not None, None
        self.context.questions.forget(SWITCH)
        return had

    def _keep_target(self, request: Request, found: Ablation) -> None:
        """A target that follows the likeliest token would be another one in the changed model."""
        lab = self.lab
        same_text = where(request) == where(lab.current_request())
        if same_text and found.interventions and lab.requested_target.likeliest:
            lab.choose_target(Target(id=found.target[0].id))
            self.context.notify(f"the target stays {token_label(found.target[0].text)}")

    # ── what outlasts a text and a model ──

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
        if self._cancel():
            self.context.warn("another model is open now: what was switched last is not; switch it again")
        if not self.lab.interventions:
            return
        same = before is not None and (before.vocabulary, before.width) == (weights.vocabulary, weights.width)
        kept, dropped = fitting(self.lab.interventions, weights.layers, weights.heads, same and before is not None)
        self.lab.interventions = self.lab.history.interventions = kept
        words = [f"dropped, as {weights.name} has no such part or values: {named(dropped)}"] if dropped else []
        words += [f"still: {named(kept)}; {KEY} switches on"] if kept else []
        self.context.notify("; ".join(words))


def _on_top(now: Parts, base: Parts, wanted: Parts) -> Parts:
    """`now`, with what differs between `base` and `wanted` changed as in `wanted`."""
    if now == base:
        return wanted
    new = tuple(one for one in wanted if one not in base)
    replaced = {one.part for one in (*(one for one in base if one not in wanted), *new)}
    return (*(one for one in now if one.part not in replaced), *new)
