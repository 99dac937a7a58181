"""`tui-llm stop`: stop a run after it saves a checkpoint."""

from __future__ import annotations

import argparse

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import json_option, run_argument
from tui_llm.commands.shared.output import put, put_json


def add(commands: Commands) -> None:
    commands.add(
        "stop",
        "stop a run: it saves a checkpoint, then ends",
        stop,
        _add_options,
        more="Sends SIGTERM to the worker, which saves a checkpoint and ends. `train --resume` continues from it.",
        examples=("tui-llm stop first",),
    )


def _add_options(parser: Parser) -> None:
    run_argument(parser)
    json_option(parser)


def stop(options: argparse.Namespace) -> None:
    from tui_llm.common.display import visible
    from tui_llm.training.plan import launch
    from tui_llm.training.run.run import find

    run = find(options.run)
    launch.stop(run)
    gone = launch.wait_until_gone(run)
    status = run.status()
    if options.json:
        put_json({"run": run.name, "state": status.state, "step": status.step, "message": status.message})
    else:
        put(
            f"run {run.name}: {status.state}, {visible(status.message)}"
            if gone
            else f"run {run.name} is still {'starting' if status.state == 'starting' else 'saving'}"
        )
