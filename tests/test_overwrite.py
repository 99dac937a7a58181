"""Every option and argument that names an output path, found by walking the parser."""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import hostile
from tests.test_cli import refused
from tui_llm.cli import main
from tui_llm.training.plan import ladder

# For each: the words up to the path, and the input that the path must not be.
PLACES: dict[tuple[str, str], tuple[list[str], str]] = {
    ("tree", "--out"): (
        ["tree", "a", "--depth", "1", "--branch", "2", "--model", "model", "--out"],
        "model/config.json",
    ),
    ("learn", "--keep"): (["learn", "a", "--target", "b", "--model", "model", "--keep"], "model"),
    ("reward", "--keep"): (
        ["reward", "a", "--score", "count:e", "--samples", "8", "--steps", "1", "--model", "model", "--keep"],
        "model",
    ),
    ("sft", "--keep"): (["sft", "--pair", "a => b", "--steps", "1", "--model", "model", "--keep"], "model"),
    ("steer", "--save"): (
        ["steer", "a", "--toward", "b", "--away", "c", "--model", "model", "--max-tokens", "1", "--save"],
        "model/config.json",
    ),
    ("vocabulary train", "--out"): (["vocabulary", "train", "text.txt", "--size", "260", "--out"], "text.txt"),
    ("runs curves", "--out"): (
        ["runs", "curves", "r", "--chart", "loss", "--out"],
        "tui-llm-home/runs/r/metrics.jsonl",
    ),
    ("ladder", "--out"): (["ladder", "--name", "up", "--show", "--out"], "tui-llm-home/ladders/up.json"),
    ("export", "FOLDER"): (["export", "r"], "tui-llm-home/runs/r"),
}
NAMES = ("--out", "--keep", "--save", "--output", "--to", "--file", "FOLDER", "OUT")
TEXTS = (
    "tokens", "examples", "logits", "loss", "generate", "merges", "letters", "surprisal", "guess", "attention", "lens", "block", "backward", "why", "heads", "ablate",
        "steer", "learn",
    "prefer", "reward", "draw", "tree", "compare-models", "versus",
)  # fmt: skip
READS = {(command, "--file") for command in TEXTS} | {
    ("vocabulary add", "FILE"),
    ("control", "--save"),
}  # options with these names that do not write to the given path


def found() -> Iterator[tuple[str, argparse.ArgumentParser, str]]:
    for command, parser in hostile.commands():
        for action in hostile.options_of(parser):
            for name in action.option_strings or [str(action.metavar)]:
                if name in NAMES and (command, name) not in READS:
                    yield command, parser, name


def test_each_place_is_known_here_and_has_force() -> None:
    assert {(command, name) for command, _, name in found()} == set(PLACES)
    for command, parser, _ in found():
        assert "--force" in parser._option_string_actions, command
    forced = {command for command, parser in hostile.commands() if "--force" in parser._option_string_actions}
    assert forced == {command for command, _ in PLACES} | {"vocabulary add", "fit-lens"}


