"""The command line in its own process: streams, encodings, working folder, memory, interrupts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NEVER = ("Traceback", "Exception ignored", "internal error")


def run(*arguments: str, code: str = "from tui_llm.__main__ import main; sys.exit(main())", before: str = "", **more: Any) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """Runs the program as its script does, after executing `before` in the same process."""
    program = f"import os, sys\n{before}\n{code}"
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONUNBUFFERED", "PYTHONUTF8")}
    environment |= {"OMP_NUM_THREADS": "1", **more.pop("env", {})}
    more = {"capture_output": True, "stdin": subprocess.DEVNULL, **more}
    if "stdout" in more:
        more["capture_output"] = False
        more.setdefault("stderr", subprocess.PIPE)
    done = subprocess.run([sys.executable, "-c", program, *arguments], env=environment, timeout=600, **more)
    done.stderr = (done.stderr or b"").decode()
    done.stdout = (done.stdout or b"").decode(errors="replace")
    assert not [words for words in NEVER if words in done.stderr], done.stderr
    return done


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("tui-llm: ")
    return done.stderr


@pytest.mark.parametrize("arguments", [("--help",), ("models", "--json")], ids=" ".join)
@pytest.mark.parametrize("buffered", ["", "1"])
def test_a_full_disk_as_output(arguments: tuple[str, ...], buffered: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:  # noqa: PTH123
        assert "No space left" in one_line(run(*arguments, stdout=full, env={"PYTHONUNBUFFERED": buffered}))


@pytest.mark.parametrize("arguments", [("--help",), ("models",)], ids=" ".join)
def test_closed_output(arguments: tuple[str, ...]) -> None:
    assert "Bad file descriptor" in one_line(run(*arguments, before="os.close(1); sys.stdout = sys.__stdout__ = None"))


def test_closed_streams_are_not_reused_by_other_files(tmp_path: Path) -> None:
    """With stdin, stdout or stderr closed, a command writes its result to its file only."""
    out = tmp_path / "tree.json"
    closing = "os.closerange(0, 3); sys.stdin = sys.stdout = sys.stderr = sys.__stdin__ = sys.__stdout__ = sys.__stderr__ = None"
    done = run("tree", "a", "--depth", "1", "--branch", "2", "--out", str(out), before=closing)
    assert done.returncode == 2  # it could not print its lines
    assert json.loads(out.read_text())["format"] == "tui-llm tree"


def test_closed_errors() -> None:
    done = run("runs", "delete", "none", before="os.close(2); sys.stderr = sys.__stderr__ = None")
    assert (done.returncode, done.stderr, done.stdout) == (2, "", "")
    assert run("models", before="os.close(0); sys.stdin = None").returncode == 0


def softmax_that(does: str) -> str:
    """Code that puts these lines in place of a command, run with the words `softmax a=1`."""
    lines = "".join(f"    {line}\n" for line in does.splitlines())
    return f"from tui_llm.common.errors import UserError\nimport tui_llm.commands.softmax as s\ndef softmax(options):\n{lines}s.softmax = softmax\n"  # fmt: skip


@pytest.fixture
def readerless() -> Iterator[int]:
    """The writing end of a pipe whose reader has ended."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


STATUSES = {
    "usage": (("logits", "--bad"), "", 2),
    "no such run": (("runs", "delete", "none"), "", 2),
    "a note": (("softmax", "a=1"), softmax_that("print('note', file=sys.stderr)\nreturn 0"), 0),
    "a note without its end": (("softmax", "a=1"), softmax_that("sys.stderr.write('note')\nreturn 0"), 0),
    "a run that failed": (("softmax", "a=1"), softmax_that("print('failed', file=sys.stderr)\nreturn 1"), 1),
    "internal error": (("softmax", "a=1"), softmax_that("raise ZeroDivisionError"), 2),
    "interrupt": (("softmax", "a=1"), softmax_that("sys.stderr.write('note')\nraise KeyboardInterrupt"), 130),
    "broken installation": (("softmax", "a=1"), "sys.modules['tui_llm.cli'] = None", 2),
}


@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize("kind", STATUSES)
def test_messages_that_cannot_be_written_leave_the_status(kind: str, buffered: str, readerless: int) -> None:
    arguments, before, status = STATUSES[kind]
    environment = {"PYTHONUNBUFFERED": buffered}
    places = [readerless]
    if Path("/dev/full").exists():
        places.append(os.open("/dev/full", os.O_WRONLY))
    for place in places:
        done = run(*arguments, before=before, stdout=subprocess.DEVNULL, stderr=place, env=environment)
        assert done.returncode == status, place
    for place in places[1:]:
        os.close(place)


def test_an_error_after_the_reader_of_the_output_has_ended(readerless: int) -> None:
    """What was printed is still in the buffer; its broken pipe must not take the place of the error."""
    before = softmax_that("print('a line')\nraise UserError('it went wrong; do otherwise')")
    said = one_line(run("softmax", "a=1", before=before, stdout=readerless))
    assert said == "tui-llm: it went wrong; do otherwise\n"
    before = softmax_that("print('a line')\nraise KeyboardInterrupt")
    assert run("softmax", "a=1", before=before, stdout=readerless).returncode == 130
    done = run("softmax", "a=1", before=softmax_that("print('a line')"), stdout=readerless)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "utf-16"])
