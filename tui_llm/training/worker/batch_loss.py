"""Computes the current model's losses on the next batch and writes them to batch.json (see `training/run/batch.py`)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

from tui_llm.common.files import write_json
from tui_llm.llm.tokens.tokenizer import Tokenizer
from tui_llm.session.tokenization import bytes_of
from tui_llm.training.run.batch import ROWS, TOKENS, path_of
from tui_llm.training.run.metrics import Metric
from tui_llm.training.run.run import Run
from tui_llm.training.worker.answers import AnswerTrainer
from tui_llm.training.worker.loop import Trainer


def record(run: Run, trainer: Trainer, tokenizer: Tokenizer, metric: Metric) -> None:
    """Writes the next batch at an evaluation. This also answers a pending request."""
    asked = run.control().get("batch")
    write(run, trainer, tokenizer, metric.step, asked if isinstance(asked, int) else None)


def answer(
    run: Run, trainer: Trainer, tokenizer: Tokenizer, updates: int, control: dict[str, Any], before: object
) -> object:
    """Writes the next batch if `control` has a request other than `before`. Returns the latest request."""
    asked = control.get("batch")
    if asked is None or asked == before:
        return before
    write(run, trainer, tokenizer, updates, asked if isinstance(asked, int) else None)
    return asked


def write(run: Run, trainer: Trainer, tokenizer: Tokenizer, updates: int, asked: int | None = None) -> None:
    """Writes batch.json: the batch of step `updates` + 1, with the losses of the weights after `updates` updates.

    It draws no random numbers and does not change the weights, so that training continues exactly as without it. Raises
    `UserError` if the disk is full.
    """
    value = trainer.measure_batch(updates) if isinstance(trainer, AnswerTrainer) else measure(trainer, updates)
    shown = {id for row in value["shown"] for id in row["ids"]}
    value["bytes"] = {str(id): bytes_of(tokenizer, id).hex() for id in sorted(shown)}
    value["special"] = [id for id in sorted(shown) if tokenizer.is_special(id)]
    write_json(path_of(run), {"version": 1, "asked": asked, **value})


@torch.no_grad()
def measure(trainer: Trainer, updates: int) -> dict[str, Any]:
    """Returns the next step's batch with losses: at most `ROWS` × `TOKENS` targets, and the mean loss over all targets.

    Losses are in nats. Without dropout, the mean is the loss that the next step will report, up to rounding.
    """
    s, model, device = trainer.settings, trainer.model, trainer.device
    shown: list[dict[str, Any]] = []
    total = 0.0
    model.eval()
    for part in range(s.grad_accumulation_steps):
        x, y = trainer.batches.batch(updates * s.grad_accumulation_steps + part)  # (B, T) each
        logits = trainer.logits(x.to(device))  # (B, T, V)
        losses = F.cross_entropy(logits.flatten(0, 1), y.to(device).flatten(), reduction="none").view_as(y)  # (B, T)
        total += float(losses.double().mean() if device.type != "mps" else losses.mean()) / s.grad_accumulation_steps
        for row in range(min(len(x), ROWS - len(shown))):
            ids = [int(x[row, 0]), *y[row, :TOKENS].tolist()]
            found = losses[row, :TOKENS].tolist()
            shown.append({"row": part * s.batch_size + row, "ids": ids, "losses": [_number(loss) for loss in found]})
    return {"step": updates + 1, "updates": updates, "loss": _number(total), "rows": s.batch_size * s.grad_accumulation_steps,
            "tokens": s.block_size, "shown": shown}  # fmt: skip


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
