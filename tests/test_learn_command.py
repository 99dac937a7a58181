"""`tui-llm learn`: JSON and text, a saved folder, one line for invalid input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tui_llm.cli import main
from tui_llm.common import paths
from tui_llm.facts.pin import Pin
from tui_llm.training.run import pins

ASK = ("learn", "The cat sat on the", "--target", " mat")


def learned(capsys: pytest.CaptureFixture[str], *more: str) -> Any:
    assert main([*ASK, *more, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_before_equals_loss_and_after_equals_the_saved_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pins.write(paths.pins_path(), [Pin("A dog")])
    folder = tmp_path / "mine"
    made = learned(capsys, "--steps", "2", "--also", "Once upon a=> time", "--pins", "--keep", str(folder))
    assert made["kept"] == str(folder)
    assert [step["optimizer"] for step in made["steps"]] == ["sgd"] * 2
    assert made["steps"][-1]["loss"] == pytest.approx(made["after"]["loss"], abs=1e-4)
    assert [(one["prompt"], one["target"]) for one in made["also"]] == [("Once upon a", " time"), ("A dog", None)]
    for model, state in (("nano", "before"), (str(folder), "after")):
        assert main(["loss", *ASK[1:], "--model", model, "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["mean"] == pytest.approx(made[state]["loss"], abs=1e-3)
        assert said["tokens"][0]["rank"] == made[state]["rank"]


def test_text_names_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ASK, "--optimizer", "adamw", "--also", "[/]\x1b=>\u202e"]) == 0
    out = capsys.readouterr().out
    assert "after 1 step towards ·mat" in out and "AdamW" in out and "0.0001" in out and "◆ target" in out
    assert "prompts that were not learned" in out and "\x1b" not in out and "\u202e" not in out


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--steps", "0"), "give 1 to 200"),
        (("--steps", "201"), "give 1 to 200"),
        (("--learning-rate", "0"), "above 0"),
        (("--learning-rate", "nan"), "above 0"),
        (("--learning-rate", "x"), "is not a number"),
        (("--optimizer", "muon"), "invalid choice"),
        (("--target", ""), "the target is empty"),
        (("--keep", "."), "nothing is overwritten"),
        (("--also", "=>x"), "needs a prompt"),
    ],
)
def test_refused_in_one_line(capsys: pytest.CaptureFixture[str], more: tuple[str, ...], why: str) -> None:
    assert main([*ASK, *more]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and why in err
