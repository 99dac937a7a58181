"""Supervised fine-tuning on instruction–answer pairs: cross-entropy on the answers' tokens only.

This is the first of the three stages of Ouyang et al. 2022, "Training language models to follow instructions with human
feedback", section 3. The other two, which learn from human preferences, are not implemented.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tui_llm.common.errors import Overtaken, UserError
from tui_llm.llm.data.instruction_pairs import Pair
from tui_llm.llm.model import device, torch_private
from tui_llm.llm.model.model import GPT
from tui_llm.llm.tokens.tokenizer import Tokenizer

IGNORE = -100  # F.cross_entropy's ignore_index: for the instruction's tokens and for padding
BETAS, WEIGHT_DECAY, CLIP = (0.9, 0.95), 0.0, 1.0


@dataclass(frozen=True, slots=True)
class Example:
    """One training row: targets[t] is the token after inputs[t], or `IGNORE` if that token belongs to the
    instruction."""

    inputs: tuple[int, ...]
    targets: tuple[int, ...]

    @property
    def answer_tokens(self) -> int:
        return sum(target != IGNORE for target in self.targets)


def example(pair: Pair, tokenizer: Tokenizer, context: int) -> Example:
    """Tokenize the instruction, a line break, the answer and, if the vocabulary has it, `<|endoftext|>`, from which the
    model learns to end the answer. Raises `UserError` if they exceed the context."""
    asked, answer = tokenizer.encode(pair.question), tokenizer.encode("\n" + pair.answer)
    if tokenizer.end_of_text is not None:
        answer = [*answer, tokenizer.end_of_text]
    ids = asked + answer
    if len(ids) - 1 > context:
        raise UserError(
            f"a pair has {len(ids):,} tokens, {len(ids) - 1 - context:,} more than the model sees at once; shorten "
            f"{pair.question[:40]!r} or its answer"
        )
    return Example(tuple(ids[:-1]), (*[IGNORE] * (len(asked) - 1), *answer))


def padded(examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """Inputs and targets (B, T), padded on the right, where causal attention ignores the padding."""
    length = max(len(one.inputs) for one in examples)
    inputs = [[*one.inputs, *[0] * (length - len(one.inputs))] for one in examples]
    targets = [[*one.targets, *[IGNORE] * (length - len(one.targets))] for one in examples]
    return torch.tensor(inputs), torch.tensor(targets)


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean cross-entropy of the answers' tokens, in nats: logits (B, T, V), targets (B, T) → scalar."""
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORE)


@contextmanager
def enough_memory() -> Iterator[None]:
    """Convert every out-of-memory exception of torch into a one-line `UserError`."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        out_of_memory = isinstance(error, torch.OutOfMemoryError)  # a subclass of RuntimeError
        if isinstance(error, RuntimeError) and not out_of_memory and "memory" not in str(error).lower():
            raise
        raise UserError(
            "there is not enough memory to fine-tune this model; take a smaller one, or fewer pairs"
        ) from error


class Tuner:
    """Full-batch fine-tuning of a copy of `origin`, which is not modified. `size` is V."""

    def __init__(self, origin: GPT, examples: Sequence[Example], size: int, learning_rate: float) -> None:
        self.model = copy.deepcopy(origin).requires_grad_(True)
        self.size, self.losses = size, list[float]()  # losses[i]: before step i + 1
        self._inputs, self._targets = (t.to(origin.device) for t in padded(examples))
        self._optimizer = torch_private.AdamW(self.model.decay_groups(WEIGHT_DECAY), lr=learning_rate, betas=BETAS)

    def _loss(self) -> Tensor:
        return loss(self.model(self._inputs)[..., : self.size], self._targets)

    def go(self, steps: int, overtaken: Callable[[], bool] = lambda: False) -> float:
        """Train up to step number `steps` and return the loss after it. Raises `Overtaken` between two steps; the next
        call continues from there. Raises `UserError` if the loss is not finite, or memory runs out."""
        with enough_memory(), device.threads(self.model.config.parameters() * self._inputs.numel()):
            while len(self.losses) < steps:
                if overtaken():
                    raise Overtaken
                self._optimizer.zero_grad(set_to_none=True)
                now = self._loss()
                self._check(float(now.detach()))
                now.backward()
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
                self._optimizer.step()
                self.losses.append(float(now.detach()))
            with torch.no_grad():
                return self._check(float(self._loss()))

    def _check(self, value: float) -> float:
        if not math.isfinite(value):
            raise UserError("the loss is no longer finite: the learning rate is too large, give a smaller one")
        return value
