"""Parts of other people's models: ablation, patching, attribution and lens, against transformers with its own hooks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import foreign
import pytest
import torch
import transformers
from torch import Tensor

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
    POSITIONS,
    RESIDUAL,
    STEER,
    TOKENS,
    ZERO,
    Intervention,
    ModelPart,
    is_part_of,
)
from tui_llm.facts.request import Request, Target
from tui_llm.instruments.ablate.question import AblateQuestion, EffectsQuestion, ranked_parts
from tui_llm.instruments.backward.kinds import causal_kinds
from tui_llm.instruments.backward.question import DOWN, BackwardQuestion
from tui_llm.instruments.block.question import BlockQuestion
from tui_llm.instruments.lens.question import LensGridQuestion, LensQuestion
from tui_llm.instruments.lens.tuned import readout_of, tuned_lens
from tui_llm.instruments.patch.question import PatchGrid, PatchQuestion
from tui_llm.instruments.steer.question import Direction, SteerQuestion
from tui_llm.instruments.why.question import WhyQuestion
from tui_llm.llm.adapters.causal import CausalPredictor
from tui_llm.llm.adapters.parts import CausalLayout, DifferentiableCausal, attention
from tui_llm.llm.adapters.text_blocks import CausalBlocks
from tui_llm.llm.learn.backward import gradients
from tui_llm.llm.learn.fit_lens import LensFit
from tui_llm.llm.model import tuned_lens_file
from tui_llm.llm.model.attribution import attribute
from tui_llm.llm.model.interventions import Hooks, record
from tui_llm.llm.model.part_effects import PartEffects
from tui_llm.llm.model.patching import KINDS, PartPatching, plan
from tui_llm.llm.model.tuned_lens import TunedLens

IDS = [11, 4, 27, 4, 60, 33, 11, 4, 52]
OTHER = [9, 70, 31, 4, 3, 77]
SHAPE: dict[str, Any] = {
    "vocab_size": 90,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "tie_word_embeddings": False,
}
T = transformers
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: T.LlamaConfig(num_key_value_heads=2, attention_bias=True, **SHAPE),
    "mistral": lambda: T.MistralConfig(num_key_value_heads=2, head_dim=10, sliding_window=4, **SHAPE),
    "qwen2": lambda: T.Qwen2Config(num_key_value_heads=1, **SHAPE),
    "qwen3": lambda: T.Qwen3Config(num_key_value_heads=2, head_dim=8, **SHAPE),
    "gemma": lambda: T.GemmaConfig(num_key_value_heads=1, head_dim=6, **SHAPE),
    "gpt_neox": lambda: T.GPTNeoXConfig(rotary_pct=0.5, **SHAPE),
    "gpt_neox serial": lambda: T.GPTNeoXConfig(use_parallel_residual=False, **SHAPE),
    "phi3": lambda: T.Phi3Config(num_key_value_heads=2, pad_token_id=None, **SHAPE),
    "starcoder2": lambda: T.Starcoder2Config(num_key_value_heads=2, **SHAPE),
    "gpt2": lambda: T.GPT2Config(
        vocab_size=90, n_embd=24, n_layer=3, n_head=4, n_positions=32, scale_attn_by_inverse_layer_idx=True
    ),
}


def model_of(config: Any, attention: str) -> Any:
    torch.manual_seed(3)
    made = T.AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    return made.eval()


@pytest.fixture(scope="module", params=CONFIGS)
def both(request: pytest.FixtureRequest) -> tuple[CausalLayout, Any]:
    """The model as we open it (SDPA), and the reference with eager attention."""
    config = CONFIGS[request.param]  # models share the config that they are made of, and with it the kind of attention
    return CausalLayout(CausalPredictor(model_of(config(), "sdpa"), request.param)), model_of(config(), "eager")


@torch.no_grad()
def logits(model: Any, ids: list[int] = IDS) -> Tensor:
    return model(input_ids=torch.tensor([ids])).logits[0]


def first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


class Reference:
    """Where transformers' modules of each architecture compute a part, written down without our table."""

    def __init__(self, model: Any) -> None:
        self.model = model
        kind = model.config.model_type
        body = model.gpt_neox if kind == "gpt_neox" else model.transformer if kind == "gpt2" else model.model
        self.blocks = body.h if kind == "gpt2" else body.layers
        self.norm = {"gpt_neox": "final_layer_norm", "gpt2": "ln_f"}.get(kind, "norm")
        self.norm = getattr(body, self.norm)
        self.tokens = {"gpt_neox": "embed_in", "gpt2": "wte"}.get(kind, "embed_tokens")
        self.tokens = getattr(body, self.tokens)
        self.attention = [
            block.attention if kind == "gpt_neox" else block.attn if kind == "gpt2" else block.self_attn
            for block in self.blocks
        ]
        self.out = [a.dense if kind == "gpt_neox" else a.c_proj if kind == "gpt2" else a.o_proj for a in self.attention]
        self.size = (self.out[0].weight.shape[0 if kind == "gpt2" else 1]) // model.config.num_attention_heads

    def hook(self, part: ModelPart, edit: Callable[[Tensor], Tensor]) -> Any:
        """Replaces the part's value by `edit` of it."""
        layer, columns = part.layer, slice(part.head * self.size, (part.head + 1) * self.size)

        def output(_m: Any, args: Any, out: Any) -> Any:
            made = args[0] + edit(first(out) - args[0]) if part.kind == LAYER else edit(first(out))
            return (made, *out[1:]) if isinstance(out, tuple) else made

        def before(_m: Any, args: Any) -> Any:
            x = args[0].clone()
            if part.kind == HEAD:
                x[..., columns] = edit(x[..., columns])
            else:
                x = edit(x)
            return (x, *args[1:])

        match part.kind:
            case "head":
                return self.out[layer].register_forward_pre_hook(before)
            case "residual":
                where = self.norm if layer == len(self.blocks) else self.blocks[layer]
                return where.register_forward_pre_hook(before)
            case "attention":
                return self.attention[layer].register_forward_hook(output)
            case "MLP":
                return self.blocks[layer].mlp.register_forward_hook(output)
            case "layer":
                return self.blocks[layer].register_forward_hook(output)
            case _:
                return self.tokens.register_forward_hook(output)

    def seen(self, part: ModelPart, ids: list[int]) -> Tensor:
        kept: list[Tensor] = []

        def keep(value: Tensor) -> Tensor:
            kept.append(value[0])
            return value

        handle = self.hook(part, keep)
        logits(self.model, ids)
        handle.remove()
        return kept[-1]

    def changed(self, part: ModelPart, edit: Callable[[Tensor], Tensor]) -> Tensor:
        handle = self.hook(part, edit)
        try:
            return logits(self.model)
        finally:
            handle.remove()


