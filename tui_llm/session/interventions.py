"""Interventions on the open model: hooks on its modules, and a cache that never mixes changed and unchanged features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from tui_llm.common.errors import UserError
from tui_llm.facts.interventions import Intervention

if TYPE_CHECKING:
    from tui_llm.llm.hub.open_model import LoadedModel
    from tui_llm.llm.model.interventions import Hooks
    from tui_llm.llm.model.predictor import Predictor

State = TypeVar("State")


class Changes(Generic[State]):
    """Which interventions are on, and the model's state without them, caches included."""

    def __init__(self) -> None:
        self.on: tuple[Intervention, ...] = ()
        self._hooks: Hooks | None = None
        self._plain: State | None = None

    def apply(self, plain: State, model: LoadedModel, wanted: Sequence[Intervention]) -> Predictor:
        """Switch `wanted` on; none are on yet. Returns a predictor without a cache, for the changed model. Raises
        `UserError` if the model has no such part."""
        from tui_llm.llm.model import steering_file
        from tui_llm.llm.model.fast_decode import FastPredictor
        from tui_llm.llm.model.interventions import GPTLayout, Hooks

        if model.gpt is None:
            raise UserError(f"parts of a {model.kind!r} model can't be switched off here; those of GPT-2's layout can")
        self._hooks = Hooks(GPTLayout(model.gpt), wanted, steering_file.read)
        self.on, self._plain = tuple(wanted), plain
        return FastPredictor(model.gpt, str(getattr(model.predictor, "kernel", "torch")), steps=False)

    def undo(self, current: State) -> State:
        """Switch all off. Returns the state to go on with: the one that `apply` got, or `current` if none are on."""
        plain = current if self._plain is None else self._plain
        self.forget()
        return plain

    def forget(self) -> None:
        """Remove the hooks: the model computes as before."""
        hooks, self._hooks = self._hooks, None
        if hooks is not None:
            hooks.remove()
        self.on, self._plain = (), None
