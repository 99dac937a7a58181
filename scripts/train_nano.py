"""Train the model that ships, from raw text to its folder, and evaluate it on held-out text.

python scripts/train_nano.py CORPUS WORK [--first STEPS] [--second STEPS]

CORPUS contains the folders `simple`, `children` and `fiction` of text files; WORK receives all output, and the folder
`nano` at the end. After an interruption, run it again: finished stages are skipped, and training resumes from its
checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

# Held out: these books, and the last fortieth of the stories in every file of `simple`.
BOOKS = (
    "children/abbie-farwell-brown__the-christmas-angel.txt",
    "children/hugh-lofting__the-story-of-doctor-dolittle.txt",
    "fiction/robert-louis-stevenson__the-body-snatcher.txt",
    "fiction/stephen-crane__the-open-boat.txt",
    "fiction/w-w-jacobs__the-monkeys-paw.txt",
)
STORIES = 40
SEPARATOR = "<|endoftext|>"
# Simple text is repeated three times for training the tokenizer and in the second training run.
SIMPLE = "simple simple simple"
COMMON = "--preset nano --optimizer muon --learning-rate 5e-3 --schedule wsd"


def split(corpus: Path, work: Path) -> None:
    """`hold_out`, of which an interruption leaves nothing that a later call would take for the whole text."""
    part = work / "split.part"
    shutil.rmtree(part, ignore_errors=True)
    hold_out(corpus, part)
    shutil.rmtree(work / "held-out", ignore_errors=True)
    (part / "held-out").rename(work / "held-out")
    (part / "text").rename(work / "text")


def hold_out(corpus: Path, work: Path) -> None:
    """Splits the corpus into WORK/text for training and WORK/held-out."""
    for folder in ("simple", "children", "fiction"):
        for path in sorted((corpus / folder).glob("*.txt")):
            text, name = path.read_text(encoding="utf-8"), f"{folder}/{path.name}"
            if name in BOOKS:
                _write(work / "held-out" / path.name, text)
                continue
            if folder == "simple":
                stories = text.split(SEPARATOR)
                end = len(stories) - max(1, len(stories) // STORIES)
                _write(work / "held-out" / f"stories-{path.name}", SEPARATOR.join(stories[end:]))
                text = SEPARATOR.join(stories[:end])
            _write(work / "text" / name, text)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def tui_llm(work: Path, command: str) -> None:
    print("+ tui-llm", command, flush=True)
    place = {**os.environ, "TUI_LLM_HOME": str(work / "home")}
    subprocess.run([sys.executable, "-m", "tui_llm", *command.split()], check=True, cwd=work / "text", env=place)


def train(work: Path, run: str, options: str) -> None:
    """Starts a training run, or resumes it."""
    started = (work / "home" / "runs" / run).exists()
    tui_llm(work, f"train --run {run} {'--resume' if started else options}")
    state = json.loads((work / "home" / "runs" / run / "status.json").read_text(encoding="utf-8"))["state"]
    if state != "finished":
        raise SystemExit(f"{run} is {state}: run this again to go on with it")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--first", type=int, default=6000, help="steps on everything, at one learning rate")
    parser.add_argument("--second", type=int, default=4000, help="steps on simple and children's text, down to nothing")
    chosen = parser.parse_args()
    work = chosen.work.resolve()
    if not (work / "text").exists():
        split(chosen.corpus, work)
    if not (work / "vocabulary").exists():
        tui_llm(work, f"vocabulary train {SIMPLE} children fiction --size 4096 --out ../vocabulary")
    train(
        work,
        "nano-1",
        f"simple children fiction {COMMON} --tokenizer {work / 'vocabulary'} --steps {chosen.first} --decay-fraction 0",
    )
    train(
        work,
        "nano-2",
        f"{SIMPLE} children {COMMON} --from nano-1 --steps {chosen.second} --decay-fraction 0.9 --min-learning-rate 0",
    )
    shutil.rmtree(work / "nano", ignore_errors=True)
    tui_llm(work, "export nano-2 ../nano --dtype bfloat16")
    texts = " ".join(f"../held-out/{path.name}" for path in sorted((work / "held-out").glob("*.txt")))
    tui_llm(work, f"evaluate {texts} --model ../nano")


if __name__ == "__main__":
    main()
