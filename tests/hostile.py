"""Hostile arguments for every option of every command, found by walking the parser, and the invariants of each call.

`scripts/hostile_cli.py` tries all of them; `tests/test_hostile_arguments.py` tries a seeded sample.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tui_llm.cli import main
from tui_llm.commands.shared.command import parsers
from tui_llm.commands.shared.parser import build_parser

NUMBERS = (
    "nan", "inf", "-inf", "1e999", "-1e999", "1e-999", "0", "-0", "-1", "1.5", "0x10", "1_000", "½", "١٢", "１", "true", "None",
    "2147483648", "9223372036854775807", "9223372036854775808", "-9223372036854775809", "9" * 400, "9" * 5000, "1," * 50,
)  # fmt: skip
TEXTS = (
    "", " ", "[/]", "[red]x", "[link='x", "\x1b[31mred\x1b]0;title\x07", "\x9b31m", "a\u202eb\u2066c", "👩\u200d🚀", "\udcff", "\ud800",
    "\0", "a\0b", "<|endoftext|>", "=", "=>", "=1", "-", "--", "a\nb", "{}", "%s%n", "a" * 10_000,
)  # fmt: skip
PATHS = (
    "~nosuchuser", "~nosuchuser/x", "x" * 300, "x" * 5000, "/".join("x" * 3000), "a\0b.txt", "bad\udcff.txt", "\ud800/x", ".", "..", "/",
    "there/file.txt", "there", "there/file.txt/under", "there/loop", "there/loop/x", "there/dangling", "there/noise", "there/empty",
    "/dev/null", "/dev/full", "/proc/none/x", "/proc/self/mem", "model", "model/config.json", "run:r", "run:none", "run:../r", "../r", "r",
    "nano", "http://[", "http://", "none/none",
)  # fmt: skip
VALUES = (*NUMBERS, *TEXTS, *PATHS)

# Values of the arguments that are not under test. Commands that delete or rename a run get none, to keep RUN.
PLAIN = {
    "TEXT": "a b", "PROMPT": "a b", "TOKEN=LOGIT": "a=1", "TOKEN": "#5", "RUN": "r", "OLD": "none", "NEW": "other", "CORPUS": "text.txt",
    "FILE": "model", "NAME": "none", "MODEL": "model", "SHELL": "runs", "PART": "none",
}  # fmt: skip
REQUIRED = {"--target": "b", "--letter": "a", "--size": "260", "--score": "full-stop"}
WRITES = {"--out", "--keep", "FOLDER"}  # each call gets a new path
# serve runs until it is stopped; following a worker and measuring the machine take long.
LEFT_OUT = {("serve", "*"), ("train", "--measure"), ("train", "--detach"), ("train", "--resume"), ("batch", "--now"), ("train", "--tensorboard")}  # fmt: skip
MORE = {  # additional arguments that keep a call short
    "train": ["--no-start", "--preset", "toy"], "tour": ["--json"], "draw": [], "learn": ["--steps", "1"],
    "reward": ["--steps", "1", "--samples", "2", "--tokens", "2"],
    "generate": ["--max-tokens", "2"], "runs delete": ["--yes"], "models delete": ["--yes"], "find-lr": ["--seconds", "2"],
}  # fmt: skip
FOREVER = {
    ("generate", "--max-tokens"): 1_000_000,
    ("draw", "--count"): 10_000_000,
}  # larger numbers are slow, not errors


@dataclass(frozen=True)
class Case:
    command: str
    option: str  # or the metavar of a positional argument
    value: str | None  # None: a flag
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.command} {self.option} {self.value[:60] if self.value is not None else ''!r}"


def options_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [a for a in parser._actions if not isinstance(a, (argparse._SubParsersAction, argparse._HelpAction))]


def name_of(action: argparse.Action) -> str:
    return action.option_strings[0] if action.option_strings else str(action.metavar)


def commands() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yields every command that can be run, with its words."""
    for path, parser in parsers(build_parser()):
        groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        if path and (not groups or not groups[0].required):
            yield path, parser


def cases(seed: int, each: int | None = None) -> Iterator[Case]:
    """Yields all cases, or `each` values for each option, drawn with `seed`."""
    draw = random.Random(seed)
    for command, parser in commands():
        if (command, "*") in LEFT_OUT:
            continue
        for action in options_of(parser):
            option = name_of(action)
            if (command, option) in LEFT_OUT or option == "--version":
                continue
            flag = action.option_strings and action.nargs == 0
            values = [None] if flag else list(VALUES) if each is None else draw.sample(VALUES, each)
            for value in values:
                if command in ("runs rename", "runs delete") and value == PLAIN["RUN"]:
                    continue  # the commands after it look at that run
                if option == "FOLDER" and value == "there/empty":
                    continue  # an empty folder is written into
                most = FOREVER.get((command, option))
                if most and value is not None and value.isdecimal() and len(value) < 20 and int(value) > most:
                    continue
                yield Case(command, option, value, tuple(_arguments(command, parser, action, value)))


