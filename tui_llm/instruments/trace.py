"""The traced forward pass of the request's text, cached between questions. Attention, lens and block share it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from tui_llm.common.errors import UserError
from tui_llm.facts.place import Place
from tui_llm.facts.request import Request
from tui_llm.llm.adapters import parts
from tui_llm.llm.model import inside
from tui_llm.llm.model.interventions import Layout
from tui_llm.llm.model.text_blocks import GPTBlocks, TextBlocks
from tui_llm.llm.model.tuned_lens import TunedLens
from tui_llm.session.interventions import layout_of
from tui_llm.session.messages import NOT_FED
from tui_llm.session.open_model import OpenModel

KEY = "trace"


def traced(
    open_model: OpenModel, request: Request, number: int | None, overtaken: Callable[[], bool]
) -> tuple[inside.Trace, Place]:
    """The trace of the last `context` tokens of the request's text, and the position of its token `number` (None: the
    last one). Raises `UserError` if there is no such token in the context, and `Overtaken`."""
    fed, place = place_in(open_model, request, number)
    trace: inside.Trace | None = open_model.screen_cache.get(KEY)
    if trace is None or trace.ids != tuple(fed):
        open_model.screen_cache.pop(KEY, None)  # free the old trace first: two would need twice the memory
        trace = open_model.screen_cache[KEY] = inside.trace(open_model.gpt, fed, overtaken)
    return trace, place


def layout(open_model: OpenModel) -> Layout:
    """The parts of the open model, changed if interventions are on. Raises `UserError` if they are not known."""
    return layout_of(open_model.gpt if open_model.is_gpt else None, open_model.window.predictor)


def text_blocks(open_model: OpenModel, ids: Sequence[int]) -> TextBlocks:
    """A text's forward pass, block by block; interventions must be off. Raises `UserError` if the model's parts are not
    known."""
    if open_model.is_gpt:
        return GPTBlocks(open_model.gpt, ids, open_model.tokenizer.size)
    from tui_llm.llm.adapters.text_blocks import CausalBlocks

    return CausalBlocks(causal_layout(open_model), ids, open_model.tokenizer.size)


def lens(
    open_model: OpenModel,
    request: Request,
    number: int | None,
    overtaken: Callable[[], bool],
    tuned: TunedLens | None = None,
) -> tuple[Tensor, list[int], Place]:
    """The logit lens after the text's token `number` (None: the last one), with `tuned` the tuned lens: logits
    (N + 1, V), the ids that were fed, and the position. Raises `UserError` if there is no such token, or the model has no
    lens, and `Overtaken`."""
    if open_model.is_gpt:
        trace, place = traced(open_model, request, number, overtaken)
        return inside.lens(open_model.gpt, trace, place.index, tuned), list(trace.ids), place
    fed, place = place_in(open_model, request, number)
    return parts.lens(causal_layout(open_model), fed, place.index, tuned), fed, place


def attention(
    open_model: OpenModel, request: Request, number: int | None, overtaken: Callable[[], bool]
) -> tuple[Tensor, Place]:
    """The attention weights of the text's token `number` (None: the last one) in every head, (N, H, T), and the position.
    Raises as `lens` does."""
    if open_model.is_gpt:
        trace, place = traced(open_model, request, number, overtaken)
        return inside.attention(trace, place.index), place
    fed, place = place_in(open_model, request, number)
    return parts.attention(causal_layout(open_model), fed, place.index), place


def causal_layout(open_model: OpenModel) -> parts.CausalLayout:
    """The parts of a model of transformers. Raises `UserError` if they are not known."""
    model = layout(open_model)
    assert isinstance(model, parts.CausalLayout)
    return model


def target_in(
    open_model: OpenModel, request: Request, overtaken: Callable[[], bool]
) -> tuple[list[int], list[int], int]:
    """The ids before the request's position that the model sees: those among the last `context` of the whole text, as for
    a reading; the ids of its target; and the number of the first that it sees. Raises `UserError` if there is no target,
    or the position is before the tokens that it sees."""
    before, wanted = open_model.target(request, overtaken)
    context = open_model.window.context
    first = max(0, len(open_model.ids(request)) - context)
    if 0 < len(before) <= first:
        raise UserError(NOT_FED.format(context))
    return before[first:], wanted, first


def place_in(open_model: OpenModel, request: Request, number: int | None) -> tuple[list[int], Place]:
    """The last `context` ids of the request's text, and the position of its token `number` (None: the last one). Raises
    `UserError` if there is no such token in the context."""
    ids = open_model.ids(request)
    fed = ids[-open_model.window.context :]
    first = len(ids) - len(fed)
    if not ids:
        raise UserError("there is no token to look from: type some text first")
    number = len(ids) - 1 if number is None else number
    if not 0 <= number < len(ids):
        raise UserError(f"there is no token number {number}; the text's go from 0 to {len(ids) - 1}")
    if number < first:
        raise UserError(
            f"the model sees the last {len(fed)} tokens only, its context: choose a token number from {first} up"
        )
    return fed, Place(tuple(open_model.token(id) for id in fed), first, len(ids), number)
