"""The parts of a logit as a table whose printed numbers add up: down to the two logits, and across to their difference."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tui_llm.common.numbers import rounded, written
from tui_llm.facts.interventions import (
    ATTENTION_BIAS,
    FINAL_BIAS,
    HEAD,
    MLP,
    POSITIONS,
    REMAINDER,
    SOFTCAP,
    TOKENS,
    ModelPart,
)
from tui_llm.instruments.why.question import Neurons, Why

OF_THE_LOGIT = (
    "its vector in the residual stream (LayerNorm: minus its mean) ÷ σ of the final norm, which is frozen, × that norm's "
    "gain γ, times the token's row of the output head"
)
"""What a part adds to a token's logit. The final norm's bias is a part of its own, without σ and γ."""
DIGITS = 3  # decimal places
DIFFERENCE, VALUE, FORWARD = ORDERS = ("difference", "value", "forward pass")
PARTS, LAYERS, KINDS = TABLES = ("parts", "layers", "kinds")
_KINDS = {
    TOKENS: "embeddings",
    POSITIONS: "embeddings",
    HEAD: "heads",
    MLP: "MLPs",
    ATTENTION_BIAS: "biases",
    FINAL_BIAS: "biases",
    SOFTCAP: SOFTCAP,
    REMAINDER: REMAINDER,
}


@dataclass(frozen=True, slots=True)
class SumLine:
    """A part or a group of parts (`part` is then None): what it adds to the two logits, in units of the last decimal
    place."""

    name: str
    part: ModelPart | None
    value: int
    rival: int

    @property
    def difference(self) -> int:
        return self.value - self.rival


@dataclass(frozen=True, slots=True)
class LogitSum:
    """`total` is the sum of `lines`, exactly."""

    places: int
    lines: tuple[SumLine, ...]
    total: SumLine

    def text(self, units: int) -> str:
        return written(units, self.places)

    def signed(self, units: int) -> str:
        return ("+" if units > 0 else "") + self.text(units)


def logit_sum(why: Why, table: str = PARTS, order: str = DIFFERENCE) -> LogitSum:
    """table: each part (`PARTS`), or totals by layer or by kind. order: by the size of the difference to the rival, by
    value, or that of the forward pass."""
    made = rounded(
        [([one.value for one in why.parts], why.logit), ([one.rival for one in why.parts], why.rival_logit)], DIGITS
    )
    lines: Iterable[SumLine] = (
        SumLine(one.part.name, one.part, value, rival)
        for one, value, rival in zip(why.parts, *made.columns, strict=True)
    )
    if table != PARTS:
        lines = _groups(lines, _layer if table == LAYERS else _kind)
    keys: dict[str, Callable[[SumLine], int]] = {
        DIFFERENCE: lambda line: -abs(line.difference),
        VALUE: lambda line: -line.value,
        FORWARD: lambda line: 0,
    }
    return LogitSum(made.places, tuple(sorted(lines, key=keys[order])), SumLine("sum = logit", None, *made.totals))


def neuron_sum(found: Neurons) -> LogitSum:
    """The neurons of an MLP, the others together, and its bias; their total is what the MLP adds."""
    names = [*(f"neuron {one.number}" for one in found.neurons), f"{found.others:,} others", "bias"]
    pairs = [*((one.value, one.rival) for one in found.neurons), found.rest, found.bias]
    columns = [[pair[at] for pair in pairs] for at in (0, 1)]
    made = rounded([(terms, sum(terms)) for terms in columns], DIGITS)
    lines = [SumLine(name, None, value, rival) for name, value, rival in zip(names, *made.columns, strict=True)]
    if not found.others:
        del lines[-2]
    return LogitSum(made.places, tuple(lines), SumLine(f"MLP {found.layer}", None, *made.totals))


def _groups(lines: Iterable[SumLine], name: Callable[[ModelPart], str]) -> list[SumLine]:
    found: dict[str, SumLine] = {}
    for line in lines:
        assert line.part is not None
        group = name(line.part)
        before = found.get(group, SumLine(group, None, 0, 0))
        found[group] = SumLine(group, None, before.value + line.value, before.rival + line.rival)
    return list(found.values())


def _kind(part: ModelPart) -> str:
    return _KINDS[part.kind]


def _layer(part: ModelPart) -> str:
    return (
        f"layer {part.layer}"
        if part.layer >= 0
        else part.name
        if part.kind in (FINAL_BIAS, SOFTCAP)
        else _KINDS[part.kind]
    )
