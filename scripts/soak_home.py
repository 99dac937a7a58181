"""The environment of a soak: a home and a working folder, a run that is trained, and runs and models of others.

The run is really trained for a moment. After that, the soak decides when it makes a step, writes a checkpoint, or loses
its worker, through the run's files and its lock. Other processes that keys would start are replaced by fakes
(soak_processes.py). All that the app reads from files contains hostile text: the corpus, the log, the status, samples, the
model's card, and the name of a run.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from soak_events import HOSTILE
from soak_processes import Processes, end

from tui_llm.llm.adapters.chat import INSTRUCT

FOREIGN_TEXT = "".join(HOSTILE).replace("\x00", "")
FILE_NAME = "\x1b[31;1337mcor\x9b6npus\x07.txt"
RUN_NAME = "a\x1b[31;1337m[red]\x9b6n\u202erun"
CORPUS = ("the cat sat on the mat and slept.\n" * 20 + FOREIGN_TEXT + "\n") * 20
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
LEFT = 6  # number of runs and models that `tidy` keeps


class Home:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data, self.here = folder / "home", folder / "here"
        self.here.mkdir(parents=True)
        (folder / "user").mkdir()
        self.corpus = self.here / "corpus.txt"
        self.corpus.write_text(CORPUS)
        self.second_corpus = self.here / FILE_NAME
        self.second_corpus.write_text(CORPUS)
        self.foreign = self.here / "foreign"  # checkpoints of another program
        self.run = self.data / "runs" / "soak"
        self.step = 40
        self.processes = Processes()
        self.processes.kept = self.run
        self._holder: subprocess.Popen[bytes] | None = None
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
        self.processes.recorded |= json.loads(self._recorded.read_text())
        self._last = {
            name: json.loads((self.run / name).read_text().splitlines()[-1])
            for name in ("metrics.jsonl", "samples.jsonl", "probes.jsonl")
        }
        copied = self.data / "models" / "copied"
        shutil.copytree(self.run / "checkpoint-40", copied)
        (copied / "chat_template.jinja").write_text(INSTRUCT)  # so that Chat opens
        (copied / "README.md").write_text(f"# A card\n\n{FOREIGN_TEXT}\n")
        for value in self._last["samples.jsonl"], self._last["probes.jsonl"]:
            value |= {name: found + FOREIGN_TEXT for name, found in value.items() if isinstance(found, str)}
        self.start_worker()

    def _train(self) -> int:
        from tui_llm.cli import main
        from tui_llm.training.run import health
        from tui_llm.training.run.alarm_kinds import DIVERGENCE, Alarm
        from tui_llm.training.run.run import Run
        from tui_llm.training.worker import foreign, process, replay

        words = [
            "train",
            str(self.corpus),
            str(self.second_corpus),
            "--run",
            "soak",
            *SETTINGS,
            "--pin",
            "The cat=> sat",
            "--pin",
            "a",
        ]
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123
            code = main([*words, "--no-start"])
        if code == 0:
            log = os.open(self.run / "worker.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            code = process.main([str(self.run)])
        if code == 0:
            health.record(Run(self.run), [Alarm(DIVERGENCE, 11, 12, FOREIGN_TEXT)])
            with (self.run / "worker.log").open("a") as file:
                file.write(FOREIGN_TEXT + "\n")
            self._copy_foreign()
            self._recorded.write_text(json.dumps({
                "replay": _lines(replay.main, {"run": str(self.run), "step": 35, "from_start": False, "gradients": True, "threads": 1}),
                "foreign": _lines(foreign.main, {"source": str(self.foreign), "device": "cpu"}),
            }))  # fmt: skip
        return code

    @property
    def _recorded(self) -> Path:
        return self.folder / "recorded.json"

    def _copy_foreign(self) -> None:
        """Makes a folder as transformers' Trainer leaves it, with two checkpoints."""
        for step in (10, 40):
            shutil.copytree(self.run / "checkpoint-40", self.foreign / f"checkpoint-{step}")
        history = [{"step": step, "loss": 5.0 - step / 20, FOREIGN_TEXT: 1.0} for step in range(1, 41)]
        (self.foreign / "trainer_state.json").write_text(json.dumps({"log_history": history, "max_steps": 40}))

    def _log(self) -> str:
        log = self.run / "worker.log"
        return log.read_text(errors="replace")[-500:] if log.exists() else ""

    # ── the run ──────────────────────────────────────────────────────────────────────────────────────────────────

    def start_worker(self) -> None:
        if self._holder is None or self._holder.poll() is not None:
            self.end_worker()
            if self.run.is_dir():
                self._holder = self.processes.work(self.run)

    def end_worker(self) -> None:
        """Ends the worker like SIGKILL."""
        holder, self._holder = self._holder, None
        end(holder)

    def grow(self, steps: int) -> None:
        """Adds `steps` steps to the run, and to those that the app has started; every tenth is an evaluation. Does nothing
        where the run was deleted."""
        self.step = self._grow(self.run, self.step, steps)
        for run in self.processes.alive():
            if run != self.run:
                done = (run / "metrics.jsonl").read_bytes().count(b"\n") if (run / "metrics.jsonl").exists() else 0
                self._grow(run, done, steps)

    def _grow(self, run: Path, step: int, steps: int) -> int:
        """Returns the number of the last step."""
        for _ in range(steps if run.is_dir() else 0):
            step += 1
            names = ("metrics.jsonl", "samples.jsonl", "probes.jsonl") if step % 10 == 0 else ("metrics.jsonl",)
            for name in names:
                value = {**self._last[name], "step": step}
                if name == "metrics.jsonl" and step % 10:
                    value.pop("val_loss", None)
                with (run / name).open("ab") as file:
                    file.write(json.dumps(value).encode() + b"\n")
        return step

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
        self.processes.end_all()
        for path in self.here.iterdir():
            if path not in (self.corpus, self.second_corpus, self.foreign):
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
        other = self.data / "runs" / RUN_NAME
        shutil.rmtree(other, ignore_errors=True)
        shutil.copytree(pristine, other)
        self.step = 40
        self.start_worker()

    def keep_pristine(self) -> None:
        """Keeps a copy of the run, to begin again from; another one is a second run, with a foreign name."""
        self.end_worker()
        shutil.copytree(self.run, self.folder / "pristine")
        self._begin_anew()

    def close(self) -> None:
        self.end_worker()
        self.processes.end_all()


def _lines(main: Callable[[], int], asked: dict[str, Any]) -> list[dict[str, Any]]:
    """What a module of training/worker writes to a request."""
    written, stdin = io.StringIO(), sys.stdin
    sys.stdin = io.StringIO(json.dumps(asked) + "\n")
    try:
        with contextlib.redirect_stdout(written):
            if main():
                raise RuntimeError(written.getvalue())
    finally:
        sys.stdin = stdin
    return [json.loads(line) for line in written.getvalue().splitlines()]
