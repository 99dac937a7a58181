"""Every write goes through `tui_llm.common.storage`; files and folders appear complete; only regular files are read."""

from __future__ import annotations

import ast
import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tui_llm.common import files, foreign_files, storage
from tui_llm.common.errors import UserError
from tui_llm.llm.model import checkpoint

PACKAGE = Path(storage.__file__).parents[1]

METHODS = {
    "write_text",
    "write_bytes",
    "touch",
    "mkdir",
    "unlink",
    "rmdir",
    "rename",
    "hardlink_to",
    "symlink_to",
    "rmtree",
}
OS = {"replace", "rename", "renames", "link", "unlink", "remove", "mkdir", "makedirs", "rmdir", "removedirs", "symlink", "truncate",
      "ftruncate", "fsync", "mkfifo", "chmod", "utime"}  # fmt: skip
NAMES = {
    "save_file",
    "FileLock",
    "NamedTemporaryFile",
    "TemporaryDirectory",
    "TemporaryFile",
    "mkstemp",
    "mkdtemp",
    "flock",
    "SummaryWriter",
    "FileHandler",
    "RotatingFileHandler",
    "tofile",
    "savez",
    "savez_compressed",
    "savetxt",
}
# The library's functions that write a file, by the name under which it is imported.
BY_MODULE = {"torch": {"save"}, "np": {"save"}, "numpy": {"save"}, "sqlite3": {"connect"}}
# Their functions `open`, and these classes, have the path before the mode, as the built-in `open`.
OPENERS = {"io", "codecs", "gzip", "bz2", "lzma", "tarfile"}
ARCHIVES = {"ZipFile", "GzipFile", "BZ2File", "LZMAFile"}
WRITING = ("O_WRONLY", "O_RDWR", "O_CREAT", "O_APPEND", "O_TRUNC")
SEAM = {"storage", "files"}  # the modules through which such calls are allowed
ALLOWED = {
    ("llm/model/checkpoint.py", "save_file"): "inside storage.by_library, which flushes it afterwards",
    ("llm/tokens/catalog.py", "TemporaryDirectory"): "for tiktoken, which reads a vocabulary from a folder only",
    ("llm/tokens/catalog.py", "write_bytes"): "in that folder",
    ("training/run/run_lock.py", "flock"): "shared, to look whether someone holds it: nothing is written",
    ("tui/terminal.py", "mkdir"): "the folder of the app's log",
    ("tui/terminal.py", "open"): "the app's log, which only grows and holds nothing that can't be lost",
    ("tui/terminal.py", "os.open"): "the same log",
    ("tui/terminal.py", "FileHandler"): "the same log",
    (
        "training/worker/tensorboard.py",
        "SummaryWriter",
    ): "TensorBoard's event files, which can be made again from metrics.jsonl",
    ("tui/terminal.py", "os.fdopen"): "the terminal",
    ("commands/shared/streams.py", "os.open"): "the null device",
    ("commands/shared/streams.py", "open"): "standard output under another encoding",
    ("training/plan/processes.py", "write_text"): "the niceness of a session, which Linux has in /proc",
    ("training/worker/job.py", "open"): "the null device, of processes that write no metrics",
    ("commands/shared/bench_reading.py", "TemporaryDirectory"): "a measurement's scratch",
    (
        "llm/formats/archive.py",
        "TemporaryDirectory",
    ): "tensors between a child process and this one, deleted once they are read",
    ("llm/model/native.py", "mkdir"): "the cache of the compiled kernel",
    ("llm/model/native.py", "TemporaryDirectory"): "a compiler's scratch, in the cache",
    ("llm/model/native.py", "replace"): "the compiled kernel, which can be compiled again",
    ("llm/data/answer_rows.py", "save_file"): "inside storage.by_library, which flushes it afterwards",
    ("llm/adapters/peers.py", "mkdir"): "the scratch of a measurement",
    ("llm/adapters/peers.py", "write_text"): "in that folder",
    ("llm/adapters/peers.py", "os.fdopen"): "standard output of a measuring process",
    ("commands/shared/bench_peers.py", "open"): "the log of a measuring process, in the scratch",
    ("commands/shared/bench_peers.py", "TemporaryDirectory"): "a measurement's scratch",
    ("llm/formats/archive_worker.py", "save_file"): "in that folder",
    ("llm/formats/archive_worker.py", "write_text"): "in that folder",
}


