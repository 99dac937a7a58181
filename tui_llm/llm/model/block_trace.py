"""What happens to one token in one block: LayerNorms, queries and keys, values, heads, neurons, and what they write.

The block's own modules run on the residual stream that `inside.trace` recorded, so hooks on them apply. Letters as in
`model.py`; M is the number of neurons of the MLP (its hidden width).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tui_llm.facts.interventions import ATTENTION, HEAD, MLP, Intervention, ModelPart, lost_in, replaced
from tui_llm.llm.model import device, inside
from tui_llm.llm.model.attribution import frozen
from tui_llm.llm.model.model import GPT, Block


@dataclass(frozen=True, slots=True)
class BlockTrace:
    """The values of token number `at` in one block, float32 on the CPU.

    stream, middle, end: the residual stream (C,) before the block, after attention, and after the block.
    scores, weights: of each head for the tokens up to `at`, (H, at + 1): q · k ÷ √D, −inf where the token is masked, and
        its softmax.
    values: ‖v‖ of these tokens, (H, at + 1). Queries and keys as they are multiplied: rotated and normalized, if so.
    heads: what each head adds to the residual stream, (H, C); their sum and the bias are `attention` (C,).
    hidden, activations: the neurons before and after GELU, (M,). mlp: what the MLP adds, (C,).

    What a change of the whole attention or layer replaces adds 0; `middle` is what the second LayerNorm gets all the same.
    """

    stream: Tensor
    middle: Tensor
    end: Tensor
    queries: Tensor  # (H, D)
    scores: Tensor
    weights: Tensor
    values: Tensor
    heads: Tensor
    attention: Tensor
    hidden: Tensor
    activations: Tensor
    mlp: Tensor


@torch.inference_mode()
def block_trace(
    model: GPT,
    traced: inside.Trace,
    layer: int,
    at: int,
    changes: Sequence[Intervention] = (),
    first: int = 0,
) -> BlockTrace:
    """The values of token number `at` of the trace in block `layer` (from 0). `changes` are the interventions that are
    on, and `first` is the number of the trace's first token in their text."""
    block = model.blocks[layer]
    assert isinstance(block, Block)
    attention, mlp = block.attention, block.mlp
    x = traced.residuals[layer, : at + 1][None]  # (1, T, C): later tokens do not change it
    # Tells hooks which tokens these are, too.
    _, rotation = model.embed(
        torch.tensor([traced.ids[: at + 1]], device=x.device), torch.arange(at + 1, device=x.device)
    )
    with (
        device.threads(x.numel() * x.size(-1) * 12),
        _recorded((attention.out, block.norm2, mlp.down), (attention.qkv, attention, mlp.up, mlp)) as (given, made),
    ):
        block.forward(
            x, rotation=rotation
        )  # not `block(x)`: the hooks on the block itself have changed the stream before and after it
    q, k, v = (part.float() for part in attention.split(made[attention.qkv][0], rotation))
    k, v = attention.shared(k), attention.shared(v)  # (H, T, D)
    scores = (k @ q[:, at, :, None])[..., 0] / math.sqrt(k.size(-1))  # (H, T)
    scores[:, traced.hidden(at)] = -math.inf

    changed = [part for part in replaced(changes, first + at) if part.layer == layer]

    def here(value: Tensor) -> Tensor:
        return value[0, at].float().cpu()

    def added(kind: str, value: Tensor) -> Tensor:
        return torch.zeros_like(value) if lost_in(ModelPart(kind, layer), changed) else value

    return BlockTrace(
        here(x),
        here(given[block.norm2]),
        traced.residuals[layer + 1, at].float().cpu(),
        q[:, at].cpu(),
        scores.cpu(),
        scores.softmax(-1).cpu(),
        v.norm(dim=-1).cpu(),
        added(HEAD, _written(block, given[attention.out][0, at])),
        added(ATTENTION, here(made[attention])),
        here(made[mlp.up]),
        here(given[mlp.down]),
        added(MLP, here(made[mlp])),
    )


@contextmanager
def _recorded(
    given: Sequence[nn.Module], made: Sequence[nn.Module]
) -> Iterator[tuple[dict[nn.Module, Tensor], dict[nn.Module, Tensor]]]:
    """The inputs of the modules `given` and the outputs of `made` in the forward pass of this context, as hooks that are
    there already have changed them: the last hook registered runs last."""
    inputs: dict[nn.Module, Tensor] = {}
    outputs: dict[nn.Module, Tensor] = {}

    def keep_input(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        inputs[module] = args[0]

    def keep_output(module: nn.Module, _args: object, output: Tensor) -> None:
        outputs[module] = output

    handles = [module.register_forward_pre_hook(keep_input) for module in given]
    handles += [module.register_forward_hook(keep_output) for module in made]
    try:
        yield inputs, outputs
    finally:
        for handle in handles:
            handle.remove()


def _written(block: Block, values: Tensor) -> Tensor:
    """What each head adds to the residual stream, (H, C), for the values of all heads (C,): the output projection of each
    head's values alone, minus that of zeros, so that weights in fewer bits need no other treatment."""
    heads = block.attention.heads
    alone = values.new_zeros(heads + 1, heads, len(values) // heads)
    alone[range(heads), range(heads)] = values.view(heads, -1)
    out: Tensor = block.attention.out.forward(alone.flatten(1)).float().cpu()
    return out[:-1] - out[-1]


@torch.inference_mode()
def neuron_norms(model: GPT, layer: int) -> Tensor:
    """The norm of each neuron's output weights, (M,): what it adds to the stream at an activation of 1."""
    block = model.blocks[layer]
    assert isinstance(block, Block)
    down = block.mlp.down
    if isinstance(down, nn.Linear):
        return down.weight.float().norm(dim=0).cpu()
    return neuron_outputs(model, layer, torch.ones(model.config.hidden), range(model.config.hidden)).norm(dim=1)


@torch.inference_mode()
def neuron_outputs(model: GPT, layer: int, activations: Tensor, neurons: Sequence[int]) -> Tensor:
    """What each of `neurons` adds to the residual stream at these activations (M,): (n, C). From the layer's own product
    for each neuron alone, minus that of zeros, so that weights in fewer bits need no other treatment."""
    block = model.blocks[layer]
    assert isinstance(block, Block)
    alone = torch.zeros(len(neurons) + 1, len(activations))
    alone[range(len(neurons)), list(neurons)] = activations[list(neurons)]
    with device.threads(alone.numel() * model.config.width):
        out: Tensor = block.mlp.down.forward(alone.to(model.device)).float().cpu()
    return out[:-1] - out[-1]


@torch.inference_mode()
def pushed(model: GPT, final: Tensor, vectors: Tensor) -> Tensor:
    """What vectors (n, C), added to the residual stream, add to each logit before a soft cap: (n, V). They pass the final LayerNorm with
    its σ frozen at that of `final` (C,), the stream after the last block, then the output head; see `attribution.py`."""
    norm = frozen(model.norm, final.double())
    vectors = vectors - vectors.mean(-1, keepdim=True) if norm.centred else vectors
    scaled = (norm.gain * vectors / norm.scale).float()
    with device.threads(vectors.numel() * model.config.vocabulary):
        logits: Tensor = model.head.forward(scaled.to(model.device)).float().cpu()
        return logits
