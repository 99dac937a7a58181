"""Interventions on the open model: hooks on its modules, and a cache that never mixes changed and unchanged features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from tui_llm.common.errors import UserError
from tui_llm.facts.interventions import Intervention

if TYPE_CHECKING:
    from tui_llm.llm.hub.open_model import LoadedModel
    from tui_llm.llm.model.interventions import Hooks, Layout
    from tui_llm.llm.model.model import GPT
    from tui_llm.llm.model.predictor import Predictor

State = TypeVar("State")
FULL = (
    "the context is full, and a change is of one token number: give a target of one token, or a shorter text, or "
    "switch the parts on (0)"
)


def layout_of(gpt: GPT | None, predictor: Predictor) -> Layout:
    """The parts of a model: of our own GPT, or else of the model that `predictor` runs. Raises `UserError`."""
    if gpt is not None:
        from tui_llm.llm.model.interventions import GPTLayout

        return GPTLayout(gpt)
    from tui_llm.llm.adapters.causal import CausalPredictor
    from tui_llm.llm.adapters.parts import CausalLayout

    if not isinstance(predictor, CausalPredictor):
        raise UserError(
            "this model runs through llama.cpp, which does not show its parts; the folder that it was made from, or a GGUF file "
            "that is not quantized, does"
        )
    return CausalLayout(predictor)


def _without_cache(gpt: GPT | None, predictor: Predictor) -> Predictor:
    if gpt is not None:
        from tui_llm.llm.model.fast_decode import FastPredictor

        return FastPredictor(gpt, str(getattr(predictor, "kernel", "torch")), steps=False)
    from tui_llm.llm.adapters.causal import CausalPredictor

    assert isinstance(predictor, CausalPredictor)
    return predictor.fresh()


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
        from tui_llm.llm.model.interventions import Hooks

        layout = layout_of(model.gpt, model.predictor)
        self._kept = None
        self._hooks = Hooks(layout, wanted, steering_file.read)
        self.on, self._plain = tuple(wanted), plain
        return _without_cache(model.gpt, model.predictor)

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
