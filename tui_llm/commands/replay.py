"""`tui-llm replay`: recompute a step of a run, and what made its loss and its gradient."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import json_option, run_argument, whole
from tui_llm.commands.shared.output import put, put_json

if TYPE_CHECKING:
    from tui_llm.facts.token_place import TokenPlace
    from tui_llm.training.run.step_rows import ReplayedStep, ReplayProgress, ReplayResult

MOST = 8  # rows and tokens of the tables


def add(commands: Commands) -> None:
    commands.add(
        "replay",
        "recompute a step of a run: its rows, and what made its loss",
        replay,
        _add_options,
        more="Takes the step again from the last checkpoint before it, else from the run's beginning, and compares it with the log: on the "
        "same machine and torch it is equal bit for bit. Prints the rows and tokens with the largest parts in the loss and in the "
        "gradient's norm, each with its file and byte, and what the step changed in the pins. Only reads the run, which may be training.",
        examples=("tui-llm replay first --step 40", "tui-llm replay first --step 40 --json"),
    )


def _add_options(parser: Parser) -> None:
    run_argument(parser)
    parser.add_argument("--step", type=whole, metavar="K", required=True, help="the step to recompute, from 1")
    parser.add_argument("--from-start", action="store_true", help="recompute from the run's beginning, without its checkpoints, whatever time that takes")  # fmt: skip
    parser.add_argument("--no-gradients", action="store_true", help="leave out the rows' parts in the gradient, which take a backward pass each")  # fmt: skip
    json_option(parser)


def replay(options: argparse.Namespace) -> None:
    from tui_llm.training.plan.replay import ReplayProcess
    from tui_llm.training.run.run import find
    from tui_llm.training.run.step_rows import ReplayProgress, ReplayResult

    process = ReplayProcess(
        find(options.run), options.step, from_start=options.from_start, gradients=not options.no_gradients
    )
    found = ReplayResult()
    try:
        for record in process.records():
            found.add(record)
            if isinstance(record, ReplayProgress):
                _say(record)
    finally:
        process.cancel()
    assert found.step is not None
    if options.json:
        put_json(_plain(found, found.step))
        return
    _put_tables(found, found.step, options.run)


def _say(progress: ReplayProgress) -> None:
    """Progress goes to a terminal's stderr only."""
    from tui_llm.common.display import visible

    if sys.stderr.isatty():
        print(visible(progress.text), file=sys.stderr)


def _put_tables(found: ReplayResult, step: ReplayedStep, run: str) -> None:
    from tui_llm.common.display import truncate, visible, visible_token
    from tui_llm.common.numbers import percent, signed_percent
    from tui_llm.facts import report
    from tui_llm.training.run.step_rows import place_text

    def where(place: TokenPlace | None) -> str:
        return visible(place_text(place, place.file)) if place else "unknown"

    origin = f"checkpoint {step.begun:,}" if step.begun else "the run's beginning"
    put(f"step {step.step:,}, recomputed from {origin}: loss {step.loss:.6f}, gradient norm {step.grad_norm:.6f}")
    put(step.match_line)
    if step.unplaced:
        put(f"no places: {step.unplaced}")
    if step.dropout:
        put("the step had dropout; what follows is without")
    rows, norm = found.ordered(), max(0.0, found.norm)
    files = [
        (visible(one.file), f"{one.rows:,}", percent(one.loss), "" if one.norm is None else signed_percent(one.norm))
        for one in found.by_file()[:MOST]
    ]
    if len(files) > 1:
        put("\nwhat made this: files")
        put(report.table(("file", "rows", "of the loss", "of the norm"), files, left=(0,)))
        put(f"the run without one of them: tui-llm train --branch {run} --step {step.step - 1} --exclude FILE")
    put(f"\nwhat made this: rows by their part in the loss{_left_out(len(rows))}")
    cells = []
    for row in rows[:MOST]:
        share = found.shares.get(row.number)
        parts = " | ".join(where(part.place) for part in row.parts) or "unknown"
        cells.append((
            str(row.number + 1), f"{row.loss:.4f}", percent(step.loss_share(row)),
            *((f"{share.norm:.4f}", signed_percent(share.share / norm) if norm else "") if share else ("", "")), parts,
        ))  # fmt: skip
    put(report.table(("row", "loss", "of the loss", "own norm", "of the norm", "file and byte"), cells, left=(5,)))
    put("\ntokens with the largest parts")
    tokens = []
    for rank in found.tokens(MOST):
        row = step.rows[rank.row]
        share, loss = found.shares.get(rank.row), row.losses[rank.position]
        x, y = (visible_token(token.text) for token in row.tokens[rank.position : rank.position + 2])
        tokens.append((
            str(rank.row + 1), str(rank.position + 1), truncate(x, 20), truncate(y, 20), f"{loss:.4f}",
            percent(loss / step.total) if step.total else "",
            signed_percent(share.tokens[rank.position] / norm) if share and norm else "", where(rank.place),
        ))  # fmt: skip
    heads = ("row", "position", "x", "y", "loss", "of the loss", "of the norm", "file and byte")
    put(report.table(heads, tokens, left=(2, 3, 7)))
    if step.pins:
        put("\nwhat the step changed in the pins")
        put(
            report.table(
                ("prompt", "token", "p before", "p after", "loss before", "loss after"),
                list(map(_pin, step.pins)),
                left=(0, 1),
            )
        )


