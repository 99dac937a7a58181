"""The lines of one step, or of some, in a metrics.jsonl of any length, by bisection: some 30 small reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tui_llm.common.foreign_files import open_regular
from tui_llm.training.run.jsonl import MOST, lines
from tui_llm.training.run.metrics import Metric, parse_metric

_SPAN = 4096  # bytes read at a time: some lines
_DAMAGED = 1 << 16  # bytes without a readable line, after which a place counts as behind the step


def metric_at(path: Path, step: int) -> Metric | None:
    """The metrics of `step`, or of the last step before it; None if there is none, or the file can't be read.

    The lines must be in the order of steps, as the worker writes them."""
    try:
        with open_regular(path, MOST) as file:
            low, high = 0, os.fstat(file.fileno()).st_size
            best: Metric | None = None
            while low < high:
                middle = (low + high) // 2
                found = _next(file, middle)
                if found is None or found.step > step:
                    high = middle
                else:
                    best = found if best is None or found.step >= best.step else best
                    low = middle + 1
            first = _next(file, -1)
            return best if best is not None else first if first is not None and first.step <= step else None
    except OSError:
        return None


def of_steps(path: Path, first: int, last: int) -> dict[int, Metric]:
    """The metrics that `each` yields, by step."""
    return {metric.step: metric for metric in each(path, first, last)}


def each(path: Path, first: int, last: int) -> Iterator[Metric]:
    """Yields the metrics of the steps from `first` to `last`; damaged lines are left out.

    Reads only these lines, which must be in the order of steps."""
    try:
        for line in lines(path, _begin(path, first)):
            metric = parse_metric(line)
            if metric is not None and metric.step > last:
                break
            if metric is not None and metric.step >= first:
                yield metric
    except OSError:
        pass


def _begin(path: Path, step: int) -> int:
    """The offset of a line behind which all lines of steps from `step` on begin. Raises OSError."""
    with open_regular(path, MOST) as file:
        low, high = 0, os.fstat(file.fileno()).st_size
        while low < high:
            middle = (low + high) // 2
            found = _next(file, middle)
            if found is None or found.step >= step:
                high = middle
            else:
                low = middle + 1
    return low


def _next(file: BinaryIO, offset: int) -> Metric | None:
    """The first readable line that begins after `offset`."""
    file.seek(max(0, offset))
    rest = b"" if offset < 0 else None  # None until the line in which `offset` lies has ended
    read = 0
    while read < _DAMAGED and (block := file.read(_SPAN)):
        read += len(block)
        *ended, tail = block.split(b"\n")
        for line in ended:
            if rest is not None and (found := parse_metric(rest + line)) is not None:
                return found
            rest = b""
        rest = None if rest is None else rest + tail
        if ended:
            rest = tail
    return None
