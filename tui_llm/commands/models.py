"""Models on this machine and on the hub: models, and its actions pull, info, delete. Imports no torch."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from typing import TYPE_CHECKING

from tui_llm.commands.options import AddCommand, Parser, json_option
from tui_llm.commands.output import put, put_json
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from tui_llm.facts.model import ModelInfo


def add(command: AddCommand) -> None:
    models = command("models", "list the models that can be opened; pull, show or delete one", "models")
    json_option(models)
    doing = models.add_subparsers(dest="action", metavar="ACTION", parser_class=Parser)
    pull = doing.add_parser("pull", help="bring a model from the Hugging Face Hub, or the rest of one (extra `hub`)")
    pull.add_argument("name", metavar="NAME", help="gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2, or OWNER/NAME")
    pull.add_argument("--revision", metavar="R", help="a branch, a tag or a commit (default main)")
    pull.add_argument("--offline", action="store_true", help="ask no network, as HF_HUB_OFFLINE=1 does")
    pull.add_argument("--progress", action="store_true", help="the progress as JSON lines on stderr, for programs")
    info = doing.add_parser("info", help="what is known of one model, and its card")
    info.add_argument("name", metavar="MODEL")
    delete = doing.add_parser("delete", help="delete a pulled model; asks first")
    delete.add_argument("name", metavar="NAME")
    delete.add_argument("--yes", action="store_true", help="don't ask")
    for action in (pull, info, delete):  # said before the action or after it
        action.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON, for programs")


_FIELDS = ("name", "kind", "path", "parameters", "context", "vocabulary", "step", "problem", "size", "origin", "pulled")


def models(options: argparse.Namespace) -> None:
    {None: _list, "pull": _pull, "info": _info, "delete": _delete}[options.action](options)


def _fields(row: ModelInfo) -> dict[str, object]:
    return {field: getattr(row, field) for field in _FIELDS}


def _number(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def size(count: int | None) -> str:
    """Bytes, as people say them."""
    if count is None:
        return "–"
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _list(options: argparse.Namespace) -> None:
    from tui_llm.common.display import visible
    from tui_llm.facts import report
    from tui_llm.llm.hub import model_list

    rows = [*model_list.every(), *model_list.cached()]
    if options.json:
        put_json({"models": [_fields(row) for row in rows]})
        return
    if not rows:
        put("no models are here; `tui-llm models pull gpt2` brings one, and --model FOLDER opens a model folder")
        return
    cells = [
        (visible(r.name), r.kind, _number(r.parameters), size(r.size), _number(r.context), _number(r.vocabulary), _number(r.step),
         visible(r.problem or r.origin))
        for r in rows
    ]  # fmt: skip
    heads = ("model", "kind", "parameters", "size", "context", "vocabulary", "step", "where from")
    put(report.table(heads, cells, left=(0, 1, 7)))


def _info(options: argparse.Namespace) -> None:
    from tui_llm.common.display import visible
    from tui_llm.llm.hub import lookup, model_list

    found = lookup.find(options.name)
    row, card = model_list.describe(found), model_list.card(found.folder)
    if options.json:
        put_json({**_fields(row), "card": card})
        return
    lines = [
        ("model", row.name), ("kind", row.kind), ("from", row.origin), ("folder", row.path), ("parameters", _number(row.parameters)),
        ("size", size(row.size)), ("context", _number(row.context)), ("vocabulary", _number(row.vocabulary)),
    ]  # fmt: skip
    lines += [("step", _number(row.step))] if row.step is not None else []
    lines += [("problem", row.problem)] if row.problem else []
    for name, value in lines:
        put(f"{name:11} {visible(value)}")
    if card:
        put("")
        for line in card.splitlines():
            put(visible(line))


def _pull(options: argparse.Namespace) -> None:
    from tui_llm.common.display import visible

    if options.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # read by the hub's library, which is not imported yet
    from tui_llm.llm.hub import pull

    shown = _Shown(lines=options.progress)
    try:
        made = pull.pull(options.name, options.revision, shown)
    finally:
        shown.end()
    if options.json:
        put_json({**dataclasses.asdict(made), "folder": str(made.folder)})
        return
    said = "is here, every file as its hash says" if made.fresh else "is here already, at that revision"
    put(f"{visible(made.repository)} {said}: {size(made.size)}, commit {made.commit[:12]}")
    put(f"open it: tui-llm --model {visible(made.name)}")


def _delete(options: argparse.Namespace) -> None:
    from tui_llm.common.display import visible
    from tui_llm.llm.hub import pull

    if not options.yes:
        if not sys.stdin.isatty():
            raise UserError(f"deleting {options.name} can't be undone; say it with --yes")
        sys.stderr.write(f"Delete the pulled model {visible(options.name)}? y/N ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            put("it stays")
            return
    folder = pull.delete(options.name)
    if options.json:
        put_json({"deleted": str(folder)})
        return
    put(f"{visible(options.name)} is deleted")


class _Shown:
    """Progress on stderr: one line that is written over in a terminal, JSON lines for programs, else a line a while."""

    def __init__(self, lines: bool) -> None:
        self._lines = lines
        self._terminal = sys.stderr.isatty() and not lines
        self._every = 0.1 if lines or self._terminal else 10.0
        self._at, self._doing, self._began = -1e9, "", time.monotonic()

    def __call__(self, now: object) -> None:
        import json

        from tui_llm.common.display import visible
        from tui_llm.llm.hub.pull import Progress

        assert isinstance(now, Progress)
        time_now = time.monotonic()
        if time_now - self._at < self._every and (now.doing == self._doing or not self._terminal):
            return
        self._at, self._doing = time_now, now.doing
        if self._lines:
            text = json.dumps(dataclasses.asdict(now)) + "\n"
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
