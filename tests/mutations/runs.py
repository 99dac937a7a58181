"""Mutated run folders: listed, shown, exported, opened as models, resumed by the worker (see worker.py)."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.mutations import changes, forked, worker
from tests.mutations.case import Case

NAME, SECOND = "base", "second"  # the run that is mutated, and the same one intact
LINES = (b"{}\n", b"[]\n", b"NaN\n", b'{"step": 1}\n', b'{"step": 1e999, "loss": NaN}\n', b'{"step": true, "loss": "x"}\n', b"\xff\xfe\n", b"\0" * 100 + b"\n", b"{" * 5000 + b"\n", b"\n" * 1000, b'{"step": -1, "loss": -Infinity, "lr": 1, "grad_norm": 1, "tokens_per_second": 1}\n', b"9" * 5000 + b"\n")  # fmt: skip


def make_bases(top: Path) -> None:
    """Creates `home/runs/base`: ten steps, with checkpoints, samples and a pinned prompt."""
    from tests.mutations.corpora import _main
    from tui_llm.training.run.run import find
    from tui_llm.training.worker import process

    words = ["train", str(top / "text.txt"), "--run", NAME, "--preset", "toy", "--steps", "10", "--block-size", "16", "--batch-size", "2", "--layers", "1", "--heads", "1", "--width", "16",
             "--tokenizer", str(top / "gpt2"), "--eval-every", "5", "--checkpoint-every", "5", "--pin", "The cat=> sat", "--device", "cpu", "--compile", "off", "--no-start", "--json"]  # fmt: skip
    assert _main(words) == 0
    run = find(NAME).path
    # in a child, because the worker installs signal handlers
    ending = forked.run(lambda: process.main([str(run)]))
    assert ending.code == 0, (ending, (run / "worker.log").read_text())
    _freeze(run)
    shutil.copytree(run, run.with_name(SECOND))


MEASURED = (
    "time",
    "monotonic",
    "tokens_per_second",
    "memory_bytes",
    "machine",
    "seconds",
)  # keys of what differs each time


def _freeze(run: Path) -> None:
    """Replaces what differs between two runs of the same text: so that a case's number and the seed determine its files."""

    def frozen(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: frozen(inner, name) for name, inner in value.items()}
        return 1000.0 if key in MEASURED and isinstance(value, int | float) else value

    for path in (run / "status.json", *run.glob("checkpoint-*/training.json")):
        path.write_text(json.dumps(frozen(json.loads(path.read_text())), indent=2))
    for path in run.glob("*.jsonl"):
        lines = [frozen(json.loads(line)) for line in path.read_text().splitlines()]
        for at, line in enumerate(lines):
            line.pop("machine", None)
            if "time" in line:
                line["time"] = 1_700_000_000.0 + at  # the step's end; curves read the differences
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "pid").write_text("1000000")


@dataclass(frozen=True, slots=True)
class Change:
    """`what` was changed: of which file, relative to the run; of `content` alone, so that a command that does not read it
    can't know."""

    what: str
    path: str = ""
    content: bool = False


# What each command reads of a run. A change of another file's content must not change the answer.
READ = {
    "runs": ("config.json", "status.json", "metrics.jsonl", "alarms.jsonl", "heads.jsonl", "pid", "lock", "checkpoint-"),
    "compare": ("config.json", "status.json", "metrics.jsonl", "pid", "lock", "checkpoint-"),
    "probes": ("config.json", "probes.jsonl", "heads.jsonl", "pins.json", "metrics.jsonl", "status.json"),
    "samples": ("config.json", "samples.jsonl"),
    "logits": ("config.json", "checkpoint-", "status.json"),
    "models": ("config.json", "checkpoint-", "status.json", "corpus.json", "metrics.jsonl"),
    "export": ("config.json", "checkpoint-", "status.json", "corpus.json", "metrics.jsonl", "samples.jsonl"),
    "tensorboard": ("config.json", "status.json", ".jsonl"),
    "train": ("config.json", "checkpoint-", "corpus.json", "pins.json", "status.json", "lock", "batch.json"),
    "worker": ("config.json", "checkpoint-", "corpus.json", "pins.json", "lock"),
}  # fmt: skip


