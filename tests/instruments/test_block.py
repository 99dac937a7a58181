"""The block as a flow, against what transformers' modules get and return."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from tests.instruments.inside_models import NAMES, TEXT, Models, models
from tests.near_ties import are_likeliest
from tui_llm.common.errors import UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.interventions import (
    ATTENTION,
    HEAD,
    KEY,
    LAYER,
    MEAN,
    MLP,
    PATCH,
    RESIDUAL,
    STEER,
    ZERO,
    Intervention,
    ModelPart,
)
from tui_llm.facts.request import Request
from tui_llm.instruments.block.question import BlockFlow, BlockQuestion, Push

AT = 5


@pytest.fixture(scope="module", params=NAMES)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Models:
    return models(request.param, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def nano() -> PipelineEngine:
    made = PipelineEngine("cpu")
    made.open("nano")
    return made


def test_each_number_is_that_of_transformers(both: Models) -> None:
    theirs, kept, size = both.theirs, both.run(both.ids()), both.engine.tokenizer.size
    heads, final = theirs.config.n_head, kept["ln_f"][0][AT]
    sigma = (final.var(unbiased=False) + theirs.transformer.ln_f.eps).sqrt()

    def pushes(push: Push, vector: Tensor) -> None:
        with torch.no_grad():
            scaled = theirs.transformer.ln_f.weight * (vector - vector.mean()) / sigma
            effect = theirs.lm_head(scaled)[:size]
        assert are_likeliest([one.token.id for one in push.promoted], effect)
        assert are_likeliest([one.token.id for one in push.suppressed], -effect)
        for one in (*push.promoted, *push.suppressed):
            assert one.logit == pytest.approx(float(effect[one.token.id]), abs=1e-4)

    for layer, block in enumerate(theirs.transformer.h):
        found: BlockFlow = both.engine.answer(BlockQuestion(Request(prompt=TEXT), layer, AT, keys=99, neurons=4))
        stream, end = kept[f"h.{layer}"][0][AT], kept[f"h.{layer}"][1][AT]
        middle = kept[f"h.{layer}.ln_2"][0][AT]
        assert found.norms[layer : layer + 2] == pytest.approx([float(stream.norm()), float(end.norm())], rel=1e-5)
        assert found.middle == pytest.approx(float(middle.norm()), rel=1e-5)
        for one, x in ((found.norm1, stream), (found.norm2, middle)):
            assert one.mean == pytest.approx(float(x.mean()), abs=1e-5)
            assert one.sigma == pytest.approx(float((x.var(unbiased=False) + block.ln_1.eps).sqrt()), rel=1e-5)
        q, k, v = (
            part.unflatten(1, (heads, -1)).transpose(0, 1) for part in kept[f"h.{layer}.attn.c_attn"][1].chunk(3, dim=1)
        )
        scores = (q[:, AT, None] * k[:, : AT + 1]).sum(-1) / k.size(-1) ** 0.5
        values = kept[f"h.{layer}.attn.c_proj"][0][AT].view(heads, -1)
        for head in found.heads:
            weights = scores[head.head].softmax(-1)
            assert head.query_norm == pytest.approx(float(q[head.head, AT].norm()), rel=1e-4)
            assert sorted(key.number for key in head.keys) == list(range(AT + 1))
            assert [key.weight for key in head.keys] == sorted((key.weight for key in head.keys), reverse=True)
            for key in head.keys:
                assert key.token.id == both.ids()[key.number]
                assert key.score == pytest.approx(float(scores[head.head, key.number]), abs=1e-4)
                assert key.weight == pytest.approx(float(weights[key.number]), abs=1e-4)
                assert key.value_norm == pytest.approx(float(v[head.head, key.number].norm()), rel=1e-4)
            rows = slice(head.head * values.size(1), (head.head + 1) * values.size(1))
            written = values[head.head] @ block.attn.c_proj.weight.detach()[rows]
            assert head.norm == pytest.approx(float(written.norm()), rel=1e-4)
            pushes(head.push, written)
        assert found.attention == pytest.approx(float(kept[f"h.{layer}.attn.c_proj"][1][AT].norm()), rel=1e-4)
        hidden, activations = kept[f"h.{layer}.mlp.c_fc"][1][AT], kept[f"h.{layer}.mlp.c_proj"][0][AT]
        outputs = block.mlp.c_proj.weight.detach()  # (M, C)
        strengths = activations.abs() * outputs.norm(dim=1)
        assert (found.hidden, found.active) == (len(hidden), int((hidden > 0).sum()))
        assert are_likeliest([one.number for one in found.neurons], strengths)
        for neuron in found.neurons:
            assert neuron.hidden == pytest.approx(float(hidden[neuron.number]), abs=1e-4)
            assert neuron.activation == pytest.approx(float(activations[neuron.number]), abs=1e-4)
            assert neuron.norm == pytest.approx(float(strengths[neuron.number]), rel=1e-4)
            pushes(neuron.push, activations[neuron.number] * outputs[neuron.number])
        assert found.mlp == pytest.approx(float(kept[f"h.{layer}.mlp"][1][AT].norm()), rel=1e-4)


def test_a_changed_model(nano: PipelineEngine) -> None:
    def asked(*interventions: Intervention) -> BlockFlow:
        return nano.answer(BlockQuestion(Request(prompt=TEXT, interventions=interventions), 1, AT, keys=99))

    plain, off = asked(), asked(Intervention(ModelPart(HEAD, 1, 2)))
    assert off.heads[2].norm == 0 and plain.heads[2].norm > 0
    for same in (0, 1, 3):  # the other heads of the block read the same and write the same
        assert off.heads[same].keys == plain.heads[same].keys
        assert off.heads[same].norm == pytest.approx(plain.heads[same].norm)
    assert off.attention != plain.attention and off.norms[:2] == plain.norms[:2] and off.norms[2] != plain.norms[2]
    cut = asked(Intervention(ModelPart(KEY, 2)))
    for head in cut.heads:
        assert {key.number: key.weight for key in head.keys}[2] == 0
        assert sum(key.weight for key in head.keys) == pytest.approx(1, abs=1e-5)
    without = asked(Intervention(ModelPart(LAYER, 1)))
    assert without.norms[2] == pytest.approx(without.norms[1]) == pytest.approx(without.middle)
    ids = tuple(nano.ids(Request(prompt=TEXT)))
    # The stream is changed once, though the block runs again on what was recorded.
    steered = asked(Intervention(ModelPart(RESIDUAL, 1), STEER, ids, ids[:2], coefficient=3))
    assert steered.norms[1] != plain.norms[1]
    assert steered.norm1.sigma == pytest.approx(steered.norms[1] / nano.gpt.config.width**0.5, rel=1e-2)


def test_what_is_replaced_adds_nothing(nano: PipelineEngine) -> None:
    def asked(*interventions: Intervention) -> BlockFlow:
        return nano.answer(BlockQuestion(Request(prompt=TEXT, interventions=interventions), 1, AT, keys=99))

    plain, nothing, ids = asked(), Push((), ()), tuple(nano.ids(Request(prompt=TEXT)))
    for kind, how in itertools.product((ATTENTION, MLP, LAYER), (ZERO, MEAN, PATCH)):
        found = asked(Intervention(ModelPart(kind, 1), how, () if how == ZERO else ids[::-1]))
        heads = [head.norm == 0 and head.push == nothing for head in found.heads]
        assert all(heads) if kind != MLP else not any(heads), (kind, how)
        assert [head.keys for head in found.heads] == [head.keys for head in plain.heads]
        assert bool(found.neurons) == (kind == ATTENTION) and found.hidden == plain.hidden
        assert (found.attention == 0) == (kind == LAYER or (kind, how) == (ATTENTION, ZERO))
        assert (found.mlp == 0) == (kind == LAYER or (kind, how) == (MLP, ZERO))
    # Of a stream that is replaced later, no logit depends on what this block adds to it.
    later = asked(Intervention(ModelPart(RESIDUAL, 2), PATCH, ids[::-1]))
    assert [head.norm for head in later.heads] == [head.norm for head in plain.heads] and later.mlp == plain.mlp
    assert {one.push for one in (*later.heads, *later.neurons)} == {nothing} and later.neurons
    elsewhere = asked(Intervention(ModelPart(LAYER, 1), at=AT - 1))
    assert all(head.norm and head.push.promoted for head in elsewhere.heads) and elsewhere.neurons


@pytest.mark.parametrize("weights", ["half", "int8"])
def test_reduced_weights_are_dequantized(weights: str, nano: PipelineEngine) -> None:
    reduced = PipelineEngine("cpu", weights)
    reduced.open("nano")
    found, exact = (one.answer(BlockQuestion(Request(prompt=TEXT), 2, AT)) for one in (reduced, nano))
    assert found.norms == pytest.approx(exact.norms, rel=0.05)
    assert [head.norm for head in found.heads] == pytest.approx([head.norm for head in exact.heads], rel=0.1)
    assert found.neurons[0].norm == pytest.approx(exact.neurons[0].norm, rel=0.1)


def test_bad_input(nano: PipelineEngine) -> None:
    for question, line in (
        (BlockQuestion(Request()), "there is no token to look from"),
        (BlockQuestion(Request(prompt=TEXT), 4), "there is no block 4; this model's are 0 to 3"),
        (BlockQuestion(Request(prompt=TEXT), -1), "there is no block -1"),
        (BlockQuestion(Request(prompt=TEXT), 0, 99), "there is no token number 99"),
    ):
        with pytest.raises(UserError, match=line):
            nano.answer(question)


def test_damaged_weights_are_one_line() -> None:
    engine = PipelineEngine("cpu")
    engine.open("nano")
    engine.gpt.blocks[1].mlp.down.bias[0] = float("nan")
    with pytest.raises(UserError, match="NaN: the weights are damaged"):
        engine.answer(BlockQuestion(Request(prompt=TEXT), 2))


@pytest.mark.parametrize("layer", [1, 3])
def test_what_a_change_of_the_layer_or_of_the_stream_adds_makes_the_stream_add_up(
    nano: PipelineEngine, layer: int
) -> None:
    ids = tuple(nano.ids(Request(prompt=TEXT)))
    other = ids[::-1]

    def asked(*interventions: Intervention) -> BlockFlow:
        return nano.answer(BlockQuestion(Request(prompt=TEXT, interventions=interventions), layer, AT))

    plain = asked()
    assert plain.change is None
    block, streams = nano.gpt.blocks[layer], dict[tuple[int, ...], list[Tensor]]()
    for text in (ids, other):
        seen: list[Tensor] = []
        handles = [
            block.register_forward_pre_hook(lambda _module, args, seen=seen: seen.append(args[0][0])),
            block.norm2.register_forward_pre_hook(lambda _module, args, seen=seen: seen.append(args[0][0])),  # type: ignore[union-attr]
            block.register_forward_hook(lambda _module, _args, output, seen=seen: seen.append(output[0])),
        ]
        with torch.inference_mode():
            nano.gpt.features(torch.tensor([text]))
        for handle in handles:
            handle.remove()
        streams[text] = seen
    (stream, middle, end), (before, _, after) = streams[ids], streams[other]
    whole, later = ModelPart(LAYER, layer), ModelPart(RESIDUAL, layer + 1)
    replaced_by = {ZERO: torch.zeros_like(stream[AT]), MEAN: (after - before).mean(0), PATCH: (after - before)[AT]}
    for how, value in replaced_by.items():
        found = asked(Intervention(whole, how, () if how == ZERO else other))
        assert found.change is not None and found.change.replaced and found.attention == found.mlp == 0
        assert found.change.added == pytest.approx(float(value.norm()), rel=1e-4, abs=1e-4), how
        assert found.change.before == found.middle == pytest.approx(found.norms[layer])
        assert found.norms[layer + 1] == pytest.approx(float((stream[AT] + value).norm()), rel=1e-4)
        # The second LayerNorm's σ is of the stream with attention in it, which is named.
        assert found.change.computed == pytest.approx(float(middle[AT].norm()), rel=1e-4)
        assert found.norm2.sigma == pytest.approx(float(middle[AT].std(unbiased=False)), rel=1e-3)
    direction = 3 * ((after - before)[-1] - (end - stream)[-1])
    steered = asked(Intervention(whole, STEER, other, ids, coefficient=3))
    patched = asked(Intervention(later, PATCH, other))
    for found, value in ((steered, direction), (patched, after[AT] - end[AT])):
        assert found.change is not None and not found.change.replaced and found.mlp == plain.mlp
        assert found.change.added == pytest.approx(float(value.norm()), rel=1e-4)
        assert found.change.before == pytest.approx(float(end[AT].norm()), rel=1e-4)
        assert found.norms[layer + 1] == pytest.approx(float((end[AT] + value).norm()), rel=1e-4)
    both = asked(Intervention(whole, MEAN, other), Intervention(later, PATCH, other))
    names = f"layer {layer} at its mean, residual {layer + 1} from another prompt"
    assert both.change is not None and both.change.names == names
    assert both.change.added == pytest.approx(float((after[AT] - stream[AT]).norm()), rel=1e-4)
    for elsewhere in (Intervention(whole, at=AT - 1), Intervention(ModelPart(RESIDUAL, layer)), Intervention(ModelPart(MLP, layer))):  # fmt: skip
        assert asked(elsewhere).change is None
