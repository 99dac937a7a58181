"""What is said of a direction, on the command line and on the screen."""

from __future__ import annotations

from tui_llm.common.display import visible
from tui_llm.instruments.steer.question import Direction, Steering


def place(layer: int, layers: int) -> str:
    return "after the last block" if layer == layers else f"before block {layer}"


def source(direction: Direction) -> str:
    """Example: `“I am happy” − “I am sad”`."""
    if direction.file:
        return visible(direction.file)
    return f"“{visible(direction.toward)}” − “{visible(direction.against)}”"


def coefficient(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def lines(found: Steering) -> list[str]:
    layer = found.direction.layer or 0
    said = [
        f"{coefficient(found.coefficient)} × ({source(found.direction)}), added to the residual stream {place(layer, found.weights.layers)}"
    ]
    added = abs(found.coefficient) * found.norm
    share = f", {100 * added / found.stream:.0f} % of the residual stream's at the last token" if found.stream else ""
    said.append(f"length of the direction {found.norm:.3g}; what is added {added:.3g}{share}")
    if found.made_with and found.made_with.split(",")[0] != found.weights.name:
        said.append(f"the direction is from another model, {visible(found.made_with)}")
    return said
