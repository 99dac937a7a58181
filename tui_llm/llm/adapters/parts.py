"""The parts of transformers' models: where their values stand, for attribution, ablation, patching and the logit lens.

`PATHS` says, for each architecture, which modules are its parts. What it does not list can't be read or changed, and a
line says so. Heads are query heads: with grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245) several share
their keys and values. Letters: T tokens, C the width, H heads, D the size of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tui_llm.common.errors import UserError
from tui_llm.facts.interventions import (
    ATTENTION,
    ATTENTION_BIAS,
    FINAL_BIAS,
    HEAD,
    KEY,
    LAYER,
    POSITIONS,
    REMAINDER,
    RESIDUAL,
    SOFTCAP,
    TOKENS,
    ModelPart,
    check_parts,
)
from tui_llm.llm.adapters.causal import CausalPredictor
from tui_llm.llm.model import device
from tui_llm.llm.model.interventions import Site, record
from tui_llm.llm.model.tuned_lens import TunedLens


@dataclass(frozen=True, slots=True)
class ModulePaths:
    """Modules by their path: `tokens`, `positions`, `layers` and `norm` from the model without its head, the others from
    a layer. positions: empty if positions are not embedded, as with rotary embeddings. out, down: the output projections
    of attention and MLP."""

    tokens: str = "embed_tokens"
    positions: str = ""
    layers: str = "layers"
    norm: str = "norm"
    attention: str = "self_attn"
    out: str = "self_attn.o_proj"
    mlp: str = "mlp"
    down: str = "mlp.down_proj"


LLAMA = ModulePaths()
PATHS = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "phi3", "olmo", "smollm3", "stablelm"), LLAMA),
    "starcoder2": ModulePaths(down="mlp.c_proj"),
    "gpt_neox": ModulePaths(
        "embed_in", "", "layers", "final_layer_norm", "attention", "attention.dense", "mlp", "mlp.dense_4h_to_h"
    ),  # Pythia
    "gpt2": ModulePaths("wte", "wpe", "h", "ln_f", "attn", "attn.c_proj", "mlp", "mlp.c_proj"),
}
NAMES = ", ".join(PATHS)


class CausalLayout:
    """The parts of a model of `transformers.AutoModelForCausalLM`. Raises `UserError` if its architecture is none of
    `PATHS`."""

    def __init__(self, predictor: CausalPredictor) -> None:
        self.predictor, self.name = predictor, predictor.name
        self.model: Any = predictor.model
        self.body: Any = self.model.base_model
        kind = str(getattr(self.model.config, "model_type", "other"))
        if kind not in PATHS:
            raise UserError(f"{self.name}: the parts of a {kind!r} model are not known here; those of {NAMES} are")
        self.paths = PATHS[kind]
        self.blocks: nn.ModuleList = self.body.get_submodule(self.paths.layers)
        self.norm: nn.Module = self.body.get_submodule(self.paths.norm)
        self.layers, self.heads, self.width = predictor.layers, predictor.heads, predictor.width
        self.positions, self.softcap = bool(self.paths.positions), 0.0  # those of `PATHS` have no soft cap
        self._where = torch.zeros(0, dtype=torch.long)

    # ── where values stand ──

    def watch(self) -> Any:
        return self.body.register_forward_pre_hook(self._called, with_kwargs=True)

    def _called(self, _module: nn.Module, args: tuple[Any, ...], words: dict[str, Any]) -> None:
        ids = args[0] if args else words["input_ids"]
        cache = words.get("cache", words.get("past_key_values"))
        past = 0 if cache is None else int(cache.get_seq_length())
        self._where = torch.arange(past, past + ids.shape[1])

    def where(self) -> Tensor:
        return self._where

    def site(self, part: ModelPart) -> Site:
        check_parts((part,), self.layers, self.heads)
        if part.kind == POSITIONS and not self.positions:
            raise UserError(f"{self.name} has no position embedding: it rotates queries and keys by their position")
        if part.kind in (KEY, ATTENTION_BIAS, FINAL_BIAS, SOFTCAP, REMAINDER):
            raise UserError(f"{part.name} can't be read or changed")
        if part.kind in (TOKENS, POSITIONS):
            if not self.positions:
                return Site(self.blocks[0], before=True)  # with the factor that Gemma applies to its embeddings
            return Site(self.body.get_submodule(self.paths.tokens if part.kind == TOKENS else self.paths.positions))
        if part.layer == self.layers:
            return Site(self.norm, before=True)
        block = self.blocks[part.layer]
        if part.kind == HEAD:
            size = self._size(part.layer)
            return Site(self._out(part.layer), before=True, columns=slice(part.head * size, (part.head + 1) * size))
        if part.kind == RESIDUAL:
            return Site(block, before=True)
        if part.kind == LAYER:
            return Site(block, added=True)
        return Site(block.get_submodule(self.paths.attention if part.kind == ATTENTION else self.paths.mlp))

    def _out(self, layer: int) -> nn.Module:
        return self.blocks[layer].get_submodule(self.paths.out)

    def _size(self, layer: int) -> int:
        """D: a head can be larger or smaller than C ÷ H."""
        return self._matrix(layer).shape[1] // self.heads

    def _matrix(self, layer: int) -> Tensor:
        """The weight of the output projection, (C, H·D)."""
        out = self._out(layer)
        weight: Tensor = out.weight  # type: ignore[assignment]
        return weight if isinstance(out, nn.Linear) else weight.T  # GPT-2's Conv1D is stored transposed

    # ── running ──

    @torch.inference_mode()
    def run(self, ids: Sequence[int]) -> Any:
        if len(ids) > self.predictor.context:
            raise ValueError(f"{len(ids)} tokens in a context of {self.predictor.context}")
        with device.threads(self.predictor.parameters * len(ids)):
            return self.body(input_ids=torch.tensor([list(ids)], device=self.model.device), use_cache=False)

    @contextmanager
    def without(self, tokens: Sequence[int]) -> Iterator[None]:
        hidden = torch.tensor(sorted(set(tokens)), dtype=torch.long)

        def masked(_module: nn.Module, args: tuple[Any, ...], words: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            x = args[0] if args else words["hidden_states"]
            where = self._where
            keys = torch.arange(int(where[-1]) + 1)
            seen = keys[None, :] <= where[:, None]
            cut = torch.isin(keys, hidden)[None, :] & (keys[None, :] != where[:, None])
            mask = words.get("attention_mask")
            if mask is not None:  # of this layer's window
                mask = mask[..., : len(keys)]
                seen = mask.bool().cpu() if mask.dtype == torch.bool else (mask == 0).cpu()
            allowed = (seen & ~cut).expand(1, 1, len(where), len(keys)).to(x.device)
            least = torch.finfo(x.dtype).min
            added = torch.zeros(allowed.shape, dtype=x.dtype, device=x.device).masked_fill(~allowed, least)
            return args, {**words, "attention_mask": added}

        watching = self.watch()
        handles = [
            block.get_submodule(self.paths.attention).register_forward_pre_hook(masked, with_kwargs=True)
            for block in self.blocks
        ]
        try:
            yield
        finally:
            for handle in (watching, *handles):
                handle.remove()

    # ── the way out ──

    def project(self, layer: int, values: Tensor) -> Tensor:
        weight = self._matrix(layer).double().cpu()
        bias: Tensor | None = self._out(layer).bias  # type: ignore[assignment]
        return nn.functional.linear(values.double(), weight, None if bias is None else bias.double().cpu())

    def rows(self, tokens: Sequence[int]) -> Tensor:
        weight: Tensor = self.model.get_output_embeddings().weight
        return weight[list(tokens)].double().cpu()

    def down(self, layer: int) -> nn.Module:
        return self.blocks[layer].get_submodule(self.paths.down)

    def check_head(self) -> None:
        """Raises `UserError` if the model's logits are more than its output head applied to the final norm's output."""
        if self.predictor.kept != self.width:
            raise UserError(
                f"{self.name}: its logits are more than its output head, so a stream before it gives no logits; there "
                "is no logit lens, ranking of parts or patch grid"
            )

    def unembed(self, features: Tensor) -> Tensor:
        head: Any = self.model.get_output_embeddings()
        with device.threads(features.numel() * self.predictor.vocabulary):
            logits: Tensor = head(features.to(head.weight.device, head.weight.dtype))
            return logits.float().cpu()


class DifferentiableCausal:
    """Implements `learn.backward.Differentiable`: the whole model, with what it does to its logits."""

    def __init__(self, predictor: CausalPredictor) -> None:
        self.module: Any = predictor.model
        self.embedding: nn.Module = self.module.get_input_embeddings()
        self.parameters = predictor.parameters

    def logits(self, parameters: dict[str, Tensor], ids: Sequence[int], last: int) -> Tensor:
        words = {"input_ids": torch.tensor([list(ids)], device=self.module.device), "use_cache": False}
        made: Tensor = torch.func.functional_call(self.module, parameters, (), words).logits[0, -last:]
        return made


class CausalReadout:
    """The residual streams of a model, and what its final norm and output head make of them: the logit lens and
    `learn.fit_lens` share it. Raises `UserError` if the logits are not those of its output head."""

    def __init__(self, layout: CausalLayout, vocabulary: int | None = None) -> None:
        layout.check_head()
        self.layout, self.layers, self.width = layout, layout.layers, layout.width
        self.vocabulary = layout.predictor.vocabulary if vocabulary is None else vocabulary
        self._weight: Tensor = next(layout.norm.parameters(), layout.rows([0]).float())

    def streams(self, ids: Sequence[int]) -> Tensor:
        """The residual streams (N + 1, T, C) before the first layer and after each, float32 on the CPU."""
        parts = [ModelPart(RESIDUAL, layer) for layer in range(self.layers + 1)]
        values = record(self.layout, list(ids), parts)
        return torch.stack([values[part] for part in parts])

    def logits(self, stream: Tensor) -> Tensor:
        """Final norm and output head applied to streams (n, C): (n, V), float32 on the CPU."""
        features = self.layout.norm.forward(stream.to(self._weight.device, self._weight.dtype)).float().cpu()
        return self.layout.predictor.logits_of(features, self.vocabulary)


@torch.inference_mode()
def lens(layout: CausalLayout, ids: Sequence[int], at: int, tuned: TunedLens | None = None) -> Tensor:
    """The logit lens for the token after number `at`: the final norm and output head applied to the residual stream
    before the first layer and after each; with `tuned`, the tuned lens. (N + 1, V), float32 on the CPU; the last row is
    the model's own prediction. Raises `UserError` if its logits are not those of its output head."""
    readout = CausalReadout(layout)
    stream = readout.streams(ids[: at + 1])[:, at]  # (N + 1, C)
    if tuned is not None:
        stream = tuned.all_translated(stream)
    return torch.cat((readout.logits(stream[:-1]), readout.logits(stream[-1:])))


@torch.inference_mode()
def attention(layout: CausalLayout, ids: Sequence[int], at: int) -> Tensor:
    """The attention weights of token number `at` in each head of each layer, over the tokens up to itself, in one pass
    with eager attention, the only kind that has them: (N, H, at + 1), float32 on the CPU."""
    rows: list[Tensor] = []

    def keep(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if weights is None:
            raise UserError(f"{layout.name}: this version of transformers does not return its attention weights")
        rows.append(weights[0, :, at].float().cpu())  # (H, at + 1): one layer's at a time

    usual = layout.model.config._attn_implementation
    modules = [block.get_submodule(layout.paths.attention) for block in layout.blocks]
    handles = [module.register_forward_hook(keep) for module in modules]
    try:
        layout.model.set_attn_implementation("eager")
        layout.run(ids[: at + 1])
    finally:
        for handle in handles:
            handle.remove()
        layout.model.set_attn_implementation(usual)
    return torch.stack(rows)
