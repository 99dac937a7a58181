"""Preferences learned pair by pair, on a copy of the weights; every choice can be undone exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from tui_llm.common.errors import Overtaken, UserError
from tui_llm.facts.preference import PairChange, PairState, RankedPair
from tui_llm.llm.learn.answer_batch import token_log_probabilities
from tui_llm.llm.learn.preference import (
    EncodedPair,
    PreferenceTerms,
    answer_lengths,
    divergence,
    encoded,
    log_probabilities,
    padded_pairs,
    preference_loss,
)
from tui_llm.llm.learn.undoable import UndoableCopy, set_learning_rate
from tui_llm.llm.model import device
from tui_llm.llm.model.model import GPT

Prompt = tuple[int, ...]
# A pair is two short rows: with nano, a second thread gains little on an idle machine and costs six times the step where
# another process, such as a training run, uses a core (dev/LOG.md). So only larger models get it.
_THREAD_SHARE = 16


class PreferenceLearner:
    """Trains a copy of `origin`, the reference, which is not modified. `size` is V, the number of ids in the
    vocabulary."""

    def __init__(self, origin: GPT, size: int) -> None:
        self.origin, self.size = origin, size
        self.ranked: list[RankedPair] = []  # the pairs learned so far
        self.changes: list[PairChange] = []  # what each changed
        self._copy = UndoableCopy(origin)
        self._after_prompts: dict[Prompt, Tensor] = {}  # the reference's logits (V,) after a prompt

    @property
    def model(self) -> GPT:
        """The model after all pairs."""
        return self._copy.model

    @property
    def stored(self) -> tuple[int, int]:
        """(number of stored earlier states, their size in bytes)"""
        return self._copy.stored

    def move_to(self, wanted: Sequence[RankedPair], overtaken: Callable[[], bool] = lambda: False) -> None:
        """Move to the weights after the pairs `wanted`: pairs that are not among them are undone, from the first
        difference on; missing ones are learned.

        Raises `Overtaken` between two steps if `overtaken()` is true. Raises `UserError` if a pair can't be learned
        (`encoded`), a step gives non-finite values or memory runs out: the weights are then those before that pair.
        """
        same = 0
        while same < min(len(wanted), len(self.ranked)) and wanted[same] == self.ranked[same]:
            same += 1
        if same < len(self.ranked):
            del self.ranked[same:], self.changes[same:]
            self._copy.undo(same)
        for ranked in wanted[same:]:
            self._learn(ranked, overtaken)

    def read(self, pair: EncodedPair) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """ln π of each token of both answers, in nats. Raises `UserError` if one is not finite."""
        with self._threads(pair):
            tokens = self._tokens(self.model, *self._sides(pair)).detach()
        if not bool(torch.isfinite(tokens).all()):
            raise UserError("the log-probabilities are not finite: the earlier steps were too large, undo some of them")
        first = len(pair.prompt) - 1
        chosen, rejected = (
            tuple(row[first : first + len(answer)])
            for row, answer in zip(tokens.tolist(), (pair.chosen, pair.rejected), strict=True)
        )
        return chosen, rejected

    def _sides(self, pair: EncodedPair) -> tuple[Tensor, Tensor]:
        inputs, targets = padded_pairs([pair])
        return inputs.to(self.origin.device), targets.to(self.origin.device)

    def _threads(self, pair: EncodedPair) -> AbstractContextManager[None]:
        tokens = 2 * (len(pair.prompt) + max(len(pair.chosen), len(pair.rejected)))
        return device.threads(self.origin.config.parameters() * tokens // _THREAD_SHARE)

    def _tokens(self, model: GPT, inputs: Tensor, targets: Tensor) -> Tensor:
        # With grad mode on for the reference too: the same kernels then give a fresh copy the reference's very numbers,
        # and the first loss is ln 2.
        with torch.enable_grad():
            return token_log_probabilities(model, inputs, targets, self.size)

    def _learn(self, ranked: RankedPair, overtaken: Callable[[], bool]) -> None:
        pair = encoded(ranked.prompt, ranked.chosen, ranked.rejected, self.origin.config.context)
        held_out = bool(self.ranked) and all(one.compared != ranked.compared for one in self.ranked)
        prompts = list(dict.fromkeys([*(one.prompt for one in self.ranked), ranked.prompt]))
        made: list[PairChange] = []

        def step(model: GPT, optimizer: torch.optim.Optimizer) -> None:
            """Runs again, with the same result, where an older state is recomputed."""
            with self._threads(pair):
                made[:] = [self._steps(model, optimizer, pair, ranked, held_out, prompts, overtaken)]

        with self._threads(pair):  # storing the state, too
            self._copy.take(step)
        overtaken = _never  # of the closure: when the state is recomputed, it must not stop halfway
        self.ranked.append(ranked)
        self.changes.append(made[0])

    def _steps(
        self,
        model: GPT,
        optimizer: torch.optim.Optimizer,
        pair: EncodedPair,
        ranked: RankedPair,
        held_out: bool,
        prompts: list[Prompt],
        overtaken: Callable[[], bool],
    ) -> PairChange:
        recipe, (inputs, targets) = ranked.recipe, self._sides(pair)
        reference = log_probabilities(self._tokens(self.origin, inputs, targets)).detach()
        lengths = answer_lengths(targets)
        set_learning_rate(optimizer, recipe.learning_rate)

        def terms_of(tokens: Tensor) -> PreferenceTerms:
            return preference_loss(log_probabilities(tokens), reference, lengths, recipe.dpo)

        losses: list[float] = []
        before: tuple[Tensor, PairState] | None = None
        for _ in range(recipe.steps):
            if overtaken():
                raise Overtaken
            tokens = self._tokens(model, inputs, targets)
            terms = terms_of(tokens)
            losses.append(_finite(float(terms.losses.detach()), recipe.learning_rate))
            before = before or (tokens.detach(), _state(tokens, terms))
            model.zero_grad(set_to_none=True)
            terms.losses.mean().backward()
            norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
            _finite(float(norm), recipe.learning_rate)
            optimizer.step()
        model.zero_grad(set_to_none=True)
        assert before is not None
        tokens = self._tokens(model, inputs, targets).detach()
        after = _state(tokens, terms_of(tokens))
        _finite(after.loss, recipe.learning_rate)
        first = len(pair.prompt) - 1
        changes = [
            tuple(zip(was[first : first + len(answer)], now[first : first + len(answer)], strict=True))
            for was, now, answer in zip(before[0].tolist(), tokens.tolist(), (pair.chosen, pair.rejected), strict=True)
        ]
        return PairChange(
            before[1],
            after,
            tuple(losses),
            changes[0],
            changes[1],
            before[1].margin > 0 if held_out else None,
            self._divergence(model, prompts),
            len(prompts),
            pair.left_out,
        )

    @torch.no_grad()
    def _divergence(self, model: GPT, prompts: list[Prompt]) -> float:
        """KL(π ‖ ref) of the next token, the mean over `prompts`."""
        for prompt in prompts:
            if prompt not in self._after_prompts:
                self._after_prompts[prompt] = self._next(self.origin, [prompt])[0]
        reference = torch.stack([self._after_prompts[prompt] for prompt in prompts])
        return float(divergence(self._next(model, prompts), reference).mean())

    def _next(self, model: GPT, prompts: Sequence[Prompt]) -> Tensor:
        """Logits (N, V) of the token after each prompt, on the CPU."""
        fed = [prompt[-self.origin.config.context :] for prompt in prompts]
        inputs = torch.zeros(len(fed), max(map(len, fed)), dtype=torch.long)
        for row, prompt in enumerate(fed):
            inputs[row, : len(prompt)] = torch.tensor(prompt)
        last = torch.tensor([len(prompt) - 1 for prompt in fed])
        features = model.features(inputs.to(model.device))[torch.arange(len(fed)), last]
        return model.logits(features)[:, : self.size].float().cpu()


def _never() -> bool:
    return False


def _finite(value: float, learning_rate: float) -> float:
    if not math.isfinite(value):
        raise UserError(
            f"with a learning rate of {learning_rate:g} the numbers are no longer finite: that choice was undone, give a smaller "
            "learning rate and choose again"
        )
    return value


def _state(tokens: Tensor, terms: PreferenceTerms) -> PairState:
    chosen, rejected = log_probabilities(tokens.detach())[:, 0].tolist()
    chosen_reward, rejected_reward = terms.rewards[:, 0].tolist()
    margin, loss = float(terms.margins[0]), float(terms.losses[0].detach())
    return PairState(chosen, rejected, chosen_reward, rejected_reward, margin, loss)
