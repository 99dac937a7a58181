"""Hostile arguments for every option of every command, found by walking the parser, and the invariants of each call.

`scripts/hostile_cli.py` tries all of them; `tests/test_hostile_arguments.py` tries a seeded sample.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import huggingface_hub.constants
import textual_serve.server

from tests import HANG
from tui_llm.cli import main
from tui_llm.commands import ladder as ladder_command
from tui_llm.commands.shared.command import parsers
from tui_llm.commands.shared.parser import build_parser
from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.llm.hub import pull
from tui_llm.llm.model import kernels, machine, tuned_lens_file
from tui_llm.training.plan import climb, processes, subprocesses
from tui_llm.training.run.settings import PREFERENCE, PRETRAINING, REWARD, SETTINGS
from tui_llm.tui import terminal

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

# Values of the arguments that are not under test. A command that changes, renames or deletes a run has GONE, which each call finds anew.
NOTES = (
    "did you mean",  # a target's space may be missing (`shared/spaces.py`)
    " tokens, its context",  # the model does not see the beginning (`inside.note_context`)
    "is fed as plain text, not as the special token",  # in a message (`chat`)
)
"""Of a command that succeeds, on standard error."""

GONE, PULLED, KEPT = "gone", "own/model", ("r", "s", "gone")
PLAIN = {
    "TEXT": "a b", "PROMPT": "a b", "TOKEN=LOGIT": "a=1", "TOKEN": "#5", "RUN": "r", "OLD": GONE, "CORPUS": "text.txt", "FILE": "model",
    "NAME": PULLED, "MODEL": "model", "SHELL": "bash", "PART": "decode", "MESSAGE": "a b", "CLEAN": "a b", "CHANGED": "c d",
    "A": "model", "B": "model:int8", "PATH": "checkpoints",
}  # fmt: skip
OWN = {
    ("evaluate", "TEXT"): "text.txt", ("fit-lens", "TEXT"): "text.txt", ("sft", "FILE"): "pairs.tsv",
    **{(command, "RUN"): GONE for command in ("runs delete", "control", "stop", "batch")},
}  # fmt: skip
REQUIRED = {
    "--target": " b",
    "--letter": "a",
    "--score": "full-stop",
    "--step": "4",
    "--chosen": "b",
    "--rejected": "c",
}
NEW = {"--out": "out/", "--keep": "out/", "FOLDER": "out/", "NEW": "other-"}  # each call gets a new path or name
Options = dict[str, str | None]
MORE: dict[str, Options] = {  # options that keep a call short, or without which the command does nothing
    "train": {"--no-start": None, "--preset": "toy"}, "ladder": {"--steps": "20"}, "find-lr": {"--seconds": "2"},
    "fit-lens": {"--steps": "1"}, "vocabulary train": {"--size": "260"}, "vocabulary add": {"--name": "v", "--force": None}, "ablate": {"--heads": "0.0"},
    "steer": {"--toward": "a", "--away": "b", "--layer": "0", "--max-tokens": "2"},
    "learn": {"--steps": "1"}, "sft": {"--steps": "1"}, "prefer": {"--steps": "1"},
    "reward": {"--steps": "1", "--samples": "2", "--tokens": "2"}, "control": {"--pin": "a=> b"},
    **{command: {"--max-tokens": "2"} for command in ("generate", "compare-models", "versus", "chat")},
    **{command: {"--yes": None} for command in ("runs delete", "models delete")}, "bench": {"--rounds": "1", "--tokens": "2"},
}  # fmt: skip
# What an option excludes, and what it needs.
ONLY_WITH: dict[tuple[str, str], tuple[tuple[str, ...], tuple[str, ...]]] = {
    ("*", "--file"): (("TEXT", "PROMPT"), ()),
    ("ablate", "--rank"): (("--heads",), ()),
    ("bench", "--preset"): (("--model",), ()),
    ("ladder", "--by"): ((), ("--out", "out/chart.csv", "--force")),
    **{("ladder", name): (("CORPUS", "--steps"), ("--name", "up")) for name in ("--show", "--delete")},
    ("ladder", "--list"): (("CORPUS", "--steps"), ()),
    ("ladder", "--yes"): (("CORPUS", "--steps"), ("--delete",)),
    **{("ladder", name): (("--steps",), ()) for name in ("--minutes", "--flops")},
    ("serve", "--most-tabs"): ((), ("--lesson", "tokens")),
    ("steer", "--load"): (("--toward", "--away", "--layer"), ()),
    **{("tour", name): (("--model",), ()) for name in ("--check", "--names", "--json")},
    ("train", "--resume"): (("--run",), ("--run", GONE)),
    ("train", "--detach"): (("--no-start",), ()),
    ("train", "--instruct"): (("CORPUS", "--preset", "--no-start"), ("--from", "model", "--steps", "1", "pairs.tsv")),
    ("train", "--preference"): (("CORPUS",), ("--from", "model", "preferences.jsonl")),
    ("train", "--reward"): (("CORPUS",), ("--from", "model")),
    ("train", "--branch"): (("CORPUS", "--preset"), ("--step", "4")),
    ("train", "--step"): (("CORPUS", "--preset"), ("--branch", "r")),
    ("train", "--exclude"): (("CORPUS", "--preset"), ("--branch", "r", "--step", "4")),
}
OBJECTIVES = {
    PREFERENCE: ("--from", "model", "--preference", "preferences.jsonl"),
    REWARD: ("--from", "model", "--reward", "full-stop"),
}
for _name, _setting in SETTINGS.items():
    if _setting.objectives and PRETRAINING not in _setting.objectives:
        ONLY_WITH.setdefault(
            ("train", f"--{_name.replace('_', '-')}"), (("CORPUS",), OBJECTIVES[_setting.objectives[0]])
        )
MEASURES = ("find_lr", "budget", "run_time", "step_time")  # modules of training/worker that take a minute each
# Values that do what they say: the calls after them look at that run or model, and an empty folder is written into.
MEANT = {
    ("runs rename", "OLD", "r"), ("runs delete", "RUN", "r"), ("control", "RUN", "r"), ("fit-lens", "--model", "model"),
    ("*", "FOLDER", "there/empty"), ("*", "--keep", "there/empty"), ("vocabulary train", "--out", "there/empty"),
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
        for action in options_of(parser):
            option = name_of(action)
            if option == "--version":
                continue
            flag = action.option_strings and action.nargs == 0
            values = [None] if flag else list(VALUES) if each is None else draw.sample(VALUES, each)
            for value in values:
                if any(one in MEANT for one in ((command, option, value), ("*", option, value))):
                    continue
                most = FOREVER.get((command, option))
                if most and value is not None and value.isdecimal() and len(value) < 20 and int(value) > most:
                    continue
                yield Case(command, option, value, _arguments(command, parser, action, value))


def plain(command: str, parser: argparse.ArgumentParser) -> tuple[str, ...]:
    """The call of a command into which a hostile value is put."""
    return _arguments(command, parser)


_count = iter(range(1 << 40))


def _arguments(
    command: str, parser: argparse.ArgumentParser, tried: argparse.Action | None = None, value: str | None = None
) -> tuple[str, ...]:
    option = name_of(tried) if tried else ""
    without, more = ONLY_WITH.get((command, option)) or ONLY_WITH.get(("*", option), ((), ()))
    words, places = command.split(), []
    for action in options_of(parser):
        name = name_of(action)
        if action is tried:
            given = [] if value is None else [value] * (action.nargs if isinstance(action.nargs, int) else 1)
        elif name in without:
            continue
        elif name in NEW and (action.required or not action.option_strings):
            given = [f"{NEW[name]}{next(_count)}"]
        elif not action.option_strings:
            one = OWN.get((command, name)) or PLAIN.get(name)
            if one is None:
                assert action.nargs in ("*", "?"), f"no plain value of {command} {name}"
                continue
            given = [one, "s"] if command == "runs compare" else [one]
        elif action.required:
            given = [REQUIRED[name]]
        elif name == "--model":
            given = ["fitted" if command == "fit-lens" else "model"]
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
    for name, of in MORE.get(command, {}).items():
        if name != option and name not in without:
            words += [name] if of is None else [name, of]
    return (*words, *more, *(["--", *places] if places else []))


# ── running the cases ─────────────────────────────────────────────────────────────────────────────────────────


def furnish(folder: Path) -> None:
    """Creates what the paths refer to in `folder`: files of every kind, a small model, a run with a checkpoint.

    `folder` must be the current working directory.
    """
    import torch

    from tests.training import run_helpers
    from tui_llm.llm.adapters.chat import INSTRUCT
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
    (folder / "text.txt").write_text(run_helpers.words(800))
    vocabulary = tokenizer.byte_level()
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocabulary=vocabulary.size, context=32, layers=1, heads=2, width=16))
    checkpoint.save(model, folder / "model", end_of_text=vocabulary.end_of_text)
    vocabulary_folder.save_folder(vocabulary, folder / "model")
    (folder / "model" / "chat_template.jinja").write_text(INSTRUCT)
    shutil.copytree(folder / "model", folder / "fitted")
    for step in (1, 2):
        shutil.copytree(folder / "model", folder / "checkpoints" / f"checkpoint-{step}")
    (folder / "pairs.tsv").write_text("a b\tc d\n")
    pair = json.dumps({"prompt": "a b", "chosen": " c", "rejected": " d"})
    (folder / "preferences.jsonl").write_text(f"{pair}\n" * 8)
    run = run_helpers.make("r", folder / "text.txt", steps=8)
    assert run_helpers.work(run) == 0
    shutil.copytree(run.path, paths.runs_dir() / "s")
    ladder.keep(ladder.Ladder("up", (str(folder / "text.txt"),), "toy", "steps", 20.0))


def _tidy(arguments: tuple[str, ...]) -> None:
    """Deletes the runs that calls have made, and makes what this one may change or delete."""
    for run in paths.runs_dir().iterdir():
        if run.name not in KEPT:
            shutil.rmtree(run) if run.is_dir() else run.unlink()
    Path("fitted", tuned_lens_file.NAME).unlink(missing_ok=True)
    if GONE in arguments:
        shutil.rmtree(paths.runs_dir() / GONE, ignore_errors=True)
        shutil.copytree(paths.runs_dir() / "r", paths.runs_dir() / GONE)
    if PULLED in arguments and not (folder := paths.pulled_model(PULLED)).exists():
        shutil.copytree("model", folder)
        (folder / pull.ORIGIN).write_text(json.dumps({"repository": PULLED}))


def state(folder: Path) -> dict[str, tuple[int, ...]]:
    """Returns a fingerprint of the files, to check that nothing was written to them."""
    found = {}
    for top in (folder / "there", folder / "model", folder / "text.txt"):
        for path in (top, *sorted(top.rglob("*"))):
            of = path.lstat()
            found[str(path)] = (of.st_ino, of.st_mode, 0 if path.is_dir() else of.st_mtime_ns, of.st_size)
    return found


@contextlib.contextmanager
def shortened() -> Iterator[None]:
    """Replaces what takes a minute or does not end: measurements are refused or invented, a worker ends at once, no ladder is
    climbed, and a server and the app return once they are ready. All checks of the arguments come before. Nothing is downloaded."""
    started = subprocesses.start

    def start(module: str, *rest: Any, **named: Any) -> Any:
        if module in MEASURES:
            raise UserError("not measured in this test")
        return started(module, *rest, **named)

    with contextlib.ExitStack() as stack:
        for owner, name, replacement in (
            (subprocesses, "start", start),
            (
                machine,
                "measure",
                lambda place: machine.Machine(**machine.key(place), fp32=1e12, bf16=None, read=1e10, copy=1e10),
            ),
            (
                kernels,
                "measure",
                lambda: {
                    weights: {"kernel": "torch", "seconds": {"torch": [0.01, 0.1]}}
                    for weights in ("fp32", "half", "int8")
                },
            ),
            (processes, "start_worker", lambda *_: subprocess.Popen(["true"])),
            (climb, "detach", lambda _: None),
            (ladder_command, "_climb", lambda *_, **__: 0),
            (textual_serve.server.Server, "serve", lambda _: None),
            (terminal, "run_app", lambda *_, **__: 0),
            (huggingface_hub.constants, "HF_HUB_OFFLINE", True),
        ):
            stack.enter_context(patch.object(owner, name, replacement))
        yield


class TookTooLong(BaseException):
    pass


def _alarm(*_: object) -> None:
    raise TookTooLong


def problem(arguments: tuple[str, ...], *, works: bool = False) -> str | None:
    """Returns what is wrong with the command line's response, or None. With `works`, an error of one line is wrong too."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    log = Path(os.environ["TUI_LLM_HOME"]) / "log" / "errors.log"
    before = signal.signal(signal.SIGALRM, _alarm)
    signal.alarm(int(HANG))
    _tidy(arguments)
    stdin, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO())  # `guess` reads answers, `-` bytes
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), patch.dict(os.environ):
            code = main(arguments)
    except SystemExit as left:
        code = left.code or 0  # type: ignore[assignment]
    except TookTooLong:
        return f"took over {HANG:.0f} s"
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
    if code not in (0, 2) or (works and code):
        return f"exit status {code}: {said[-300:]}"
    lines = said.splitlines()
    if code == 2 and (len(lines) != 1 or not lines[0].startswith("tui-llm: ")):
        return f"{len(lines)} lines on stderr: {said[-600:]}"
    if code == 0 and not all(line.startswith("tui-llm: ") and any(note in line for note in NOTES) for line in lines):
        return f"said on stderr: {said[-300:]}"
    if raw := {
        c for c in shown + said if (ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 or c in "\u202e\u2066\u200d"
    }:
        return f"raw characters reach the terminal: {raw}"
    return None