def _mode(call: ast.Call, at: int) -> str:
    """Returns the mode of a call of `open`, whose `at`-th argument it is; the default is read-only."""
    words = [word.value for word in call.keywords if word.arg == "mode"] + call.args[at : at + 1]
    return "".join(str(node.value) for word in words for node in ast.walk(word) if isinstance(node, ast.Constant))


def writes(source: str) -> Iterator[tuple[int, str]]:
    """Yields the calls that change the disk, as (line, name)."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name):
            name = node.func.id
            if name in NAMES or (name in ("open", *ARCHIVES) and set(_mode(node, 1)) & set("wax+")):
                yield node.lineno, name
        elif isinstance(node.func, ast.Attribute):
            name, owner = node.func.attr, node.func.value
            of = owner.id if isinstance(owner, ast.Name) else ""
            if of in SEAM:
                continue
            if of == "os" and (
                name in OS
                or (name == "open" and any(flag in ast.unparse(node) for flag in WRITING))
                or (name == "fdopen" and set(_mode(node, 1)) & set("wax+"))
            ):
                yield node.lineno, f"os.{name}"
            elif name in BY_MODULE.get(of, ()):
                yield node.lineno, f"{of}.{name}"
            elif (name in ARCHIVES or (of in OPENERS and name == "open")) and set(_mode(node, 1)) & set("wax+"):
                yield node.lineno, name
            elif of == "shutil" and name not in ("get_terminal_size", "disk_usage", "which"):
                yield node.lineno, f"shutil.{name}"
            elif (
                of != "os"
                and (name in METHODS or name in NAMES or (name == "open" and set(_mode(node, 0)) & set("wax+")))
            ) or (name == "replace" and len(node.args) == 1 and not node.keywords):
                yield node.lineno, name


def test_nothing_is_written_except_through_storage() -> None:
    found = {
        (str(path.relative_to(PACKAGE)), name): line
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != Path(storage.__file__)
        for line, name in writes(path.read_text(encoding="utf-8"))
    }
    assert {
        f"{module}:{line} {name}" for (module, name), line in found.items() if (module, name) not in ALLOWED
    } == set()
    assert set(ALLOWED) <= set(found), "something is allowed that nobody does any more"


@pytest.mark.parametrize(
    "line",
    ["p.write_text('x')", "open(p, 'w')", "p.open('ab')", "p.open(mode='r+b')", "os.replace(a, b)", "a.replace(b)", "shutil.move(a, b)",
     "shutil.copyfile(a, b)", "tempfile.mkdtemp()", "p.touch()", "save_file({}, p)", "FileLock(p)", "os.open(p, os.O_WRONLY)",
     "os.open(p, os.O_RDWR)", "os.open(p, flags | os.O_CREAT)", "torch.save(a, p)", "np.save(p, a)", "np.savez(p, a=a)", "a.tofile(p)",
     "ZipFile(p, 'w')", "zipfile.ZipFile(p, mode='a')", "gzip.open(p, 'wb')", "sqlite3.connect(p)", "SummaryWriter(p)",
     "logging.FileHandler(p)"],
)  # fmt: skip
def test_the_test_sees_a_write(line: str) -> None:
    assert list(writes(line))


@pytest.mark.parametrize(
    "line",
    [
        "'a'.replace('a', 'b')",
        "p.open('rb')",
        "open(p)",
        "dataclasses.replace(a, b=1)",
        "storage.mkdir(p)",
        "zipfile.ZipFile(p)",
        "gzip.open(p)",
        "self.connect(p)",
        "tree_file.save(a, p)",
    ],
)
def test_the_test_sees_no_write_where_there_is_none(line: str) -> None:
    assert not list(writes(line))


# ── atomic writes ───────────────────────────────────────────────────────────────────────────────────────────────────


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, [1])

    def half(part: Path) -> None:
        part.write_text("[2")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(UserError, match="No space left"):
        files.write_aside(path, half)
    assert json.loads(path.read_text()) == [1] and names(tmp_path) == ["a.json"]


def test_temporary_files_of_a_killed_process_are_deleted_and_those_of_a_live_one_kept(tmp_path: Path) -> None:
    code = (
        "import sys, os; from pathlib import Path; from tui_llm.common import files\n"
        "with files.aside(Path(sys.argv[1]) / 'a') as part:\n"
        "    part.write_text('half'); print('there', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdin is not None
    assert child.stdout.readline() == "there\n"
    files.write_text(tmp_path / "b", "whole")
    (begun,) = [path for path in tmp_path.iterdir() if path.name.startswith(files.ASIDE)]
    assert (begun / "a").read_text() == "half"  # its process is alive
    child.kill()
    child.communicate()
    files.write_text(tmp_path / "b", "whole")
    assert names(tmp_path) == ["b"]


def test_other_folders_are_never_deleted(tmp_path: Path) -> None:
    for name in (".a.part", ".tui-llm-x", "tui-llm-x.part"):
        (tmp_path / name).mkdir()
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").write_text("x")
    (tmp_path / f"{files.ASIDE}link{files.PART}").symlink_to(tmp_path / "theirs")
    files.write_text(tmp_path / "b", "whole")
    assert (
        (tmp_path / "theirs" / "file").exists()
        and (tmp_path / ".a.part").is_dir()
        and (tmp_path / ".tui-llm-x").is_dir()
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs mkfifo")
@pytest.mark.parametrize("faulty", [False, True])
def test_a_tree_that_is_a_fifo_is_deleted_without_opening_it(
    tmp_path: Path, faulty: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`shutil.rmtree` waits until somebody writes into it."""

    class NoFaults:
        def step(self, call: str, path: str, source: str = "") -> None: ...

    monkeypatch.setattr(storage, "faults", NoFaults() if faulty else None)
    fifo, link, kept = tmp_path / "fifo", tmp_path / "link", tmp_path / "kept"
    os.mkfifo(fifo)
    storage.rmtree(fifo)
    assert not os.path.lexists(fifo)
    kept.mkdir()
    link.symlink_to(kept)
    if not faulty:
        with pytest.raises(OSError):
            storage.rmtree(link)
        assert link.is_symlink()
    storage.rmtree(tmp_path / "nothing", ignore_errors=True)
    with pytest.raises(FileNotFoundError):
        storage.rmtree(tmp_path / "nothing")
    assert kept.is_dir()


