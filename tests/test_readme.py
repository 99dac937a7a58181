"""README, docs and CONTRIBUTING: their commands run, generated parts are current, links and named files exist."""

from __future__ import annotations

import importlib
import io
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tui_llm import LanguageModel, facts, instruments
from tui_llm.cli import main
from tui_llm.commands.shared.parser import build_parser
from tui_llm.facts.request import Question

REPOSITORY = Path(__file__).resolve().parents[1]
README = REPOSITORY / "README.md"
CLI = REPOSITORY / "docs" / "cli.md"
PAGES = sorted((REPOSITORY / "docs").glob("*.md"))
ALL = [README, *PAGES, *(REPOSITORY / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "dev/LOG.md"))]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def test_ci_runs_the_readmes_second_command() -> None:
    second = blocks(README, "sh")[1].strip()
    assert second.endswith("-m tests")
    assert second in (REPOSITORY / ".ci" / "run").read_text()


def test_the_first_command_ends_in_the_app() -> None:
    install, app = blocks(README, "sh")[0].strip().rsplit("&&", 1)
    assert install.startswith("git clone ") and "pip install" in install
    assert app.strip() == ".venv/bin/tui-llm"
    assert "tui-llm" in (REPOSITORY / "pyproject.toml").read_text()


def test_readme_is_short() -> None:
    assert README.stat().st_size <= 20_000


def test_performance_is_a_reference() -> None:
    assert len((REPOSITORY / "docs" / "performance.md").read_text(encoding="utf-8").splitlines()) <= 100


@pytest.mark.parametrize("columns", ["40", "200"])
def test_generated_pages_are_current_whatever_the_terminal(columns: str) -> None:
    done = subprocess.run(
        [sys.executable, REPOSITORY / "scripts" / "readme.py", "--check"],
        cwd=REPOSITORY,
        env={**os.environ, "COLUMNS": columns},
    )
    assert done.returncode == 0, "run: python scripts/readme.py"


def test_the_tree_names_each_folder_of_the_package() -> None:
    sys.path.insert(0, str(REPOSITORY / "scripts"))
    try:
        folders = importlib.import_module("readme").FOLDERS
    finally:
        sys.path.pop(0)
    instruments = REPOSITORY / "tui_llm" / "instruments"  # one line of the tree stands for all of its folders
    package = {
        name(path.parent) for path in (REPOSITORY / "tui_llm").rglob("*.py") if path.parent.parent != instruments
    }
    assert {folder for folder in folders if folder.startswith("tui_llm")} == package
    assert all((REPOSITORY / folder).is_dir() for folder in folders)


def test_every_command_is_in_the_readmes_table() -> None:
    (commands,) = (action.choices for action in build_parser()._actions if action.dest == "command")
    text = README.read_text(encoding="utf-8")
    for command in commands or ():
        assert f"`{command}`" in text, command


def lines(page: Path) -> list[str]:
    """Returns the commands of the page's `sh` blocks.

    `console` blocks are for what takes hours, several machines or another shell.
    """
    return [line for line in "".join(blocks(page, "sh")).splitlines() if words(line)]


def words(line: str) -> list[str]:
    return shlex.split(line, comments=True)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In order: a command may use files of earlier ones."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO())  # `guess` reads answers
    shutil.copy(REPOSITORY / "README.md", tmp_path)
    text = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")[:6000]  # it grows, and `evaluate` reads all of it
    (tmp_path / "CHANGELOG.md").write_text(text, encoding="utf-8")
    for line in lines(page):
        if words(line)[0] == "tui-llm":
            assert main(words(line)[1:]) == 0, (line, capsys.readouterr().err)
            assert capsys.readouterr().out.strip(), line
        else:
            assert words(line)[0] == "printf", line
            subprocess.run(["bash", "-c", line], check=True)
    if page == CLI:
        assert len(lines(page)) > 15
        assert (tmp_path / "my-model" / "model.safetensors").is_file()


def test_the_readmes_commands_are_among_the_examples_that_run() -> None:
    mine = lines(README)[3:]
    assert len(mine) >= 5
    run = [words(line) for line in lines(CLI)]
    assert [line for line in mine if words(line) not in run] == []


@pytest.mark.parametrize("page", [page for page in [README, *PAGES] if blocks(page, "python")], ids=name)
def test_python_runs(page: Path) -> None:
    """The blocks of a page form one program."""
    exec(compile("".join(blocks(page, "python")), page.name, "exec"), {})


def test_a_training_example_names_its_run() -> None:
    """`console` blocks are not run; without a name `train` ends at once."""
    shown = []
    for page in (README, *PAGES):
        text = "".join(blocks(page, "(?:sh|console)")).replace("\\\n", " ")
        shown += [line for line in re.findall(r"tui-llm train .*", text) if "--arch help" not in line]
    assert len(shown) > 20
    assert [line for line in shown if not {"--run", "--branch", "--cost"} & set(line.split())] == []


def test_the_systems_are_those_that_are_tested_and_wheels_for_a_cpu_come_from_its_index() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in (README, *PAGES))
    found = [line for line in text.splitlines() if "Windows" in line]
    assert found and all("WSL" in line for line in found)
    (wheels,) = [line for line in text.splitlines() if "pip wheel" in line and "--find-links" in line]
    assert "--extra-index-url https://download.pytorch.org/whl/cpu" in wheels


def test_every_method_of_a_model_is_in_the_page_on_python() -> None:
    named = set(
        re.findall(r"^\| `(\w+)", (REPOSITORY / "docs" / "python.md").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert named == {name for name in dir(LanguageModel) if not name.startswith("_")} - {"engine"}


def slug(heading: str) -> str:
    """Returns a heading's anchor as GitHub computes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", ALL, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")):
        path = page.parent / target if target else page
        assert path.is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), f"{target}#{anchor}"


FILES = re.compile(r"`((?:tui_llm|scripts|tests|docs|dev)/[\w./-]*)`")


@pytest.mark.parametrize("page", ALL, ids=name)
def test_files_that_are_named_exist(page: Path) -> None:
    for path in FILES.findall(page.read_text(encoding="utf-8")):
        assert (REPOSITORY / path).exists(), path


def test_the_walk_names_what_is_in_each_file() -> None:
    rows = re.findall(r"^\| `(tui_llm/[^`]*\.py)` \| (.*) \|$", (REPOSITORY / "CONTRIBUTING.md").read_text(), re.M)
    assert len(rows) > 30
    for path, about in rows:
        code = (REPOSITORY / path).read_text(encoding="utf-8")
        for used in re.findall(r"`([A-Za-z_.]+)`", about):
            last = used.rpartition(".")[2]
            assert re.search(rf"\b{last}\b", code), f"{used} in {path}"


def test_every_instrument_is_in_the_table_of_instruments() -> None:
    for package in (facts, instruments):
        for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            importlib.import_module(found.name)
    names = {match[1] for one in Question.__subclasses__() if (match := re.search(r"\.(?:facts|instruments)\.(\w+)", one.__module__))}  # fmt: skip
    assert len(names) > 10
    table = (REPOSITORY / "docs" / "instruments.md").read_text(encoding="utf-8").split("\n\n")[2]
    assert {one for one in names if f"`{one}`" not in table} == set()
