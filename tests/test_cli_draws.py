"""`tui-llm draw`: its output as text and as JSON."""

from __future__ import annotations

import json
import math

import pytest

from tui_llm.cli import main
from tui_llm.llm.predict.generate import uniform


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(words)
    return code, *capsys.readouterr()


def test_one_u_at_several_temperatures(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "draw", "The cat sat on the", "--u", "0.618", "--temperature", "0.5,1,2", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["u"] == 0.618 and [one["temperature"] for one in found["draws"]] == [0.5, 1, 2]
    for one in found["draws"]:
        assert one["hit"]["from"] <= 0.618 < one["hit"]["to"]
    code, out, _ = run(capsys, "draw", "The cat sat on the", "--u", "0.618", "--temperature", "0.5,0", "--top", "2")
    assert code == 0 and out.count("→") == 2 and "greedy: u is not used" in out


def test_the_default_u_is_what_generate_draws_first(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "draw", "Once", "--seed", "5", "--temperature", "0.9", "--top-p", "0.8", "--json")
    found = json.loads(out)
    assert found["u"] == uniform(5, 0)
    same = ("--seed", "5", "--temperature", "0.9", "--top-p", "0.8", "--max-tokens", "1", "--json")
    _, out, _ = run(capsys, "generate", "Once", *same)
    assert json.loads(out)["ids"] == [found["draws"][0]["hit"]["id"]]


def test_many_draws(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "draw", "The", "--count", "500", "--seed", "2", "--top-k", "9", "--json")
    found = json.loads(out)
    assert code == 0 and found["kept"] == 9 and found["rest"] is None
    assert sum(one["drawn"] for one in found["tokens"]) == 500
    assert math.isclose(sum(one["expected"] for one in found["tokens"]), 500)
    code, out, _ = run(capsys, "draw", "The", "--count", "500", "--seed", "2", "--top", "3")
    assert code == 0 and "(4,093 others)" in out and "χ² = " in out and "on 1 degrees" not in out


def test_as_many_tokens_are_listed_as_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    for top in (3, 300):
        _, out, _ = run(capsys, "draw", "The", "--top", f"{top}", "--json")
        assert len(json.loads(out)["draws"][0]["tokens"]) == top
        _, out, _ = run(capsys, "draw", "The", "--count", "50", "--top", f"{top}", "--json")
        found = json.loads(out)
        assert len(found["tokens"]) == top and found["rest"]["kept"] == found["kept"] - top
        assert sum(one["drawn"] for one in found["tokens"]) + found["rest"]["drawn"] == 50


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--u", "1"), "from 0 to below 1"),
        (("--u", "nan"), "from 0 to below 1"),
        (("--temperature", "[red]\x1b"), "give numbers such as"),
        (("--temperature", "-1"), "from 0 (greedy) up"),
        (("--count", "0"), "from 1 to 1000000"),
        (("--count", "9", "--u", "0.5"), "give one of them"),
        (("--count", "9", "--temperature", "1,2"), "at one temperature"),
        (("--top", "0"), "give 1 or more"),
    ],
)
def test_invalid_input_is_one_line(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str) -> None:
    code, out, err = run(capsys, "draw", "The", *words)
    assert code == 2 and out == "" and says in err and err.count("\n") == 1 and "\x1b" not in err
