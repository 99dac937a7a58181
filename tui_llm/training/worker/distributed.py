"""Training with several processes, each computing a share of every batch.

`Ranks` is the single-process case; `Torchrun` is one of several processes started by torchrun, on one machine or more.
With `Torchrun`, each process either has a copy of the model and gradients are averaged (DDP), or has a shard of every
weight (`shard`: FSDP2, `fully_shard`; Zhao et al. 2023, "PyTorch FSDP"). Rank 0 alone decides and writes.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tui_llm.common.errors import UserError
from tui_llm.llm.model import device as devices
from tui_llm.llm.model import torch_private
from tui_llm.llm.model.model import GPT

Losses = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # see `GPT.losses`
GO, STOP, SAVE, CHANGE = range(4)  # what rank 0 broadcasts between two steps
PATIENCE = timedelta(days=30)  # timeout of waiting for rank 0, which may be paused or tokenizing


class Stopped(Exception):
    """Stopped on request before the first step."""


class Ranks:
    """A single process: collective operations return their input."""

    rank, world, shard = 0, 1, False

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which decides and writes."""
        return self.rank == 0

    def connect(self, device: str) -> None:
        """Initializes the process group and waits for all processes; `device` is the run's."""

    def choose(self, device: str) -> torch.device:
        """Returns this process's device. Raises `UserError` if there is none."""
        return devices.choose(device)

    def disconnect(self) -> None:
        """Waits for all processes, then destroys the process group."""

    def place(self, model: GPT, device: torch.device, products: torch.dtype | None = None) -> Losses:
        """Moves `model` to `device` and returns its `losses` of inputs and targets, for use inside `gradients`.

        `products` is the dtype of the matrix products (see `GPT.features`).
        """
        model.to(device)
        return functools.partial(model.losses, products=products)

    @contextlib.contextmanager
    def gradients(self, *, shared: bool) -> Iterator[None]:
        """Context manager around forward and backward; with `shared`, gradients are averaged over all processes."""
        yield

    def mean(self, value: float) -> float:
        """All-reduce: the mean of `value` over all processes."""
        return value

    def gather(self, values: list[float]) -> list[list[float]]:
        """All-gather: the `values` of each process, by rank; all have equally many."""
        return [values]

    def total(self, value: float) -> float:
        """All-reduce: the sum of `value` over all processes."""
        return self.mean(value) * self.world

    def broadcast_int(self, value: int) -> int:
        """Broadcast: rank 0's `value`."""
        return value

    def broadcast_order(self, order: int, step: int = 0, value: float = 0.0) -> tuple[int, int, float]:
        """Broadcast: rank 0's order, one of GO, STOP, SAVE, or CHANGE with a step and a learning rate."""
        return order, step, value

    def broadcast_tensor(self, value: Tensor) -> Tensor:
        """Broadcast: overwrites `value`, a CPU tensor, with rank 0's, and returns it."""
        return value

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """Context manager: rank 0 runs the body first, then the others. An error in one process is raised in all."""
        yield

    def fail(self, why: str) -> None:
        """Records this process's error for rank 0."""

    def lost(self, error: Exception) -> str | None:
        """Returns what happened to another process if that is the cause of `error`, else None."""
        return None


