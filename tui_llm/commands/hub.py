"""Models on this machine and on the hub: models, and its actions pull, info, delete. Imports no torch."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time

from tui_llm import report
from tui_llm.commands.output import put, put_json
from tui_llm.display import visible
from tui_llm.errors import UserError
from tui_llm.reading import ModelInfo

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
    from tui_llm import listing

    rows = [*listing.every(), *listing.cached()]
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
    from tui_llm import listing
    from tui_llm.llm import finding

    found = finding.find(options.name)
    row, card = listing.describe(found), listing.card(found.folder)
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
    if options.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # read by the hub's library, which is not imported yet
    from tui_llm.llm import pulling

    shown = _Shown(lines=options.progress)
    try:
        made = pulling.pull(options.name, options.revision, shown)
    finally:
        shown.end()
    if options.json:
        put_json({**dataclasses.asdict(made), "folder": str(made.folder)})
        return
    said = "is here, every file as its hash says" if made.fresh else "is here already, at that revision"
    put(f"{visible(made.repository)} {said}: {size(made.size)}, commit {made.commit[:12]}")
    put(f"open it: tui-llm --model {visible(made.name)}")


def _delete(options: argparse.Namespace) -> None:
    from tui_llm.llm import pulling

    if not options.yes:
        if not sys.stdin.isatty():
            raise UserError(f"deleting {options.name} can't be undone; say it with --yes")
        sys.stderr.write(f"Delete the pulled model {visible(options.name)}? y/N ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            put("it stays")
            return
    folder = pulling.delete(options.name)
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
        from tui_llm.llm.pulling import Progress

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
