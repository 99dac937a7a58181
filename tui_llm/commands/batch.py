"""`tui-llm batch`: a run's training batch, with the loss on each token."""

from __future__ import annotations

import argparse
import math
import time
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import json_option, run_argument
from tui_llm.commands.shared.output import put, put_json
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from tui_llm.facts.tokens import Token
    from tui_llm.training.run import batch as batches
    from tui_llm.training.run.run import Run


def add(commands: Commands) -> None:
    commands.add(
        "batch",
        "show a run's training batch with the loss on each token",
        batch,
        _add_options,
        more="Prints x, y and the loss on each token: of the batch saved at the last evaluation, or with --now of the worker's next step.",
        examples=("tui-llm batch first", "tui-llm batch first --now"),
    )


def _add_options(parser: Parser) -> None:
    run_argument(parser)
    parser.add_argument("--now", action="store_true", help="ask the worker for the batch of its next step, and wait for it")  # fmt: skip
    json_option(parser)


PATIENCE = 120.0  # seconds that one step may take


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
        f"the step's loss {found.loss:.4f}, {found.loss_text}{left_out}"
        if found.loss_text
        else f"mean loss {found.shown_loss:.4f} of what is shown, {found.loss:.4f} of the whole batch "
        f"({found.rows:,} × {found.tokens:,} tokens){left_out}"
    )
    for row in found.shown:
        put(f"\nrow {row.number + 1}{_answer(row)}, mean loss {row.loss:.4f}{found.at_temperature}")
        cells = [
            (str(at.number + 1), visible_token(at.input.text), visible_token(at.target.text), f"{at.loss:.4f}")
            for at in row.positions
        ]
        put(report.table(("position", "x", "y", f"loss{found.at_temperature} (nats)"), cells, left=(1, 2)))


def _answer(row: batches.Row) -> str:
    """Which answer the row is, with its reward and prompt; empty for a row of text."""
    from tui_llm.common.display import visible

    value = "" if row.value is None or "reward" in row.label else f", reward {row.value:+.3f}"
    return f" {visible(row.label)}{value}, after {visible(repr(row.prompt))}" if row.label else ""


def _asked(run: Run) -> batches.Batch:
    """The batch of the worker's next step. Raises `UserError` where the run ends first, or after `PATIENCE`."""
    from tui_llm.training.plan import launch
    from tui_llm.training.run import batch as batches

    number, deadline = launch.show_batch(run), time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        alive = run.alive()  # before the file, so that the answer of a worker that ends now is not missed
        found = batches.newest(run)
        if found is not None and found.asked == number:
            return found
        if not alive and run.status().state != "starting":
            raise UserError(f"run {run.name} ended before it answered; leave out --now to see its last batch")
        time.sleep(0.05)
    raise UserError(f"run {run.name} has not answered for {PATIENCE:.0f} s; leave out --now to see its last batch")


def _plain(found: batches.Batch) -> dict[str, Any]:
    from dataclasses import asdict

    values = asdict(found)
    del values["shown"], values["asked"]
    rows = [
        {"row": row.number, "loss": _number(row.loss),
         **({"label": row.label, "prompt": row.prompt, "reward": row.value} if row.label else {}),
         "positions": [{"position": at.number, "input": _token(at.input), "target": _token(at.target),
                        "loss": _number(at.loss)} for at in row.positions]}
        for row in found.shown
    ]  # fmt: skip
    return {**values, "loss": _number(found.loss), "shown_loss": _number(found.shown_loss), "shown": rows}


def _token(token: Token) -> dict[str, Any]:
    return {"id": token.id, "bytes": token.bytes.hex(), "text": token.text, "special": token.special}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
