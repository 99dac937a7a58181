"""A training step with C between the matrix products, for the layouts with RMSNorm: Arcee's and NanoChat's. What differs from
`native_plan.StepPlan` is the norms (training_rotary.c), without biases.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tui_llm.llm.model.native_plan import StepPlan


class RMSNormPlan(StepPlan):
    """The buffers and the calls for batches of one shape. Of the saved statistics, the first row is the norm's reciprocal
    root mean square; the second is not used."""

    def _allocate(self, layers: int) -> None:
        super()._allocate(layers)
        self.embedded = torch.empty(self.N) if self.config.qk_norm else None  # the same of the token embedding

    def _scale(self, name: str) -> int | None:
        return self._at(f"{name}.weight") if self.config.gains else None

    def _residual_norm(
        self, x: Tensor, bias: str, made: Tensor, name: str, h: Tensor, stats: Tensor
    ) -> Callable[[], object]:
        return self._c(
            "residual_rms", x.data_ptr(), self.product.data_ptr(), made.data_ptr(), self._scale(name), h.data_ptr(),
            stats.data_ptr(), self.N, self.C, self.config.epsilon, self.is_low, self.shape.threads,
        )  # fmt: skip

    def _norm_backward(
        self, x: Tensor, stats: Tensor, name: str, bias: str, first: bool, begins: bool
    ) -> Callable[[], object]:
        scale = self._scale(name)
        return self._c(
            "rms_backward", self.product.data_ptr(), x.data_ptr(), stats.data_ptr(), scale, self.g.data_ptr(),
            self.g_low.data_ptr(), None if scale is None else self._gradient(f"{name}.weight"), self.room.data_ptr(), self.N,
            self.C, int(begins), self.is_low, int(not first), self.shape.threads,
        )  # fmt: skip

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
