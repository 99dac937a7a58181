"""The effect of each part of a model alone: the logits when one part is changed, for several parts in one batch.

A part of block `l` changes nothing before that block. So row i of a batch starts from the unchanged residual stream
before the block, and only its own part is changed in it. Letters as in `model.py`: B rows, T tokens, C the width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tui_llm.common.errors import Overtaken
from tui_llm.facts.interventions import RESIDUAL, TOKENS, Intervention, ModelPart
from tui_llm.llm.model.interventions import Change, Site, change_of, record
from tui_llm.llm.model.text_blocks import TextBlocks

_AT_ONCE = 3_000_000_000  # multiply-adds of a block between two looks at `overtaken`: below 0.1 s on two cores


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
    def __init__(self, blocks: TextBlocks, count: int = 1, overtaken: Callable[[], bool] = bool) -> None:
        """Raises `Overtaken` between two blocks, ValueError if the text has fewer than `count` tokens."""
        if count > len(blocks.ids):
            raise ValueError(f"{count} positions of {len(blocks.ids)} tokens")
        self.blocks, self.ids, self.count = blocks, blocks.ids, count
        self.layout, self.where = blocks.layout, blocks.where
        self.before: list[Tensor] = []  # (1, T, C) each: the residual stream before each block, and after the last
        x = self._sum(blocks.tokens, blocks.positions)
        for layer in range(self.layout.layers):
            self.before.append(x)
            x = self._block(layer, x, overtaken)
        self.before.append(x)
        self.unchanged = self._logits(x)[0]  # (count, V), float32 on the CPU
        self._values: tuple[tuple[int, ...], dict[ModelPart, Tensor]] = ((), {})

    @staticmethod
    def _sum(tokens: Tensor, positions: Tensor | None) -> Tensor:
        return tokens if positions is None else tokens + positions

    def _block(self, layer: int, x: Tensor, overtaken: Callable[[], bool]) -> Tensor:
        if overtaken():
            raise Overtaken
        return self.blocks.block(layer, x)

    def _logits(self, x: Tensor) -> Tensor:
        """(B, T, C) → (B, count, V), float32 on the CPU, without padding ids."""
        return self.blocks.logits(x[:, -self.count :].flatten(0, 1)).view(len(x), self.count, -1)

    @torch.inference_mode()
    def logits(self, changes: Sequence[Intervention], overtaken: Callable[[], bool] = bool) -> Tensor:
        """The logits (changes, count, V) with each of `changes` alone. Those of one call share `reference`. Raises
        `UserError` if the model has no such part, and `Overtaken`."""
        known = self._known(changes)
        groups: dict[int, list[int]] = {}
        for at, one in enumerate(changes):
            self.layout.site(one.part)  # raises if the model has none
            groups.setdefault(one.part.layer, []).append(at)
        most = max(1, _AT_ONCE // self.blocks.work)
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

    def record(self, reference: Sequence[int], parts: Sequence[ModelPart]) -> None:
        """Record the values of all `parts` after a text in one pass, before `logits` asks for some of them."""
        self._values = tuple(reference), record(self.layout, reference, parts)

    def _batch(
        self, start: int, changes: Sequence[Intervention], known: dict[ModelPart, Tensor], overtaken: Callable[[], bool]
    ) -> Tensor:
        made = [change_of(self.layout, one, known=known if one.reference else None) for one in changes]
        handles: list[Any] = []
        if start < 0:
            x = torch.cat([self._embedded(one, change) for one, change in zip(changes, made, strict=True)])
        else:
            x = self.before[start].expand(len(changes), -1, -1).clone()
            streams = [one.part.kind == RESIDUAL for one in changes]
            for row, change in enumerate(made):
                if streams[row]:
                    x[row : row + 1] = change(x[row : row + 1], self.where).expand(1, -1, -1)
            handles = self._hook([(row, one.part, made[row]) for row, one in enumerate(changes) if not streams[row]])
        try:
            for layer in range(max(0, start), self.layout.layers):
                x = self._block(layer, x, overtaken)
                while handles:  # the parts of the first block alone are changed
                    handles.pop().remove()
        finally:
            for handle in handles:
                handle.remove()
        return self._logits(x)

    def _embedded(self, one: Intervention, change: Change) -> Tensor:
        tokens, positions = self.blocks.tokens, self.blocks.positions
        if one.part.kind == TOKENS:
            tokens = change(tokens, self.where).expand_as(tokens)
        elif positions is not None:
            positions = change(positions, self.where).expand_as(positions)
        return self._sum(tokens, positions)

    def _hook(self, changes: Sequence[tuple[int, ModelPart, Change]]) -> list[Any]:
        places: dict[tuple[nn.Module, bool, bool], _Rows] = {}
        for row, part, change in changes:
            site = self.layout.site(part)
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

        def after(_module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            value = output[0] if isinstance(output, tuple) else output
            made = args[0] + changed(value - args[0]) if rows.site.added else changed(value)
            return (made, *output[1:]) if isinstance(output, tuple) else made

        module = rows.site.module
        return module.register_forward_pre_hook(before) if rows.site.before else module.register_forward_hook(after)
