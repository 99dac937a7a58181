"""Logs of other programs as curves: nanoGPT, nanochat, transformers' Trainer, TensorBoard, wandb.

The text is typed in the formats of public sources: nanoGPT's train.py (005475c), nanochat's scripts/base_train.py (00255c1,
2026). The event files are written by TensorBoard's own writer. foreign_logs/run-first.wandb was written by wandb 0.31.0 offline on
2026-11-29: for i in range(12), log({"train/loss": 4 − 0.05 i, "lr": 1e-3 (i + 1) / 40, "val/loss": 4.2 − 0.05 i if i % 10 == 0},
step=5 i), but NaN as the loss of i = 7.
"""

from __future__ import annotations

import json
import math
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui_llm.common.display import visible
from tui_llm.training.run.curve import Envelope
from tui_llm.training.run.foreign import log_curves, wire
from tui_llm.training.run.foreign import log_files as search
from tui_llm.training.run.foreign.foreign_curves import ForeignReader, curves_reader
from tui_llm.training.run.foreign.foreign_run import ForeignRun
from tui_llm.training.run.foreign.log_curves import LogCurves
from tui_llm.training.run.foreign.log_files import CHUNK, ForeignLog, log_files

HOSTILE = ("[/]", "[red]x", "\x1b[31mred\x1b]0;title\x07", "\x9b31m", "a\u202eb", "x" * 5000)
WANDB = Path(__file__).parent / "foreign_logs" / "run-first.wandb"

NANOGPT = """\
tokens per iteration will be: 16,384
number of parameters: 10.65M
step 0: train loss 4.2874, val loss 4.2823
iter 0: loss 4.2654, time 22341.25ms, mfu -100.00%
iter 10: loss 3.2456, time 18.24ms, mfu -100.00%
iter 20: loss 2.7916, time 17.98ms, mfu 20.45%
iter 30: loss nan, time 17.98ms, mfu 20.45%
iter 40: loss 2.
step 50: train loss 2.4001, val loss 2.5002
saving checkpoint to out-shakespeare-char
iter 50: loss 2.4500, time 17.98ms, mfu 20.45%
"""
NANOCHAT = """\
Estimated FLOPs per token: 3.491758e+09
Total batch size 524,288 => gradient accumulation steps: 1
Step 00000 | Validation bpb: 3.245678
step 00000/21400 (0.00%) | loss: 11.090355 | lrm: 0.03 | dt: 15500.12ms | tok/sec: 33,824 | bf16_mfu: 1.49 | epoch: 1 pq: 0 rg: 8 | total time: 0.00m
step 00001/21400 (0.00%) | loss: 10.908143 | lrm: 0.05 | dt: 512.34ms | tok/sec: 1,023,319 | bf16_mfu: 45.15 | epoch: 1 pq: 0 rg: 16 | total time: 0.01m | eta: 182.1m
step 00002/21400 (0.01%) | grad norm: 1.2345 | loss: 10.5 | lrm: 0.08 | dt: 500.00ms | tok/sec: 1,048,576 | mfu: 46.00 | total time: 0.02m
The capital of France is | Paris
Step 00002 | CORE metric: 0.1234
"""


def whole(*files: Path) -> LogCurves:
    log = ForeignLog(files)
    while log.read():
        pass
    assert not log.problem, log.problem
    return log.curves


def text(tmp_path: Path, content: str | bytes, name: str = "out.log") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_nanogpt(tmp_path: Path) -> None:
    found = whole(text(tmp_path, NANOGPT))
    assert found.kind == "nanoGPT" and found.damaged == 1 and found.step_tokens == 16384
    assert found.points("loss") == ((0, 4.2654), (10, 3.2456), (20, 2.7916), (50, 2.45))
    assert found.points("val_loss") == ((0, 4.2823), (50, 2.5002))
    assert found.points("loss of the training split") == ((0, 4.2874), (50, 2.4001))
    assert found.points("mfu") == ((20, 20.45), (30, 20.45), (50, 20.45))
    assert (
        "last micro-batch" in found.curves["loss"].info.meaning
    )  # train.py: loss.item() * gradient_accumulation_steps
    assert not found.clock().steps  # nine of ten steps are not timed


