"""The command line's tables (stages, temperatures, search, what-if), as text and as JSON."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from tui_llm.cli import main

WORDS = [f"{name}={math.log(p)}" for name, p in zip("abcd", (0.4, 0.3, 0.2, 0.1), strict=True)]


def out(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(out(capsys, *arguments, "--json"))


def test_stages_and_temperatures_of_typed_logits(capsys: pytest.CaptureFixture[str]) -> None:
    text = out(capsys, "softmax", *WORDS, "--stages", "--top-p", "0.8", "--temperatures", "0.5,2")
    assert all(p in text for p in ("53.3 %", "30.0 %", "13.3 %", "3.3 %", "32.5 %", "28.2 %", "23.0 %", "16.3 %"))
    assert all(word in text for word in ("÷ T", "e^x", "÷ sum", "cut", "renormalized", "sum", "90.0 %", "logsumexp"))
    found = run_json(capsys, "softmax", *WORDS, "--temperatures", "0.5")
    assert found["effective_choices"] == pytest.approx(math.exp(found["entropy"]))
    assert found["temperatures"]["columns"][0]["probabilities"] == pytest.approx([16 / 30, 9 / 30, 4 / 30, 1 / 30])


def test_the_penalty_of_typed_logits(capsys: pytest.CaptureFixture[str]) -> None:
    found = run_json(capsys, "softmax", "a=3", "b=2", "--seen", "a", "--repetition-penalty", "2")
    assert [row["text"] for row in found["candidates"]] == ["b", "a"] and found["candidates"][1]["score"] == 1.5
    text = out(capsys, "softmax", "a=3", "b=2", "--seen", "a", "--repetition-penalty", "2", "--stages")
    assert "penalised" in text and "1.500" in text


def test_find_set_and_temperatures_of_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    prompt = ("logits", "The cat sat on the")
    plain = run_json(capsys, *prompt, "--top", "4096")
    logits = torch.tensor([row["logit"] for row in sorted(plain["candidates"], key=lambda row: row["id"])])
    logits[262] = 12.0
    made = run_json(capsys, *prompt, "--set", "262=12", "--find", "#262", "--temperatures", "0.5,1", "--top", "3")
    assert made["overrides"] == {"262": 12.0} and made["found"]["count"] == 1
    assert made["found"]["candidates"][0]["raw_probability"] == pytest.approx(float(logits.softmax(-1)[262]), rel=1e-4)
    first = made["temperatures"]["columns"][0]
    assert first["probabilities"][0] == pytest.approx(float((logits / 0.5).softmax(-1)[262]), rel=1e-4)
    text = out(capsys, *prompt, "--set", "262=12", "--find", " mat", "--stages", "--top", "2")
    assert "what if: 1 logit changed" in text and "tokens match ' mat'" in text and "÷ sum" in text


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("logits", "a", "--set", "x=1"), "is not ID=LOGIT"),
        (("logits", "a", "--set", "3=nan"), "is not ID=LOGIT"),
        (("logits", "a", "--set", "99999=1"), "there is no token 99999"),
        (("logits", "a", "--find", "#x"), "is not an id"),
        (("logits", "a", "--temperatures", "hot"), "is not a temperature"),
        (("logits", "a", "--repetition-penalty", "0"), "give a number above 0"),
        (("softmax", "a=1", "--seen", "[/]\x1b"), "none of the tokens"),
        (("softmax", "a=1", "--temperatures", ""), "give 1 to 8"),
    ],
)
def test_wrong_input_is_one_line(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], why: str) -> None:
    assert main(arguments) == 2
    printed, err = capsys.readouterr()
    assert not printed and why in err and err.count("\n") == 1 and "\x1b" not in err
