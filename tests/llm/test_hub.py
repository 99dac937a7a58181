"""Finding models by name, path and run; names from outside are never paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.llm.hub import hub, lookup


def make_run(name: str, *steps: int) -> Path:
    run = paths.runs_dir() / name
    run.mkdir(parents=True)
    (run / "config.json").write_text("{}")
    for step in steps:
        folder = run / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "training.json").write_text("{}")
    return run


def test_the_shipped_model() -> None:
    found = lookup.find("nano")
    assert (found.kind, found.step) == ("shipped", None)
    assert (found.folder / "model.safetensors").is_file()


def test_a_run_is_its_newest_whole_checkpoint() -> None:
    run = make_run("mine", 5, 100, 20)
    half = run / "checkpoint-200"
    half.mkdir()
    assert lookup.find("mine") == lookup.LocalModel("mine", "run", run / "checkpoint-100", 100)
    assert lookup.find(str(run)).step == 100
    assert lookup.find(str(run / "checkpoint-20")).step == 20
    assert [f.name for f in lookup.every()] == ["nano", "mine"]


def test_a_run_without_a_checkpoint() -> None:
    make_run("young")
    with pytest.raises(UserError, match="no checkpoint yet"):
        lookup.find("young")
    assert [f.name for f in lookup.every()] == ["nano"]


@pytest.mark.parametrize("name", ["", "none", "../nano", "./none", "~/none", "a\0b", "\x1b[31m", "none/none", "/"])
def test_names_that_are_not_models_are_refused(name: str) -> None:
    if name == "/":
        assert lookup.find(name).kind == "folder"  # found as a folder; opening it reports that config.json is missing
        return
    with pytest.raises(UserError):
        lookup.find(name)


def test_a_folder_here_needs_no_slash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "local").mkdir()
    assert lookup.find("local") == lookup.LocalModel("local", "folder", tmp_path / "local")


@pytest.mark.parametrize("suffix", [".gguf", ".pt", ".bin"])
def test_a_link_keeps_its_suffix(suffix: str, tmp_path: Path) -> None:
    """The hub's cache: snapshots/COMMIT/m.gguf is a link to blobs/SHA256."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / ("ab" * 32)).write_bytes(b"GGUF")
    (tmp_path / "snapshots").mkdir()
    link = tmp_path / "snapshots" / f"m{suffix}"
    link.symlink_to(tmp_path / "blobs" / ("ab" * 32))
    assert lookup.find(str(link)) == lookup.LocalModel("m", "folder", link)


def test_a_folder_with_a_config_whose_weights_are_a_gguf_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--some--one" / "snapshots" / "0a"
    own = paths.models_dir() / "own"
    run = make_run("mine", 5)
    for folder in (snapshot, own, run):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text("{}")
        (folder / "m.gguf").write_bytes(b"GGUF")
    (tmp_path / "models--some--one" / "refs").mkdir()
    (tmp_path / "models--some--one" / "refs" / "main").write_text("0a")
    for name, folder in (("some/one", snapshot), (str(snapshot), snapshot), ("own", own), (str(own), own)):
        assert lookup.find(name).folder == folder / "m.gguf"
    assert [row.folder for row in lookup.every() if row.name == "own"] == [own / "m.gguf"]
    assert lookup.find(str(run)).folder == run / "checkpoint-5", "a run that was exported into its folder"
    (own / "model.safetensors").write_bytes(b"")
    assert lookup.find("own").folder == own


def test_vocabularies_to_train_with(tmp_path: Path) -> None:
    assert hub.training_tokenizer("byte").size == 257
    assert hub.training_tokenizer("nano").size == 4096
    assert hub.training_tokenizer(str(lookup.find("nano").folder)).size == 4096
    with pytest.raises(UserError, match="no model"):
        hub.training_tokenizer("none")


@pytest.mark.parametrize("length", [300, 5000])
def test_a_name_too_long_for_a_file(length: int) -> None:
    with pytest.raises(UserError):
        lookup.find("x" * length)


def test_a_run_with_a_shipped_models_name() -> None:
    run = make_run("nano", 7)
    assert lookup.find("nano").kind == "shipped"
    assert lookup.find(paths.run_model("nano")) == lookup.LocalModel("nano", "run", run / "checkpoint-7", 7)
    with pytest.raises(UserError, match="no model"):
        lookup.find(paths.run_model("none"))
