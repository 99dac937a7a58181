"""Direct logit attribution: a logit as a sum over the parts of the model.

The residual stream after the last block is a sum: embeddings, every head, every MLP, and the biases of the attention
layers. The final LayerNorm divides by σ, the standard deviation of that stream; with σ frozen it is linear, so a logit
is the sum of the parts' projections onto one direction, and a constant (Elhage et al. 2021, "A Mathematical Framework
for Transformer Circuits"). Letters: C the width, H heads, n tokens whose logits are split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tui_llm.facts.interventions import ATTENTION_BIAS, FINAL_BIAS, HEAD, RESIDUAL, ModelPart, all_parts
from tui_llm.llm.model import device
from tui_llm.llm.model.interventions import GPTLayout, record
from tui_llm.llm.model.model import GPT, Block


@dataclass(frozen=True, slots=True)
class Attribution:
    """values[i, t]: what part i adds to logit t; the sum over parts is the logit. scale: σ of the final LayerNorm."""

    parts: tuple[ModelPart, ...]
    values: Tensor  # (parts, n), float64
    scale: float


@torch.inference_mode()
def attribute(model: GPT, ids: Sequence[int], at: int, tokens: Sequence[int]) -> Attribution:
    """Split the logits of `tokens` after token number `at` of `ids` into parts. Hooks on the model's modules apply.
    Raises ValueError if `ids` are too many for the context."""
    layers, heads = model.config.layers, model.config.heads
    parts, final = all_parts(layers, heads), ModelPart(RESIDUAL, layers)
    with device.threads(model.config.parameters() * (at + 1)):
        # The parts after `at` do not change it: attention is causal.
        values = record(GPTLayout(model), list(ids[: at + 1]), [*parts, final])
    stream = values[final][at].double()  # (C,)
    norm = model.norm
    scale = (stream.var(unbiased=False) + norm.eps).sqrt()
    rows = _rows(model, tokens)  # (n, C)
    gain = norm.weight.double().cpu() * rows / scale
    directions = gain - gain.mean(-1, keepdim=True)  # LayerNorm subtracts the mean of what it gets
    made: list[tuple[ModelPart, Tensor]] = []
    for part in parts:
        value = values[part][at].double()
        if part.kind == HEAD:
            if part.head == 0:
                written, bias = _heads(model, part.layer, torch.cat([values[one][at] for one in _layer(part, heads)]))
                made.append((ModelPart(ATTENTION_BIAS, part.layer), directions @ bias))
            value = written[part.head]
        made.append((part, directions @ value))
    made.append((ModelPart(FINAL_BIAS), rows @ norm.bias.double().cpu()))
    return Attribution(tuple(part for part, _ in made), torch.stack([value for _, value in made]), float(scale))


def _layer(part: ModelPart, heads: int) -> list[ModelPart]:
    return [ModelPart(HEAD, part.layer, head) for head in range(heads)]


def _heads(model: GPT, layer: int, values: Tensor) -> tuple[Tensor, Tensor]:
    """What each head writes to the residual stream (H, C), and the bias of the output projection (C,): the projection
    of each head's values alone, minus that of zeros, so that reduced weights need no other treatment."""
    block = model.blocks[layer]
    assert isinstance(block, Block)
    heads = model.config.heads
    alone = torch.zeros(heads + 1, heads, len(values) // heads)
    alone[range(heads), range(heads)] = values.view(heads, -1)
    # Only hooks on the values before it would apply, and they have been recorded.
    out = block.attention.out.forward(alone.flatten(1).to(model.device)).double().cpu()
    return out[:-1] - out[-1], out[-1]


def _rows(model: GPT, tokens: Sequence[int]) -> Tensor:
    """The rows of the output head (n, C), float64."""
    head = model.head
    rows = head.weight[list(tokens)] if isinstance(head, torch.nn.Linear) else reduced_rows(head, tokens)
    return rows.double().cpu()


def reduced_rows(head: torch.nn.Module, tokens: Sequence[int]) -> Tensor:
    """Rows of a head with weights in fewer bits (`linear_layers.Reduced`), in fp32."""
    from tui_llm.llm.model.linear_layers import Rows

    return Rows(head)(torch.tensor(list(tokens)))  # type: ignore[arg-type]
