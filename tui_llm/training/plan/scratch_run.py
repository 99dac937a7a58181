"""A run directory for trying a run's settings, deleted afterwards; `runs` does not list it. Does not import torch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tui_llm.common import files, paths, storage
from tui_llm.common.errors import UserError
from tui_llm.facts.pin import Pin
from tui_llm.training.plan import launch, processes
from tui_llm.training.run.config import RunConfig
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import TrainingSettings

STALE = 86_400.0  # seconds after which a folder is one that a killed process has left


class ScratchRun:
    """The directory of a run that is only tried, in the cache folder. `delete` when it is no longer needed.

    `corpora` are as `launch.create` takes them; `model` is the folder of the model that `settings.from_model` names. Raises
    `UserError` if the corpora can't be read, or the disk is full.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        corpora: Sequence[str],
        device: str,
        model: Path | None = None,
        pinned: Sequence[Pin] = (),
    ) -> None:
        from tui_llm.llm.data import corpora as data  # imported here, so that the form opens faster

        if not corpora:
            raise UserError(f"name a text file or a folder to train on, or {' or '.join(data.NAMES)}")
        places = tuple(map(data.place, corpora))
        data.check(places, settings.text_format)
        processes.check(settings, 1)
        folder = paths.cache_dir() / "scratch"
        try:
            storage.make_folders(folder)
            _drop_stale(folder)
            self.run = Run(storage.temporary_folder(folder, "run-"))
        except OSError as error:
            raise UserError(f"can't try a run: {files.cannot_write(folder, error)}") from error
        try:
            launch.fill(self.run, RunConfig(places, "", device, settings), model, pinned)
        except OSError as error:
            self.delete()
            raise UserError(f"can't try a run: {files.cannot_write(self.run.path, error)}") from error
        except UserError:
            self.delete()
            raise

    def delete(self) -> None:
        storage.rmtree(self.run.path, ignore_errors=True)


def _drop_stale(folder: Path) -> None:
    for path in folder.glob("run-*"):
        with suppress(OSError):
            if path.stat().st_mtime < time.time() - STALE:
                storage.rmtree(path, ignore_errors=True)
