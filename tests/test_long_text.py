"""A text that is longer than the model's context: each command says that its numbers are of the text's last tokens."""

from __future__ import annotations

import json

import pytest

from tests import hostile
from tui_llm.cli import main

LONG = "Once upon a time there was a cat who sat on a mat. " * 24
SHORT = "Once upon a time"
SEES = "sees the last 256 of "
COMMANDS: dict[str, list[str]] = {
    "logits": [],
    "loss": ["--target", " x"],
    "generate": ["--max-tokens", "1"],
    "draw": [],
    "tree": ["--depth", "1"],
    "attention": [],
    "lens": [],
    "block": [],
    "why": [],
    "heads": [],
    "backward": ["--target", " x"],
    "ablate": ["--target", " x", "--heads", "0.3"],
    "steer": ["--toward", " love", "--away", " hate", "--max-tokens", "1"],
    "learn": ["--target", " x", "--steps", "1"],
    "compare-models": [],
    "versus": [],
}
TWO_MODELS = ("compare-models", "versus")
OTHERWISE = {
    "guess",  # asks for tokens of a part that fits
    "surprisal",  # says it at each token outside the context
    "patch",  # says how many tokens of both prompts are left out
    "prefer",  # says how many tokens are left out
    "reward",  # refuses a prompt that leaves no room for an answer
}


def words(command: str, text: str) -> tuple[str, ...]:
    models = ("nano", "nano") if command in TWO_MODELS else ()
    return (command, *models, text, *COMMANDS[command])


def test_each_command_that_feeds_a_prompt_is_known_here() -> None:
    feeding = {command for command, parser in hostile.commands() if "--bos" in parser._option_string_actions}
    assert feeding == {*COMMANDS, *OTHERWISE}


@pytest.mark.parametrize("command", COMMANDS)
def test_it_is_said_once(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(command, LONG)) == 0
    shown = capsys.readouterr()
    assert (shown.out + shown.err).count(SEES) == (2 if command in TWO_MODELS else 1), shown
    assert main(words(command, SHORT)) == 0
    shown = capsys.readouterr()
    assert "sees the last" not in shown.out + shown.err


def test_the_note_does_not_get_into_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main((*words("generate", LONG), "--json")) == 0
    shown = capsys.readouterr()
    assert len(json.loads(shown.out)["ids"]) == 1
    assert shown.err.startswith(f"tui-llm: nano {SEES}") and shown.err.count("\n") == 1
