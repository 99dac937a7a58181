"""Optimizer steps on one prompt and target, on a copy of the weights; every step can be undone exactly.

One step: the mean cross-entropy of the target's tokens after the prompt (teacher forcing, no dropout), its gradient for
all weights, and an update by SGD or AdamW. The states after the last steps are stored, up to `BUDGET` bytes. An older
state is recomputed from the original weights: steps are deterministic.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F

from tui_llm.common.errors import Overtaken, UserError
from tui_llm.facts.recipe import LearnStep, Recipe
from tui_llm.llm.learn.undoable import OUT_OF_MEMORY, StoredStates, enough_memory
from tui_llm.llm.model import device, torch_private
from tui_llm.llm.model.model import GPT
from tui_llm.llm.predict.forced import forced_logits
from tui_llm.llm.predict.loss import token_losses

BUDGET = 256 << 20  # bytes for stored states, AdamW's moments included: for nano five with AdamW, fifteen with SGD


class Learner:
    """Trains a copy of `origin`, which is not modified. `size` is V, the number of ids in the vocabulary."""

    def __init__(self, origin: GPT, ids: Sequence[int], wanted: Sequence[int], size: int) -> None:
        self.origin, self.ids, self.wanted, self.size = origin, list(ids), list(wanted), size
        self.plan: list[Recipe] = []  # the recipes of the steps requested
        self.steps: list[LearnStep] = []  # the steps taken so far: all of the plan, or its beginning
        self._copy: GPT | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._kind = ""
        self._states = StoredStates(origin, BUDGET)

    @property
    def model(self) -> GPT:
        """The model after `steps`."""
        return self._copy if self._copy is not None and self.steps else self.origin

    @property
    def stored(self) -> tuple[int, int]:
        """(number of stored states, their size in bytes)"""
        return self._states.size

    def move_to(self, at: int, recipe: Recipe, overtaken: Callable[[], bool] = lambda: False) -> None:
        """Move to the weights after `at` steps: later steps are undone, missing ones are taken with `recipe`.

        Raises `Overtaken` between two steps if `overtaken()` is true; the next call continues there. Raises `UserError`
        if a step gives non-finite values (the copy is then as before that step) or memory runs out (the copy is then
        discarded).
        """
        self.plan = self.plan[:at] + [recipe] * (at - len(self.plan))
        if at < len(self.steps):
            self._restore(at)
        while len(self.steps) < at:
            if overtaken():
                raise Overtaken
            next_recipe = self.plan[len(self.steps)]
            try:
                with enough_memory(self.bytes(next_recipe.optimizer), "SGD, which needs less than AdamW"):
                    self._step(next_recipe)
            except UserError as error:
                if isinstance(error.__cause__, OUT_OF_MEMORY):
                    self._discard()
                raise

    def bytes(self, optimizer: str) -> int:
        """Bytes of memory that the copy needs: float32 weights and gradients, and AdamW's two moments."""
        return 4 * self.origin.config.parameters() * (4 if optimizer == "adamw" else 2)

    def _step(self, recipe: Recipe) -> None:
        done = len(self.steps)
        if self._copy is None:
            self._copy = copy.deepcopy(self.origin).requires_grad_(True)
        model = self._copy
        with device.threads(self.origin.config.parameters() * (len(self.ids) + len(self.wanted))):
            model.zero_grad(set_to_none=True)
            logits = forced_logits(model, self.ids, self.wanted, self.size)
            F.cross_entropy(logits, torch.tensor(self.wanted, device=logits.device)).backward()
            norm = float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))
            if not math.isfinite(norm):
                del self.plan[done:]
                raise UserError("the gradient is no longer finite: the earlier steps were too large, undo some of them")
            self._optimizer_for(recipe).step()
            model.zero_grad(set_to_none=True)
            try:
                with torch.no_grad():
                    losses = token_losses(forced_logits(model, self.ids, self.wanted, self.size).cpu(), self.wanted)
            except UserError:  # non-finite logits
                raise self._not_finite(done, recipe) from None
        total = math.fsum(loss.nats for loss in losses)
        self.steps.append(LearnStep(done + 1, recipe, norm, total / len(losses), math.exp(-total)))
        assert self._optimizer is not None
        self._states.store(done + 1, model, self._optimizer, moments=2 if self._kind == "adamw" else 0)

    def _not_finite(self, done: int, recipe: Recipe) -> UserError:
        """Undo the step that gave non-finite logits, and return the error to raise."""
        del self.plan[done:]
        self.steps.append(LearnStep(done + 1, recipe, math.nan, math.nan, 0.0))
        self._restore(done)
        return UserError(
            f"with a step size of {recipe.learning_rate:g} the logits are not finite: that step was undone, choose a smaller one"
        )

    def _optimizer_for(self, recipe: Recipe) -> torch.optim.Optimizer:
        """The optimizer of the previous step, with its state, or a new one if the kind changes."""
        assert self._copy is not None
        if self._optimizer is None or self._kind != recipe.optimizer:
            self._optimizer, self._kind = self._new(recipe.optimizer), recipe.optimizer
        for group in self._optimizer.param_groups:
            group["lr"] = recipe.learning_rate
        return self._optimizer

    def _new(self, optimizer: str) -> torch.optim.Optimizer:
        assert self._copy is not None
        if optimizer == "adamw":
            return torch_private.AdamW(self._copy.parameters(), betas=(0.9, 0.999), weight_decay=0.01)
        return torch_private.SGD(self._copy.parameters())

    def _restore(self, at: int) -> None:
        """Restore the newest stored state of at most `at` steps, or else the original weights. `move_to` then repeats
        the steps from there."""
        self._states.drop_after(at)
        del self.steps[self._states.newest :]
        self._optimizer, self._kind = None, ""
        if self._copy is None:
            return
        if self.steps:
            self._kind = self.steps[-1].recipe.optimizer
            self._optimizer = self._new(self._kind)
        self._states.restore(self._copy, self._optimizer)

    def _discard(self) -> None:
        self.plan, self.steps, self._states = [], [], StoredStates(self.origin, BUDGET)
        self._copy, self._optimizer, self._kind = None, None, ""
