"""`tui-llm probes`: what a run predicted for its pinned prompts at each evaluation."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import json_option, run_argument, whole
from tui_llm.commands.shared.output import put, put_json
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from tui_llm.commands.shared.pin_tables import Saved
    from tui_llm.facts.pin import Pin
    from tui_llm.training.run.pin_readings import PinReading
    from tui_llm.training.run.run import Run


def add(commands: Commands) -> None:
    commands.add(
        "probes",
        "what a run predicted for its pinned prompts, at each evaluation",
        probes,
        _add_options,
        more="Prints for each evaluation what the model predicted after each pinned prompt: the target's p, or the most likely token.",
        examples=(
            "tui-llm probes first",
            "tui-llm probes first --at 50",
            "tui-llm probes first --between 0 50",
            "tui-llm probes out/checkpoints/",
        ),
    )


def _add_options(parser: Parser) -> None:
    run_argument(parser, foreign="a folder of checkpoints of another program, which are read now")
    parser.add_argument("--pin", metavar="PIN", help="only this one: PROMPT, or PROMPT=>TARGET")
    steps = parser.add_mutually_exclusive_group()
    steps.add_argument("--at", type=whole, metavar="STEP", help="the candidates at the last evaluation up to this step")  # fmt: skip
    steps.add_argument("--between", type=whole, nargs=2, metavar=("A", "B"), help="the changes from step A to step B")
    json_option(parser)


def probes(options: argparse.Namespace) -> None:
    from tui_llm.commands.shared import pin_tables
    from tui_llm.training.run import pin_readings, pins
    from tui_llm.training.run.foreign.foreign_run import ForeignRun, find

    run = find(options.run)
    if isinstance(run, ForeignRun):
        from tui_llm.commands.shared.foreign_steps import read_checkpoints

        read_checkpoints(run, [pins.parse(options.pin)] if options.pin is not None else ())
    found = pin_readings.evaluations(run)
    known = pin_readings.pins_of(found)
    if not known and run.pin_readings_path.is_file() and run.pin_readings_path.stat().st_size:
        raise UserError(
            f"no line of {run.pin_readings_path} can be read; move it away, then the next evaluation starts a new file"
        )
    if not known:
        raise UserError(f"run {run.name} has no readings of its pins yet; the first is before its first step")
    wanted = pins.matching(options.pin, known) if options.pin is not None else known
    values, parts = [], []
    for pin in wanted:
        saved = pin_readings.of_pin(found, pin)
        if options.at is not None:
            evaluation = _evaluation(run.name, pin, saved, options.at, one=len(wanted) == 1)
            value, text = pin_tables.at_json(evaluation), evaluation and pin_tables.at_text(*evaluation)
        elif options.between is not None:
            one = len(wanted) == 1
            ends = [_evaluation(run.name, pin, saved, step, one=one) for step in options.between]
            value, text = pin_tables.between_json(*ends), pin_tables.between_text(*ends)
        else:
            value, text = (
                {"moments": [pin_tables.at_json(evaluation) for evaluation in saved]},
                pin_tables.over_text(saved),
            )
        values.append({"prompt": pin.prompt, "target": pin.target, **(value or {})})
        parts.append(f"{pin_tables.heading(pin)}\n{text or 'not pinned at that step'}")
    if options.json:
        put_json({"run": run.name, "pins": values, "heads": _heads(run)})
    else:
        put("\n\n".join(parts))


def _heads(run: Run) -> list[dict[str, Any]]:
    """The scores of all attention heads at each evaluation; empty for a run without them."""
    from dataclasses import asdict

    from tui_llm.training.run import head_readings

    return [
        {"step": one.step, "heads": [asdict(head) for head in one.scores]} for one in head_readings.evaluations(run)
    ]


def _evaluation(run: str, pin: Pin, saved: Saved, step: int, *, one: bool) -> tuple[int, PinReading] | None:
    """The saved evaluation at `step` or the last before it. Raises `UserError` where there is none and only one pin is shown."""
    from tui_llm.training.run.pin_readings import nearest

    evaluation = nearest(saved, step)
    if evaluation is None and (one or step < 0):
        raise UserError(
            f"run {run} has the first reading of {pin.prompt[:60]!r} at step {saved[0][0]:,}; give that or a later step"
        )
    return evaluation