def changed(layout: CausalLayout, *interventions: Intervention) -> Tensor:
    hooks = Hooks(layout, interventions)
    try:
        return logits(layout.model)
    finally:
        hooks.remove()


PARTS = [
    ModelPart(TOKENS),
    ModelPart(HEAD, 1, 2),
    ModelPart(ATTENTION, 0),
    ModelPart(MLP, 1),
    ModelPart(LAYER, 2),
    ModelPart(RESIDUAL, 1),
    ModelPart(RESIDUAL, 3),
]


def test_each_part_is_read_and_changed_as_by_hooks_in_transformers(both: tuple[CausalLayout, Any]) -> None:
    layout, model = both
    reference, plain = Reference(model), logits(layout.model)
    torch.testing.assert_close(plain, logits(model), atol=1e-4, rtol=1e-4)
    for part in PARTS:
        values, other = reference.seen(part, IDS), reference.seen(part, OTHER)
        torch.testing.assert_close(record(layout, IDS, [part])[part], values, atol=1e-4, rtol=1e-4)
        shift = len(OTHER) - len(IDS)

        def patch(value: Tensor, other: Tensor = other, shift: int = shift) -> Tensor:
            value = value.clone()
            value[..., -shift:, :] = other
            return value

        push = 2 * (other[-1] - values[-1])
        cases: list[tuple[Intervention, Callable[[Tensor], Tensor]]] = [
            (Intervention(part), torch.zeros_like),
            (
                Intervention(part, MEAN, tuple(OTHER)),
                lambda value, other=other: other.mean(0).expand_as(value),
            ),
            (Intervention(part, PATCH, tuple(OTHER), shift=shift), patch),
            (
                Intervention(part, STEER, tuple(OTHER), against=tuple(IDS), coefficient=2.0),
                lambda value, push=push: value + push,
            ),
        ]
        for intervention, edit in cases:
            made = changed(layout, intervention)
            torch.testing.assert_close(made, reference.changed(part, edit), atol=2e-4, rtol=1e-4)
            assert not torch.allclose(made, plain, atol=1e-3), intervention.name
    assert torch.equal(logits(layout.model), plain)