def _left_out(count: int) -> str:
    return f", the first {MOST} of {count:,}" if count > MOST else ""


def _pin(change: Any) -> tuple[str, ...]:
    from tui_llm.common.display import truncate, visible, visible_token

    token = change.pin.target if change.pin.target is not None else change.token.text if change.token else ""
    numbers = (change.before, change.after, change.loss_before, change.loss_after)
    return (
        truncate(visible(change.pin.prompt), 40), truncate(visible_token(token), 20),
        *("" if value is None else f"{value:.6f}" for value in numbers),
    )  # fmt: skip


def _difference(step: ReplayedStep) -> dict[str, Any] | None:
    """What differs from the log, and why it may; None if nothing does or there is no log to compare with."""
    if step.matches or step.logged is None:
        return None
    loss, norm = step.loss - step.logged.loss, step.grad_norm - step.logged.grad_norm
    return {"loss": loss, "grad_norm": norm, "why": step.why}


def _plain(found: ReplayResult, step: ReplayedStep) -> dict[str, Any]:
    from dataclasses import asdict

    rows = []
    for row in step.rows:
        share = found.shares.get(row.number)
        rows.append(
            {
                "file": row.place.file if row.place else None,
                "offset": row.place.offset if row.place else None,
                "record": row.place.record if row.place else None,
                "parts": [{"first": part.first, **asdict(part.place)} for part in row.parts],
                "ids": [token.id for token in row.tokens],
                "losses": row.losses,
                "loss": row.loss,
                "loss_share": step.loss_share(row),
                "gradient_norm": share.norm if share else None,
                "gradient_share": share.share if share else None,
                "token_shares": share.tokens if share else None,
            }
        )
    pins = [
        {"prompt": one.pin.prompt, "target": one.pin.target, "token": one.token.id if one.token else None,
         "before": one.before, "after": one.after, "loss_before": one.loss_before, "loss_after": one.loss_after,
         "problem": one.problem}
        for one in step.pins
    ]  # fmt: skip
    top = [
        {"row": rank.row, "position": rank.position, "loss": step.rows[rank.row].losses[rank.position],
         "file": rank.place.file if rank.place else None, "offset": rank.place.offset if rank.place else None}
        for rank in found.top
    ]  # fmt: skip
    return {
        "step": step.step, "loss": step.loss, "grad_norm": step.grad_norm, "learning_rate": step.lr,
        "from_checkpoint": step.begun or None, "matches": step.matches,
        "logged": asdict(step.logged) if step.logged else None, "difference": _difference(step),
        "unplaced": step.unplaced, "files": [asdict(one) for one in found.by_file()], "rows": rows, "top": top, "pins": pins,
    }  # fmt: skip
