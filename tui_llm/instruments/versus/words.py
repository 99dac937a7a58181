"""The sentences of a comparison, which the screen and the command line share. No torch here."""

from __future__ import annotations

import math

from tui_llm.common.display import visible, visible_token
from tui_llm.common.numbers import counted, precise_percent
from tui_llm.instruments.versus.question import Divergence, Versus, VersusSide
from tui_llm.llm.predict import units
from tui_llm.llm.tokens.token_bytes import token_text


def bits(value: float) -> str:
    """A loss, or a difference of two: 3.24, −1.50, ∞."""
    if math.isnan(value):
        return "–"
    return f"{value:,.2f}".replace("inf", "∞").replace("-", "−")


def names(found: Versus) -> tuple[str, str]:
    """`A nano` and `B my-run, step 400`."""
    return f"A {_name(found.first)}", f"B {_name(found.second)}"


def _name(side: VersusSide) -> str:
    weights = side.reading.weights
    return visible(weights.name) + (f", step {weights.step:,}" if weights.step is not None else "")


def divergence_line(divergence: Divergence | None) -> str:
    if divergence is None:
        return "no KL divergence: the vocabularies differ, so the models' tokens are not the same events"
    return (
        f"KL(A ‖ B) = {bits(divergence.forward)} bits, KL(B ‖ A) = {bits(divergence.reverse)} bits of raw p (0 = identical); "
        f"total variation: {precise_percent(divergence.total_variation)} of raw p is on other tokens"
    )


def text_line(found: Versus) -> str:
    """What the text costs each model."""
    if found.problem:
        return f"loss of the text: {found.problem}"
    each = f"A {_cost(found.first_bits, found.bytes)}, B {_cost(found.second_bits, found.bytes)}"
    return f"loss of the text, the {counted(found.bytes, 'byte')} for which both have one: {each}"


def target_line(found: Versus) -> str:
    """What the target costs each model; empty without a target."""
    parts, text = [], ""
    for letter, side in (("A", found.first), ("B", found.second)):
        loss = side.reading.loss
        if loss is None:
            return ""
        text = loss.text
        tokens = counted(len(loss.tokens), "token")
        parts.append(f"{letter} {_cost(units.bits(loss.sum), side.target_bytes)} in {tokens}")
    return f"loss of the target {visible_token(text)}: {', '.join(parts)}"


def _cost(total: float, size: int) -> str:
    return f"{bits(total)} bits = {bits(total / size)} per byte" if size else f"{bits(total)} bits"


def continuation(side: VersusSide) -> str:
    """The drawn text: foreign."""
    return token_text(b"".join(step.bytes for step in side.continuation))
