"""The environment of a soak: a home and a working folder, a run that is trained, and fakes of slow processes.

The run is really trained for a moment. After that, the soak decides when it makes a step, writes a checkpoint, or loses
its worker, through the run's files and its lock. Other processes that keys would start (workers, exports, pulls,
measurements) are replaced by fakes: the real ones take seconds, use the network, and do not take the same time twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from tui_llm.llm.adapters.chat import INSTRUCT

CORPUS = "the cat sat on the mat and slept.\n" * 400
SETTINGS = [
    "--preset",
    "toy",
    "--layers",
    "1",
    "--heads",
    "2",
    "--width",
    "16",
    "--block-size",
    "32",
    "--batch-size",
    "4",
    "--steps",
    "40",
    "--eval-every",
    "10",
    "--checkpoint-every",
    "10",
    "--device",
    "cpu",
]
WORKER = """
import fcntl, json, os, sys, time
run, say = sys.argv[1], int(sys.argv[2])
os.chdir(run)
lock = open("lock", "a")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    os._exit(1)
open("pid", "w").write(str(os.getpid()))
status = json.load(open("status.json")) if os.path.exists("status.json") else {}
status |= {"state": "running", "message": "", "time": time.time(), "monotonic": time.monotonic()}
with open("status.part", "w") as file:
    json.dump(status, file)
