"""The copy that Reward trains, with the groups of answers that it learned."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch

from tui_llm.common.errors import Overtaken
from tui_llm.instruments.reward.question import RewardGroup, RewardQuestion, RewardStep, ScoredAnswer
from tui_llm.llm.learn import policy_gradient
from tui_llm.llm.learn.policy_gradient import PolicyUpdate, group_advantages, policy_step
from tui_llm.llm.learn.reward import Reward, by_hand, finite
from tui_llm.llm.learn.undoable import UndoableCopy, enough_memory, set_learning_rate
from tui_llm.llm.model import device
from tui_llm.llm.model.model import GPT
from tui_llm.llm.predict.draw_group import DrawnAnswer, draw_group, row_seed
from tui_llm.session.open_model import OpenModel

ALL_EQUAL = "all rewards are equal, so every advantage is 0 and no step was taken: draw again, or change the rule"


class RewardSession:
    """Steps on one prompt, `ids`. The open model is the reference, and is not modified."""

    def __init__(self, open_model: OpenModel, ids: Sequence[int]) -> None:
        self.open_model, self.ids = open_model, tuple(ids)
        self.copy = UndoableCopy(open_model.gpt)
        self.groups: list[RewardGroup] = []
        self._taken: list[tuple[object, ...]] = []  # with what each group was drawn and scored
        self._counts: list[int] = []  # steps of `copy` after each group: a group with equal rewards takes none
        self._next: tuple[object, list[DrawnAnswer]] | None = None  # what was drawn ahead, and how

    @property
    def _size(self) -> int:
        return self.open_model.tokenizer.size

    def move_to(self, question: RewardQuestion, at: int, rule: Reward | None, overtaken: Callable[[], bool]) -> None:
        """Move to the weights after `at` groups. Raises `Overtaken` between two steps, and `UserError` if one can't be
        taken; the earlier ones are kept."""
        self._undo(self._same(question, at))
        scores = question.scores
        while len(self.groups) < at:
            if overtaken():
                raise Overtaken
            self._learn(question, rule, scores, overtaken)
            scores = None

    def _same(self, question: RewardQuestion, at: int) -> int:
        """How many of the groups are what `question` asks for."""
        number = min(at, len(self.groups))
        if question.at is None:
            return number
        for place in range(question.keep, number):
            if self._taken[place] != _how(question):
                return place
        return number

    def _undo(self, to: int) -> None:
        if to < len(self.groups):
            del self.groups[to:], self._counts[to:], self._taken[to:]
            self._next = None
            self.copy.undo(self._counts[-1] if self._counts else 0)

    def ahead(self, question: RewardQuestion, rule: Reward | None, overtaken: Callable[[], bool]) -> RewardGroup:
        """The next group, drawn and scored but not learned."""
        drawn = self._draw(question, overtaken)
        rewards = self._rewards(question, rule, question.scores, drawn, ahead=True)
        logs, kl = self._read(question, drawn)
        return self._group(question, drawn, rewards, logs, kl)

    # ── one step ──

    def _draw(self, question: RewardQuestion, overtaken: Callable[[], bool]) -> list[DrawnAnswer]:
        recipe = question.recipe
        number = len(self.groups)
        how = (number, question.seed, recipe.samples, recipe.tokens, recipe.policy.temperature)
        if self._next is None or self._next[0] != how:
            seeds = [row_seed(question.seed, number * recipe.samples + row) for row in range(recipe.samples)]
            with enough_memory(self.copy.bytes):
                drawn = draw_group(
                    self.copy.model,
                    self.ids,
                    seeds,
                    size=self._size,
                    count=recipe.tokens,
                    temperature=recipe.policy.temperature,
                    ends=self.open_model.tokenizer.ends,
                    overtaken=overtaken,
                )
            self._next = how, drawn
        return self._next[1]

    def _rewards(
        self,
        question: RewardQuestion,
        rule: Reward | None,
        scores: Sequence[float] | None,
        drawn: Sequence[DrawnAnswer],
        *,
        ahead: bool = False,
    ) -> list[float] | None:
        """None if they are given by hand and have not been yet."""
        if rule is None:
            assert question.score is not None
            return [finite(question.score(self.text(answer))) for answer in drawn]
        if not rule.by_hand:
            return [rule.score(self.text(answer)) for answer in drawn]
        if scores is None and ahead:
            return None
        return by_hand(scores or (), len(drawn))

    def _learn(
        self,
        question: RewardQuestion,
        rule: Reward | None,
        scores: Sequence[float] | None,
        overtaken: Callable[[], bool],
    ) -> None:
        drawn, recipe = self._draw(question, overtaken), question.recipe
        rewards = self._rewards(question, rule, scores, drawn)
        assert rewards is not None
        advantages = group_advantages(torch.tensor(rewards, dtype=torch.float64), recipe.policy.advantage).tolist()
        if not any(advantages):
            logs, kl = self._read(question, drawn)
            group = self._group(question, drawn, rewards, logs, kl)
            group = dataclasses.replace(group, step=dataclasses.replace(group.step, why_not=ALL_EQUAL))
        else:
            rows = [(self.ids, answer.ids) for answer in drawn]
            made: list[PolicyUpdate] = []

            def step(model: GPT, optimizer: torch.optim.Optimizer) -> None:
                """Runs again, with the same result, where an older state is recomputed."""
                set_learning_rate(optimizer, recipe.learning_rate)
                with self._threads(drawn):
                    made[:] = [
                        policy_step(
                            model,
                            optimizer,
                            rows,
                            advantages,
                            self.copy.origin,
                            recipe.policy,
                            self._size,
                            updates=recipe.updates,
                            longest=recipe.tokens,
                        )
                    ]

            self.copy.take(step)
            group = self._learned(self._group(question, drawn, rewards, made[0].before, made[0].kl), made[0])
        self.groups.append(group)
        self._counts.append(self.copy.count)
        self._taken.append(_how(question))
        self._next = None

    def _threads(self, drawn: Sequence[DrawnAnswer]) -> AbstractContextManager[None]:
        tokens = sum(len(self.ids) + len(answer.ids) for answer in drawn)
        return device.threads(self.copy.origin.config.parameters() * tokens)

    def _read(self, question: RewardQuestion, drawn: Sequence[DrawnAnswer]) -> tuple[list[list[float]], float]:
        """ln π of each token of a group that is not learned, and the estimate of KL(π ‖ ref)."""
        rows = [(self.ids, answer.ids) for answer in drawn]
        with enough_memory(self.copy.bytes), self._threads(drawn):
            return policy_gradient.read(
                self.copy.model, self.copy.origin, rows, self._size, question.recipe.policy.temperature
            )

    # ── as plain data ──

    def text(self, answer: DrawnAnswer) -> str:
        """The answer's text, without an end-of-text token."""
        return answer.text(self.open_model.tokenizer, self.ids[-1])

    def _group(
        self,
        question: RewardQuestion,
        drawn: Sequence[DrawnAnswer],
        rewards: Sequence[float] | None,
        logs: Sequence[Sequence[float]],
        kl: float,
    ) -> RewardGroup:
        advantages: list[float] | None = None
        if rewards is not None:
            kind = question.recipe.policy.advantage
            advantages = group_advantages(torch.tensor(rewards, dtype=torch.float64), kind).tolist()
        answers = []
        for at, (answer, row) in enumerate(zip(drawn, logs, strict=True)):
            before = [self.ids[-1], *answer.ids]
            answers.append(
                ScoredAnswer(
                    tuple(self.open_model.token(*pair) for pair in zip(answer.ids, before, strict=False)),
                    self.text(answer),
                    answer.seed,
                    answer.ended,
                    None if rewards is None else rewards[at],
                    None if advantages is None else advantages[at],
                    tuple(row),
                )
            )
        ids = [id for answer in drawn for id in answer.ids]
        step = RewardStep(
            len(self.groups) + 1,
            question.spec,
            question.recipe,
            None if rewards is None else statistics.fmean(rewards),
            None if rewards is None else statistics.stdev(rewards),
            kl,
            len({answer.ids for answer in drawn}),
            len(set(ids)) / len(ids),
        )
        return RewardGroup(step, tuple(answers))

    def _learned(self, group: RewardGroup, update: PolicyUpdate) -> RewardGroup:
        answers = tuple(
            dataclasses.replace(answer, after=tuple(row))
            for answer, row in zip(group.answers, update.after, strict=True)
        )
        step = dataclasses.replace(
            group.step,
            learned=True,
            loss=update.loss,
            gradient_norm=update.gradient_norm,
            clipped=update.clipped,
        )
        return RewardGroup(step, answers)


def _how(question: RewardQuestion) -> tuple[object, ...]:
    return question.spec, question.score, question.recipe, question.seed
