"""The package's own child processes that need torch, forked from a process that has imported it: the import takes each
of them more than a second of CPU, longer than most of them work.

They are processes of their own, with their own session, streams, folder and environment, and import the package itself
afresh. Other commands, those whose environment changes how torch is loaded, and those of the tests in `REAL` start by
their command line.
"""

from __future__ import annotations

import inspect
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

WORKER, READER = "tui_llm.training.worker", "archive_worker.py"
REAL = (
    "test_launch",
    "test_start",
    "test_survival",
    "test_distributed",
    "test_torch_compile",
    "test_hostile_checkpoints",
)
"""Modules whose tests are about how a process starts, or about what it may use."""

LOADED = ("PYTHON", "LC_", "LANG", "OMP_", "KMP_", "GOMP_", "MKL_", "ONEDNN_", "DNNL_", "ATEN_", "TORCH", "LD_")
"""Variables that the interpreter or torch's libraries read once. PYTHONPATH is set anew; no test has a GPU (tests/__init__.py)."""

LIBRARIES = ("torch", "torch.utils._device", "numpy.ctypeslib", "numpy.ma", "numpy.random", "safetensors.torch", "filelock", "tiktoken")  # fmt: skip
MOST, ROOM = 100_000, 4_000  # bytes of a message, and of a command line

real = True  # whether all processes start by their command line


def _loaded(environment: Mapping[str, str]) -> dict[str, str]:
    # With one thread, as in the tests, none spins: workers get GOMP_SPINCOUNT, this process does not.
    return {k: v for k, v in environment.items() if k.startswith(LOADED) and k not in ("PYTHONPATH", "GOMP_SPINCOUNT")}


# ── in the tests ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Server:
    """The process that forks. It ends with this one; what it has forked goes on, as a worker does."""

    def __init__(self) -> None:
        self.owner, self.environment, self.lock = os.getpid(), dict(os.environ), threading.Lock()
        self.socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-P", str(Path(__file__).resolve()), str(other.fileno()), "_" * ROOM]
        self.process = _Popen(command, stdin=subprocess.DEVNULL, pass_fds=[other.fileno()], start_new_session=True)
        other.close()

    def ask(self, request: bytes, files: tuple[int, ...] = ()) -> int:
        with self.lock:
            socket.send_fds(self.socket, [request], files)
            return int(self.socket.recv(100))


_Popen = subprocess.Popen
_server: Server | None = None


def _request(call: Mapping[str, Any]) -> bytes | None:
    """What the server is to fork for a call of `Popen._execute_child`; None: it starts by its command line."""
    args, environment = call["args"], call["env"] if call["env"] is not None else os.environ
    if real or not isinstance(args, list) or args[0] != sys.executable or call["preexec_fn"] or call["pass_fds"]:
        return None
    by_module = args[1] == "-m" and (args[2] == WORKER or args[2].startswith(f"{WORKER}."))
    if not by_module and not (args[1] == "-P" and args[2].endswith(READER)):
        return None
    if _server is not None and (_server.owner != os.getpid() or _loaded(environment) != _loaded(_server.environment)):
        return None
    wanted = {
        "module": args[2] if by_module else "",
        "command": args,
        "arguments": args[2:],
        "environment": dict(environment),
        "folder": os.fspath(call["cwd"] or Path.cwd()),
        "session": call["start_new_session"],
    }
    message = json.dumps(wanted).encode()
    return message if len(message) < MOST else None