def aligned(value: Tensor, other: Tensor, at: int | None = None) -> Tensor:
    """The values of `OTHER`, put into those of `IDS` from the end, at one token or all."""
    value, first = value.clone(), len(IDS) - len(OTHER)
    for token in range(first, len(IDS)) if at is None else [at]:
        value[..., token, :] = other[token - first]
    return value


@pytest.mark.parametrize("how", [ZERO, MEAN, PATCH])
def test_the_effect_of_each_part_alone_is_as_by_a_hook_in_transformers(
    both: tuple[CausalLayout, Any], how: str
) -> None:
    layout, model = both
    reference, rows = Reference(model), ranked_parts(3, 4, layout.positions)
    run = PartEffects(CausalBlocks(layout, IDS, 90), 2)
    torch.testing.assert_close(run.unchanged, logits(model)[-2:], atol=1e-4, rtol=1e-4)
    parts = [part for row in rows for part in row if part.kind != POSITIONS]
    text, shift = () if how == ZERO else tuple(OTHER), len(OTHER) - len(IDS)
    found = run.logits([Intervention(part, how, text, shift=shift if how == PATCH else 0) for part in parts])
    for part, made in zip(parts, found, strict=True):
        other = reference.seen(part, OTHER)
        edits: dict[str, Callable[[Tensor], Tensor]] = {
            ZERO: torch.zeros_like,
            MEAN: lambda value, other=other: other.mean(0).expand_as(value),
            PATCH: lambda value, other=other: aligned(value, other),
        }
        torch.testing.assert_close(made, reference.changed(part, edits[how])[-2:], atol=2e-4, rtol=1e-4)
    assert torch.equal(PartEffects(CausalBlocks(layout, IDS, 90), 2).unchanged, run.unchanged)


@pytest.mark.parametrize("kind", KINDS)
def test_each_cell_of_the_patch_grid_is_as_by_a_hook_in_transformers(both: tuple[CausalLayout, Any], kind: str) -> None:
    layout, model = both
    reference, run = Reference(model), PartEffects(CausalBlocks(layout, IDS, 90))
    patching = PartPatching(run, OTHER, kind, (7, 41))
    batches, _ = plan(kind, 3, len(IDS), len(OTHER) - len(IDS), 0, run.blocks.work)
    assert max(len(batch.tokens) for batch in batches) > 1
    for batch in batches:
        part = ModelPart(kind, batch.layer)
        other = reference.seen(part, OTHER)
        for token, effect in zip(batch.tokens, patching.effects(batch), strict=True):
            wanted = reference.changed(part, lambda value, at=token, other=other: aligned(value, other, at))[-1]
            assert effect == pytest.approx(float(wanted[7] - wanted[41]), abs=2e-4)


