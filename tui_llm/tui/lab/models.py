"""Opens another model, from the list of models or on request, and adapts the lab's state to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from textual.widget import Widget

from tui_llm.facts.model import ModelChoices, ModelInfo, Weights
from tui_llm.facts.request import Request, Target
from tui_llm.instruments.choices.question import ChoicesQuestion
from tui_llm.tui.kit.live import deliver
from tui_llm.tui.state.context import LabContext
from tui_llm.tui.state.lab import target_text
from tui_llm.tui.state.messages import ModelsListed


class ModelsController:
    """`stop_following` stops following a run, because another model is chosen."""

    def __init__(self, context: LabContext, stop_following: Callable[[], None]) -> None:
        self.context, self.lab, self.stop_following = context, context.lab, stop_following

    def choose(self) -> None:
        from tui_llm.tui.models.models import ModelsScreen

        def chosen(model: str | None) -> None:
            if model is not None:
                self.open(model)

        def ask(owner: Widget, model: ModelInfo, take: Callable[[ModelChoices], object]) -> None:
            self.context.questions.ask(owner, ChoicesQuestion(Request(), model.path, model.name), take, _nothing)

        self.context.push_screen(ModelsScreen(self.context.weights, self.context.client.list_models, ask), chosen)
        self.context.client.list_models()

    def listed(self, message: ModelsListed) -> None:
        from tui_llm.tui.models.models import ModelsScreen

        for screen in self.context.screens:
            if isinstance(screen, ModelsScreen):
                deliver(screen, screen.show, message.models)

    def open(self, model: str) -> None:
        self.stop_following()
        self.context.stop_generation()
        self.context.client.open(model)

    def opened(self, before: Weights | None, weights: Weights) -> None:
        """Adapts the lab's state to the newly opened model. A target that was chosen by id becomes its text, as an id
        is another token in another vocabulary."""
        notes: list[str] = []
        lab, target = self.lab, self.lab.target
        other = _is_other(before, weights)
        if before is not None and other and target is not None and target.id is not None:
            text, foreign = target_text(target, self.context.reading)
            lab.target = None if text is None else Target(text=text)
            if foreign:
                notes.append("the target was not a whole character, so it was dropped")
        if target is not None and target.id is not None and lab.target_model not in ("", weights.name):
            notes.append(f"the remembered target was a token of {lab.target_model}, so it was dropped")
            lab.choose_target(None)
        if other and lab.target_before_own is not None and lab.target_before_own.id is not None:
            lab.target_before_own = None  # it is not shown, so its text is not known
        if lab.steps and other:
            self.context.stop_generation()  # what was asked for meanwhile continues these tokens
            lab.clear("the model changed: the continuation was dropped")
        if other:
            lab.history.forget_steps()
            lab.speed = None  # that of the previous model
        if lab.chat and not weights.choices.chat:
            lab.chat = False
            notes.append(f"{weights.name} has no chat template: the prompt is plain text")
        if notes:
            self.context.notify("; ".join(notes))


def _nothing(_problem: str) -> None:
    """What can't be read without opening the model is not shown."""


def _is_other(before: Weights | None, weights: Weights) -> bool:
    """Whether it is another model, not another checkpoint of the same one, or the first one."""
    if before is None:
        return True
    one, other = (dataclasses.replace(each, step=None, device="", note="") for each in (before, weights))
    return one != other