class Torchrun(Ranks):
    """One of several processes started by torchrun; see `Ranks` for the methods."""

    def __init__(self, shard: bool) -> None:
        self.rank, self.world, self.local = (int(os.environ[n]) for n in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        self.shard = shard
        self._wrapped: Any = None

    def connect(self, device: str) -> None:
        cuda = device != "cpu" and torch.cuda.is_available()
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
        # A group for waiting for rank 0: the default group's timeout is meant for steps, which are short.
        self._control = dist.new_group(backend="gloo", timeout=PATIENCE)

    def choose(self, device: str) -> torch.device:
        kind, _, index = device.partition(":")
        if index:
            raise UserError(
                f"each of {self.world} processes needs a separate device; give --device {kind}, not {device}"
            )
        place = devices.choose(kind)
        if place.type == "mps":
            raise UserError(f"{self.world} processes can't share one mps device; use --nproc 1 or --device cpu")
        if place.type != "cuda":
            return place
        if self.local >= torch.cuda.device_count():
            raise UserError(
                f"this machine has {torch.cuda.device_count()} CUDA devices; give --nproc {torch.cuda.device_count()} at most"
            )
        torch.cuda.set_device(self.local)
        return torch.device("cuda", self.local)

    def disconnect(self) -> None:
        self.mean(0.0)  # a barrier: raises if a process is gone
        dist.destroy_process_group()

    def place(self, model: GPT, device: torch.device, products: torch.dtype | None = None) -> Losses:
        for _, parameter in model.weights():
            self.broadcast_tensor(parameter.detach())
        whole = _RankLosses(model, products)
        if self.shard:
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard

            mesh = init_device_mesh(device.type, (self.world,))
            # Shard block by block from the CPU: the device never holds more than one unsharded block.
            for block in model.blocks:
                fully_shard(block, mesh=mesh)
            # Reshard the root module too: between steps the optimizer needs sharded parameters.
            self._wrapped = fully_shard(whole, mesh=mesh, reshard_after_forward=True)
        else:
            model.to(device)
            self._wrapped = nn.parallel.DistributedDataParallel(
                whole,
                device_ids=[device.index] if device.type == "cuda" else None,
                gradient_as_bucket_view=True,
                init_sync=False,
            )
        losses: Losses = self._wrapped
        return losses

    @contextlib.contextmanager
    def gradients(self, *, shared: bool) -> Iterator[None]:
        if self.shard:
            self._wrapped.set_requires_gradient_sync(shared)
            yield
        else:
            with contextlib.nullcontext() if shared else self._wrapped.no_sync():
                yield

    def mean(self, value: float) -> float:
        sum_ = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(sum_, group=self._control)
        return float(sum_) / self.world

    def gather(self, values: list[float]) -> list[list[float]]:
        mine = torch.tensor(values, dtype=torch.float64)
        found = [torch.empty_like(mine) for _ in range(self.world)]
        dist.all_gather(found, mine, group=self._control)
        return [one.tolist() for one in found]

    def broadcast_int(self, value: int) -> int:
        return int(self.broadcast_tensor(torch.tensor(value)))

    def broadcast_order(self, order: int, step: int = 0, value: float = 0.0) -> tuple[int, int, float]:
        received = self.broadcast_tensor(torch.tensor([order, step, value], dtype=torch.float64)).tolist()
        return int(received[0]), int(received[1]), received[2]

    def broadcast_tensor(self, value: Tensor) -> Tensor:
        dist.broadcast(value, 0, group=self._control)
        return value

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        if not self.first:
            self._agree("")
        try:
            yield
        except Stopped:
            self._agree("stop")
            raise
        except (UserError, OSError, MemoryError, RuntimeError) as error:
            self._agree(str(error) or type(error).__name__)
            raise
        self._agree("")
        if self.first:
            self._agree("")

    def _agree(self, trouble: str) -> None:
        """Raises the error of the first process that passed `trouble` in all processes without one."""
        if trouble:
            self._store().set(f"trouble/{self.rank}", trouble)
        if self.mean(bool(trouble)) == 0:
            return
        troubles = [] if trouble else [self._stored(f"trouble/{rank}") for rank in range(self.world)]
        with contextlib.suppress(RuntimeError):  # a process may still be gone
            self.mean(0.0)  # a barrier: a process that exits earlier may end the store
        if trouble:
            return
        rank, why = next(((rank, why) for rank, why in enumerate(troubles) if why), (0, self._ended))
        raise Stopped if why == "stop" else UserError(f"process {rank}: {why}" if rank else why)

    def fail(self, why: str) -> None:
        with contextlib.suppress(Exception):  # the store may be gone
            self._store().set("failed", f"process {self.rank} of {self.world}: {why}")

    def lost(self, error: Exception) -> str | None:
        if isinstance(error, torch.OutOfMemoryError) or not isinstance(error, dist.DistError | RuntimeError):
            return None
        message = str(error).lower()
        if not (
            isinstance(error, dist.DistError) or any(word in message for word in ("gloo", "nccl", "connection", "peer"))
        ):
            return None
        return self._stored("failed") or self._ended

    @property
    def _ended(self) -> str:
        return f"one of the {self.world} processes was ended from outside; resume from the last checkpoint"

    def _store(self) -> Any:
        return torch_private.default_store()

    def _stored(self, key: str) -> str:
        with contextlib.suppress(Exception):
            if self._store().check([key]):
                return str(self._store().get(key).decode())
        return ""


class _RankLosses(nn.Module):
    """The model's losses as a module, so that DDP and FSDP wrap `forward`."""

    def __init__(self, model: GPT, products: torch.dtype | None) -> None:
        super().__init__()
        self.model, self.products = model, products

    def forward(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.losses(inputs, targets, self.products)


def of_this_process(shard: bool) -> Ranks:
    """Returns `Torchrun` if torchrun started this process with others, else `Ranks`."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "LOCAL_RANK" in os.environ:
        return Torchrun(shard)
    return Ranks()


# ── sharded and full tensors ──────────────────────────────────────────────────────────────────────────────────────


def whole(tensor: Tensor) -> Tensor:
    """Returns the full tensor of a sharded one. All processes must call it."""
    gather = getattr(tensor, "full_tensor", None)
    return gather() if gather else tensor


def part_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Returns this process's shard of the full `tensor`, with `parameter`'s placements."""
    if not hasattr(parameter, "full_tensor") or tensor.dim() == 0:
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(parameter, DTensor)
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)