def test_attention_to_a_token_is_cut_as_by_a_mask_in_transformers(both: tuple[CausalLayout, Any]) -> None:
    layout, model = both
    count = len(IDS)
    mask = torch.full((count, count), float("-inf")).triu(1)
    if (window := getattr(model.config, "sliding_window", None)) and model.config.model_type == "mistral":
        mask += torch.full((count, count), float("-inf")).tril(-window).nan_to_num(0, neginf=float("-inf"))
    mask[5:, 4] = float("-inf")
    handles: list[Any] = []
    with ExitStack() as stack, torch.no_grad():

        def masked(_m: Any, args: Any, words: Any) -> Any:
            return args, {**words, "attention_mask": mask[None, None]}

        for attention in Reference(model).attention:
            handle = attention.register_forward_pre_hook(masked, with_kwargs=True)
            handles.append(handle)
            stack.callback(handle.remove)
        wanted = logits(model)
    made = changed(layout, Intervention(ModelPart(KEY, 4)))
    torch.testing.assert_close(made, wanted, atol=2e-4, rtol=1e-4)
    assert not torch.allclose(made, logits(layout.model), atol=1e-3)


@pytest.mark.parametrize(
    "intervention",
    [
        Intervention(ModelPart(HEAD, 1, 2)),
        Intervention(ModelPart(KEY, 4)),
        Intervention(ModelPart(RESIDUAL, 2), PATCH, tuple(OTHER), at=5),
    ],
    ids=lambda one: one.name,
)
def test_with_a_cache_the_numbers_are_those_without(both: tuple[CausalLayout, Any], intervention: Intervention) -> None:
    layout, _ = both
    whole = changed(layout, intervention)
    predictor = layout.predictor.fresh()
    hooks = Hooks(layout, [intervention])
    try:
        made = [predictor.head(predictor.run(IDS[a:b]), 90) for a, b in ((0, 3), (3, 4), (4, 6), (6, 9))]
    finally:
        hooks.remove()
    torch.testing.assert_close(torch.cat(made), whole, atol=2e-4, rtol=1e-4)


def test_parts_of_a_logit_are_those_of_transformers_and_add_up(both: tuple[CausalLayout, Any]) -> None:
    layout, model = both
    reference, tokens = Reference(model), [7, 41]
    found = attribute(layout, IDS, 6, tokens)
    values = dict(zip(found.parts, found.values, strict=True))
    wanted = logits(model)[6, tokens].double()
    torch.testing.assert_close(found.values.sum(0), wanted, atol=1e-4, rtol=1e-4)
    stream = reference.seen(ModelPart(RESIDUAL, 3), IDS)[6].double()
    rows = model.get_output_embeddings().weight[tokens].detach().double()

    def through(vector: Tensor) -> Tensor:
        """The final norm with σ frozen, then the rows of the head, as its documentation has it."""
        norm, scale = reference.norm, found.scale
        gain = norm.weight.detach().double() + (model.config.model_type == "gemma")
        centre = vector - vector.mean() if isinstance(norm, torch.nn.LayerNorm) else vector
        return rows @ (gain * centre / scale)

    for part in (ModelPart(MLP, 0), ModelPart(MLP, 2)):
        torch.testing.assert_close(values[part], through(reference.seen(part, IDS)[6].double()), atol=1e-4, rtol=1e-4)
    for layer in range(3):
        whole = through(reference.seen(ModelPart(ATTENTION, layer), IDS)[6].double())
        made = sum(value for part, value in values.items() if part.layer == layer and part.kind != MLP)
        torch.testing.assert_close(made, whole, atol=1e-4, rtol=1e-4)
        out, columns = reference.out[layer], slice(reference.size, 2 * reference.size)
        weight = (out.weight.T if model.config.model_type == "gpt2" else out.weight).detach().double()
        head = weight[:, columns] @ reference.seen(ModelPart(HEAD, layer, 1), IDS)[6].double()
        torch.testing.assert_close(values[ModelPart(HEAD, layer, 1)], through(head), atol=1e-4, rtol=1e-4)
    assert stream.isfinite().all()


