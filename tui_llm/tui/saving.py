"""Where what is shown is saved: under a name of its own in the current folder, never over a file that is there."""

from __future__ import annotations

import os
from pathlib import Path

from tui_llm import paths


def free_path(stem: str, suffix: str, aside: str) -> Path:
    """`stem-N.suffix`, the first that is free, in the current folder or, where that can't be written, in the data folder's
    `aside`."""
    try:
        here = Path.cwd()
    except OSError:  # it was deleted
        here = Path("/nowhere")
    folder = here if os.access(here, os.W_OK) else paths.data_dir() / aside
    number = 1
    while (path := folder / f"{stem}-{number}.{suffix}").exists():
        number += 1
    return path
