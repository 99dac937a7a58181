"""Notes on targets whose leading space was left out, or typed twice: to a model, `time` and ` time` are different tokens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from tui_llm.commands.shared.streams import print_error
from tui_llm.common.display import truncate, visible

if TYPE_CHECKING:
    from tui_llm.engine import PipelineEngine
    from tui_llm.facts.pin import Pin
    from tui_llm.facts.request import Request


def meant(prompt: str, target: str) -> tuple[str, str] | None:
    """Prompt and target as they may have been meant, where the space between them is missing, doubled or on the wrong side;
    otherwise None.

    Example: `meant("Once upon a", "time")`, `meant("Once upon a ", " time")` and `meant("Once upon a ", "time")` are all
    `("Once upon a", " time")`.
    """
    # Scripts with upper and lower case separate their words by spaces.
    word = target.lstrip(" ")[:1]
    if not (word.lower() != word.upper() or word.isdecimal()) or not prompt.rstrip(" "):
        return None
    between = len(prompt) - len(prompt.rstrip(" ")) + len(target) - len(target.lstrip(" "))
    if prompt[-1] != " " and (between or prompt[-1].isspace()):
        return None
    return prompt.rstrip(" "), " " + target.lstrip(" ")


def note_target(engine: PipelineEngine, request: Request) -> None:
    """A note on standard error if the request's target has a lower loss with the space where it may have been meant."""
    from tui_llm.facts.request import Target

    target = request.target.text if request.target is not None else None
    other = meant(request.prompt, target) if target is not None and not request.chat else None
    if target is None or other is None:
        return
    wanted = replace(request, prompt=other[0], target=Target(text=other[1]), top=1)
    losses = [engine.read(one).loss for one in (replace(request, top=1), wanted)]
    sums = [loss.sum for loss in losses if loss is not None and not loss.problem]
    if len(sums) == 2 and sums[1] < sums[0]:
        print_error(
            f"{_question(request.prompt, target, other)} The loss is {sums[1]:.4f} nats then, not {sums[0]:.4f}"
        )


def note_pins(pins: Iterable[Pin]) -> None:
    """A note on standard error for each pin whose space may be misplaced; no model is asked."""
    for pin in pins:
        if pin.target is not None and (other := meant(pin.prompt, pin.target)) is not None:
            print_error(f"pin {_quoted(pin.prompt)}: {_question(pin.prompt, pin.target, other)}")


def note_token(engine: PipelineEngine, text: str) -> None:
    """A note on standard error if the word has a token of its own with a space in front."""
    other = meant("a", text)
    if other is not None and len(ids := engine.tokenizer.encode(other[1])) == 1:
        print_error(f"{_question('a', text, other)} It is another token, id {ids[0]}")


def _question(prompt: str, target: str, other: tuple[str, str]) -> str:
    if prompt[-1] != " ":
        return f"{_quoted(target)} has no space in front; did you mean {_quoted(other[1])}?"
    if target[0] == " ":
        return f"there is a space at the end of the text and one in front of {_quoted(target)}; did you mean one?"
    return f"the text ends in a space, which belongs to the next token; did you mean the text without it, and {_quoted(other[1])}?"


def _quoted(text: str) -> str:
    return f"'{truncate(visible(text), 40)}'"
