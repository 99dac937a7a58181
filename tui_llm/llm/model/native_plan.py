"""The buffers of a training step with C between the matrix products, and its calls: prepared once for each shape of a batch.
`native_training_step.py` runs them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tui_llm.llm.model import fast
from tui_llm.llm.model.fast_step import LINEARS
from tui_llm.llm.model.flat import FlatParameters
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.native_rotary_plan import RotaryPlan

WHOLE = 16  # training.c has whole vectors only: the width, the heads' width and the MLP's are multiples of it


class BatchShape(NamedTuple):
    B: int
    T: int
    threads: int


class SavedBlock(NamedTuple):
    """What the backward pass of a block needs: x and middle (N, C) float32, the streams before attention and MLP; the
    normalized h1, h2 and the attended y (N, C); qkv (N, (H + 2 K) D) without bias, or rotated with that of queries and keys; the
    attention weights; inner and slope (N, F), the activation and its derivative."""

    x: Tensor
    h1: Tensor
    qkv: Tensor
    weights: Tensor
    y: Tensor
    middle: Tensor
    h2: Tensor
    slope: Tensor
    inner: Tensor
    stats1: Tensor
    stats2: Tensor


Calls = list[Callable[[], object]]


class StepPlan:
    """The buffers and the calls for batches of one shape, with LayerNorm."""

    def __init__(self, library: Any, model: GPT, flat: FlatParameters, low: Tensor, shape: BatchShape) -> None:
        """`low`: the weights in the products' dtype, in one buffer as in `flat`."""
        self.shape, self.flat, self.low = shape, flat, low
        self.library, self.dtype, config = library, low.dtype, model.config
        self.config, self.used = config, model.used
        self.head = "tokens.weight" if config.tied else "head.weight"
        self.is_low = int(low.dtype != torch.float32)
        self.N, self.C, self.F, self.D = shape.B * shape.T, config.width, config.hidden, config.width // config.heads
        self.window = min(config.window or shape.T, shape.T)
        self.bytes = 0
        self._allocate(config.layers)
        self.rotary = RotaryPlan(library, config, shape, self.own, self.is_low) if config.rope else None
        self.zeros = torch.zeros(max(config.projected, self.F))  # for layers without biases
        self.forward = [call for i in range(config.layers) for call in self._block_forward(i)]
        self.backward = {first: self._backward(first) for first in (True, False)}

    def _allocate(self, layers: int) -> None:
        N, C, F, B, T = self.N, self.C, self.F, self.shape.B, self.shape.T
        full, low, lib, threads = torch.float32, self.dtype, self.library, self.shape.threads
        projected = self.config.projected

        def new(*size: int, dtype: torch.dtype = low) -> Tensor:
            made = torch.empty(size, dtype=dtype)
            self.bytes += made.nbytes
            return made

        count = B * self.config.heads * lib.attention_weights(T, self.window)
        self.saved = [
            SavedBlock(new(N, C, dtype=full), new(N, C), new(N, projected), new(count), new(N, C), new(N, C, dtype=full), new(N, C),
                   new(N, F), new(N, F), new(2, N, dtype=full), new(2, N, dtype=full))
            for _ in range(layers)
        ]  # fmt: skip
        self.x, self.h, self.stats = new(N, C, dtype=full), new(N, C), new(2, N, dtype=full)
        self.product, self.g = new(N, C), new(N, C, dtype=full)
        self.g_low = new(N, C) if self.is_low else self.g
        # Two buffers, since each thread has rows of its own: one for both would move between the cores' caches.
        self.d_inner, self.d_qkv = new(N, F), new(N, projected)
        chunks = lib.training_chunks(N)
        self.room = new(max(chunks * 3 * C, chunks * F, B * 3 * C), dtype=full)
        self.own = new(threads * max(lib.attention_room(T, self.D), self.used + WHOLE), dtype=full)
        self.losses = new(N, dtype=full)
        names = [f"blocks.0.{name}.weight" for name in LINEARS]
        span = self.flat.span(names)
        # A block's weight gradients before they are widened; the gaps between them stay 0.
        self.made = torch.zeros(span.stop - span.start, dtype=low) if self.is_low else None

    def _at(self, name: str) -> int:
        return self.flat.view(self.flat.weights, name).data_ptr()

    def _gradient(self, name: str) -> int:
        return self.flat.view(self.flat.gradients, name).data_ptr()

    def _bias(self, name: str, begin: int = 0) -> int:
        """A layer's bias from a number on, or zeros."""
        bias = self.flat.view(self.flat.weights, f"{name}.bias") if self.config.biased else self.zeros
        return bias[begin:].data_ptr()

    def _bias_gradient(self, name: str) -> int | None:
        return self._gradient(f"{name}.bias") if self.config.biased else None

    def _norm(self, name: str, h: Tensor, stats: Tensor) -> tuple[int, ...]:
        """The arguments of a LayerNorm: scale, shift, its output, mean and rstd."""
        return (
            self._at(f"{name}.weight"),
            self._at(f"{name}.bias"),
            h.data_ptr(),
            stats[0].data_ptr(),
            stats[1].data_ptr(),
        )

    def _matrix(self, block: int, name: str) -> Tensor:
        return self.flat.view(self.low, f"blocks.{block}.{name}.weight")

    def _c(self, function: str, *arguments: float | None) -> Callable[[], object]:
        return partial(getattr(self.library, function), *arguments)

    def _mm(self, a: Tensor, b: Tensor, out: Tensor) -> Callable[[], object]:
        """out = a b, for activations a and a weight matrix b or its transpose: in bf16 by torch."""
        if self.is_low:
            return partial(torch.mm, a, b, out=out)
        transposed = not b.is_contiguous()
        return self._c(
            "product",
            a.data_ptr(),
            b.data_ptr(),
            out.data_ptr(),
            *a.shape,
            b.size(1),
            int(transposed),
            self.shape.threads,
        )

    def _residual_norm(
        self, x: Tensor, bias: str, made: Tensor, name: str, h: Tensor, stats: Tensor
    ) -> Callable[[], object]:
        """made = x + `product` + bias; h = the norm of it."""
        return self._c("residual_norm", x.data_ptr(), self.product.data_ptr(), self._at(bias), made.data_ptr(),
                       *self._norm(name, h, stats), self.N, self.C, self.config.epsilon, self.is_low, self.shape.threads)  # fmt: skip

    def _attention_forward(self, i: int) -> Calls:
        """From `qkv` to `y`. Biases of what is rotated are added before."""
        s, (B, T, threads), c, name = self.saved[i], self.shape, self.config, f"blocks.{i}.attention.qkv"
        values, calls, query_bias = (c.heads + c.key_heads) * self.D, [], self._bias(name)
        if self.rotary is not None:
            bias, query_bias = query_bias if c.biased else None, self.zeros.data_ptr()
            calls = [self.rotary.forward(i, s.qkv, bias)]
        return [
            *calls,
            self._c("attention_forward", s.qkv.data_ptr(), query_bias, self._bias(name, values), s.y.data_ptr(), s.weights.data_ptr(),
                    self.own.data_ptr(), B, T, c.heads, c.key_heads, self.D, self.window, self.is_low, threads),
        ]  # fmt: skip

    def _attention_backward(self, i: int, add: int) -> Calls:
        """From the gradient of `y`, in `product`, to that of `qkv`, in `d_qkv`, and its bias's."""
        s, (B, T, threads), c, name = self.saved[i], self.shape, self.config, f"blocks.{i}.attention.qkv"
        query_bias, gradient = self.zeros.data_ptr() if self.rotary else self._bias(name), self._bias_gradient(name)
        skipped = (c.heads + c.key_heads) * self.D if self.rotary else 0
        calls = [
            self._c("attention_backward", s.qkv.data_ptr(), query_bias, s.weights.data_ptr(), self.product.data_ptr(),
                    self.d_qkv.data_ptr(), gradient, skipped, self.room.data_ptr(), self.own.data_ptr(), B, T, c.heads,
                    c.key_heads, self.D, self.window, self.is_low, add, threads)
        ]  # fmt: skip
        if self.rotary is not None:
            calls += [self.rotary.backward(i, self.d_qkv, s.qkv, gradient, self.room, add)]
        return calls

    def _block_forward(self, i: int) -> Calls:
        s, last, name = self.saved[i], i == len(self.saved) - 1, f"blocks.{i}"
        x, h, stats = (self.x, self.h, self.stats) if last else (self.saved[i + 1].x, self.saved[i + 1].h1, self.saved[i + 1].stats1)  # fmt: skip
        qkv, out, up, down = (self._matrix(i, one) for one in LINEARS)
        return [
            self._mm(s.h1, qkv.t(), s.qkv),
            *self._attention_forward(i),
            self._mm(s.y, out.t(), self.product),
            self._residual_norm(s.x, f"{name}.attention.out.bias", s.middle, f"{name}.norm2", s.h2, s.stats2),
            self._mm(s.h2, up.t(), s.slope),
            self._c("squared_relu" if self.config.relu2 else "gelu_forward", s.slope.data_ptr(), self._bias(f"{name}.mlp.up"),
                    s.inner.data_ptr(), self.N, self.F, self.is_low, self.shape.threads),
            self._mm(s.inner, down.t(), self.product),
            self._residual_norm(s.middle, f"{name}.mlp.down.bias", x, "norm" if last else f"blocks.{i + 1}.norm1", h, stats),
        ]  # fmt: skip

    def _norm_backward(
        self, x: Tensor, stats: Tensor, name: str, bias: str, first: bool, begins: bool
    ) -> Callable[[], object]:
        """Through a LayerNorm of x whose output's gradient is in `product`; `bias`: the one of the layer before."""
        return self._c(
            "norm_backward", self.product.data_ptr(), x.data_ptr(), stats[0].data_ptr(), stats[1].data_ptr(),
            self._at(f"{name}.weight"), self.g.data_ptr(), self.g_low.data_ptr(), self._gradient(f"{name}.weight"),
            self._gradient(f"{name}.bias"), self._gradient(bias) if bias else None, self.room.data_ptr(), self.N, self.C,
            int(begins), self.is_low, int(not first), self.shape.threads,
        )  # fmt: skip

    def _backward(self, first: bool) -> Calls:
        """From the gradient of the final LayerNorm's output, in `product`, to that of the embeddings, in `g`."""
        last = len(self.saved) - 1
        calls = [self._norm_backward(self.x, self.stats, "norm", f"blocks.{last}.mlp.down.bias", first, True)]
        for i in reversed(range(last + 1)):
            calls += self._block_backward(i, first)
        return calls

    def _block_backward(self, i: int, first: bool) -> Calls:
        s, low, add, threads, name = self.saved[i], self.is_low, int(not first), self.shape.threads, f"blocks.{i}"
        qkv, out, up, down = (self._matrix(i, one) for one in LINEARS)
        return [
            *self._weight_gradient(i, "mlp.down", self.g_low, s.inner, first),
            self._mm(self.g_low, down, self.d_inner),
            self._c("gelu_backward", self.d_inner.data_ptr(), s.slope.data_ptr(), self._bias_gradient(f"{name}.mlp.up"),
                    self.room.data_ptr(), self.N, self.F, low, add, threads),
            *self._weight_gradient(i, "mlp.up", self.d_inner, s.h2, first),
            self._mm(self.d_inner, up, self.product),
            self._norm_backward(s.middle, s.stats2, f"{name}.norm2", f"{name}.attention.out.bias", first, False),
            *self._weight_gradient(i, "attention.out", self.g_low, s.y, first),
            self._mm(self.g_low, out, self.product),
            *self._attention_backward(i, add),
            *self._weight_gradient(i, "attention.qkv", self.d_qkv, s.h1, first),
            self._mm(self.d_qkv, qkv, self.product),
            self._norm_backward(s.x, s.stats1, f"{name}.norm1", f"blocks.{i - 1}.mlp.down.bias" if i else "", first, False),
            *self._widened(i, add),
        ]  # fmt: skip

    def _weight_gradient(self, i: int, name: str, g: Tensor, h: Tensor, first: bool) -> Calls:
        """gᵀ h: into the gradients, or in bf16 into `made`."""
        weight = self.flat.view(self.flat.gradients, f"blocks.{i}.{name}.weight")
        if self.made is not None:
            names = [f"blocks.{i}.{one}.weight" for one in LINEARS]
            start = weight.storage_offset() - self.flat.span(names).start
            return [self._mm(g.t(), h, self.made[start : start + weight.numel()].view(weight.shape))]
        return [self._c("weight_gradient", g.data_ptr(), h.data_ptr(), weight.data_ptr(), self.N, *weight.shape, int(not first),
                        self.shape.threads)]  # fmt: skip

    def _widened(self, i: int, add: int) -> Calls:
        if self.made is None:
            return []
        gradient = self.flat.gradients[self.flat.span([f"blocks.{i}.{one}.weight" for one in LINEARS])]
        made = self.made
        return [self._c("widen", made.data_ptr(), gradient.data_ptr(), len(made), add, self.shape.threads)]

    def run(
        self, ids: Tensor, targets: Tensor, share: float, first: bool, observe: Callable[[Tensor], None] | None
    ) -> float:
        """As `NativeTrainingStep.gradients`; ids and targets (N,)."""
        N, ids, targets = self.N, ids.contiguous(), targets.contiguous()  # a column of a matrix has gaps
        self._embed(ids)
        for call in self.forward:
            call()
        if observe is not None:
            for x in (*(s.x for s in self.saved[1:]), self.x):
                observe(x)
        self._head(targets, share / N, first)
        for call in self.backward[first]:
            call()
        self._embedding_backward(
            ids, self._gradient("positions.weight") if not self.config.rope else None, int(not first)
        )
        return float(self.library.sum_losses(self.losses.data_ptr(), N)) * share / N

    def _embed(self, ids: Tensor) -> None:
        """The first block's x and h1."""
        begin, (_, T, threads) = self.saved[0], self.shape
        positions = None if self.config.rope else self._at("positions.weight")
        self.library.embed_norm(
            ids.data_ptr(), self._at("tokens.weight"), positions, begin.x.data_ptr(),
            *self._norm("blocks.0.norm1", begin.h1, begin.stats1), self.N, T, self.C, self.config.epsilon, self.is_low, threads,
        )  # fmt: skip

    def _embedding_backward(self, ids: Tensor, positions: int | None, add: int) -> None:
        (_, T, threads), c = self.shape, self.config
        self.library.embedding_backward(
            ids.data_ptr(), self.g.data_ptr(), self._gradient("tokens.weight"), positions, self.N, T, self.C,
            c.vocabulary, c.context, int(c.tied), add, threads,
        )  # fmt: skip

    def _loss(self, logits: Tensor, targets: Tensor, losses: Tensor, share: float) -> None:
        """The losses of some rows of logits, which become their gradient."""
        at = logits.data_ptr(), targets.data_ptr(), losses.data_ptr(), self.own.data_ptr()
        if self.config.softcap:
            self.library.capped_loss(*at, *logits.shape, share, self.config.softcap, self.is_low, self.shape.threads)
        else:
            self.library.softmax_loss(*at, *logits.shape, share, self.is_low, self.shape.threads)

    def _head(self, targets: Tensor, share: float, first: bool) -> None:
        """The losses of `h`, the head's gradient, and into `product` that of h. A chunk of logits at a time."""
        used, N, add = self.used, self.N, int(not first)
        gradient = self.flat.view(self.flat.gradients, self.head)
        weight = self.flat.view(self.low, self.head)[:used]
        if first:
            gradient[used:].zero_()
        mine, rows = gradient[:used], max(1, fast.CHUNK // used)
        whole = torch.empty(min(rows, N), used, dtype=self.dtype)
        for start in range(0, N, rows):
            part = slice(start, min(N, start + rows))
            count = part.stop - start
            logits, h = whole[:count], self.h[part]
            torch.mm(h, weight.t(), out=logits)
            self._loss(logits, targets[part], self.losses[part], share)
            torch.mm(logits, weight, out=self.product[part])
            if self.is_low:
                made = logits.t() @ h
                self.library.widen(made.data_ptr(), mine.data_ptr(), made.numel(), add, self.shape.threads)
            elif add:
                torch.addmm(mine, logits.t(), h, out=mine)
            else:
                torch.mm(logits.t(), h, out=mine)
            add = 1
