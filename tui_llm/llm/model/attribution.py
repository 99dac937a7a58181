"""Direct logit attribution: a logit as a sum over the parts of the model.

The residual stream after the last block is a sum: embeddings, every head, every MLP, and the biases of the attention
layers. The final norm divides by σ, the standard deviation of that stream (RMSNorm: its root mean square); with σ frozen
it is linear, so a logit is the sum of the parts' projections onto one direction, and a constant (Elhage et al. 2021, "A
Mathematical Framework for Transformer Circuits"). What a soft cap takes from that sum is a part of its own. Letters: C the width, H heads, D the size of a head, n tokens whose
logits are split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tui_llm.common.errors import UserError
from tui_llm.facts.interventions import (
    ATTENTION_BIAS,
    FINAL_BIAS,
    HEAD,
    REMAINDER,
    RESIDUAL,
    SOFTCAP,
    WHOLES,
    Intervention,
    ModelPart,
    all_parts,
    is_part_of,
    lost_in,
    replaced,
)
from tui_llm.llm.model.interventions import Layout, record

EXACT, REDUCED = 1e-3, 3e-2  # of a norm, with fp32 weights and with fewer bits: more is no rounding
_KINDS = ((True, 0), (False, 0), (False, 1))  # is the mean subtracted? added to the weight: LayerNorm, RMSNorm, Gemma's


@dataclass(frozen=True, slots=True)
class Attribution:
    """values[i, t]: what part i adds to logit t; the sum over parts is the logit. scale: σ of the final norm."""

    parts: tuple[ModelPart, ...]
    values: Tensor  # (parts, n), float64
    scale: float


@dataclass(frozen=True, slots=True)
class FrozenNorm:
    """The final norm with its σ frozen: gain × (x − mean(x), if `centred`) ÷ scale + bias."""

    gain: Tensor  # (C,), float64
    bias: Tensor | None
    scale: Tensor
    centred: bool

    def directions(self, rows: Tensor) -> Tensor:
        """The directions onto which a part's value is projected, for rows of the output head: (n, C)."""
        gain = self.gain * rows / self.scale
        return gain - gain.mean(-1, keepdim=True) if self.centred else gain


def frozen(norm: nn.Module, stream: Tensor) -> FrozenNorm:
    """`norm` at its input `stream` (C,), float64. Raises `UserError` if it is neither a LayerNorm nor an RMSNorm. What
    it is is tried, not inferred from its name: Gemma's RMSNorm multiplies by 1 + weight."""
    # The kind is the model's, so it is not tried at the stream: where the stream's mean is near 0, all kinds agree.
    probe = torch.linspace(-1, 3, len(stream), dtype=torch.float64)
    tried = [_applied(norm, probe, *kind) for kind in _KINDS]
    kind, (_, wrong) = min(zip(_KINDS, tried, strict=True), key=lambda one: one[1][1])
    found, here = _applied(norm, stream, *kind)
    if not (wrong <= (rounding := _rounding(norm)) and here <= rounding):  # NaN is no rounding either
        raise UserError("the final norm is neither a LayerNorm nor an RMSNorm, so a logit is not a sum over parts")
    return found


def _applied(norm: nn.Module, stream: Tensor, centred: bool, added: int) -> tuple[FrozenNorm, float]:
    """`norm` at `stream` if it is of this kind, and how far off what it then makes is, relative to what `norm` makes."""
    weight = getattr(norm, "weight", None)
    gain = torch.ones_like(stream) if weight is None else weight.detach().double().cpu()
    bias = getattr(norm, "bias", None)
    bias = None if bias is None else bias.detach().double().cpu()
    eps = float(getattr(norm, "variance_epsilon", getattr(norm, "eps", 0.0)) or 0.0)
    place = stream.float() if weight is None else weight
    wanted = norm.forward(stream.to(place.device, place.dtype)).detach().double().cpu()
    x = stream - stream.mean() if centred else stream
    one = FrozenNorm(gain + added, bias, (x.square().mean() + eps).sqrt(), centred)
    made = one.gain * x / one.scale + (0 if bias is None else bias)
    return one, float((made - wanted).norm() / wanted.norm().clamp_min(torch.finfo(torch.float64).tiny))


def _rounding(norm: nn.Module) -> float:
    exact = all(one.dtype in (torch.float32, torch.float64) for one in norm.parameters())
    return EXACT if exact else REDUCED


