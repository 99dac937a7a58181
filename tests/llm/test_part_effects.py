"""The effect of each part alone, in batches, against transformers' GPT-2 with forward hooks (eager attention)."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from test_interventions import Edit, edited, seen
from torch import Tensor

from tui_llm.common.errors import Overtaken, UserError
from tui_llm.facts.interventions import HEAD, KEY, LAYER, MEAN, MLP, PATCH, ZERO, Intervention, ModelPart
from tui_llm.instruments.ablate.question import ranked_parts
from tui_llm.llm.model import checkpoint, fast_decode
from tui_llm.llm.model.interventions import GPTLayout, Hooks
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.part_effects import PartEffects
from tui_llm.llm.model.text_blocks import GPTBlocks

IDS = [12, 45, 9, 7, 45, 48, 12, 45, 38]
OTHER = [9, 30, 31, 45, 3, 27]


@pytest.fixture(scope="module", params=[(3, 4, 32), (1, 1, 16), (2, 3, 24)], ids=str)
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[GPT, Any]:
    """Our GPT and transformers' with the same random weights."""
    from transformers import GPT2Config, GPT2LMHeadModel

    layers, heads, width = request.param
    torch.manual_seed(layers)
    config = GPT2Config(
        vocab_size=64, n_positions=32, n_embd=width, n_layer=layers, n_head=heads, initializer_range=0.3
    )
    config._attn_implementation = "eager"
    theirs = GPT2LMHeadModel(config).eval()
    folder: Path = tmp_path_factory.mktemp("model")
    theirs.save_pretrained(folder)
    return checkpoint.load(folder, torch.device("cpu")).eval(), theirs


def parts_of(model: GPT) -> list[ModelPart]:
    return [part for row in ranked_parts(model.config.layers, model.config.heads) for part in row]


@torch.no_grad()
def reference(model: Any, part: ModelPart, edit: Edit, count: int) -> Tensor:
    with edited(model, part, edit):
        return model(torch.tensor([IDS])).logits[0, -count:]


@pytest.mark.parametrize("how", [ZERO, MEAN, PATCH])
def test_each_part_alone_is_as_by_a_hook_in_transformers(models: tuple[GPT, Any], how: str) -> None:
    ours, theirs = models
    run, parts, shift, count = PartEffects(GPTBlocks(ours, IDS), 3), parts_of(ours), len(OTHER) - len(IDS), 3
    with torch.no_grad():
        torch.testing.assert_close(run.unchanged, theirs(torch.tensor([IDS])).logits[0, -3:], atol=1e-4, rtol=1e-4)
    text = () if how == ZERO else tuple(OTHER)
    found = run.logits([Intervention(part, how, text, shift=shift if how == PATCH else 0) for part in parts])
    for part, logits in zip(parts, found, strict=True):
        other = seen(theirs, part, OTHER)

        def edit(value: Tensor, other: Tensor = other) -> Tensor:
            if how == ZERO:
                return torch.zeros_like(value)
            if how == MEAN:
                return other.mean(0).expand_as(value)
            value = value.clone()
            value[..., -shift:, :] = other
            return value

        torch.testing.assert_close(logits, reference(theirs, part, edit, count), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("weights", ["half", "int8"])
def test_with_reduced_weights_the_batch_is_as_one_at_a_time(models: tuple[GPT, Any], weights: str) -> None:
    ours = copy.deepcopy(models[0]).requires_grad_(False)
    fast_decode.prepare(ours, weights)
    parts = parts_of(ours)
    found = PartEffects(GPTBlocks(ours, IDS)).logits([Intervention(part) for part in parts])
    for part, logits in zip(parts, found, strict=True):
        hooks = Hooks(GPTLayout(ours), [Intervention(part)])
        try:
            with torch.inference_mode():
                alone = ours(torch.tensor([IDS]))[0, -1:]
        finally:
            hooks.remove()
        torch.testing.assert_close(logits, alone[:, : ours.used], atol=2e-3, rtol=1e-3)


def test_it_stops_when_overtaken_and_leaves_no_hook(models: tuple[GPT, Any]) -> None:
    ours = models[0]
    run = PartEffects(GPTBlocks(ours, IDS))
    with pytest.raises(Overtaken):
        run.logits([Intervention(ModelPart(MLP, 0))], lambda: True)
    with pytest.raises(Overtaken):
        PartEffects(GPTBlocks(ours, IDS), overtaken=lambda: True)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in ours.modules())
    torch.testing.assert_close(PartEffects(GPTBlocks(ours, IDS)).unchanged, run.unchanged)


def test_a_part_that_is_none_is_refused(models: tuple[GPT, Any]) -> None:
    run = PartEffects(GPTBlocks(models[0], IDS))
    for part in (ModelPart(HEAD, 0, 9), ModelPart(LAYER, 7), ModelPart(KEY, 1)):
        with pytest.raises(UserError):
            run.logits([Intervention(part)])
    assert run.logits([]).numel() == 0
    with pytest.raises(ValueError, match="context"):
        PartEffects(GPTBlocks(models[0], [1] * 33))
