"""The sentences of a comparison, which the screen and the command line share. No torch here."""

from __future__ import annotations

import math
from itertools import combinations

from tui_llm.common.display import visible, visible_token
from tui_llm.common.numbers import counted, precise_percent
from tui_llm.facts import report
from tui_llm.instruments.compare_models.question import ComparedModel, Divergence, ModelComparison
from tui_llm.llm.predict import units
from tui_llm.llm.tokens.token_bytes import token_text

LETTERS = "ABC"


def bits(value: float) -> str:
    """A loss, or a difference of two: 3.24, −1.50, ∞."""
    if math.isnan(value):
        return "–"
    return f"{value:,.2f}".replace("inf", "∞").replace("-", "−")


def divergence_bits(value: float) -> str:
    """A KL divergence: two decimals, or two significant digits where these would be 0.00."""
    if not 0 < value < 0.1:
        return bits(value)
    return f"{value:.{min(12, 1 - math.floor(math.log10(value)))}f}"


def names(found: ModelComparison) -> tuple[str, ...]:
    """`A nano`, `B my-run, step 400` and `C nano, int8`."""
    return tuple(f"{letter} {_name(side)}" for letter, side in zip(LETTERS, found.models, strict=False))


def _name(side: ComparedModel) -> str:
    weights = side.reading.weights
    step = f", step {weights.step:,}" if weights.step is not None else ""
    return visible(weights.name) + step + (f", {weights.dtype}" if weights.dtype != "fp32" else "")


def choices_lines(found: ModelComparison) -> list[str]:
    """A line for each model with choices that are not the usual ones (`ModelChoice.changes`): another architecture than GPT-2's,
    weights in fewer bits, or another way of reading the text. Example: `B: untied head · no <s> in front, which the model expects`."""
    unusual = [[choice for choice in side.reading.choices if choice.changes] for side in found.models]
    return [f"{letter}: {report.choices_text(some)}" for letter, some in zip(LETTERS, unusual, strict=False) if some]


def divergence_lines(found: ModelComparison) -> list[str]:
    """A line for each two models: their KL divergence in both directions, or why there is none."""
    return [
        _divergence_line(LETTERS[one], LETTERS[two], found.divergence(one, two))
        for one, two in combinations(range(len(found.models)), 2)
    ]


def _divergence_line(one: str, two: str, divergence: Divergence | None) -> str:
    if divergence is None:
        return (
            f"{one} and {two}: no KL divergence, the vocabularies differ: the models' tokens are not the same events; what "
            "the text costs in bits per byte can be compared"
        )
    return (
        f"KL({one} ‖ {two}) = {divergence_bits(divergence.forward)} bits, KL({two} ‖ {one}) = {divergence_bits(divergence.reverse)} bits of raw p "
        f"(0 = identical); total variation: {precise_percent(divergence.total_variation)} of raw p is on other tokens"
    )


def text_line(found: ModelComparison) -> str:
    """What the text costs each model."""
    if found.problem:
        return f"loss of the text: {found.problem}"
    each = ", ".join(f"{letter} {_cost(cost, found.bytes)}" for letter, cost in zip(LETTERS, found.bits, strict=False))
    who = "both have" if len(found.models) == 2 else "all have"
    return f"loss of the text, the {counted(found.bytes, 'byte')} for which {who} one: {each}"


def target_line(found: ModelComparison) -> str:
    """What the target costs each model; empty without a target."""
    parts, text = [], ""
    for letter, side in zip(LETTERS, found.models, strict=False):
        loss = side.reading.loss
        if loss is None:
            return ""
        text = loss.text
        tokens = counted(len(loss.tokens), "token")
        parts.append(f"{letter} {_cost(units.bits(loss.sum), side.target_bytes)} in {tokens}")
    return f"loss of the target {visible_token(text)}: {', '.join(parts)}"


def _cost(total: float, size: int) -> str:
    return f"{bits(total)} bits = {bits(total / size)} per byte" if size else f"{bits(total)} bits"


def continuation(side: ComparedModel) -> str:
    """The drawn text: foreign."""
    return token_text(b"".join(step.bytes for step in side.continuation))