def test_commands_and_screens_write_through_one_helper() -> None:
    """No command or screen opens a file for writing or replaces one itself."""
    package = Path(hostile.__file__).resolve().parents[1] / "tui_llm"
    replacing = {
        "write_aside",
        "write_json",
        "write_text",
        "write_bytes",
        "rename",
        "copyfile",
        "copytree",
        "save_folder",
    }
    allowed = {
        ("save.py", "write_text"),
        ("vocabulary.py", "save_folder"),
        ("run_actions.py", "rename"),
        ("runs.py", "rename"),
        ("save.py", "rename"),  # storage.rename: sets a damaged file aside, under a free name
        ("state_file.py", "write_json"),  # storage.write_json: the app's own file, not one that a person names
    }
    for path in (*(package / "commands").rglob("*.py"), *(package / "tui").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                assert name not in replacing or (path.name, name) in allowed, (path, name)


def digest(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("furnished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUI_LLM_HOME", str(folder / "tui-llm-home"))
        hostile.furnish(folder)
    return folder


@pytest.fixture
def here(furnished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(furnished)
    monkeypatch.setenv("TUI_LLM_HOME", str(furnished / "tui-llm-home"))
    return furnished


@pytest.mark.parametrize("place", PLACES, ids=" ".join)
def test_nothing_is_replaced_without_force(
    here: Path, tmp_path: Path, place: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    words, its_input = PLACES[place]
    out = tmp_path / "out"
    assert main([*words, str(out)]) == 0, capsys.readouterr().err
    capsys.readouterr()
    made = digest(tmp_path)
    assert made
    if out.is_dir():
        assert main([*words, str(tmp_path / "empty")]) == 0  # the second time, the folder exists
        (tmp_path / "empty2").mkdir()
        assert main([*words, str(tmp_path / "empty2")]) == 0
        (out / "notes.txt").write_text("mine")
        first = next(path for path in sorted(out.iterdir()) if path.suffix in (".json", ".safetensors"))
    else:
        first = out
    capsys.readouterr()
    first.write_text("something else")
    before = digest(tmp_path)
    said = refused(capsys, *words, str(out))
    assert "--force" in said and "nothing is overwritten" in said
    assert digest(tmp_path) == before
    assert main([*words, str(out), "--force"]) == 0, capsys.readouterr().err
    after = digest(tmp_path)
    assert {name: after[name] for name in made} == made
    assert set(after) == set(before)
    assert "notes.txt" not in "".join(before) or (out / "notes.txt").read_text() == "mine"
    capsys.readouterr()
    inputs = digest(here)
    for more in ((), ("--force",)):
        said = refused(capsys, *words, its_input, *more)
        assert "reads" in said, said
    assert digest(here) == inputs


@pytest.mark.parametrize("place", [one for one in PLACES if one[0] in (*TEXTS, "sft")], ids=" ".join)
def test_the_text_that_is_read_is_never_replaced(
    here: Path, tmp_path: Path, place: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    command, option = place
    words = PLACES[place][0]
    text = tmp_path / "README.md"
    text.write_text("a\tb\n")
    text_words = [command, str(text), *words[3:]] if command == "sft" else [command, "--file", str(text), *words[2:]]
    link = tmp_path / "link"
    link.symlink_to(text)
    for out in (tmp_path,) if option == "--keep" else (text, link):
        said = refused(capsys, *text_words, str(out), "--force")
        assert "reads" in said, said
    assert text.read_text() == "a\tb\n" and sorted(tmp_path.iterdir()) == [text, link]


@contextlib.contextmanager
def redirected(path: Path) -> Iterator[None]:
    """Standard input is that file, as in a shell after `<`."""
    kept = os.dup(0)
    try:
        with path.open() as stream, pytest.MonkeyPatch.context() as patch:
            os.dup2(stream.fileno(), 0)
            patch.setattr(sys, "stdin", stream)
            yield
    finally:
        os.dup2(kept, 0)
        os.close(kept)


@pytest.mark.parametrize("place", [one for one in PLACES if one[0] in TEXTS], ids=" ".join)
def test_the_file_that_standard_input_is_redirected_from_is_never_replaced(
    here: Path, tmp_path: Path, place: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    command, option = place
    text = tmp_path / "README.md"
    text.write_text("a")
    link = tmp_path / "link"
    link.symlink_to(text)
    for out in (tmp_path,) if option == "--keep" else (text, link):
        with redirected(text):
            said = refused(capsys, command, "-", *PLACES[place][0][2:], str(out), "--force")
        assert "README.md is what this reads from standard input" in said.replace("link is", "README.md is"), said
    assert text.read_text() == "a" and sorted(tmp_path.iterdir()) == [text, link]


@pytest.mark.parametrize("run", [".", "run.csv"])
def test_another_programs_log_is_not_replaced(
    tmp_path: Path, run: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    log = tmp_path / ("run.csv" if run == "run.csv" else "wandb-history.jsonl")
    if log.suffix == ".csv":
        log.write_text("iter 0: loss 4.2, time 22.35ms, mfu -100.00%\niter 10: loss 3.2, time 18.24ms, mfu 20.45%\n")
    else:
        log.write_text('{"_step": 0, "loss": 4.2}\n{"_step": 1, "loss": 3.2}\n')
        (tmp_path / "out.csv").symlink_to(log)
    before = log.read_bytes()
    out = tmp_path / ("run.csv" if run == "run.csv" else "out.csv")
    assert main(["runs", "curves", f"./{run}", "--json"]) == 0
    chart = json.loads(capsys.readouterr().out)["charts"][0]["chart"]
    said = refused(capsys, "runs", "curves", f"./{run}", "--chart", chart, "--out", str(out), "--force")
    assert "reads" in said
    assert log.read_bytes() == before


def test_a_text_in_the_folder_of_a_ladders_corpus_is_not_replaced(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.csv"
    table.write_text("text\na\n")
    ladder.keep(ladder.Ladder("tables", (str(tmp_path),), "toy", "steps", 20.0))
    said = refused(capsys, "ladder", "--name", "tables", "--show", "--out", str(table), "--force")
    assert "reads" in said and table.read_text() == "text\na\n"


def test_a_vocabulary_that_was_added(here: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["vocabulary", "add", "model", "--name", "theirs"]
    assert main(words) == 0
    folder = here / "tui-llm-home" / "vocabularies" / "theirs"
    capsys.readouterr()
    (folder / "vocab.json").write_text("{}")
    assert "--force" in refused(capsys, *words)
    assert (folder / "vocab.json").read_text() == "{}"
    assert main([*words, "--force"]) == 0
    assert (folder / "vocab.json").read_text() != "{}"


@pytest.mark.parametrize("name", ["screen-1.svg", "reading-1.json"])
def test_a_name_taken_in_the_meantime_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    from tui_llm.tui.kit import save

    monkeypatch.chdir(tmp_path)
    stem, suffix = name.replace("-1.", ".").split(".")
    write = save.storage.write_text
    others = iter(("theirs", "theirs too"))

    def meanwhile(part: Path, text: str) -> None:
        if other := next(others, None):
            save.free_path(stem, suffix, "aside").write_text(other)
        write(part, text)

    monkeypatch.setattr(save.storage, "write_text", meanwhile)
    path = save.save_new(stem, suffix, "aside", "ours")
    assert path.name == f"{stem}-3.{suffix}"
    assert path.read_text() == "ours"
    assert (tmp_path / name).read_text() == "theirs"


def test_free_names(tmp_path: Path) -> None:
    from tui_llm.tui.kit.save import free_name

    (tmp_path / "run").mkdir()
    (tmp_path / "run-2").symlink_to("nothing")
    assert free_name(tmp_path / "run") == tmp_path / "run-3"
    assert free_name(tmp_path / "other") == tmp_path / "other"
    (tmp_path / "v1.2").mkdir()
    assert free_name(tmp_path / "v1.2", folder=True) == tmp_path / "v1.2-2"
