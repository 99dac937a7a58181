"""A copy of a model that is trained in steps, each of which can be undone exactly.

The states after the last steps are stored, up to a number of bytes. An older state is recomputed: the steps before it are
taken again from the newest stored state, or from the original weights. Steps must be deterministic.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tui_llm.common.errors import UserError
from tui_llm.common.numbers import memory_size
from tui_llm.llm.model import torch_private
from tui_llm.llm.model.model import GPT

BUDGET = 256 << 20  # bytes for stored states, AdamW's moments included: for nano five

Step = Callable[[GPT, torch.optim.Optimizer], object]
OUT_OF_MEMORY = (torch.OutOfMemoryError, MemoryError, RuntimeError)  # RuntimeError: on a CPU, if its text says so


@contextmanager
def enough_memory(needed: int, fewer: str = "fewer or shorter answers") -> Iterator[None]:
    """Convert every out-of-memory exception of torch into a one-line `UserError`; `needed` is the bytes of a copy."""
    try:
        yield
    except OUT_OF_MEMORY as error:
        out_of_memory = isinstance(error, torch.OutOfMemoryError)  # a subclass of RuntimeError
        if isinstance(error, RuntimeError) and not out_of_memory and "memory" not in str(error).lower():
            raise
        raise UserError(
            f"there is not enough memory: a step needs {memory_size(needed)} beside the model; take a smaller model, or "
            f"{fewer}"
        ) from error


@dataclass(frozen=True, slots=True)
class _StoredState:
    weights: list[Tensor]
    optimizer: dict[str, Any]  # its state_dict

    @property
    def bytes(self) -> int:
        states = self.optimizer["state"].values()
        tensors = [*self.weights, *(t for state in states for t in state.values() if torch.is_tensor(t))]
        return sum(t.numel() * t.element_size() for t in tensors)


class StoredStates:
    """Weights and optimizer states of `origin`'s copy after some of its steps, up to `budget` bytes."""

    def __init__(self, origin: GPT, budget: int) -> None:
        self.origin, self.budget = origin, budget
        self._states: dict[int, _StoredState] = {}  # number of steps → the state after them

    @property
    def size(self) -> tuple[int, int]:
        """(number of stored states, their size in bytes)"""
        return len(self._states), sum(state.bytes for state in self._states.values())

    def store(self, steps: int, model: GPT, optimizer: torch.optim.Optimizer, *, moments: int = 2) -> None:
        """Store the state after `steps` steps; drop the oldest ones beyond the budget. The optimizer has so many
        `moments` of each weight."""
        if 4 * (1 + moments) * self.origin.config.parameters() > self.budget:  # float32
            return
        weights = [p.detach().clone() for p in model.parameters()]
        self._states[steps] = _StoredState(weights, copy.deepcopy(optimizer.state_dict()))
        while self.size[1] > self.budget:
            del self._states[min(self._states)]

    def drop_after(self, steps: int) -> None:
        self._states = {done: state for done, state in self._states.items() if done <= steps}

    @property
    def newest(self) -> int:
        """After how many steps the newest state is; 0, the original weights, if none is stored."""
        return max(self._states, default=0)

    def restore(self, model: GPT, optimizer: torch.optim.Optimizer | None) -> int:
        """Give `model` and its new `optimizer` the newest state, else the original weights; return its number of steps."""
        start = self.newest
        state = self._states.get(start)
        weights = state.weights if state is not None else list(self.origin.parameters())
        with torch.no_grad():
            for mine, old in zip(model.parameters(), weights, strict=True):
                mine.copy_(old)
        model.zero_grad(set_to_none=True)
        if state is not None and optimizer is not None:
            optimizer.load_state_dict(copy.deepcopy(state.optimizer))
        return start


class UndoableCopy:
    """Trains a copy of `origin`, which is not modified, with AdamW (betas 0.9 and 0.999, no weight decay). A step is a
    function of the copy and its optimizer; it sets the learning rate (`set_learning_rate`)."""

    def __init__(self, origin: GPT, budget: int = BUDGET) -> None:
        self.origin, self.budget = origin, budget
        self._steps: list[Step] = []
        self._copy: GPT | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._states = StoredStates(origin, budget)

    @property
    def count(self) -> int:
        """The number of steps taken."""
        return len(self._steps)

    @property
    def model(self) -> GPT:
        """The model after all steps: the original one before the first."""
        return self._ready()[0] if self._steps else self.origin

    @property
    def bytes(self) -> int:
        """Bytes that a copy needs: float32 weights and gradients, and AdamW's two moments."""
        return 16 * self.origin.config.parameters()

    @property
    def stored(self) -> tuple[int, int]:
        """(number of stored states, their size in bytes)"""
        return self._states.size

    def take(self, step: Step) -> object:
        """Take a step and return what it returns. If it raises, the weights are as before. Raises `UserError` if there is
        not enough memory; all steps are then kept in the list, and their weights are recomputed at the next call."""
        try:
            with enough_memory(self.bytes):
                model, optimizer = self._ready()
                made = step(model, optimizer)
                self._steps.append(step)
                self._states.store(len(self._steps), model, optimizer)
        except Exception as error:
            if isinstance(error.__cause__, OUT_OF_MEMORY):
                self._copy = self._optimizer = None  # recomputed at the next call
                self._states = StoredStates(self.origin, self.budget)
            else:
                self._rewind()
            raise
        return made

    def undo(self, to: int) -> None:
        """Go back to the weights after the first `to` steps, bit for bit."""
        if to < len(self._steps):
            del self._steps[max(0, to) :]
            self._rewind()

    def _rewind(self) -> None:
        """Make the weights those after `_steps`."""
        self._states.drop_after(len(self._steps))
        if self._copy is not None:
            self._replay()

    def _ready(self) -> tuple[GPT, torch.optim.Optimizer]:
        if self._copy is None:
            self._copy = copy.deepcopy(self.origin).requires_grad_(True)
            self._replay()
        assert self._optimizer is not None
        return self._copy, self._optimizer

    def _replay(self) -> None:
        assert self._copy is not None
        self._optimizer = torch_private.AdamW(self._copy.parameters(), betas=(0.9, 0.999), weight_decay=0.0)
        for step in self._steps[self._states.restore(self._copy, self._optimizer) :]:
            step(self._copy, self._optimizer)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
