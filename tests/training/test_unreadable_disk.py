"""A disk that can't be read for a time: what is on it is not taken for damaged, and nothing of it is lost."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.training.run_helpers import contents, losses, make, words, work
from tui_llm import cli
from tui_llm.common import foreign_files
from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import is_unreadable, open_regular, read_json
from tui_llm.llm.hub import lookup
from tui_llm.training.run.run import Run
from tui_llm.training.worker import checkpoints, process, worker

FILES = ("training.json", "model.safetensors", "optimizer.safetensors", "config.json", "vocab.json")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(words(2000))
    return path


class BadSectors(io.FileIO):
    """A file that can be opened, but not read."""

    def readinto(self, _buffer: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    readall = read = readinto  # type: ignore[assignment]


Failing = Callable[[Path], AbstractContextManager[None]]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    """A context manager: while it lasts, the file at a path can't be read; of a folder, the names in it."""
    names = Path.iterdir

    @contextmanager
    def fail(bad: Path) -> Iterator[None]:
        def opened(path: Path, most: int | None = None) -> io.BufferedReader:
            return io.BufferedReader(BadSectors(path)) if path == bad else open_regular(path, most)

        def listed(path: Path) -> Iterator[Path]:
            if path == bad:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
            return names(path)

        with monkeypatch.context() as patch:
            patch.setattr(foreign_files, "open_regular", opened)
            patch.setattr(Path, "iterdir", listed)
            yield

    return fail


def here(run: Run) -> int:
    """Runs a worker in this process."""
    return process.work(worker.Worker(run))


def kept(run: Run) -> dict[str, bytes]:
    """All files of a run but those that tell how its worker ended."""
    files = {str(path.relative_to(run.path)): path for path in run.path.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name not in ("status.json", "worker.log", "pid")}


def test_a_checkpoint_that_cannot_be_read_is_kept_and_resumed_from_later(
    text: Path, failing: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken, run = make("unbroken", text), make("run", text)
    assert work(unbroken) == 0 and work(run, ("half a line", 24)) == -9
    (_, _), (step, newest) = run.checkpoints()
    last = run.last_metric()
    assert last is not None and last.step > step
    before = kept(run)
    for bad in (*(newest / name for name in FILES), run.path):
        with failing(bad):
            assert here(run) == 1
        status = run.status()
        assert status.state == "failed" and "Input/output error" in status.message and str(bad) in status.message
        assert "Nothing was changed: try again" in status.message and "damaged" not in status.message
        assert "\n" not in status.message and (bad == run.path or f"move {newest} away" in status.message)
        assert kept(run) == before  # neither a later line of a log nor a checkpoint is gone
    save, saved = checkpoints.save, list[int]()
    monkeypatch.setattr(checkpoints, "save", lambda *args: saved.append(args[3]) or save(*args))
    assert here(run) == 0 and saved == [21, 28, 30]  # not that of `step` again: the run went on from it
    assert losses(run) == losses(unbroken)
    assert contents(run.checkpoints()[-1][1]) == contents(unbroken.checkpoints()[-1][1])


def test_the_command_names_the_file_and_the_error(
    text: Path, failing: Failing, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tui_llm.training.plan import launch

    run = make("run", text, steps=14)
    assert work(run) == 0
    bad = run.path / "checkpoint-14" / "model.safetensors"

    def start(run: Run) -> None:
        with failing(bad):
            assert here(run) == 1

    monkeypatch.setattr(launch, "start", start)
    assert cli.main(["train", "--resume", "--run", "run", "--steps", "20"]) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and str(bad) in told[0] and "Input/output error" in told[0]
    assert "move" in told[0] and "Traceback" not in told[0]


def test_a_model_is_opened_and_exported_from_a_checkpoint_that_can_be_read(
    text: Path, failing: Failing, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make("run", text, steps=14)
    assert work(run) == 0
    with failing(run.path / "checkpoint-14" / "model.safetensors"):
        assert cli.main(["export", "run", str(tmp_path / "out")]) == 0
        said = capsys.readouterr().err
        assert "checkpoint-14 can't be read and was skipped" in said and "Input/output error" in said
        found = lookup.find("run")
        assert found.step == 7 and "checkpoint-14 can't be read and was skipped" in found.note
    assert lookup.find("run").step == 14  # nothing is remembered of it


def test_a_branch_keeps_its_first_checkpoint_while_its_config_cannot_be_read(text: Path, failing: Failing) -> None:
    run = make("run", text)
    for step in (13, 20, 25):
        (run.path / f"checkpoint-{step}").mkdir()
        for name in ("config.json", "training.json"):
            (run.path / f"checkpoint-{step}" / name).write_text("{}")
    with failing(run.path / "config.json"):
        checkpoints.drop_old(run, 25)
    assert [step for step, _ in run.checkpoints()] == [13, 20, 25]
    checkpoints.drop_old(run, 25)
    assert [step for step, _ in run.checkpoints()] == [20, 25]


def test_what_is_missing_or_of_another_kind_is_no_fault_of_the_disk(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "text").write_text("{")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("none", "fifo", ".", "text", "text/under", "loop", "x" * 999, "a\0b"):
        with pytest.raises(UserError) as told:
            read_json(tmp_path / name)
        assert not is_unreadable(told.value), name
    with pytest.raises(UserError) as told:
        read_json(tmp_path / "text", 0)
    assert not is_unreadable(told.value)
    mem = Path("/proc/self/mem")  # its first page is not mapped
    if mem.exists():
        with pytest.raises(UserError, match="Input/output error") as told:
            read_json(mem)
        assert is_unreadable(told.value)
