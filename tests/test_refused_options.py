"""Options that contradict each other, values that no device or host has, and what a refused call leaves: nothing."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from tests.training.run_helpers import make, words, work
from tui_llm import open_model
from tui_llm.cli import main
from tui_llm.commands.shared import text_input
from tui_llm.facts.interventions import Intervention, ModelPart
from tui_llm.training.run import pins
from tui_llm.training.run.run import Run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("finished")
        patch.setenv("TUI_LLM_HOME", str(folder))
        (folder / "text.txt").write_text(words(500))
        run = make("one", folder / "text.txt", steps=4)
        assert work(run) == 0
        return folder


@pytest.fixture
def run(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("TUI_LLM_HOME", str(finished))
    return Run(finished / "runs" / "one")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "internal" not in said.err, said.err
    return said.err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("logits", "hi", "--device", "cpu:01"), "no device"),
        (("logits", "hi", "--device", "cpu:99999999999"), "no device"),
        (("logits", "hi", "--device", "mps:1"), "no device"),
        (("steer", "hi", "--load", "x.safetensors", "--toward", "happy"), "leave out --toward"),
        (("steer", "hi", "--toward", "happy"), "give --toward and --away"),
        (("find-lr", "stories", "--minutes", "5"), "leave out --minutes"),
        # Weights in fewer bits have no gradient, so these commands don't offer them.
        (("learn", "hi", "--target", " a", "--weights", "int8"), "unrecognized arguments: --weights int8"),
        (
            ("prefer", "hi", "--chosen", " a", "--rejected", " b", "--weights", "half"),
            "unrecognized arguments: --weights half",
        ),
        (("reward", "hi", "--score", "full-stop", "--weights", "int8"), "unrecognized arguments: --weights int8"),
        (("--weights", "half", "backward", "hi there"), "--weights can't come before backward"),
        (("find-lr", "stories", "--trial-steps", "0"), "can't have 0 steps"),
        (("find-lr", "stories", "--trial-steps", "-5"), "can't have -5 steps"),
        (("train", "pairs.tsv", "--from", "nano", "--instruct", "--exclude", "a"), "leave out --exclude"),
        (("serve", "--expose", "--host", "a..b"), "no host name"),
        (("tour", "--json", "--model", "zzz"), "--json opens nothing, so --model would have no effect"),
        (("tour", "--json", "--weights", "int8"), "--json opens nothing, so --weights would have no effect"),
        (("tour", "--json", "--no-mouse"), "--json opens nothing, so --no-mouse would have no effect"),
        (("tour", "--names", "tokens"), "--names opens nothing, so LESSON would have no effect"),
        (("heads", "--run", "r", "--model", "zzz"), "so --model would have no effect"),
        (("heads", "--run", "r", "--device", "cpu"), "so --device would have no effect"),
        (("heads", "--run", "r", "--weights", "int8"), "so --weights would have no effect"),
        (("heads", "--run", "r", "--bos"), "so --bos would have no effect"),
        (("heads", "--chat"), "so --chat would have no effect"),
        (("heads", "--allow-special"), "so --allow-special would have no effect"),
    ],
)
def test_one_line(arguments: tuple[str, ...], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert line in refused(capsys, *arguments)


def test_a_refused_request_of_a_run_changes_nothing(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = run.control()
    assert "not being trained" in refused(capsys, "control", "one", "--learning-rate", "1e-4", "--save")
    assert "not being trained" in refused(capsys, "control", "one", "--pin", "a dog", "--pause")
    assert "not being trained" in refused(capsys, "control", "one", "--go-on")
    refused(capsys, "control", "one", "--pin", "a dog", "--learning-rate", "abc")
    assert run.control() == before and pins.read(run.pins_path) == []


def test_a_run_is_exported_by_each_of_its_names(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for at, name in enumerate(("one", "run:one", str(run.path))):
        assert main(["export", name, str(tmp_path / f"out-{at}"), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["step"] == 4
    assert "leave out --dtype" in refused(capsys, "export", "one", "out", "--tensorboard", "--dtype", "bfloat16")
    refused(capsys, "samples", "one", "--last", "9" * 5000)


def test_a_text_that_is_not_utf_8_is_no_game(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("Der Bär schläft.".encode("latin-1")), "latin-1"))
    assert "not UTF-8" in refused(capsys, "guess", "-")


def test_switches_are_explained_for_a_search_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["find-lr", "stories", "--arch", "help"]) == 0
    assert "rmsnorm" in capsys.readouterr().out


def test_a_call_between_two_tokens_changes_neither() -> None:
    lab = open_model("nano", device="cpu")
    off = [Intervention(ModelPart("mlp", 0))]
    wanted = {
        bool(on): [token.id for token in lab.generate("Once upon", max_tokens=12, seed=3, interventions=on)]
        for on in ((), off)
    }
    assert wanted[True] != wanted[False]
    for on, other in (((), off), (off, ())):
        found = []
        for token in lab.generate("Once upon", max_tokens=12, seed=3, interventions=on):
            found.append(token.id)
            lab.read("Something else", interventions=other)
        assert found == wanted[bool(on)]


def test_a_third_model_beside_a_pipe_is_not_taken_for_the_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(text_input, "_is_piped", lambda: True)
    assert "write - after it" in refused(capsys, "compare-models", "nano", "nano:half", "nano:int8")
    assert main(["compare-models", "nano", "nano:half", "The cat", "--max-tokens", "1"]) == 0
