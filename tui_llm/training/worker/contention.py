"""Notices that other processes use the cores that a run's threads need, and says what to do.

Threads that share a product wait for each other. Where one of them waits for a core as well, all do: beside other busy processes, two
threads can be far slower than one. What is computed does not change: the number of threads is the user's to choose, since torch's
products may be rounded otherwise with another one.
"""

from __future__ import annotations

import time

import torch

from tui_llm.common.run_load import RunLoad

WINDOW = 10.0  # seconds over which the load is measured
MUCH, LITTLE = 0.4, 0.2  # of the time that its threads could run: said from the one on, no longer said below the other


class ContentionWatch:
    """`line` says that the run named `run` waits for cores, and how to train it on one thread; empty while it does not, on one thread
    and where the load is unknown."""

    def __init__(self, run: str) -> None:
        self.run, self.line = run, ""
        self._start()

    def _start(self) -> None:
        self._began, self._load = time.monotonic(), RunLoad()

    def changed(self) -> bool:
        """Call it after each step. Whether `line` is another one than before."""
        if time.monotonic() - self._began < WINDOW:
            return False
        contention, threads, before = self._load.contention(), torch.get_num_threads(), self.line
        self._start()
        waited = 1 - 1 / contention if contention is not None and threads > 1 else 0.0
        if waited < LITTLE:
            self.line = ""
        elif waited >= MUCH and not self.line:
            self.line = (
                f"beside other programs its {threads} threads waited for cores {100 * waited:.0f} % of the time. One may be faster: "
                f"tui-llm stop {self.run}; tui-llm train --resume --run {self.run} --threads 1"
            )
        return self.line != before
