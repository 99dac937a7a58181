"""Named corpora: their content, and that an existing path of the same name takes precedence."""

from __future__ import annotations

import json
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from tui_llm.cli import main
from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.llm.data import corpora, corpus, texts
from tui_llm.llm.tokens.tokenizer import byte_level
from tui_llm.training.plan import launch
from tui_llm.training.run.settings import TrainingSettings

BYTE = byte_level()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_the_python_reference_is_pythons_own_text_with_no_paragraph_twice() -> None:
    (file,) = corpora.files(["python-reference"])
    text = texts.read_text(file)
    whole = "\n".join(topics.values())
    paragraphs = [p for document in corpus.documents(text) for p in document.split("\n\n")]
    # Its lines come from the topics.
    assert {line.rstrip() for p in paragraphs for line in p.splitlines()} <= {
        line.rstrip() for line in whole.splitlines()
    }
    long = [" ".join(p.split()) for p in paragraphs if len(p) > 80]
    assert len(long) == len(set(long))
    assert 300_000 < len(text) < len(whole)
    assert 'The "with" statement is used to wrap the execution of a block with' in text
    made = corpus.load(["python-reference"], BYTE, 0.05, block_size=16)
    assert len(made.train) + len(made.validation) == pytest.approx(len(text.encode()), rel=0.01)


def test_the_named_corpus_is_written_once_and_repaired() -> None:
    file = corpora.named("python-reference")
    stamp, data = file.stat().st_ino, file.read_bytes()
    assert corpora.named("python-reference") == file and file.stat().st_ino == stamp
    file.write_text("cut short")
    assert corpora.named("python-reference").read_bytes() == data
    assert file.parent == paths.cache_dir() / "texts"


@pytest.mark.parametrize("name", corpora.NAMES)
def test_an_existing_path_of_that_name_takes_precedence(name: str, here: Path) -> None:
    assert corpora.place(name) == name
    (here / name).mkdir()
    assert corpora.place(name) == str(here / name)
    (here / name / "mine.txt").write_text("my own text")
    assert corpora.files([corpora.place(name)]) == [here / name / "mine.txt"]
    (here / name / "mine.txt").unlink()
    (here / name).rmdir()
    (here / name).write_text("my own text")
    assert corpora.files([corpora.place(name)]) == [here / name]


def test_a_runs_config_keeps_names_and_makes_paths_absolute(here: Path) -> None:
    (here / "a.txt").write_text("some text")
    run = launch.create("r", ["python-reference", "a.txt"], TrainingSettings(), preset="toy")
    assert run.config().corpus == ("python-reference", str(here / "a.txt"))
    for wrong in (["python-reference", "none.txt"], ["python-referenc"], ["nul\0"], ["~nobody-here/x"]):
        with pytest.raises(UserError):
            launch.create("wrong", wrong, TrainingSettings(), preset="toy")


def test_a_python_without_its_topics_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pydoc_data.topics", None)
    with pytest.raises(UserError, match="without its help topics"):
        launch.create("r", ["python-reference"], TrainingSettings(), preset="toy")


def test_the_commands_take_a_name(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpora, "python_reference", lambda: "Once upon a time, there was a snake.\n" * 20)
    assert main(["evaluate", "python-reference", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["files"]
    assert Path(row["path"]).name.startswith("python-reference-") and row["bytes"] == 20 * 37 - 1
    assert main(["vocabulary", "train", "python-reference", "--size", "270", "--out", "v"]) == 0
    assert (here / "v" / "merges.txt").is_file()
