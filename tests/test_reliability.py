"""docs/reliability.md: each promise names a command that tests it, whose files exist and whose `-k` selects tests."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "reliability.md"
COMMAND = re.compile(r"`((?:PYTEST|\.venv/bin/python) [^`]+)`")


def parts() -> list[tuple[str, list[str]]]:
    """The parts of the page that promise something: (the text that begins it, its items)."""
    text = PAGE.read_text(encoding="utf-8")
    found = []
    for part in re.split(r"^(?=\*\*|## )", text, flags=re.MULTILINE):
        head, *items = re.split(r"^- ", part, flags=re.MULTILINE)
        if items and not head.startswith("**Not promised**"):
            found.append((" ".join(head.split()), [" ".join(item.split()) for item in items]))
    return found


def commands() -> list[str]:
    text = " ".join(PAGE.read_text(encoding="utf-8").partition("\n## ")[2].split())
    return sorted(set(COMMAND.findall(text)))


def test_each_promise_names_a_command() -> None:
    promises = parts()
    assert len(promises) > 12
    # A command in the text that begins a part tests all of its items.
    assert [
        item for head, items in promises if not COMMAND.search(head) for item in items if not COMMAND.search(item)
    ] == []


def names(path: Path) -> list[str]:
    tree = ast.parse(path.read_bytes())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node.name for node in ast.walk(tree) if isinstance(node, kinds) and node.name.startswith("test_")]


@pytest.mark.parametrize("command", commands())
def test_a_command_tests_something(command: str) -> None:
    program, *arguments = shlex.split(command)
    if program != "PYTEST":
        if arguments[0] == "-m":
            assert (REPOSITORY / arguments[1] / "__main__.py").is_file()
            return
        script = REPOSITORY / arguments[0]
        options = {word for word in arguments if word.startswith("--")}
        assert script.is_file() and options <= set(re.findall(r'"(--[\w-]+)"', script.read_text(encoding="utf-8")))
        return
    chosen = arguments[arguments.index("-k") + 1] if "-k" in arguments else ""
    files = [word for word in arguments if word not in ("-k", chosen)]
    assert files
    for file in files:
        found = names(REPOSITORY / file)
        assert found, file
        words = chosen.split(" or ") if chosen else [""]
        assert any(word in name for word in words for name in found), f"{chosen} selects nothing in {file}"
    everything = [name for file in files for name in names(REPOSITORY / file)]
    for word in chosen.split(" or ") if chosen else ():
        assert any(word in name for name in everything), f"nothing is named {word}"