def make(draw: random.Random, home: Path, work: Path) -> Case:
    """Creates a case. `home` is the case's own, with the run in it."""
    run = home / "runs" / NAME
    made: list[Change] = []
    try:
        made.append(_change(draw, run))
        if draw.random() < 0.15:
            made.append(_change(draw, run))
    except (
        ValueError,
        KeyError,
        TypeError,
        OSError,
        AttributeError,
        IndexError,
    ) as error:  # damaged by an earlier mutation
        made.append(Change(f"nothing more ({type(error).__name__})"))
    what = ", ".join(change.what for change in made)
    use, words = draw.choice((
        ("runs", ("runs", "--json")), ("runs", ("runs", "--json")), ("probes", ("probes", NAME, "--json")), ("samples", ("samples", NAME, "--json")),
        ("logits", ("logits", "The cat", "--model", f"run:{NAME}", "--json", "--top", "5")), ("models", ("models", "--json")),
        ("export", ("export", NAME, str(work / "out"), "--json")), ("train", ("train", "--resume", "--run", NAME, "--no-start", "--json")),
        ("compare", ("runs", "compare", NAME, SECOND, "--json")), ("probes", ("probes", NAME, "--at", "5", "--json")),
        ("tensorboard", ("export", NAME, str(work / "logs"), "--tensorboard", "--json")), ("worker", ("worker", "5")), ("worker", ("worker", "10")),
    ))  # fmt: skip
    same = all(change.content and not any(name in change.path for name in READ[use]) for change in made)
    name = f"run {what} → {' '.join(words[:2])}"
    if use != "worker":
        return Case(name, words, words, same=same, kept=KEPT.get(use))
    asked = any(change.path == "config.json" for change in made)  # another training is asked for
    check = None if asked else worker.as_before(home / "runs" / SECOND)
    return Case(name, words, words, worker.resumed(run, int(words[1])), same=same, check=check)


# Of an answer that names both runs, what is said about the intact one.
KEPT: dict[str, Callable[[Any], Any]] = {
    "runs": lambda answer: [one for one in answer["runs"] if one["name"] == SECOND],
    "models": lambda answer: [one for one in answer["models"] if one["name"] != NAME],
    "compare": lambda answer: [one for one in answer["runs"] if one["name"] == SECOND],
}


def _change(draw: random.Random, run: Path) -> Change:
    files = sorted(path for path in run.rglob("*") if path.is_file() and not path.is_symlink() and path.stat().st_size)
    path = draw.choice(files)
    where = str(path.relative_to(run))
    act = draw.choice(("bytes", "json", "json", "kind", "kind", "line", "line", "missing", "checkpoint"))
    if act == "checkpoint":
        folders = sorted(run.glob("checkpoint-*"))
        if not folders:
            return Change("no checkpoint is left")
        folder = draw.choice(folders)
        how = draw.choice(("renamed", "gone", "copied", "huge step", "fifo"))
        if how == "renamed":
            folder.rename(folder.with_name("checkpoint-" + draw.choice(("٣", "-1", "9" * 30, "5x", "007"))))
        elif how == "gone":
            shutil.rmtree(folder)
        elif how == "fifo":
            changes.other_kind(draw, folder, "fifo")
        else:
            shutil.copytree(
                folder, folder.with_name("checkpoint-999999999999" if how == "copied" else f"checkpoint-{10**18}")
            )
        return Change(f"checkpoint {how}", folder.name)
    if act == "kind":
        return Change(f"{where} is {changes.other_kind(draw, path)}", where)
    if act == "missing":
        path.unlink()
        return Change(f"no {where}", where)
    if act == "line" and path.suffix == ".jsonl":
        lines = path.read_bytes().splitlines(keepends=True)
        lines.insert(draw.randrange(len(lines) + 1), draw.choice(LINES))
        if draw.random() < 0.3:
            draw.shuffle(lines)
        path.write_bytes(b"".join(lines))
        return Change(f"{where} line", where, True)
    if act == "json" and path.suffix == ".json":
        changes.change_json(draw, path, draw.choice((1, 2)))
        return Change(f"{where} json", where, True)
    if path.suffix == ".safetensors" and draw.random() < 0.5:
        return Change(f"{where} {changes.change_weights(draw, path)}", where, True)
    changes.change_bytes(draw, path)
    return Change(f"{where} bytes", where, True)
