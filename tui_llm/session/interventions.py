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
FULL = (
    "the context is full, and a change is of one token number: give a target of one token, or a shorter text, or "
    "switch the parts on (0)"
)


class Changes(Generic[State]):
    """Which interventions are on, and the model's state without them, caches included. The newest changed state is kept
    while they are off: a screen that asks about the unchanged model does not make the next reading start afresh."""

    def __init__(self) -> None:
        self.on: tuple[Intervention, ...] = ()
        self._hooks: Hooks | None = None
        self._plain: State | None = None
        self._kept: tuple[tuple[Intervention, ...], Hooks, State] | None = None

    def restore(self, plain: State, wanted: tuple[Intervention, ...]) -> State | None:
        """The changed state, if `wanted` were on last; they are then on again."""
        if self._kept is None or self._kept[0] != wanted:
            return None
        _, self._hooks, changed = self._kept
        self._hooks.attach()
        self.on, self._plain = wanted, plain
        return changed

    def apply(self, plain: State, model: LoadedModel, wanted: Sequence[Intervention]) -> Predictor:
        """Switch `wanted` on; none are on yet. Returns a predictor without a cache, for the changed model. Raises
        `UserError` if the model has no such part."""
        from tui_llm.llm.model import steering_file
        from tui_llm.llm.model.fast_decode import FastPredictor
        from tui_llm.llm.model.interventions import GPTLayout, Hooks

        if model.gpt is None:
            raise UserError(
                f"parts of a {model.kind!r} model can't be switched off here; those of GPT-2's layout can (0 switches on)"
            )
        self._kept = None
        self._hooks = Hooks(GPTLayout(model.gpt), wanted, steering_file.read)
        self.on, self._plain = tuple(wanted), plain
        return FastPredictor(model.gpt, str(getattr(model.predictor, "kernel", "torch")), steps=False)

    @property
    def states(self) -> list[State | None]:
        """The states beside the current one."""
        return [self._plain, self._kept[2] if self._kept is not None else None]

    def starts_at(self, first: int) -> bool:
        """Says that the window begins with token number `first` of the text. Returns whether what it holds was computed
        for other numbers."""
        return self._hooks is not None and self._hooks.starts_at(first)

    def check_room(self, wanted: int, context: int) -> None:
        """Raises `UserError` if the window slides within a target that ends after `wanted` tokens, and one that is on
        depends on the tokens' numbers."""
        if wanted > context and self._hooks is not None and self._hooks.numbered:
            raise UserError(FULL)

    def undo(self, current: State) -> State:
        """Switch all off. Returns the state to go on with: the one that `apply` got, or `current` if none are on."""
        plain = current if self._plain is None else self._plain
        if self._hooks is not None:
            self._kept = self.on, self._hooks, current
        self._off()
        return plain

    def forget(self) -> None:
        """Remove the hooks: the model computes as before."""
        self._off()
        self._kept = None

    def _off(self) -> None:
        hooks, self._hooks = self._hooks, None
        if hooks is not None:
            hooks.remove()
        self.on, self._plain = (), None
