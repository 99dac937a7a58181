"""A metrics file with an incomplete or damaged line: every reader continues with the intact lines."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.training.run_helpers import begin, lines, losses, make, wait, words, work
from tui_llm import cli
from tui_llm.training.plan.follow import progress
from tui_llm.training.run import jsonl
from tui_llm.training.run.metrics import MetricsTail, parse_metric
from tui_llm.training.run.run import Run
from tui_llm.training.run.snapshot import RunReader, last_validation, sampled_losses


def _flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(b ^ 0xFF for b in data[middle : middle + 300]) + data[middle + 300 :]


def _nuls(data: bytes) -> bytes:
    """Damage as after a power failure: blocks that the file system allocated but never wrote are zeros."""
    middle = len(data) // 2
    return data[:middle] + bytes(4096) + data[middle + 200 :]


def _inserted(junk: bytes) -> Callable[[bytes], bytes]:
    def damage(data: bytes) -> bytes:
        middle = data.index(b"\n", len(data) // 2) + 1
        return data[:middle] + junk + data[middle:]

    return damage


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "half a line": lambda data: data + data[:30],
    "only half a line": lambda data: data[:30],
    "flipped bytes": _flip,
    "NULs": _nuls,
    "NULs at the end": lambda data: data[:-100] + bytes(20_000) + b"\n",
    "ten megabytes in a line": _inserted(b"x" * 10_000_000 + b"\n"),
    "ten megabytes at the end": lambda data: data + b"[" * 10_000_000 + b"\n",
    "ten megabytes without an end": lambda data: data + b'{"step": ' + b"1" * 10_000_000,
    "not UTF-8": _inserted(b'{"step": 5, "loss": "\xff\xfe\x80"}\n\xff\xfe\n'),
    "numbers that are none": _inserted(
        b'{"step": 1e400, "loss": NaN}\n{"step": 17, "loss": NaN, "lr": -Infinity, "grad_norm": 1e308, '
        b'"tokens_per_second": NaN, "time": Infinity, "val_loss": NaN}\n'
    ),
    "control characters": _inserted(b"\x1b[31m[red]\x1b]0;x\x07\n"),
    "the same lines twice": lambda data: data + data,
}


def whole(data: bytes) -> list[int]:
    return [metric.step for line in data.split(b"\n")[:-1] if (metric := parse_metric(line))]


def looked_at(run: Run) -> None:
    """Reads the file with every reader."""
    data = run.metrics_path.read_bytes()
    steps = whole(data)
    last = run.last_metric()
    assert (last.step if last else None) == (steps[-1] if steps else None)
    tail, seen = MetricsTail(run.metrics_path), []
    while True:
        metrics = tail.new(1 << 20)
        seen += [metric.step for metric in metrics]
        for metric in metrics:
            assert "\n" not in progress(run, metric)
        if not tail.more:
            break
    assert seen == steps
    reader = RunReader(run)
    snapshot = reader.read()
    while snapshot.reading:
        snapshot = reader.read()
    assert snapshot.last == (last if steps else None)
    assert all(math.isfinite(v) for v in sampled_losses(run.metrics_path))
    last_validation(run.metrics_path)


@pytest.fixture
def stopped(tmp_path: Path) -> Run:
    text = tmp_path / "text.txt"
    text.write_text(words(2000))
    run = make("run", text, steps=60)
    assert work(run, ("half a line", 45)) == -9
    return run


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[object, ...]]:
    """The losses of an undisturbed run."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("sound")
        patch.setenv("TUI_LLM_HOME", str(folder))
        (folder / "text.txt").write_text(words(2000))
        run = make("run", folder / "text.txt", steps=60)
        assert work(run) == 0
        return losses(run)


def test_all_readers_continue_and_the_run_resumes(
    stopped: Run, sound: list[tuple[object, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    data = stopped.metrics_path.read_bytes()
    newest = stopped.checkpoints()[-1][0]
    for name, damage in DAMAGES.items():
        damaged = damage(data)
        stopped.metrics_path.write_bytes(damaged)
        looked_at(stopped)
        assert cli.main(["runs"]) == 0, name
        shown = capsys.readouterr().out
        assert "died" in shown and "\x1b" not in shown, name
        jsonl.drop_after(stopped.path, newest)
        kept = stopped.metrics_path.read_bytes()
        assert whole(kept) == [step for step in whole(damaged) if step <= newest], name
        assert kept.endswith(b"\n") or not kept, name
        assert len(kept) < 2 * len(data) + 4096, name  # unreadable bytes are not kept in memory
    # Resume one such run: the damaged lines are dropped, and the rest is as in an undisturbed run.
    stopped.metrics_path.write_bytes(_flip(data) + b'{"step": 44, "lo')
    assert work(stopped) == 0, stopped.log_path.read_text()
    assert stopped.status().state == "finished"
    after = losses(stopped)
    assert set(after) < set(sound) and after == sorted(after, key=lambda row: row[0])
    assert [row for row in sound if row[0] > newest] == [row for row in after if row[0] > newest]
    assert len(sound) - len(after) <= 4  # the damage covers 300 bytes


def test_a_file_damaged_while_it_is_followed(tmp_path: Path) -> None:
    """Another process writes junk into a file that a worker appends to: worker and reader continue."""
    text = tmp_path / "text.txt"
    text.write_text(words(2000))
    run = make("run", text, steps=1_000_000, checkpoint_every=1_000_000, eval_every=1_000_000)
    worker = begin(run)
    wait(lambda: run.status().step > 3)
    reader = RunReader(run)
    seen = reader.read().status.step
    with run.metrics_path.open("ab") as file:
        file.write(b"\0" * 100 + b"\n\xff\xfe" + b"y" * 3_000_000 + b"\n")
    wait(lambda: run.status().step > seen + 50)
    snapshot = reader.read()
    while snapshot.reading:
        snapshot = reader.read()
    assert snapshot.last is not None and snapshot.last.step > seen + 50 and snapshot.status.state == "running"
    worker.terminate()
    worker.join()
    assert run.status().state == "stopped"
    worker = begin(run)  # resuming removes the junk
    wait(lambda: run.status().state == "running")
    worker.terminate()
    worker.join()
    assert [row["step"] for row in lines(run.metrics_path)][-1] == run.status().step


LINES = b"".join(
    b'{"step": %d, "loss": 1.25, "lr": 0.01, "grad_norm": 0.5, "tokens_per_second": 900.0, "time": 17.5}\n' % step
    for step in range(1, 40)
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage(data: st.DataObject, home: Path) -> None:
    """Bytes replaced, inserted or removed anywhere."""
    run = Run(home / "runs" / "any")
    if not run.exists():
        (home / "text.txt").parent.mkdir(parents=True)
        (home / "text.txt").write_text(words(200))
        run = make("any", home / "text.txt")
    damaged = bytearray(LINES)
    for _ in range(data.draw(st.integers(1, 4))):
        begin = data.draw(st.integers(0, len(damaged)))
        damaged[begin : begin + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=40))
    run.metrics_path.write_bytes(bytes(damaged))
    looked_at(run)
    jsonl.drop_after(run.path, 20)
    assert all(step <= 20 for step in whole(run.metrics_path.read_bytes()))
