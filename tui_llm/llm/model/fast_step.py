"""Loss and gradients of a whole batch without autograd, for training on one CPU: the blocks and the head of fast.py, on
weights that are cast once per step, with gradients written where the optimizer reads them.

For small models autograd's own work is a third of a step (dev/LOG.md). The results are those of `GPT.loss` and
`backward` with the same `products`, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tui_llm.llm.model import fast, torch_private
from tui_llm.llm.model.fast import BlockWeights
from tui_llm.llm.model.flat import FlatParameters
from tui_llm.llm.model.model import GPT

LINEARS = ("attention.qkv", "attention.out", "mlp.up", "mlp.down")


class FastStep:
    """Computes loss and gradients of `model`, whose parameters are `flat`, with matrix products in `dtype`."""

    def __init__(self, model: GPT, flat: FlatParameters, dtype: torch.dtype) -> None:
        self.model, self.flat, self.dtype = model, flat, dtype
        self.heads, self.epsilon = model.config.heads, model.config.epsilon
        self.low = flat.weights if dtype == torch.float32 else torch.empty_like(flat.weights, dtype=dtype)
        self.observe: Callable[[Tensor], None] | None = (
            None  # gets each block's output in the next batch, see `gradients`
        )
        self.rows: list[float] = []  # (B,): the mean loss of each row of the last batch
        self.head = "tokens.weight" if model.config.tied else "head.weight"
        blocks = range(model.config.layers)
        self._weights = [self._views(block) for block in blocks]
        self._spans = [
            [flat.span([f"blocks.{i}.{name}.{kind}" for name in LINEARS]) for kind in ("weight", "bias")]
            for i in blocks
        ]
        # A block's gradients before they are added to the flat ones. The gaps between them stay 0.
        self._made = [torch.zeros(span.stop - span.start, dtype=dtype) for span in self._spans[0]]

    @staticmethod
    def fits(model: GPT) -> bool:
        """Whether the model is one that fast.py computes."""
        return fast.fits(model.config) and not model.config.dropout

    name = "without autograd"

    def release(self) -> None:
        """Frees large buffers until the next batch: here there are none."""

    def _views(self, block: int) -> BlockWeights:
        def view(buffer: Tensor, name: str) -> Tensor:
            return self.flat.view(buffer, f"blocks.{block}.{name}")

        linears = (view(self.low, f"{name}.{kind}") for name in LINEARS for kind in ("weight", "bias"))
        norms = (view(self.flat.weights, f"norm{n}.{kind}") for n in (1, 2) for kind in ("weight", "bias"))
        return BlockWeights(*linears, *norms)

    def _gradient(self, name: str) -> Tensor:
        return self.flat.view(self.flat.gradients, name)

    @torch.no_grad()
    def cast(self) -> None:
        """Casts the weights. Call it before the first batch of a step."""
        if self.low is not self.flat.weights:
            self.low.copy_(self.flat.weights)

    @torch.no_grad()
    def gradients(self, inputs: Tensor, targets: Tensor, share: float, *, first: bool) -> float:
        """Returns `share` × the mean loss on inputs and targets, (B, T) each, in nats per token. Adds its gradient to the
        flat gradients, or overwrites them if `first`, and attaches them. Gives `observe` the blocks' outputs,
        (N, C), and forgets it. `rows` is then the mean loss of each row."""
        shape = *inputs.shape, self.heads
        ids = inputs.reshape(-1)
        weights, T = self.flat.weights, inputs.size(1)
        tokens, positions = (self.flat.view(weights, f"{name}.weight") for name in ("tokens", "positions"))
        x = tokens.index_select(0, ids)
        x.view(*inputs.shape, -1).add_(positions[:T])
        saved, observe, self.observe = [], self.observe, None
        for block in self._weights:
            x, kept = fast.block_forward(x, block, shape, self.epsilon)
            saved.append(kept)
            if observe is not None:
                observe(x)
        scale, shift = (self.flat.view(weights, f"norm.{kind}") for kind in ("weight", "bias"))
        h, mean, rstd = torch_private.layer_norm(x, scale, shift, self.epsilon)
        loss, losses, g = self._head(h.to(self.dtype), targets.reshape(-1), share / len(ids), first)
        self.rows = [one / T for one in losses.view(inputs.shape).sum(1).tolist()]
        g, *norm = torch_private.layer_norm_backward(g, x, mean, rstd, scale, shift)
        for kind, one in zip(("weight", "bias"), norm, strict=True):
            _put(self._gradient(f"norm.{kind}"), one, first)
        for index in reversed(range(len(saved))):
            g = self._block(index, g, shape, saved.pop(), first)
        self._embeddings(g, ids, T, first)
        self.flat.attach()
        return float(loss) * share / len(ids)

    def _head(self, h: Tensor, targets: Tensor, share: float, first: bool) -> tuple[Tensor, Tensor, Tensor]:
        used, begun = self.model.used, not first
        gradient = self._gradient(self.head)
        mine = gradient[:used]

        def add(made: Tensor) -> None:
            nonlocal begun
            if begun:
                mine.add_(made, alpha=share)
            else:
                mine.copy_(made).mul_(share)
            begun = True

        loss, losses, g = fast.head_pass(h, self.flat.view(self.low, self.head)[:used], targets, fast.CHUNK, add)
        assert g is not None
        if first:
            gradient[used:].zero_()
        return loss, losses, g.float().mul_(share)

    def _block(self, index: int, g: Tensor, shape: tuple[int, int, int], kept: list[Tensor], first: bool) -> Tensor:
        mine = [self.flat.gradients[span] for span in self._spans[index]]
        direct = first and self.dtype == torch.float32
        places, weights = mine if direct else self._made, self._weights[index]
        made = []
        for weight, bias in zip(weights[:8:2], weights[1:8:2], strict=True):
            for kind, one in enumerate((weight, bias)):
                start = one.storage_offset() - self._spans[index][kind].start
                made.append(places[kind][start : start + one.numel()].view(one.shape))
        g, norms = fast.block_backward(g, weights, shape, kept, made)
        if not direct:
            for place, gradient in zip(places, mine, strict=True):
                _put(gradient, place, first)
        for name, one in zip([f"norm{n}.{kind}" for n in (1, 2) for kind in ("weight", "bias")], norms, strict=True):
            _put(self._gradient(f"blocks.{index}.{name}"), one, first)
        return g

    def _embeddings(self, g: Tensor, ids: Tensor, T: int, first: bool) -> None:
        tokens, positions = self._gradient("tokens.weight"), self._gradient("positions.weight")
        if first and not self.model.config.tied:
            tokens.zero_()
        tokens.index_add_(0, ids, g)
        if first:
            positions[T:].zero_()
        _put(positions[:T], g.view(-1, T, g.size(1)).sum(0), first)


def _put(gradient: Tensor, made: Tensor, first: bool) -> None:
    """Writes what was made into a gradient, or adds it unless it is the `first` of a step."""
    (gradient.copy_ if first else gradient.add_)(made)
