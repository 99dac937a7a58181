"""`tui-llm ablate`, and the same in Python."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tui_llm import open_model
from tui_llm.api import LanguageModel
from tui_llm.cli import main
from tui_llm.common.errors import UserError
from tui_llm.facts.interventions import HEAD, MLP, Intervention, ModelPart

TEXT = "Once upon a time, there was a little"


@pytest.fixture(scope="module")
def lab() -> LanguageModel:
    return open_model("nano")


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["ablate", TEXT, *words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_before_and_after_are_what_python_says(lab: LanguageModel, capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(capsys, "--heads", "0.3,1.2", "--mlps", "0", "--target", " girl")
    assert found["interventions"] == ["head 0.3 off", "head 1.2 off", "MLP 0 off"]
    made = lab.ablate(TEXT, heads="0.3,1.2", mlps="0", target=" girl")
    assert (found["before"]["loss"], found["after"]["loss"]) == (made.before.loss, made.after.loss)
    off = [Intervention(ModelPart(*where)) for where in ((HEAD, 0, 3), (HEAD, 1, 2), (MLP, 0))]
    changed = lab.read(TEXT, target=" girl", interventions=off)
    assert found["after"]["loss"] == pytest.approx(changed.loss.mean, abs=1e-5)  # type: ignore[union-attr]
    assert "changed model: head 0.3 off" in repr(changed)
    assert lab.write(TEXT, max_tokens=3, interventions=off) != lab.write(TEXT, max_tokens=3)


def test_the_ranking_has_every_part_largest_rise_first(lab: LanguageModel, capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(capsys, "--rank", "--mean")
    rises = [one["loss_change"] for one in found["parts"]]
    assert rises == sorted(rises, reverse=True) and len(rises) == 4 * (4 + 3) + 2
    assert {"name": "head 0.3", "layer": 0, "head": 3}.items() <= next(
        one for one in found["parts"] if one["name"] == "head 0.3"
    ).items()
    ranked = lab.effects(TEXT, mean=True).ranked()
    assert [one.part.name for one in ranked] == [one["name"] for one in found["parts"]]
    assert main(["ablate", TEXT, "--rank"]) == 0
    assert "all parts on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((), "name what to switch off"),
        (("--heads", "0.3", "--rank"), "--rank takes all parts"),
        (("--heads", "0.9"), "there is no head 0.9"),
        (("--heads", "x"), "LAYER.HEAD"),
        (("--layers", "7"), "there is no layer 7"),
        (("--tokens", "99"), "there is no token 99"),
        (("--heads", "0.1", "--mean", "--from", "a"), "exclude each other"),
        (("--heads", "0.1", "--from", ""), "no tokens"),
        (("--heads", "0.1", "--target", ""), "target"),
    ],
)
def test_bad_input_gets_one_line(words: tuple[str, ...], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", TEXT, *words]) != 0
    error = capsys.readouterr().err
    assert line in error and len(error.strip().splitlines()) == 1


def test_attention_to_a_token_and_another_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(capsys, "--tokens", "7", "--attention", "1", "--from", "The end")
    assert found["interventions"] == ["attention 1 from another prompt", "attention to token 7 off"]
    assert found["after"]["loss"] != found["before"]["loss"]


def test_python_needs_a_part(lab: LanguageModel) -> None:
    with pytest.raises(UserError, match="name what to switch off"):
        lab.ablate(TEXT)
