"""Ablation: the target's loss and logit with parts of the model changed, together or each alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tui_llm.facts.interventions import ATTENTION, HEAD, LAYER, MLP, POSITIONS, TOKENS, ZERO, Intervention, ModelPart
from tui_llm.facts.model import Weights
from tui_llm.facts.request import Question
from tui_llm.facts.tokens import Token

SWITCH = "switch"  # key of the question whose answer switches the parts of the open model


@dataclass(frozen=True, slots=True)
class TargetValues:
    """`logit`, `probability` and `rank` are those of the target's first token; `loss` is the mean over its tokens, in
    nats."""

    logit: float
    loss: float
    probability: float
    rank: int


@dataclass(frozen=True, slots=True)
class AblateQuestion(Question["Ablation"]):
    """The target without and with `interventions`, all of them together. The request's own are not used.

    Without a target: the text's own next token; at the end of the text, the token that the unchanged model finds most
    probable.
    """

    uses_parts: ClassVar[bool] = False  # the answer switches the parts itself
    interventions: tuple[Intervention, ...] = ()
    switches: bool = False  # asked to switch the parts of the open model: what only reads does not replace it

    @property
    def key(self) -> object:
        return SWITCH if self.switches else AblateQuestion


@dataclass(frozen=True, slots=True)
class Ablation:
    """`before` is the unchanged model's; `after` is that with `interventions`."""

    weights: Weights
    target: tuple[Token, ...]
    chosen: str  # the source of the target, as in `Lens`
    interventions: tuple[Intervention, ...]
    before: TargetValues
    after: TargetValues


@dataclass(frozen=True, slots=True)
class EffectsQuestion(Question["Effects"]):
    """The target with each of `parts` alone changed, in a model that is otherwise unchanged. `how`, `reference`, `shift`
    as in `Intervention`; a mean without a reference is over the text itself."""

    uses_parts: ClassVar[bool] = False
    parts: tuple[ModelPart, ...] = ()
    how: str = ZERO
    reference: tuple[int, ...] = ()
    shift: int = 0


@dataclass(frozen=True, slots=True)
class PartEffect:
    """The target's values with this part changed."""

    part: ModelPart
    values: TargetValues


@dataclass(frozen=True, slots=True)
class Effects:
    """`before` is the unchanged model's. cropped: number of the text's first tokens that the model does not see, because text
    and target are longer than its context."""

    weights: Weights
    target: tuple[Token, ...]
    chosen: str
    before: TargetValues
    parts: tuple[PartEffect, ...]
    cropped: int = 0
    text: tuple[Token, ...] = ()  # the tokens that the model sees before the target

    def ranked(self) -> list[PartEffect]:
        """The parts whose change raises the loss most first."""
        return sorted(self.parts, key=lambda one: -(one.values.loss - self.before.loss))


@dataclass(frozen=True, slots=True)
class ReferenceQuestion(Question["Reference"]):
    """A text whose values replace those of the request's; None is the request's own, for means over it."""

    uses_parts: ClassVar[bool] = False
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Reference:
    """`ids`, the last ones if the text is longer than the context. shift: aligned from the end, token i of the request's
    text gets the value of token i + shift. tokens: number of tokens that the request's text has before its position."""

    ids: tuple[int, ...]
    shift: int
    tokens: int


def ranked_parts(layers: int, heads: int, positions: bool = True) -> list[tuple[ModelPart, ...]]:
    """The parts of a ranking: those of each layer, last layer first, as its blocks are run fewest; then the
    embeddings. positions: whether the model embeds positions."""
    rows: list[tuple[ModelPart, ...]] = [
        (
            *(ModelPart(HEAD, layer, head) for head in range(heads)),
            ModelPart(ATTENTION, layer),
            ModelPart(MLP, layer),
            ModelPart(LAYER, layer),
        )
        for layer in reversed(range(layers))
    ]
    return [*rows, (ModelPart(TOKENS), ModelPart(POSITIONS)) if positions else (ModelPart(TOKENS),)]
