"""Nothing that exists is replaced unless requested, even if another process writes at the same time."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import HOW, KILLED, Plan
from tui_llm.common import new_files, storage
from tui_llm.common.errors import UserError
from tui_llm.common.new_files import AlreadyExists, check_file, check_folder, write_folder, write_new


def writer(text: str) -> Callable[[Path], None]:
    def write(part: Path) -> None:
        part.write_text(text)

    return write


def no_links(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.fixture(params=["hard links", "no hard links"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "hard links":
        monkeypatch.setattr(os, "link", no_links)


@pytest.mark.usefixtures("links")
def test_a_file_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_new(path, writer("one"))
    with pytest.raises(AlreadyExists, match="nothing is overwritten"):
        write_new(path, writer("two"))
    assert path.read_text() == "one"
    path.chmod(0o600)
    write_new(path, writer("three"), force=True)
    assert path.read_text() == "three"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["a.txt"]


@pytest.mark.usefixtures("links")
def test_a_file_that_comes_while_ours_is_written_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"

    def write(part: Path) -> None:
        part.write_text("ours")
        path.write_text("theirs")

    with pytest.raises(AlreadyExists):
        write_new(path, write)
    assert path.read_text() == "theirs"
    assert [one.name for one in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.usefixtures("links")
def test_exactly_one_of_many_writers_succeeds(tmp_path: Path) -> None:
    path, count = tmp_path / "a.txt", 8
    together, won = threading.Barrier(count), []

    def one(number: int) -> None:
        def write(part: Path) -> None:
            part.write_text(str(number) * 10_000)
            together.wait()  # all have checked the name, and none found it taken

        try:
            write_new(path, write)
            won.append(number)
        except AlreadyExists:
            pass

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert path.read_text() == str(won[0]) * 10_000
    assert [one.name for one in tmp_path.iterdir()] == ["a.txt"]


def test_only_regular_files_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "device").symlink_to("/dev/null")
    for name in ("folder", "fifo", "dangling", "device"):
        with pytest.raises(UserError):
            write_new(tmp_path / name, writer("x"))
        with pytest.raises(UserError):
            write_new(tmp_path / name, writer("x"), force=True)
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    with pytest.raises(AlreadyExists):
        write_new(tmp_path / "link", writer("new"))
    write_new(tmp_path / "link", writer("new"), force=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"


def test_input_files_are_never_written(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (tmp_path / "corpus.txt").write_text("text")
    (tmp_path / "link").symlink_to("model")
    for path in (model / "config.json", model / "new.json", tmp_path / "link" / "new.json"):
        with pytest.raises(UserError, match="reads"):
            check_file(path, force=True, inputs=[model])
    with pytest.raises(UserError, match="reads"):
        check_file(tmp_path / "corpus.txt", force=True, inputs=[tmp_path / "corpus.txt"])
    for folder in (model, tmp_path / "link", model / "sub"):
        with pytest.raises(UserError, match="reads"):
            check_folder(folder, force=True, inputs=[model])
    check_file(tmp_path / "other.json", inputs=[model])


# ── folders ──


def fill(aside: Path, text: str = "new") -> None:
    for name in ("config.json", "model.safetensors", "vocab.json"):
        (aside / name).write_text(f"{text} {name}")


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


WHOLE = {name: f"new {name}" for name in ("config.json", "model.safetensors", "vocab.json")}


@pytest.mark.usefixtures("links")
def test_a_new_folder_an_empty_one_and_a_full_one(tmp_path: Path) -> None:
    for name in ("new", "empty"):
        folder = tmp_path / name
        if name == "empty":
            folder.mkdir()
        inode = folder.stat().st_ino if folder.exists() else None
        write_folder(folder, fill, last="config.json")
        assert contents(folder) == WHOLE
        assert inode in (None, folder.stat().st_ino)  # the same folder, for processes whose working directory it is
    (tmp_path / "new" / "notes.txt").write_text("mine")
    (tmp_path / "new" / "vocab.json").write_text("older")
    before = contents(tmp_path)
    with pytest.raises(AlreadyExists, match="nothing is overwritten"):
        write_folder(tmp_path / "new", fill, last="config.json")
    assert contents(tmp_path) == before
    write_folder(tmp_path / "new", fill, last="config.json", force=True)
    assert contents(tmp_path / "new") == {**WHOLE, "notes.txt": "mine"}
    (tmp_path / "file").write_text("")
    for force in (False, True):
        with pytest.raises(UserError):
            write_folder(tmp_path / "file", fill, last="config.json", force=force)


@pytest.mark.parametrize("there", [False, True], ids=["new", "empty"])
def test_files_that_appear_in_the_folder_meanwhile_are_kept(tmp_path: Path, there: bool) -> None:
    folder = tmp_path / "out"
    if there:
        folder.mkdir()

    def and_another(aside: Path) -> None:
        fill(aside)
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").write_text("theirs")

    with pytest.raises(AlreadyExists):
        write_folder(folder, and_another, last="config.json")
    assert contents(folder) == {"model.safetensors": "theirs"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("at", range(3))
def test_a_failure_midway_leaves_everything_unchanged(tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    fill(folder, "old")
    before, calls, place = contents(folder), 0, new_files._place

    def failing(part: Path, path: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == at + 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        assert not (folder / "config.json").exists()  # so that the mixture is not taken for a model
        place(part, path)

    monkeypatch.setattr(new_files, "_place", failing)
    with pytest.raises(UserError, match="No space left"):
        write_folder(folder, fill, last="config.json", force=True)
    assert contents(folder) == before


def test_a_folder_in_the_place_of_a_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out" / "vocab.json").mkdir(parents=True)
    (tmp_path / "out" / "vocab.json" / "precious").write_text("x")
    with pytest.raises(UserError, match="is a folder"):
        write_folder(tmp_path / "out", fill, last="config.json", force=True)
    assert contents(tmp_path) == {"out/vocab.json/precious": "x"}


def test_files_that_a_killed_replacement_moved_away_are_deleted_by_the_next_that_succeeds(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write_folder(folder, fill, last="config.json")
    for name in ("killed", "empty", "alive"):
        (folder / f"{new_files.OLD}{name}").mkdir()
    (folder / f"{new_files.OLD}killed" / "config.json").write_text("old")
    lock = storage.lock_folder(folder / f"{new_files.OLD}alive")  # of a process that is replacing files now

    def broken(part: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match="No space left"):
        write_folder(folder, broken, last="config.json", force=True)
    assert len(list(folder.glob(f"{new_files.OLD}*"))) == 3  # the only copy, perhaps
    write_folder(folder, fill, last="config.json", force=True)
    assert [path.name for path in folder.glob(f"{new_files.OLD}*")] == [f"{new_files.OLD}alive"]
    storage.unlock_folder(lock)


def test_advice_is_for_the_path(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tui_llm.common import files, paths

    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match="No space left on device; free some space there or give another path") as said:
        write_new(tmp_path / "out.json", full)
    assert "TUI_LLM_HOME" not in str(said.value)
    for path in (paths.data_dir() / "pins.json", paths.cache_dir() / "texts" / "a.txt"):
        with pytest.raises(UserError, match="free some space there or set TUI_LLM_HOME to another folder"):
            files.write_aside(path, full)


def test_a_disk_that_fails_is_not_called_full(tmp_path: Path) -> None:
    def failing(_: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(UserError, match="Input/output error; check that disk or give another path") as said:
        write_new(tmp_path / "out.json", failing)
    assert "free some space" not in str(said.value)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on Windows")
@pytest.mark.parametrize("how", HOW)
def test_a_fault_at_every_write_while_a_folder_is_replaced(tmp_path: Path, how: str) -> None:
    """The folder has all old files or all new ones.

    If restoring failed, it has no `config.json`, and every old file still exists.
    """
    old = {"config.json": b"old config", "model.safetensors": b"old weights", "notes.txt": b"mine"}
    new = {"config.json": b"new config", "model.safetensors": b"new weights", "vocab.json": b"{}"}

    def replace_it(folder: Path, plan: Plan) -> int:
        """Replaces the folder under a plan of faults, which may end the process. Returns the number of calls."""
        storage.faults = plan
        try:
            write_folder(
                folder,
                lambda part: [storage.write_bytes(part / name, data) for name, data in new.items()],
                last="config.json",
                force=True,
            )
        finally:
            storage.faults = None
        return plan.count

    def filled(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for file, data in old.items():
            (folder / file).write_bytes(data)
        return folder

    calls = replace_it(filled("counted"), Plan())
    assert calls > 10
    for at in range(1, calls + 1):
        folder = filled(f"at-{at}")
        if how != "kill":
            with contextlib.suppress(UserError):
                replace_it(folder, Plan(at, how))
        elif (child := os.fork()) == 0:
            try:
                replace_it(folder, Plan(at, how))
            except BaseException:
                os._exit(3)
            os._exit(0)
        else:
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert status in (0, KILLED), at
        found = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        assert found["notes.txt"] == b"mine", at
        if found in (old, {**old, **new}):
            continue
        # `sealed`: files that were moved away can't be moved back either.
        assert how in ("kill", "sealed") and "config.json" not in found, at
        kept = {path.name: path.read_bytes() for path in folder.glob(".tui-llm-replaced-*/*")}
        assert all(old[name] in (found.get(name), kept.get(name)) for name in ("config.json", "model.safetensors")), at
