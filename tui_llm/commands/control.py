"""`tui-llm control`: change a run while it trains."""

from __future__ import annotations

import argparse

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import PIN, json_option, run_argument
from tui_llm.commands.shared.output import put, put_json
from tui_llm.common.errors import UserError


def add(commands: Commands) -> None:
    commands.add(
        "control",
        "change a run while it trains: save, pause, learning rate, pins",
        control,
        _add_options,
        more="The run's worker acts at its next step. Several options can be given at once.",
        examples=(
            "tui-llm control first --save",
            "tui-llm control first --learning-rate 1e-4",
            "tui-llm control first --pause",
        ),
    )


def _add_options(parser: Parser) -> None:
    run_argument(parser)
    parser.add_argument("--save", action="store_true", help="write a checkpoint now")
    parser.add_argument("--learning-rate", metavar="R", help="scale the schedule so that it peaks at R, from the next step on")  # fmt: skip
    parser.add_argument("--pin", action="append", metavar="PIN", help=f"from the next evaluation on, read {PIN}")
    parser.add_argument("--unpin", action="append", metavar="PIN", help="stop reading it; earlier readings are kept")
    pausing = parser.add_mutually_exclusive_group()
    pausing.add_argument("--pause", action="store_true", help="save, then wait")
    pausing.add_argument("--go-on", action="store_true", help="continue after a pause")
    json_option(parser)


def control(options: argparse.Namespace) -> None:
    from tui_llm.commands.shared import spaces
    from tui_llm.common.display import visible
    from tui_llm.training.plan import launch
    from tui_llm.training.run import changes, pins
    from tui_llm.training.run.run import find

    run, asked = find(options.run), []
    pinning = options.pin or options.unpin
    if not (options.save or options.pause or options.go_on or pinning or options.learning_rate is not None):
        raise UserError("give a change: --save, --learning-rate R, --pin P, --unpin P, --pause or --go-on")
    peak = None if options.learning_rate is None else changes.parse_learning_rate(options.learning_rate)
    if options.save or options.pause or options.go_on:
        launch.check_training(run)  # before anything is written
    if pinning:
        before, new = pins.read(run.pins_path), list(map(pins.parse, options.pin or ()))
        old = [pin for words in options.unpin or () for pin in pins.matching(words, before)]
        pins.change(run.pins_path, new, old)
        asked += [f"{'pin' if pin in new else 'unpin'} {pins.text_of(pin)!r}" for pin in (*new, *old)]
    if peak is not None:
        launch.change_learning_rate(run, peak)
        asked.append(f"learning rate {peak:g} at most from the next step on")
    if options.save:
        launch.save(run)
        asked.append("save")
    if options.pause or options.go_on:
        (launch.pause if options.pause else launch.unpause)(run)
        asked.append("pause" if options.pause else "go on")
    if pinning:
        spaces.note_pins(new)  # last: an error is one line
    if options.json:
        put_json({"run": run.name, "asked": asked, "alive": run.alive()})
    else:
        later = "" if run.status().alive else "; it is not being trained, and acts once it is resumed"
        put(visible(f"requested of run {run.name}: {', '.join(asked)}{later}"))
