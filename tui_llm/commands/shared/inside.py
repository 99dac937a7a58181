"""What attention, lens and neighbours share: the request, the token that is asked about, and how both are printed."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from tui_llm.engine import PipelineEngine
    from tui_llm.facts.interventions import ModelPart
    from tui_llm.facts.model import Weights
    from tui_llm.facts.place import Place
    from tui_llm.facts.request import Request

TOKEN = "token number N of the text, from 0; below 0 counts from its end (default -1, the last)"


def token_number(options: argparse.Namespace, engine: PipelineEngine) -> int | None:
    """`--token`, counted from the text's beginning."""
    from tui_llm.commands.shared.engine import request_of

    token: int | None = options.token
    if token is None or token >= 0:
        return token
    count = len(engine.ids(request_of(options)))
    if count and token < -count:
        raise UserError(f"--token is {token}; this text has tokens {-count} to {count - 1}")
    return count + token if count else None


def model_text(weights: Weights) -> str:
    from tui_llm.common.display import visible

    dtype = "" if weights.dtype == "fp32" else f", {weights.dtype} weights"
    return f"model {visible(weights.name)}{dtype}" + (f", step {weights.step:,}" if weights.step is not None else "")


def model_json(weights: Weights) -> dict[str, Any]:
    return {"model": weights.name, "step": weights.step, "weights": weights.dtype}


def copy_text(weights: Weights) -> str:
    from tui_llm.common.display import visible

    return f"a copy of {visible(weights.name)}" + ("" if weights.step is None else f" at step {weights.step:,}")


def part_json(part: ModelPart) -> dict[str, Any]:
    layer, head = (number if number >= 0 else None for number in (part.layer, part.head))
    return {"name": part.name, "layer": layer, "head": head}


def place_json(place: Place) -> dict[str, Any]:
    from tui_llm.facts import report

    return {"token": place.number, "first": place.first, "tokens": [report.token_json(token) for token in place.tokens]}


def note_context(engine: PipelineEngine, request: Request) -> None:
    """A note on standard error where the request's text is longer than the model's context: for a command whose own output
    does not say so."""
    from tui_llm.commands.shared.streams import print_error
    from tui_llm.common.display import visible
    from tui_llm.facts.model import seen_words

    weights, count = engine.weights(), len(engine.ids(request))
    if seen := seen_words(min(count, weights.context), count):
        print_error(f"{visible(weights.name)} {seen}, its context")


def window(place: Place, weights: Weights) -> list[str]:
    """A line where the text is longer than the model's context."""
    from tui_llm.facts.model import seen_words

    if not place.first:
        return []
    return [f"the model's context is {weights.context:,} tokens: it {seen_words(len(place.tokens), place.count)}"]