def test_every_encoding(encoding: str) -> None:
    """Uses commands that do not import torch."""
    code = (
        "import contextlib\nfrom tui_llm.cli import main\nfrom tui_llm.commands.shared.output import put, put_json\n"
        "for words in (['--help'], ['tree', '--help'], ['runs'], ['models'], ['completion', 'bash']):\n"
        "    with contextlib.suppress(SystemExit):\n        assert main(words) == 0, words\n"
        "put('é · – → x\\udcff')\nput_json({'é': 'x\\udcff'})\n"
        "assert main(['runs', 'delete', 'é·–\\udcff']) == 2"
    )
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    said, shown = done.stderr.decode(encoding), done.stdout.decode(encoding)
    assert said.count("\n") == 1 and "Traceback" not in said
    assert "usage: tui-llm" in shown
    *_, line, made = shown.splitlines()
    assert made == '{"\\u00e9": "x\\udcff"}'
    if encoding == "ascii":
        assert line == "\\xe9 . - > x\\udcff" and "text > tokens" in shown
    if encoding.startswith("utf"):
        assert line == "é · – → x\\udcff" and "text → tokens" in shown


def test_file_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"none\xff\x1b[31m")
    said = one_line(run("train", str(tmp_path / name), "--run", "r", "--preset", "toy", "--no-start"))
    assert "\x1b" not in said and "none" in said
    (tmp_path / name).write_text("a line of text\n" * 100)
    done = run("train", str(tmp_path / name), "--run", "r", "--preset", "toy", "--no-start", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["run"] == "r"


@pytest.mark.parametrize(
    "arguments", [(), ("models",), ("logits", "a"), ("tree", "a", "--out", "x.json")], ids=" ".join
)  # fmt: skip
def test_a_deleted_folder(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    gone = f"os.mkdir({str(tmp_path / 'gone')!r}); os.chdir({str(tmp_path / 'gone')!r}); os.rmdir({str(tmp_path / 'gone')!r})"
    assert "current folder was deleted" in one_line(run(*arguments, before=gone))


@pytest.mark.parametrize("kind", ["loop", "file", "under a file", "~nosuchuser/x", "x" * 5000, "/proc/none"])
def test_an_unusable_home_folder_is_one_line(tmp_path: Path, kind: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("")
    place = {
        "loop": str(tmp_path / "loop"),
        "file": str(tmp_path / "file"),
        "under a file": str(tmp_path / "file" / "x"),
    }
    environment = {"TUI_LLM_HOME": place.get(kind, kind)}
    corpus = tmp_path / "text.txt"
    corpus.write_text("a line of text\n" * 100)
    said = one_line(run("train", str(corpus), "--run", "r", "--preset", "toy", "--no-start", env=environment))
    assert len(said) < 1000
    assert kind == "/proc/none" or "TUI_LLM_HOME" in said, said


def test_environment_variables_that_name_no_folder() -> None:
    for variable, place in (("HF_HOME", "~nosuchuser/x"), ("HF_HUB_CACHE", "x" * 5000)):
        assert variable in one_line(run("models", "info", "none/none", env={variable: place}))


LIMITS = (
    60_000,
    165_000,
    300_000,
    500_000,
    600_000,
    700_000,
    800_000,
)  # kB: enough for Python only, for numpy without its BLAS, for part of torch, for all but the model


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space as Linux has them")
@pytest.mark.parametrize("limit", LIMITS)
def test_too_little_memory(limit: int) -> None:
    before = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({limit * 1024},) * 2)"
    for command, enough in (("lens", 600_000), ("logits", 100_000)):  # with torch, and without
        done = run(command, "a", "--top", "1", "--device", "cpu", before=before)
        if done.returncode != 0:
            assert "memory" in one_line(done)
        else:
            assert limit > enough


INTERRUPT = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts its background jobs with SIGINT ignored
class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupts())
"""


@pytest.mark.parametrize(
    "name", ["tui_llm.cli", "tui_llm.commands.shared.parser", "tui_llm.commands.lens", "torch", "torch.nn", "tiktoken"]
)  # fmt: skip
def test_ctrl_c_while_modules_are_imported(name: str) -> None:
    done = run("lens", "a", before=INTERRUPT.format(name=name))
    assert (done.returncode, done.stderr) == (130, "")


def test_the_last_resort(home: Path) -> None:
    """An unexpected exception prints one line; the traceback is in the log, or printed if requested."""
    broken = "import tui_llm.commands.softmax as s\ndef softmax(options): raise ZeroDivisionError('[/] \\x1b[31m odd')\ns.softmax = softmax"
    done = subprocess.run([sys.executable, "-c", f"{broken}\nimport sys\nfrom tui_llm.__main__ import main\nsys.exit(main())", "softmax", "a=1"], capture_output=True, text=True, timeout=600)  # fmt: skip
    log = home / "log" / "errors.log"
    assert done.returncode == 2
    assert done.stderr == f"tui-llm: internal error: ZeroDivisionError: [/] ␛[31m odd; details in {log}\n"
    assert "Traceback" in log.read_text() and "ZeroDivisionError" in log.read_text()
    (home / "log").rename(home / "logs")
    (home / "log").write_text("a file")
    done = subprocess.run([sys.executable, "-c", f"{broken}\nimport sys\nfrom tui_llm.__main__ import main\nsys.exit(main())", "softmax", "a=1"], capture_output=True, text=True, timeout=600, env={**os.environ, "TUI_LLM_DEBUG": "1"})  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("tui-llm: internal error: ")
    assert "no log could be written" in done.stderr.splitlines()[-1]


def test_tracebacks_of_threads_go_to_the_log(home: Path) -> None:
    code = (
        "import threading\nfrom tui_llm import __main__ as entry, cli\n"
        "def main():\n    one = threading.Thread(target=lambda: 1 / 0)\n    one.start()\n    one.join()\n    return 0\n"
        "cli.main = main\nsys.exit(entry.main())"
    )
    done = run(code=code)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ZeroDivisionError" in (home / "log" / "errors.log").read_text()
