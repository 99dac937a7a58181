"""`tests/preloaded.py`: a forked process is as one that its command line starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import preloaded
from tests.training.run_helpers import losses, make, words
from tui_llm.training.plan import launch

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux has what it needs")
NONE = [sys.executable, "-m", preloaded.WORKER, "none"]


def forked(process: subprocess.Popen[bytes]) -> bool:
    return isinstance(process, preloaded.Popen) and process._pidfd != -1


def test_a_forked_worker_trains_as_one_that_its_command_line_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.txt").write_text(words(2000))
    runs = [make(name, tmp_path / "text.txt") for name in ("forked", "real")]
    for run in runs:
        monkeypatch.setattr(preloaded, "real", run.name == "real")
        launch.start(run)
        process = launch._children.pop()[1]
        assert forked(process) == (run.name == "forked") and os.getsid(process.pid) == process.pid
        assert process.wait() == 0 == process.poll()
    assert losses(runs[0]) == losses(runs[1]) and len(losses(runs[0])) == 30


def test_streams_status_and_folder_are_those_of_a_started_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    for real in (False, True):
        monkeypatch.setattr(preloaded, "real", real)
        done = subprocess.run(NONE, capture_output=True, cwd=tmp_path)
        said.append((done.returncode, done.stdout, done.stderr))
    (status, out, err), started = said  # its only line begins with date and time
    assert (status, out.split()[2:], err) == (started[0], started[1].split()[2:], started[2])
    assert status == 2 and b"none" in out and not err


def test_a_killed_process_and_one_that_reads_its_stdin() -> None:
    command = [sys.executable, "-m", f"{preloaded.WORKER}.step_time"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert forked(process) and process.poll() is None
        shown = Path(f"/proc/{process.pid}/cmdline").read_bytes()  # by it, `run_lock.worker_pid` knows a run's worker
        assert shown.rstrip(b"\0").split(b"\0") == [word.encode() for word in command]
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert subprocess.run(command, input=b"not JSON", capture_output=True).returncode == 1


def test_other_commands_and_other_environments_start_by_their_command_line() -> None:
    for command, variables in (
        ([sys.executable, "-c", "pass"], {}),
        ([sys.executable, "-m", "tui_llm", "--version"], {}),
        (NONE, {"OMP_NUM_THREADS": "2"}),
        (NONE, {"ATEN_CPU_CAPABILITY": "default"}),
    ):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | variables)
        assert not forked(process)
        process.kill()
        process.wait()


def test_the_modules_whose_processes_all_start_by_their_command_line_exist() -> None:
    for name in preloaded.REAL:
        assert list(Path(__file__).parent.rglob(f"{name}.py")), name
