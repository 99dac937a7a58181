"""What one block computes for one token, from its own modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tui_llm.common.errors import Overtaken, UserError
from tui_llm.facts.interventions import LAYER, MLP, RESIDUAL, Intervention, ModelPart, lost_in, named, replaced
from tui_llm.instruments.answers import answers
from tui_llm.instruments.block.question import (
    BlockFlow,
    BlockHead,
    BlockQuestion,
    HeadKey,
    Neuron,
    NormStatistics,
    Push,
    PushedToken,
    StreamChange,
)
from tui_llm.instruments.lens.answer import likeliest
from tui_llm.instruments.trace import traced
from tui_llm.llm.model.block_trace import BlockTrace, block_trace, neuron_norms, neuron_outputs, pushed
from tui_llm.llm.model.model import Block
from tui_llm.llm.predict import softmax
from tui_llm.session.open_model import OpenModel

NOT_GPT = (
    "{} is a {!r} model: the flow through a block is drawn for tui-llm's own model only (no gate in the MLP); "
    "why (;), switch off (!), the attention (A) and the whole lens (A g) show its parts"
)


@answers(BlockQuestion)
@torch.inference_mode()
def answer(open_model: OpenModel, question: BlockQuestion, overtaken: Callable[[], bool]) -> BlockFlow:
    """Raises `UserError` if there is no such token or block, if the weights are damaged, or if it is not our own GPT."""
    if not open_model.is_gpt:
        raise UserError(NOT_GPT.format(open_model.weights().name, open_model.weights().kind))
    model, layer, on = open_model.gpt, question.layer, question.request.interventions
    if layer not in range(layers := open_model.weights().layers):
        raise UserError(f"there is no block {layer}; this model's are 0 to {layers - 1}")
    trace, place = traced(open_model, question.request, question.number, overtaken)
    found = block_trace(model, trace, layer, place.index, on, place.first)
    changed, whole = replaced(on, place.number), ModelPart(LAYER, layer)
    softmax.check(found.end, "the values of the residual stream")
    if overtaken():
        raise Overtaken
    strengths = found.activations.abs() * _neuron_norms(open_model, layer)  # (M,)
    adds = whole not in changed and ModelPart(MLP, layer) not in changed
    strongest = likeliest(strengths, question.neurons) if adds and question.neurons > 0 else []
    vectors = torch.cat((found.heads, neuron_outputs(model, layer, found.activations, strongest)))
    if lost_in(whole, changed):
        vectors.zero_()  # a later stream is replaced: no logit depends on what is added here
    effects = pushed(model, trace.residuals[-1, place.index].cpu(), vectors)[:, : open_model.tokenizer.size]
    pushes = [_push(open_model, row, question.tokens) for row in effects]
    block = model.blocks[layer]
    assert isinstance(block, Block)

    def head(at: int) -> BlockHead:
        weights = found.weights[at]
        keys = tuple(
            HeadKey(
                place.first + token,
                place.tokens[token],
                float(found.scores[at, token]),
                float(weights[token]),
                float(found.values[at, token]),
            )
            for token in likeliest(weights, max(1, question.keys))
        )
        return BlockHead(at, float(found.queries[at].norm()), keys, float(found.heads[at].norm()), pushes[at])

    return BlockFlow(
        open_model.weights(),
        place,
        layer,
        tuple(trace.residuals[:, place.index].float().norm(dim=-1).tolist()),
        _statistics(block.norm1, found.stream),
        tuple(map(head, range(len(found.heads)))),
        float(found.attention.norm()),
        float((found.stream if whole in changed else found.middle).norm()),
        _statistics(block.norm2, found.middle),
        tuple(
            Neuron(
                number, float(found.hidden[number]), float(found.activations[number]), float(strengths[number]), push
            )
            for number, push in zip(strongest, pushes[len(found.heads) :], strict=True)
        ),
        len(strengths),
        int((found.hidden > 0).sum()),
        float(found.mlp.norm()),
        "ReLU²" if model.config.relu2 else "GELU",
        _change(found, on, layer, place.number),
    )


def _change(found: BlockTrace, on: Sequence[Intervention], layer: int, number: int) -> StreamChange | None:
    """What changes of the layer's own value, or of the stream after it, add at token `number`."""
    whole = ModelPart(LAYER, layer)
    acting = [one for one in on if one.part in (whole, ModelPart(RESIDUAL, layer + 1)) and one.acts_at(number)]
    if not acting:
        return None
    before = found.stream + found.attention + found.mlp
    norms = [float(one.norm()) for one in (found.middle, before, found.end - before)]
    return StreamChange(named(acting), whole in replaced(acting, number), *norms)


def _neuron_norms(open_model: OpenModel, layer: int) -> Tensor:
    key = f"norms of the neurons of block {layer}"
    if key not in open_model.screen_cache:
        open_model.screen_cache[key] = neuron_norms(open_model.gpt, layer)
    norms: Tensor = open_model.screen_cache[key]
    return norms


def _statistics(norm: nn.LayerNorm | nn.RMSNorm, x: Tensor) -> NormStatistics:
    x, eps = x.double(), float(norm.eps or 0.0)
    if isinstance(norm, nn.RMSNorm):
        return NormStatistics(None, float((x.square().mean() + eps).sqrt()))
    return NormStatistics(float(x.mean()), float((x.var(unbiased=False) + eps).sqrt()))


def _push(open_model: OpenModel, effects: Tensor, count: int) -> Push:
    """The tokens that an effect on the logits (V,) raises and lowers most; none if there is no effect."""
    if count < 1 or not effects.any():
        return Push((), ())

    def tokens(ids: list[int]) -> tuple[PushedToken, ...]:
        return tuple(PushedToken(open_model.token(id), float(effects[id])) for id in ids)

    return Push(tokens(likeliest(effects, count)), tokens(likeliest(-effects, count)))
