"""Several processes that train one model, each a share of every batch.

`Ranks` is one process alone; `Torchrun` is one of many that torchrun started, on one machine or on several. Under it
every process has the whole model and the gradients are averaged (DDP), or each has a part of every weight (`shard`:
FSDP2, `fully_shard`; Zhao et al. 2023, "PyTorch FSDP"). Rank 0 alone decides and writes.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tui_llm.common.errors import UserError
from tui_llm.llm.model import device as devices
from tui_llm.llm.model.model import GPT

if TYPE_CHECKING:
    pass

Loss = Callable[[Tensor, Tensor], Tensor]
GO, STOP, SAVE, CHANGE = range(4)  # what rank 0 tells the others between two steps
PATIENCE = timedelta(days=30)  # of those that wait for rank 0: it may be paused, or tokenising


class Stopped(Exception):
    """Told to stop before the first step."""


class Ranks:
    """One process, alone: nothing is shared, and rank 0's word needs no hearing."""

    rank, world, shard = 0, 1, False

    @property
    def first(self) -> bool:
        """Whether this is the process that decides, and writes."""
        return self.rank == 0

    def connect(self, device: str) -> None:
        """Waits until all are there; `device` is the run's."""

    def choose(self, device: str) -> torch.device:
        """This process's own device. Raises `UserError` where there is none."""
        return devices.choose(device)

    def leave(self) -> None:
        """The orderly end."""

    def place(self, model: GPT, device: torch.device, products: torch.dtype | None = None) -> Loss:
        """Moves `model` to `device`; returns its loss of inputs and targets, whose gradients `gradients` can share.
        `products` is how it multiplies (see `GPT.features`)."""
        model.to(device)
        return functools.partial(model.loss, products=products)

    @contextlib.contextmanager
    def gradients(self, *, shared: bool) -> Iterator[None]:
        """Around a forward and a backward pass: whether the gradients are averaged over all processes at its end."""
        yield

    def mean(self, value: float) -> float:
        """The mean of every process's `value`, the same for all."""
        return value

    def total(self, value: float) -> float:
        return self.mean(value) * self.world

    def number(self, value: int) -> int:
        """Rank 0's `value`."""
        return value

    def tell(self, order: int, step: int = 0, value: float = 0.0) -> tuple[int, int, float]:
        """What rank 0 said here: GO, STOP, SAVE, or CHANGE with a step and a learning rate."""
        return order, step, value

    def tensor(self, value: Tensor) -> Tensor:
        """Rank 0's `value` (on the CPU) for all, written into theirs."""
        return value

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """Rank 0 does what is inside first, then the others. What fails for one, fails for all."""
        yield

    def fail(self, why: str) -> None:
        """Leaves word for rank 0."""

    def lost(self, error: Exception) -> str | None:
        """What happened to another process, where that is what `error` is about."""
        return None


class Torchrun(Ranks):
    def __init__(self, shard: bool) -> None:
        self.rank, self.world, self.local = (int(os.environ[n]) for n in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        self.shard = shard
        self._wrapped: Any = None

    def connect(self, device: str) -> None:
        cuda = device != "cpu" and torch.cuda.is_available()
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
        # Whoever waits for rank 0 waits here: the other groups' time limits are for steps, which are short.
        self._control = dist.new_group(backend="gloo", timeout=PATIENCE)

    def choose(self, device: str) -> torch.device:
        kind, _, index = device.partition(":")
        if index:
            raise UserError(
                f"each of {self.world} processes takes a device of its own; say --device {kind}, not {device}"
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

    def leave(self) -> None:
        self.mean(0.0)  # all have come this far, or it raises
        dist.destroy_process_group()

    def place(self, model: GPT, device: torch.device, products: torch.dtype | None = None) -> Loss:
        for _, parameter in model.weights():
            self.tensor(parameter.detach())
        whole = _Loss(model, products)
        if self.shard:
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard

            mesh = init_device_mesh(device.type, (self.world,))
            # From the CPU, block by block: the device never holds more than one of them whole.
            for block in model.blocks:
                fully_shard(block, mesh=mesh)
            # The rest too is cut up again after each pass: between steps every parameter is the optimiser's.
            self._wrapped = fully_shard(whole, mesh=mesh, reshard_after_forward=True)
        else:
            model.to(device)
            self._wrapped = nn.parallel.DistributedDataParallel(
                whole,
                device_ids=[device.index] if device.type == "cuda" else None,
                gradient_as_bucket_view=True,
                init_sync=False,
            )
        loss: Loss = self._wrapped
        return loss

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

    def number(self, value: int) -> int:
        return int(self.tensor(torch.tensor(value)))

    def tell(self, order: int, step: int = 0, value: float = 0.0) -> tuple[int, int, float]:
        told = self.tensor(torch.tensor([order, step, value], dtype=torch.float64)).tolist()
        return int(told[0]), int(told[1]), told[2]

    def tensor(self, value: Tensor) -> Tensor:
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
        """Raises what troubles the first process that is troubled, in all the others."""
        if trouble:
            self._store().set(f"trouble/{self.rank}", trouble)
        if self.mean(bool(trouble)) == 0:
            return
        told = [] if trouble else [self._left(f"trouble/{rank}") for rank in range(self.world)]
        with contextlib.suppress(RuntimeError):  # one of them may be gone all the same
            self.mean(0.0)  # nobody leaves, and takes the store along, before all have read
        if trouble:
            return
        rank, why = next(((rank, why) for rank, why in enumerate(told) if why), (0, self._ended))
        raise Stopped if why == "stop" else UserError(f"process {rank}: {why}" if rank else why)

    def fail(self, why: str) -> None:
        with contextlib.suppress(Exception):  # there may be nobody left to hear it
            self._store().set("failed", f"process {self.rank} of {self.world}: {why}")

    def lost(self, error: Exception) -> str | None:
        if isinstance(error, torch.OutOfMemoryError) or not isinstance(error, dist.DistError | RuntimeError):
            return None
        words = str(error).lower()
        if not (isinstance(error, dist.DistError) or any(w in words for w in ("gloo", "nccl", "connection", "peer"))):
            return None
        said = self._left("failed")
        return said or self._ended

    @property
    def _ended(self) -> str:
        return f"one of the {self.world} processes was ended from outside; resume from the last checkpoint"

    def _store(self) -> Any:
        return dist.distributed_c10d._get_default_store()

    def _left(self, key: str) -> str:
        with contextlib.suppress(Exception):
            if self._store().check([key]):
                return str(self._store().get(key).decode())
        return ""


class _Loss(nn.Module):
    """The loss as a module: what it calls of the model, DDP and FSDP need not know."""

    def __init__(self, model: GPT, products: torch.dtype | None) -> None:
        super().__init__()
        self.model, self.products = model, products

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return self.model.loss(inputs, targets, self.products)


def of_this_process(shard: bool) -> Ranks:
    """What torchrun's environment says; a process that it did not start is alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "LOCAL_RANK" in os.environ:
        return Torchrun(shard)
    return Ranks()


# ── parts of tensors, and the whole of them ──────────────────────────────────────────────────────────────────────


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor of which each process holds a part. All of them have to ask."""
    gather = getattr(tensor, "full_tensor", None)
    return gather() if gather else tensor


def part_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """This process's part of a whole `tensor`, cut as `parameter` is."""
    if not hasattr(parameter, "full_tensor") or tensor.dim() == 0:
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(parameter, DTensor)
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)
