"""Every option of every command with a seeded sample of hostile values: status 0, or 2 and one line.

`python scripts/hostile_cli.py` tries all values.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from tests import hostile
from tui_llm.commands.shared.command import Parser
from tui_llm.common.errors import UserError
from tui_llm.training.plan import subprocesses

EACH = 2  # values for each option


@pytest.mark.timeout(600)
def test_each_call_succeeds_or_fails_with_one_line(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = subprocesses.start

    def start(module: str, *rest: Any, **named: Any) -> Any:
        if module in ("find_lr", "budget"):  # they take a minute each; the arguments are checked before
            raise UserError("not measured in this test")
        return started(module, *rest, **named)

    monkeypatch.setattr(subprocesses, "start", start)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # `models pull none/none`
    monkeypatch.chdir(tmp_path)
    hostile.furnish(tmp_path)
    before, count, wrong = hostile.state(tmp_path), 0, []
    for case in hostile.cases(seed=13, each=EACH):
        count += 1
        if said := hostile.problem(case.arguments, seconds=600):
            wrong.append(f"{case}: {case.arguments}\n{said}")
    assert not wrong, ascii("\n\n".join(wrong))
    assert hostile.state(tmp_path) == before, "an input was written to"
    assert count > 350


def test_every_command_is_tried() -> None:
    tried = {case.command for case in hostile.cases(seed=1, each=1)}
    assert {command for command, _ in hostile.commands()} - tried == {"serve"}


def test_a_separator_in_the_place_of_a_value_is_the_value() -> None:
    parser = Parser()
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--option")
    for words in (["--", "a", "--"], ["a", "--", "--"]):
        assert parser.parse_args(words) == Namespace(first="a", second="--", option=None)
    assert parser.parse_args(["--option=--", "a", "b"]) == Namespace(first="a", second="b", option="--")
    assert parser.parse_args(["a", "--", "b"]) == Namespace(first="a", second="b", option=None)
