"""Policy gradient of a run: answers are drawn, a rule scores them, and those above their group's mean become likelier."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tui_llm.facts.policy import PolicySettings
from tui_llm.llm.data.answer_rows import AnswerRows, Ints
from tui_llm.llm.learn import policy_gradient, reward
from tui_llm.llm.learn.answer_batch import padded
from tui_llm.llm.learn.instruct import IGNORE
from tui_llm.llm.learn.policy_gradient import PolicyTerms
from tui_llm.llm.model.model import GPT
from tui_llm.llm.predict.draw_group import draw_group, row_seed
from tui_llm.llm.tokens.tokenizer import Tokenizer
from tui_llm.training.run.settings import TrainingSettings
from tui_llm.training.worker.answers import ROWS, AnswerTrainer, mean, number_or_none

EVALUATION = 1 << 40  # the first number of an answer that is drawn for an evaluation: no step draws with it


@dataclass(frozen=True, slots=True)
class Group:
    """K answers to one prompt, each with the token that ended it, if one did, and their rewards."""

    prompt: list[int]
    answers: list[list[int]]
    rewards: list[float]

    @property
    def learns(self) -> bool:
        """Whether there is anything to learn: not all rewards are equal."""
        return len(set(self.rewards)) > 1


@dataclass(frozen=True, slots=True)
class DrawnBatch:
    """A batch of groups as tensors: inputs, targets, ln π when they were drawn and ln ref (N, T), advantages (groups, K).

    `computed`: the tokens of a forward pass over it.
    """

    groups: list[Group]
    inputs: Tensor
    targets: Tensor
    old: Tensor
    reference: Tensor
    advantages: Tensor
    computed: int

    @property
    def answer_tokens(self) -> int:
        return int((self.targets != IGNORE).sum())


class RewardTrainer(AnswerTrainer):
    """One step: `samples` answers to each of `batch_size` × `grad_accumulation_steps` prompts, then `updates` updates on them.

    The loss that is recorded is β KL − reward, the mean over the answers, KL being the sum over an answer's tokens. It is what
    such a run is after, not what an update descends (see `llm/learn/policy_gradient.py`), and may rise. Answer k of a step
    depends on the seed, the step and the weights alone. If all rewards of every group are equal, no update is made.
    """

    def __init__(
        self,
        model: GPT,
        reference: GPT,
        rows: AnswerRows,
        tokenizer: Tokenizer,
        settings: TrainingSettings,
        device: torch.device,
    ) -> None:
        super().__init__(model, reference, rows, tokenizer, settings, device)
        self.policy, self.rule = policy_settings(settings), reward.parse(settings.reward)
        self._batches, self._learns = list[DrawnBatch](), False

    def split(self) -> tuple[Ints, Ints]:
        return self.answers.prompts_split(self.settings.validation_fraction, self.settings.seed)

    @torch.no_grad()
    def _draw(self, rows: Sequence[int], first: int) -> list[Group]:
        """A group for each of the prompts `rows`; `first` is the number of the first answer."""
        s, groups = self.settings, []
        self.model.eval()
        for row in rows:
            prompt = self.answers.prompts.row(row)
            seeds = [row_seed(s.seed, number) for number in range(first, first + s.samples)]
            first += s.samples
            drawn = draw_group(
                self.model, prompt, seeds, size=self.size, count=s.answer_tokens, temperature=s.temperature,
                ends=self.tokenizer.ends,
            )  # fmt: skip
            scores = [self.rule.score(one.text(self.tokenizer, prompt[-1])) for one in drawn]
            groups.append(Group(prompt, [list(one.ids) for one in drawn], scores))
        return groups

    def _groups(self, number: int, part: int) -> list[Group]:
        """The answers of batch `part` of step `number`."""
        s = self.settings
        first = ((number - 1) * s.grad_accumulation_steps + part) * s.batch_size * s.samples
        return self._draw(self.take(number, part), first)

    def _logs(self, model: GPT, inputs: Tensor, targets: Tensor) -> Tensor:
        with self.autocast():
            return policy_gradient.answer_log_probabilities(
                model, inputs, targets, self.size, self.settings.temperature, self.products
            )

    @torch.no_grad()
    def _drawn(self, groups: list[Group]) -> DrawnBatch:
        rows = [(group.prompt, answer) for group in groups for answer in group.answers]
        sides = padded(rows)
        computed = policy_gradient.computed_tokens(*sides, self.products)
        inputs, targets = (side.to(self.device) for side in sides)
        scores = torch.tensor([group.rewards for group in groups])
        advantages = policy_gradient.group_advantages(scores, self.policy.advantage)
        old, reference = (self._logs(model, inputs, targets) for model in (self.model, self.reference))
        return DrawnBatch(groups, inputs, targets, old, reference, advantages, computed)

    def _terms(self, drawn: DrawnBatch, logs: Tensor) -> PolicyTerms:
        """The terms of a batch, given ln π of its tokens now."""
        advantages, mask = drawn.advantages.flatten().to(logs), drawn.targets != IGNORE
        return policy_gradient.policy_loss(
            logs, drawn.old, drawn.reference, advantages, mask, self.policy, self.settings.answer_tokens
        )

    def _backward(self, number: int) -> float:
        self._batches = [self._drawn(self._groups(number, part)) for part in self.parts]
        groups = [group for drawn in self._batches for group in drawn.groups]
        found = [self._terms(drawn, drawn.old) for drawn in self._batches]
        self._learns = any(group.learns for group in groups)
        if self._learns:
            self._gradient()
        weights = [drawn.answer_tokens for drawn in self._batches]
        kl = math.fsum(weight * float(terms.kl) for weight, terms in zip(weights, found, strict=True)) / sum(weights)
        self.measured = {"reward": mean_reward(groups), "kl": kl,
                         "reward_std": mean([statistics.stdev(group.rewards) for group in groups])}  # fmt: skip
        rows = [(group.prompt, answer) for group in groups for answer in group.answers]
        self.count(rows, sum(drawn.computed for drawn in self._batches), None if self._learns else 0)
        return self._objective(self.measured["reward"], found)

    def _gradient(self) -> None:
        self.model.train()
        weights = [1] * len(self._batches)
        if self.policy.average == "token":  # every token of the step counts the same, in whatever batch it is
            weights = [drawn.answer_tokens for drawn in self._batches]
        for drawn, weight in zip(self._batches, weights, strict=True):
            terms = self._terms(drawn, self._logs(self.model, drawn.inputs, drawn.targets))
            (terms.loss * weight / sum(weights)).backward()

    def _apply(self, number: int, lr: float, total: float | Tensor) -> float:
        if not self._learns:
            self.done = number
            return 0.0  # not even a step of the optimizer: its momentum would move the weights
        norm = super()._apply(number, lr, total)
        for _ in range(1, self.settings.updates):
            for parameter in self.parameters:
                parameter.grad = None
            self._gradient()
            super()._apply(number, lr, total)
        return norm

    def _objective(self, scored: float, found: Sequence[PolicyTerms]) -> float:
        """The loss that is recorded, from the mean reward and the terms of batches of equally many answers."""
        return self.policy.beta * mean([float(terms.answer_kl) for terms in found]) - scored

    @torch.no_grad()
    def validate(self) -> float:
        """The loss of answers to the held-out prompts, drawn with the same numbers each time. Adds their mean reward and KL to
        the step's metric."""
        groups = self._draw(self.held_out, EVALUATION)
        drawn = self._drawn(groups)
        terms = self._terms(drawn, drawn.old)
        self.measured |= {"val_reward": mean_reward(groups), "val_kl": float(terms.kl)}
        return self._objective(self.measured["val_reward"], [terms])

    @torch.no_grad()
    def measure_batch(self, updates: int) -> dict[str, Any]:
        s, shown, scores, terms, longest = self.settings, list[dict[str, Any]](), list[float](), list[PolicyTerms](), 1
        self.model.eval()
        for part in range(s.grad_accumulation_steps):
            groups = self._groups(updates + 1, part)
            drawn = self._drawn(groups)
            terms.append(self._terms(drawn, drawn.old))
            scores += [mean_reward(groups)]
            longest = max(longest, *(len(answer) for group in groups for answer in group.answers))
            for at, group in enumerate(groups):
                for number, answer in enumerate(group.answers[: ROWS - len(shown)]):
                    row, first = at * s.samples + number, len(group.prompt) - 1
                    found = drawn.old[row, first : first + len(answer)].tolist()
                    label = f"reward {group.rewards[number]:.3g}, advantage {float(drawn.advantages[at, number]):+.3g}"
                    shown.append(self.shown(part * s.batch_size * s.samples + row, group.prompt, answer, found, label,
                                            group.rewards[number]))  # fmt: skip
        loss = self._objective(mean(scores), terms)
        return {"step": updates + 1, "updates": updates, "loss": number_or_none(loss), "objective": s.objective,
                "rows": s.batch_size * s.grad_accumulation_steps * s.samples, "tokens": longest, "shown": shown}  # fmt: skip


def policy_settings(settings: TrainingSettings) -> PolicySettings:
    return PolicySettings(
        advantage=settings.advantage,
        average=settings.average,
        clip=settings.clip_ratio,
        beta=settings.kl_weight,
        temperature=settings.temperature,
    )


def mean_reward(groups: Sequence[Group]) -> float:
    return mean([score for group in groups for score in group.rewards])
