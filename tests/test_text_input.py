"""The text of a command: an argument, a file or standard input; notes on a target's space; a run's name; 256 and 257."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_cli import refused, run_json
from tests.training import run_helpers
from tui_llm.cli import main
from tui_llm.commands.shared import spaces, text_input
from tui_llm.commands.shared.command import parsers
from tui_llm.commands.shared.parser import build_parser
from tui_llm.common import paths
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.llm.tokens import tokenizer as tk
from tui_llm.session.tokenization import tokenization
from tui_llm.tui.state.lab import Lab

TAKES_TEXT = [path for path, parser in parsers(build_parser()) if parser.get_default("text_dest")]
REST = {"ablate": ["--heads", "0.1"], "steer": ["--toward", "a", "--away", "b", "--max-tokens", "2"], "letters": ["--letter", "a"], "loss": ["--target", " time"], "learn": ["--target", " time"], "generate": ["--max-tokens", "2"],
        "prefer": ["--chosen", " time", "--rejected", " hill", "--steps", "1"], "reward": ["--score", "contains:a", "--samples", "2", "--steps", "1"]}  # fmt: skip
FIRST = {"versus": ["nano", "nano"], "compare-models": ["nano", "nano"]}


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


def test_every_command_about_a_text_takes_it_in_every_way() -> None:
    assert TAKES_TEXT == [
        "tokens", "examples", "logits", "loss", "generate", "merges", "letters", "surprisal", "attention", "lens", "block", "backward", "why", "heads", "ablate",
        "steer", "learn",
        "prefer", "reward", "draw", "tree", "compare-models", "versus",
    ]  # fmt: skip
    taking = {path for path, parser in parsers(build_parser()) for action in parser._actions if action.metavar in ("TEXT", "PROMPT") and not action.option_strings}  # fmt: skip
    assert taking - {"evaluate", "guess", "fit-lens"} == set(
        TAKES_TEXT
    )  # evaluate and fit-lens take files; guess reads answers too


@pytest.mark.parametrize("command", TAKES_TEXT)
def test_argument_file_and_standard_input_give_the_same(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    start, rest = [command, *FIRST.get(command, [])], REST.get(command, [])
    assert main([*start, "Once upon a", *rest]) == 0
    wanted = capsys.readouterr().out
    file = tmp_path / "t.txt"
    file.write_bytes(b"Once upon a\n")
    assert main([*start, "--file", str(file), *rest]) == 0
    assert capsys.readouterr().out == wanted
    stdin(monkeypatch, b"Once upon a\n")
    assert main([*start, "-", *rest]) == 0
    assert capsys.readouterr().out == wanted


def test_a_pipe_is_the_text() -> None:
    command = [sys.executable, "-m", "tui_llm", "tokens", "--tokenizer", "byte", "--json"]
    done = subprocess.run(command, input=b"a\xe2\x82\xac\n\n", capture_output=True)
    assert bytes.fromhex("".join(token["bytes"] for token in json.loads(done.stdout)["tokens"])) == b"a\xe2\x82\xac\n"
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    assert done.returncode == 2 and b"give the text in quotes, --file FILE, or - for standard input" in done.stderr
    assert b"`tui-llm tokens --help`" in done.stderr and done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a", "a"),
        (b"a\n", "a"),
        (b"a\r\n", "a"),
        (b"a\n\n", "a\n"),
        (b"\xef\xbb\xbfa", "a"),
        (b"a ", "a "),
        (b"\n", ""),
    ],
)
def test_one_line_end_is_left_out(data: bytes, text: str) -> None:
    assert text_input._decoded(data, "x") == text


def test_a_text_that_cannot_be_read_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "can't read" in refused(capsys, "tokens", "--file", str(tmp_path / "none"))
    assert "it is a folder" in refused(capsys, "tokens", "--file", str(tmp_path))
    assert "not both" in refused(capsys, "tokens", "a", "--file", "b")
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    assert "is not UTF-8 text (byte 3)" in refused(capsys, "tokens", "--file", str(tmp_path / "latin"))
    stdin(monkeypatch, b"\xff")
    assert "standard input is not UTF-8 text (byte 0)" in refused(capsys, "tokens", "-")
    stdin(monkeypatch, b"")
    assert "nothing to predict from" in refused(capsys, "logits", "-")
    monkeypatch.setattr(text_input, "MOST", 5)
    stdin(monkeypatch, b"123456")
    assert "standard input has over 5 bytes" in refused(capsys, "tokens", "-")


@pytest.mark.parametrize(
    ("prompt", "target", "wanted"),
    [
        ("Once upon a", "time", ("Once upon a", " time")),
        ("Once upon a ", " time", ("Once upon a", " time")),
        ("Once upon a ", "time", ("Once upon a", " time")),
        ("Once upon a", " time", None),
        ("Once upon a\n", "time", None),
        ("Once", ", upon", None),
        ("今日は", "雨", None),
        ("", "time", None),
        (" ", "time", None),
        ("Once", "", None),
    ],
)
def test_where_a_space_may_be_missing(prompt: str, target: str, wanted: tuple[str, str] | None) -> None:
    assert spaces.meant(prompt, target) == wanted


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["loss", "Once upon a", "--target", "time"], "'time' has no space in front; did you mean ' time'? The loss is 0.0"),
        (["loss", "Once upon a ", "--target", " time"], "did you mean one? The loss is 0.0"),
        (["loss", "Once upon a ", "--target", "time"], "the text ends in a space, which belongs to the next token"),
        (["loss", "Once upon a", "--target", " time"], ""),
        (["loss", "He was un", "--target", "able"], ""),
        (["lens", "Once upon a", "--target", " time"], ""),
        (["lens", "Once upon a", "--target", "t"], "did you mean ' t'?"),
        (["learn", "Once upon a", "--target", "time"], "did you mean ' time'?"),
        (["learn", "Once upon a", "--target", " time", "--also", "The cat=>sat"], "pin 'The cat': 'sat' has no space"),
        (["neighbours", "king"], "did you mean ' king'? It is another token"),
        (["neighbours", " king"], ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)  # fmt: skip
def test_a_target_without_its_space_is_asked_about(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--json"]) == 0
    shown = capsys.readouterr()
    assert said in shown.err and bool(said) is bool(shown.err)
    json.loads(shown.out)


@pytest.mark.parametrize(
    "words",
    [
        ["learn", "Once upon a", "--target", "", "--also", "The cat=>sat"],
        ["control", "r", "--pin", "The cat=>sat", "--unpin", "none"],
        ["train", "text.txt", "--run", "new", "--pin", "The cat=>sat", "--preset", "none"],
    ],
    ids=lambda words: words[0],
)
def test_an_error_is_one_line_without_a_note(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(run_helpers.words(400))
    run_helpers.make("r", tmp_path / "text.txt")
    assert main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_note_has_the_two_losses_that_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    without, with_space = (
        run_json(capsys, "loss", "Once upon a", "--target", text)["sum"] for text in ("time", " time")
    )
    assert main(["loss", "Once upon a", "--target", "time"]) == 0
    assert f"The loss is {with_space:.4f} nats then, not {without:.4f}" in capsys.readouterr().err


def test_train_suggests_a_name(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = tmp_path / "My Book.txt"
    text.write_text("words " * 4000)
    assert refused(capsys, "train", str(text)).endswith("name the run, for example: --run my-book-small\n")
    (paths.runs_dir() / "my-book-toy").mkdir(parents=True)
    assert "--run my-book-toy-2" in refused(capsys, "train", str(text), "--preset", "toy")
    assert "`tui-llm runs` lists them" in refused(capsys, "train", "--resume")


def test_the_byte_vocabularies_say_what_their_number_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokens", "a", "--tokenizer", "byte"]) == 0
    assert "(a vocabulary of 256: one for each byte)" in capsys.readouterr().out
    assert main(["train", __file__, "--preset", "toy", "--cost"]) == 0
    assert "vocabulary 257: 256 bytes + <|endoftext|>" in capsys.readouterr().out
    trained = tk.byte_level()
    assert tokenization(trained, [97]).size_note == " (256 bytes + <|endoftext|>)"
    assert trained.decode([*range(256)]).encode("latin1", "replace") and trained.is_special(256) and trained.size == 257


def test_the_help_says_what_the_app_starts_with(capsys: pytest.CaptureFixture[str]) -> None:
    app = Lab("").sampler
    assert (app.temperature, app.top_p) == (0.8, 0.9) != (SamplerSettings().temperature, SamplerSettings().top_p)
    for command in ("logits", "softmax", "generate", "tree"):
        options = dict(parsers(build_parser([command])))[command]._option_string_actions
        assert "(default 1; the app starts with 0.8)" in (options["--temperature"].help or "")
        assert "(default 1; the app starts with 0.9)" in (options["--top-p"].help or "")
