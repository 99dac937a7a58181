"""Training with several processes equals training with one.

The tests use real processes that communicate through gloo. Most do without torchrun, which takes longer to start than
all of them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests import HANG
from tests.training.run_helpers import _context, _work, begin, leftovers, lines, losses, make, wait, words
from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import read_json
from tui_llm.training.plan import launch
from tui_llm.training.run import changes
from tui_llm.training.run.run import Run
from tui_llm.training.worker.distributed import Stopped, Torchrun

FIELDS = {"steps": 10, "eval_every": 5, "checkpoint_every": 4, "layers": 2}
LONG = {"steps": 10_000_000, "checkpoint_every": 1_000_000, "eval_every": 1_000_000}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(words(2000))
    return path


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    yield
    for process in _begun:
        process.kill()
        process.join()
    _begun.clear()
    _stores.clear()


EVERY = -1
_begun: list[BaseProcess] = []
_stores: list[torch.distributed.TCPStore] = []


def ranks(run: Run, world: int, spoiled: int | None = None, how: str = "corpus") -> list[BaseProcess]:
    """Starts the processes of `run` as torchrun would.

    Process `spoiled` (or `EVERY`) can't read the corpus, has no memory for a step, or orthogonalizes in float32.
    """
    # Hold the store, as torchrun does: a free port that is only looked up could be taken by another test.
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    _stores.append(store)
    made = []
    for rank in range(world):
        told = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": world,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": store.port,
        }
        environment = {
            "OMP_NUM_THREADS": "1",
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            **{name: str(value) for name, value in told.items()},
        }
        made.append(_context.Process(target=_rank, args=(str(run.path), os.environ["TUI_LLM_HOME"], environment, how if spoiled in (rank, EVERY) else "")))  # fmt: skip
    for process in made:
        process.start()
    _begun.extend(made)
    return made


def _rank(path: str, home: str, environment: dict[str, str], spoiled: str) -> None:
    from tui_llm.llm.data import corpus
    from tui_llm.training.worker import distributed as module
    from tui_llm.training.worker import loop

    os.environ.update(environment)
    torch.set_num_threads(1)
    loop.trains_in_bfloat16 = module.devices.trains_in_bfloat16 = lambda _: False

    def load(*_: Any, **__: Any) -> None:
        raise UserError("this [red]node has no such file")

    def update(*_: Any) -> None:
        raise torch.OutOfMemoryError("no room")

    if spoiled == "corpus":
        corpus.load = load  # type: ignore[assignment]
    elif spoiled == "float32":
        torch.Tensor.bfloat16 = torch.Tensor.float  # type: ignore[method-assign, assignment]
    elif spoiled:
        loop.Trainer._update = update  # type: ignore[assignment, method-assign]
    _work(path, home, None, 5.0)


def ended(processes: list[BaseProcess]) -> list[int | None]:
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def train(run: Run, world: int, how: str = "") -> None:
    assert ended(ranks(run, world, EVERY, how)) == [0] * world, run.log_path.read_text()
    assert run.status().state == "finished" and leftovers(run.path) == []


def alike(run: Run, other: Run) -> None:
    """Checks that losses, final weights and final optimizer state are equal within tolerance."""
    mine, theirs = losses(run), losses(other)
    assert [m[0] for m in mine] == [t[0] for t in theirs]
    for m, t in zip(mine, theirs, strict=True):
        assert m[1:4] == pytest.approx(t[1:4], rel=1e-4)
        assert (m[4] is None) == (t[4] is None) and (m[4] is None or m[4] == pytest.approx(t[4], rel=1e-4))
    assert [s["step"] for s in lines(run.samples_path)] == [s["step"] for s in lines(other.samples_path)]
    folders = [r.checkpoints()[-1][1] for r in (run, other)]
    for name in ("model.safetensors", "optimizer.safetensors"):
        a, b = (load_file(folder / name) for folder in folders)
        assert a.keys() == b.keys()
        assert all(a[key].shape == b[key].shape for key in a)
        for key in (k for k in a if "attn.c_attn.bias" not in k and "attention.qkv.bias" not in k):
            # (Softmax is invariant to the keys' biases: their gradient is rounding noise, which Adam amplifies.)
            assert torch.allclose(a[key], b[key], rtol=1e-2, atol=2e-4), key


def test_two_processes_train_as_one_and_a_resume_may_change_their_number(text: Path) -> None:
    # 3 × 4 rows: each batch is split in two; 5 held-out rows, which two processes can't share equally.
    fields = {**FIELDS, "grad_accumulation_steps": 3, "eval_batches": 5, "batch_size": 4, "clip": 0.5}
    one, two, parts = make("one", text, **fields), make("two", text, **fields), make("parts", text, **fields)
    launch.set_processes(parts, shard=True)
    train(one, 1)
    train(two, 2)
    train(parts, 2)
    alike(two, one)
    alike(parts, one)
    launch.set_processes(two, shard=True)
    for run, world in ((one, 1), (two, 2), (parts, 1)):
        launch.set_steps(run, 14)
        train(run, world)
    alike(two, one)
    alike(parts, one)


def test_sharded_muon_steps_as_one_process_does(text: Path) -> None:
    """Muon orthogonalizes in bfloat16, whose rounding depends on the order of the sums: here in float32."""
    fields = {**FIELDS, "optimizer": "muon", "steps": 6, "eval_every": 3, "layers": 1, "batch_size": 4}
    one, parts = make("one", text, **fields), make("parts", text, **fields)
    launch.set_processes(parts, nproc=2, shard=True)
    train(one, 1, "float32")
    train(parts, 2, "float32")
    alike(parts, one)
    for run in (one, parts):
        launch.set_steps(run, 8)
    launch.set_processes(parts, nproc=1, shard=False)  # one process continues with the gathered momentum
    train(one, 1, "float32")
    train(parts, 1, "float32")
    alike(parts, one)


def test_sharded_muon_gives_the_same_losses_in_bfloat16(text: Path) -> None:
    fields = {**FIELDS, "optimizer": "muon", "steps": 6, "eval_every": 3, "layers": 1, "batch_size": 4}
    one, parts = make("one", text, **fields), make("parts", text, **fields)
    launch.set_processes(parts, nproc=2, shard=True)
    train(one, 1)
    train(parts, 2)
    assert [row[1:4] for row in losses(parts)] == [pytest.approx(row[1:4], rel=1e-3) for row in losses(one)]


def test_muon_and_fewer_held_out_rows_than_turns(text: Path) -> None:
    fields = {
        **FIELDS,
        "steps": 5,
        "optimizer": "muon",
        "grad_accumulation_steps": 2,
        "eval_batches": 1,
        "batch_size": 1,
    }
    one, two = make("one", text, **fields), make("two", text, **fields)
    # In bfloat16, gradients that differ in their last bit are orthogonalized to matrices 0.4 % apart, on some CPUs more than 2e-4.
    train(one, 1, "float32")
    train(two, 2, "float32")
    alike(two, one)


def test_all_processes_apply_a_request_at_the_same_step(text: Path) -> None:
    fields = {**FIELDS, "steps": 6, "checkpoint_every": 100}
    one, two = make("one", text, **fields), make("two", text, **fields)
    # with FSDP, a process that does not take part in saving would block the others
    launch.set_processes(two, shard=True)
    for run, world in ((one, 1), (two, 2)):
        launch.change_learning_rate(run, 3e-3)
        changes.request_save(run)
        launch.pause(run)
        made = ranks(run, world)
        wait(lambda run=run: run.status().state == "paused")
        launch.unpause(run)
        assert ended(made) == [0] * world, run.log_path.read_text()
    alike(two, one)
    assert max(m[2] for m in losses(two)) <= 3e-3


def test_a_run_of_two_processes_resumes_with_one(text: Path) -> None:
    fields = {**FIELDS, "steps": 60, "checkpoint_every": 1000, "eval_every": 1000}
    unbroken, run = make("unbroken", text, **fields), make("run", text, **fields)
    train(unbroken, 1)
    made = ranks(run, 2)
    wait(lambda: run.status().step > 2)
    made[0].terminate()  # also if it has ended meanwhile
    assert ended(made) == [0, 0], run.log_path.read_text()
    assert run.status().state in ("stopped", "finished") and run.checkpoints()[-1][0] == run.status().step
    train(run, 1)
    alike(run, unbroken)


@pytest.mark.parametrize("killed", [0, 1])
def test_if_one_process_is_killed_the_others_end_with_a_message(text: Path, killed: int) -> None:
    run = make("run", text, **LONG)
    made = ranks(run, 2)
    wait(lambda: run.status().step > 0)
    second = begin(run, patience=0.2)  # a second worker is refused while rank 0 holds the lock
    second.join()
    assert second.exitcode == 3
    made[killed].kill()
    codes = ended(made)
    assert codes[killed] == -9 and codes[1 - killed] == 1
    status = run.status()
    if killed == 0:
        assert status.state == "died" and "resume" in status.message
    else:
        assert status.state == "failed" and "one of the 2 processes was ended" in status.message
    assert not run.alive() and leftovers(run.path) == []


def test_an_error_in_one_process_ends_all(text: Path) -> None:
    run = make("run", text, **LONG)
    assert ended(ranks(run, 2, spoiled=1)) == [1, 1]
    assert run.status().state == "failed"
    assert run.status().message == "process 1: this [red]node has no such file"
    assert ended(ranks(run, 2, spoiled=0)) == [1, 1]
    assert run.status().message == "this [red]node has no such file"
    assert ended(ranks(run, 2, spoiled=1, how="memory")) == [1, 1]
    assert run.status().message.startswith(
        "process 1 of 2: out of memory at batch 4: try --batch-size 2 --grad-accumulation-steps 2"
    )
    run.write_control(stop=True)
    assert ended(ranks(run, 2)) == [0, 0]
    assert run.status().state == "stopped"


@pytest.mark.parametrize("trouble", [Stopped(), UserError("no such file")], ids=["stop", "failure"])
def test_no_process_exits_before_all_have_read_the_error(monkeypatch, trouble: Exception) -> None:
    """Rank 0 may hold the store from which the others read its error."""
    both, gone, store, raised = threading.Barrier(2, timeout=HANG), threading.Event(), {}, {}
    sums: list[float] = []

    class Rank(Torchrun):
        def __init__(self, rank: int) -> None:
            self.rank, self.world = rank, 2

        def mean(self, value: float) -> float:
            both.wait()
            sums.append(value)
            both.wait()
            return sum(sums[-2:]) / 2

        def _store(self) -> Any:
            return SimpleNamespace(set=store.__setitem__)

        def _stored(self, key: str) -> str:
            return "" if gone.wait(0.1) else store.get(key, "")

    def work(rank: int) -> None:
        try:
            with Rank(rank).in_turn():
                raise trouble
        except Exception as error:
            raised[rank] = error
        if rank == 0:
            gone.set()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert raised[0] is trouble
    assert type(raised[1]) is type(trouble) and str(raised[1]) == str(trouble)


def test_torchrun_starts_and_stops_the_worker(text: Path) -> None:
    run = make("run", text, **LONG)
    launch.set_processes(run, nproc=2)
    launch.start(run)
    wait(lambda: run.status().step > 0 or run.status().state == "failed")
    assert run.alive(), run.log_path.read_text()
    (_, launcher), *_ = launch._children
    worker = launch._worker_pid(run)
    assert worker is not None and os.getsid(worker) != os.getsid(0)
    if Path("/proc/self/environ").exists():  # `launch.stop` signals rank 0
        assert b"\0RANK=0\0" in b"\0" + Path(f"/proc/{worker}/environ").read_bytes()
    launcher.terminate()  # as a batch system does; torchrun forwards it
    launcher.wait()
    status = run.status()
    assert status.state == "stopped" and run.checkpoints()[-1][0] == status.step > 0, run.log_path.read_text()
    assert read_json(run.path / "status.json")["processes"] == 2
