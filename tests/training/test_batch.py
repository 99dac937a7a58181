"""batch.json: its losses equal torch's for the saved weights, and writing it does not change the training."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.training.run_helpers import TINY, contents, leftovers, losses, make, words
from tui_llm.common.errors import UserError
from tui_llm.llm.data import corpus
from tui_llm.llm.data.examples import Batches
from tui_llm.llm.model import checkpoint
from tui_llm.llm.tokens.tokenizer import byte_level
from tui_llm.training.plan import launch
from tui_llm.training.run import batch, jsonl
from tui_llm.training.run.run import Run
from tui_llm.training.worker import evaluations, job, loop, requests, worker


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(words(2000))
    return path


def work(run: Run, at: dict[int, Any] | None = None) -> None:
    """Runs a worker in this process; `at` maps a step to what is done once its metrics are written."""
    whole = jsonl.append

    def append(file: Any, value: dict[str, Any]) -> None:
        whole(file, value)
        if "loss" in value and at and value["step"] in at:
            at.pop(value["step"])()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "append", append)
        with run.held(1):
            job.train(worker.Worker(run))


def test_losses_equal_torchs_for_the_saved_weights_on_the_next_steps_rows(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # float32, so that losses can be compared to 1e-4
    monkeypatch.setattr(loop, "trains_in_bfloat16", lambda _device: False)
    run = make(
        "run", text, grad_accumulation_steps=3, dropout=0.5
    )  # 12 rows of 16; batch.json is computed without dropout
    work(run)
    found = batch.newest(run)
    assert found is not None
    step, folder = run.checkpoints()[-1]
    assert (found.updates, found.step) == (step, step + 1) == (30, 31)
    assert (found.rows, found.tokens, found.first, found.width) == (12, 16, 8, 16)
    assert found.left_out == "4 more rows"

    model = checkpoint.load(folder).eval()
    data = corpus.load((str(text),), byte_level(), TINY.validation_fraction, block_size=16).train
    rows = [Batches(data, 16, 4, TINY.seed).batch(30 * 3 + part) for part in range(3)]
    x, y = (torch.cat(part) for part in zip(*rows, strict=True))
    with torch.no_grad():
        wanted = F.cross_entropy(model(x).transpose(1, 2), y, reduction="none")
    for number, row in enumerate(found.shown):
        assert row.number == number
        assert [at.input.id for at in row.positions] == x[number].tolist()
        assert [at.target.id for at in row.positions] == y[number].tolist()
        assert [at.loss for at in row.positions] == pytest.approx(wanted[number].tolist(), abs=1e-4)
        assert row.loss == pytest.approx(float(wanted[number].mean()), abs=1e-4)
        assert b"".join(at.target.bytes for at in row.positions) == byte_level().decode_bytes(y[number].tolist())
    assert found.loss == pytest.approx(float(wanted.mean()), abs=1e-4)
    assert found.shown_loss == pytest.approx(float(wanted[:8].mean()), abs=1e-4)


def test_the_whole_batchs_loss_is_what_its_step_then_reports(text: Path) -> None:
    run, seen = make("run", text), {}

    def keep() -> None:
        found = batch.newest(run)
        assert found is not None
        seen[found.step] = found.loss

    work(run, {12: keep, 22: keep})
    reported = {row[0]: row[1] for row in losses(run)}
    assert seen == {11: pytest.approx(reported[11], abs=1e-5), 21: pytest.approx(reported[21], abs=1e-5)}


def test_writing_the_batch_does_not_change_the_training(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked, alone = make("looked", text, dropout=0.2), make("alone", text, dropout=0.2)
    work(looked, {step: lambda: batch.request(looked) for step in range(1, 30)})
    monkeypatch.setattr(evaluations, "STEP_RECORDERS", ())
    work(alone)
    assert losses(looked) == losses(alone)
    assert contents(looked.checkpoints()[-1][1]) == contents(alone.checkpoints()[-1][1])
    assert batch.newest(alone) is None


def test_a_requested_batch_is_written_once_before_the_next_step(text: Path) -> None:
    run = make("run", text, block_size=80)
    seen: list[tuple[int, int | None]] = []
    asked: list[int] = []

    def look() -> None:
        found = batch.newest(run)
        assert found is not None
        seen.append((found.step, found.asked))

    work(run, {3: lambda: asked.append(batch.request(run)), 4: look, 6: look})
    assert seen == [(4, asked[0]), (4, asked[0])]
    found = batch.newest(run)
    assert found is not None and (found.step, found.asked, found.width) == (31, asked[0], 64)
    assert found.left_out == "16 more tokens of each row"
    with pytest.raises(UserError, match="not being trained"):
        launch.show_batch(run)
    assert leftovers(run.path) == []


def test_a_paused_run_answers_too(text: Path) -> None:
    run, asked = make("run", text), []
    whole = requests.time.sleep

    def sleep(seconds: float) -> None:
        found = batch.newest(run)
        assert found is not None
        if not asked:
            asked.append(batch.request(run))
        elif found.asked == asked[0]:
            assert (found.step, found.updates) == (6, 5)
            launch.unpause(run)
        whole(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests.time, "sleep", sleep)
        work(run, {5: lambda: launch.pause(run)})
    assert asked and run.status().step == 30


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "{}", '{"special": 3}', "[[[" * 2000, json.dumps({"special": [], "bytes": {"1": "zz"}}),
     json.dumps({"step": 1, "updates": 0, "loss": 1, "rows": 1, "tokens": 1, "special": [], "bytes": {"1": "61"},
                 "shown": [{"row": 0, "ids": [1, 2], "losses": [1.0]}]}),
     json.dumps({"step": 1, "updates": 0, "loss": 1, "rows": 1, "tokens": 1, "special": [], "bytes": {"1": "61"},
                 "shown": [{"row": 0, "ids": [1, 1], "losses": []}]})],
)  # fmt: skip
def test_a_damaged_batch_file_is_one_line(text: Path, content: str) -> None:
    run = make("run", text)
    (run.path / "batch.json").write_text(content)
    with pytest.raises(UserError) as error:
        batch.newest(run)
    assert "batch.json" in str(error.value) and "\n" not in str(error.value)


def test_a_loss_that_is_not_finite(text: Path) -> None:
    run = make("run", text)
    value = {"step": 1, "updates": 0, "loss": None, "rows": 1, "tokens": 1, "special": [1], "bytes": {"1": "e2"},
             "shown": [{"row": 0, "ids": [1, 1], "losses": [None]}]}  # fmt: skip
    (run.path / "batch.json").write_text(json.dumps(value))
    found = batch.newest(run)
    assert found is not None and math.isnan(found.loss) and math.isnan(found.shown_loss)
    (at,) = found.shown[0].positions
    assert at.input.special and at.input.text == "<0xE2>" and math.isnan(at.probability)
    assert found.left_out == ""