def test_nanochat(tmp_path: Path) -> None:
    found = whole(text(tmp_path, NANOCHAT))
    assert (found.kind, found.damaged, found.steps) == ("nanochat", 0, 21400)
    assert (found.step_tokens, found.flops_per_token) == (524288, 3.491758e9)
    assert found.points("loss") == ((0, 11.090355), (1, 10.908143), (2, 10.5))
    assert found.points("tokens_per_second") == ((0, 33824.0), (1, 1023319.0), (2, 1048576.0))
    assert found.points("Validation bpb") == ((0, 3.245678),) and not found.points("val_loss")
    assert found.points("grad_norm") == ((2, 1.2345),) and found.points("CORE metric") == ((2, 0.1234),)
    assert found.clock().at(2) == pytest.approx(15.50012 + 0.51234 + 0.5)
    # base_train.py: "raw unsmoothed loss from last microbatch", then ema_beta = 0.9
    assert "moving average of the steps' last micro-batches" in found.curves["loss"].info.meaning


def test_a_log_is_read_as_it_grows_and_again_if_it_is_replaced(tmp_path: Path) -> None:
    path = text(tmp_path, "iter 0: loss 4.0000, time 1.00ms, mfu -100.00%\niter 1: loss 3.00")
    log = ForeignLog([path])
    assert not log.read() and log.curves.points("loss") == ((0, 4.0),) and not log.curves.damaged
    with path.open("a") as file:
        file.write("00, time 1.00ms, mfu -100.00%\n")
    log.read()
    assert log.curves.points("loss") == ((0, 4.0), (1, 3.0))
    assert log.curves.clock().at(1) == pytest.approx(0.002)
    path.unlink()
    text(tmp_path, "iter 5: loss 1.0000, time 1.00ms, mfu 1.00%\n")
    log.read()
    assert log.curves.points("loss") == ((5, 1.0),)


def test_a_resumed_run_replaces_the_later_points(tmp_path: Path) -> None:
    lines = [f"iter {step}: loss {loss:.4f}, time 1.00ms, mfu 1.00%\n" for step, loss in ((0, 4), (10, 3), (20, 9), (10, 2.5), (20, 2))]  # fmt: skip
    assert whole(text(tmp_path, "".join(lines))).points("loss") == ((0, 4.0), (10, 2.5), (20, 2.0))


def test_cut_of_a_long_curve() -> None:
    curve = Envelope(buckets=4)
    for step in range(100):
        curve.add(step, 100.0 - step)
    curve.cut(40)
    assert max(step for step, _ in curve.points()) < 40 and (0, 100.0) in curve.points()


def test_a_long_log_takes_bounded_memory(tmp_path: Path) -> None:
    lines = (f"iter {step}: loss {math.cos(step):.4f}, time 1.00ms, mfu 1.00%\n" for step in range(40_000))
    path = text(tmp_path, "".join(lines))
    assert path.stat().st_size > CHUNK
    found = whole(path)
    assert len(found.points("loss")) <= 4096 and found.curves["loss"].count == 40_000
    assert max(value for _, value in found.points("loss")) == 1.0


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_names(tmp_path: Path, hostile: str) -> None:
    line = json.dumps({"_step": 1, hostile: 2.0}).encode() + b"\n"
    found = whole(text(tmp_path, line, "wandb-history.jsonl"))
    assert all(visible(key) == key == one.info.key for key, one in found.curves.items())
    whole(text(tmp_path, f"step 1 | {hostile}: 3.0\niter 3: {hostile}\n", "b.log"))


@given(st.binary(max_size=400), st.sampled_from(["a.log", "events.out.tfevents.1.a", "r.wandb", "wandb-history.jsonl", "trainer_state.json"]))  # fmt: skip
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes((b":W&B\xe1\xbe\x00" if name == "r.wandb" else b"") + data)
    log = ForeignLog([path])
    for _ in range(4):
        log.read()


# ── transformers' Trainer ────────────────────────────────────────────────────────────────────────────────────────────


