"""Direct logit attribution: which parts of the model made the target's logit."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.facts.interventions import ModelPart
from tui_llm.facts.model import Weights
from tui_llm.facts.place import Place
from tui_llm.facts.request import Question
from tui_llm.facts.tokens import Token


@dataclass(frozen=True, slots=True)
class WhyQuestion(Question["Why"]):
    """The parts of the target's logit after token number `number` of the text (from 0; None is the last).

    The target is the first token of the request's target; without one, the text's own next token; at the end of the
    text, the token that the model finds most probable. `rival`: the token to compare with; None is the most probable
    other one. `rival_text`, if given, replaces it: the first token of a text, or `#464` for an id.
    """

    number: int | None = None
    rival: int | None = None
    rival_text: str | None = None


@dataclass(frozen=True, slots=True)
class PartOfLogit:
    """What a part adds to the target's logit (`value`) and to the rival's; their difference is what it adds to the
    logit difference."""

    part: ModelPart
    value: float
    rival: float


@dataclass(frozen=True, slots=True)
class Why:
    """`logit` is the sum of the parts' `value`, and `rival_logit` that of their `rival`, up to rounding in fp32.

    chosen: the source of the target, as in `Lens`. likeliest: the most probable tokens. scale: σ of the final norm (RMSNorm: the root mean
    square), which is frozen: that keeps the sum linear. computed, computed_rival: the two logits as the model itself computes them.
    """

    weights: Weights
    place: Place
    target: Token
    chosen: str
    rival: Token
    logit: float
    rival_logit: float
    computed: float
    computed_rival: float
    likeliest: tuple[Token, ...]
    scale: float
    parts: tuple[PartOfLogit, ...]  # in the order of the forward pass


@dataclass(frozen=True, slots=True)
class NeuronsQuestion(Question["Neurons"]):
    """The `count` neurons of the MLP of `layer` that add most to the logit of `target` minus that of `rival` (ids), after
    token number `number` of the text."""

    number: int
    layer: int
    target: int
    rival: int
    count: int = 100
    tokens: int = 4


@dataclass(frozen=True, slots=True)
class NeuronOfLogit:
    """What a neuron adds to the two logits. promoted: the tokens whose logits it raises most, highest first."""

    number: int
    activation: float
    value: float
    rival: float
    promoted: tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class Neurons:
    """rest, bias: what the `others` neurons and the bias of the MLP's output projection add to the logit and to the
    rival's."""

    weights: Weights
    target: Token
    rival: Token
    layer: int
    neurons: tuple[NeuronOfLogit, ...]  # by the size of the difference
    others: int
    rest: tuple[float, float]
    bias: tuple[float, float]
