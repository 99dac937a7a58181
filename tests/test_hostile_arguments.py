"""Every option of every command with a seeded sample of hostile values: status 0, or 2 and one line.

`python scripts/hostile_cli.py` tries all values.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import hostile
from tui_llm.commands.shared.command import Parser

EACH = 2  # values for each option

NOT_PLAIN = {
    "find-lr": "its measurement, which takes a minute, is refused here",
    "models pull": "there is no network",
    "stop": "the run has no worker",
}
"""Commands whose call without a hostile value ends in an error."""


@pytest.fixture
def furnished(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    hostile.furnish(tmp_path)
    with hostile.shortened():
        yield tmp_path


def test_every_call_without_a_hostile_value_succeeds(furnished: Path) -> None:
    """So that a hostile value gets further than the check of another argument."""
    wrong = {}
    for command, parser in hostile.commands():
        said = hostile.problem(hostile.plain(command, parser), works=True)
        if bool(said) is not (command in NOT_PLAIN):
            wrong[command] = said
    assert not wrong, ascii(wrong)


def test_each_call_succeeds_or_fails_with_one_line(furnished: Path) -> None:
    before, count, wrong = hostile.state(furnished), 0, []
    for case in hostile.cases(seed=13, each=EACH):
        count += 1
        if said := hostile.problem(case.arguments):
            wrong.append(f"{case}: {case.arguments}\n{said}")
    assert not wrong, ascii("\n\n".join(wrong))
    assert hostile.state(furnished) == before, "an input was written to"
    assert count > 350


def test_every_command_is_tried() -> None:
    tried = {case.command for case in hostile.cases(seed=1, each=1)}
    assert {command for command, _ in hostile.commands()} == tried


def test_a_separator_in_the_place_of_a_value_is_the_value() -> None:
    parser = Parser()
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--option")
    for words in (["--", "a", "--"], ["a", "--", "--"]):
        assert parser.parse_args(words) == Namespace(first="a", second="--", option=None)
    assert parser.parse_args(["--option=--", "a", "b"]) == Namespace(first="a", second="b", option="--")
    assert parser.parse_args(["a", "--", "b"]) == Namespace(first="a", second="b", option=None)
