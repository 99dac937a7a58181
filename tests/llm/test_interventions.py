"""Interventions on our GPT, against transformers' GPT-2 with forward hooks (eager attention), and in the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tui_llm.common import paths
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
    all_parts,
    named,
    parse_heads,
    parse_layers,
)
from tui_llm.facts.request import Request, Target
from tui_llm.llm.model import checkpoint
from tui_llm.llm.model.interventions import GPTLayout, Hooks, record
from tui_llm.llm.model.model import GPT, KVCache

NANO = paths.shipped_models_dir() / "nano"
IDS = [312, 45, 991, 7, 45, 2048, 312, 45, 88, 1500]
OTHER = [9, 700, 31, 45, 3, 77, 1234]
PARTS = [
    ModelPart(TOKENS),
    ModelPart(POSITIONS),
    ModelPart(HEAD, 1, 2),
    ModelPart(ATTENTION, 0),
    ModelPart(MLP, 1),
    ModelPart(LAYER, 2),
    ModelPart(RESIDUAL, 1),
]


@pytest.fixture(scope="module")
def ours() -> GPT:
    return checkpoint.load(NANO, torch.device("cpu")).eval()


@pytest.fixture(scope="module")
def theirs() -> Any:
    from transformers import GPT2LMHeadModel

    return GPT2LMHeadModel.from_pretrained(NANO, attn_implementation="eager", dtype=torch.float32).eval()


Edit = Callable[[Tensor], Tensor]


@contextmanager
def edited(model: Any, part: ModelPart, edit: Edit) -> Iterator[None]:
    """Edits a part of transformers' GPT-2."""
    body, size = model.transformer, model.config.n_embd // model.config.n_head

    def first(output: Any) -> Tensor:
        return output[0] if isinstance(output, tuple) else output

    def whole(output: Any, made: Tensor) -> Any:
        return (made, *output[1:]) if isinstance(output, tuple) else made

    def of_head(_module: Any, args: Any) -> Any:
        x = args[0].clone()
        columns = slice(part.head * size, (part.head + 1) * size)
        x[..., columns] = edit(x[..., columns])
        return (x, *args[1:])

    match part.kind:
        case "token embedding":
            handle = body.wte.register_forward_hook(lambda m, a, out: edit(out))
        case "position embedding":
            handle = body.wpe.register_forward_hook(lambda m, a, out: edit(out))
        case "head":
            handle = body.h[part.layer].attn.c_proj.register_forward_pre_hook(of_head)
        case "attention":
            handle = body.h[part.layer].attn.register_forward_hook(lambda m, a, out: whole(out, edit(first(out))))
        case "MLP":
            handle = body.h[part.layer].mlp.register_forward_hook(lambda m, a, out: edit(out))
        case "layer":
            handle = body.h[part.layer].register_forward_hook(
                lambda m, a, out: whole(out, a[0] + edit(first(out) - a[0]))
            )
        case _:
            handle = body.h[part.layer].register_forward_pre_hook(lambda m, a: (edit(a[0]), *a[1:]))
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def reference(model: Any, part: ModelPart, edit: Edit) -> Tensor:
    with edited(model, part, edit):
        return model(torch.tensor([IDS])).logits[0]


@torch.no_grad()
def seen(model: Any, part: ModelPart, ids: list[int]) -> Tensor:
    """The part's values (T, C) in transformers' GPT-2."""
    kept: list[Tensor] = []

    def keep(value: Tensor) -> Tensor:
        kept.append(value[0] if value.dim() == 3 else value)
        return value

    with edited(model, part, keep):
        model(torch.tensor([ids]))
    return kept[-1]


def changed(model: GPT, *interventions: Intervention) -> Tensor:
    hooks = Hooks(GPTLayout(model), interventions)
    try:
        with torch.no_grad():
            return model(torch.tensor([IDS]))[0]
    finally:
        hooks.remove()


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_each_part_is_changed_as_by_hooks_in_transformers(ours: GPT, theirs: Any, part: ModelPart) -> None:
    values, other = seen(theirs, part, IDS), seen(theirs, part, OTHER)
    torch.testing.assert_close(record(GPTLayout(ours), IDS, [part])[part], values, atol=1e-4, rtol=1e-4)
    size = values.size(-1)
    shift = len(OTHER) - len(IDS)  # aligned from the end

    def patch(value: Tensor) -> Tensor:
        value = value.clone()
        value[..., -shift:, :] = other
        return value

    def patch_one(value: Tensor) -> Tensor:
        value = value.clone()
        value[..., 4, :] = other[4 + shift]
        return value

    direction = other[-1] - values[-1]
    cases: list[tuple[Intervention, Edit]] = [
        (Intervention(part, ZERO), torch.zeros_like),
        (Intervention(part, MEAN, tuple(OTHER)), lambda value: other.mean(0).expand_as(value)),
        (Intervention(part, PATCH, tuple(OTHER), shift=shift), patch),
        (Intervention(part, PATCH, tuple(OTHER), shift=shift, at=4), patch_one),
        (
            Intervention(part, STEER, tuple(OTHER), against=tuple(IDS), coefficient=-1.5),
            lambda value: value - 1.5 * direction,
        ),
    ]
    plain = changed(ours)
    for intervention, edit in cases:
        made = changed(ours, intervention)
        torch.testing.assert_close(made, reference(theirs, part, edit), atol=2e-4, rtol=1e-4)
        assert not torch.allclose(made, plain, atol=1e-3), (intervention.name, size)
    assert torch.equal(changed(ours), plain)  # the hooks are gone


