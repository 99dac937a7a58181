"""Looking into a run: its batch, its samples."""

from __future__ import annotations

import argparse
import dataclasses
import math
import time
from typing import TYPE_CHECKING, Any

from tui_llm.commands.options import AddCommand, json_option
from tui_llm.commands.output import put, put_json
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from tui_llm.facts.tokens import Token
    from tui_llm.training.run import batch as batches
    from tui_llm.training.run.run import Run


def add(command: AddCommand) -> None:
    batch = command("batch", "show the batch that a run learns from next, with the loss on each token", "run_files")
    batch.add_argument("run", metavar="RUN")
    batch.add_argument("--now", action="store_true", help="ask the worker for its next step's, and wait for it")
    samples = command("samples", "list the texts that a run's model wrote while it learned", "run_files")
    samples.add_argument("run", metavar="RUN")
    samples.add_argument("--last", metavar="N", help="the newest N only")
    for sub in (batch, samples):
        json_option(sub)


PATIENCE = 120.0  # seconds that a step may take


def batch(options: argparse.Namespace) -> None:
    from tui_llm.common.display import visible_token
    from tui_llm.facts import report
    from tui_llm.training.run import batch as batches
    from tui_llm.training.run.run import find

    run = find(options.run)
    found = _asked(run) if options.now else batches.newest(run)
    if found is None:
        raise UserError(
            f"run {run.name} has no batch yet; it writes one at each evaluation, or at once with --now while it is trained"
        )
    if options.json:
        put_json(_plain(found))
        return
    put(
        f"the batch of step {found.step:,}, seen by the model before that update: after {found.updates:,}, without dropout"
    )
    left_out = f"; left out: {found.left_out}" if found.left_out else ""
    put(
        f"mean loss {found.shown_loss:.4f} of what is shown, {found.loss:.4f} of the whole batch "
        f"({found.rows:,} × {found.tokens:,} tokens){left_out}"
    )
    for row in found.shown:
        put(f"\nrow {row.number + 1}, mean loss {row.loss:.4f}")
        cells = [
            (str(at.number + 1), visible_token(at.input.text), visible_token(at.target.text), f"{at.loss:.4f}")
            for at in row.positions
        ]
        put(report.table(("position", "x", "y", "loss (nats)"), cells, left=(1, 2)))


def _asked(run: Run) -> batches.Batch:
    """The batch of the step that comes after the one being made."""
    from tui_llm.training.plan import launch
    from tui_llm.training.run import batch as batches

    number, deadline = launch.show_batch(run), time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        alive = run.alive()  # before the file: a worker's last word is not missed
        found = batches.newest(run)
        if found is not None and found.asked == number:
            return found
        if not alive and run.status().state != "starting":
            raise UserError(f"run {run.name} ended before it answered; without --now its last batch is shown")
        time.sleep(0.05)
    raise UserError(f"run {run.name} has not answered for {PATIENCE:.0f} s; without --now its last batch is shown")


def _plain(found: batches.Batch) -> dict[str, Any]:
    values = dataclasses.asdict(found)
    del values["shown"], values["asked"]
    rows = [
        {"row": row.number, "loss": _number(row.loss),
         "positions": [{"position": at.number, "input": _token(at.input), "target": _token(at.target),
                        "loss": _number(at.loss)} for at in row.positions]}
        for row in found.shown
    ]  # fmt: skip
    return {**values, "loss": _number(found.loss), "shown_loss": _number(found.shown_loss), "shown": rows}


def _token(token: Token) -> dict[str, Any]:
    return {"id": token.id, "bytes": token.bytes.hex(), "text": token.text, "special": token.special}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def samples(options: argparse.Namespace) -> None:
    from tui_llm.common.display import visible
    from tui_llm.training.run.run import find

    run = find(options.run)
    last = None
    if options.last is not None:
        if not options.last.isdecimal() or int(options.last) < 1:
            raise UserError(f"--last {options.last!r}: give a whole number from 1 up")
        last = int(options.last)
    found = run.samples()
    found = found if last is None else found[-last:]
    if options.json:
        put_json({"run": run.name, "samples": [dataclasses.asdict(sample) for sample in found]})
    elif not found:
        put(f"run {run.name} has no samples yet; it writes one at each evaluation")
    else:
        blocks = [f"step {sample.step:,}\n{visible(sample.prompt + sample.text, newlines=True)}" for sample in found]
        put("\n\n".join(blocks))
