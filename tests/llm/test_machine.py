"""The machine's peak: measured once, saved, and never used for another machine."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests import HANG
from tui_llm.cli import main
from tui_llm.common import paths, run_load
from tui_llm.common.memory import resident_bytes
from tui_llm.llm.model import kernels, machine
from tui_llm.llm.model.machine import Machine

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_SIZES", (32, 64))
    monkeypatch.setattr(machine, "_SPENT", 0.01)
    monkeypatch.setattr(machine, "_PATIENCE", 0.01)
    monkeypatch.setattr(machine, "_BYTES", {"cpu": 1 << 16})


def test_rates_are_operations_and_bytes_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def timed(work: object, device: torch.device) -> machine._Try:
        made.append(work)
        return machine._Try(0.125, 0.0)  # slow enough that no larger matrix is tried

    monkeypatch.setattr(machine, "_timed", timed)
    found = machine.measure(CPU)
    assert found.fp32 == found.bf16 == 2 * 32**3 / 0.125
    assert (found.read, found.copy) == (2**16 / 0.125, 2 * 2**16 / 0.125)
    assert (found.device, found.torch, found.threads) == (
        machine.device_name(CPU), torch.__version__, torch.get_num_threads(),
    )  # fmt: skip
    assert found.peak("bf16") == found.bf16 and found.peak("fp32") == found.fp32 and made and not found.disturbed


def test_it_is_measured_once_on_a_machine_with_so_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.known(CPU) is None
    found = machine.measure(CPU)
    assert all(rate and rate > 0 for rate in (found.fp32, found.bf16, found.read, found.copy))
    assert machine.known(CPU) == found
    for name, value in (("__version__", "9.9"), ("get_num_threads", lambda: 1234)):
        with monkeypatch.context() as patch:
            patch.setattr(torch, name, value)
            assert machine.known(CPU) is None
    for of, name in ((machine, "device_name"), (torch.backends.cpu, "get_cpu_capability")):
        with monkeypatch.context() as patch:
            patch.setattr(of, name, lambda *_: "another")
            assert machine.known(CPU) is None


@pytest.mark.parametrize(
    "change", [{"fp32": "fast"}, {"fp32": -1}, {"read": 1e300}, {"threads": 99}, {"device": "\x1b[31m[/]"}, None]
)
def test_a_damaged_cache_is_measured_over(change: dict[str, object] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_products", lambda *_: machine._Rate(100.0, False))
    monkeypatch.setattr(machine, "_memory", lambda _: [machine._Rate(1e9, False), machine._Rate(1e9, False)])
    machine.measure(CPU)
    (path,) = (paths.cache_dir() / "machine").iterdir()
    path.write_text("[1" if change is None else json.dumps({**json.loads(path.read_text()), **change}))
    assert machine.known(CPU) is None
    assert machine.machine(CPU).fp32 and machine.known(CPU)


def test_a_measurement_on_a_busy_machine_is_replaced_by_a_better_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0, True]
    monkeypatch.setattr(machine, "_products", lambda *_: machine._Rate(*now))
    monkeypatch.setattr(machine, "_memory", lambda _: [machine._Rate(1e9, False), machine._Rate(1e9, False)])
    found = machine.measure(CPU)
    assert found.disturbed == ("fp32", "bf16") and found.peak("fp32") is None and found.peak("read") == 1e9
    assert found.fp32 == 100  # a lower bound
    now[:] = [50.0, True]
    assert machine.machine(CPU) == found and machine.known(CPU) == found  # measured again: the higher bound is kept
    now[:] = [90.0, False]
    found = machine.machine(CPU)
    assert not found.disturbed and found.peak("fp32") == 90 and machine.known(CPU) == found
    now[:] = [80.0, True]
    assert machine.machine(CPU) == found == machine.measure(CPU)  # not measured again; on request it is, and kept
    now[:] = [85.0, False]
    assert machine.measure(CPU).fp32 == 85  # replaced: nothing disturbed this one either
    now[:] = [95.0, True]  # faster, although it was disturbed: so the one before was wrong
    assert machine.measure(CPU).disturbed == ("fp32", "bf16")


def test_a_discarded_rate_is_a_lower_bound_and_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    machine.discard(CPU, "fp32")  # nothing is cached
    monkeypatch.setattr(machine, "_products", lambda *_: machine._Rate(100.0, False))
    monkeypatch.setattr(machine, "_memory", lambda _: [machine._Rate(1e9, False), None])
    found = machine.measure(CPU)
    machine.discard(CPU, "fp32")
    assert machine.known(CPU) == dataclasses.replace(found, disturbed=("fp32",)) and found.peak("copy") is None
    monkeypatch.setattr(machine, "_products", lambda *_: machine._Rate(70.0, False))
    assert machine.machine(CPU).peak("fp32") == 70


@pytest.mark.parametrize(
    ("tries", "disturbed"),
    [([(0.1, 0.0), (0.2, 0.1)], False), ([(0.1, 0.01), (0.2, 0.0)], True),  # the fastest counts
     ([(0.001, 0.0)], True),  # too short to know
     ([(0.1, None), (0.102, None)], False), ([(0.1, None), (0.11, None)], True), ([(0.1, None)], True)],
)  # fmt: skip
def test_a_thread_that_waited_for_a_core_disturbs(tries: list[tuple[float, float | None]], disturbed: bool) -> None:
    made = [machine._Try(*one) for one in tries]
    assert machine._disturbed(made, CPU) is disturbed
    assert not machine._disturbed(made, torch.device("cuda"))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads can't be pinned to a core here")
def test_threads_that_share_a_core_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads on one core: each waits for the other. The peak of so many threads is not known then."""
    if run_load.RunLoad().longest_wait() is None:
        pytest.skip("the kernel does not say how long threads waited")
    code = (
        "import os, torch; from tui_llm.llm.model import machine; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "torch.set_num_threads(2); machine._SIZES, machine._PATIENCE = (512,), 0.05; "
        "print(machine._products(torch.device('cpu'), torch.float32).disturbed)"
    )
    command = [sys.executable, "-c", code]
    made = subprocess.run(command, capture_output=True, text=True, check=True, timeout=HANG)
    assert made.stdout.split() == ["True"]


