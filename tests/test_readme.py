"""What the README says is so: its commands run, its keys and tree are the code's, CI runs its test command."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tui_llm.cli import build_parser, main

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)


def test_ci_runs_the_readmes_second_command() -> None:
    second = BLOCKS[1].strip()
    assert second.endswith("-m tests")
    assert second in (REPOSITORY / ".ci" / "run").read_text()


def test_the_first_command_ends_in_the_app() -> None:
    install, app = BLOCKS[0].strip().rsplit("&&", 1)
    assert "pip install" in install
    assert app.strip() == ".venv/bin/tui-llm"
    assert "tui-llm" in (REPOSITORY / "pyproject.toml").read_text()


def test_keys_and_tree_are_the_codes() -> None:
    done = subprocess.run([sys.executable, REPOSITORY / "scripts" / "readme.py", "--check"], cwd=REPOSITORY)
    assert done.returncode == 0, "run: python scripts/readme.py"


def examples() -> list[list[str]]:
    lines = [shlex.split(line, comments=True) for line in BLOCKS[2].splitlines()]
    return [words[1:] for words in lines if words and words[0] == "tui-llm" and len(words) > 1]


def test_every_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In their order, as a reader would: what one leaves, the next may use."""
    monkeypatch.chdir(tmp_path)
    for name in ("README.md", "CHANGELOG.md"):
        shutil.copy(REPOSITORY / name, tmp_path)
    assert len(examples()) >= 10
    for words in examples():
        assert main(words) == 0, (words, capsys.readouterr().err)
        assert capsys.readouterr().out.strip(), words
    assert (tmp_path / "my-model" / "model.safetensors").is_file()


PAGES = sorted((REPOSITORY / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_the_docs_say_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each `sh` block, line by line; `console` blocks hold what needs hours, several machines or another shell."""
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["tui-llm"]:
                assert main(words[1:]) == 0, line
            elif words[:1] == ["printf"]:
                subprocess.run(["bash", "-c", line], check=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_the_docs_link_to_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).is_file(), target


def test_every_command_is_mentioned() -> None:
    (commands,) = (action.choices for action in build_parser()._actions if action.dest == "command")
    for name in commands or ():
        assert f"tui-llm {name}" in README, name


def test_files_that_are_linked_are_there() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (REPOSITORY / target).is_file(), target
