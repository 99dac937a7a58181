"""The forward pass over one text, block by block, so that changed texts run from the first changed block on.

`TextBlocks` is the interface; `GPTBlocks` is for our own GPT, `adapters/text_blocks.py` has that for other models.
Letters as in `model.py`: B rows, T tokens, C the width, V the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from tui_llm.llm.model import device
from tui_llm.llm.model.interventions import GPTLayout, Layout
from tui_llm.llm.model.model import GPT

_LOGITS = 1 << 22  # logits computed at a time


class TextBlocks(Protocol):
    """One text, and the blocks of a model that has no hooks."""

    layout: Layout
    ids: tuple[int, ...]
    where: Tensor  # (T,): the tokens' numbers
    tokens: Tensor  # (1, T, C): the token embeddings
    positions: Tensor | None  # (T, C): the position embeddings; None if the model has none
    work: int  # multiply-adds of one row in one block, about

    def block(self, layer: int, x: Tensor) -> Tensor:
        """A block for the whole text, (B, T, C) → (B, T, C)."""
        ...

    def logits(self, x: Tensor) -> Tensor:
        """The final norm and output head applied to the stream after the last block, (n, C) → (n, V): float32 on the
        CPU, without padding ids."""
        ...


class GPTBlocks:
    """`size` ids are tokens; the further rows of the embedding are padding (None: there are none). Raises ValueError if `ids`
    are none, or too many for the context."""

    @torch.inference_mode()
    def __init__(self, model: GPT, ids: Sequence[int], size: int | None = None) -> None:
        T, config = len(ids), model.config
        if not 1 <= T <= config.context:
            raise ValueError(f"{T} tokens in a context of {config.context}")
        self.model, self.ids, self._size = model, tuple(ids), model.used if size is None else size
        self.layout: Layout = GPTLayout(model)
        self.where = torch.arange(T, device=model.device)
        given = torch.tensor([list(ids)], device=model.device)
        self.positions: Tensor | None = None
        if self.layout.positions:
            self.tokens, self.positions, self._rotation = model.tokens(given), model.positions(self.where), None
        else:
            self.tokens, self._rotation = model.embed(given, self.where)
        self.work = max(1, config.parameters() // (config.layers + 1) * T)

    def block(self, layer: int, x: Tensor) -> Tensor:
        with device.threads(self.work * len(x)):
            made: Tensor = self.model.blocks[layer](x, rotation=self._rotation)
        return made

    def logits(self, x: Tensor) -> Tensor:
        model = self.model
        x = model.norm(x)
        with device.threads(x.numel() * self._size):
            rows = max(1, _LOGITS // self._size)
            return torch.cat([model.logits(part)[..., : self._size].float().cpu() for part in x.split(rows)])
