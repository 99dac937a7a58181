"""`tui-llm guess`: scripted games, the score, and input that can't be played."""

from __future__ import annotations

import errno
import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tui_llm.cli import main
from tui_llm.commands import guess as command
from tui_llm.commands.shared.streams import LONGEST
from tui_llm.instruments.guess.question import Bets


def play(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, answers: str, *words: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "stdin", io.StringIO(answers))
    code = main(("guess", *words))
    return code, *capsys.readouterr()


def test_a_scripted_game_is_reproduced_and_adds_up(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--seed", "3", "--turns", "4")
    code, out, err = play(capsys, monkeypatch, "had 40 was 20\n\n#2 50\n+ations 90\n", *words, "--json")
    assert (code, err) == (0, "")
    made = json.loads(out)
    assert made["source"] == "A. F. Brown, The Christmas Angel (1910)" and made["model"] == "nano"
    assert [turn["token"]["text"] for turn in made["turns"]] == [" had", " for", " gener", "ations"]
    assert [[(bet["text"], bet["percent"]) for bet in turn["bets"]] for turn in made["turns"]] == [
        [(" had", 40), (" was", 20)], [], [("b", 50)], [("ations", 90)],
    ]  # fmt: skip
    for turn in made["turns"]:
        unigram = turn["opponents"]["unigram"]["probability"]
        bet = {bet["id"]: bet["percent"] for bet in turn["bets"]}
        p = bet.get(turn["token"]["id"], 0) / 100 + (1 - sum(bet.values()) / 100) * unigram
        assert turn["you"]["probability"] == pytest.approx(p)
        assert turn["beaten"] is (turn["you"]["bits"] < turn["opponents"]["nano"]["bits"])
    assert made["total_bits"]["you"] == pytest.approx(sum(turn["you"]["bits"] for turn in made["turns"]))
    assert made["bits_per_token"]["nano"] == pytest.approx(made["total_bits"]["nano"] / 4)
    assert made["beaten"] == sum(turn["beaten"] for turn in made["turns"])
    _, text, _ = play(capsys, monkeypatch, "had 40 was 20\n\n#2 50\n+ations 90\n", *words)
    mean = {name: f"{bits:.2f}" for name, bits in made["bits_per_token"].items()}
    for name, bits in mean.items():
        assert re.search(rf"^{name} +{bits} ", text, re.M)
    assert f"You beat nano at {made['beaten']} of 4 tokens" in text and "uniform, log2 4,096" in text


def test_the_models_numbers_are_those_of_surprisal_and_loss(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import math

    text = "Once upon a time there was a little girl named Lily."
    _, out, _ = play(capsys, monkeypatch, "\n\n\n", text, "--turns", "3", "--seed", "1", "--json")
    turns = json.loads(out)["turns"]
    assert main(["surprisal", text, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["tokens"]
    for turn in turns:
        row: Any = rows[turn["position"]]
        assert row["id"] == turn["token"]["id"]
        assert turn["opponents"]["nano"]["bits"] == pytest.approx(row["surprisal"] / math.log(2), abs=1e-4)


def test_the_end_of_the_answers_ends_the_game(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = play(capsys, monkeypatch, "the 20\n", "--seed", "1")
    assert code == 0 and "The score on 1 token;" in out and "2 of 10" in out
    code, out, _ = play(capsys, monkeypatch, "", "--seed", "1")
    assert code == 0 and "no token was guessed" in out
    code, out, _ = play(capsys, monkeypatch, "", "--seed", "1", "--json")
    assert code == 0 and json.loads(out)["bits_per_token"] == {"you": None, "unigram": None, "nano": None}


def test_ctrl_c_ends_with_the_score_so_far(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    read = command._bets
    calls = []

    def interrupted(*arguments: Any) -> Bets:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return read(*arguments)

    monkeypatch.setattr(command, "_bets", interrupted)
    code, out, _ = play(capsys, monkeypatch, "\n" * 5, "--seed", "1")
    assert code == 130 and "The score on 2 tokens" in out


def test_the_text_of_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "own.txt"
    path.write_text("The cat \x1b]0;x\x07 sat [red]on[/] the mat, and the dog sat there too.", encoding="utf-8")
    code, out, _ = play(capsys, monkeypatch, "\n" * 3, "--file", str(path), "--turns", "3")
    assert code == 0 and "of your text" in out and "\x1b" not in out and "\x07" not in out
    for words, says in (
        (("--file", str(tmp_path)), "folder"),
        (("--file", str(tmp_path / "none")), "none"),
        (("a text", "--file", str(path)), "leave one of them out"),
        (("a",), "fewer than two tokens"),
        (("--turns", "0"), "give a number from 1"),
        (("--choices", "51"), "give a number from 0"),
    ):
        code, out, err = play(capsys, monkeypatch, "", *words)
        assert code == 2 and says in err and err.count("\n") == 1, words


def test_a_line_without_an_end_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = play(capsys, monkeypatch, "x" * (LONGEST + 2), "--seed", "1", "--json")
    assert code == 2 and "a line of over" in err and err.count("\n") == 1


def test_an_answer_that_cannot_be_read_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = play(capsys, monkeypatch, "\n[red]\x1b 80 mat 70\n", "--seed", "1", "--json")
    assert (
        code == 2
        and err == "tui-llm: answer 2: the bets add up to 150 %; at most 99 % can be bet, such as: mat 50 floor 20\n"
    )


def test_a_person_is_asked_again_and_sees_the_score_after_ctrl_d() -> None:
    """On a pseudo-terminal, with the text on standard input."""
    main_end, other_end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tui_llm", "guess", "--seed", "1"],
        stdin=other_end, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    os.close(other_end)
    os.write(main_end, b"mat 70 floor 70\nmat 50\n\x04")
    out, err = process.communicate()
    os.close(main_end)
    assert process.returncode == 0, err
    assert "the bets add up to 140 %" in out and "you bet 50 % on ·mat" in out and "The score on 1 token" in out


def test_text_on_standard_input_without_a_terminal_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tui_llm", "guess", "-"], input="The cat sat.", capture_output=True, text=True, start_new_session=True
    )  # fmt: skip
    assert done.returncode == 2 and "use --file" in done.stderr and done.stderr.count("\n") == 1


class Unreadable(io.StringIO):
    """A terminal that has hung up."""

    def read(self, size: int | None = -1, /) -> str:
        raise OSError(errno.EIO, "Input/output error")

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        return self.read(size)


def test_standard_input_that_cannot_be_read_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Unreadable())
    for words, what in (((), "the answers"), (("-",), "the text")):
        assert main(("guess", *words)) == 2
        assert capsys.readouterr().err == f"tui-llm: can't read {what} from standard input: Input/output error\n"