def test_attention_to_a_token_is_cut_as_by_a_mask_in_transformers(ours: GPT, theirs: Any) -> None:
    count = len(IDS)
    mask = torch.full((count, count), float("-inf")).triu(1)
    mask[5:, 4] = float("-inf")  # no later token attends to token 4
    with torch.no_grad():
        wanted = theirs(torch.tensor([IDS]), attention_mask=mask[None, None]).logits[0]
    made = changed(ours, Intervention(ModelPart(KEY, 4)))
    torch.testing.assert_close(made, wanted, atol=2e-4, rtol=1e-4)
    assert "forward" not in vars(ours.blocks[0].attention)


@pytest.mark.parametrize(
    "intervention",
    [
        Intervention(ModelPart(HEAD, 1, 2)),
        Intervention(ModelPart(KEY, 4)),
        Intervention(ModelPart(RESIDUAL, 2), PATCH, tuple(OTHER), at=5),
        Intervention(ModelPart(LAYER, 1), MEAN, tuple(OTHER)),
    ],
    ids=lambda one: one.name,
)
def test_with_a_cache_the_numbers_are_those_without(ours: GPT, intervention: Intervention) -> None:
    whole = changed(ours, intervention)
    hooks = Hooks(GPTLayout(ours), [intervention])
    try:
        cache = KVCache(ours.config)
        with torch.no_grad():
            pieces = [ours(torch.tensor([IDS[a:b]]), cache)[0] for a, b in ((0, 3), (3, 4), (4, 6), (6, 7), (7, 10))]
    finally:
        hooks.remove()
    torch.testing.assert_close(torch.cat(pieces), whole, atol=2e-4, rtol=1e-4)


def test_the_parts_add_up_to_the_residual_stream(ours: GPT) -> None:
    layers, heads = ours.config.layers, ours.config.heads
    parts = all_parts(layers, heads)
    final = ModelPart(RESIDUAL, layers)
    values = record(GPTLayout(ours), IDS, [*parts, final])
    total = torch.zeros_like(values[final])
    size = ours.config.width // heads
    for part in parts:
        if part.kind == HEAD:
            out = ours.blocks[part.layer].attention.out
            total += values[part] @ out.weight.detach()[:, part.head * size : (part.head + 1) * size].T
        else:
            total += values[part]
    for block in ours.blocks:
        total += block.attention.out.bias.detach()
    torch.testing.assert_close(total, values[final], atol=2e-4, rtol=1e-4)


def test_the_engine_switches_parts_off_and_on_again(theirs: Any) -> None:
    engine = PipelineEngine("cpu")
    engine.open("nano")
    request = Request(prompt="Once upon a time there was a", target=Target(likeliest=True), scores=True)
    plain = engine.read(request)
    off = Request(
        prompt=request.prompt,
        target=Target(id=plain.distribution.candidates[0].id),  # type: ignore[union-attr]
        scores=True,
        interventions=(Intervention(ModelPart(HEAD, 0, 1)), Intervention(ModelPart(MLP, 2))),
    )
    changed = engine.read(off)
    ids = list(changed.prompt_ids)
    with (
        torch.no_grad(),
        edited(theirs, ModelPart(HEAD, 0, 1), torch.zeros_like),
        edited(theirs, ModelPart(MLP, 2), torch.zeros_like),
    ):
        wanted = theirs(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    assert changed.loss is not None and plain.loss is not None
    assert changed.loss.mean == pytest.approx(-float(wanted[off.target.id]), abs=1e-3)  # type: ignore[union-attr, index]
    assert changed.loss.mean != pytest.approx(plain.loss.mean, abs=1e-3)
    again = engine.read(request)
    assert again.forward_tokens == 0  # its cache was kept
    assert again.distribution == plain.distribution and again.scores == plain.scores
    (step,) = engine.generate(off, seed=1)
    assert step.candidates[0].raw_probability == pytest.approx(float(wanted.max().exp()), abs=1e-3)
    with pytest.raises(UserError, match=r"there is no head 99\.0"):
        engine.read(Request(prompt="a", interventions=(Intervention(ModelPart(HEAD, 99, 0)),)))
    assert engine.read(request).distribution == plain.distribution


def test_text_names_parts() -> None:
    assert parse_heads("0.3, 1.2") == [ModelPart(HEAD, 0, 3), ModelPart(HEAD, 1, 2)]
    assert parse_layers("0,2", MLP) == [ModelPart(MLP, 0), ModelPart(MLP, 2)]
    assert (
        named([Intervention(ModelPart(HEAD, 0, 3)), Intervention(ModelPart(MLP, 1), MEAN)])
        == "head 0.3 off, MLP 1 at its mean"
    )
    for wrong in ("1", "a.b", "1.2.3", "-1.2", "1,2"):
        with pytest.raises(UserError, match=r"LAYER\.HEAD"):
            parse_heads(wrong)


@pytest.mark.parametrize("how", [MEAN, PATCH, STEER])
def test_values_of_no_text_are_refused(ours: GPT, how: str) -> None:
    with pytest.raises(UserError, match="reference"):
        Hooks(GPTLayout(ours), [Intervention(ModelPart(MLP, 0), how)])


def test_a_direction_of_another_width_is_refused(ours: GPT, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="width"):
        Hooks(GPTLayout(ours), [Intervention(ModelPart(RESIDUAL, 1), STEER, file="x")], lambda _file: torch.zeros(3))
