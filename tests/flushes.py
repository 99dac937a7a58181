"""Checks the order of a command's disk operations: what gets its final name has been flushed, and so is the name after it.

Processes are killed in tests, the machine is not: a missing fsync changes no result. It shows in the order of the calls
that a `faults.Plan` records.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

_CALL = re.compile(r"(?P<call>[a-z ]+?) (?P<path>/.*?)(?: from (?P<source>/.*))?")
_HIDDEN = re.compile(r"/\.|\.part(/|$)")  # under a temporary name
_CHECKPOINT = re.compile(r"/checkpoint-\d+")


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


@dataclass
class _Disk:
    """What is not on the disk yet."""

    unflushed: dict[str, None] = field(default_factory=dict)  # files, written since their last fsync
    renamed: dict[str, None] = field(default_factory=dict)  # folders in which a name is new since their last fsync
    wrong: list[str] = field(default_factory=list)

    def step(self, call: str, path: str, source: str) -> None:
        if call in ("write", "truncate", "library"):
            self.unflushed[path] = None
        elif call == "fsync":
            self.unflushed.pop(path, None)
        elif call == "fsync folder":
            self.renamed.pop(path, None)
        elif call == "unlink":
            self.unflushed.pop(path, None)
        elif call == "rmdir":
            self.renamed.pop(path, None)
        elif call in ("replace", "rename", "link"):
            self._placed(call, path, source)
        if call in ("open", "library", "mkdir") and _HIDDEN.search(path):
            self.renamed[_parent(path)] = None

    def _placed(self, call: str, path: str, source: str) -> None:
        if _HIDDEN.search(path) and not _HIDDEN.search(source):
            self._move(source, path)  # moved away, to be deleted
            return
        leads = _parent(path) if _CHECKPOINT.search(path) and not _HIDDEN.search(path) else ""
        for name in self.unflushed:
            if _within(name, source):
                self.wrong.append(f"{name} is not flushed before {call} {path}")
            elif leads and _parent(name) == leads and name.endswith(".jsonl"):
                self.wrong.append(f"{name} is not flushed before {call} {path}, to which it leads")
        self.wrong += [f"{name} is not flushed before {call} {path}" for name in self.renamed if _within(name, source)]
        self._move(source, path)
        self.renamed[_parent(path)] = None

    def _move(self, source: str, path: str) -> None:
        for names in (self.unflushed, self.renamed):
            for name in [name for name in names if _within(name, source)]:
                del names[name]
                names[path + name.removeprefix(source)] = None


def unflushed(calls: Sequence[str], home: str) -> list[str]:
    """Returns what `calls` give a name before it is flushed, and what is not flushed at their end. The folder `home` is called /home."""
    disk = _Disk()
    for line in calls:
        found = _CALL.fullmatch(line.replace(home, "/home"))
        if found is not None:  # not of an anonymous file, which has a number
            disk.step(found["call"], found["path"], found["source"] or "")
    disk.wrong += [f"{name} is never flushed" for name in disk.unflushed if not _HIDDEN.search(name)]
    disk.wrong += [
        f"the folder {name} is not flushed after a rename" for name in disk.renamed if not _HIDDEN.search(name)
    ]
    return disk.wrong
