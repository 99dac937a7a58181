"""`tui-llm models`: list, pull, show and delete models. Imports no torch."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from tui_llm.commands.shared.command import Commands, Parser, actions_of
from tui_llm.commands.shared.options import action_json_option, json_option
from tui_llm.commands.shared.output import put, put_json
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from tui_llm.facts.model import ModelInfo


def add(commands: Commands) -> None:
    commands.add(
        "models",
        "list the models that can be opened; pull, show or delete one",
        list_models,
        _add_options,
        more="Without an action prints one row per model: shipped models, runs, pulled ones, folders in the models folder. "
        "`tui-llm models ACTION --help` describes each action.",
        examples=("tui-llm models", "tui-llm models pull gpt2", "tui-llm models info nano"),
    )


def _add_options(parser: Parser) -> None:
    json_option(parser)
    actions = actions_of(parser)
    action = actions.add(
        "pull",
        "download a model from the Hugging Face Hub, or resume a download (extra `hub`)",
        pull,
        more="Needs the extra `hub`, and the Hub or a mirror (HF_ENDPOINT). Resumes an interrupted download. Safetensors and JSON only: "
        "nothing is unpickled, no code is downloaded. A model in the Hugging Face cache opens without it: --model OWNER/NAME.",
        examples=("tui-llm models pull gpt2", "tui-llm models pull EleutherAI/pythia-70m --revision main"),
    )
    action.add_argument(
        "name", metavar="NAME", help="gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2, or OWNER/NAME"
    )
    action.add_argument("--revision", metavar="R", help="a branch, a tag or a commit (default main)")
    action.add_argument("--progress", action="store_true", help="print progress as JSON lines on stderr, for programs")
    action_json_option(action)
    action = actions.add(
        "info",
        "show one model's figures and its card",
        info,
        more="Prints its figures and its card. No weights are loaded.",
        examples=("tui-llm models info nano",),
    )
    action.add_argument("name", metavar="MODEL", help=NAME)
    action_json_option(action)
    action = actions.add(
        "delete",
        "delete a pulled model; asks first",
        delete,
        more="Asks on the terminal unless --yes is given. Shipped models and runs are never deleted.",
        examples=("tui-llm models delete gpt2",),
    )
    action.add_argument("name", metavar="NAME", help=NAME)
    action.add_argument("--yes", action="store_true", help="don't ask")
    action_json_option(action)


NAME = "its name, as `tui-llm models` lists it"


_FIELDS = (
    "name",
    "kind",
    "path",
    "parameters",
    "context",
    "vocabulary",
    "rows",
    "step",
    "problem",
    "size",
    "origin",
    "pulled",
    "note",
)


def _fields(row: ModelInfo) -> dict[str, object]:
    return {field: getattr(row, field) for field in _FIELDS}


def _number(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _size(count: int | None) -> str:
    from tui_llm.common.numbers import file_size

    return "–" if count is None else file_size(count)


def list_models(options: argparse.Namespace) -> None:
    from tui_llm.common.display import visible
    from tui_llm.facts import report
    from tui_llm.llm.hub import model_list

    rows = [*model_list.every(), *model_list.cached()]
    if options.json:
        put_json({"models": [_fields(row) for row in rows]})
        return
    if not rows:
        put("there are no models; `tui-llm models pull gpt2` downloads one, and --model FOLDER opens a model folder")
        return
    cells = [
        (visible(r.name), r.kind, _number(r.parameters), _size(r.size), _number(r.context), _number(r.vocabulary), _number(r.step),
         visible(r.problem or r.origin))
        for r in rows
    ]  # fmt: skip
    heads = ("model", "kind", "parameters", "size", "context", "vocabulary", "step", "where from")
    put(report.table(heads, cells, left=(0, 1, 7)))


def info(options: argparse.Namespace) -> None:
    from tui_llm.common.display import visible
    from tui_llm.facts import report
    from tui_llm.llm.hub import lookup, model_list
    from tui_llm.llm.hub.choices import of_files
    from tui_llm.llm.hub.open_model import opens_in_numpy
    from tui_llm.llm.model.tensor_shapes import headers_once

    found = lookup.find(options.name)
    with headers_once():
        row, card = model_list.with_ids(model_list.describe(found)), model_list.card(found.folder)
        try:
            choices = of_files(found.folder, found.name).lines()
        except UserError:  # its vocabulary can't be read without opening it
            choices = ()
        reader = "numpy" if row.problem is None and opens_in_numpy(found.folder) else "torch"
    if options.json:
        put_json({**_fields(row), "reader": reader, "choices": [choice.text for choice in choices], "card": card})
        return
    lines = [
        ("model", row.name), ("kind", row.kind), ("from", row.origin), ("folder", row.path), ("parameters", _number(row.parameters)),
        ("size", _size(row.size)), ("context", _number(row.context)), ("vocabulary", row.vocabulary_text),
    ]  # fmt: skip
    lines += [("step", _number(row.step))] if row.step is not None else []
    lines += [("problem", row.problem)] if row.problem else []
    lines += [("note", row.note)] if row.note else []
    lines += [("reader", "numpy, until something needs torch" if reader == "numpy" else "torch")]
    lines += [("choices", report.choices_text(choices))] if choices else []
    for name, value in lines:
        put(f"{name:11} {visible(value)}")
    if card:
        put("")
        for line in card.splitlines():
            put(visible(line))


def pull(options: argparse.Namespace) -> None:
    from dataclasses import asdict

    from tui_llm.common.display import visible
    from tui_llm.llm.hub.pull import pull

    shown = _Progress(lines=options.progress)
    try:
        made = pull(options.name, options.revision, shown)
    finally:
        shown.end()
    if options.json:
        put_json({**asdict(made), "folder": str(made.folder)})
        return
    state = "is pulled, and every file matches its hash" if made.fresh else "is already pulled at that revision"
    put(f"{visible(made.repository)} {state}: {_size(made.size)}, commit {made.commit[:12]}")
    put(f"open it: tui-llm --model {visible(made.name)}")


def delete(options: argparse.Namespace) -> None:
    from tui_llm.common.display import visible
    from tui_llm.llm.hub.pull import delete

    if not options.yes:
        if not sys.stdin.isatty():
            raise UserError(f"deleting {options.name} can't be undone; add --yes to confirm")
        sys.stderr.write(f"Delete the pulled model {visible(options.name)}? y/N ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise UserError(f"{options.name} is not deleted")
    folder = delete(options.name)
    if options.json:
        put_json({"deleted": str(folder)})
        return
    put(f"{visible(options.name)} is deleted")


class _Progress:
    """Progress on stderr: one line that is replaced on a terminal, JSON lines for programs, otherwise a line every ten seconds."""

    def __init__(self, lines: bool) -> None:
        self._lines = lines
        self._terminal = sys.stderr.isatty() and not lines
        self._every = 0.1 if lines or self._terminal else 10.0
        self._at, self._doing, self._began = -1e9, "", time.monotonic()

    def __call__(self, now: object) -> None:
        import json

        from tui_llm.common.display import visible
        from tui_llm.llm.hub.pull import PullProgress

        assert isinstance(now, PullProgress)
        time_now = time.monotonic()
        if time_now - self._at < self._every and (now.doing == self._doing or not self._terminal):
            return
        self._at, self._doing = time_now, now.doing
        if self._lines:
            from dataclasses import asdict

            text = json.dumps(asdict(now)) + "\n"
        else:
            of = (
                f"{100 * now.done / now.total:5.1f} %  {now.done / 1e6:,.1f} of {now.total / 1e6:,.1f} MB  "
                if now.total
                else ""
            )
            text = f"\r\x1b[2K{of}{visible(now.doing)}" if self._terminal else f"{of}{visible(now.doing)}\n"
        sys.stderr.write(text)
        sys.stderr.flush()

    def end(self) -> None:
        if self._terminal and self._doing:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
