"""The checkpoints in a folder, by step: `checkpoint-500`, `step_1000`, revisions side by side, or single files.

A revision's name may say more than the step, as OLMo's `step1000-tokens4B`. In the Hugging Face Hub cache, a model's folder has
`refs/REVISION`, a file with the name of a folder in `snapshots/`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import read_foreign_text
from tui_llm.llm.formats import detect
from tui_llm.training.run.metrics import LARGEST_STEP

MOST = 4096  # checkpoints of a folder

_NAME = re.compile(
    r"(?:.*[-_.])?(?:global[-_]?step|step|checkpoint|ckpt|iteration|iter|model)[-_=]?(\d{1,15})(?:[-_.].*)?",
    re.IGNORECASE,
)
_COMMIT = re.compile(r"[0-9A-Za-z]{1,64}")
_REFS, _SNAPSHOTS = "refs", "snapshots"
SETTINGS = "config.json"


@dataclass(frozen=True, slots=True)
class StepFolder:
    """A checkpoint: its step, its name as the program chose it, and its model folder or file."""

    step: int
    name: str
    path: Path


def step_of(name: str) -> int | None:
    """The step in a checkpoint's name; None if there is none."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found and int(found[1]) < LARGEST_STEP else None


def step_folders(top: Path) -> tuple[StepFolder, ...]:
    """The checkpoints in `top`, by step. Of two with the same step, the first by name. Empty if there are none.

    A folder counts if it has a config.json or a checkpoint file that can be opened; a file, if it can be opened.
    """
    found: dict[int, StepFolder] = {}
    for name, path in sorted([*_children(top), *_revisions(top)]):
        step = step_of(name)
        if step is not None and step not in found and _is_model(path):
            found[step] = StepFolder(step, name, path)
        if len(found) >= MOST:
            break
    return tuple(found[step] for step in sorted(found))


def _children(top: Path) -> list[tuple[str, Path]]:
    try:
        return [(path.name if path.is_dir() else path.stem, path) for path in top.iterdir()]
    except OSError:
        return []


def _revisions(top: Path) -> list[tuple[str, Path]]:
    """Of a model in the Hub cache: the revisions that have been downloaded."""
    found = []
    for ref in _files_below(top / _REFS):
        try:
            commit = read_foreign_text(ref, 1000).strip()
        except UserError:
            continue
        if _COMMIT.fullmatch(commit) and (folder := top / _SNAPSHOTS / commit).is_dir():
            found.append((ref.name, folder))
    return found


def _files_below(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_file()]
    except OSError:
        return []


def _is_model(path: Path) -> bool:
    try:
        if path.is_dir():
            return (path / SETTINGS).is_file() or detect.checkpoint_in(path) is not None
        return detect.opens_by_name(path) and (path.suffix != ".bin" or detect.is_model(path))
    except (UserError, OSError):
        return False
