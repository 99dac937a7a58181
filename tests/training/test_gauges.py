"""MFU, memory and a shipped model's loss: what a worker measures besides its losses."""

from __future__ import annotations

import json
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given
from hypothesis import strategies as st

from tests import HANG
from tests.fake_nvml import Card, FakeNvml, install
from tests.training.run_helpers import TINY, lines, make, words, work
from tui_llm.cli import main
from tui_llm.common import memory, paths
from tui_llm.common.foreign_files import read_json
from tui_llm.common.numbers import memory_size
from tui_llm.llm.data import corpus
from tui_llm.llm.data.examples import evenly_spaced
from tui_llm.llm.hub import hub
from tui_llm.llm.model import checkpoint, device_gauges, machine
from tui_llm.llm.model.machine_reader import CudaDevice, MachineReader
from tui_llm.llm.model.nvml import PROBLEMS
from tui_llm.training.plan.cost import ROOM, cost, fitting, flops_per_token, shape
from tui_llm.training.run import gauges
from tui_llm.training.run.metrics import Metric, parse_metric
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import PRESETS, from_fields
from tui_llm.training.worker import job, machine_sampler, measurements, process, worker

CPU = torch.device("cpu")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(words(2000))
    return path


class Load:
    """As `RunLoad`, on a machine with nothing else to do unless a test gives other loads."""

    given: list[float | None] = []

    def contention(self) -> float | None:
        return self.given.pop(0) if self.given else 1.0


@pytest.fixture(autouse=True)
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurements, "RunLoad", Load)
    monkeypatch.setattr(Load, "given", [])


def here(run: Run) -> int:
    """Runs a worker in this process."""
    return process.work(worker.Worker(run))


# ── MFU ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_mfu_of_gpt2_on_an_a100_is_what_nanogpt_says() -> None:
    """nanoGPT's estimate_mfu: 6 N + 12 L H Q T FLOPs per token, N without the position embedding, at 312 TFLOP/s."""
    config = shape(PRESETS["gpt2"], 50257)
    n = config.parameters() - 1024 * 768
    per_token = 6 * n + 12 * 12 * 12 * 64 * 1024
    assert flops_per_token(config, 1024) == per_token
    rate = 480 * 1024 / 2.5
    facts = {"flops_per_token": per_token, "peak_flops": 312e12}
    assert gauges.mfu(facts, rate) == pytest.approx(per_token * 1024 * 480 / 2.5 / 312e12)
    assert gauges.mfu({**facts, "processes": 8}, rate) == pytest.approx(gauges.mfu(facts, rate / 8))
    whole = 312e12 / per_token
    assert gauges.mfu(facts, whole * 0.999) == pytest.approx(0.999) and not gauges.above_peak(facts, whole * 0.999)
    assert gauges.mfu(facts, whole * 1.001) is None and gauges.above_peak(facts, whole * 1.001)  # the peak is wrong


def test_a_step_without_an_update_proves_no_peak_wrong() -> None:
    """All rewards were equal: it took fewer operations than other steps, and counts as many (test_cost.py)."""
    found = object.__new__(measurements.Gauges)
    found.facts = {"flops_per_token": 1.0, "peak_flops": 1.0}
    without = Metric(1, -0.5, 1e-3, 0.0, 2.0, flops_per_token=0.4)
    assert gauges.above_peak(found.facts, 2.0) and found.discard_peak(without) == ""
    assert gauges.mfu(found.facts, 2.0, 0.4) == 0.8


def test_the_cost_of_a_run_is_that_of_its_tokens() -> None:
    config = shape(TINY, 300)
    found = cost(TINY, config)
    assert found.flops == found.tokens * flops_per_token(config, TINY.block_size)


anything = st.one_of(
    st.none(), st.booleans(), st.floats(), st.integers(), st.text(), st.lists(st.integers(), max_size=2)
)


@given(
    st.dictionaries(st.sampled_from(("flops_per_token", "peak_flops", "processes")), anything),
    st.one_of(st.none(), st.floats()),
)
@example({"flops_per_token": 1e308, "peak_flops": 1e308, "processes": 1e308}, 1e308)
def test_a_damaged_status_gives_none_or_a_positive_number(facts: dict[str, Any], rate: float | None) -> None:
    found = gauges.mfu(facts, rate)
    assert found is None or 0 <= found <= 1