class Popen(_Popen):  # type: ignore[type-arg]
    """`subprocess.Popen`, that has the package's own processes forked by the server."""

    _pidfd = -1

    def _execute_child(self, *given: Any) -> None:
        global _server
        whole = super()._execute_child  # type: ignore[misc]
        call = inspect.signature(whole).bind(*given).arguments
        request = _request(call)
        if request is None:
            whole(*given)
            return
        if _server is None:
            _server = Server()
            if _loaded(_server.environment) != _loaded(json.loads(request)["environment"]):
                whole(*given)
                return
        files = tuple(
            own if file == -1 else file
            for own, file in enumerate((call["p2cread"], call["c2pwrite"], call["errwrite"]))
        )
        self.pid = _server.ask(request, files)
        self._pidfd = os.pidfd_open(self.pid)
        self._child_created = True
        self._close_pipe_fds(
            *(call[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite"))
        )  # type: ignore[attr-defined]

    def _ended(self, seconds: float | None) -> bool:
        wait = select.poll()
        wait.register(self._pidfd, select.POLLIN)
        return bool(wait.poll(None if seconds is None else seconds * 1000))

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if self._pidfd == -1:
            return super()._try_wait(wait_flags)  # type: ignore[misc, no-any-return]
        if not self._ended(0 if wait_flags & os.WNOHANG else None):
            return 0, 0
        os.close(self._pidfd)
        assert _server is not None
        return self.pid, _server.ask(str(self.pid).encode())

    def _internal_poll(self, _deadstate: Any = None, **rest: Any) -> Any:
        if self._pidfd == -1:
            return super()._internal_poll(_deadstate, **rest)  # type: ignore[misc]
        if self.returncode is None and self._waitpid_lock.acquire(False):  # type: ignore[attr-defined]
            try:
                if self.returncode is None and (found := self._try_wait(os.WNOHANG))[0]:
                    self._handle_exitstatus(found[1])  # type: ignore[attr-defined]
            except OSError:
                self.returncode = _deadstate
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        return self.returncode


def install() -> None:
    if hasattr(os, "pidfd_open"):  # Linux
        subprocess.Popen = Popen  # type: ignore[misc]


# ── in the server ────────────────────────────────────────────────────────────────────────────────────────────────────


def serve(descriptor: int) -> None:
    import gc
    from importlib import import_module

    for library in LIBRARIES:
        import_module(library)
    gc.freeze()
    with socket.socket(fileno=descriptor) as asked:
        while True:
            request, files, _, _ = socket.recv_fds(asked, MOST, 3)
            if not request:
                return
            if request.isdigit():
                answer = os.waitpid(int(request), 0)[1]
            else:
                ready, begun = os.pipe()
                if not (answer := os.fork()):
                    asked.detach()
                    os._exit(_become(json.loads(request), files))
                os.close(begun)
                os.read(ready, 1)  # nothing: the process has its session and streams, and has closed all else
                os.close(ready)
            for file in files:
                os.close(file)
            asked.send(str(answer).encode())


def _show(command: list[str]) -> None:
    """Makes `command` this process's command line for others, by which they know a run's worker (proc(5): stat)."""
    import ctypes

    words = Path("/proc/self/stat").read_bytes().rpartition(b") ")[2].split()
    start, room = int(words[45]), int(words[46]) - int(words[45])
    line = b"\0".join(map(os.fsencode, command))
    ctypes.memmove(start, line[: room - 1].ljust(room, b"\0"), room)


def _become(wanted: dict[str, Any], files: list[int]) -> int:
    """Makes the forked process what the command line starts, and runs it. Returns the exit status."""
    import atexit
    import random
    import runpy
    import traceback

    if wanted["session"]:
        os.setsid()
    for own, file in enumerate(files):
        os.dup2(file, own)
    _show(wanted["command"])
    os.closerange(3, max(map(int, os.listdir("/proc/self/fd"))) + 1)  # noqa: PTH208
    os.chdir(wanted["folder"])
    os.environ.clear()
    os.environ.update(wanted["environment"])
    for own, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        before = getattr(sys, name)
        stream = open(own, mode, encoding=before.encoding, errors=before.errors, closefd=False)  # noqa: SIM115
        if name == "stderr":
            stream.reconfigure(line_buffering=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    places = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    sys.path[:0] = [wanted["folder"], *places] if wanted["module"] else places
    sys.argv = wanted["arguments"]
    random.seed()
    code: Any = 0
    try:
        if wanted["module"]:
            runpy.run_module(wanted["module"], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(wanted["arguments"][0], run_name="__main__")
    except SystemExit as left:
        code = left.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code & 0xFF


if __name__ == "__main__":
    serve(int(sys.argv[1]))