def test_a_folder_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "made"

    def fill(part: Path) -> None:
        files.write_text(part / "one", "1")
        assert not folder.exists()

    files.write_folder(folder, fill)
    assert names(tmp_path) == ["made"] and names(folder) == ["one"]
    with pytest.raises(FileExistsError):
        files.write_folder(folder, lambda part: None)
    assert names(tmp_path) == ["made"] and names(folder) == ["one"]


def test_file_permissions_follow_the_umask(tmp_path: Path) -> None:
    tensors = {"a": torch.zeros(3)}
    for mask, mode in ((0o022, 0o644), (0o077, 0o600)):
        before = os.umask(mask)
        try:
            files.write_text(tmp_path / "text", "x")
            checkpoint.write_tensors(tmp_path / "tensors", tensors)
        finally:
            os.umask(before)
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {mode}


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_only_regular_files_of_a_limited_size_are_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert foreign_files.read_regular(path, 5) == b"12345"
    with pytest.raises(foreign_files.TooLarge, match="5 bytes, over the 4 that such a file may have"):
        foreign_files.read_regular(path, 4)
    (tmp_path / "link").symlink_to(path)
    assert foreign_files.open_regular(tmp_path / "link").read() == b"12345"
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name, kind in (("fifo", "a named pipe"), ("zero", "a device"), (".", "a folder")):
        with pytest.raises(foreign_files.NotRegular, match=f"{kind}, not a regular file"):
            foreign_files.open_regular(tmp_path / name)
        with pytest.raises(UserError, match="not a regular file"):
            foreign_files.read_json(tmp_path / name)
    if Path("/proc/self/status").exists():  # its reported size is 0
        with pytest.raises(foreign_files.TooLarge):
            foreign_files.read_regular(Path("/proc/self/status"), 10)


def test_nothing_but_a_regular_file_is_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("fifo", "zero"):
        for mode in ("ab", "wb", "r+b"):
            with pytest.raises(OSError, match="not a regular file"):
                storage.open_file(tmp_path / name, mode)


def test_json_for_every_parser() -> None:
    value = {"a": float("nan"), "b": [1.5, float("inf"), {"c": -float("inf")}], "d": "é\ud800"}
    assert json.loads(files.to_json(value), parse_constant=pytest.fail) == {
        "a": None,
        "b": [1.5, None, {"c": None}],
        "d": "é\ud800",
    }
