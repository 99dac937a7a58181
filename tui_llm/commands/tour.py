"""`tui-llm tour`: the app with the tour open, or how far it has come."""

from __future__ import annotations

import argparse

from tui_llm.commands.options import AddCommand, model_options
from tui_llm.commands.output import put_json
from tui_llm.common.errors import UserError


def add(command: AddCommand) -> None:
    tour = command("tour", "open the app with the tour: pre-training in ten steps, each done by you", "tour")
    model_options(tour)
    tour.add_argument("--prompt", default=None, metavar="TEXT", help="the text to begin with")
    tour.add_argument("--no-mouse", action="store_true", help="leave the mouse to the terminal")
    tour.add_argument("--again", action="store_true", help="from the beginning, not where it was left")
    tour.add_argument(
        "--json", action="store_true", help="open nothing; print the steps and what is done, for programs"
    )


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
        from tui_llm.commands import app, parser

        options.prompt = parser.DEFAULT_PROMPT if options.prompt is None else options.prompt
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
