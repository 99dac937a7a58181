"""Tables on the command line whose last column has sentences: wrapped on a terminal, a line a row elsewhere."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tui_llm.commands.shared.output import put_sentences
from tui_llm.facts.report import INDENT, LEAST_WRAPPED, table

HEAD = ("run", "state", "step", "loss (nats)", "MFU", "")
ADVICE = (
    "! low loss at step 90 (+2) · ends between 0.237 and 0.243 (80 %) · beside other programs its 2 threads waited for cores 49 %"
    " of the time. One may be faster: tui-llm stop small; tui-llm train --resume --run small --threads 1"
)
WORDS = st.text(st.sampled_from("ab é漢🙂"), max_size=300)


def row(name: str, sentence: str) -> tuple[str, ...]:
    return name, "running", "90 / 400", "0.2703", "–", sentence


@pytest.mark.parametrize("name", ["small", "a-run-with-a-long-name-of-its-own"])
def test_a_long_sentence_wraps_within_80_columns(name: str) -> None:
    made = table(HEAD, [row(name, ADVICE), row("b", "all 400 steps are done")], left=(0, 1, 5), wrap_at=80)
    lines = made.split("\n")
    assert len(ADVICE) > 200 and len(lines) > 3 and all(cell_len(line) <= 80 for line in lines)
    (first,) = (at for at, line in enumerate(lines) if line.startswith(f"{name} "))
    (second,) = (at for at, line in enumerate(lines) if line.startswith("b "))
    before = len("  ".join((name, "running", "90 / 400", "loss (nats)", "MFU")))
    if 80 - before - 2 >= LEAST_WRAPPED:  # in its column
        assert {line[: before + 2] for line in lines[first + 1 : second]} == {" " * (before + 2)}
        said = [lines[first][before + 2 :], *(line.strip() for line in lines[first + 1 : second])]
    else:  # below its row
        assert all(line.startswith(INDENT) and line[4] != " " for line in lines[first + 1 : second])
        said = [line.strip() for line in lines[first + 1 : second]]
    assert " ".join(said) == ADVICE  # nothing is lost
    whole = table(HEAD, [row(name, ADVICE)], left=(0, 1, 5)).split("\n")
    assert len(whole) == 2 and whole[1].endswith(ADVICE)


def test_a_row_without_a_sentence_has_no_line_of_blanks() -> None:
    made = table(HEAD, [row("a-name-of-" + "many-" * 12 + "cells", "")], left=(0, 1, 5), wrap_at=80)
    assert len(made.split("\n")) == 2


@given(rows=st.lists(st.tuples(st.text("abc", max_size=20), WORDS), max_size=4), width=st.integers(40, 120))
def test_no_line_is_wider_than_the_terminal(rows: list[tuple[str, str]], width: int) -> None:
    made = table(("name", "says"), rows, left=(0, 1), wrap_at=width)
    assert all(cell_len(line) <= width for line in made.split("\n"))
    kept = "".join(made.split())
    for name, sentence in rows:
        assert name in kept and "".join(sentence.split()) in kept


def test_the_width_is_that_of_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((80, 24)))
    for terminal in (True, False):
        monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=terminal: terminal)
        put_sentences(HEAD, [row("small", ADVICE)], (0, 1, 5))
        lines = capsys.readouterr().out.splitlines()
        assert all(cell_len(line) <= 80 for line in lines) if terminal else len(lines) == 2
