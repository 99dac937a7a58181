"""The layer and kind of each parameter of a model, for the heat map of gradient norms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from torch import Tensor, nn

from tui_llm.instruments.backward.question import (
    BIASES,
    DOWN,
    EMBEDDING,
    FINAL_NORM,
    FINAL_RMS_NORM,
    GATE,
    GATE_UP,
    HEAD,
    KEY,
    NORMS,
    OUTPUT,
    POSITION,
    QKV,
    QUERY,
    RMS_NORMS,
    UP,
    VALUE,
)
from tui_llm.llm.model.layouts import split_rows
from tui_llm.llm.model.shape import GPTConfig

if TYPE_CHECKING:
    from tui_llm.llm.adapters.parts import CausalLayout

Kinds = Callable[[str, Tensor], list[tuple[int, str, Tensor]]]
"""A parameter's name and gradient → layer (-1: of no block), kind and the part of the gradient that is of that kind."""

_MATRICES = {"attention.out.weight": OUTPUT, "mlp.up.weight": UP, "mlp.down.weight": DOWN}
_OTHERS = {"tokens.weight": EMBEDDING, "positions.weight": POSITION, "head.weight": HEAD}
_CAUSAL = {
    "q_proj": QUERY,
    "k_proj": KEY,
    "v_proj": VALUE,
    "qkv_proj": QKV,  # Phi 3
    "query_key_value": QKV,  # GPT-NeoX
    "c_attn": QKV,  # GPT-2
    "gate_proj": GATE,
    "gate_up_proj": GATE_UP,  # Phi 3
    "up_proj": UP,
    "c_fc": UP,
    "dense_h_to_4h": UP,
}


def gpt_kinds(config: GPTConfig) -> Kinds:
    """Those of our own GPT. Q, K and V are one matrix, and three kinds."""
    rows, rms = split_rows(config), config.rmsnorm

    def kinds(name: str, gradient: Tensor) -> list[tuple[int, str, Tensor]]:
        if not name.startswith("blocks."):
            return [(-1, _OTHERS.get(name, FINAL_RMS_NORM if rms else FINAL_NORM), gradient)]
        _, layer, rest = name.split(".", 2)
        if rest == "attention.qkv.weight":
            parts = zip((QUERY, KEY, VALUE), gradient.split(rows), strict=True)
            return [(int(layer), kind, part) for kind, part in parts]
        if rest.startswith("norm"):
            return [(int(layer), RMS_NORMS if rms else NORMS, gradient)]
        return [(int(layer), _MATRICES.get(rest, BIASES), gradient)]

    return kinds


def causal_kinds(layout: CausalLayout) -> Kinds:
    """Those of a model that runs through transformers. A matrix that holds several is one kind, as the model has it."""
    kinds = {id(parameter): place for parameter, place in _causal(layout)}
    names = {name: kinds[id(parameter)] for name, parameter in layout.model.named_parameters()}
    return lambda name, gradient: [(*names[name], gradient)]


def _causal(layout: CausalLayout) -> Iterator[tuple[nn.Parameter, tuple[int, str]]]:
    paths, layer_norm = layout.paths, isinstance(layout.norm, nn.LayerNorm)
    head: nn.Module = layout.model.get_output_embeddings()
    yield from ((one, (-1, HEAD)) for one in head.parameters())
    yield from ((one, (-1, EMBEDDING)) for one in layout.body.get_submodule(paths.tokens).parameters())
    yield from ((one, (-1, FINAL_NORM if layer_norm else FINAL_RMS_NORM)) for one in layout.norm.parameters())
    if layout.positions:
        yield from ((one, (-1, POSITION)) for one in layout.body.get_submodule(paths.positions).parameters())
    matrices = {f"{paths.out}.weight": OUTPUT, f"{paths.down}.weight": DOWN}
    for layer, block in enumerate(layout.blocks):
        for name, one in block.named_parameters():
            module = name.rpartition(".")[0]
            if one.dim() > 1:
                kind = matrices.get(name) or _CAUSAL[module.rpartition(".")[2]]
            elif "norm" in module or module.rpartition(".")[2].startswith("ln_"):
                kind = NORMS if layer_norm else RMS_NORMS
            else:
                kind = BIASES
            yield one, (layer, kind)
