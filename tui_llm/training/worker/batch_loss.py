"""Looks at the batch that comes next, through the model as it is now: what `training/run/batch.py` reads."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

from tui_llm.common.files import write_json
from tui_llm.llm.tokens.tokenizer import BPETokenizer
from tui_llm.session.tokenization import bytes_of
from tui_llm.training.run.batch import ROWS, TOKENS, path_of
from tui_llm.training.run.run import Run
from tui_llm.training.worker.loop import Step, Trainer


def look(run: Run, trainer: Trainer, tokenizer: BPETokenizer, record: Step) -> None:
    """At every evaluation; that answers a request too."""
    asked = run.control().get("batch")
    write(run, trainer, tokenizer, record.step, asked if isinstance(asked, int) else None)


def answer(
    run: Run, trainer: Trainer, tokenizer: BPETokenizer, updates: int, control: dict[str, Any], before: object
) -> object:
    """Writes the batch where `control` asks for one by another request than `before`; returns the newest request."""
    asked = control.get("batch")
    if asked is None or asked == before:
        return before
    write(run, trainer, tokenizer, updates, asked if isinstance(asked, int) else None)
    return asked


def write(run: Run, trainer: Trainer, tokenizer: BPETokenizer, updates: int, asked: int | None = None) -> None:
    """Writes batch.json: the batch of step `updates` + 1, with the losses of the weights after `updates` of them. Draws
    no random number and touches no weight: the run goes on as if nobody had looked. Raises `UserError` where the disk is
    full."""
    value = measure(trainer, updates)
    shown = {id for row in value["shown"] for id in row["ids"]}
    value["bytes"] = {str(id): bytes_of(tokenizer, id).hex() for id in sorted(shown)}
    value["special"] = [id for id in sorted(shown) if tokenizer.is_special(id)]
    write_json(path_of(run), {"version": 1, "asked": asked, **value})


@torch.no_grad()
def measure(trainer: Trainer, updates: int) -> dict[str, Any]:
    """The next step's rows, at most `ROWS` × `TOKENS` of them with each target's loss in nats, and the mean loss of all
    of them: without dropout, the loss that the next step will report."""
    s, model, device = trainer.settings, trainer.model, trainer.device
    shown: list[dict[str, Any]] = []
    total = 0.0
    model.eval()
    for part in range(s.accumulation):
        x, y = trainer.batches.batch(updates * s.accumulation + part)  # (B, T) each
        logits = trainer.logits(x.to(device))  # (B, T, V)
        losses = F.cross_entropy(logits.flatten(0, 1), y.to(device).flatten(), reduction="none").view_as(y)  # (B, T)
        total += float(losses.double().mean() if device.type != "mps" else losses.mean()) / s.accumulation
        for row in range(min(len(x), ROWS - len(shown))):
            ids = [int(x[row, 0]), *y[row, :TOKENS].tolist()]
            found = losses[row, :TOKENS].tolist()
            shown.append({"row": part * s.batch_size + row, "ids": ids, "losses": [_number(loss) for loss in found]})
    return {"step": updates + 1, "updates": updates, "loss": _number(total), "rows": s.batch_size * s.accumulation,
            "tokens": s.block_size, "shown": shown}  # fmt: skip


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