def test_trainer_state(tmp_path: Path) -> None:
    history: list[Any] = [
        {"epoch": 0.1, "grad_norm": 1.5, "learning_rate": 5e-5, "loss": 4.5, "step": 10},
        {"epoch": 0.1, "eval_loss": 4.25, "eval_runtime": 1.0, "step": 10},
        {"loss": 4.0},
        "damaged",
        {"epoch": 0.2, "grad_norm": 1.0, "learning_rate": 4e-5, "loss": 4.0, "step": 20},
        {"step": 20, "train_loss": 4.25, "train_runtime": 10.0},
    ]
    for step, lines in ((10, history[:2]), (20, history)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        text(folder, json.dumps({"log_history": lines, "max_steps": 40}), "trainer_state.json")
    files = log_files(tmp_path)
    assert files == (tmp_path / "checkpoint-20" / "trainer_state.json",)
    found = whole(*files)
    assert (found.damaged, found.steps, found.kind) == (2, 40, "transformers' Trainer")
    assert found.points("loss") == ((10, 4.5), (20, 4.0)) and found.points("val_loss") == ((10, 4.25),)
    assert found.points("lr") == ((10, 5e-5), (20, 4e-5)) and found.points("grad_norm") == ((10, 1.5), (20, 1.0))
    assert found.points("eval_runtime") == ((10, 1.0),) and "train_loss" not in found.curves


# ── TensorBoard ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_crc_of_the_standard() -> None:
    assert wire.crc32c(b"123456789") == 0xE3069283  # RFC 3720's check value
    assert wire.crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4


def event_file(folder: Path) -> Path:
    """Written by TensorBoard: scalars of both formats, an image and a graph's worth of bytes between them."""
    pytest.importorskip("tensorboard", reason="extra `tensorboard`")
    from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder))

    def add(step: int, value: Any) -> None:
        event = event_pb2.Event(wall_time=1e9 + step, step=step, summary=summary_pb2.Summary(value=[value]))
        writer.add_event(event)

    for step in range(0, 60, 5):
        add(step, summary_pb2.Summary.Value(tag="train/loss", simple_value=4 - step / 25))
        number = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[0.5 + step])
        meta = summary_pb2.SummaryMetadata(plugin_data=summary_pb2.SummaryMetadata.PluginData(plugin_name="scalars"))
        add(step, summary_pb2.Summary.Value(tag="eval/loss", tensor=number, metadata=meta))
        add(step, summary_pb2.Summary.Value(tag="picture", image=summary_pb2.Summary.Image(encoded_image_string=b"x" * 20_000)))  # fmt: skip
        other = summary_pb2.SummaryMetadata(plugin_data=summary_pb2.SummaryMetadata.PluginData(plugin_name="text"))
        add(step, summary_pb2.Summary.Value(tag="words", tensor=tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[b"a"]), metadata=other))  # fmt: skip
    writer.close()
    return next(folder.glob("events.out.tfevents.*"))


def test_event_files(tmp_path: Path) -> None:
    path = event_file(tmp_path)
    assert log_files(tmp_path) == (path,) == log_files(path)
    found = whole(path)
    assert (found.kind, found.damaged, set(found.curves)) == ("TensorBoard", 0, {"loss", "val_loss"})
    assert found.points("loss") == tuple((step, pytest.approx(4 - step / 25, rel=1e-6)) for step in range(0, 60, 5))
    assert found.points("val_loss") == tuple((step, 0.5 + step) for step in range(0, 60, 5))
    assert found.clock().at(55) == pytest.approx(55)


def test_a_damaged_record_is_skipped_and_counted(tmp_path: Path) -> None:
    path = event_file(tmp_path)
    data = bytearray(path.read_bytes())
    second = 16 + struct.unpack("<Q", data[:8])[0]  # the first record has the version only
    data[second + 12 + 20] ^= 0xFF
    path.write_bytes(data)
    found = whole(path)
    assert found.damaged == 1 and found.points("loss")[0][0] == 5
    data[second] ^= 0xFF  # a length: where the next record begins is unknown
    path.write_bytes(data)
    assert whole(path).damaged == 1 and not whole(path).curves
    path.write_bytes(data[: second - 3])  # being written
    assert whole(path).damaged == 0


