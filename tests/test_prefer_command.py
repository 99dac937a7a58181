"""`tui-llm prefer`: the JSON's contract, text, one line for invalid input."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from tui_llm.cli import main

ASK = ("prefer", "Once upon a time", "--chosen", ", a girl was happy.", "--rejected", ", a girl was sad.")


def preferred(capsys: pytest.CaptureFixture[str], *more: str) -> Any:
    assert main([*ASK, *more, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_json_has_the_losses_and_both_states(capsys: pytest.CaptureFixture[str]) -> None:
    made = preferred(capsys, "--steps", "3", "--beta", "0.2", "--learning-rate", "1e-5")
    assert made["beta"] == 0.2 and len(made["losses"]) == 3 and made["losses"][0] == math.log(2)
    assert made["losses"] == sorted(made["losses"], reverse=True)
    before, after = made["before"], made["after"]
    assert before["margin"] == before["chosen_reward"] == before["rejected_reward"] == 0
    for name in ("chosen", "rejected"):
        assert after[f"{name}_reward"] == pytest.approx(
            0.2 * (after[f"{name}_logp"] - before[f"{name}_logp"]), abs=1e-9
        )
        tokens = made[f"{name}_tokens"]
        assert sum(one["logp_after"] for one in tokens) == pytest.approx(after[f"{name}_logp"], abs=1e-4)
    assert after["margin"] == pytest.approx(after["chosen_reward"] - after["rejected_reward"], abs=1e-9)
    assert after["loss"] == pytest.approx(math.log1p(math.exp(-after["margin"])), abs=1e-9)
    assert main(["loss", ASK[1], "--target", ASK[3], "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert before["chosen_logp"] == pytest.approx(-read["sum"], abs=1e-3)


def test_text_names_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prefer", "[/]\x1b", "--chosen", "\u202e[red]", "--rejected", " x", "--sft-weight", "0.5", "--length-normalized"]) == 0  # fmt: skip
    out = capsys.readouterr().out
    assert "after 1 step of DPO" in out and "length-normalized, SFT term × 0.5" in out
    assert "margin" in out and "ln p(chosen)" in out and "rejected: ln p of each token" in out
    assert "\x1b" not in out and "\u202e" not in out


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((*ASK, "--steps", "0"), "give a whole number from 1 to 200"),
        ((*ASK, "--beta", "0"), "beta is 0; give a number above 0"),
        ((*ASK, "--beta", "nan"), "give a number above 0"),
        ((*ASK, "--learning-rate", "inf"), "learning rate is inf; give a number above 0"),
        ((*ASK, "--sft-weight", "-1"), "give a number from 0 to 1000"),
        ((*ASK[:3], " a", "--rejected", " a"), "are the same"),
        ((*ASK[:3], "", "--rejected", " a"), "--chosen is empty"),
        ((*ASK[:3], " a", "--rejected", ""), "--rejected is empty"),
        ((*ASK[:3], " a" * 300, "--rejected", " b"), "the model sees 256 at once"),
        (("prefer", "", *ASK[2:]), "nothing to predict from"),
    ],
)
def test_invalid_input_gets_one_line(words: tuple[str, ...], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(list(words)) != 0
    said = capsys.readouterr().err.strip()
    assert why in said and "\n" not in said and "Traceback" not in said
