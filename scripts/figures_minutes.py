"""Compares `tui-llm train --minutes M` with every fixed preset that a CPU can train, given the same time, on two corpora.

    python scripts/figures_minutes.py [--minutes 1] [--corpus NAME_OR_FILE …] [--only NAME …] [--keep FOLDER] [--json]

Each corpus is split first: the last 5 % are held out, and no run sees them. Every run is a command of its own, timed from its
start to its end, measuring included; then `tui-llm evaluate` gives its bits per byte on the held-out text, which models of
different vocabularies can be compared by. Presets with random weights are compared with `--minutes M`, the preset
`shakespeare`, which begins with nano's weights, with `--minutes M --from nano`.

Exit status 1: the budget's model was not the best, or its run ended more than 5 % early or late.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

HELD_OUT, MOST = 0.05, 60_000  # share of the bytes, and bytes at most
BOUND = 0.05  # of the time
CORPORA = ("tinyshakespeare", "python-reference")
RUNS = {
    "budget": ([], ""),
    "toy": (["--preset", "toy"], "budget"),
    "small": (["--preset", "small"], "budget"),
    "nano": (["--preset", "nano"], "budget"),
    "budget-from-nano": (["--from", "nano"], ""),
    "shakespeare": (["--preset", "shakespeare"], "budget-from-nano"),
}
"""Name → options, and the budget's run that it is compared with; none for a budget's own."""


@dataclass(frozen=True, slots=True)
class Row:
    """A run's time in seconds from the command to its end, its model, and its loss on the held-out text."""

    corpus: str
    name: str
    seconds: float
    model: str
    steps: int
    bits_per_byte: float


def split(corpus: str, folder: Path) -> tuple[Path, Path]:
    """Writes the text to train on and the held-out text of a corpus; returns both."""
    from tui_llm.llm.data import corpora

    text = b"\n".join(file.read_bytes() for file in corpora.files([corpora.place(corpus)]))
    cut = text.find(b"\n", round(len(text) * (1 - HELD_OUT))) + 1
    stem = Path(corpus).stem
    train, held_out = folder / f"{stem}.txt", folder / f"{stem}-held-out.txt"
    train.write_bytes(text[:cut])
    held_out.write_bytes(text[cut : text.rfind(b"\n", cut, cut + MOST) + 1])
    return train, held_out


def command(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "tui_llm", *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"tui-llm {' '.join(arguments)} ended with status {done.returncode}")
    return done.stdout


def warm_up(train: Path) -> None:
    """Takes three steps, so that no timed run has to compile the training step or to read torch from the disk."""
    from tui_llm.training.run.run import free_name

    name = free_name("warm-up", "toy")
    command("train", str(train), "--preset", "toy", "--steps", "3", "--run", name, "--device", "cpu", "--json")


def measure(corpus: str, train: Path, held_out: Path, name: str, minutes: float) -> Row:
    from tui_llm.training.run.run import find

    run = f"{train.stem}-{name}"
    began = time.monotonic()
    try:
        command(
            "train", str(train), *RUNS[name][0], "--minutes", f"{minutes:g}", "--run", run, "--device", "cpu", "--json"
        )
    except SystemExit:
        if not RUNS[name][1]:
            raise
        return Row(corpus, name, time.monotonic() - began, "refused", 0, math.inf)  # too large for the time
    seconds = time.monotonic() - began
    found = json.loads(command("evaluate", str(held_out), "--model", f"run:{run}", "--device", "cpu", "--json"))
    s = find(run).config().settings
    shape = f"{s.layers} × {s.width}, {s.tokenizer}"
    return Row(corpus, name, seconds, shape, s.steps, found["bits_per_byte"])


def verdicts(rows: list[Row], minutes: float) -> list[tuple[bool, str]]:
    """What was met, and in words."""
    found = []
    for row in rows:
        if RUNS[row.name][1]:
            continue
        off = row.seconds / (60 * minutes) - 1
        found.append((abs(off) <= BOUND, f"{row.corpus}, {row.name}: ended at {100 * off:+.1f} % of the time"))
        for other in rows:
            if other.corpus == row.corpus and RUNS[other.name][1] == row.name:
                gain = other.bits_per_byte - row.bits_per_byte
                found.append(
                    (gain > 0, f"{row.corpus}, {row.name}: {gain:+.3f} bits per byte better than {other.name}")
                )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--corpus", nargs="+", default=CORPORA)
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), metavar="NAME")
    parser.add_argument("--keep", type=Path, help="the folder of the runs (default: a temporary one)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep.resolve() if options.keep else Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["TUI_LLM_HOME"] = str(folder)
        rows = []
        for corpus in options.corpus:
            train, held_out = split(corpus, folder)
            warm_up(train)
            for name in options.only:
                row = measure(corpus, train, held_out, name, options.minutes)
                rows.append(row)
                print(f"{row.corpus:18} {row.name:22} {row.seconds:6.1f} s  {row.model:14} {row.steps:6,} steps  {row.bits_per_byte:.3f} bits per byte",
                      file=sys.stderr, flush=True)  # fmt: skip
    made = verdicts(rows, options.minutes)
    for met, words in made:
        print(f"{'met' if met else 'not met':8}{words}", file=sys.stderr)
    if options.json:
        json.dump({"minutes": options.minutes, "rows": [asdict(row) | {"bits_per_byte": row.bits_per_byte if row.steps else None} for row in rows],
                   "verdicts": [{"met": met, "words": words} for met, words in made]}, sys.stdout, indent=1)  # fmt: skip
    return 0 if all(met for met, _ in made) else 1


if __name__ == "__main__":
    raise SystemExit(main())
