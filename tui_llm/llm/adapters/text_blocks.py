"""The forward pass of a transformers model over one text, block by block: each block is called with the words (mask,
rotary embeddings, …) that the model itself gave it for this text, so what depends on the architecture stays in its code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tui_llm.facts.interventions import POSITIONS, RESIDUAL, TOKENS, ModelPart
from tui_llm.llm.adapters.parts import CausalLayout
from tui_llm.llm.model import device
from tui_llm.llm.model.interventions import Layout, record

_LOGITS = 1 << 22  # logits computed at a time


class CausalBlocks:
    """Implements `text_blocks.TextBlocks`. `size` is V. Raises `UserError` if the model's logits are more than its output
    head, ValueError if `ids` are none, or too many for the context."""

    def __init__(self, layout: CausalLayout, ids: Sequence[int], size: int) -> None:
        if not ids:
            raise ValueError("an empty text")
        layout.check_head()
        self.causal, self.size, self.ids = layout, size, tuple(ids)
        self.layout: Layout = layout
        self._words: list[dict[str, Any]] = []
        self._rest: list[tuple[Any, ...]] = []
        handles = [block.register_forward_pre_hook(self._called, with_kwargs=True) for block in layout.blocks]
        embeddings = [ModelPart(TOKENS), ModelPart(POSITIONS)] if layout.positions else [ModelPart(RESIDUAL, 0)]
        try:
            values = [value.to(layout.model.device) for value in record(layout, ids, embeddings).values()]
        finally:
            for handle in handles:
                handle.remove()
        weight = next(layout.blocks.parameters())
        self.where = torch.arange(len(ids), device=layout.model.device)
        self.tokens = values[0].to(weight.dtype)[None]
        self.positions = values[1].to(weight.dtype) if layout.positions else None
        self.work = max(1, layout.predictor.parameters // (layout.layers + 1) * len(ids))

    def _called(self, _module: nn.Module, args: tuple[Any, ...], words: dict[str, Any]) -> None:
        self._rest.append(args[1:])
        self._words.append({name: value for name, value in words.items() if name != "hidden_states"})

    def block(self, layer: int, x: Tensor) -> Tensor:
        with device.threads(self.work * len(x)):
            made = self.causal.blocks[layer](x, *self._rest[layer], **self._words[layer])
        out: Tensor = made[0] if isinstance(made, tuple) else made
        return out

    def logits(self, x: Tensor) -> Tensor:
        features, head = self.causal.norm(x), self.causal.predictor.head
        rows = max(1, _LOGITS // self.size)
        return torch.cat([head(part, self.size) for part in features.split(rows)])
