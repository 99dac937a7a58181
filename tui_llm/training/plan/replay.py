"""Recompute a step of a run in a subprocess, which only reads the run. Does not import torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tui_llm.common.display import visible
from tui_llm.common.errors import UserError
from tui_llm.common.numbers import duration
from tui_llm.training.plan import processes, subprocesses
from tui_llm.training.run.config import RunConfig
from tui_llm.training.run.metric_at import of_steps
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import LEARNS, PRETRAINING
from tui_llm.training.run.snapshot import speed
from tui_llm.training.run.step_rows import Record, parse

CHEAP = 120.0  # seconds of recomputed steps that need no confirmation


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the recomputation of a step begins: after `begun` steps, with `steps` more to take before it. `seconds` is the
    time for them at the speed that was logged; None if that is unknown. `known`: a process has just recomputed the step before."""

    begun: int
    steps: int
    seconds: float | None
    known: bool = False

    @property
    def cheap(self) -> bool:
        return self.seconds is None or self.seconds <= CHEAP

    @property
    def line(self) -> str:
        """Where it begins and what it takes, in words."""
        if self.known:
            return "from the step before it, recomputed just now"
        where = f"checkpoint {self.begun:,}" if self.begun else "step 0"
        time = "" if self.seconds is None or not self.steps else f", about {duration(self.seconds)}"
        more = (
            "nothing to recompute before it"
            if not self.steps
            else f"{self.steps:,} step{'' if self.steps == 1 else 's'} to recompute before it"
        )
        return f"from {where}: {more}{time}"


def problem(config: RunConfig) -> str:
    """Why no step of such a run can be recomputed; empty if each can."""
    objective = config.settings.objective
    if objective != PRETRAINING:
        return f"only steps on text are recomputed, not those that learn {LEARNS[objective]}"
    if config.shard or config.nproc > 1:
        how = "a sharded model" if config.shard else f"{config.nproc} processes"
        return f"steps of {how} are not recomputed: one process sums in another order"
    return ""


def check(run: Run, step: int) -> None:
    """Raises `UserError` unless step `step` of `run` can be recomputed."""
    config = run.config()
    if why := problem(config):
        raise UserError(f"run {run.name}: {why}")
    last = run.last_metric()
    if last is None:
        raise UserError(f"run {run.name} has no steps yet")
    if config.parent and step <= config.parent_step:
        raise UserError(
            f"run {run.name} branches from {config.parent} after step {config.parent_step:,}; step {step:,} is to be recomputed there"
        )
    if not 1 <= step <= last.step:
        raise UserError(
            f"run {run.name} has the steps {config.parent_step + 1:,} to {last.step:,}; give one of them, not {step:,}"
        )


def origin(run: Run, updates: int, *, from_start: bool = False) -> Origin:
    """Where recomputing the state after `updates` steps begins, and what it takes."""
    first = run.config().parent_step
    most = first if from_start else updates
    begun = max((step for step, _ in run.checkpoints() if step <= most), default=0)
    count = updates - begun
    known = of_steps(run.metrics_path, max(1, updates - 50), max(1, updates)).values()
    s, rate = run.config().settings, speed(known)
    tokens = count * s.batch_size * s.block_size * s.grad_accumulation_steps
    return Origin(begun, count, tokens / rate if rate else None)


def differences(run: Run, here: dict[str, Any]) -> str:
    """What of the run's software and hardware, as recorded in its status, differs from `here`; `recorded by an earlier
    version` if that is unknown."""
    facts = run.facts()
    if "torch" not in facts:
        return "the run does not say with which torch and hardware it was trained"
    names = {"torch": "torch", "device": "device", "hardware": "hardware", "threads": "CPU threads"}
    names |= {"arithmetic": "arithmetic"} if "arithmetic" in facts else {}  # runs of earlier versions do not say
    return ", ".join(
        f"{words} {visible(str(facts.get(name)))[:60]} then, {here[name]} now"
        for name, words in names.items()
        if facts.get(name) != here[name]
    )


class ReplayProcess:
    """The subprocess that recomputes step `step` of `run`, which the constructor starts.

    `records` gives its results as they come; `cancel` kills it. With `keep`, it stays once they are known, and `again` asks it for
    another step: without a new process, and for the next step without the steps before it. With `from_start`, checkpoints are
    not used; without `gradients`, the rows' shares of the gradient are not computed. Raises `UserError` if the step can't be
    recomputed, if it takes more than `CHEAP` seconds of earlier steps without `from_start`, or if the process can't be started.
    """

    def __init__(
        self, run: Run, step: int, *, from_start: bool = False, gradients: bool = True, keep: bool = False
    ) -> None:
        self.run, self.step, self.from_start, self.keep = run, step, from_start, keep
        self.origin = self._check(step)
        self.cancelled = self.ready = False  # ready: kept, with nothing to do
        threads = run.facts().get("threads")
        self._asked = {"run": str(run.path.absolute()), "from_start": from_start, "gradients": gradients,
                       "threads": threads if isinstance(threads, int) and 0 < threads <= 4096 else None}  # fmt: skip
        self.process = subprocesses.start("replay", "recompute the step", run.config().device)
        self._lines = processes.json_lines(self.process)
        self._write({**self._asked, "step": step})

    def _check(self, step: int) -> Origin:
        """Raises `UserError` if the step can't be recomputed, or not in a short time."""
        check(self.run, step)
        found = origin(self.run, step - 1, from_start=self.from_start)
        if not found.cheap and not self.from_start:
            raise UserError(
                f"step {step:,} is far from the last checkpoint before it; recomputing it {found.line}: "
                "--from-start does it"
            )
        return found

    def _write(self, value: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        with suppress(OSError, ValueError):  # it has ended already: `records` reports it
            self.process.stdin.write(json.dumps(value).encode() + b"\n")
            if self.keep:
                self.process.stdin.flush()
            else:
                self.process.stdin.close()

    def again(self, step: int) -> None:
        """Asks a process that is `ready` for another step of its run; then call `records`. Raises `UserError` as the constructor
        does; the process is ready for another one then."""
        if step == self.step + 1:
            check(self.run, step)
            self.origin = Origin(self.step, 0, None, known=True)
        else:
            self.origin = self._check(step)
        self.step, self.ready = step, False
        self._write({**self._asked, "step": step})

    def finish(self) -> None:
        """Asks for no more of the rows' shares: `records` ends soon."""
        self._write({"finish": True})

    def cancel(self) -> None:
        """Kills the process; `records` then ends."""
        self.cancelled = True
        self.process.kill()
        if self.ready:  # no one reads `records`
            self._end()

    def _end(self) -> None:
        self.ready = False
        self.process.kill()
        self.process.wait()
        with suppress(ValueError):  # another thread reads them, and is at their end now
            self._lines.close()
        if self.process.stdin is not None:
            with suppress(OSError):  # a request that it did not read
                self.process.stdin.close()

    def records(self) -> Iterator[Record]:
        """Yields the results until all are known. Raises `UserError` with the reason if they can't be computed."""
        done = False
        try:
            for raw in self._lines:
                if "done" in raw:
                    done = True
                    break
                if (record := parse(raw)) is not None:
                    yield record
        finally:
            if done and self.keep and not self.cancelled:
                self.ready = True
            else:
                self._end()
        if not done and not self.cancelled:
            code = self.process.returncode
            killed = ", perhaps for lack of memory" if code == -9 else ""
            raise UserError(f"the process that recomputes the step ended early (exit status {code}{killed})")
