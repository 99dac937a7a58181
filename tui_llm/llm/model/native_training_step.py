"""Loss and gradients of a whole batch without autograd, with C between the matrix products (training.c): a call for each
product, and one for all that lies between two products. In fp32 the products are C too, but the head's.

The results are those of `FastStep` up to rounding. Buffers are allocated, and calls prepared, once for each shape of a batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tui_llm.llm.model import fast, native_training
from tui_llm.llm.model.flat import FlatParameters
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.native_plan import WHOLE, BatchShape, StepPlan
from tui_llm.llm.model.native_rms_plan import RMSNormPlan

LARGE = 1 << 26  # bytes of buffers that are not kept between steps


class NativeTrainingStep:
    """As `FastStep`, for models that it `fits`."""

    def __init__(self, model: GPT, flat: FlatParameters, dtype: torch.dtype) -> None:
        """Raises `RuntimeError` if training.c can't be used."""
        library = native_training.library()
        if library is None:
            raise RuntimeError(f"training.c can't be used: {native_training.why_not()}")
        self.library, self.model, self.flat, self.dtype = library, model, flat, dtype
        flat.library = library
        self.observe: Callable[[Tensor], None] | None = None
        self.low = flat.weights if dtype == torch.float32 else torch.empty_like(flat.weights, dtype=dtype)
        self.rows: list[float] = []  # (B,): the mean loss of each row of the last batch
        self._plan: StepPlan | None = None

    def _new_plan(self, shape: BatchShape) -> StepPlan:
        kind = RMSNormPlan if self.model.config.rmsnorm else StepPlan
        return kind(self.library, self.model, self.flat, self.low, shape)

    @staticmethod
    def fits(model: GPT) -> bool:
        """Whether training.c can be used, and computes this model: all that the switches offer, on whole vectors, without
        dropout, with attention weights of at most `fast.SHORT` keys a token."""
        c = model.config
        whole = not any(size % WHOLE for size in (c.width, c.size, c.hidden))
        seen = min(c.window or c.context, c.context)
        layout = bool(c.rope) if c.rmsnorm else not c.qk_norm  # no layout of transformers holds others
        computed = whole and layout and seen <= fast.SHORT and not c.exact_gelu and not c.dropout
        return computed and native_training.library() is not None

    @property
    def name(self) -> str:
        """What computes the step, for display."""
        return f"step in C for {native_training.instructions()}"

    def cast(self) -> None:
        """Casts the weights. Call it before the first batch of a step."""
        if self.low is not self.flat.weights:
            self.library.narrow(
                self.flat.weights.data_ptr(), self.low.data_ptr(), len(self.low), torch.get_num_threads()
            )

    def release(self) -> None:
        """Frees large buffers until the next batch."""
        if self._plan is not None and self._plan.bytes > LARGE:
            self._plan = None

    @torch.no_grad()
    def gradients(self, inputs: Tensor, targets: Tensor, share: float, *, first: bool) -> float:
        """Returns `share` × the mean loss on inputs and targets, (B, T) each, in nats per token. Adds its gradient to the
        flat gradients, or overwrites them if `first`, and attaches them. Gives `observe` the blocks' outputs, (N, C), and
        forgets it. `rows` is then the mean loss of each row."""
        shape = BatchShape(inputs.size(0), inputs.size(1), torch.get_num_threads())
        if self._plan is None or self._plan.shape != shape:
            self._plan = None  # frees its buffers before the next ones are allocated
            self._plan = self._new_plan(shape)
        observe, self.observe = self.observe, None
        loss = self._plan.run(inputs.reshape(-1), targets.reshape(-1), share, first, observe)
        self.rows = [one / shape.T for one in self._plan.losses.view(inputs.shape).sum(1).tolist()]
        self.flat.attach()
        return loss
