"""Steering, against transformers' GPT-2 with forward hooks, and the file of a direction."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file

from tui_llm.cli import main
from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.interventions import HEAD, ZERO, Intervention, ModelPart
from tui_llm.facts.request import Request
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.instruments.steer.question import Direction, Steering, SteerQuestion, SteerSaveQuestion, steps_of
from tui_llm.llm.model import steering_file

NANO = paths.shipped_models_dir() / "nano"
PROMPT, TOWARD, AWAY = "The dog was", "Lily was so happy", "Lily was so sad"
DIRECTION = Direction(TOWARD, AWAY, 2)
GREEDY = SamplerSettings(temperature=0)


@pytest.fixture(scope="module")
def theirs() -> Any:
    from transformers import GPT2LMHeadModel

    return GPT2LMHeadModel.from_pretrained(NANO, attn_implementation="eager", dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def model() -> PipelineEngine:
    made = PipelineEngine("cpu")
    made.open("nano")
    return made


@torch.no_grad()
def steered(theirs: Any, layer: int, toward: list[int], away: list[int], coefficient: float, ids: list[int]) -> Any:
    """The logits after `ids`, and the direction, with hooks on transformers' blocks."""
    body, kept = theirs.transformer, []
    module = body.h[layer] if layer < len(body.h) else body.ln_f
    keep = module.register_forward_pre_hook(lambda m, args: kept.append(args[0][0, -1].clone()))
    theirs(torch.tensor([toward]))
    theirs(torch.tensor([away]))
    keep.remove()
    direction = kept[0] - kept[1]
    hook = module.register_forward_pre_hook(lambda m, args: (args[0] + coefficient * direction, *args[1:]))
    logits = theirs(torch.tensor([ids])).logits[0, -1]
    hook.remove()
    return logits, direction


@pytest.mark.parametrize(("layer", "coefficient"), [(0, 1.0), (2, 3.0), (4, -1.5)])
def test_the_steered_prediction_is_that_of_hooks_in_transformers(
    model: PipelineEngine, theirs: Any, layer: int, coefficient: float
) -> None:
    found: Steering = model.answer(
        SteerQuestion(Request(prompt=PROMPT), Direction(TOWARD, AWAY, layer), coefficient, tokens=2)
    )
    toward, away, ids = (model.tokenizer.encode(text) for text in (TOWARD, AWAY, PROMPT))
    logits, direction = steered(theirs, layer, toward, away, coefficient, ids)
    assert found.norm == pytest.approx(float(direction.norm()), rel=1e-4)
    for row in found.after.candidates:
        assert row.logit == pytest.approx(float(logits[row.id]), abs=1e-4)
    with torch.no_grad():
        plain = theirs(torch.tensor([ids])).logits[0, -1]
    for row in found.before.candidates:
        assert row.logit == pytest.approx(float(plain[row.id]), abs=1e-4)


def test_the_continuation_is_what_the_lab_streams_with_the_intervention(model: PipelineEngine) -> None:
    request = Request(prompt=PROMPT)
    found = model.answer(SteerQuestion(request, DIRECTION, 1.5, tokens=6, seed=3))
    on = dataclasses.replace(request, interventions=(found.intervention,))
    assert [step.id for step in model.generate(on, seed=3, count=6)] == [step.id for step in found.after.steps]
    assert [step.id for step in model.generate(request, seed=3, count=6)] == [step.id for step in found.before.steps]


def test_zero_times_a_direction_changes_nothing(model: PipelineEngine) -> None:
    found = model.answer(SteerQuestion(Request(prompt=PROMPT, sampler=GREEDY), DIRECTION, 0.0, tokens=5))
    assert found.after.text == found.before.text
    assert [row.logit for row in found.after.candidates] == pytest.approx(
        [row.logit for row in found.before.candidates], abs=1e-4
    )


def test_other_interventions_stay_on_in_both(model: PipelineEngine) -> None:
    off = (Intervention(ModelPart(HEAD, 0, 1), ZERO),)
    request = Request(prompt=PROMPT, interventions=off)
    found = model.answer(SteerQuestion(request, DIRECTION, 1.0, tokens=1))
    plain = model.answer(SteerQuestion(Request(prompt=PROMPT), DIRECTION, 1.0, tokens=1))
    assert found.norm == plain.norm  # the direction is of the model as it is
    assert found.before.candidates != plain.before.candidates
    model.intervene(off)
    logits = model.logits(request)
    assert found.before.candidates[0].logit == pytest.approx(float(logits.max()), abs=1e-4)


def test_a_saved_direction_is_the_same_one_again(model: PipelineEngine, tmp_path: Path) -> None:
    path = tmp_path / "happy.safetensors"
    request = Request(prompt=PROMPT)
    assert model.answer(SteerSaveQuestion(request, DIRECTION, str(path))) == str(path)
    with safe_open(path, "pt") as opened:
        assert opened.metadata() == {
            "format": "tui-llm steering vector", "layer": "2", "model": "nano", "toward": TOWARD, "against": AWAY,
        }  # fmt: skip
    assert list(load_file(path)) == ["direction"]
    made = model.answer(SteerQuestion(request, DIRECTION, 2.0, tokens=4))
    loaded = model.answer(SteerQuestion(request, Direction(file=str(path)), 2.0, tokens=4))
    assert loaded.direction.layer == 2 and loaded.made_with == "nano"
    assert loaded.after == made.after and loaded.intervention.file == str(path)
    with pytest.raises(UserError, match="already exists"):
        model.answer(SteerSaveQuestion(request, Direction(AWAY, TOWARD, 1), str(path)))
    assert steering_file.load(str(path)).layer == 2
    model.answer(SteerSaveQuestion(request, Direction(AWAY, TOWARD, 1), str(path), force=True))
    assert steering_file.load(str(path)).layer == 1


