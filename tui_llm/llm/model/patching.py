"""Activation patching: what a logit difference becomes when one part's value at one token is that of another prompt.

Meng et al. 2022, "Locating and Editing Factual Associations in GPT" (arXiv:2202.05262); Heimersheim and Nanda 2024,
"How to use and interpret activation patching" (arXiv:2404.15255). Two texts: `clean`, whose values are taken, and
`changed`, in which they are put. They are aligned at their ends, as the prediction comes after the last token.

Each cell of the grid is a forward pass of its own. A pass is short: nothing before the patched layer changes, nor does
any earlier token, whose keys and values all cells share. Cells of one layer are run as rows of a batch. Letters as in
`model.py`: T tokens, C the width, H heads, D = C ÷ H; N blocks; S tokens from the first patched one of a batch, R rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tui_llm.common.errors import Overtaken
from tui_llm.facts.interventions import ATTENTION, MLP, PATCH, RESIDUAL, Intervention, ModelPart
from tui_llm.llm.model import device
from tui_llm.llm.model.inside import projections
from tui_llm.llm.model.interventions import GPTLayout, record
from tui_llm.llm.model.kv_cache import attention_mask
from tui_llm.llm.model.model import GPT, Block, Rotary, Rotation, capped
from tui_llm.llm.model.part_effects import PartEffects

KINDS = (RESIDUAL, ATTENTION, MLP)
_WORK = (
    1_500_000_000  # multiply-adds of a batch: about 50 ms on two cores, so that cells appear while the rest is computed
)


@dataclass(frozen=True, slots=True)
class Cells:
    """Tokens of one row of the grid that are run as one batch; `tokens` ascend."""

    layer: int
    tokens: tuple[int, ...]


def rows(kind: str, layers: int) -> int:
    """How many rows a grid has: the residual stream stands before each block and after the last."""
    return layers + 1 if kind == RESIDUAL else layers


def plan(
    kind: str, layers: int, count: int, shift: int, same: int, cost: int | None = None
) -> tuple[list[Cells], list[tuple[int, int]]]:
    """The batches of a grid of `count` tokens, last layer first, and the cells that need none because they can't change
    the prediction. Cells without an aligned token are in neither.

    shift: token i of the changed text is aligned with token i + shift of the clean one. same: so many first tokens have
    the same values in both, as they and all before them are the same. cost: multiply-adds of one token in one block; None
    makes batches of one cell.
    """
    batches: list[Cells] = []
    unchanged: list[tuple[int, int]] = []
    for layer in reversed(range(rows(kind, layers))):
        start = layer if kind == RESIDUAL else layer + 1
        wanted = []
        for token in range(max(0, -shift), count):
            if token < same or (
                start == layers and token < count - 1
            ):  # after the blocks, no token is read but the last
                unchanged.append((layer, token))
            else:
                wanted.append(token)
        while wanted:
            tokens = [wanted.pop()]
            while wanted and cost is not None:
                if (len(tokens) + 1) * (count - wanted[-1]) * max(1, layers - start) * cost > _WORK:
                    break
                tokens.append(wanted.pop())
            batches.append(Cells(layer, tuple(reversed(tokens))))
    return batches, unchanged


def same_start(clean: Sequence[int], changed: Sequence[int]) -> int:
    """How many first tokens of texts of the same length are the same; 0 if the lengths differ, as then positions do."""
    if len(clean) != len(changed):
        return 0
    return next((at for at, (a, b) in enumerate(zip(clean, changed, strict=True)) if a != b), len(clean))


@contextmanager
def interruptible(model: GPT, overtaken: Callable[[], bool]) -> Iterator[None]:
    """In this context, a forward pass raises `Overtaken` before a block once `overtaken()` returns true."""

    def check(_module: object, _args: object) -> None:
        if overtaken():
            raise Overtaken

    handles = [block.register_forward_pre_hook(check) for block in model.blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Patching:
    """The values that all cells share. Interventions must be off. `tokens`: target and rival.

    clean, changed: the logit difference of the two texts, as they are. Raises `Overtaken`; ValueError if a text is empty or longer than the context.
    """

    def __init__(
        self,
        model: GPT,
        clean: Sequence[int],
        changed: Sequence[int],
        kind: str,
        tokens: tuple[int, int],
        overtaken: Callable[[], bool] = lambda: False,
    ) -> None:
        if not clean or not changed:
            raise ValueError("an empty text")
        self.model, self.kind = model, kind
        self.shift, self.count = len(clean) - len(changed), len(changed)
        layers = model.config.layers
        final, layout = ModelPart(RESIDUAL, layers), GPTLayout(model)
        parts = [ModelPart(kind, layer) for layer in range(rows(kind, layers))]
        streams = [ModelPart(RESIDUAL, layer) for layer in range(layers + 1)]
        attentions = [] if kind == RESIDUAL else [ModelPart(ATTENTION, layer) for layer in range(layers)]
        with interruptible(model, overtaken), device.threads(model.config.parameters() * self.count):
            known = record(layout, clean, list(dict.fromkeys((*parts, final))))
            own = record(layout, changed, [*streams, *attentions])
        self._wanted = torch.stack([known[part] for part in parts]).to(model.device)  # (rows, T', C)
        self._streams = torch.stack([own[part] for part in streams]).to(model.device)  # (N + 1, T, C)
        self._attentions = [own[part].to(model.device) for part in attentions]
        self._past: dict[int, tuple[Tensor, Tensor]] = {}
        self._direction = GPTLayout(model).rows(tokens)  # (2, C)
        self.clean = float(self._difference(known[final][-1:].to(model.device)))
        self.changed = float(self._difference(self._streams[-1, -1:]))

    def _difference(self, x: Tensor) -> Tensor:
        """The residual stream after the last block (R, C) → the logit differences (R,), float64."""
        with torch.inference_mode():
            logits = capped(self.model.norm(x).double().cpu() @ self._direction.T, self.model.config.softcap)
        return logits[:, 0] - logits[:, 1]

    @torch.inference_mode()
    def effects(self, cells: Cells, overtaken: Callable[[], bool] = lambda: False) -> list[float]:
        """The logit difference with each of `cells` patched alone. Raises `Overtaken` between two blocks."""
        layers, first = self.model.config.layers, cells.tokens[0]
        tokens = torch.tensor(cells.tokens, device=self.model.device)
        start = cells.layer if self.kind == RESIDUAL else cells.layer + 1
        x = self._streams[start, first:].repeat(len(tokens), 1, 1)  # (R, S, C)
        work = self.model.config.parameters() // layers * x.size(0) * x.size(1)
        with device.threads(work):
            x[torch.arange(len(tokens)), tokens - first] = self._values(cells.layer, tokens)
            for layer in range(start, layers):
                if overtaken():
                    raise Overtaken
                x = self._block(layer, x, first)
            found: list[float] = self._difference(x[:, -1]).tolist()
        return found

    def _values(self, layer: int, tokens: Tensor) -> Tensor:
        """The residual stream (R, C) at the patched tokens: before block `layer`, or after it if its attention or MLP is
        patched, which changes nothing else."""
        wanted = self._wanted[layer, tokens + self.shift]
        if self.kind == RESIDUAL:
            return wanted
        before, block = self._streams[layer, tokens], self.model.blocks[layer]
        assert isinstance(block, Block)
        if self.kind == MLP:
            return before + self._attentions[layer][tokens] + wanted
        between = before + wanted
        return between + block.mlp(block.norm2(between))

    def _block(self, layer: int, x: Tensor, first: int) -> Tensor:
        """A block for the tokens from number `first` on, (R, S, C) → (R, S, C); the last block → (R, 1, C), its last
        token alone."""
        block = self.model.blocks[layer]
        assert isinstance(block, Block)
        attention = block.attention
        R, S, C = x.shape
        # (R, H, S, D) each
        q, k, v = projections(attention, block.norm1(x), self._rotation(first, S))
        if layer == self.model.config.layers - 1:
            q, x = q[:, :, -1:], x[:, -1:]
        mask = attention_mask(S, first, attention.window, x.device)
        mask = mask if mask is None else mask[-q.size(2) :]
        if first:
            keys, values = self._earlier(layer)
            k = torch.cat((keys[:, :first].expand(R, -1, -1, -1), k), dim=2)
            v = torch.cat((values[:, :first].expand(R, -1, -1, -1), v), dim=2)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None and q.size(2) > 1)
        x = x + attention.out(y.transpose(1, 2).reshape(R, -1, C))
        out: Tensor = x + block.mlp(block.norm2(x))
        return out

    def _rotation(self, first: int, count: int) -> Rotation | None:
        """That of `count` tokens from number `first` on."""
        positions = self.model.positions
        return (
            positions(torch.arange(first, first + count, device=self.model.device))
            if isinstance(positions, Rotary)
            else None
        )

    def _earlier(self, layer: int) -> tuple[Tensor, Tensor]:
        """The keys and values (H, T, D) of the changed text's tokens in a block."""
        if layer not in self._past:
            block = self.model.blocks[layer]
            assert isinstance(block, Block)
            rotation = self._rotation(0, self.count)
            _, keys, values = projections(block.attention, block.norm1(self._streams[layer]), rotation)
            self._past[layer] = keys.contiguous(), values.contiguous()
        return self._past[layer]


class PartPatching:
    """As `Patching`, for a model whose blocks run whole texts: the cells of a batch start at the patched block. `run` is
    the changed text's unchanged pass, `tokens` target and rival."""

    def __init__(self, run: PartEffects, clean: Sequence[int], kind: str, tokens: tuple[int, int]) -> None:
        self.run, self.clean, self.kind, self.tokens = run, tuple(clean), kind, list(tokens)
        self.shift = len(clean) - len(run.ids)
        run.record(clean, [ModelPart(kind, layer) for layer in range(rows(kind, run.layout.layers))])

    def effects(self, cells: Cells, overtaken: Callable[[], bool] = lambda: False) -> list[float]:
        """The logit difference with each of `cells` patched alone. Raises `Overtaken` between two blocks."""
        part = ModelPart(self.kind, cells.layer)
        changes = [Intervention(part, PATCH, self.clean, shift=self.shift, at=token) for token in cells.tokens]
        logits = self.run.logits(changes, overtaken)[:, -1, self.tokens].double()  # (R, 2)
        found: list[float] = (logits[:, 0] - logits[:, 1]).tolist()
        return found
