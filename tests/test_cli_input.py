"""Invalid, hostile or extreme input on the command line: one clear line, and no raw foreign text on the terminal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.test_cli import refused, run_json
from tui_llm.cli import main
from tui_llm.commands.shared.parser import build_parser

NANO = Path(__file__).resolve().parents[1] / "models" / "nano"

HOSTILE = [
    "[/]",
    "[red]x",
    "[link='x",
    "[/usr/bin]",
    "\x1b[31mred\x1b]0;title\x07",
    "\x9b31m",
    "a\u202eb\u2066c",
    "👩\u200d🚀",
    "\udcff",
    "<|endoftext|>",
    "\0",
]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_hostile_text_never_reaches_the_terminal(capsys: pytest.CaptureFixture[str], text: str) -> None:
    for arguments in (
        ["tokens", text],
        ["examples", text],
        ["logits", text, "--top", "3"],
        ["loss", "a", "--target", text],
        ["softmax", f"{text}=1"],
        ["generate", text, "--max-tokens", "2"],
    ):
        assert main(arguments) == 0, arguments
        out = capsys.readouterr().out
        assert not [
            c for c in out if (ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 or c in "\u202e\u2066\u200d"
        ], arguments
    assert (
        text.encode(errors="surrogateescape")
        not in refused(capsys, "logits", "a", "--model", text).encode(errors="surrogateescape")
        or text.isprintable()
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["logits", ""], "nothing to predict from"),
        (["logits", "a", "--temperature", "-1"], "temperature is -1"),
        (["logits", "a", "--temperature", "nan"], "temperature is nan"),
        (["logits", "a", "--temperature", "inf"], "temperature is inf"),
        (["logits", "a", "--temperature", "hot"], "is not a number"),
        (["logits", "a", "--top-p", "1.5"], "top-p is 1.5"),
        (["logits", "a", "--top-p", "nan"], "top-p is nan"),
        (["logits", "a", "--min-p", "-0.1"], "min-p is -0.1"),
        (["logits", "a", "--top-k", "-3"], "top-k is -3"),
        (["logits", "a", "--top", "0"], "--top is 0"),
        (["logits", "a", "--model", "no-such"], "there is no model"),
        (["vocabulary", "train", "http://[", "--out", "v"], "is not an address"),
        (["train", "http://[", "--run", "r"], "is not an address"),
        (["vocabulary", "train", __file__, "--size", "10000001", "--out", "v"], "is too large"),
        (["logits", "a", "--model", "/no/such/folder"], "no model folder"),
        (["logits", "a", "--device", "abacus"], "no device"),
        (["logits", "a", "--device", "mps"], "no mps device"),
        (["tokens", "a", "--tokenizer", "no-such"], "no model"),
        (["softmax", "a"], "TOKEN=LOGIT"),
        (["softmax", "a=x"], "TOKEN=LOGIT"),
        (["softmax", "=1"], "TOKEN=LOGIT"),
        (["softmax", "a=nan", "b=1"], "NaN"),
        (["softmax", "a=inf", "b=1"], "+inf"),
        (["softmax", "a=-inf"], "all −inf"),
        (["loss", "a", "--target", ""], "target is empty"),
        (["loss", "", "--target", "b"], "nothing to predict from"),
        (["loss", "a"], "--target"),
        (["generate", ""], "nothing to predict from"),
        (["generate", "a", "--max-tokens", "-1"], "--max-tokens is -1"),
        (["train", "--run", "x"], "name a text file"),
        (["train", "/no/such.txt", "--run", "x"], "no file or folder"),
        (["train", __file__, "--run", "../x"], "can't name a run"),
        (["train", __file__, "--run", "x", "--preset", "huge"], "no preset"),
        (["train", __file__, "--run", "x", "--steps", "many"], "steps is 'many'"),
        (["train", __file__, "--run", "x", "--steps", "0"], "steps is 0"),
        (["train", __file__, "--run", "x", "--width", "30", "--heads", "4"], "not a multiple"),
        (["train", __file__, "--run", "x", "--tokenizer", "nope"], "no model"),
        (["stop", "nothing"], "no run"),
        (["export", "nothing", "somewhere"], "no run"),
        (["vocabulary", "add", "/no/such/file"], "can't read"),
        (["vocabulary", "train", "/no/such/file", "--out", "x"], "no file or folder"),
        (["fly"], "invalid choice"),
        (["logit", "a"], "invalid choice: 'logit'; did you mean logits? (choose from"),
        (
            ["logits", "a", "--tempertaure", "1"],
            "arguments: --tempertaure 1; did you mean --temperature?; `tui-llm logits --help`",
        ),
        (["logits", "a", "--model", "Nanoo"], "there is no model 'Nanoo'; did you mean nano? choose one of: nano"),
        (["logits", "a", "--device", "cuad"], "did you mean cuda? choose one of: auto, cpu"),
        (
            ["train", "a", "--run", "a", "--preset", "smal"],
            "there is no preset 'smal'; did you mean small? choose one of:",
        ),
        (["logits", "a", "--device", "xyzzy"], "there is no device 'xyzzy'; choose one of: auto"),
        (["--fly"], "--help"),
        (["--device", "abacus"], "no device"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_one_line_says_what_is_wrong(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert message in refused(capsys, *arguments)


@pytest.mark.parametrize(
    "options",
    [
        ["--temperature", "0"],
        ["--top-p", "0"],
        ["--top-p", "1"],
        ["--temperature", "1e-30"],
        ["--temperature", "1e30"],
    ],
    ids=" ".join,
)
def test_extreme_values_of_options(capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    made = run_json(capsys, "logits", "Once", "--top", "4096", *options)
    assert sum(row["probability"] for row in made["candidates"]) == pytest.approx(1, abs=1e-6)
    if options in (["--temperature", "0"], ["--top-p", "0"], ["--temperature", "1e-30"]):
        assert [row["kept"] for row in made["candidates"]].count(True) == 1
        assert made["candidates"][0]["probability"] == 1


def test_a_prompt_longer_than_the_context(capsys: pytest.CaptureFixture[str]) -> None:
    text = "the cat sat on the mat " * 100
    assert run_json(capsys, "logits", text, "--top", "1")["fed"] == 256
    assert main(["logits", text]) == 0
    assert "sees the last 256 of" in capsys.readouterr().out


def process(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tui_llm", *arguments], capture_output=True, text=True, **more)


def test_a_closed_pipe_is_not_an_error() -> None:
    """`tui-llm examples … | head -1` exits quietly."""
    command = [sys.executable, "-m", "tui_llm", "examples", "word " * 600]  # a megabyte: more than a pipe holds
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.stdout.close()
        assert child.stderr is not None
        assert child.stderr.read() == b""
        assert child.wait() == 0


def test_the_app_without_a_terminal_says_so() -> None:
    done = process(stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "terminal" in done.stderr


def test_an_argument_that_is_not_utf8() -> None:
    done = subprocess.run(
        [sys.executable.encode(), b"-m", b"tui_llm", b"tokens", b"a\xff\x1b[0m", b"--json"],
        capture_output=True,
    )
    assert done.returncode == 0
    assert b"\x1b" not in done.stdout
    assert json.loads(done.stdout)["count"] >= 2


def test_every_option_has_help() -> None:
    parser = build_parser()
    subparsers = next(a for a in parser._actions if a.dest == "command")
    for name, sub in (subparsers.choices or {}).items():
        assert sub.description or name == "vocabulary"
        for action in sub._actions:
            assert action.help or not action.option_strings or action.dest in ("dtype",), (name, action.dest)
