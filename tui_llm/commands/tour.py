"""`tui-llm tour`: the app with the tour or another lesson open; checks a lesson file; prints the progress."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tui_llm.commands.shared import app
from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import DEFAULT_MODEL, model_options, refuse_ignored, start_options, weights_option
from tui_llm.commands.shared.output import put, put_json
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from tui_llm.tour.step import Lesson


def add(commands: Commands) -> None:
    commands.add(
        "tour",
        "open the app with the tour, pre-training in twelve steps, or another lesson",
        tour,
        _add_options,
        more="Half an hour, no network. It checks what you do, says what is missing, and continues by itself; F4 skips, F3 goes back, "
        "F2 closes it. Your progress is saved, for each lesson. A lesson begins with nano, or with --model; later the model of last time comes "
        "back.\n\n"
        "LESSON is tokens (tokens that trip models), loss-curve (read a loss curve), or a lesson file of your own: docs/lessons.md "
        "describes the format.",
        examples=(
            "tui-llm tour",
            "tui-llm tour tokens",
            "tui-llm tour my-lesson.toml",
            "tui-llm tour --check my-lesson.toml",
            "tui-llm tour --again --json",
        ),
    )


def _add_options(parser: Parser) -> None:
    parser.add_argument("lesson", nargs="?", default="tour", metavar="LESSON", help="a lesson that ships (tour, tokens, loss-curve) or a lesson file (default: tour)")  # fmt: skip
    model_options(parser, remembered=True)
    weights_option(parser)
    start_options(parser)
    parser.add_argument("--no-mouse", action="store_true", help="don't capture the mouse: the terminal selects text")
    parser.add_argument("--again", action="store_true", help="start from the beginning, not from the saved progress")
    parser.add_argument("--learner", metavar="NAME", help="keep the progress apart, under this name; `serve --lesson` gives each tab one")  # fmt: skip
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--check", action="store_true", help="only check the lesson file: one line with the place of an error, exit status 2")  # fmt: skip
    only.add_argument("--names", action="store_true", help="only list the checks and the commands that a lesson file can name")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the steps and your progress as JSON, for programs; the app is not opened")  # fmt: skip


def tour(options: argparse.Namespace) -> int:
    from tui_llm.common import storage
    from tui_llm.tour.learner_name import checked
    from tui_llm.tour.step import TOUR
    from tui_llm.tour.tour import Tour, path

    if options.names or options.check or options.json:
        _refuse_ignored(options)
    if options.names:
        return _list_names(options.json)
    learner = checked(options.learner) if options.learner is not None else ""
    lesson = read_lesson(options.lesson)
    if options.check:
        return _print_checked(lesson, options.json)
    kept = path(lesson.name, learner)
    if options.again:
        try:
            storage.unlink(kept, missing_ok=True)
        except OSError as error:
            raise UserError(
                f"can't delete {kept}: {error.strerror or error}; delete it, or leave --again out"
            ) from error
    if options.json:
        return _print_progress(lesson, learner)
    if options.model is None and not Tour(lesson, learner).load():
        options.model = DEFAULT_MODEL  # a lesson begins with the model that it was written for, not the one opened last
    if lesson.name == TOUR and not learner:
        return app.open_app(options, tour=True)
    return app.open_app(options, lesson=lesson, learner=learner)


def _refuse_ignored(options: argparse.Namespace) -> None:
    """Raises if an option was given that `--check`, `--names` or `--json` would ignore: they open nothing."""
    usual: dict[str, object] = {
        "model": None, "device": "auto", "weights": "fp32", "kernel": "", "prompt": None, "fresh": False, "no_mouse": False,
    }  # fmt: skip
    if options.names or options.check:
        usual |= {"again": False, "learner": None}
    if options.names:
        usual["lesson"] = "tour"
    only = "--names" if options.names else "--check" if options.check else "--json"
    refuse_ignored(options, usual, f"{only} opens nothing")


def read_lesson(name: str) -> Lesson:
    """Reads and checks a lesson; the keys of one that ships are checked by a test instead, as that imports every screen."""
    from tui_llm.tour.lesson_file import FOLDER, find, read

    path = find(name)
    if path.parent == FOLDER:
        return read(path)
    from tui_llm.tui.keymap import BY_ID

    return read(path, BY_ID)


def _print_checked(lesson: Lesson, as_json: bool) -> int:
    from tui_llm.common.display import visible
    from tui_llm.common.numbers import counted

    parts = sum(len(step.parts) for step in lesson.steps)
    if as_json:
        put_json(
            {"lesson": lesson.name, "title": lesson.title, "steps": len(lesson.steps), "parts": parts, "problems": []}
        )
    else:
        put(
            visible(
                f"{lesson.source}: “{lesson.title}”, {counted(len(lesson.steps), 'step')}, {counted(parts, 'part')}: no errors"
            )
        )
    return 0


def _print_progress(lesson: Lesson, learner: str) -> int:
    from tui_llm.tour.tour import Tour

    kept = Tour(lesson, learner)
    kept.load()
    put_json({
        "lesson": lesson.name,
        "title": lesson.title,
        "step": None if kept.finished else kept.steps[kept.step].name,
        "finished": kept.finished,
        "steps": [
            {"name": step.name, "title": step.title, "parts": len(step.parts), "done": sum(name == step.name for name, _ in kept.done)}
            for step in kept.steps
        ],
    })  # fmt: skip
    return 0


def _list_names(as_json: bool) -> int:
    from tui_llm.tour.checks import CHECKS
    from tui_llm.tui.keymap import COMMANDS

    if as_json:
        put_json({
            "checks": {name: {"about": one.about, "values": {at: value.about for at, value in one.values.items()}} for name, one in CHECKS.items()},
            "commands": {command.id: {"key": command.key_text, "about": command.tooltip} for command in COMMANDS},
        })  # fmt: skip
        return 0
    put("checks, and the values that they take:")
    for name, one in CHECKS.items():
        put(f"  {name}: {one.about}")
        for at, value in one.values.items():
            put(f"    {at}{' (needed)' if value.required else ''}: {value.about}")
    put("commands, which a text names as {COMMAND}:")
    for command in COMMANDS:
        put(f"  {command.id}  {command.key_text}  {command.tooltip}")
    return 0
