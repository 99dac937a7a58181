"""Train the larger model of the box, `story`, from raw text to its folder, and evaluate it beside nano on held-out text.

    python scripts/train_story.py CORPUS WORK [--first STEPS] [--second STEPS] [--device D]
    python scripts/train_story.py CORPUS WORK --grow [--second STEPS]
    python scripts/train_story.py CORPUS --pack CORPUS.tar.xz

CORPUS is as for `scripts/train_nano.py`, and so are what is held out and the two stages: all text at a constant learning
rate, then children's and simple text, decayed to nothing. WORK receives all output, and the folder `story` at the end.
After an interruption, run it again: finished stages are skipped, and training resumes from its checkpoint.

Two stages from random weights are for a GPU. `--grow`, for a CPU, begins with nano, given twice the layers and twice the
context by `grow_model.py`, and trains it in one stage on all text, with simple text repeated.

For a machine that can receive small files only, `--pack` makes one archive of the text, which CORPUS may name there; the
model's weights are then also written in pieces of at most 15 MiB, `story.partNN`, which `cat` joins again.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import train_nano
from train_nano import SIMPLE, split, tui_llm

SHAPE = "--preset nano --layers 6 --heads 5 --width 320 --block-size 512 --batch-size 8"
GROWN = "--preset nano --block-size 512 --batch-size 8 --optimizer muon --learning-rate 3e-3 --schedule wsd --decay-fraction 0.8 --min-learning-rate 0"
COMMON = f"{SHAPE} --optimizer muon --learning-rate 5e-3 --schedule wsd"
FOLDERS = ("simple", "children", "fiction")
SCRIPTS = Path(__file__).resolve().parent
NANO = SCRIPTS.parent / "models" / "nano"
PIECE = 15 * 2**20  # bytes


def pack(corpus: Path, archive: Path) -> None:
    """Writes the text of the corpus into one compressed archive."""
    with tarfile.open(archive, "x:xz") as packed:
        for path in sorted(path for folder in FOLDERS for path in (corpus / folder).glob("*.txt")):
            packed.add(path, arcname=str(path.relative_to(corpus)))
    print(f"{archive}: {archive.stat().st_size / 1e6:.1f} MB")


def unpack(archive: Path, work: Path) -> Path:
    folder = work / "corpus"
    if not folder.exists():
        part = work / "corpus.part"
        shutil.rmtree(part, ignore_errors=True)
        with tarfile.open(archive) as packed:
            packed.extractall(part, filter="data")
        part.rename(folder)
    return folder


def in_pieces(weights: Path, folder: Path) -> None:
    """Copies a file into pieces of at most `PIECE` bytes."""
    data = weights.read_bytes()
    for number, start in enumerate(range(0, len(data), PIECE)):
        (folder / f"story.part{number:02}").write_bytes(data[start : start + PIECE])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("work", type=Path, nargs="?")
    parser.add_argument("--first", type=int, default=4000, help="steps on everything, at one learning rate")
    parser.add_argument("--second", type=int, default=5600, help="steps on simple and children's text, down to nothing")
    parser.add_argument("--grow", action="store_true", help="begin with nano, grown; only --second counts")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--pack", type=Path, metavar="ARCHIVE", help="only make an archive of the text")
    chosen = parser.parse_args()
    if chosen.pack is not None:
        pack(chosen.corpus, chosen.pack)
        return
    if chosen.work is None:
        sys.exit("name a folder for the output: train_story.py CORPUS WORK")
    work = chosen.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    packed = chosen.corpus.is_file()
    if not (work / "text").exists():
        split(unpack(chosen.corpus, work) if packed else chosen.corpus, work)
    if chosen.grow:
        from_nano(work, chosen)
    else:
        from_random_weights(work, chosen)
    shutil.rmtree(work / "story", ignore_errors=True)
    tui_llm(work, "export story-2 ../story --dtype bfloat16")
    if packed:
        in_pieces(work / "story" / "model.safetensors", work)
    texts = " ".join(f"../held-out/{path.name}" for path in sorted((work / "held-out").glob("*.txt")))
    tui_llm(work, f"evaluate {texts} --model ../story")
    tui_llm(work, f"evaluate {texts} --model nano")


def from_nano(work: Path, chosen: argparse.Namespace) -> None:
    grown = work / "grown"
    if not grown.exists():
        subprocess.run([sys.executable, str(SCRIPTS / "grow_model.py"), str(NANO), str(grown)], check=True)
    options = f"{GROWN} --device {chosen.device} --from {grown} --steps {chosen.second}"
    train_nano.train(work, "story-2", f"{SIMPLE} {SIMPLE} {SIMPLE} children fiction {options}")


def from_random_weights(work: Path, chosen: argparse.Namespace) -> None:
    if not (work / "vocabulary").exists():
        tui_llm(work, f"vocabulary train {SIMPLE} children fiction --size 8192 --out ../vocabulary")
    options = f"{COMMON} --device {chosen.device}"
    vocabulary = work / "vocabulary"
    train_nano.train(
        work,
        "story-1",
        f"simple children fiction {options} --tokenizer {vocabulary} --steps {chosen.first} --decay-fraction 0",
    )
    train_nano.train(
        work,
        "story-2",
        f"{SIMPLE} children {options} --from story-1 --steps {chosen.second} --decay-fraction 0.9 --min-learning-rate 0",
    )


if __name__ == "__main__":
    main()
