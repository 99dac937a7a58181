"""`tui-llm tour`: the app with the tour open, or the progress in it."""

from __future__ import annotations

import argparse

from tui_llm.commands.shared import app
from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import model_options, start_options
from tui_llm.commands.shared.output import put_json
from tui_llm.common.errors import UserError


def add(commands: Commands) -> None:
    commands.add(
        "tour",
        "open the app with the tour: pre-training in ten steps, each done by you",
        tour,
        _add_options,
        more="Half an hour, no network. It checks what you do, says what is missing, and continues by itself; F4 skips, F3 goes back, "
        "F2 closes it. Your progress is saved.",
        examples=("tui-llm tour", "tui-llm tour --again", "tui-llm tour --json"),
    )


def _add_options(parser: Parser) -> None:
    model_options(parser, remembered=True)
    start_options(parser)
    parser.add_argument("--no-mouse", action="store_true", help="don't capture the mouse: the terminal selects text")
    parser.add_argument("--again", action="store_true", help="start from the beginning, not from the saved progress")
    parser.add_argument("--json", action="store_true", help="print the steps and your progress as JSON, for programs; the app is not opened")  # fmt: skip


def tour(options: argparse.Namespace) -> int:
    from tui_llm.common import storage
    from tui_llm.tour.tour import Tour, path

    if options.again:
        try:
            storage.unlink(path(), missing_ok=True)
        except OSError as error:
            raise UserError(
                f"can't delete {path()}: {error.strerror or error}; delete it, or leave --again out"
            ) from error
    if not options.json:
        return app.open_app(options, tour=True)
    kept = Tour()
    kept.load()
    put_json({
        "step": None if kept.finished else kept.steps[kept.step].name,
        "finished": kept.finished,
        "steps": [
            {"name": step.name, "title": step.title, "parts": len(step.parts), "done": sum(name == step.name for name, _ in kept.done)}
            for step in kept.steps
        ],
    })  # fmt: skip
    return 0
