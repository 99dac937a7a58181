"""batch.json: the batch that a run is about to learn from, and how surprised its model is by each target. No torch here.

A batch is rows of x with y beside them, shifted by one: y[t] = x[t + 1] is what should be predicted after x[0…t]. The
newest one only is kept, written aside; the screen needs no tokenizer to read it, since the tokens' bytes are in it.
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
from tui_llm.facts.tokens import Token
from tui_llm.llm.tokens.token_bytes import token_text
from tui_llm.training.run.run import Run

ROWS, TOKENS = 8, 64  # of a batch are kept at most
NAME = "batch.json"


@dataclass(frozen=True, slots=True)
class Position:
    """One column: the token fed at this place of the row (from 0), the one to predict after it, and how surprising that
    is: `loss` = −ln p(target) in nats (NaN where the model gave no number), `probability` = e^−loss."""

    number: int
    input: Token
    target: Token
    loss: float
    probability: float


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the batch, number `number` (from 0) of it. `loss` is the mean over the positions kept, in nats."""

    number: int
    positions: tuple[Position, ...]
    loss: float


@dataclass(frozen=True, slots=True)
class Batch:
    """What step `step` learns from, with the losses of the model before that update: after `updates` = step − 1 of them,
    dropout off. `loss` is the mean over the whole batch of `rows` × `tokens` targets, `shown_loss` over those kept;
    `first` rows of it are kept, `width` tokens of each. `asked` is the number of the request that it answers."""

    step: int
    updates: int
    loss: float
    shown_loss: float
    rows: int
    tokens: int
    shown: tuple[Row, ...]
    asked: int | None = None

    @property
    def first(self) -> int:
        return len(self.shown)

    @property
    def width(self) -> int:
        return max((len(row.positions) for row in self.shown), default=0)

    @property
    def left_out(self) -> str:
        """What is not here, in words; empty where all of it is."""
        parts = []
        if self.rows > self.first:
            parts.append(f"{self.rows - self.first:,} more row{'s' if self.rows - self.first > 1 else ''}")
        if self.tokens > self.width:
            more = self.tokens - self.width
            parts.append(f"{more:,} more token{'s' if more > 1 else ''} of each row")
        return " and ".join(parts)

    def table(self) -> Iterable[tuple[str, ...]]:
        """A line for each position, the header first. Text is raw."""
        yield "row", "position", "id", "bytes", "text", "target_id", "target_bytes", "target_text", "loss"
        for row in self.shown:
            for at in row.positions:
                yield (
                    str(row.number), str(at.number), str(at.input.id), at.input.bytes.hex(), at.input.text,
                    str(at.target.id), at.target.bytes.hex(), at.target.text, repr(at.loss),
                )  # fmt: skip


def path_of(run: Run) -> Path:
    return run.path / NAME


def ask(run: Run) -> int:
    """Asks the worker for the batch of its next step; returns the request's number (see `Batch.asked`)."""
    number = time.time_ns()
    run.write_control(batch=number)
    return number


def newest(run: Run) -> Batch | None:
    """The batch that the worker last wrote down; None where there is none. Raises `UserError` where it is damaged."""
    path = path_of(run)
    if not os.path.lexists(path):
        return None
    raw = read_json(path)
    try:
        return _parse(raw)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{path} is no batch ({error!r}); the next evaluation, or r in the app, writes it anew"
        ) from error


def _parse(raw: dict[str, Any]) -> Batch:
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
        shown.append(Row(int(row["row"]), positions, _mean(losses)))
    every = [at.loss for row in shown for at in row.positions]
    asked = raw.get("asked")
    return Batch(
        int(raw["step"]), int(raw["updates"]), _loss(raw["loss"]), _mean(every), int(raw["rows"]), int(raw["tokens"]),
        tuple(shown), asked if isinstance(asked, int) else None,
    )  # fmt: skip


def _loss(value: Any) -> float:
    """JSON has no NaN: null stands for what is no number. A loss is never negative."""
    return math.nan if value is None else max(0.0, float(value))


def _mean(losses: list[float]) -> float:
    return math.fsum(losses) / len(losses) if losses else math.nan