def test_few_texts_of_a_folder_are_read_to_find_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest first, up to the first one that prints steps."""
    read: list[str] = []
    prints_steps = search._prints_steps
    monkeypatch.setattr(search, "_prints_steps", lambda path: read.append(path.name) or prints_steps(path))
    for at in range(200):
        path = text(tmp_path, NANOGPT if at in (20, 150, 190) else "no log\n", f"{at}.txt")
        os.utime(path, ns=(at * 10**9, at * 10**9))
    assert log_files(tmp_path) == (tmp_path / "190.txt",)
    assert read == [f"{at}.txt" for at in range(199, 189, -1)]
    read.clear()
    for at in (150, 190):
        (tmp_path / f"{at}.txt").unlink()
    assert log_files(tmp_path) == () and len(read) == search.MOST_FILES


# ── wandb ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_wandb_binary() -> None:
    found = whole(WANDB)
    assert (found.kind, found.damaged, set(found.curves)) == ("wandb", 0, {"loss", "lr", "val_loss"})
    steps = [5 * i for i in range(12) if i != 7]
    assert found.points("loss") == tuple((step, pytest.approx(4 - 0.01 * step)) for step in steps)
    assert found.points("lr") == tuple((5 * i, pytest.approx(1e-3 * (i + 1) / 40)) for i in range(12))
    assert found.points("val_loss") == ((0, 4.2), (50, pytest.approx(3.7)))
    assert 0 < found.clock().at(55) < 60


def test_wandb_damaged_and_cut(tmp_path: Path) -> None:
    data = bytearray(WANDB.read_bytes())
    data[len(data) // 2] ^= 0xFF
    found = whole(text(tmp_path, bytes(data), "run-a.wandb"))
    assert found.damaged >= 1 and len(found.points("lr")) >= 10
    assert whole(text(tmp_path, bytes(data[:600]), "run-b.wandb")).damaged == 0
    log = ForeignLog([text(tmp_path, b"something else", "run-c.wandb")])
    assert not log.read() and "not a log of wandb" in log.problem


def test_wandb_json(tmp_path: Path) -> None:
    lines = [{"_step": i, "_timestamp": 1e9 + i, "_runtime": i, "train/loss": 4 - i, "text": "x"} for i in range(3)]
    path = text(tmp_path, "".join(json.dumps(line) + "\n" for line in lines) + "damaged\n", "wandb-history.jsonl")
    found = whole(path)
    assert found.points("loss") == ((0, 4.0), (1, 3.0), (2, 2.0)) and found.damaged == 1
    path = text(tmp_path, json.dumps({"_step": 7, "val/loss": 2.5, "_wandb": {"runtime": 1}}), "wandb-summary.json")
    assert whole(path).points("val_loss") == ((7, 2.5),)
    assert log_files(tmp_path)[0].name == "wandb-history.jsonl"


# ── beside ours ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_charts_and_axes(tmp_path: Path) -> None:
    from tui_llm.training.run import curve_charts

    run = ForeignRun(text(tmp_path, NANOCHAT))
    reader = curves_reader(run)
    found = reader.read()
    assert not found.reading and found.status.steps == 21400
    assert [info.key for info in found.infos][:3] == ["loss", "grad_norm", "tokens_per_second"]
    assert not curve_charts.missing(found, "flops") and curve_charts.x_of(found, "tokens", 2) == 2 * 524288
    assert reader.at(1)["loss"].values == (10.908143,) and reader.at(99)["loss"].step == 2
    snapshot = ForeignReader(run).read()
    assert snapshot.train == found.lines["loss"][0].points and snapshot.averages[0].points


def test_too_many_curves(tmp_path: Path) -> None:
    line = json.dumps({"_step": 1, **{f"metric {i}": i for i in range(100)}}) + "\n"
    found = whole(text(tmp_path, line, "wandb-history.jsonl"))
    assert len(found.curves) == log_curves.MOST_CURVES and found.unread == 100 - log_curves.MOST_CURVES
    assert "left out" in " ".join(found.notes())