def test_a_known_peak_is_read_and_shown_everywhere(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make("run", text, steps=3)
    found = machine.Machine(**machine.key(CPU), fp32=1e12, bf16=2e12, read=1e9, copy=1e9)
    machine._path(CPU).parent.mkdir(parents=True)
    machine._path(CPU).write_text(json.dumps({k: getattr(found, k) for k in found.__dataclass_fields__}))
    assert here(run) == 0
    facts = read_json(run.path / "status.json")
    assert facts["peak_flops"] == found.peak(facts["precision"]) and facts["precision"] in ("fp32", "bf16")
    rates = [line["tokens_per_second"] for line in lines(run.metrics_path)]
    expected = statistics.harmonic_mean(rates) * flops_per_token(shape(TINY, 257), 16) / facts["peak_flops"]
    assert main(["runs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["mfu"] == pytest.approx(expected)
    assert main(["runs"]) == 0
    assert "MFU" in (out := capsys.readouterr().out) and f"{100 * expected:.1f} %" in out
    from tui_llm.training.plan.follow import progress

    metrics = [metric for line in run.metrics_path.read_bytes().split(b"\n") if (metric := parse_metric(line))]
    assert len(metrics) == 3 and f"MFU {100 * expected:.1f} %  memory " in progress(run, metrics[-1], metrics)


def test_an_unknown_peak_is_measured_once_the_run_is_under_way(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, measured = [], []
    write = Run.write_status

    def written(self: Run, state: str, message: str = "", **more: Any) -> None:
        said.append((state, message, "peak_flops" in more))
        write(self, state, message, **more)

    def measure(device: torch.device) -> machine.Machine:
        measured.append(device)
        return machine.Machine("x", "y", 1, 1e15, 2e15, 1e9, 1e9)

    monkeypatch.setattr(Run, "write_status", written)
    monkeypatch.setattr(machine, "measure_in_subprocess", measure)
    # on a busy machine, three steps can take longer than the default
    monkeypatch.setattr(measurements, "PEAK_AFTER", HANG)
    assert here(make("short", text, steps=3)) == 0
    assert not measured  # a short run does not measure
    monkeypatch.setattr(measurements, "PEAK_AFTER", 0.0)
    assert here(make("run", text, steps=3)) == 0
    assert len(measured) == 1
    at = [(state, has) for state, message, has in said if "measuring this machine" in message]
    assert at == [("running", False)] and said[-1][2]
    assert machine.known(CPU) is None and "peak_flops" in read_json(paths.runs_dir() / "run" / "status.json")


def test_a_disturbed_measurement_is_not_used_and_repeated_at_an_evaluation(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    run = make("run", text, steps=30)  # evaluations at 1, 10, 20, 30

    def measure(device: torch.device) -> machine.Machine:
        steps.append(lines(run.metrics_path)[-1]["step"])  # no step is made meanwhile: this process waits here
        disturbed = ("fp32", "bf16") if len(steps) < 3 else ()
        return machine.Machine("x", "y", 1, 1e15, 2e15, 1e9, 1e9, disturbed)

    monkeypatch.setattr(machine, "measure_in_subprocess", measure)
    monkeypatch.setattr(measurements, "PEAK_AFTER", 0.0)
    monkeypatch.setattr(measurements, "AGAIN_AFTER", 0.0)
    said = logged(monkeypatch)
    assert here(run) == 0
    assert steps == [1, 10, 20] and "peak_flops" in read_json(run.path / "status.json")
    assert sum("it is measured again at a later evaluation" in line for line in said) == 2
    steps.clear()
    monkeypatch.setattr(measurements, "AGAIN_AFTER", HANG)
    run = make("soon", text, steps=30)
    assert here(run) == 0 and steps == [1] and "peak_flops" not in read_json(run.path / "status.json")


def test_nothing_is_measured_while_the_steps_wait_for_cores(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    run = make("run", text, steps=30)

    def measure(device: torch.device) -> machine.Machine:
        steps.append(lines(run.metrics_path)[-1]["step"])
        return machine.Machine("x", "y", 1, 1e15, 2e15, 1e9, 1e9)

    monkeypatch.setattr(machine, "measure_in_subprocess", measure)
    monkeypatch.setattr(measurements, "PEAK_AFTER", 0.0)
    monkeypatch.setattr(measurements, "AGAIN_AFTER", 0.0)
    Load.given += [1.5, 1.2, None]  # at the first step, then at evaluations; unknown is no reason
    assert here(run) == 0 and steps == [20]


def test_a_step_faster_than_the_peak_discards_it(text: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    """As a peak was that had been measured beside other programs: MFU 138 %."""
    run = make("run", text, steps=40)
    machine._cache(CPU, machine.Machine(**machine.key(CPU), fp32=1e3, bf16=1e3, read=1e9, copy=1e9))
    measured = []

    def measure(device: torch.device) -> machine.Machine:
        measured.append(lines(run.metrics_path)[-1]["step"])
        return machine.Machine("x", "y", 1, 1e3, 1e3, 1e9, 1e9)

    monkeypatch.setattr(machine, "measure_in_subprocess", measure)
    monkeypatch.setattr(measurements, "AGAIN_AFTER", 0.0)
    said = logged(monkeypatch)
    assert here(run) == 0
    found = machine.known(CPU)
    assert found is not None and found.disturbed and found.read == 1e9  # later runs measure again
    assert measured == [1, 10]  # and after three wrong peaks no more
    wrong = [line for line in said if "faster than this machine's measured peak" in line]
    assert len(wrong) == measurements.MOST_WRONG and "step 1 " in wrong[0] and "not measured again" in wrong[-1]
    assert "peak_flops" not in read_json(run.path / "status.json")
    assert main(["runs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["mfu"] is None


def test_the_peak_of_another_number_of_threads_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run on one thread is compared with one thread's peak."""
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            machine._cache(CPU, machine.Machine(**machine.key(CPU), fp32=threads * 1e9, bf16=1.0, read=1.0, copy=1.0))
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found = machine.known(CPU)
            assert found is not None and (found.threads, found.peak("fp32")) == (threads, threads * 1e9)
    finally:
        torch.set_num_threads(before)


def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that the worker logs from now on."""
    said: list[str] = []
    for module in (job, worker):
        monkeypatch.setattr(module, "log", said.append)
    return said


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_memory_is_logged_at_evaluations(text: Path) -> None:
    run = make("run", text, steps=21, eval_every=10)
    assert work(run) == 0
    noted = {line["step"]: line["memory_bytes"] for line in lines(run.metrics_path) if "memory_bytes" in line}
    assert list(noted) == [1, 10, 20, 21] and all(50e6 < value < 100e9 for value in noted.values())
    assert run.last_metric().memory_bytes == noted[21]  # type: ignore[union-attr]
    assert parse_metric(b'{"step":1,"loss":1,"lr":1,"grad_norm":1,"tokens_per_second":1,"memory_bytes":"x"}') is None


def test_the_machines_gauges_are_recorded_with_the_memory(
    text: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread reads while the run trains; the worker's end ends it."""
    began = time.time()
    read = machine_sampler.MachineSampler._work

    def at_once(self: machine_sampler.MachineSampler) -> None:
        self.newest = MachineReader().read()
        read(self)

    def start(self: machine_sampler.MachineSampler) -> machine_sampler.MachineSampler:
        at_once_thread = threading.Thread(target=at_once, args=(self,), daemon=True)
        at_once_thread.start()
        while self.newest is None:
            at_once_thread.join(0.001)
        return self

    monkeypatch.setattr(machine_sampler.MachineSampler, "__enter__", start)
    run = make("run", text, steps=21, eval_every=10)
    assert here(run) == 0
    assert [line["step"] for line in lines(run.metrics_path) if "machine" in line] == [1, 10, 20, 21]
    metric = run.last_metric()
    assert metric is not None and metric.machine is not None and metric.machine.cpu is not None
    assert metric.machine.gpus == () and metric.gpu_use is None and began <= metric.machine.time <= time.time()
    assert metric.machine.cpu.cores and metric.machine.cpu.memory_process
    assert gauges.newest(run.metrics_path) == metric.machine
    assert main(["runs", "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)["runs"]
    assert shown["machine"]["cpu"]["cores"] == metric.machine.cpu.cores


def test_gauges_that_can_not_be_read_do_not_end_a_run(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> MachineReader:
        raise OSError("no such device")

    monkeypatch.setattr(machine_sampler, "MachineReader", broken)
    run = make("run", text, steps=2)
    assert here(run) == 0 and run.last_metric().machine is None  # type: ignore[union-attr]


def test_a_gpu_that_is_lost_while_training_ends_the_run_with_one_line(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pynvml", reason="nvidia-ml-py, a dependency, is not installed")
    card = Card("GPU-1")
    install(monkeypatch, FakeNvml([card]))

    def train(_worker: object) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure\nCompile with `TORCH_USE_CUDA_DSA`")

    monkeypatch.setattr(process.job, "train", train)
    run = make("run", text, steps=3)
    stopped = "the GPU stopped working (CUDA error: unspecified launch failure)"
    assert here(run) == 1 and run.status().message.startswith(stopped)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(device_gauges, "cuda_device", lambda _device: CudaDevice("cuda:0", "H100", "1"))
    assert here(run) == 1 and run.status().message.startswith(stopped)  # NVML sees nothing wrong
    card.lose()
    assert here(run) == 1
    assert (
        run.status().message == f"{PROBLEMS['GPU_IS_LOST']}. Resume it from its beginning, on the CPU with --device cpu"
    )


def test_resident_memory_grows_with_what_is_held() -> None:
    before = memory.resident_bytes()
    held = torch.ones(1 << 25)  # 128 MiB
    after = memory.resident_bytes()
    assert before and after and len(held) and after - before > 100e6
    limit = memory.memory_limit()
    assert limit is None or limit > after / 2
    assert measurements.memory_bytes(CPU) == pytest.approx(after, rel=0.2)


def test_words_for_sizes() -> None:
    assert memory_size(312.4e6) == "312 MB" and memory_size(1.44e9) == "1.4 GB"
    assert memory_size(float("nan")) == "–" and gauges.flops_text(97.6e9) == "97.6 GFLOP/s"
    assert gauges.flops_text(2.5e12) == "2.5 TFLOP/s"


@given(st.integers(1, 600), st.integers(1, 4), st.one_of(st.none(), st.integers(0, 1 << 34)))
def test_the_batch_that_fits_makes_the_same_step(
    batch: int, grad_accumulation_steps: int, available: int | None
) -> None:
    s = from_fields({"batch_size": batch, "grad_accumulation_steps": grad_accumulation_steps, "block_size": 64})
    config = shape(s, 4096)
    found = fitting(s, config, available)
    fits = [
        size for size in range(1, batch // 2 + 1) if batch % size == 0 and (available is None or ROOM * available >=
        cost(from_fields({"batch_size": size}, s), config).memory_bytes)
    ]  # fmt: skip
    assert found == ((max(fits), grad_accumulation_steps * batch // max(fits)) if fits else None)


# ── a shipped model's loss ───────────────────────────────────────────────────────────────────────────────────────


def test_nano_is_measured_on_the_rows_that_the_run_is_measured_on(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurements, "SHIPPED_WITHIN", HANG)
    run = make("run", text, steps=2, tokenizer="nano")
    assert here(run) == 0
    facts = read_json(run.path / "status.json")
    data = corpus.load([str(text)], hub.training_tokenizer("nano"), TINY.validation_fraction, block_size=16)
    x, y = evenly_spaced(data.validation, 16, TINY.eval_batches * TINY.batch_size)
    with torch.no_grad():
        logits = checkpoint.load(paths.shipped_models_dir() / "nano").eval()(x)
        loss = float(F.cross_entropy(logits.flatten(0, 1), y.flatten()))
    # may be computed in bf16
    assert facts["shipped_model"] == "nano" and facts["shipped_loss"] == pytest.approx(loss, rel=0.01)

    monkeypatch.setattr(measurements, "_loss", lambda *_: pytest.fail("measured again"))
    run.write_config(
        type(run.config())(run.config().corpus, "toy", "cpu", from_fields({"steps": 4}, run.config().settings))
    )
    assert here(run) == 0 and read_json(run.path / "status.json")["shipped_loss"] == facts["shipped_loss"]
    (run.path / "shipped.json").write_text('{"model": "nano", "loss": "\\u001b[31m", "rows": 8}')
    monkeypatch.setattr(measurements, "_loss", lambda *_: None)  # as if it took too long
    run.write_config(
        type(run.config())(run.config().corpus, "toy", "cpu", from_fields({"steps": 5}, run.config().settings))
    )
    assert here(run) == 0 and "shipped_loss" not in read_json(run.path / "status.json")


def test_another_vocabulary_or_longer_rows_have_no_such_line(text: Path) -> None:
    other = make("byte", text, steps=1)
    assert here(other) == 0 and "shipped_loss" not in read_json(other.path / "status.json")
    text.write_text(words(20_000))
    longer = make("long", text, steps=1, tokenizer="nano", block_size=257, batch_size=1, eval_batches=1)
    assert here(longer) == 0 and "shipped_loss" not in read_json(longer.path / "status.json")
