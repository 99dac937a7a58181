"""Out of memory: the message names a batch size that fits, and using it trains the same steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.run_helpers import losses, make, words, work
from tui_llm.cli import main
from tui_llm.common import memory
from tui_llm.common.errors import UserError
from tui_llm.llm.data.examples import Batches
from tui_llm.training.plan import launch
from tui_llm.training.run.metrics import Metric
from tui_llm.training.worker import evaluations, process, worker
from tui_llm.training.worker.loop import Trainer


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(words(2000))
    return path


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 50), st.integers(0, 9), st.integers(20, 200))
def test_a_step_sees_the_same_rows_in_batches_of_any_size(
    size: int, parts: int, step: int, seed: int, length: int
) -> None:
    ids = np.arange(length, dtype=np.uint16)
    whole, small = Batches(ids, 8, size * parts, seed), Batches(ids, 8, size, seed)
    x, y = whole.batch(step)
    pieces = [small.batch(step * parts + part) for part in range(parts)]
    assert torch.equal(x, torch.cat([piece[0] for piece in pieces]))
    assert torch.equal(y, torch.cat([piece[1] for piece in pieces]))


def test_the_offered_batch_size_fits_and_makes_the_same_steps(text: Path) -> None:
    unbroken, run = make("unbroken", text, batch_size=8), make("run", text, batch_size=8)
    assert work(unbroken) == 0
    for fits, words_ in (
        ((4, 2), "at batch 8: try --batch-size 4 --grad-accumulation-steps 2 (the same"),
        ((2, 4), "at batch 4: "),
    ):
        assert work(run, ("out of memory", 2)) == 1
        status = run.status()
        assert status.state == "failed" and status.fits == fits
        assert status.message.startswith("out of memory ") and words_ in status.message
        launch.change_batch_size(run, *fits)
    assert work(run, ("out of memory", 2)) == 0
    assert run.status().state == "finished" and run.status().fits is None
    settings = run.config().settings
    assert (settings.batch_size, settings.grad_accumulation_steps, settings.eval_batches) == (2, 4, 8)
    ours, theirs = losses(run), losses(unbroken)
    assert [row[0] for row in ours] == [row[0] for row in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine[1] == pytest.approx(other[1], rel=1e-2)  # some machines use bf16
        assert (mine[4] is None) == (other[4] is None) and (
            mine[4] is None or mine[4] == pytest.approx(other[4], rel=1e-2)
        )


@pytest.mark.parametrize(
    ("error", "limit", "fits"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), None, (2, 2)),
        (MemoryError(), None, (2, 2)),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"), None, (2, 2)),
        (MemoryError(), 1000, None),
    ],
    ids=["cuda", "python", "cpu", "nothing-fits"],
)
def test_every_kind_of_failure(
    text: Path, error: Exception, limit: int | None, fits: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    run = make("run", text)
    monkeypatch.setattr(Trainer, "_update", fail)
    monkeypatch.setattr(memory, "memory_limit", lambda: limit)
    assert process.work(worker.Worker(run)) == 1
    status = run.status()
    assert status.fits == fits and status.state == "failed"
    assert (
        "try --batch-size 2 --grad-accumulation-steps 2" if fits else "smaller block size or model"
    ) in status.message


def test_an_evaluation_that_ran_out_of_memory_is_made_again(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_run: object, _model: object, _tokenizer: object, metric: Metric) -> None:
        if metric.step == 10:
            raise MemoryError

    run = make("run", text, steps=12)
    with monkeypatch.context() as patch:
        patch.setattr(evaluations, "RECORDERS", (full, *evaluations.RECORDERS))
        assert process.work(worker.Worker(run)) == 1
    assert run.status().state == "failed" and [step for step, _ in run.checkpoints()] == [7]  # not 10
    assert process.work(worker.Worker(run)) == 0
    assert [one.step for one in run.samples()] == [1, 10, 12]


def test_only_a_batch_size_with_the_same_step_is_accepted(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make("run", text, batch_size=4, grad_accumulation_steps=3, eval_batches=1, steps=2)
    for batch, grad_accumulation_steps, why in (
        (4, 4, "product is 12"),
        (8, 3, "another batch size"),
        (3, 4, "divides 4"),
        (0, 1, "give 1 or more"),
    ):
        code = main(
            [
                "train",
                "--run",
                "run",
                "--resume",
                "--batch-size",
                str(batch),
                "--grad-accumulation-steps",
                str(grad_accumulation_steps),
            ]
        )
        err = capsys.readouterr().err
        assert code == 2 and why in err and err.count("\n") == 1
    launch.change_batch_size(run, 4, 3)  # no change
    launch.change_batch_size(run, 1, 12)
    settings = run.config().settings
    assert (settings.batch_size, settings.grad_accumulation_steps, settings.eval_batches) == (1, 12, 4)
    launch.change_batch_size(run, 4, 3)  # back to the original
    with run.held(1):
        assert (
            main(["train", "--run", "run", "--resume", "--batch-size", "2"]) == 2
        )  # would need 6 gradient accumulation steps
        assert "stop it first" in capsys.readouterr().err
    with pytest.raises(UserError, match="product"):
        launch.change_batch_size(run, 2, 2)


def test_resuming_in_the_app_accepts_the_offered_batch_size(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, started = make("run", text), []
    monkeypatch.setattr(launch, "start", started.append)
    run.write_status("failed", "out of memory at batch 4", fits=[2, 2])
    launch.resume(run)
    assert (run.config().settings.batch_size, run.config().settings.grad_accumulation_steps) == (2, 2) and started == [
        run
    ]
    for damage in ([0, 1], [1], "2", [1.5, 2], None, [10, 10]):
        run.write_status("failed", "", fits=damage)
        if damage == [10, 10]:
            with pytest.raises(UserError, match="product"):
                launch.resume(run)
        else:
            launch.resume(run)
