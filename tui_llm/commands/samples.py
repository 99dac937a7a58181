"""`tui-llm samples`: the texts that a run generated at its evaluations."""

from __future__ import annotations

import argparse

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import json_option, run_argument, whole
from tui_llm.commands.shared.output import put, put_json
from tui_llm.common.errors import UserError


def add(commands: Commands) -> None:
    commands.add(
        "samples",
        "list the texts that a run generated during training",
        samples,
        _add_options,
        more="Prints the step of each evaluation and the text that was generated then.",
        examples=("tui-llm samples first", "tui-llm samples first --last 3"),
    )


def _add_options(parser: Parser) -> None:
    run_argument(parser, foreign="a folder of checkpoints of another program, which are read now")
    parser.add_argument("--last", type=whole, metavar="N", help="the newest N only")
    json_option(parser)


def samples(options: argparse.Namespace) -> None:
    from dataclasses import asdict

    from tui_llm.common.display import visible
    from tui_llm.training.run.foreign.foreign_run import ForeignRun, find

    run = find(options.run)
    last = None
    if options.last is not None:
        if options.last < 1:
            raise UserError(f"--last {options.last}: give a whole number from 1 up")
        last = options.last
    if isinstance(run, ForeignRun):
        from tui_llm.commands.shared.foreign_steps import read_checkpoints

        read_checkpoints(run)
    found = run.samples()
    found = found if last is None else found[-last:]
    if options.json:
        put_json({"run": run.name, "samples": [asdict(sample) for sample in found]})
    elif not found:
        put(f"run {visible(run.name)} has no samples yet; it writes one at each evaluation")
    else:
        blocks = [f"step {sample.step:,}\n{visible(sample.prompt + sample.text, newlines=True)}" for sample in found]
        put("\n\n".join(blocks))
