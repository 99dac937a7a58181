"""What the trainers of answers share: rows of tokens, their order, the start model as reference, and the batch to show."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from tui_llm.common.numbers import counted
from tui_llm.llm.data.answer_rows import AnswerRows, Ints, RowOrder
from tui_llm.llm.learn.answer_batch import Row
from tui_llm.llm.model.model import GPT
from tui_llm.llm.tokens.tokenizer import Tokenizer
from tui_llm.training.plan import cost
from tui_llm.training.run.batch import ROWS, TOKENS
from tui_llm.training.run.settings import PREFERENCE, REWARD, TrainingSettings
from tui_llm.training.worker.loop import Trainer

ROWS_NAMES = {PREFERENCE: "pairs", REWARD: "prompts"}
PROMPT = 400  # characters of a prompt's end that are kept for the screen


class AnswerTrainer(Trainer):
    """Trains on answers. `reference` is the start model, on the same device; it is not modified.

    Row k of the training rows depends on (seed, k) alone, and step n takes the next `batch_size` × `grad_accumulation_steps`.
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
        super().__init__(model, None, settings, device)
        self.fast_step = None  # its loss is that of a text
        self.reference = reference.to(device).eval().requires_grad_(False)
        self.answers, self.tokenizer, self.size = rows, tokenizer, tokenizer.size
        self.limit = math.inf  # these losses have no scale of their own: they must be finite
        self.step_tokens = 0
        train, held_out = self.split()  # the numbers of rows
        self.order, self.trained = RowOrder(train, settings.seed), len(train)
        self.held_out = spaced(held_out, settings.eval_batches * settings.batch_size)

    @abstractmethod
    def split(self) -> tuple[Ints, Ints]:
        """The numbers of the rows to train on, and of the held-out ones."""

    @property
    def flops_per_token(self) -> None:
        return None

    def count(self, rows: Sequence[Row], tokens: int | None = None, updates: int | None = None) -> None:
        """Sets the tokens of the step on `rows`, and their operations. `tokens`: those that were fed, if not each row's with its
        own prompt; `updates`: those that were made, if not all of the settings'."""
        answers = sum(len(answer) for _, answer in rows)
        fed = sum(len(prompt) - 1 for prompt, _ in rows) + answers  # an answer's last token is predicted only
        self.step_tokens = fed if tokens is None else tokens
        self.measured["flops_per_token"] = cost.answers_flops_per_token(
            self.model.config, self.step_tokens, answers, fed / len(rows), cost.passes(self.settings, updates=updates)
        )

    @property
    def rows_text(self) -> str:
        """What is trained on and what is evaluated, for the log."""
        what = counted(self.trained, ROWS_NAMES[self.settings.objective].removesuffix("s"))
        return f"{what} to train on, {len(self.held_out):,} to evaluate, of {len(self.answers):,}"

    def take(self, number: int, part: int) -> list[int]:
        """The rows of batch `part` of step `number`."""
        s = self.settings
        first = ((number - 1) * s.grad_accumulation_steps + part) * s.batch_size
        return [self.order.row(place) for place in range(first, first + s.batch_size)]

    def first_rows(self, number: int) -> torch.Tensor | None:
        prompt = self.answers.prompts.row(self.take(number, self.parts[0])[0])
        return torch.tensor([prompt]) if len(prompt) else None

    @abstractmethod
    def measure_batch(self, updates: int) -> dict[str, Any]:
        """The batch of step `updates` + 1 with the losses of the weights before it: what batch.json holds beside the tokens'
        bytes (`training/run/batch.py`). Changes nothing in the training state."""

    def shown(self, number: int, prompt: Sequence[int], answer: Sequence[int], logs: Sequence[float], label: str,
              value: float) -> dict[str, Any]:  # fmt: skip
        """A row of batch.json: the first tokens of an answer, each predicted from the token before it, from the prompt's last
        one on. `logs` are their ln p, `value` is the answer's reward."""
        kept = list(answer[:TOKENS])
        return {
            "row": number, "ids": [int(prompt[-1]), *kept],
            "losses": [number_or_none(-one) for one in logs[: len(kept)]],
            "label": label, "prompt": self.tokenizer.decode(list(prompt))[-PROMPT:], "value": number_or_none(value),
        }  # fmt: skip


def spaced(rows: Ints, most: int) -> list[int]:
    """At most `most` of the rows, evenly spaced: always the same."""
    places = np.unique(np.linspace(0, len(rows) - 1, most).astype(np.int64))
    return [int(rows[at]) for at in places]


def number_or_none(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


__all__ = ["ROWS", "AnswerTrainer", "mean", "number_or_none"]
