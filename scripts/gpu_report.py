"""The rows of gpu.py: a figure with its goal, or why there is none; as a table, and as JSON after each part."""

from __future__ import annotations

import json
import operator
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

COMPARE: dict[str, Callable[[float, float], bool]] = {"≤": operator.le, "≥": operator.ge, "=": operator.eq}
FAILED, NOT_MEASURED = "FAILED", "not measured"


@dataclass(frozen=True)
class GpuRow:
    """A figure of one part. `sign` and `goal` are empty for what is only stated; `problem` says why there is no figure."""

    part: str
    what: str
    figure: float | None = None
    unit: str = ""
    sign: str = ""
    goal: float | None = None
    problem: str = ""
    failed: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        if self.problem:
            return f"{FAILED if self.failed else NOT_MEASURED}: {self.problem}"
        if self.goal is None or self.figure is None:
            return "stated"
        return "met" if COMPARE[self.sign](self.figure, self.goal) else "NOT MET"

    def line(self) -> str:
        """The row of the table."""
        figure = (
            "–" if self.figure is None else f"{self.figure:,.4g}" if abs(self.figure) < 1e4 else f"{self.figure:,.0f}"
        )
        goal = "" if self.goal is None else f"{self.sign} {self.goal:g}"
        return f"{self.part:11} {self.what:58} {figure + ' ' + self.unit:>20}  {goal:>9}  {self.verdict}"


class PartReport:
    """Where a part writes its rows, each at once, so that a part that is killed keeps those that it had."""

    def __init__(self, part: str, path: Path) -> None:
        self.part, self.path = part, path

    def put(self, what: str, figure: float | None = None, unit: str = "", sign: str = "", goal: float | None = None,
            **facts: Any) -> None:  # fmt: skip
        """Adds a figure, with a goal if `sign` and `goal` are given. A figure that is not finite is a failure."""
        if figure is not None and not abs(figure) < float("inf"):
            self.fail(what, f"it is {figure}")
            return
        self._write(GpuRow(self.part, what, figure, unit, sign, goal, facts=facts))

    def skip(self, what: str, why: str) -> None:
        """Says why something is not measured here."""
        self._write(GpuRow(self.part, what, problem=why))

    def fail(self, what: str, why: object) -> None:
        """Adds a failure: `why` is its reason, cut to one line."""
        name = f"{type(why).__name__}: " if isinstance(why, BaseException) else ""
        self._write(GpuRow(self.part, what, problem=(name + " ".join(str(why).split()))[:300], failed=True))

    def attempt(self, what: str, work: Callable[[], object]) -> bool:
        """Calls `work`; an exception is a row, and the part goes on. Returns whether there was none."""
        try:
            work()
            return True
        except Exception as error:  # any: it is what the script is there to find
            traceback.print_exc()
            self.fail(what, error)
            return False

    def _write(self, row: GpuRow) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")

    def rows(self) -> list[GpuRow]:
        """What was written so far."""
        if not self.path.exists():
            return []
        return [GpuRow(**json.loads(line)) for line in self.path.read_text("utf-8").splitlines() if line.endswith("}")]


def run_apart(report: PartReport, work: Callable[[PartReport], object], seconds: float, log: Path) -> Iterator[GpuRow]:
    """Runs `work` in a child process of its own session, which is killed after `seconds`, and yields its rows. What it prints goes
    to `log`. A crash of the child, or of its GPU context, leaves the other parts alone. The caller must not have used the GPU:
    a CUDA context does not survive a fork."""
    began = time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        report.attempt("the whole part", lambda: work(report))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    status = None
    try:
        while status is None and time.monotonic() - began < seconds:
            done, code = os.waitpid(child, os.WNOHANG)
            status = code if done else None
            time.sleep(0 if done else 0.02)
    finally:
        if status is None:  # too late, or ctrl+c here
            try:
                os.killpg(child, signal.SIGKILL)
            except ProcessLookupError:  # it has not made its session yet
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    if status is None:
        report.fail("the whole part", f"it was ended after {seconds:.0f} s, its limit; see {log}")
    elif os.WIFSIGNALED(status):
        report.fail("the whole part", f"it was ended by {signal.Signals(os.WTERMSIG(status)).name}; see {log}")
    yield from report.rows()


def save(path: Path, head: dict[str, Any], rows: list[GpuRow]) -> None:
    """Writes all rows so far as JSON, aside and renamed."""
    aside = path.with_name(f".{path.name}.part")
    content = {**head, "rows": [{**asdict(row), "verdict": row.verdict} for row in rows]}
    aside.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", "utf-8")
    aside.replace(path)
