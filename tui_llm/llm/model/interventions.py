"""Read and change what the parts of a model compute, with forward hooks.

`record` stores the values of parts in one forward pass; `Hooks` changes them in every pass until it is removed. Both
need a `Layout`, which finds a part's values in a model's modules: `GPTLayout` is for our own GPT, `adapters/parts.py` has
those for other models. Letters as in `model.py`: B rows, T tokens, C the width, H heads, D = C ÷ H.

Ablation: zero, or the mean over one text (Wang et al. 2022, arXiv:2211.00593: over many, at each position). Patching: Meng
et al. 2022 (arXiv:2202.05262). Steering: two prompts' difference at the last token, added to every token (docs/instruments.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tui_llm.common.errors import UserError
from tui_llm.facts.interventions import (
    ATTENTION,
    ATTENTION_BIAS,
    FINAL_BIAS,
    HEAD,
    KEY,
    LAYER,
    MEAN,
    PATCH,
    POSITIONS,
    REMAINDER,
    RESIDUAL,
    SOFTCAP,
    STEER,
    TOKENS,
    Intervention,
    ModelPart,
    check_parts,
)
from tui_llm.llm.model import device
from tui_llm.llm.model.kv_cache import KVCache, attention_mask
from tui_llm.llm.model.model import GPT, Attention, Block, Rotation


@dataclass(frozen=True, slots=True)
class Site:
    """Where a part's value stands: the first input (`before`) or the first output of a module, or columns of it. With
    `added`, the value is what the module adds to its first input: output − input."""

    module: nn.Module
    before: bool = False
    columns: slice | None = None
    added: bool = False


class Layout(Protocol):
    """Finds the parts of a model."""

    layers: int
    heads: int
    width: int
    positions: bool  # whether positions are embedded
    softcap: float  # logits are soft-capped at it; 0: they are the output head's
    norm: nn.Module  # before the output head

    def site(self, part: ModelPart) -> Site:
        """Where a part's value stands. Raises `UserError` if the model has no such part."""
        ...

    def run(self, ids: Sequence[int]) -> Any:
        """Run a text from its first token, without a cache."""
        ...

    def watch(self) -> Any:
        """Makes `where` known in each forward pass, until `remove` of what it returns."""
        ...

    def where(self) -> Tensor:
        """The numbers of the tokens of the forward pass under way, (T,) or (1, T)."""
        ...

    @contextmanager
    def without(self, tokens: Sequence[int]) -> Iterator[None]:
        """In this context, no token but itself attends to those of these numbers."""
        yield

    def project(self, layer: int, values: Tensor) -> Tensor:
        """The output projection of a layer's attention applied to its heads' values (n, H·D): (n, C), float64."""
        ...

    def rows(self, tokens: Sequence[int]) -> Tensor:
        """The output head's rows for these tokens: (n, C), float64."""
        ...

    def down(self, layer: int) -> nn.Module:
        """The output projection of a layer's MLP; its input are the neurons' activations."""
        ...

    def unembed(self, features: Tensor) -> Tensor:
        """The output head applied to features (n, C): logits (n, V), float32 on the CPU."""
        ...


