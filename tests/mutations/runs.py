"""Mutated run folders: listed, shown, exported, opened as models, resumed."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from tests.mutations import changes, forked
from tests.mutations.case import Case

NAME = "base"
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
    shutil.copytree(run, run.with_name("second"))


def make(draw: random.Random, home: Path, work: Path) -> Case:
    """Creates a case. `home` is the case's own, with the run in it."""
    run = home / "runs" / NAME
    try:
        what = _change(draw, run)
        if draw.random() < 0.15:
            what += ", " + _change(draw, run)
    except (
        ValueError,
        KeyError,
        TypeError,
        OSError,
        AttributeError,
        IndexError,
    ) as error:  # damaged by an earlier mutation
        what = f"nothing more ({type(error).__name__})"
    words = draw.choice((
        ("runs", "--json"), ("runs", "--json"), ("probes", NAME, "--json"), ("samples", NAME, "--json"), ("logits", "The cat", "--model", f"run:{NAME}", "--json", "--top", "5"), ("models", "--json"),
        ("export", NAME, str(work / "out"), "--json"), ("train", "--resume", "--run", NAME, "--no-start", "--json"), ("runs", "compare", NAME, "second", "--json"),
        ("probes", NAME, "--at", "5", "--json"), ("export", NAME, str(work / "logs"), "--tensorboard", "--json"),
    ))  # fmt: skip
    return Case(f"run {what} → {' '.join(words[:2])}", words, words)


def _change(draw: random.Random, run: Path) -> str:
    files = sorted(path for path in run.rglob("*") if path.is_file() and not path.is_symlink() and path.stat().st_size)
    path = draw.choice(files)
    where = path.relative_to(run)
    act = draw.choice(("bytes", "json", "json", "kind", "kind", "line", "line", "missing", "checkpoint"))
    if act == "checkpoint":
        folders = sorted(run.glob("checkpoint-*"))
        if not folders:
            return "no checkpoint is left"
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
        return f"checkpoint {how}"
    if act == "kind":
        return f"{where} is {changes.other_kind(draw, path)}"
    if act == "missing":
        path.unlink()
        return f"no {where}"
    if act == "line" and path.suffix == ".jsonl":
        lines = path.read_bytes().splitlines(keepends=True)
        lines.insert(draw.randrange(len(lines) + 1), draw.choice(LINES))
        if draw.random() < 0.3:
            draw.shuffle(lines)
        path.write_bytes(b"".join(lines))
        return f"{where} line"
    if act == "json" and path.suffix == ".json":
        changes.change_json(draw, path, draw.choice((1, 2)))
        return f"{where} json"
    if path.suffix == ".safetensors" and draw.random() < 0.5:
        return f"{where} {changes.change_weights(draw, path)}"
    changes.change_bytes(draw, path)
    return f"{where} bytes"
