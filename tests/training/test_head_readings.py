"""heads.jsonl: written and read again, damaged lines, runs without it; the letters that are repeated, and their entropy."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tests.training.run_helpers import make, words
from tui_llm.cli import main
from tui_llm.facts.head_scores import HeadScore
from tui_llm.llm.data import corpora, repeats
from tui_llm.llm.tokens.closed import ClosedTokenizer
from tui_llm.llm.tokens.text import END_OF_TEXT
from tui_llm.training.run import head_readings, jsonl
from tui_llm.training.run.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    path = tmp_path / "text.txt"
    path.write_text(words(2000))
    return make("run", path)


def scores(strength: float) -> list[HeadScore]:
    return [HeadScore(layer, head, strength if (layer, head) == (1, 0) else 0.01, 0.2, 0.1) for layer in (0, 1) for head in (0, 1)]  # fmt: skip


def test_scores_are_read_as_they_were_written(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert head_readings.evaluations(run) == [] and head_readings.newest(run) is None
    for step, strength in ((0, 0.02), (10, 0.3), (20, 0.9), (20, 0.95)):
        jsonl.append_to(run.heads_path, head_readings.line(step, scores(strength)))
    with run.heads_path.open("ab") as file:
        for damaged in (
            b'{"step": 30}', b'{"step": 30, "layers": 2', b'{"step": 30, "layers": 1, "heads": 1, "induction": [2], "previous": [0], "duplicate": [0]}',
            b'{"step": 30, "layers": 1, "heads": 1, "induction": [NaN], "previous": [0], "duplicate": [0]}',
            b'{"step": 30, "layers": 99999999, "heads": 99999999, "induction": [], "previous": [], "duplicate": []}',
        ):  # fmt: skip
            file.write(damaged + b"\n")
    found = head_readings.evaluations(run)
    assert [one.step for one in found] == [0, 10, 20]
    assert found[-1].scores == tuple(scores(0.95)) and (found[-1].layers, found[-1].heads_per_layer) == (2, 2)
    assert head_readings.nearest(found, 19) == found[1] and head_readings.nearest(found, -1) == found[0]

    assert main(["runs", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["runs"]
    assert row["heads"]["step"] == 20 and row["heads"]["induction"] == {"layer": 1, "head": 0, "score": 0.95}
    assert main(["heads", "--run", "run", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert [one["step"] for one in value["evaluations"]] == [0, 10, 20]
    assert value["evaluations"][1]["heads"][2] == {"layer": 1, "head": 0, "induction": 0.3, "previous": 0.2, "duplicate": 0.1}  # fmt: skip
    assert main(["heads", "--run", "run"]) == 0
    assert "1.0: 0.950" in capsys.readouterr().out
    jsonl.drop_after(run.path, 10)
    assert [one.step for one in head_readings.evaluations(run)] == [0, 10]


def test_a_run_without_scores_says_so(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["heads", "--run", "run"]) != 0
    error = capsys.readouterr().err
    assert "no head scores" in error and error.count("\n") == 1
    assert main(["runs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["heads"] is None


def test_letters_are_repeated_and_reproducible() -> None:
    text = "".join(repeats.text(1, 50_000))
    assert text == "".join(repeats.text(1, 50_000)) != "".join(repeats.text(2, 50_000))
    documents = text.split(f"\n{END_OF_TEXT}\n")[:-1]
    assert len(documents) > 1000
    for one in documents:
        half = one[: len(one) // 2]
        assert one == half * 2 and len(set(half)) == len(half) and set(half) <= set(repeats.LETTERS)
    assert {len(one) // 2 for one in documents} == set(range(repeats.SHORTEST, repeats.LONGEST + 1))


def test_the_entropy_is_that_of_the_draws() -> None:
    letters = ClosedTokenizer("char", "char", [*repeats.LETTERS, END_OF_TEXT])
    floor = corpora.floor(["repeats"], letters.encode, separator=True)
    # log-probabilities of sampled documents, draw by draw
    documents = "".join(repeats.text(7, 400_000)).split(f"\n{END_OF_TEXT}\n")[:-1]
    nats = tokens = 0.0
    for one in documents:
        count = len(one) // 2
        nats += math.log(repeats.LONGEST - repeats.SHORTEST + 1) + sum(math.log(26 - at) for at in range(count))
        tokens += len(one) + 1
    assert floor == pytest.approx(nats / tokens, rel=2e-3)
    assert corpora.floor(["repeats"], letters.encode, separator=False) is None
    assert corpora.floor(["repeats", "stories"], letters.encode, separator=True) is None
    assert corpora.floor(["repeats"], lambda text: [0] * (len(text) // 2), separator=True) is None