class GPTLayout:
    """The parts of our own GPT."""

    def __init__(self, model: GPT) -> None:
        self.model = model
        self.norm: nn.Module = model.norm
        self.layers, self.heads, self.width = model.config.layers, model.config.heads, model.config.width
        self.positions, self.softcap = not model.config.rope, model.config.softcap
        self._where = torch.zeros(0, dtype=torch.long)

    def watch(self) -> Any:
        # Every forward pass looks up its positions, or their rotation.
        return self.model.positions.register_forward_pre_hook(self._looked_up)

    def _looked_up(self, _module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._where = args[0]

    def where(self) -> Tensor:
        return self._where

    def site(self, part: ModelPart) -> Site:
        check_parts((part,), self.layers, self.heads)
        model = self.model
        if part.kind == POSITIONS and not self.positions:
            raise UserError("this model has no position embedding: it rotates queries and keys by their position")
        if part.kind == TOKENS and not self.positions:
            return Site(model.blocks[0], before=True)
        if part.kind in (TOKENS, POSITIONS):
            return Site(model.tokens if part.kind == TOKENS else model.positions)
        if part.kind in (KEY, ATTENTION_BIAS, FINAL_BIAS, SOFTCAP, REMAINDER):
            raise UserError(f"{part.name} can't be read or changed")
        if part.layer == self.layers:
            return Site(model.norm, before=True)
        block = model.blocks[part.layer]
        assert isinstance(block, Block)
        if part.kind == HEAD:
            size = self.width // self.heads
            return Site(block.attention.out, before=True, columns=slice(part.head * size, (part.head + 1) * size))
        if part.kind == RESIDUAL:
            return Site(block, before=True)
        if part.kind == LAYER:
            return Site(block, added=True)
        return Site(block.attention if part.kind == ATTENTION else block.mlp)

    @torch.inference_mode()
    def run(self, ids: Sequence[int]) -> Tensor:
        """The features (1, T, C). Raises ValueError if `ids` are too many for the context."""
        with device.threads(self.model.config.parameters() * len(ids)):
            return self.model.features(torch.tensor([list(ids)], device=self.model.device))

    def project(self, layer: int, values: Tensor) -> Tensor:
        block = self.model.blocks[layer]
        assert isinstance(block, Block)
        # `forward`, because hooks on the projection change the values before it; weights in fewer bits need no care.
        return block.attention.out.forward(values.to(self.model.device)).double().cpu()

    def rows(self, tokens: Sequence[int]) -> Tensor:
        head = self.model.head
        if isinstance(head, nn.Linear):
            return head.weight[list(tokens)].double().cpu()
        from tui_llm.llm.model.linear_layers import Rows  # weights in fewer bits

        return Rows(head)(torch.tensor(list(tokens))).double().cpu()

    def down(self, layer: int) -> nn.Module:
        block = self.model.blocks[layer]
        assert isinstance(block, Block)
        return block.mlp.down

    def unembed(self, features: Tensor) -> Tensor:
        with device.threads(features.numel() * self.model.config.vocabulary):
            return self.model.head(features.float().to(self.model.device)).float().cpu()

    @contextmanager
    def without(self, tokens: Sequence[int]) -> Iterator[None]:
        layers = [block.attention for block in self.model.blocks]
        for attention in layers:
            assert isinstance(attention, Attention)
            attention.forward = _Masked(attention, tokens)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for attention in layers:
                del attention.forward  # type: ignore[union-attr]


class _Masked:
    """`Attention.forward`, without attention to some tokens."""

    def __init__(self, attention: Attention, tokens: Sequence[int]) -> None:
        self.attention, self.cut = attention, tuple(sorted(set(tokens)))
        self.tokens = torch.tensor(self.cut, dtype=torch.long)  # there may be none in the window

    def __call__(self, x: Tensor, cache: KVCache | None = None, rotation: Rotation | None = None) -> Tensor:
        attention, T = self.attention, x.size(1)
        q, k, v = attention.split(attention.qkv(x), rotation)
        plain = attention_mask(T, 0, attention.window, x.device) if cache is None else cache.mask(T, attention.window)
        if cache is not None:
            k, v = cache.update(attention.layer, k, v)
        past = k.size(2) - T
        mask = x.new_ones(T, past + T, dtype=torch.bool).tril(past) if plain is None else plain.clone()
        tokens = self.tokens[self.tokens < past + T].to(x.device)
        own = torch.arange(past, past + T, device=x.device)[:, None] == tokens  # a token attends to itself
        mask[..., tokens] &= own
        y = F.scaled_dot_product_attention(q, attention.shared(k), attention.shared(v), attn_mask=mask)
        out: Tensor = attention.out(y.transpose(1, 2).reshape(x.shape))
        return out


# ── reading ──


@dataclass
class _Recorder:
    site: Site
    rows: list[Tensor] = field(default_factory=list)

    def before(self, _module: nn.Module, args: tuple[Any, ...]) -> None:
        self.keep(args[0])

    def after(self, _module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        value = output[0] if isinstance(output, tuple) else output
        self.keep(value - args[0] if self.site.added else value)

    def keep(self, value: Tensor) -> None:
        value = value if self.site.columns is None else value[..., self.site.columns]
        self.rows.append(value.reshape(-1, value.size(-1)).float().cpu())


def record(layout: Layout, ids: Sequence[int], parts: Sequence[ModelPart]) -> dict[ModelPart, Tensor]:
    """The values of `parts` in one forward pass over `ids`, each (T, C), of a head (T, D): float32 on the CPU. Raises
    `UserError` if there are no ids, or the model has no such part."""
    if not ids:
        raise UserError("there is no text to take the values from: a mean, patch or direction needs a reference")
    recorders = {part: _Recorder(layout.site(part)) for part in parts}
    handles = [
        one.site.module.register_forward_pre_hook(one.before)
        if one.site.before
        else one.site.module.register_forward_hook(one.after)
        for one in recorders.values()
    ]
    try:
        with torch.inference_mode():
            layout.run(ids)
    finally:
        for handle in handles:
            handle.remove()
    return {part: recorder.rows[-1] for part, recorder in recorders.items()}


# ── changing ──

Change = Callable[[Tensor, Tensor], Tensor]
"""(value (B, T, C), token numbers (T,)) → the value to use instead."""


class Hooks:
    """Applies interventions to every forward pass of a model, from `__init__` to `remove`.

    `direction(file)` reads a steering vector (C,). Raises `UserError` if the model has no such part, or a direction is
    of another width.
    """

    def __init__(
        self,
        layout: Layout,
        interventions: Sequence[Intervention],
        direction: Callable[[str], Tensor] | None = None,
    ) -> None:
        self.layout = layout
        self.first = 0
        self._handles: list[Any] = []
        self._masked: Any = None
        self._changes = [
            (layout.site(one.part), change_of(layout, one, direction)) for one in interventions if one.part.kind != KEY
        ]  # all of them first: they record with the model as it is
        self._keys = [one.part.layer for one in interventions if one.part.kind == KEY]
        self.numbered = any(one.numbered for one in interventions)
        self.attach()

    def attach(self) -> None:
        """Apply them again, after `remove`."""
        self._handles.append(self.layout.watch())
        for site, change in self._changes:
            self._handles.append(self._hook(site, change))
        self._mask()

    def _mask(self) -> None:
        if self._masked is not None:
            masked, self._masked = self._masked, None
            masked.__exit__(None, None, None)
        if self._keys:
            self._masked = self.layout.without([key - self.first for key in self._keys if key >= self.first])
            self._masked.__enter__()

    def starts_at(self, first: int) -> bool:
        """Says that the model sees a text from its token number `first` on. Returns whether that changes what was
        computed before."""
        moved, self.first = first != self.first and self.numbered, first
        if moved:
            self._mask()
        return moved

    def _hook(self, site: Site, change: Change) -> Any:
        layout = self.layout

        def changed(value: Tensor) -> Tensor:
            where = layout.where().reshape(-1).to(value.device) + self.first
            if site.columns is None:
                return _same_shape(change(value, where), value)
            value = value.clone()
            value[..., site.columns] = change(value[..., site.columns], where)
            return value

        def before(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (changed(args[0]), *args[1:])

        def after(_module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            value = output[0] if isinstance(output, tuple) else output
            made = args[0] + changed(value - args[0]) if site.added else changed(value)
            return (made, *output[1:]) if isinstance(output, tuple) else made

        if site.before:
            return site.module.register_forward_pre_hook(before)
        return site.module.register_forward_hook(after)

    def remove(self) -> None:
        """The model computes as before."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if self._masked is not None:
            masked, self._masked = self._masked, None
            masked.__exit__(None, None, None)


def _same_shape(made: Tensor, value: Tensor) -> Tensor:
    return made.expand_as(value).to(value.dtype)


def change_of(
    layout: Layout,
    one: Intervention,
    direction: Callable[[str], Tensor] | None = None,
    known: dict[ModelPart, Tensor] | None = None,
) -> Change:
    """What an intervention makes of its part's value. `known`: the parts' values after `reference`, if they have been
    recorded."""
    if one.how == MEAN:
        mean = (known or record(layout, one.reference, [one.part]))[one.part].mean(0)
        return _at(one, lambda value, where: mean.to(value).expand_as(value))
    if one.how == PATCH:
        rows = (known or record(layout, one.reference, [one.part]))[one.part]
        return _at(one, lambda value, where: _patched(value, where + one.shift, rows))
    if one.how == STEER:
        vector = one.coefficient * _direction(layout, one, direction)
        return _at(one, lambda value, where: value + vector.to(value))
    return _at(one, lambda value, where: torch.zeros_like(value))


def _patched(value: Tensor, wanted: Tensor, rows: Tensor) -> Tensor:
    there = (wanted >= 0) & (wanted < len(rows))  # (T,)
    return torch.where(there[:, None], rows.to(value)[wanted.clamp(0, len(rows) - 1)], value)


def _at(one: Intervention, change: Change) -> Change:
    if (at := one.at) is None:
        return change
    return lambda value, where: torch.where(where.eq(at)[:, None], change(value, where), value)


def _direction(layout: Layout, one: Intervention, read: Callable[[str], Tensor] | None) -> Tensor:
    if not one.file:
        return steering_direction(layout, one.part, one.reference, one.against)
    if read is None:
        raise UserError(f"{one.file} can't be read here")
    vector = read(one.file)
    if (shape := tuple(vector.shape)) != (layout.width,):
        raise UserError(f"{one.file} holds a direction of shape {shape}; this model's width is {layout.width}")
    return vector


def steering_direction(layout: Layout, part: ModelPart, wanted: Sequence[int], against: Sequence[int]) -> Tensor:
    """The value of `part` after `wanted` minus that after `against`, both at their last token: (C,), float32."""
    return record(layout, wanted, [part])[part][-1] - record(layout, against, [part])[part][-1]