def _write(path: Path, kind: str) -> None:
    whole = torch.ones(256)
    match kind:
        case "width":
            save_file({"direction": torch.ones(300)}, path, {"layer": "1"})
        case "cut":
            save_file({"direction": whole}, path, {"layer": "1"})
            path.write_bytes(path.read_bytes()[:-100])
        case "junk":
            path.write_bytes(b"\x1b]0;[/]\x07" * 50)
        case "name":
            save_file({"other": whole}, path)
        case "nan":
            save_file({"direction": whole * float("nan")}, path, {"layer": "1"})
        case "huge":
            save_file({"direction": whole * 0 + 3e38}, path, {"layer": "1"})
        case "huge float64":
            save_file({"direction": whole.double() * 0 + 1e300}, path, {"layer": "1"})
        case "whole numbers":
            save_file({"direction": whole.long()}, path, {"layer": "1"})
        case "no layer":
            save_file({"direction": whole}, path)
        case "layer":
            save_file({"direction": whole}, path, {"layer": "7"})
        case "folder":
            path.mkdir()


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("width", "300 numbers; nano's width is 256"), ("cut", "can't be read"), ("junk", "can't be read"),
        ("name", "no steering vector"), ("nan", "no steering vector"), ("huge", "beyond the range"),
        ("huge float64", "beyond the range"), ("whole numbers", "no steering vector"),
        ("no layer", "for which layer"), ("layer", "there is no residual 7"), ("folder", "folder"), ("none", "None|No such|no file|there is no"),
    ],
)  # fmt: skip
def test_other_files_are_refused_in_one_line(model: PipelineEngine, tmp_path: Path, kind: str, line: str) -> None:
    path = tmp_path / "x.safetensors"
    _write(path, kind)
    with pytest.raises(UserError, match=line) as error:
        model.answer(SteerQuestion(Request(prompt=PROMPT), Direction(file=str(path))))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("request_", "direction", "coefficient", "line"),
    [
        (Request(), DIRECTION, 1.0, "nothing to predict"),
        (Request(prompt="a"), Direction("", AWAY, 1), 1.0, "one is empty"),
        (Request(prompt="a"), Direction(AWAY, AWAY, 1), 1.0, "same tokens"),
        (Request(prompt="a"), Direction(TOWARD, AWAY, 5), 1.0, "there is no residual 5"),
        (Request(prompt="a"), Direction(TOWARD, AWAY, -1), 1.0, "there is no"),
        (Request(prompt="a"), Direction(TOWARD, AWAY), 1.0, "give a layer"),
        (Request(prompt="a"), DIRECTION, float("nan"), "coefficient"),
        (Request(prompt="a"), DIRECTION, 1e9, "coefficient"),
    ],
)
def test_refused_in_one_line(
    model: PipelineEngine, request_: Request, direction: Direction, coefficient: float, line: str
) -> None:
    with pytest.raises(UserError, match=line):
        model.answer(SteerQuestion(request_, direction, coefficient))


def test_long_texts_and_reduced_weights() -> None:
    made = PipelineEngine("cpu", "int8")
    made.open("nano")
    long = "Lily had a dog. " * 80
    found = made.answer(SteerQuestion(Request(prompt=long), Direction(long + "happy", "sad", 4), 1.0, tokens=1))
    assert found.after.candidates != found.before.candidates and found.norm > 0


def test_the_coefficient_goes_in_halves() -> None:
    assert [steps_of(1.0, 1), steps_of(0.5, -1), steps_of(0.0, -1), steps_of(0.7, 1)] == [1.5, 0.0, -0.5, 1.0]
    assert steps_of(1000.0, 1) == 1000.0


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], model: PipelineEngine) -> None:
    path = tmp_path / "d.safetensors"
    words = ["steer", PROMPT, "--toward", TOWARD, "--away", AWAY, "--layer", "2", "--max-tokens", "4"]
    assert main([*words, "--coefficient", "2", "--save", str(path), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    found = model.answer(SteerQuestion(Request(prompt=PROMPT), DIRECTION, 2.0, tokens=4))
    assert made["after"]["text"] == found.after.text and made["saved"] == str(path)
    assert made["norm"] == pytest.approx(found.norm)
    assert main(["steer", PROMPT, "--load", str(path), "--coefficient", "2", "--max-tokens", "4"]) == 0
    text = capsys.readouterr().out
    assert f"after:  {found.after.text}" in text and "before block 2" in text
    for wrong in (
        ["steer", PROMPT],
        ["steer", PROMPT, "--toward", "a"],
        [*words, "--load", str(path)],
        [*words, "--save", str(path)],
        [*words, "--coefficient", "nan"],
        [*words, "--top", "0"],
        ["steer", PROMPT, "--load", str(path), "--layer", "9"],
    ):
        assert main(wrong) == 2
        printed, said = capsys.readouterr()
        assert not printed and said.count("\n") == 1, wrong
    assert main([*words, "--layer", "9"]) == 2
    blocks = model.weights().layers
    assert f"the model's layers are 0 to {blocks - 1}, and {blocks} is after the last" in capsys.readouterr().err


def test_changed_logits_are_not_the_models(model: PipelineEngine) -> None:
    request = Request(prompt=PROMPT)
    what_if = dataclasses.replace(request, overrides=((5, 99.0),))
    found = model.answer(SteerQuestion(what_if, DIRECTION, 1.0, tokens=1))
    assert found == model.answer(SteerQuestion(request, DIRECTION, 1.0, tokens=1))
