"""Fault injection at every k-th disk operation: the scenarios' runner, the faults, and the invariants after each.

An attempt copies the initial state, makes one call of `storage` fail or write only in part, and then checks: files that
were intact before are intact after, a failure is one line of error, and running the same command again gives byte for
byte the result of an undisturbed run. A worker logs no traceback, leaves its two newest checkpoints, and the next one
continues after the newest. `scripts/io_faults.py` tries all k, tests/test_io_faults.py a seeded sample.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.flushes import unflushed
from tests.training.kept_work import Kept, lost_checkpoints
from tui_llm.common import files, storage
from tui_llm.training.run.run import Run

KILLED = 99  # exit status of a process that was ended by its fault
HOW = ("kill", "full", "error", "sealed")
"""kill: half a write, or nothing of another call, then the process ends at once. full: from k on there is no room. error:
the k-th call fails with EIO, once. sealed: from k on nothing can be opened, linked, renamed or deleted (EACCES)."""
# A rename needs no room: what was moved away can be moved back, on a full disk too.
_ROOM = {"open", "write", "mkdir", "fsync", "library", "link"}
_SEALED = {"open", "mkdir", "link", "replace", "rename", "unlink", "rmdir", "lock", "library"}


class Plan:
    """Counts calls and makes the `at`-th one fail. With `at` 0 it only counts."""

    def __init__(self, at: int = 0, how: str = "kill") -> None:
        self.at, self.how, self.count = at, how, 0
        self.calls: list[str] = []  # "CALL PATH", of a rename or link "CALL PATH from SOURCE"

    def _due(self, call: str, path: str, source: str = "") -> bool:
        self.count += 1
        self.calls.append(f"{call} {path}" + (f" from {source}" if source else ""))
        if not self.at or self.count < self.at:
            return False
        if self.how == "full":
            return call in _ROOM and not (call == "open" and os.path.exists(path))  # noqa: PTH110
        if self.how == "sealed":
            return call in _SEALED
        return self.count == self.at

    def _error(self, path: str) -> OSError:
        number = {"full": errno.ENOSPC, "error": errno.EIO, "sealed": errno.EACCES}[self.how]
        return OSError(number, os.strerror(number), path)

    def step(self, call: str, path: str, source: str = "") -> None:
        if self._due(call, path, source):
            if self.how == "kill":
                os._exit(KILLED)
            raise self._error(path)

    def write(self, path: str, data: Any, put: Callable[[Any], int | None]) -> int | None:
        if not self._due("write", path):
            return put(data)
        view = memoryview(data).cast("B")
        half = view[: len(view) // 2]
        if self.how == "kill":
            put(half)
            os._exit(KILLED)
        if self.how == "full" and self.count == self.at and len(half):
            return put(half)  # a short write, as from the kernel; the next call raises
        if self.how == "error":
            put(half)
        raise self._error(path)

    def library(self, path: str, write: Callable[[], object]) -> None:
        if not self._due("library", path):
            write()
            return
        write()
        os.truncate(path, os.path.getsize(path) // 2)  # noqa: PTH202
        if self.how == "kill":
            os._exit(KILLED)
        raise self._error(path)


# ── processes ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Ended:
    status: int
    out: str
    err: str
    calls: list[str] = field(default_factory=list)


def forked(home: Path, act: Callable[[Path], int | None], plan: Plan | None = None) -> Ended:
    """Calls `act(home)` in a forked process with that home, under a plan of faults."""
    out, err, calls = (home.with_name(f"{home.name}.{name}") for name in ("out", "err", "calls"))
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.environ["TUI_LLM_HOME"] = str(home)
            for descriptor, path in ((1, out), (2, err)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), descriptor)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            os.fsync = lambda _file: None  # not needed: processes are killed here, the machine is not
            storage.faults = plan
            made = act(home)
            code = made if isinstance(made, int) else 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            storage.faults = None
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            if plan is not None:
                calls.write_text("\n".join(plan.calls))
            os._exit(code)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    counted = calls.read_text().splitlines() if plan is not None and code != KILLED and calls.exists() else []
    return Ended(code, out.read_text(errors="replace"), err.read_text(errors="replace"), counted)


# ── the state on disk ────────────────────────────────────────────────────────────────────────────────────────────────

GROWING = (
    "metrics.jsonl",
    "samples.jsonl",
    "probes.jsonl",
    "heads.jsonl",
    "alarms.jsonl",
    "matrices.jsonl",
    "pairs.jsonl",
)
# Files with the current state: either version is correct, but it must be complete.
TOLD = ("status.json", "control.json", "batch.json", "corpus.json")
UNCOUNTED = ("lock", "worker.log", "pid")
PULLING = ".pulling"
CHANGING = ("time", "monotonic", "tokens_per_second", "memory_bytes", "machine", "asked", "bigram_entropy")


def _is_aside(path: Path) -> bool:
    """Whether this is a temporary file or folder, which the next start deletes."""
    # a partial download, which is resumed
    half = path.name.startswith(".") and path.name.endswith((".part", ".part.json"))
    if PULLING in path.parts[:-1] and not path.name.endswith(".lock"):
        return True  # a partial download of a model, or its older revision while it is replaced
    return half or any(part.startswith((files.ASIDE, ".checkpoint-", ".tokens-")) for part in path.parts)


def _uncounted(path: Path) -> bool:
    return path.name in UNCOUNTED or path.name.endswith(".lock")


def _line(line: bytes) -> bytes:
    value = json.loads(line)
    return json.dumps({key: item for key, item in value.items() if key not in CHANGING}, sort_keys=True).encode()


def _lines(data: bytes) -> list[bytes]:
    return [_line(line) for line in data.split(b"\n")[:-1]]


def canonical(path: Path, torn: bool = False) -> bytes:
    """Returns a file's content without times and speeds.

    Raises ValueError if it is not complete. With `torn`, an incomplete last line of an append-only file is ignored.
    """
    data = path.read_bytes()
    if path.name in GROWING:
        if data and not data.endswith(b"\n") and not torn:
            raise ValueError(f"{path} ends in half a line")
        return b"\n".join(_lines(data))
    return _line(data) if path.name in TOLD else data


def state(home: Path, torn: bool = False) -> dict[str, bytes]:
    """Returns every file by path, without temporary files, locks and logs."""
    found = {}
    for path in sorted(home.rglob("*")):
        inside = path.relative_to(home)
        if path.is_file() and not _is_aside(inside) and not _uncounted(path):
            found[str(inside)] = canonical(path, torn)
    return found


def leftovers(home: Path) -> list[str]:
    return [str(path.relative_to(home)) for path in home.rglob("*") if _is_aside(path.relative_to(home))]


def empty_folders(home: Path) -> set[str]:
    return {str(path.relative_to(home)) for path in home.rglob("*") if path.is_dir() and not any(path.iterdir())}


# ── an attempt ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Scenario:
    """A command under test.

    `prepare` creates the initial state. `act` is interrupted, then run again with the same arguments; it returns 0 on
    success, and on failure writes one line to stderr, or to a run's log and status. `once`: the command refuses to run
    again after it has succeeded.
    """

    name: str
    prepare: Callable[[Path], int | None]
    act: Callable[[Path], int | None]
    once: bool = False
    run: str = ""  # name of the run, if the scenario is a worker
    replaced: str = ""  # a folder whose files are replaced all together
    moved: str = ""
    """Pattern of the folders to which the replaced files are moved meanwhile. As docs/reliability.md says, a kill in between
    leaves them there, and nothing in their place that could be opened."""


class Trial:
    """A scenario in its own folder: its initial state, and the result of an undisturbed run."""

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self.scenario = scenario
        self.home, self.kept = folder / "home", folder / "before"
        folder.mkdir(parents=True)
        self.home.mkdir()
        made = forked(self.home, scenario.prepare)
        assert made.status == 0, made
        self.home.rename(self.kept)
        self._reset()
        self.before = state(self.home, torn=True)
        ended = forked(self.home, scenario.act, Plan())
        assert ended.status == 0, ended
        self.calls = ended.calls
        self.unflushed = unflushed(ended.calls, str(self.home))
        self.after = state(self.home)
        self.folders = empty_folders(self.home) | empty_folders(self.kept)
        assert not leftovers(self.home), leftovers(self.home)

    def _reset(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.copytree(self.kept, self.home)

    def attempt(self, k: int, how: str) -> list[str]:
        """Returns the violated invariants; an empty list if all hold."""
        self._reset()
        ended = forked(self.home, self.scenario.act, Plan(k, how))
        wrong = [*self._whole(how), *self._said(ended, how)]
        if ended.status == 0 and (different := self._differences(worker=bool(self.scenario.run))):
            wrong.append(f"it ended well, but not all is there: {different}")
        if self.scenario.run:
            run = Run(self.home / "runs" / self.scenario.run)
            kept = Kept.of(run)
            wrong += [*lost_checkpoints(run), *self._again(), *kept.repeated(run)]
        elif ended.status != 0 or (
            self.scenario.replaced and leftovers(self.home)
        ):  # the next one deletes what is left
            wrong += self._again()
        for path in {Path(name).parent for name in leftovers(self.home)}:
            files.sweep(self.home / path)  # as the next write to this folder does
        if left := leftovers(self.home):
            wrong.append(f"left behind: {left[:3]}")
        if more := empty_folders(self.home) - self.folders:
            wrong.append(f"empty folders: {sorted(more)[:3]}")
        call = self.calls[k - 1] if k <= len(self.calls) else "?"
        where = call.replace(str(self.home), "")
        return [f"{self.scenario.name} {how} {k} ({where}): {line}" for line in wrong]

    def _whole(self, how: str) -> Iterator[str]:
        """Checks that files that were intact before are intact after, with old or new content."""
        for name in self.before:
            if name in self.after and not (self.home / name).exists() and not self._is_moved(name, how):
                yield f"{name} is lost"
        if mixed := self._mixed():
            yield f"{self.scenario.replaced} is neither the old folder nor the new one: {mixed}"
        for path in sorted(self.home.rglob("*")):
            inside = path.relative_to(self.home)
            if path.is_file() and not _is_aside(inside) and not _uncounted(path):
                yield from self._whole_file(path, inside, how)
        from tui_llm.common.errors import UserError
        from tui_llm.llm.model import intact

        for folder in self.home.rglob("checkpoint-*"):
            if folder.is_dir() and not _is_aside(folder.relative_to(self.home)):
                try:
                    intact.check(folder)
                except UserError as error:
                    yield f"{folder.name} is not whole: {error}"

    def _moved(self, how: str) -> list[Path]:
        """The folders that may have replaced files: after a kill, or if nothing can be moved back from then on."""
        return list(self.home.glob(self.scenario.moved)) if self.scenario.moved and how in ("kill", "sealed") else []

    def _is_moved(self, name: str, how: str) -> bool:
        """Whether a file that is missing in the replaced folder is whole in one of those."""
        if not Path(name).is_relative_to(self.scenario.replaced):
            return False
        inside = Path(name).relative_to(self.scenario.replaced)
        copies = (old / inside for old in self._moved(how))
        return any(copy.is_file() and copy.read_bytes() == self.before[name] for copy in copies)

    def _mixed(self) -> list[str]:
        """Returns the files of the replaced folder if it can be opened and they are neither all old nor all new."""
        folder = self.scenario.replaced
        if not folder or not (self.home / folder / "config.json").exists():
            return []
        now, *versions = (
            {name: data for name, data in files.items() if Path(name).is_relative_to(folder)}
            for files in (state(self.home), self.before, self.after)
        )
        return [] if now in versions else sorted(now)

    def _whole_file(self, path: Path, inside: Path, how: str) -> Iterator[str]:
        name, data = str(inside), path.read_bytes()
        if path.name in GROWING:
            yield from self._whole_lines(name, data, how)
        elif path.name in TOLD:
            try:
                json.loads(data)
            except ValueError:
                yield f"{name} is not whole"
        elif inside.parent.name.startswith("checkpoint-") and name not in self.after:
            pass  # one that is deleted later, checked by `_whole`
        elif data not in (self.before.get(name), self.after.get(name)):
            yield f"{name} is neither the old file nor the new one"

    def _whole_lines(self, name: str, data: bytes, how: str) -> Iterator[str]:
        known = {line for kept in (self.before, self.after) for line in kept.get(name, b"").split(b"\n")}
        try:
            strange = [line for line in _lines(data) if line not in known]
        except ValueError:
            strange = [b"a damaged line"]
        if strange:
            yield f"{name} has a line that no run wrote: {strange[0][:80]!r}"
        old = self.kept / name
        same = old.exists() and old.read_bytes() == data
        if data and not data.endswith(b"\n") and how == "full" and not same:
            yield f"{name} ends in half a line"

    def _said(self, ended: Ended, how: str) -> Iterator[str]:
        if ended.status == KILLED and how == "kill":
            return
        said = ended.out + ended.err + self._logged()
        if "Traceback" in said:
            yield f"a traceback: {said.strip().splitlines()[-1]}"
        elif ended.status not in (0, 1, 2, 3):
            yield f"exit status {ended.status}"
        elif ended.status and not self.scenario.run and ended.err.count("\n") != 1:
            yield f"{ended.err.count(chr(10))} lines: {ended.err[:200]!r}"
        elif ended.status and self.scenario.run and "failed" not in said:
            yield f"it failed without a word: {said[-200:]!r}"

    def _logged(self) -> str:
        """What the worker of this attempt has logged: its standard output and error are its run's log."""
        if not self.scenario.run:
            return ""
        inside = f"runs/{self.scenario.run}/worker.log"
        log, earlier = self.home / inside, self.kept / inside
        data = log.read_bytes() if log.exists() else b""
        return data[earlier.stat().st_size if earlier.exists() else 0 :].decode(errors="replace")

    def _again(self) -> Iterator[str]:
        try:
            done = self.scenario.once and state(self.home) == self.after
        except ValueError:
            done = False
        if done:
            return
        ended = forked(self.home, self.scenario.act)
        if ended.status != 0:
            yield f"run again, it ends with {ended.status}: {(ended.out + ended.err)[-300:]!r}"
            return
        try:
            same = state(self.home) == self.after
        except ValueError as error:
            yield f"run again: {error}"
            return
        if not same:
            yield f"run again, it gives something else: {self._differences()}"

    def _differences(self, worker: bool = False) -> list[str]:
        """Returns the files that differ from those of the undisturbed run. Of a worker that has just ended, an old checkpoint
        more is none: what could not be deleted does no harm, and the next worker deletes it."""
        now = state(self.home)
        names = {name for name in {*now, *self.after} if now.get(name) != self.after.get(name)}
        return sorted(name for name in names if not (worker and name not in self.after and "/checkpoint-" in name))[:4]