@pytest.mark.parametrize("kind", [ATTENTION, LAYER, RESIDUAL])
def test_what_is_in_a_changed_part_adds_nothing_to_a_logit(both: tuple[CausalLayout, Any], kind: str) -> None:
    layout, model = both
    reference, tokens, part = Reference(model), [7, 41], ModelPart(kind, 1)
    plain = attribute(layout, IDS, 6, tokens)
    inner = {one for one in plain.parts if is_part_of(one, part)}
    assert {one.layer for one in inner} == ({-1, 0} if kind == RESIDUAL else {1})
    other = reference.seen(part, OTHER).mean(0)
    for change, edit in (
        (Intervention(part), torch.zeros_like),
        (Intervention(part, MEAN, tuple(OTHER)), lambda value: other.expand_as(value)),
    ):
        hooks = Hooks(layout, [change])
        try:
            found = attribute(layout, IDS, 6, tokens, changes=[change])
        finally:
            hooks.remove()
        wanted = reference.changed(part, edit)[6, tokens].double()
        torch.testing.assert_close(found.values.sum(0), wanted, atol=2e-4, rtol=1e-4)
        if change.how == ZERO:
            assert found.parts == plain.parts
            nothing = {one for one, value in zip(found.parts, found.values, strict=True) if not value.any()}
            assert inner <= nothing
            assert nothing == inner or not wanted.any(), "without biases, all that follows a stream of zeros is zero"
        else:
            assert set(found.parts) == {*plain.parts} - inner | {part}


def test_attention_weights_are_those_of_eager_attention(both: tuple[CausalLayout, Any]) -> None:
    layout, model = both
    with torch.no_grad():
        wanted = torch.stack(model(input_ids=torch.tensor([IDS]), output_attentions=True).attentions)[:, 0, :, 6, :7]
    made = attention(layout, IDS, 6)
    torch.testing.assert_close(made, wanted, atol=1e-4, rtol=1e-4)
    assert layout.model.config._attn_implementation == "sdpa"


def test_a_cache_that_is_kept_apart(both: tuple[CausalLayout, Any]) -> None:
    layout, _ = both
    one, other = layout.predictor.fresh(), layout.predictor.fresh()
    one.run(IDS[:4])
    assert torch.allclose(other.head(other.run(IDS), 90), logits(layout.model), atol=1e-4)
    assert torch.allclose(one.head(one.run(IDS[4:]), 90), logits(layout.model)[4:], atol=1e-4)


