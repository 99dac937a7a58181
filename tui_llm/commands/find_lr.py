"""`tui-llm find-lr`: try learning rates for a run, and pick one."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import CORPUS, device_option, json_option, number, whole
from tui_llm.commands.shared.output import put, put_json
from tui_llm.commands.train import PRESET, explain_switches, settings_options
from tui_llm.common.errors import UserError
from tui_llm.common.numbers import counted

if TYPE_CHECKING:
    from tui_llm.training.plan.find_lr import RateRecord
    from tui_llm.training.plan.lr_search import RatePick

NOTHING = "diverged or learned nothing"


def add(commands: Commands) -> None:
    commands.add(
        "find-lr",
        "find a learning rate for a run by a minute of short ones",
        find_lr,
        _add_options,
        more="Trains the run's model from the same weights with learning rates far apart, each in a short run with the run's rows, optimizer "
        "and schedule; then with rates near the best one, in runs as long as the time allows. Prints the last validation loss of each and a "
        "pick. Takes the options of `train`; writes no run.",
        examples=(
            "tui-llm find-lr book.txt --preset toy",
            "tui-llm find-lr stories --preset small --optimizer muon --seconds 120",
            "tui-llm find-lr stories --preset toy --trial-steps 100 --json",
        ),
    )


def _add_options(parser: Parser) -> None:
    from tui_llm.training.plan.lr_search import SECONDS

    parser.add_argument("corpus", nargs="+", metavar="CORPUS", help=CORPUS)
    parser.add_argument("--seconds", type=number, metavar="S", default=SECONDS, help=f"time for the trials, without loading (default {SECONDS:g})")  # fmt: skip
    parser.add_argument("--trial-steps", type=whole, metavar="N", help="steps of the last trials, whatever time they take, so that the result depends on the seed alone (default: as the time allows)")  # fmt: skip
    settings_options(parser, text_only=True)
    device_option(parser, default=None)
    json_option(parser)


def find_lr(options: argparse.Namespace) -> None:
    from tui_llm.training.plan.find_lr import RateFinder, RateResult, summary, tried_settings
    from tui_llm.training.run.settings import SETTINGS

    if options.arch == "help":
        explain_switches(options)
        return
    given = {name: value for name in SETTINGS if (value := getattr(options, name, None)) is not None}
    if "minutes" in given:
        raise UserError("a learning rate is found for a number of steps: leave out --minutes, or give --steps")
    settings, model = tried_settings(given, options.preset or PRESET, options.corpus)
    finder = RateFinder(
        settings,
        options.corpus,
        options.device or "auto",
        model,
        options.seconds,
        options.trial_steps,
    )
    found = RateResult()
    try:
        for record in finder.records():
            found.add(record)
            _say(record)
    finally:
        finder.cancel()
    assert found.pick is not None
    if options.json:
        put_json(summary(found.pick))
        return
    _put(found.pick, settings.learning_rate)


def _say(record: RateRecord) -> None:
    """Progress goes to a terminal's stderr only."""
    from tui_llm.common.display import visible
    from tui_llm.training.plan.find_lr import RateProgress
    from tui_llm.training.plan.lr_search import RateTrial

    if not sys.stderr.isatty():
        return
    if isinstance(record, RateProgress) and record.doing:
        print(visible(record.doing), file=sys.stderr)
    elif isinstance(record, RateTrial):
        loss = NOTHING if record.loss is None else f"loss {record.loss:.4f}"
        print(f"rate {record.rate:g}, {counted(record.steps, 'step')}: {loss}", file=sys.stderr)


def _put(pick: RatePick, own: float) -> None:
    from tui_llm.facts import report
    from tui_llm.training.plan.find_lr import basis

    rows: list[tuple[Any, ...]] = []
    for steps in sorted({trial.steps for trial in pick.trials}):
        part = sorted((one for one in pick.trials if one.steps == steps), key=lambda one: one.rate)
        lowest = min((one.loss for one in part if one.loss is not None), default=None)
        rows += [
            (f"{one.rate:g}", f"{one.steps:,}", NOTHING if one.loss is None else f"{one.loss:.4f}",
             "lowest" if one.loss is not None and one.loss == lowest else "")
            for one in part
        ]  # fmt: skip
    put(report.table(("rate", "steps", "validation loss", ""), rows, left=(3,)))
    put(f"\npick: {pick.rate:g} (the settings have {own:g})")
    for line in basis(pick):
        put(f"  {line}")
    put(f"use it: --learning-rate {pick.rate:g}")
