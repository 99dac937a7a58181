"""batch.json: the next training batch and the model's loss on each of its targets. Does not import torch.

A batch consists of rows x and their targets y, shifted by one position: y[t] = x[t + 1] is the token to predict from
x[0…t]. Only the newest batch is kept; the file is replaced atomically. It contains the bytes of its tokens, so that the
screen can show it without a tokenizer.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import read_json
from tui_llm.facts.policy import at_temperature
from tui_llm.facts.tokens import Token
from tui_llm.llm.tokens.token_bytes import token_text
from tui_llm.training.run.metrics import float32
from tui_llm.training.run.quantities import LOSS_OF, loss_formula
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import PREFERENCE, PRETRAINING, REWARD, TrainingSettings

ROWS, TOKENS = 8, 64  # largest part of a batch that is kept
NAME = "batch.json"


@dataclass(frozen=True, slots=True)
class Position:
    """One position of a row, counted from 0: the input token, its target, and the model's loss on the target.

    `loss` = −ln p(target) in nats (NaN if the model's output was not finite); `probability` = e^−loss. p is raw, but at the
    batch's `temperature` in an answer that was drawn.
    """

    number: int
    input: Token
    target: Token
    loss: float
    probability: float


@dataclass(frozen=True, slots=True)
class Row:
    """Row number `number` (from 0) of the batch. `loss` is the mean over the kept positions, in nats.

    A row of an answer begins at its prompt's last token. `prompt` is the prompt's text, of which a long one is cut at its
    beginning; `label` says which answer it is; `value` is its reward. All three are foreign.
    """

    number: int
    positions: tuple[Position, ...]
    loss: float
    label: str = ""
    prompt: str = ""
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """The batch of step `step`, with the losses of the model before that update.

    The losses are those after `updates` = step − 1 updates, with dropout off, in nats per token. `loss` is the mean
    over all `rows` × `tokens` targets, `shown_loss` the mean over the kept ones. Kept are the `first` rows, and `width`
    tokens of each. `asked` is the number of the request that this batch answers, if any.

    If the run learns from answers, `objective` is not pretraining: `loss` is that of the step as a whole (see `Metric`), which
    is no mean over targets but that of `loss_formula`, and `tokens` is the length of the longest answer.
    """

    step: int
    updates: int
    loss: float
    shown_loss: float
    rows: int
    tokens: int
    shown: tuple[Row, ...]
    asked: int | None = None
    objective: str = PRETRAINING
    loss_formula: str = ""
    temperature: float = 1.0

    @property
    def first(self) -> int:
        """Number of rows kept."""
        return len(self.shown)

    @property
    def width(self) -> int:
        """Number of tokens kept of each row."""
        return max((len(row.positions) for row in self.shown), default=0)

    @property
    def loss_text(self) -> str:
        """What `loss` is, where it is no mean over targets; empty for a batch of text."""
        if self.objective == PRETRAINING:
            return ""
        count = self.rows // 2 if self.objective == PREFERENCE else self.rows
        return f"mean of {count:,} {LOSS_OF[self.objective]}: {self.loss_formula}"

    @property
    def at_temperature(self) -> str:
        """What is appended to "loss", "ln p" and "p" of a token where they are not of raw p; else empty."""
        return at_temperature(self.temperature)

    @property
    def left_out(self) -> str:
        """Describes the part of the batch that was not kept; empty if all of it was kept."""
        parts = []
        if self.rows > self.first:
            parts.append(f"{self.rows - self.first:,} more row{'s' if self.rows - self.first > 1 else ''}")
        if self.tokens > self.width:
            more = self.tokens - self.width
            parts.append(f"{more:,} more token{'s' if more > 1 else ''} of each row")
        return " and ".join(parts)

    def table(self) -> Iterable[tuple[str, ...]]:
        """Yields a header, then one row for each position. The text is not sanitized for a terminal."""
        loss = f"loss{self.at_temperature}"
        yield "row", "position", "id", "bytes", "text", "target_id", "target_bytes", "target_text", loss
        for row in self.shown:
            for at in row.positions:
                yield (
                    str(row.number), str(at.number), str(at.input.id), at.input.bytes.hex(), at.input.text,
                    str(at.target.id), at.target.bytes.hex(), at.target.text, repr(at.loss),
                )  # fmt: skip


def path_of(run: Run) -> Path:
    """Returns the path of the run's batch.json."""
    return run.path / NAME


def request(run: Run) -> int:
    """Requests the batch of the worker's next step. Returns the request's number (see `Batch.asked`)."""
    number = time.time_ns()
    run.write_control(batch=number)
    return number


def newest(run: Run) -> Batch | None:
    """Returns the newest batch that the worker has written, or None if there is none.

    Raises `UserError` if it is damaged.
    """
    path = path_of(run)
    if not os.path.lexists(path):
        return None
    raw = read_json(path)
    try:
        of_text = raw.get("objective", PRETRAINING) == PRETRAINING
        return _parse(raw, TrainingSettings() if of_text else run.config().settings)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{path} is not a batch ({error!r}); the next evaluation, or r in the app, writes it again"
        ) from error


def _parse(raw: dict[str, Any], settings: TrainingSettings) -> Batch:
    special = {int(id) for id in raw["special"]}
    vocabulary = {}
    for id, data in raw["bytes"].items():
        decoded = bytes.fromhex(data)
        vocabulary[int(id)] = Token(int(id), decoded, token_text(decoded), int(id) in special)
    shown = []
    for row in raw["shown"]:
        ids, losses = [vocabulary[int(id)] for id in row["ids"]], [_loss(loss) for loss in row["losses"]]
        positions = tuple(
            Position(number, x, y, loss, math.exp(-loss))
            for number, (x, y, loss) in enumerate(zip(ids[:-1], ids[1:], losses, strict=True))
        )
        label, prompt, value = row.get("label", ""), row.get("prompt", ""), row.get("value")
        reward = None if value is None else float32(value)
        shown.append(Row(int(row["row"]), positions, _mean(losses), str(label), str(prompt), reward))
    every = [at.loss for row in shown for at in row.positions]
    asked, objective = raw.get("asked"), raw.get("objective", PRETRAINING)
    if objective != settings.objective:
        raise ValueError(f"objective {objective!r} in a run with the objective {settings.objective!r}")
    loss = _loss(raw["loss"]) if objective != REWARD or raw["loss"] is None else float32(raw["loss"])
    return Batch(
        int(raw["step"]), int(raw["updates"]), loss, _mean(every), int(raw["rows"]), int(raw["tokens"]),
        tuple(shown), asked if isinstance(asked, int) else None, objective, loss_formula(settings),
        settings.temperature if objective == REWARD else 1.0,
    )  # fmt: skip


def _loss(value: Any) -> float:
    """Reads a loss from JSON, which has no NaN: null stands for NaN. Rounding below 0 is clamped."""
    return math.nan if value is None else max(0.0, float32(value))


def _mean(losses: list[float]) -> float:
    return math.fsum(losses) / len(losses) if losses else math.nan
