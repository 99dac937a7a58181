"""No option is ignored silently: the command's function, or a function of `tui_llm/commands/` that it uses, reads each of them."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

import pytest

from tui_llm import cli
from tui_llm.commands.shared import text_input
from tui_llm.commands.shared.command import parsers
from tui_llm.commands.shared.parser import build_parser
from tui_llm.training.run.settings import SETTINGS

PARSERS = {path: parser for path, parser in parsers(build_parser()) if parser.get_default("run_command") is not None}
# What a loop over names reads, with `getattr(options, name)`, beside the names written out in the function
LOOPS: dict[str, set[str]] = {
    "tui_llm.commands.train": set(SETTINGS),
    "tui_llm.commands.find_lr": set(SETTINGS),
    "tui_llm.commands.ladder": {"steps", "minutes", "flops"},
}


def _functions(value: object) -> Iterator[FunctionType]:
    """The functions of the package's commands that `value` is, or holds."""
    if isinstance(value, FunctionType):
        if value.__module__.startswith("tui_llm.commands"):
            yield value
    elif isinstance(value, tuple):
        for one in value:
            yield from _functions(one)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _functions(getattr(value, field.name))


def _imported(tree: ast.AST) -> dict[str, Any]:
    """What the function imports from the commands by itself."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tui_llm.commands"):
            module = importlib.import_module(node.module or "")
            for name in node.names:
                found[name.asname or name.name] = getattr(module, name.name, None) or importlib.import_module(
                    f"{node.module}.{name.name}"
                )
    return found


def read_by(function: Callable[..., Any], seen: set[Callable[..., Any]] | None = None) -> set[str]:
    """The options that `function` and those that it uses read: attributes of `options`, and names given to `getattr`."""
    seen = set() if seen is None else seen
    assert isinstance(function, FunctionType)
    if function in seen:
        return set()
    seen.add(function)
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    known = {**function.__globals__, **_imported(tree)}
    reads: set[str] = set()
    dynamic = False
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and isinstance(node.value, ast.Name):
            if node.value.id == "options":
                reads.add(node.attr)
            for used in _functions(getattr(known.get(node.value.id), node.attr, None)):
                reads |= read_by(used, seen)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            for used in _functions(known.get(node.id)):
                reads |= read_by(used, seen)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            dynamic = dynamic or ast.unparse(node.args[0]) == "options"
    if dynamic:
        reads |= {
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        reads |= LOOPS.get(function.__module__, set())
    return reads


@pytest.mark.parametrize("path", PARSERS, ids=lambda path: path or "the app")
def test_every_option_of_every_command_is_read(path: str) -> None:
    parser = PARSERS[path]
    reads = read_by(parser.get_default("run_command"))
    if parser.get_default("text_dest") is not None:  # `cli` reads the text for the command
        reads |= read_by(text_input.read)
    reads |= read_by(cli._run) & {"kernel"}  # which applies to every model that the process opens
    unread = {
        "/".join(action.option_strings) or action.dest
        for action in parser._actions
        if not isinstance(action, (argparse._HelpAction, argparse._VersionAction, argparse._SubParsersAction))
        and action.dest not in reads
    }
    assert not unread


def _ignores(options: argparse.Namespace) -> str:
    return str(options.model)


def test_the_check_notices_an_option_that_nobody_reads() -> None:
    assert read_by(_ignores) == {"model"}
    assert {"model", "device", "weights", "file"} <= read_by(PARSERS["guess"].get_default("run_command"))
    assert "model" not in read_by(PARSERS["stop"].get_default("run_command"))
    assert len(PARSERS) > 30
