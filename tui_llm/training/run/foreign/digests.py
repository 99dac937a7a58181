"""Which checkpoints have the same weights, byte for byte.

Files of different sizes differ. Of files of one size, a few blocks are compared first; only those that agree in them are read
as a whole. A digest is kept as long as the file's inode, size and time stay the same.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tui_llm.common.foreign_files import open_regular
from tui_llm.training.run.foreign.step_folders import StepFolder

BLOCK, PLACES = 1 << 16, 16  # bytes that are compared first, and at how many places of a file
_READ = 1 << 22
WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt")
_OTHERS = ("optimizer", "scheduler", "rng_state", "training_args", "scaler", "tokenizer", "random_states", "optim_")
"""How files begin that are no weights: they differ between checkpoints of the same model."""

Digests = dict[str, Any]
"""Of a file, by its inode, size and time: its SHA-256, as JSON."""


def weight_files(checkpoint: Path) -> tuple[Path, ...]:
    """The files with the weights of a model folder or file, by name."""
    if not checkpoint.is_dir():
        return (checkpoint,)
    try:
        found = [path for path in checkpoint.iterdir() if path.suffix in WEIGHTS and path.is_file()]
    except OSError:
        return ()
    named = sorted(path for path in found if not path.name.startswith(_OTHERS))
    tensors = [path for path in named if path.suffix == ".safetensors"]
    return tuple(tensors or named)  # both formats side by side: the one that is opened


def mark_of(path: Path) -> str:
    """Changes when the file does."""
    found = path.stat()
    return f"{found.st_dev}-{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"


def same_weights(
    steps: Iterable[StepFolder], known: Digests, say: Callable[[str], object] = lambda text: None
) -> list[tuple[int, ...]]:
    """Groups of two or more steps whose weights are the same files' contents. Adds to `known` what had to be read.

    A checkpoint that can't be read is left out. `say` gets progress.
    """
    groups: dict[tuple[str, ...], list[tuple[int, tuple[Path, ...]]]] = {}
    for one in steps:
        files = weight_files(one.path)
        try:
            sizes = tuple(f"{path.name} {path.stat().st_size}" for path in files)
        except OSError:
            continue
        if files:
            groups.setdefault(sizes, []).append((one.step, files))
    for digest in (_sampled, lambda path: _whole(path, known, say)):
        finer: dict[tuple[str, ...], list[tuple[int, tuple[Path, ...]]]] = {}
        for key, group in groups.items():
            for step, files in group if len(group) > 1 else ():
                try:
                    finer.setdefault((*key, *map(digest, files)), []).append((step, files))
                except OSError:
                    continue
        groups = finer
    return sorted(tuple(step for step, _ in group) for group in groups.values() if len(group) > 1)


def _sampled(path: Path) -> str:
    found = hashlib.sha256()
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        for place in range(PLACES):
            file.seek(max(0, size - BLOCK) * place // (PLACES - 1))
            found.update(file.read(BLOCK))
    return found.hexdigest()


def _whole(path: Path, known: Digests, say: Callable[[str], object]) -> str:
    mark = mark_of(path)
    if not isinstance(known.get(mark), str):
        say(f"comparing {path.parent.name}/{path.name}")
        found = hashlib.sha256()
        with open_regular(path) as file:
            while block := file.read(_READ):
                found.update(block)
        known[mark] = found.hexdigest()
    return str(known[mark])


def same_text(group: tuple[int, ...]) -> str:
    """`steps 200 and 300 have the same weights, byte for byte`."""
    *first, last = (f"{step:,}" for step in group)
    return f"steps {', '.join(first)} and {last} have the same weights, byte for byte"
