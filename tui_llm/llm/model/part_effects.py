"""The effect of each part of a GPT alone: the logits when one part is changed, for several parts in one batch.

A part of block `l` changes nothing before that block. So row i of a batch starts from the unchanged residual stream
before the block, and only its own part is changed in it. Letters as in `model.py`: B rows, T tokens, C the width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tui_llm.common.errors import Overtaken, UserError
from tui_llm.facts.interventions import KEY, POSITIONS, RESIDUAL, TOKENS, Intervention, ModelPart, check_parts
from tui_llm.llm.model import device
from tui_llm.llm.model.interventions import Change, GPTLayout, Site, change_of, record
from tui_llm.llm.model.model import GPT

_AT_ONCE = 3_000_000_000  # multiply-adds of a block between two looks at `overtaken`: below 0.1 s on two cores
_LOGITS = 1 << 22  # logits computed at a time


@dataclass
class _Rows:
    """The changes at one place of the model: (row, columns, change)."""

    site: Site
    changes: list[tuple[int, slice | None, Change]] = field(default_factory=list)


class PartEffects:
    """The unchanged forward pass of a text, from which each changed one starts.

    `count`: the logits of so many last positions are wanted. The model must have no hooks.
    """

    @torch.inference_mode()
    def __init__(self, model: GPT, ids: Sequence[int], count: int = 1, overtaken: Callable[[], bool] = bool) -> None:
        """Raises `Overtaken` between two blocks, ValueError if `ids` are too many for the context."""
        T, config = len(ids), model.config
        if not count <= T <= config.context:
            raise ValueError(f"{T} tokens in a context of {config.context}")
        self.model, self.ids, self.count = model, tuple(ids), count
        self.layout = GPTLayout(model)
        self.where = torch.arange(T, device=model.device)
        self.tokens = model.tokens(torch.tensor([list(ids)], device=model.device))  # (1, T, C)
        self.positions = model.positions(self.where)  # (T, C)
        self._work = max(1, config.parameters() // (config.layers + 1) * T)  # of one row, in multiply-adds, about
        self.before: list[Tensor] = []  # (1, T, C) each: the residual stream before each block
        x = self.tokens + self.positions
        for block in model.blocks:
            self.before.append(x)
            x = self._block(block, x, overtaken)
        self.unchanged = self._logits(x)[0]  # (count, V), float32 on the CPU
        self._values: tuple[tuple[int, ...], dict[ModelPart, Tensor]] = ((), {})

    def _block(self, block: nn.Module, x: Tensor, overtaken: Callable[[], bool]) -> Tensor:
        if overtaken():
            raise Overtaken
        with device.threads(self._work * len(x)):
            made: Tensor = block(x)
        return made

    def _logits(self, x: Tensor) -> Tensor:
        """(B, T, C) → (B, count, V), float32 on the CPU, without padding ids."""
        model = self.model
        x = model.norm(x[:, -self.count :])
        with device.threads(x.numel() * model.used):
            rows = max(1, _LOGITS // model.used)
            parts = [model.head(part)[..., : model.used].float().cpu() for part in x.flatten(0, 1).split(rows)]
        return torch.cat(parts).view(len(x), self.count, -1)

    @torch.inference_mode()
    def logits(self, changes: Sequence[Intervention], overtaken: Callable[[], bool] = bool) -> Tensor:
        """The logits (changes, count, V) with each of `changes` alone. Those of one call share `reference`. Raises
        `UserError` if the model has no such part, and `Overtaken`."""
        known = self._known(changes)
        groups: dict[int, list[int]] = {}
        check_parts((one.part for one in changes), self.layout.layers, self.layout.heads)
        for at, one in enumerate(changes):
            if one.part.kind in (KEY, RESIDUAL):
                raise UserError(f"{one.part.name} has no place in a ranking of parts")
            groups.setdefault(one.part.layer, []).append(at)
        most = max(1, _AT_ONCE // self._work)
        made: list[Tensor | None] = [None] * len(changes)
        for start, members in groups.items():
            for first in range(0, len(members), most):
                chunk = members[first : first + most]
                found = self._batch(start, [changes[at] for at in chunk], known, overtaken)
                for at, logits in zip(chunk, found, strict=True):
                    made[at] = logits
        return torch.stack([one for one in made if one is not None]) if made else self.unchanged.new_empty(0)

    def _known(self, changes: Sequence[Intervention]) -> dict[ModelPart, Tensor]:
        reference = next((one.reference for one in changes if one.reference), ())
        parts = [one.part for one in changes if one.reference]
        if self._values[0] != reference:
            self._values = reference, {}
        known = self._values[1]
        if missing := [part for part in parts if part not in known]:
            known |= record(self.layout, reference, missing)
        return known

    def _batch(
        self, start: int, changes: Sequence[Intervention], known: dict[ModelPart, Tensor], overtaken: Callable[[], bool]
    ) -> Tensor:
        made = [change_of(self.layout, one, known=known if one.reference else None) for one in changes]
        handles: list[Any] = []
        if start < 0:
            x = torch.cat([self._embedded(one, change) for one, change in zip(changes, made, strict=True)])
        else:
            x = self.before[start].expand(len(changes), -1, -1)
            handles = self._hook(changes, made)
        try:
            for at, block in enumerate(self.model.blocks[max(0, start) :]):
                x = self._block(block, x, overtaken)
                if at == 0:  # the parts of this block alone are changed
                    while handles:
                        handles.pop().remove()
        finally:
            for handle in handles:
                handle.remove()
        return self._logits(x)

    def _embedded(self, one: Intervention, change: Change) -> Tensor:
        tokens, positions = self.tokens, self.positions
        if one.part.kind == TOKENS:
            tokens = change(tokens, self.where).expand_as(tokens)
        elif one.part.kind == POSITIONS:
            positions = change(positions, self.where).expand_as(positions)
        return tokens + positions

    def _hook(self, changes: Sequence[Intervention], made: Sequence[Change]) -> list[Any]:
        places: dict[tuple[nn.Module, bool, bool], _Rows] = {}
        for row, (one, change) in enumerate(zip(changes, made, strict=True)):
            site = self.layout.site(one.part)
            rows = places.setdefault((site.module, site.before, site.added), _Rows(site))
            rows.changes.append((row, site.columns, change))
        return [self._hook_rows(rows) for rows in places.values()]

    def _hook_rows(self, rows: _Rows) -> Any:
        def changed(value: Tensor) -> Tensor:
            value = value.clone()
            for row, columns, change in rows.changes:
                part = value[row : row + 1] if columns is None else value[row : row + 1, :, columns]
                part.copy_(change(part, self.where).expand_as(part))
            return value

        def before(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (changed(args[0]), *args[1:])

        def after(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            return args[0] + changed(output - args[0]) if rows.site.added else changed(output)

        module = rows.site.module
        return module.register_forward_pre_hook(before) if rows.site.before else module.register_forward_hook(after)
