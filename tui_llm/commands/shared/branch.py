"""`tui-llm train --branch`: a run that continues from a step of another one."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.command import Parser
from tui_llm.commands.shared.options import whole
from tui_llm.commands.shared.output import put
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from tui_llm.facts.pin import Pin
    from tui_llm.training.run.run import Run


def branch_options(parser: Parser) -> None:
    parser.add_argument("--branch", metavar="RUN", help="begin with the state of RUN after a step (--step K), its settings and its corpus; give what is to be different")  # fmt: skip
    parser.add_argument("--step", dest="branch_step", type=whole, metavar="K", help="with --branch: the last step to keep; it is recomputed if no checkpoint has it")  # fmt: skip
    parser.add_argument("--exclude", action="append", metavar="FILE", help="with --branch: leave a file of RUN's corpus out, by name or path; can be given several times")  # fmt: skip


def check_options(options: argparse.Namespace) -> None:
    """Raises `UserError` if options of a branch are given without it, or others that it does not have."""
    if options.branch is None:
        alone = [
            name
            for name, value in (("--step", options.branch_step), ("--exclude", options.exclude))
            if value is not None
        ]
        if alone:
            raise UserError(f"{alone[0]} belongs to --branch RUN; name the run to branch from, or leave it out")
        return
    if options.branch_step is None:
        raise UserError("--branch needs the last step to keep: --step K")
    for name, value in (
        ("--resume", options.resume), ("--preset", options.preset), ("--cost", options.cost), ("--instruct", options.instruct),
        ("--nproc", options.nproc), ("--shard", options.shard),
    ):  # fmt: skip
        if value not in (None, False):
            raise UserError(f"{name} has no effect on a branch; leave it out")


def branch_run(options: argparse.Namespace, given: Mapping[str, Any], pinned: Sequence[Pin]) -> Run:
    """Makes the branch that the options describe. Raises `UserError`."""
    from tui_llm.training.plan import branch, replay
    from tui_llm.training.run.run import find

    parent, step = find(options.branch), options.branch_step
    run = branch.create(
        parent,
        step,
        options.run or branch.free_name(parent.name, step),
        given,
        texts=options.corpus,
        exclude=options.exclude or (),
        device=options.device,
        pinned=pinned,
        tensorboard=options.tensorboard,
    )
    if not options.json and not options.no_start:
        put(f"run {run.name} branches from {parent.name} after step {step:,}, {replay.origin(parent, step).line}")
    return run
