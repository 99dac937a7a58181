"""The app exits properly while its threads work: computations are abandoned, writes are completed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fake_engine import FakeEngine
from test_terminal import run_in_terminal

from tui_llm.facts.request import Request
from tui_llm.instruments.learn.question import KeepQuestion
from tui_llm.tui.state.engine_client import EngineClient

REPOSITORY = Path(__file__).resolve().parents[2]

COMPUTING = """
    import sys, threading
    sys.path.insert(0, {tests!r})
    import torch
    from fake_engine import FakeEngine
    from tui_llm.common.process_exit import exit_with
    from tui_llm.tui.app import LabApp
    from tui_llm.tui.terminal import run_app

    begun = threading.Event()

    class Computing(FakeEngine):
        def read(self, request, overtaken=lambda: False):
            matrix = torch.ones(64, 64)
            while True:  # a forward pass that nobody can interrupt
                matrix @ matrix
                begun.set()

    class Ending(LabApp):
        def on_ready(self):
            {ready}
            self.set_interval(0.01, lambda: begun.is_set() and self.exit())

    raise SystemExit(exit_with(run_app(Ending(Computing))))
"""


@pytest.mark.parametrize("again", range(3))
def test_the_app_quits_while_torch_computes(tmp_path: Path, again: int) -> None:
    """Python kills a thread that returns from torch after the interpreter has shut down; that aborts the process."""
    status, out = run_in_terminal(tmp_path, runner=COMPUTING)
    assert status == 0, out[-500:]
    assert b"\x1b[?1049l" in out and b"terminate" not in out


IMPORTING = """
    import importlib.abc, importlib.util, sys, threading
    from tui_llm import cli
    from tui_llm.common.process_exit import exit_with
    from tui_llm.tui import app

    begun = threading.Event()

    class Endless(importlib.abc.MetaPathFinder, importlib.abc.Loader):
        def find_spec(self, name, path=None, target=None):
            if name == {ready!r}:
                return importlib.util.spec_from_loader(name, self)

        def exec_module(self, module):  # holds the lock of this module, and of those that import it
            assert threading.current_thread() is not threading.main_thread()
            begun.set()
            threading.Event().wait()

    class Ending(app.LabApp):
        def on_ready(self):
            self.set_interval(0.01, lambda: begun.is_set() and self.exit())

    app.LabApp = Ending
    sys.meta_path.insert(0, Endless())
    raise SystemExit(exit_with(cli.main([])))
"""


@pytest.mark.parametrize("module", ["numpy", "torch"])
def test_the_app_quits_while_an_import_never_ends(tmp_path: Path, module: str) -> None:
    status, out = run_in_terminal(tmp_path, ready=module, runner=IMPORTING)
    assert status == 0, out[-500:]
    assert b"\x1b[?1049l" in out and b"Traceback" not in out
    assert not (tmp_path / "log" / "errors.log").exists()


class Writing:
    """An engine whose answers wait until the test releases them."""

    def __init__(self) -> None:
        import threading

        self.begun, self.go_on = threading.Event(), threading.Event()
        self.written: list[str] = []

    def open(self, model: str) -> object:
        return None

    def answer(self, question: KeepQuestion, overtaken: object) -> None:
        self.begun.set()
        self.go_on.wait()
        self.written.append(question.name)


@pytest.mark.parametrize("moment", ["as it is written", "before it is begun"])
def test_a_saved_model_is_written_before_the_app_ends(moment: str) -> None:
    engine = Writing()
    client = EngineClient(lambda: engine, lambda _message: None)  # type: ignore[arg-type, return-value]
    client.inquire(KeepQuestion(Request("a"), name="mine"))
    if moment == "as it is written":
        client.start("nano")
        engine.begun.wait()
        client.close()
    else:
        client.close()
        client.start("nano")
        engine.begun.wait()
    client.forget(KeepQuestion)  # its screen is closed, so the answer is not awaited, but the file must be written
    engine.go_on.set()
    client.finish()
    assert engine.written == ["mine"]


def test_the_app_quits_properly_at_random_moments() -> None:
    """Quits the real app a few times; `scripts/ends.py` does it 200 times."""
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "scripts" / "ends.py"), "--ends", "4", "--seed", "4"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_reading_requested_while_a_model_opens_is_dropped() -> None:
    """It is of the previous model's tokens; the lab requests another once it knows the new model."""
    engine, posted = FakeEngine(), []
    client = EngineClient(lambda: engine, posted.append)  # type: ignore[arg-type, return-value]
    client._engine = engine  # type: ignore[assignment]
    engine.open("nano")
    client.open("other")
    client.read(Request(prompt="a", continuation=(980,)))
    client._open()
    assert client._next() is None and engine.opened[-1] == "other"
    assert [type(message).__name__ for message in posted] == ["EngineProgress", "ModelOpened", "EngineProgress"]
