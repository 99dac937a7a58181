"""The instruments on models with architecture switches, against transformers' own classes with hooks and autograd, in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.byte_models import save_byte_model
from tui_llm.engine import PipelineEngine
from tui_llm.facts.interventions import (
    ATTENTION,
    HEAD,
    KEY,
    MEAN,
    MLP,
    RESIDUAL,
    STEER,
    TOKENS,
    Intervention,
    ModelPart,
)
from tui_llm.facts.recipe import Recipe
from tui_llm.facts.request import Request, Target
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.instruments.ablate.question import AblateQuestion, EffectsQuestion
from tui_llm.instruments.attention.question import AttentionQuestion
from tui_llm.instruments.backward import question as kinds
from tui_llm.instruments.backward.question import BackwardQuestion
from tui_llm.instruments.block.question import BlockQuestion
from tui_llm.instruments.heads.question import HeadsQuestion
from tui_llm.instruments.learn.question import LearnQuestion
from tui_llm.instruments.lens.question import LensQuestion
from tui_llm.instruments.patch.question import PatchQuestion
from tui_llm.instruments.why.question import NeuronsQuestion, WhyQuestion
from tui_llm.llm.hub.choices import of_files
from tui_llm.llm.learn import answer_batch
from tui_llm.llm.model import inside, switches
from tui_llm.llm.model.fast_decode import FastPredictor
from tui_llm.llm.model.interventions import Hooks
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.session.interventions import layout_of

TEXT, OTHER = "Once upon a time", "Here lies a king"
SHAPE = GPTConfig(vocabulary=264, context=40, layers=2, heads=4, width=32)
ARCHS = ("rope,window=6,gqa,untied", "rope,rmsnorm,gqa=1,relu2,untied", f"{switches.SETS['modern']},gqa=2")
LAST = len(TEXT) - 1


@dataclass(frozen=True)
class Pair:
    """One model twice: in our engine, and as transformers' in float64."""

    engine: PipelineEngine
    theirs: Any

    @property
    def cap(self) -> float:
        return getattr(self.theirs.config, "final_logit_softcapping", None) or 0.0

    def ids(self, prompt: str = TEXT) -> list[int]:
        return self.engine.ids(Request(prompt=prompt))

    def logits(self, ids: list[int]) -> Tensor:
        made: Tensor = self.theirs(torch.tensor([ids]), use_cache=False).logits[0, :, :257]
        return made

    def part(self, kind: str, layer: int) -> Any:
        """transformers' module whose first output is that part's value."""
        block = self.theirs.model.layers[layer]
        return block.self_attn if kind == ATTENTION else block.mlp