def test_gradient_norms_are_those_of_autograd(both: tuple[CausalLayout, Any]) -> None:
    layout, model = both
    wanted = [8, 31]
    found = gradients(DifferentiableCausal(layout.predictor), IDS, wanted, 90)
    model.zero_grad()
    losses = torch.nn.functional.cross_entropy(
        model(input_ids=torch.tensor([IDS])).logits[0, -2:], torch.tensor(wanted), reduction="none"
    )
    losses.mean().backward()
    assert found.losses.tolist() == pytest.approx(losses.tolist(), abs=1e-4)
    theirs = dict(model.named_parameters())
    assert found.parameters.keys() == theirs.keys()
    kinds, whole = causal_kinds(layout), {name: one.grad for name, one in theirs.items()}
    for name, gradient in found.parameters.items():
        torch.testing.assert_close(gradient, whole[name], atol=1e-4, rtol=1e-4)
    layers = [kinds(name, gradient)[0][:2] for name, gradient in found.parameters.items()]
    assert {layer for layer, _ in layers} == {-1, 0, 1, 2}
    block = Reference(model).blocks[1]
    named = {
        name: kinds(next(n for n, p in theirs.items() if p is one), one)[0] for name, one in block.named_parameters()
    }
    assert {layer for layer, _, _ in named.values()} == {1}
    matrices = [kind for _, kind, one in named.values() if one.dim() > 1]
    assert len(set(matrices)) == len(matrices), "each matrix has a name of its own"
    assert {kind for _, kind, one in named.values() if one.dim() == 1} <= {"biases", "LayerNorms", "RMSNorms"}


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt_neox"])
def test_in_the_engine(kind: str, tmp_path: Path) -> None:
    reference = foreign.make(kind, tmp_path)
    engine = PipelineEngine("cpu")
    engine.open(str(tmp_path))
    text = "The cat sat on the"
    plain = engine.read(Request(prompt=text, top=20))
    found = engine.answer(WhyQuestion(Request(prompt=text)))
    assert found.logit == pytest.approx(found.computed, abs=1e-4)
    assert found.rival_logit == pytest.approx(found.computed_rival, abs=1e-4)
    off = (Intervention(ModelPart(HEAD, 0, 1)), Intervention(ModelPart(MLP, 1)))
    one = Reference(reference)
    handles = [one.hook(part.part, torch.zeros_like) for part in off]
    ids = list(plain.prompt_ids)
    wanted = foreign.full_logits(reference, ids)[-1]
    for handle in handles:
        handle.remove()
    made = engine.read(Request(prompt=text, top=20, interventions=off, target=Target(id=3)))
    assert made.loss is not None
    size = engine.tokenizer.size
    assert made.loss.mean == pytest.approx(-float(wanted[:size].log_softmax(-1)[3]), abs=1e-4)
    switched = engine.answer(WhyQuestion(Request(prompt=text, interventions=off)))
    assert switched.logit == pytest.approx(switched.computed, abs=1e-4)
    assert {one.part: one.value for one in switched.parts}[ModelPart(HEAD, 0, 1)] == 0
    again = engine.read(Request(prompt=text, top=20))
    assert again.distribution == plain.distribution and again.forward_tokens == 0
    piece = engine.answer(PatchQuestion(Request(prompt=text), "The dog sat on the", MLP))
    grid = PatchGrid(piece)
    assert grid.complete and len(grid.effects) == engine.weights().layers
    at = len(piece.tokens) - 1
    engine.intervene((piece.patch(1, at),))
    made_logits = engine.logits(Request(prompt=text))
    difference = float(made_logits[piece.target.id] - made_logits[piece.rival.id])
    assert grid.effects[1][at] == pytest.approx(difference, abs=1e-4)
    parts = tuple(part for row in ranked_parts(2, 4, engine.weights().positions) for part in row)
    ranking = engine.answer(EffectsQuestion(Request(prompt=text, target=Target(id=3)), parts))
    for effect in ranking.parts[:3]:
        alone = AblateQuestion(Request(prompt=text, target=Target(id=3)), (Intervention(effect.part),))
        assert engine.answer(alone).after.loss == pytest.approx(effect.values.loss, abs=1e-4)
    assert len(ranking.parts) == 2 * 7 + 1, "no position embedding"
    asked = Request(prompt=text, target=Target(id=3))
    backward = engine.answer(BackwardQuestion(asked))
    assert sum(one.norm**2 for one in backward.norms) == pytest.approx(backward.grad_norm**2)
    assert sum(one.numbers for one in backward.norms) == engine.weights().parameters
    out = one.blocks[1].mlp.dense_4h_to_h if kind == "gpt_neox" else one.blocks[1].mlp.down_proj
    reference.zero_grad()
    (-reference(input_ids=torch.tensor([ids])).logits[0, -1, :size].log_softmax(-1)[3]).backward()
    assert backward.cell(1, DOWN).norm == pytest.approx(float(out.weight.grad.norm()), abs=1e-4)
    assert backward.tied == (reference.get_output_embeddings().weight is reference.get_input_embeddings().weight)
    steered = engine.answer(SteerQuestion(Request(prompt=text), Direction("a", "b", 1), 3.0, tokens=2))
    assert steered.norm > 0 and steered.before.candidates != steered.after.candidates
    engine.intervene(())
    lens = engine.answer(LensQuestion(Request(prompt=text), top=3))
    assert plain.distribution is not None
    for guess, row in zip(lens.rows[-1].guesses, plain.distribution.candidates, strict=False):
        assert guess.token.id == row.id and guess.probability == pytest.approx(row.raw_probability, abs=1e-5)
    whole = engine.answer(LensGridQuestion(Request(prompt=text), top=1))
    assert len(whole.rows) == 3
    for cells, row in zip(whole.rows, lens.rows, strict=True):
        assert cells[-1].guesses[0].probability == pytest.approx(row.guesses[0].probability, abs=1e-5)
    early = one.norm(one.seen(ModelPart(RESIDUAL, 1), ids)[2])
    with torch.no_grad():
        p = reference.get_output_embeddings()(early)[:size].softmax(-1)
    assert whole.rows[1][2].probability == pytest.approx(float(p[ids[3]]), abs=1e-4)
    middle = one.seen(ModelPart(RESIDUAL, 1), ids)[-1]
    with torch.no_grad():
        p = reference.get_output_embeddings()(one.norm(middle))[:size].softmax(-1)
    assert lens.rows[1].guesses[0].probability == pytest.approx(float(p.max()), abs=1e-4)
    with pytest.raises(UserError, match="drawn for tui-llm's own model only"):
        engine.answer(BlockQuestion(Request(prompt=text)))
    torch.manual_seed(2)
    layers, width = engine.weights().layers, engine.weights().width
    translators = TunedLens(torch.randn(layers, width, width) * 0.1, torch.randn(layers, width))
    tuned_lens_file.save(tuned_lens_file.path_of(tmp_path), translators, tuned_lens_file.weights_digest(tmp_path), {})
    translators = tuned_lens(engine)  # as float16 has rounded them
    tuned = engine.answer(LensQuestion(Request(prompt=text), top=3, tuned=True))
    assert tuned.rows[-1] == lens.rows[-1]
    with torch.no_grad():
        moved = middle + middle @ translators.weight[1].T.to(middle.dtype) + translators.bias[1].to(middle.dtype)
        p = reference.get_output_embeddings()(one.norm(moved))[:size].softmax(-1)
    assert tuned.rows[1].guesses[0].probability == pytest.approx(float(p.max()), abs=1e-4)
    readout = readout_of(engine)
    fit = LensFit(readout, 3, 1e-3)
    before, _, after = (fit.step([ids]) for _ in range(3))
    assert all(new < old for old, new in zip(before, after, strict=True))
    if kind != "gpt2":
        with pytest.raises(UserError, match="no position embedding"):
            engine.read(Request(prompt=text, interventions=(Intervention(ModelPart(POSITIONS)),)))
    with pytest.raises(UserError, match=r"there is no head 7\.0"):
        engine.read(Request(prompt=text, interventions=(Intervention(ModelPart(HEAD, 7, 0)),)))


@pytest.mark.parametrize(("kind", "line"), [("gemma2", "'gemma2' model are not known"), ("cohere", "are not known")])
def test_what_an_architecture_lacks_is_said_in_a_line(kind: str, line: str, tmp_path: Path) -> None:
    foreign.make(kind, tmp_path)
    engine = PipelineEngine("cpu")
    engine.open(str(tmp_path))
    for ask in (
        lambda: engine.answer(WhyQuestion(Request(prompt="The cat"))),
        lambda: engine.answer(LensQuestion(Request(prompt="The cat"))),
        lambda: engine.answer(EffectsQuestion(Request(prompt="The cat"), (ModelPart(MLP, 0),))),
        lambda: engine.answer(PatchQuestion(Request(prompt="The cat"), "The dog", MLP)),
        lambda: engine.answer(BackwardQuestion(Request(prompt="The cat", target=Target(id=3)))),
        lambda: engine.read(Request(prompt="The cat", interventions=(Intervention(ModelPart(HEAD, 0, 0)),))),
    ):
        with pytest.raises(UserError, match=line):
            ask()
    assert engine.read(Request(prompt="The cat")).distribution is not None