def test_it_keeps_trying_until_nothing_disturbs(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = [machine._Try(0.2, 0.1)] * 4 + [machine._Try(0.1, 0.0)]
    monkeypatch.setattr(machine, "_PATIENCE", 1.0)
    monkeypatch.setattr(machine, "_timed", lambda *_: tries.pop(0))
    assert machine._products(CPU, torch.float32) == (2 * 32**3 / 0.1, False) and not tries
    tries[:] = [machine._Try(0.2, 0.1)] * 9
    found = machine._products(CPU, torch.float32)
    assert found is not None and found.disturbed and tries  # its patience ends


def test_a_device_without_such_products_has_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("not implemented for 'BFloat16'")

    monkeypatch.setattr(torch, "mm", refuse)
    monkeypatch.setattr(torch, "ones", refuse)
    found = machine.measure(CPU)
    assert (found.fp32, found.bf16, found.read, found.copy) == (None, None, None, None)
    assert machine.known(CPU) == found


def test_a_cache_that_cannot_be_written_is_no_error(home: Path) -> None:
    home.mkdir()
    (home / "cache").write_text("a file where the folder should be")
    assert machine.measure(CPU).fp32


def test_as_typed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_disturbed", lambda *_: False)
    monkeypatch.setattr(kernels, "_LAYERS", 1)
    monkeypatch.setattr(kernels, "_WIDTH", 64)
    assert main(["bench", "--machine", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["machine"]
    chosen = said.pop("kernels")
    said["disturbed"] = tuple(said["disturbed"])
    assert chosen == kernels.kept() and chosen["half"]["kernel"] in chosen["half"]["seconds"]
    assert machine.known(CPU) == Machine(**said)
    assert main(["bench", "--machine"]) == 0
    out = capsys.readouterr().out
    assert "FLOP/s" in out and "GB/s" in out and "fp32" in out and "bf16" in out
    assert f"{chosen['int8']['kernel']} *" in out and "64 tokens" in out
    assert machine.known(CPU) == Machine(**said)  # read, not measured
    monkeypatch.setattr(machine, "_products", lambda *_: machine._Rate(1.0, False))
    assert main(["bench", "--machine", "--again", "--json", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["machine"]["fp32"] == 1.0
    monkeypatch.setattr(machine, "_products", lambda *_: machine._Rate(2e9, True))
    assert main(["bench", "--machine", "--again", "--device", "cpu"]) == 0
    assert "≥ 2 GFLOP/s" in (out := capsys.readouterr().out) and "other programs were busy" in out
    assert main(["bench", "--device", "tpu"]) == 2
    assert "no device 'tpu'" in capsys.readouterr().err


def test_measuring_in_a_separate_process_takes_no_memory_here(monkeypatch: pytest.MonkeyPatch) -> None:
    before, used = resident_bytes(), time.thread_time()
    assert torch.ones(300, 300) @ torch.ones(300, 300) is not None  # wakes the threads, which are idle meanwhile
    found = machine.measure_in_subprocess(CPU)
    after, used = resident_bytes(), time.thread_time() - used
    assert used < 1.0  # this thread's processor time: it waits; importing torch alone takes the subprocess more
    assert found and found.fp32 and found.threads == torch.get_num_threads() and found == machine.known(CPU)
    assert before and after and after - before < 50e6
    monkeypatch.setattr("sys.executable", "/no/python")
    assert machine.measure_in_subprocess(CPU) is None
