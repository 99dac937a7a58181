"""`tui-llm merges`, `letters`, `surprisal`, `tokens --compare` and `examples --loss`, as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.byte_models import save_byte_model
from tui_llm.cli import main
from tui_llm.llm.hub import lookup
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.tokens.vocabulary_folder import load_folder

HOSTILE = "[red]x \x1b]0;x\x07 \u202eabc é"


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(words) == 0
    out = capsys.readouterr().out
    assert not {char for char in out if not char.isprintable()} - {"\n"}
    return out


def test_merges(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "merges", " strawberry " + HOSTILE)
    assert "·straw|ber|ry" in out and "rank" in out
    found = json.loads(said(capsys, "merges", " strawberry", "--json"))
    (word,) = found["words"]
    own = load_folder(lookup.find("nano").folder)
    assert [token["id"] for token in word["tokens"]] == own.encode(" strawberry")
    assert [len(step["parts"]) for step in word["steps"]] == list(range(11, 2, -1))
    assert word["steps"][1]["rank"] < word["steps"][-1]["rank"]


def test_letters(capsys: pytest.CaptureFixture[str]) -> None:
    assert "r occurs 3 times, in 3 of 3 tokens" in said(capsys, "letters", " strawberry", "--letter", "r")
    found = json.loads(said(capsys, "letters", HOSTILE, "--letter", "é", "--json"))
    assert found["count"] == 1 == sum(token["letters"] for token in found["tokens"])


def test_surprisal_and_pairs_with_loss(capsys: pytest.CaptureFixture[str]) -> None:
    text = "Once upon a time " + HOSTILE
    assert "no prediction: the first token" in said(capsys, "surprisal", text)
    tokens = json.loads(said(capsys, "surprisal", text, "--json"))["tokens"]
    assert tokens[0]["surprisal"] is None
    pairs = json.loads(said(capsys, "examples", text, "--loss", "--json"))["pairs"]
    # The one reads in numpy, the other in torch: equal to 1e-5, relative to 1 nat or more (tests/test_numpy_first.py).
    surprisal = [token["surprisal"] for token in tokens[1:]]
    assert [pair["loss"] for pair in pairs] == pytest.approx(surprisal, rel=1e-5, abs=1e-5)
    assert [pair["target"] for pair in pairs] == [token["id"] for token in tokens[1:]]
    assert "mean" in said(capsys, "examples", text, "--loss")
    started = json.loads(said(capsys, "surprisal", text, "--bos", "--json"))["tokens"]
    assert started[1]["surprisal"] > 0


def test_vocabularies_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    assert "gpt2 " in said(capsys, "tokens", HOSTILE, "--compare")
    found = json.loads(said(capsys, "tokens", "a Zyxw", "--compare", "--json"))
    counts = {side["name"]: side["count"] for side in found["vocabularies"]}
    assert counts["char"] == counts["byte"] == 6 and counts["word"] == 3 and counts["gpt2"] == 4
    assert "Zyxw" in found["words"]["missing"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("merges", ""), "nothing to merge"),
        (("merges", "x", "--tokenizer", "char"), "no list of merges"),
        (("letters", "x", "--letter", "ab"), "one letter"),
        (("surprisal", ""), "nothing to predict"),
        (("examples", "x", "--loss", "--tokenizer", "char"), "without a model"),
        (("merges", "x", "--tokenizer", "no such"), "there is no model"),
    ],
)
def test_wrong_input_is_one_line(words: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert says in captured.err and captured.err.count("\n") == 1 and not captured.out


@pytest.mark.parametrize("more", [(), ("--json",)])
@pytest.mark.parametrize("command", ["surprisal", "evaluate", "logits"])
def test_logits_that_are_nan_are_one_line(
    tmp_path: Path, command: str, more: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    shape = GPTConfig(vocabulary=257, context=16, layers=1, heads=2, width=16)
    model = save_byte_model(tmp_path / "broken", shape, broken=True)
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat")
    words = [command, str(text)] if command == "evaluate" else [command, "--file", str(text)]
    assert main([*words, "--model", str(model), *more]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("tui-llm: the model's logits contain NaN: ") and captured.err.count("\n") == 1
    assert not captured.out


def test_tokens_outside_the_context_are_not_called_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["surprisal", "a b c"]) == 0
    assert capsys.readouterr().out.count("(no prediction: the first token)") == 1
    assert main(["surprisal", "the cat sat on the mat " * 60, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["tokens"]
    unpredicted = sum(row["surprisal"] is None for row in rows)
    assert unpredicted > 1
    assert main(["surprisal", "the cat sat on the mat " * 60]) == 0
    said = capsys.readouterr().out
    assert said.count("outside the model's context") == unpredicted - 1
    assert said.count("the first token the model sees") == 1 and "the first token)" not in said
