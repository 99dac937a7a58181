"""What a training step needs on a GPU so that the GPU never waits for Python: batches that are copied ahead, and an update that
is launched before the loss is known.

A GPU computes while Python is ahead of it. Reading a number from it (`float(loss)`) ends that: Python waits, then the GPU
idles until the next kernels are launched. So a step reads once, after its update was launched. Whether there must be an
update is decided on the GPU: AdamW's fused kernel leaves weights and state as they are where `found_inf` is 1, which
torch's `GradScaler` uses for the same purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tui_llm.llm.model import torch_private

Rows = tuple[Tensor, Tensor]  # inputs and targets, (B, T) each


class Upload:
    """Batches on the device. On CUDA the next one is gathered in pinned memory, and copied while the GPU computes."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._next: tuple[int, Rows] | None = None

    def take(self, number: int, rows: Callable[[int], Rows]) -> Rows:
        """Batch `number`, which `rows` gathers on the CPU unless it was begun."""
        begun, self._next = self._next, None
        return begun[1] if begun is not None and begun[0] == number else self._copied(rows(number))

    def begin(self, number: int, rows: Callable[[int], Rows]) -> None:
        """On CUDA, begin to copy batch `number`. Call it once the kernels of the batch before are launched."""
        if self.device.type == "cuda":
            self._next = number, self._copied(rows(number))

    def _copied(self, both: Rows) -> Rows:
        if self.device.type != "cuda":
            return both[0].to(self.device), both[1].to(self.device)
        # The allocator of pinned memory reuses a block once the copy from it is done.
        x, y = (side.pin_memory().to(self.device, non_blocking=True) for side in both)
        return x, y


def skips_updates(optimizers: Sequence[torch.optim.Optimizer]) -> bool:
    """Whether `guard` works for these optimizers: all are fused AdamWs, which do nothing beside their kernel."""
    return all(type(one) is torch_private.AdamW and one.defaults["fused"] for one in optimizers)


def guard(optimizers: Sequence[torch.optim.Optimizer], loss: Tensor, norm: Tensor, limit: float) -> Tensor:
    """Have the next `step` change nothing unless `loss` < `limit` and the gradient norm is finite. Returns both (2,), on their
    device; read them after the step."""
    bad = ~((loss < limit) & norm.isfinite())
    for one in optimizers:
        one.found_inf = bad.float()  # type: ignore[attr-defined]
    return torch.stack((loss.float(), norm.float()))
