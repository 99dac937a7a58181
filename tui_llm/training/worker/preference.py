"""Direct preference optimization of a run: the loss of pairs of answers against the model that the run started from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tui_llm.llm.data.answer_rows import Ints
from tui_llm.llm.learn import preference
from tui_llm.llm.learn.answer_batch import Row, token_log_probabilities
from tui_llm.llm.learn.instruct import IGNORE
from tui_llm.llm.learn.preference import EncodedPair, PreferenceTerms
from tui_llm.llm.model.model import GPT, capped
from tui_llm.training.worker.answers import ROWS, AnswerTrainer, mean, number_or_none

POSITIONS = 512  # of the answers, over whose whole distributions the KL is computed at a time


class PreferenceTrainer(AnswerTrainer):
    """One step: the mean loss of `batch_size` × `grad_accumulation_steps` pairs (`llm/learn/preference.py`).

    The reference's log-probabilities are computed beside the policy's, in the same batch and precision: where the weights are
    the same, so are they, and the first margin is exactly 0. Stored sums of another batch would differ by rounding.
    """

    def split(self) -> tuple[Ints, Ints]:
        return self.answers.split(self.settings.validation_fraction, self.settings.seed)

    def _pairs(self, rows: Sequence[int]) -> list[EncodedPair]:
        own = self.answers
        return [
            EncodedPair(tuple(own.prompts.row(at)), tuple(own.chosen.row(at)), tuple(own.rejected.row(at)))
            for at in rows
        ]

    def _logs(self, model: GPT, inputs: Tensor, targets: Tensor) -> Tensor:
        with self.autocast():
            return token_log_probabilities(model, inputs, targets, self.size, self.products)

    def _terms(self, pairs: Sequence[EncodedPair]) -> tuple[PreferenceTerms, Tensor]:
        """The terms of the pairs, and ln π of the answers' tokens."""
        inputs, targets = (side.to(self.device) for side in preference.padded_pairs(pairs))
        with torch.no_grad():
            reference = preference.log_probabilities(self._logs(self.reference, inputs, targets))
        logs = self._logs(self.model, inputs, targets)
        lengths, dpo = preference.answer_lengths(targets), self.settings.dpo
        return preference.preference_loss(preference.log_probabilities(logs), reference, lengths, dpo), logs

    def _backward(self, number: int) -> float:
        parts, losses, rows = [], [], list[Row]()
        for part in self.parts:
            pairs = self._pairs(self.take(number, part))
            terms, _ = self._terms(pairs)
            (terms.losses.mean() / len(self.parts)).backward()
            losses.append(float(terms.losses.detach().mean()))
            parts.append(terms)
            rows += [(pair.prompt, side) for pair in pairs for side in (pair.chosen, pair.rejected)]
        self.measured = measured(parts)
        self.count(rows)
        return mean(losses)

    @torch.no_grad()
    def validate(self) -> float:
        """The mean loss of the held-out pairs. Adds margin, agreement and KL to the step's metric."""
        self.model.eval()
        parts, divergence, positions = [], 0.0, 0
        for start in range(0, len(self.held_out), self.settings.batch_size):
            pairs = self._pairs(self.held_out[start : start + self.settings.batch_size])
            parts.append(self._terms(pairs)[0])
            found = self._divergence(pairs)
            divergence, positions = divergence + float(found.sum()), positions + len(found)
        values = measured(parts)
        self.measured |= {"val_margin": values["margin"], "val_agreement": values["agreement"], "val_kl": divergence / positions}  # fmt: skip
        return float(torch.cat([terms.losses for terms in parts]).mean())

    def _divergence(self, pairs: Sequence[EncodedPair]) -> Tensor:
        """KL(π ‖ ref) over the whole vocabulary at each answer token (N,)."""
        inputs, targets = (side.to(self.device) for side in preference.padded_pairs(pairs))
        at, found = targets != IGNORE, []
        with self.autocast():
            features = [model.features(inputs, products=self.products)[at] for model in (self.model, self.reference)]
            for start in range(0, len(features[0]), POSITIONS):
                logits = [
                    capped(
                        torch.nn.functional.linear(
                            one[start : start + POSITIONS].float(), model.head.weight[: self.size]
                        ),
                        model.config.softcap,
                    )
                    for one, model in zip(features, (self.model, self.reference), strict=True)
                ]
                found.append(preference.divergence(logits[0].float(), logits[1].float()))
        return torch.cat(found)

    @torch.no_grad()
    def measure_batch(self, updates: int) -> dict[str, Any]:
        s = self.settings
        self.model.eval()
        shown: list[dict[str, Any]] = []
        losses, longest = [], 0
        for part in range(s.grad_accumulation_steps):
            rows = self.take(updates + 1, part)
            pairs = self._pairs(rows)
            terms, logs = self._terms(pairs)
            losses.append(float(terms.losses.mean()))
            longest = max(longest, *(len(side) for pair in pairs for side in (pair.chosen, pair.rejected)))
            for at, pair in enumerate(pairs[: max(0, (ROWS - len(shown)) // 2)]):
                for side, (label, answer) in enumerate((("chosen", pair.chosen), ("rejected", pair.rejected))):
                    row = side * len(pairs) + at
                    first = len(pair.prompt) - 1
                    found = logs[row, first : first + len(answer)].tolist()
                    line = int(self.answers.lines[rows[at]])
                    shown.append(self.shown(2 * (part * s.batch_size + at) + side, pair.prompt, answer, found,
                                            f"{label}, line {line}", float(terms.rewards[side, at])))  # fmt: skip
        return {"step": updates + 1, "updates": updates, "loss": number_or_none(mean(losses)), "objective": s.objective,
                "rows": 2 * s.batch_size * s.grad_accumulation_steps, "tokens": longest, "shown": shown}  # fmt: skip


def measured(parts: Sequence[PreferenceTerms]) -> dict[str, float]:
    """The fields of a `Metric` over the pairs of some batches."""
    rewards = torch.cat([terms.rewards for terms in parts], 1)
    margins = rewards[0] - rewards[1]
    return {
        "margin": float(margins.mean()),
        "agreement": float((margins > 0).float().mean()),
        "chosen_reward": float(rewards[0].mean()),
        "rejected_reward": float(rewards[1].mean()),
    }
