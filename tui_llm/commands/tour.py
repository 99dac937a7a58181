"""`tui-llm tour`: the app with the tour open, or how far it has come."""

from __future__ import annotations

import argparse

from tui_llm import storage
from tui_llm.commands.output import put_json
from tui_llm.errors import UserError
from tui_llm.tour.tour import Tour, path


def tour(options: argparse.Namespace) -> int:
    if options.again:
        try:
            storage.unlink(path(), missing_ok=True)
        except OSError as error:
            raise UserError(
                f"can't delete {path()}: {error.strerror or error}; delete it, or leave --again out"
            ) from error
    if not options.json:
        from tui_llm import cli

        options.prompt = cli.DEFAULT_PROMPT if options.prompt is None else options.prompt
        return cli.open_app(options, tour=True)
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
