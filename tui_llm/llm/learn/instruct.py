"""Supervised fine-tuning on instruction–answer pairs: cross-entropy on the answers' tokens only.

This is the first of the three stages of Ouyang et al. 2022, "Training language models to follow instructions with human
feedback", section 3.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tui_llm.common.errors import Overtaken, UserError
from tui_llm.llm.data.instruction_pairs import Pair
from tui_llm.llm.learn.undoable import BUDGET, StoredStates, enough_memory
from tui_llm.llm.model import device, torch_private
from tui_llm.llm.model.model import GPT
from tui_llm.llm.tokens.tokenizer import Tokenizer

FEWER = "fewer pairs"  # what needs less memory
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


def prompt(question: str, tokenizer: Tokenizer) -> list[int]:
    """What is fed for a question, and what its answer follows in training: the question and a line break, encoded as one text,
    as the chat template `INSTRUCT` is. Some vocabularies (Llama 3's, Qwen's) have a token for `?` and line break together."""
    return tokenizer.encode(question + "\n")


def example(pair: Pair, tokenizer: Tokenizer, context: int) -> Example:
    """Tokenize the prompt, the answer and, if the vocabulary has it, `<|endoftext|>`, from which the model learns to end the
    answer. A line break that is a token of its own is learned with the answer: so a question without it, as one types it, is
    answered too. Raises `UserError` if all exceed the context."""
    question, asked = tokenizer.encode(pair.question), prompt(pair.question, tokenizer)
    given = len(question) if asked[: len(question)] == question else len(asked)
    answer = tokenizer.encode_after(pair.answer)
    if tokenizer.end_of_text is not None:
        answer = [*answer, tokenizer.end_of_text]
    ids = asked + answer
    if len(ids) - 1 > context:
        raise UserError(
            f"a pair has {len(ids):,} tokens, {len(ids) - 1 - context:,} more than the model sees at once; shorten "
            f"{pair.question[:40]!r} or its answer"
        )
    return Example(tuple(ids[:-1]), (*[IGNORE] * (given - 1), *ids[given:]))


def padded(examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """Inputs and targets (B, T), padded on the right, where causal attention ignores the padding."""
    length = max(len(one.inputs) for one in examples)
    inputs = [[*one.inputs, *[0] * (length - len(one.inputs))] for one in examples]
    targets = [[*one.targets, *[IGNORE] * (length - len(one.targets))] for one in examples]
    return torch.tensor(inputs), torch.tensor(targets)


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean cross-entropy of the answers' tokens, in nats: logits (B, T, V), targets (B, T) → scalar."""
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORE)


def greedy_answers(
    model: GPT, prompts: Sequence[Sequence[int]], size: int, ends: Callable[[int], bool], count: int,
    overtaken: Callable[[], bool] = lambda: False,
) -> list[list[int]]:  # fmt: skip
    """The likeliest token after each of the prompts, and so on, up to `count` tokens or until an end-of-text token, which
    is not part of the answer. All prompts are a batch; one ends where the context does. Raises `Overtaken`."""
    ids, context = [list(prompt) for prompt in prompts], model.config.context
    going = set(range(len(ids)))
    with torch.no_grad(), device.threads(model.config.parameters() * sum(map(len, ids))):
        for _ in range(count):
            going = {at for at in going if len(ids[at]) < context}
            if not going:
                break
            if overtaken():
                raise Overtaken
            rows = sorted(going)
            length = max(len(ids[at]) for at in rows)
            inputs = torch.tensor([ids[at] + [0] * (length - len(ids[at])) for at in rows], device=model.device)
            last = torch.tensor([len(ids[at]) - 1 for at in rows], device=model.device)
            logits = model(inputs)[torch.arange(len(rows), device=model.device), last, :size]
            for at, id in zip(rows, logits.argmax(-1).tolist(), strict=True):
                if ends(id):
                    going.discard(at)
                else:
                    ids[at].append(id)
    return [made[len(prompt) :] for made, prompt in zip(ids, prompts, strict=True)]


class Tuner:
    """Full-batch fine-tuning of a copy of `origin`, which is not modified. `size` is V.

    With `undo`, `move_to` can go back: the states that it passed are stored, up to `BUDGET` bytes; an older one is
    recomputed from the original weights, as steps are deterministic.
    """

    def __init__(
        self, origin: GPT, examples: Sequence[Example], size: int, learning_rate: float, *, undo: bool = False
    ) -> None:
        self.origin, self.learning_rate, self.undo = origin, learning_rate, undo
        self.model = copy.deepcopy(origin).requires_grad_(True)
        self.size, self.losses = size, list[float]()  # losses[i]: before step i + 1
        self._inputs, self._targets = (t.to(origin.device) for t in padded(examples))
        self._optimizer = self._new_optimizer()
        self._states = StoredStates(origin, BUDGET)

    def _new_optimizer(self) -> torch.optim.Optimizer:
        groups = self.model.decay_groups(WEIGHT_DECAY)
        return torch_private.AdamW(groups, lr=self.learning_rate, betas=BETAS)

    def _loss(self) -> Tensor:
        return loss(self.model(self._inputs)[..., : self.size], self._targets)

    def move_to(self, steps: int, overtaken: Callable[[], bool] = lambda: False) -> float:
        """Move to the weights after `steps` steps, forward or back, and return the loss there. Raises as `go`; if the
        loss is not finite, the weights are those before this call."""
        before = len(self.losses)
        if steps < before:
            self._restore(steps)
        try:
            after = self.go(steps, overtaken)
        except UserError:
            self._restore(min(before, steps))
            self.go(min(before, steps))
            raise
        if self.undo and self.losses:
            self._states.store(len(self.losses), self.model, self._optimizer)
        return after

    def _restore(self, steps: int) -> None:
        """Restore the newest stored state of at most `steps` steps, else the original weights; `go` repeats the rest."""
        self._states.drop_after(steps)
        self._optimizer = self._new_optimizer()
        del self.losses[self._states.restore(self.model, self._optimizer) :]

    def _memory(self) -> AbstractContextManager[None]:
        return enough_memory(16 * self.origin.config.parameters(), FEWER)

    def token_losses(self, model: GPT) -> list[list[float]]:
        """−ln p of each answer token, in nats, of each example, with `model`: the tuned one, or the original."""
        with torch.no_grad(), self._memory(), device.threads(model.config.parameters() * self._inputs.numel()):
            logits = model(self._inputs)[..., : self.size].float()
            each = F.cross_entropy(logits.transpose(1, 2), self._targets, ignore_index=IGNORE, reduction="none")
        kept = self._targets != IGNORE
        return [row[mask].tolist() for row, mask in zip(each, kept, strict=True)]

    def go(self, steps: int, overtaken: Callable[[], bool] = lambda: False) -> float:
        """Train up to step number `steps` and return the loss after it. Raises `Overtaken` between two steps; the next
        call continues from there. Raises `UserError` if the loss is not finite, or memory runs out."""
        with self._memory(), device.threads(self.model.config.parameters() * self._inputs.numel()):
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