@torch.inference_mode()
def attribute(
    layout: Layout,
    ids: Sequence[int],
    at: int,
    tokens: Sequence[int],
    *,
    changes: Sequence[Intervention] = (),
    first: int = 0,
) -> Attribution:
    """Split the logits of `tokens` after token number `at` of `ids` into parts. Hooks on the model's modules apply:
    `changes` are those that are on, and `first` is the number of `ids[0]` in their text. A whole attention, layer or
    residual stream that they set to another value is a part instead of the parts in it; if they set it to zero, these
    add 0. What else they add beside the parts' own values is a part of its own.

    Raises ValueError if `ids` are too many for the context, `UserError` if the model's residual stream is not the sum
    of its parts.
    """
    parts, final = all_parts(layout.layers, layout.heads, layout.positions), ModelPart(RESIDUAL, layout.layers)
    wholes = _wholes(changes, first + at)
    # The tokens after `at` do not change it: attention is causal.
    values = record(layout, list(ids[: at + 1]), [*parts, final, *wholes])
    stream = values[final][at].double()  # (C,)
    norm, rows = frozen(layout.norm, stream), layout.rows(tokens)  # (n, C)
    directions = norm.directions(rows)
    made: dict[ModelPart, Tensor] = {}
    rest = stream.clone()

    def add(part: ModelPart, value: Tensor) -> None:
        whole = next((one for one in wholes if is_part_of(part, one)), None)
        if whole is not None:
            part, value = (whole, values[whole][at].double()) if wholes[whole] else (part, torch.zeros_like(value))
        if part not in made:
            made[part] = directions @ value
            rest.sub_(value)

    for part in parts:
        value = values[part][at].double()
        if part.kind == HEAD:
            if part.head == 0:
                heads = [ModelPart(HEAD, part.layer, head) for head in range(layout.heads)]
                written, bias = _heads(layout, part.layer, torch.stack([values[head][at] for head in heads]))
                if bias.any():
                    add(ModelPart(ATTENTION_BIAS, part.layer), bias)
            value = written[part.head]
        add(part, value)
    if norm.bias is not None:
        made[ModelPart(FINAL_BIAS)] = rows @ norm.bias
    if rest.norm() > _rounding(layout.norm) * stream.norm():
        if not changes:
            raise UserError(
                "the residual stream of this model is not the sum of its heads, MLPs and embeddings (they are scaled or "
                "normalized before they are added), so a logit can't be split"
            )
        made[ModelPart(REMAINDER)] = directions @ rest
    if layout.softcap:
        before = torch.stack([*made.values()]).sum(0)
        made[ModelPart(SOFTCAP)] = layout.softcap * torch.tanh(before / layout.softcap) - before
    return Attribution(tuple(made), torch.stack([*made.values()]), float(norm.scale))


def _wholes(changes: Sequence[Intervention], number: int) -> dict[ModelPart, bool]:
    """The values with parts in them that `changes` replace at token `number`, but those in another one of them; and
    whether by something else than zero."""
    found = {part: other for part, other in replaced(changes, number).items() if part.kind in WHOLES}
    return {part: other for part, other in found.items() if not lost_in(part, found)}


def _heads(layout: Layout, layer: int, values: Tensor) -> tuple[Tensor, Tensor]:
    """What each head writes to the residual stream (H, C), for values (H, D), and the bias of the output projection
    (C,): the projection of each head's values alone, minus that of zeros, so that reduced weights need no other
    treatment."""
    heads, size = values.shape
    alone = torch.zeros(heads + 1, heads, size)
    alone[range(heads), range(heads)] = values
    out = layout.project(layer, alone.flatten(1))
    return out[:-1] - out[-1], out[-1]


@dataclass(frozen=True, slots=True)
class NeuronAttribution:
    """What the neurons of one MLP add to n logits, before a soft cap: values[i, t] by neuron i, `bias` by the output projection's bias.
    activations: the neurons' values before that projection, (F,)."""

    activations: Tensor
    values: Tensor  # (F, n), float64
    bias: Tensor  # (n,)
    written: Tensor  # (F, C): what each neuron adds to the residual stream
    norm: FrozenNorm

    def pushes(self, layout: Layout, neurons: Sequence[int]) -> Tensor:
        """What these neurons add to every logit: (neurons, V), float32."""
        x = self.written[list(neurons)]
        x = x - x.mean(-1, keepdim=True) if self.norm.centred else x
        return layout.unembed((self.norm.gain * x / self.norm.scale).float())


@torch.inference_mode()
def attribute_neurons(
    layout: Layout, ids: Sequence[int], at: int, layer: int, tokens: Sequence[int]
) -> NeuronAttribution:
    """Split what the MLP of `layer` adds to the logits of `tokens` after token number `at` of `ids` into neurons. Raises
    `UserError` as `attribute` does."""
    seen: list[Tensor] = []
    down, final = layout.down(layer), ModelPart(RESIDUAL, layout.layers)
    handle = down.register_forward_pre_hook(lambda _module, args: seen.append(args[0].reshape(-1, args[0].size(-1))))
    try:
        stream = record(layout, list(ids[: at + 1]), [final])[final][at].double()
    finally:
        handle.remove()
    activations = seen[-1][at].float().cpu()  # (F,)
    written, bias = _columns(down, activations)
    norm = frozen(layout.norm, stream)
    directions = norm.directions(layout.rows(tokens))  # (n, C)
    return NeuronAttribution(activations, written @ directions.T, directions @ bias, written, norm)


def _columns(module: nn.Module, values: Tensor) -> tuple[Tensor, Tensor]:
    """What each of `values` (F,) adds to the output of a linear layer (F, C), and the layer's bias (C,): float64."""
    weight = getattr(module, "weight", None)
    if isinstance(weight, nn.Parameter):
        matrix = (weight.T if isinstance(module, nn.Linear) else weight).detach().double().cpu()  # (F, C)
        bias = getattr(module, "bias", None)
        constant = matrix.new_zeros(matrix.size(1)) if bias is None else bias.detach().double().cpu()
        return values.double()[:, None] * matrix, constant
    out = module.forward(torch.cat((torch.diag(values), torch.zeros(1, len(values))))).double().cpu()
    return out[:-1] - out[-1], out[-1]