@pytest.fixture(scope="module", params=ARCHS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    from transformers import AutoModelForCausalLM

    path = tmp_path_factory.mktemp("model")
    save_byte_model(path, switches.applied(SHAPE, request.param), seed=5, padding=10.0)
    engine = PipelineEngine("cpu")
    engine.open(str(path))
    theirs = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager", dtype=torch.float64).eval()
    assert engine.weights().kind == theirs.config.model_type
    return Pair(engine, theirs)


def hooked(module: Any, change: Any) -> Any:
    """Replaces a module's first output by `change` of it."""

    def hook(_module: Any, _args: Any, output: Any) -> Any:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    return module.register_forward_hook(hook)


def keep(values: list[Tensor]) -> Any:
    """Keeps the last token's value, unchanged."""

    def change(value: Tensor) -> Tensor:
        values.append(value[0, -1])
        return value

    return change


def test_attention_and_heads(pair: Pair) -> None:
    ids = pair.ids()
    with torch.no_grad():
        made = pair.theirs(torch.tensor([ids]), output_attentions=True, use_cache=False)
    for at in (3, LAST):
        found = pair.engine.answer(AttentionQuestion(Request(prompt=TEXT), at))
        for layer, weights in enumerate(made.attentions):
            for head, row in enumerate(found.heads[layer]):
                assert row.weights == pytest.approx(weights[0, head, at, : at + 1].tolist(), abs=1e-5)
    heads = pair.engine.answer(HeadsQuestion(Request(prompt=TEXT), own_text=True)).heads
    for one in heads:
        previous = made.attentions[one.layer][0, one.head].diagonal(-1)
        assert one.previous == pytest.approx(float(previous.mean()), abs=1e-5)


def test_the_lens(pair: Pair) -> None:
    found = pair.engine.answer(LensQuestion(Request(prompt=TEXT), top=3))
    streams: list[Tensor] = []
    blocks = pair.theirs.model.layers
    handles = [block.register_forward_pre_hook(lambda _module, args: streams.append(args[0])) for block in blocks]
    handles += [blocks[-1].register_forward_hook(lambda _module, _args, output: streams.append(output))]
    with torch.no_grad():
        wanted = pair.logits(pair.ids())[-1]
        for handle in handles:
            handle.remove()
        for row, stream in zip(found.rows, streams, strict=True):
            logits = pair.theirs.lm_head(pair.theirs.model.norm(stream[0, -1]))
            logits = pair.cap * torch.tanh(logits / pair.cap) if pair.cap else logits
            p = logits[:257].softmax(-1)
            for guess in row.guesses:
                assert guess.probability == pytest.approx(float(p[guess.token.id]), rel=1e-3)
    assert found.rows[-1].guesses[0].probability == pytest.approx(float(wanted.softmax(-1).max()), rel=1e-3)


def test_a_logit_is_the_sum_of_its_parts(pair: Pair) -> None:
    found = pair.engine.answer(WhyQuestion(Request(prompt=TEXT)))
    with torch.no_grad():
        logits = pair.logits(pair.ids())[-1]
        mlps: list[Tensor] = []
        handles = [hooked(pair.part(MLP, layer), keep(mlps)) for layer in range(2)]
        finals: list[Tensor] = []
        handles.append(pair.theirs.model.norm.register_forward_pre_hook(lambda _module, args: finals.append(args[0])))
        pair.logits(pair.ids())
        for handle in handles:
            handle.remove()
    assert found.logit == pytest.approx(float(logits[found.target.id]), abs=1e-4)
    assert sum(one.value for one in found.parts) == pytest.approx(found.logit, abs=1e-6)
    assert ("logit soft-cap" in [one.part.name for one in found.parts]) == bool(pair.cap)
    norm, stream = pair.theirs.model.norm, finals[-1][0, -1]
    row = pair.theirs.lm_head.weight[found.target.id].detach()
    gain = getattr(norm, "weight", torch.ones(32)).detach().double()
    centred = isinstance(norm, torch.nn.LayerNorm)
    eps = float(getattr(norm, "variance_epsilon", getattr(norm, "eps", 0.0)))
    scale = (stream.var(unbiased=False) if centred else stream.square().mean()).add(eps).sqrt()
    for layer in range(2):
        mlp = mlps[layer]
        share = float((gain * (mlp - mlp.mean() if centred else mlp) / scale) @ row)
        assert next(one.value for one in found.parts if one.part == ModelPart(MLP, layer)) == pytest.approx(
            share, abs=1e-4
        )
        neurons = pair.engine.answer(NeuronsQuestion(Request(prompt=TEXT), LAST, layer, found.target.id, found.rival.id, count=4))  # fmt: skip
        total = sum(one.value for one in neurons.neurons) + neurons.rest[0] + neurons.bias[0]
        assert total == pytest.approx(share, abs=1e-4)


def test_the_block(pair: Pair) -> None:
    for layer in range(2):
        found = pair.engine.answer(BlockQuestion(Request(prompt=TEXT), layer, LAST, keys=99, neurons=3))
        values: list[Tensor] = []
        inputs: list[Tensor] = []
        mlp = pair.part(MLP, layer)
        up = next(getattr(mlp, name) for name in ("c_fc", "up_proj", "fc1") if hasattr(mlp, name))
        handles = [hooked(pair.part(kind, layer), keep(values)) for kind in (ATTENTION, MLP)]
        handles.append(hooked(up, keep(inputs)))
        with torch.no_grad():
            made = pair.theirs(torch.tensor([pair.ids()]), output_attentions=True, use_cache=False)
        for handle in handles:
            handle.remove()
        assert found.attention == pytest.approx(float(values[0].norm()), rel=1e-4)
        assert found.mlp == pytest.approx(float(values[1].norm()), rel=1e-4)
        assert found.active == int((inputs[0] > 0).sum())
        assert (found.norm1.mean is None) == (pair.theirs.config.model_type != "starcoder2")
        assert (found.activation == "ReLU²") == (pair.theirs.config.hidden_act == "relu2")
        for head in found.heads:
            weights = made.attentions[layer][0, head.head, -1]
            assert len(head.keys) == LAST + 1
            for key in head.keys:
                assert key.weight == pytest.approx(float(weights[key.number]), abs=1e-5)
                seen = layer_window(pair) == 0 or LAST - key.number < layer_window(pair)
                assert math.isfinite(key.score) == seen


def layer_window(pair: Pair) -> int:
    return getattr(pair.theirs.config, "sliding_window", None) or 0


def test_the_backward_pass(pair: Pair) -> None:
    asked = Request(prompt=TEXT, target=Target(text=" hi"))
    found = pair.engine.answer(BackwardQuestion(asked))
    wanted = pair.engine.target_ids(Target(text=" hi"), asked)
    pair.theirs.zero_grad()
    logits = pair.logits([*pair.ids(), *wanted[:-1]])[-len(wanted) :]
    torch.nn.functional.cross_entropy(logits, torch.tensor(wanted)).backward()

    def norm(*parameters: Any) -> float:
        return math.sqrt(sum(float(one.grad.square().sum()) for one in parameters))

    everything = [one for one in pair.theirs.parameters() if one.grad is not None]
    assert found.grad_norm == pytest.approx(norm(*everything), rel=1e-3)
    for layer, block in enumerate(pair.theirs.model.layers):
        for kind, name in ((kinds.QUERY, "q"), (kinds.KEY, "k"), (kinds.VALUE, "v"), (kinds.OUTPUT, "o")):
            weight = getattr(block.self_attn, f"{name}_proj").weight
            assert found.cell(layer, kind).norm == pytest.approx(norm(weight), rel=1e-3, abs=1e-7)
            assert found.cell(layer, kind).numbers == weight.numel()
        norms = [*block.input_layernorm.parameters(), *block.post_attention_layernorm.parameters()]
        if norms:
            kind = kinds.NORMS if len(norms) == 4 else kinds.RMS_NORMS
            assert found.cell(layer, kind).norm == pytest.approx(norm(*norms), rel=1e-3)
    pair.theirs.zero_grad()


def test_parts_switched_off_patched_and_steered(pair: Pair) -> None:
    request = Request(prompt=TEXT, target=Target(text="x"))
    target = pair.engine.target_ids(Target(text="x"), request)[0]
    size = 32 // 4

    def without(change: Any, module: Any, before: bool = False) -> float:
        if before:
            handle = module.register_forward_pre_hook(lambda _module, args: (change(args[0]), *args[1:]))
        else:
            handle = hooked(module, change)
        with torch.no_grad():
            made = float(pair.logits(pair.ids())[-1, target])
        handle.remove()
        return made

    def zero_head(value: Tensor) -> Tensor:
        value = value.clone()
        value[..., 2 * size : 3 * size] = 0
        return value

    cases = (
        (ModelPart(HEAD, 1, 2), without(zero_head, pair.part(ATTENTION, 1).o_proj, before=True)),
        (ModelPart(MLP, 0), without(torch.zeros_like, pair.part(MLP, 0))),
        (ModelPart(ATTENTION, 1), without(torch.zeros_like, pair.part(ATTENTION, 1))),
        (ModelPart(TOKENS), without(torch.zeros_like, pair.theirs.model.layers[0], before=True)),
    )
    for part, wanted in cases:
        found = pair.engine.answer(AblateQuestion(request, (Intervention(part),)))
        assert found.after.logit == pytest.approx(wanted, abs=1e-4), part.name
    effects = pair.engine.answer(EffectsQuestion(request, tuple(part for part, _ in cases)))
    for one, (_, wanted) in zip(effects.parts, cases, strict=True):
        assert one.values.logit == pytest.approx(wanted, abs=1e-4), one.part.name

    # A token that no other attends to: the same as transformers with its own mask and that column cut.
    cut = pair.engine.answer(AblateQuestion(request, (Intervention(ModelPart(KEY, LAST - 2)),))).after.logit
    mask = torch.ones(LAST + 1, LAST + 1, dtype=torch.bool).tril()
    if window := layer_window(pair):
        mask = mask.triu(1 - window)
    mask[LAST - 1 :, LAST - 2] = False
    added = torch.zeros(1, 1, LAST + 1, LAST + 1, dtype=torch.float64).masked_fill(~mask, -1e30)
    with torch.no_grad():
        made = pair.theirs(torch.tensor([pair.ids()]), attention_mask=added, use_cache=False).logits[0, -1, target]
    assert cut == pytest.approx(float(made), abs=1e-4)

    # Fast patching of our model, cell by cell, against a hook on transformers'.
    piece = pair.engine.answer(PatchQuestion(Request(prompt=OTHER), TEXT, RESIDUAL))
    kept: list[Tensor] = []
    handle = pair.theirs.model.layers[1].register_forward_pre_hook(lambda _module, args: kept.append(args[0].detach()))
    with torch.no_grad():
        pair.logits(pair.ids())
    handle.remove()
    for cell in piece.cells:
        if cell.layer == 1 and cell.token in (LAST - 4, LAST):

            def patched(_module: Any, args: Any, at: int = cell.token) -> Any:
                value = args[0].clone()
                value[:, at] = kept[0][:, at]
                return (value, *args[1:])

            handle = pair.theirs.model.layers[1].register_forward_pre_hook(patched)
            with torch.no_grad():
                logits = pair.logits(pair.ids(OTHER))[-1]
            handle.remove()
            difference = float(logits[piece.target.id] - logits[piece.rival.id])
            assert cell.effect == pytest.approx(difference, abs=1e-4)
    with torch.no_grad():
        plain = pair.logits(pair.ids(OTHER))[-1]
    assert piece.changed == pytest.approx(float(plain[piece.target.id] - plain[piece.rival.id]), abs=1e-4)

    # Changed models read with a cache, token by token, as in one pass.
    gpt = pair.engine.gpt
    changes = (
        Intervention(ModelPart(HEAD, 0, 1)),
        Intervention(ModelPart(MLP, 1), MEAN, tuple(pair.ids(OTHER))),
        Intervention(ModelPart(RESIDUAL, 1), STEER, tuple(pair.ids(OTHER)), tuple(pair.ids()), coefficient=2.0),
        Intervention(ModelPart(KEY, 2)),
    )
    hooks = Hooks(layout_of(gpt, FastPredictor(gpt)), changes)
    try:
        whole = gpt.features(torch.tensor([pair.ids()]))[0]
        predictor = FastPredictor(gpt, steps=False)
        parts = torch.cat([predictor.run(pair.ids()[:7]), *(predictor.run([id]) for id in pair.ids()[7:])])
        assert torch.allclose(parts, whole, atol=1e-4)
    finally:
        hooks.remove()


def test_learning_and_preferences(pair: Pair) -> None:
    """One step of *Learn this* is one step of SGD on transformers' model; ln π of an answer is its log-softmax."""
    request = Request(prompt=TEXT, target=Target(text="x"))
    found = pair.engine.answer(LearnQuestion(request, 1, Recipe("sgd", 0.05)))
    target = pair.engine.target_ids(Target(text="x"), request)[0]
    pair.theirs.zero_grad()
    loss = torch.nn.functional.cross_entropy(pair.logits(pair.ids())[-1:], torch.tensor([target]))
    loss.backward()
    assert found.before.loss == pytest.approx(float(loss), abs=1e-4)
    with torch.no_grad():
        for one in pair.theirs.parameters():
            one.sub_(0.05 * one.grad) if one.grad is not None else None
        after = torch.nn.functional.cross_entropy(pair.logits(pair.ids())[-1:], torch.tensor([target]))
        for one in pair.theirs.parameters():
            one.add_(0.05 * one.grad) if one.grad is not None else None
    pair.theirs.zero_grad()
    assert found.after.loss == pytest.approx(float(after), abs=1e-3)

    prompt, answer = pair.ids(), [120, 121, 122]
    gpt = pair.engine.gpt
    inputs, targets = answer_batch.padded([(prompt, answer)])
    with torch.no_grad():
        made = answer_batch.token_log_probabilities(gpt, inputs, targets, 257)[0, -3:]
        wanted = pair.logits([*prompt, *answer[:-1]])[-3:].log_softmax(-1)[range(3), answer]
    assert made.tolist() == pytest.approx(wanted.tolist(), abs=1e-4)


def test_generation_and_the_tuned_lens_readout(pair: Pair) -> None:
    request = Request(prompt=TEXT, sampler=SamplerSettings(temperature=0))
    made = list(pair.ids())
    with torch.no_grad():
        for _ in range(6):
            made.append(int(pair.logits(made)[-1].argmax()))
        continuation = tuple(made[len(TEXT) :])
        for count in range(6):
            reading = pair.engine.read(Request(prompt=TEXT, continuation=continuation[:count], sampler=request.sampler))
            assert reading.distribution.candidates[0].id == continuation[count]
        gpt = pair.engine.gpt
        readout = inside.GPTReadout(gpt, 257)
        streams = readout.streams(pair.ids())
        assert torch.allclose(readout.logits(streams[-1]).double(), pair.logits(pair.ids()), atol=1e-4)


def test_it_opens_in_half_and_int8(pair: Pair, tmp_path: Path) -> None:
    folder = pair.engine.folder
    with torch.no_grad():
        wanted = pair.logits(pair.ids())[-1].softmax(-1)
    for weights, most in (("half", 0.01), ("int8", 0.2)):
        engine = PipelineEngine("cpu", weights)
        engine.open(str(folder))
        for one in engine.read(Request(prompt=TEXT)).distribution.candidates[:5]:
            assert one.raw_probability == pytest.approx(float(wanted[one.id]), abs=most)
        attention = engine.answer(AttentionQuestion(Request(prompt=TEXT)))
        assert len(attention.heads) == 2
        why = engine.answer(WhyQuestion(Request(prompt=TEXT)))
        assert sum(one.value for one in why.parts) == pytest.approx(why.logit, abs=1e-5)


def test_its_files_name_the_switches_as_the_open_model_does(pair: Pair) -> None:
    gpt, folder = pair.engine.gpt, pair.engine.folder
    assert gpt is not None and folder is not None
    named = tuple(name for name in switches.names_of(gpt.config) if name != switches.UNTIED)
    assert named and of_files(folder, "model").switches == named