_count = iter(range(1 << 40))


def _arguments(command: str, parser: argparse.ArgumentParser, tried: argparse.Action, value: str | None) -> list[str]:
    words, places = command.split(), []
    for action in options_of(parser):
        name = name_of(action)
        if action is tried:
            given = [] if value is None else [value] * (action.nargs if isinstance(action.nargs, int) else 1)
        elif name in WRITES and (action.required or not action.option_strings):
            given = [f"out/{next(_count)}"]
        elif not action.option_strings and (name == "CORPUS" or action.nargs not in ("*", "?")):
            given = ["text.txt" if command == "evaluate" else PLAIN.get(name, "a")]
            given *= 2 if command == "runs compare" else 1
        elif action.required:
            given = [REQUIRED.get(name, f"out/{next(_count)}")]
        elif name == "--model":
            given = ["model"]
        elif name == "--run" and command == "train":
            given = [f"new-{next(_count)}"]
        else:
            continue
        if not action.option_strings:
            places += given
        elif len(given) == 1 and given[0].startswith("-"):
            words.append(f"{name}={given[0]}")
        else:
            words += [name, *given]
    extra = MORE.get(command, [])
    if tried.option_strings and tried.option_strings[0] in extra:
        at = extra.index(tried.option_strings[0])
        extra = extra[:at] + extra[at + 2 :]
    return [*words, *extra, *(["--", *places] if places else [])]


# ── running the cases ─────────────────────────────────────────────────────────────────────────────────────────


def furnish(folder: Path) -> None:
    """Creates what the paths refer to in `folder`: files of every kind, a small model, a run with a checkpoint.

    `folder` must be the current working directory.
    """
    import torch

    from tests.training import run_helpers
    from tui_llm.llm.model import checkpoint
    from tui_llm.llm.model.model import GPT
    from tui_llm.llm.model.shape import GPTConfig
    from tui_llm.llm.tokens import tokenizer, vocabulary_folder
    from tui_llm.training.plan import ladder

    there = folder / "there"
    (there / "empty").mkdir(parents=True)
    (there / "file.txt").write_text("a line of text\n" * 20)
    (there / "noise").write_bytes(bytes(range(256)) * 4)
    (there / "loop").symlink_to("loop")
    (there / "dangling").symlink_to("nothing")
    (folder / "text.txt").write_text(run_helpers.words(400))
    vocabulary = tokenizer.byte_level()
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocabulary=vocabulary.size, context=32, layers=1, heads=2, width=16))
    checkpoint.save(model, folder / "model", end_of_text=vocabulary.end_of_text)
    vocabulary_folder.save_folder(vocabulary, folder / "model")
    assert run_helpers.work(run_helpers.make("r", folder / "text.txt", steps=8)) == 0
    ladder.keep(ladder.Ladder("up", (str(folder / "text.txt"),), "toy", "steps", 20.0))


def state(folder: Path) -> dict[str, tuple[int, ...]]:
    """Returns a fingerprint of the files, to check that nothing was written to them."""
    found = {}
    for top in (folder / "there", folder / "model", folder / "text.txt"):
        for path in (top, *sorted(top.rglob("*"))):
            of = path.lstat()
            found[str(path)] = (of.st_ino, of.st_mode, 0 if path.is_dir() else of.st_mtime_ns, of.st_size)
    return found


class TookTooLong(BaseException):
    pass


def _alarm(*_: object) -> None:
    raise TookTooLong


def problem(arguments: tuple[str, ...], seconds: int = 60) -> str | None:
    """Returns what is wrong with the command line's response, or None."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    log = Path(os.environ["TUI_LLM_HOME"]) / "log" / "errors.log"
    before = signal.signal(signal.SIGALRM, _alarm)
    signal.alarm(seconds)
    stdin, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO())  # `guess` reads answers, `-` bytes
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(arguments)
    except SystemExit as left:
        code = left.code or 0  # type: ignore[assignment]
    except TookTooLong:
        return f"took over {seconds} s"
    except BaseException as error:
        return f"raised {error!r}"
    finally:
        sys.stdin = stdin
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    said, shown = (stream.buffer.getvalue().decode() for stream in (err, out))  # type: ignore[attr-defined]
    if log.exists():
        traceback = log.read_text()
        log.unlink()
        return f"was not expected: {said.strip()[:300]}\n{traceback[-1500:]}"
    if code == 1 and arguments[0] == "check":  # something in the model is broken
        code = 0
    if code not in (0, 2):
        return f"exit status {code}: {said[-300:]}"
    lines = said.splitlines()
    if code == 2 and (len(lines) != 1 or not lines[0].startswith("tui-llm: ")):
        return f"{len(lines)} lines on stderr: {said[-600:]}"
    if code == 0 and lines:
        return f"said on stderr: {said[-300:]}"
    if raw := {
        c for c in shown + said if (ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 or c in "\u202e\u2066\u200d"
    }:
        return f"raw characters reach the terminal: {raw}"
    return None
