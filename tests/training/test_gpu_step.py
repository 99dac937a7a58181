"""The training step of a GPU, on the CPU: loss and norm are read after the update, which is skipped where they are not finite."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from tests.training.run_helpers import losses, make, words, work
from tests.training.test_loop import trainer
from tui_llm.cli import main
from tui_llm.training.plan import launch
from tui_llm.training.run.run import Run
from tui_llm.training.worker import loop, process, worker
from tui_llm.training.worker.gpu_step import Upload, skips_updates
from tui_llm.training.worker.loop import Diverged, Trainer, optimizers


def as_on_a_gpu(ours: Trainer) -> Trainer:
    """Has autograd and AdamW's fused kernel make the steps, as they do on CUDA."""
    ours.fast_step = ours.flat = ours.products = None
    ours.optimizers = optimizers(ours.model, ours.settings, ours.device)
    assert skips_updates(ours.optimizers)
    return ours


@pytest.fixture(autouse=True)
def fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "trains_in_bfloat16", lambda _: False)


def test_reading_late_changes_no_number(tmp_path: Path) -> None:
    plain, late = (as_on_a_gpu(trainer(tmp_path, grad_accumulation_steps=2, steps=4)) for _ in range(2))
    late.reads_late = True
    for ours, theirs in zip(late.steps(), plain.steps(), strict=True):
        assert (ours.loss, ours.grad_norm, ours.val_loss) == pytest.approx(
            (theirs.loss, theirs.grad_norm, theirs.val_loss)
        )
        assert late.done == ours.step
    for ours, theirs in zip(late.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_an_update_that_must_not_be_is_skipped_on_the_device(where: str, tmp_path: Path) -> None:
    late = as_on_a_gpu(trainer(tmp_path, steps=9))
    late.reads_late = True
    steps = late.steps()
    next(steps), next(steps)
    if where == "loss":
        late.limit = 1e-3
    else:
        late.model.norm.bias.register_hook(lambda g: g * float("nan"))
    before = [p.detach().clone() for p in late.model.parameters()]
    state = [{k: v.clone() for k, v in s.items()} for s in late.optimizers[0].state.values()]
    with pytest.raises(Diverged) as error:
        next(steps)
    assert error.value.bad == 2 and "at step 3" in str(error.value)
    assert all(torch.equal(a, b) for a, b in zip(before, late.model.parameters(), strict=True))
    for old, new in zip(state, late.optimizers[0].state.values(), strict=True):
        assert old.keys() == new.keys() and all(torch.equal(old[k], new[k]) for k in old)


def test_a_batch_that_was_begun_is_not_gathered_again() -> None:
    gathered: list[int] = []

    def rows(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        gathered.append(number)
        return torch.tensor([number]), torch.tensor([number])

    upload = Upload(torch.device("cpu"))
    upload._next = 3, rows(3)
    assert int(upload.take(3, rows)[0]) == 3 and gathered == [3]
    upload._next = 4, rows(4)
    assert int(upload.take(7, rows)[0]) == 7 and gathered == [3, 4, 7]  # another one than was begun
    upload.begin(8, rows)
    assert gathered == [3, 4, 7]  # a CPU copies nothing ahead


@pytest.fixture
def run(tmp_path: Path) -> Run:
    path = tmp_path / "text.txt"
    path.write_text(words(2000))
    return make("run", path, steps=12)


def test_out_of_memory_saves_the_steps_since_the_last_checkpoint(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    update = Trainer._update

    def fail(self: Trainer, number: int, lr: float) -> tuple[float, float]:
        if number == 6:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return update(self, number, lr)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", fail)
        assert process.work(worker.Worker(run)) == 1
    assert run.status().message.endswith("(the same global batch); saved at step 5")
    assert run.checkpoints()[-1][0] == 5 and len(losses(run)) == 5
    assert work(run) == 0 and [row[0] for row in losses(run)] == list(range(1, 13))


def test_weights_that_may_be_half_updated_are_not_saved(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    apply = Trainer._apply

    def fail(self: Trainer, number: int, lr: float, total: float) -> float:
        if number == 6:
            self.done = None
            raise torch.OutOfMemoryError("CUDA out of memory")
        return apply(self, number, lr, total)

    monkeypatch.setattr(Trainer, "_apply", fail)
    assert process.work(worker.Worker(run)) == 1
    assert not run.checkpoints()


def test_a_lost_gpu_is_one_line_and_the_run_goes_on_on_the_cpu_when_asked(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    update = Trainer._update

    def fail(self: Trainer, number: int, lr: float) -> tuple[float, float]:
        if number == 9:
            raise torch.AcceleratorError("CUDA error: unspecified launch failure\nCUDA kernel errors might be …")
        return update(self, number, lr)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", fail)
        assert process.work(worker.Worker(run)) == 1
    status = run.status()
    assert status.state == "failed" and status.fits is None and "\n" not in status.message
    assert status.message.startswith("the GPU stopped working (CUDA error: unspecified launch failure): it was lost")
    assert status.message.endswith("Resume it from step 7, on the CPU with --device cpu")
    assert main(["train", "--run", "run", "--resume", "--device", "gpu"]) == 2
    assert "no device 'gpu'" in capsys.readouterr().err
    monkeypatch.setattr(launch, "start", lambda run: run.write_status("stopped"))
    monkeypatch.setattr(launch, "wait_until_held", lambda *_: True)
    run.write_config(dataclasses.replace(run.config(), device="auto"))
    assert main(["train", "--run", "run", "--resume", "--device", "cpu", "--detach"]) == 0
    assert run.config().device == "cpu" and work(run) == 0
