"""A training step with C between the matrix products, for the layouts with RMSNorm and rotary positions: Arcee's and
NanoChat's (training_rotary.c). What differs from `native_plan.StepPlan`: the norms, no biases, queries and keys rotated
and normalized, ReLU², the soft cap.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tui_llm.llm.model.fast_step import LINEARS
from tui_llm.llm.model.model import Rotary
from tui_llm.llm.model.native_plan import Calls, StepPlan


class RotaryPlan(StepPlan):
    """The buffers and the calls for batches of one shape. Of the saved statistics, the first row is the norm's reciprocal
    root mean square; the second is not used."""

    def _allocate(self, layers: int) -> None:
        super()._allocate(layers)
        c, N = self.config, self.N
        cosine, sine = Rotary(c)(torch.arange(self.shape.T))
        self.cosine, self.sine = (one[:, : self.D // 2].contiguous() for one in (cosine, sine))
        # Of each query and key, and of the embedding.
        self.turned = [torch.empty(N, 2 * c.heads) if c.qk_norm else None for _ in range(layers)]
        self.embedded = torch.empty(N) if c.qk_norm else None
        # The C code for GPT-2 adds biases, and sums their gradients.
        self.zeros, self.unused = torch.zeros(max(3 * self.C, self.F)), torch.empty(max(3 * self.C, self.F))

    def _scale(self, name: str) -> int | None:
        return self._at(f"{name}.weight") if self.config.gains else None

    def _rms(self, x: Tensor, made: Tensor, name: str, h: Tensor, stats: Tensor) -> Callable[[], object]:
        """made = x + product, h = the norm of it."""
        return self._c(
            "residual_rms", x.data_ptr(), self.product.data_ptr(), made.data_ptr(), self._scale(name), h.data_ptr(),
            stats.data_ptr(), self.N, self.C, self.config.epsilon, self.is_low, self.shape.threads,
        )  # fmt: skip

    def _turn(self, i: int) -> int | None:
        turned = self.turned[i]
        return None if turned is None else turned.data_ptr()

    def _block_forward(self, i: int) -> Calls:
        s, (B, T, threads), c, low = self.saved[i], self.shape, self.config, self.is_low
        last = i == len(self.saved) - 1
        x, h, stats = (self.x, self.h, self.stats) if last else (self.saved[i + 1].x, self.saved[i + 1].h1, self.saved[i + 1].stats1)  # fmt: skip
        qkv, out, up, down = (self._matrix(i, one) for one in LINEARS)
        neurons = s.slope.data_ptr(), s.inner.data_ptr()
        size = self.N, self.F, low, threads
        return [
            self._mm(s.h1, qkv.t(), s.qkv),
            self._c("rotate", s.qkv.data_ptr(), self.cosine.data_ptr(), self.sine.data_ptr(), self._turn(i), self.N, T, c.heads,
                    self.D, c.epsilon, low, threads),
            self._c("attention_forward", s.qkv.data_ptr(), self.zeros.data_ptr(), s.y.data_ptr(), s.weights.data_ptr(),
                    self.own.data_ptr(), B, T, c.heads, self.D, low, threads),
            self._mm(s.y, out.t(), self.product),
            self._rms(s.x, s.middle, f"blocks.{i}.norm2", s.h2, s.stats2),
            self._mm(s.h2, up.t(), s.slope),
            self._c("squared_relu", *neurons, *size) if c.relu2 else
            self._c("gelu_forward", neurons[0], self.zeros.data_ptr(), neurons[1], *size),
            self._mm(s.inner, down.t(), self.product),
            self._rms(s.middle, x, "norm" if last else f"blocks.{i + 1}.norm1", h, stats),
        ]  # fmt: skip

    def _norm_backward(
        self, x: Tensor, stats: Tensor, name: str, bias: str, first: bool, begins: bool
    ) -> Callable[[], object]:
        scale = self._scale(name)
        return self._c(
            "rms_backward", self.product.data_ptr(), x.data_ptr(), stats.data_ptr(), scale, self.g.data_ptr(),
            self.g_low.data_ptr(), None if scale is None else self._gradient(f"{name}.weight"), self.room.data_ptr(), self.N,
            self.C, int(begins), self.is_low, int(not first), self.shape.threads,
        )  # fmt: skip

    def _block_backward(self, i: int, first: bool) -> Calls:
        s, (B, T, threads), c, low = self.saved[i], self.shape, self.config, self.is_low
        qkv, out, up, down = (self._matrix(i, one) for one in LINEARS)
        unused, name = self.unused.data_ptr(), f"blocks.{i}"
        return [
            *self._weight_gradient(i, "mlp.down", self.g_low, s.inner, first),
            self._mm(self.g_low, down, self.d_inner),
            self._c("gelu_backward", self.d_inner.data_ptr(), s.slope.data_ptr(), unused, self.room.data_ptr(), self.N, self.F,
                    low, 0, threads),
            *self._weight_gradient(i, "mlp.up", self.d_inner, s.h2, first),
            self._mm(self.d_inner, up, self.product),
            self._norm_backward(s.middle, s.stats2, f"{name}.norm2", "", first, False),
            *self._weight_gradient(i, "attention.out", self.g_low, s.y, first),
            self._mm(self.g_low, out, self.product),
            self._c("attention_backward", s.qkv.data_ptr(), self.zeros.data_ptr(), s.weights.data_ptr(), self.product.data_ptr(),
                    self.d_qkv.data_ptr(), unused, self.room.data_ptr(), self.own.data_ptr(), B, T, c.heads, self.D, low, 0,
                    threads),
            self._c("rotate_backward", self.d_qkv.data_ptr(), s.qkv.data_ptr(), self.cosine.data_ptr(), self.sine.data_ptr(),
                    self._turn(i), self.N, T, c.heads, self.D, low, threads),
            *self._weight_gradient(i, "attention.qkv", self.d_qkv, s.h1, first),
            self._mm(self.d_qkv, qkv, self.product),
            self._norm_backward(s.x, s.stats1, f"{name}.norm1", "", first, False),
            *self._widened(i, int(not first)),
        ]  # fmt: skip

    def _embed(self, ids: Tensor) -> None:
        begin, embedded = self.saved[0], None if self.embedded is None else self.embedded.data_ptr()
        self.library.embed_rms(
            ids.data_ptr(), self._at("tokens.weight"), begin.x.data_ptr(), embedded, self._scale("blocks.0.norm1"),
            begin.h1.data_ptr(), begin.stats1.data_ptr(), self.N, self.C, self.config.epsilon, self.is_low, self.shape.threads,
        )  # fmt: skip

    def _embedding_backward(self, ids: Tensor, positions: int | None, add: int) -> None:
        if self.embedded is not None:
            x, embedded = self.saved[0].x.data_ptr(), self.embedded.data_ptr()
            self.library.embedded_backward(self.g.data_ptr(), x, embedded, self.N, self.C, self.shape.threads)
        super()._embedding_backward(ids, positions, add)

    def _loss(self, logits: Tensor, targets: Tensor, losses: Tensor, share: float) -> None:
        if not self.config.softcap:
            super()._loss(logits, targets, losses, share)
            return
        self.library.capped_loss(
            logits.data_ptr(), targets.data_ptr(), losses.data_ptr(), self.own.data_ptr(), *logits.shape, share,
            self.config.softcap, self.is_low, self.shape.threads,
        )  # fmt: skip