os.replace("status.part", "status.json")
os.write(say, b"held")
os.close(say)
sys.stdin.buffer.read()  # until whoever started it has gone
"""
SAID = {  # a word of a command → its fake's stderr and exit status
    "export": ("tui-llm: there is no run of that name", 2),
    "pull": ('{"doing": "asking the hub", "done": 1, "total": 3}\ntui-llm: the hub can not be reached', 2),
    "worker.step_time": ("", 1),
}
WORKERS = 2  # alive at the same time, besides the soak's run
LEFT = 6  # number of runs and models that `tidy` keeps


class Home:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data, self.here = folder / "home", folder / "here"
        self.here.mkdir(parents=True)
        (folder / "user").mkdir()
        self.corpus = self.here / "corpus.txt"
        self.corpus.write_text(CORPUS)
        self.run = self.data / "runs" / "soak"
        self.step = 40
        self._workers: list[subprocess.Popen[bytes]] = []
        self._holder: subprocess.Popen[bytes] | None = None
        self._popen = subprocess.Popen
        os.environ |= {
            "HOME": str(folder / "user"),
            "XDG_DOWNLOAD_DIR": str(folder / "user"),
            "TUI_LLM_HOME": str(self.data),
            "HF_HUB_OFFLINE": "1",
            "HF_ENDPOINT": "http://127.0.0.1:9",
        }
        for proxy in ("http_proxy", "https_proxy"):
            os.environ[proxy] = "http://127.0.0.1:9"
        os.chdir(self.here)

    def train(self) -> None:
        """Trains the run for a moment, and keeps a copy of it as a model.

        In a forked process: the app needs torch too, so it is imported once, and a worker handles signals.
        """
        import torch  # noqa: F401

        child = os.fork()
        if not child:
            code = 1
            try:
                code = self._train()
            finally:
                os._exit(code)
        if status := os.waitpid(child, 0)[1]:
            raise RuntimeError(f"no run could be trained: status {status}; {self._log()}")
        self._last = {
            name: json.loads((self.run / name).read_text().splitlines()[-1])
            for name in ("metrics.jsonl", "samples.jsonl", "probes.jsonl")
        }
        copied = self.data / "models" / "copied"
        shutil.copytree(self.run / "checkpoint-40", copied)
        (copied / "chat_template.jinja").write_text(INSTRUCT)  # so that Chat opens
        self.start_worker()

    def _train(self) -> int:
        from tui_llm.cli import main
        from tui_llm.training.worker import process

        words = ["train", str(self.corpus), "--run", "soak", *SETTINGS, "--pin", "The cat=> sat", "--pin", "a"]
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123
            code = main([*words, "--no-start"])
        if code == 0:
            log = os.open(self.run / "worker.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            code = process.main([str(self.run)])
        return code

    def _log(self) -> str:
        log = self.run / "worker.log"
        return log.read_text(errors="replace")[-500:] if log.exists() else ""

    # ── the run ──────────────────────────────────────────────────────────────────────────────────────────────────

    def start_worker(self) -> None:
        if self._holder is None or self._holder.poll() is not None:
            self.end_worker()
            if self.run.is_dir():
                self._holder = self._work(self.run)

    def end_worker(self) -> None:
        """Ends the worker like SIGKILL."""
        holder, self._holder = self._holder, None
        _end(holder)

    def grow(self, steps: int) -> None:
        """Adds `steps` steps to the run; every tenth is an evaluation. Does nothing if the run was deleted."""
        if not self.run.is_dir():
            return
        for _ in range(steps):
            self.step += 1
            names = ("metrics.jsonl", "samples.jsonl", "probes.jsonl") if self.step % 10 == 0 else ("metrics.jsonl",)
            for name in names:
                value = {**self._last[name], "step": self.step}
                if name == "metrics.jsonl" and self.step % 10:
                    value.pop("val_loss", None)
                with (self.run / name).open("ab") as file:
                    file.write(json.dumps(value).encode() + b"\n")

    def save(self) -> None:
        """Adds a checkpoint to the run and deletes the oldest."""
        kept = sorted(self.run.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
        if not kept or kept[-1].name == f"checkpoint-{self.step}":
            return
        part = self.run / "part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(kept[-1], part)
        state = json.loads((part / "training.json").read_text())
        (part / "training.json").write_text(json.dumps({**state, "step": self.step}))
        part.rename(self.run / f"checkpoint-{self.step}")
        for path in kept[:-1]:
            shutil.rmtree(path)

    def tidy(self) -> None:
        """Deletes what keys have created: thousands of pictures, runs and models would slow down each listing.

        The run starts again from its copy, so that its files do not grow without bound. Files that the app has open are
        deleted too, as another process might do.
        """
        self.end_worker()
        for worker in self._workers:
            _end(worker)
        self._workers.clear()
        for path in self.here.iterdir():
            if path != self.corpus:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        for folder in (self.data / "runs", self.data / "models"):
            for path in sorted(folder.glob("*"))[LEFT:]:
                if path != self.run and path.is_dir():
                    shutil.rmtree(path)
        for path in sorted((self.data / "models").glob("copied*"))[1:]:
            shutil.rmtree(path)
        self._begin_anew()

    def _begin_anew(self) -> None:
        pristine = self.folder / "pristine"
        if not pristine.exists():
            return
        shutil.rmtree(self.run, ignore_errors=True)
        shutil.copytree(pristine, self.run)
        self.step = 40
        self.start_worker()

    def keep_pristine(self) -> None:
        self.end_worker()
        shutil.copytree(self.run, self.folder / "pristine")
        self.start_worker()

    def close(self) -> None:
        self.end_worker()
        for worker in self._workers:
            _end(worker)

    # ── fakes of processes ──────────────────────────────────────────────────────────────────────────────────

    def stand_in(self) -> None:
        """Makes this process start fakes instead of workers, exports, pulls and measurements."""
        from tui_llm.training.plan import launch, step_time
        from tui_llm.tui.models import pull
        from tui_llm.tui.runs import run_actions

        modules: tuple[Any, ...] = (launch, step_time, pull, run_actions)
        for module in modules:
            module.subprocess = _with(subprocess, Popen=self._start, run=self._run)
        launch.os = _with(os, kill=self._kill)  # type: ignore[attr-defined]

    def _start(self, command: Sequence[str], **options: Any) -> Any:
        name = next((name for name in SAID if any(name in word for word in command)), None)
        if name is None:
            return self._started(self._work(Path(options["cwd"])))
        said, status = SAID[name]
        return self._popen(["/bin/sh", "-c", 'printf "%s\\n" "$1" >&2; exit $2', "sh", said, str(status)], **options)

    def _run(self, command: Sequence[str], **options: Any) -> Any:
        return SimpleNamespace(returncode=SAID["export"][1], stderr=SAID["export"][0], stdout="")

    def _work(self, run: Path) -> subprocess.Popen[bytes]:
        """Starts a fake worker. Returns once it holds the run's lock or has failed to acquire it."""
        reader, writer = os.pipe()
        process = self._popen(
            [sys.executable, "-I", "-S", "-c", WORKER, str(run), str(writer)], pass_fds=(writer,), start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(writer)
        os.read(reader, 4)
        os.close(reader)
        return process

    def _started(self, process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        """Remembers a worker that the app started, and ends the oldest ones."""
        self._workers.append(process)
        while len(self._workers) > WORKERS:
            _end(self._workers.pop(0))
        return process

    def _kill(self, pid: int, number: int) -> None:
        """Sends a signal to one of these workers and waits for its end, so that the next event finds it gone."""
        for process in (*self._workers, *([self._holder] if self._holder else [])):
            if process.poll() is None and process.pid == pid and number == signal.SIGTERM:
                _end(process)
                return
        raise ProcessLookupError(pid)


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _with(module: ModuleType, **replaced: Any) -> ModuleType:
    stand_in = ModuleType(module.__name__)
    stand_in.__dict__.update(vars(module), **replaced)
    return stand_in
