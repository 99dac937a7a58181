"""The machine's peak: measured once, saved, and never used for another machine."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from tui_llm.cli import main
from tui_llm.common import paths
from tui_llm.common.memory import resident_bytes
from tui_llm.llm.model import kernels, machine
from tui_llm.llm.model.machine import Machine

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_SIZES", (32, 64))
    monkeypatch.setattr(machine, "_SPENT", 0.01)
    monkeypatch.setattr(machine, "_BYTES", {"cpu": 1 << 16})


def test_rates_are_operations_and_bytes_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def timed(work: object, device: torch.device) -> float:
        made.append(work)
        return 0.125  # slow enough that no larger matrix is tried

    monkeypatch.setattr(machine, "_timed", timed)
    found = machine.measure(CPU)
    assert found.fp32 == found.bf16 == 2 * 32**3 / 0.125
    assert (found.read, found.copy) == (2**16 / 0.125, 2 * 2**16 / 0.125)
    assert (found.device, found.torch, found.threads) == (
        machine.device_name(CPU), torch.__version__, torch.get_num_threads(),
    )  # fmt: skip
    assert found.peak("bf16") == found.bf16 and found.peak("fp32") == found.fp32 and made


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
def test_a_damaged_cache_is_measured_over(change: dict[str, object] | None) -> None:
    machine.measure(CPU)
    (path,) = (paths.cache_dir() / "machine").iterdir()
    path.write_text("[1" if change is None else json.dumps({**json.loads(path.read_text()), **change}))
    assert machine.known(CPU) is None
    assert machine.machine(CPU).fp32 and machine.known(CPU)


def test_a_measurement_on_a_busy_machine_is_replaced_by_a_better_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {"now": 100.0}
    monkeypatch.setattr(machine, "_products", lambda *_: rates["now"])
    monkeypatch.setattr(machine, "_memory", lambda _: [rates["now"], rates["now"]])
    with monkeypatch.context() as patch:
        patch.setattr(machine.time, "process_time", lambda: 0.0)  # as if other processes used the CPU
        assert not machine.measure(CPU).quiet
        rates["now"] = 50.0
        assert machine.measure(CPU) == dataclasses.replace(machine.measure(CPU), fp32=100.0, quiet=False)
    rates["now"] = 200.0
    monkeypatch.setattr(machine, "_OURS", 0.0)
    found = machine.machine(CPU)
    assert found.quiet and found.fp32 == 200 and machine.known(CPU) == found
    rates["now"] = 150.0
    assert machine.machine(CPU) == found  # not measured again
    assert machine.measure(CPU).fp32 == 150  # measured again on request


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
    monkeypatch.setattr(machine, "_OURS", 0.0)
    monkeypatch.setattr(kernels, "_LAYERS", 1)
    monkeypatch.setattr(kernels, "_WIDTH", 64)
    assert main(["bench", "--machine", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["machine"]
    chosen = said.pop("kernels")
    assert chosen == kernels.kept() and chosen["half"]["kernel"] in chosen["half"]["seconds"]
    assert machine.known(CPU) == Machine(**said)
    assert main(["bench", "--machine"]) == 0
    out = capsys.readouterr().out
    assert "FLOP/s" in out and "GB/s" in out and "fp32" in out and "bf16" in out
    assert f"{chosen['int8']['kernel']} *" in out and "64 tokens" in out
    assert machine.known(CPU) == Machine(**said)  # read, not measured
    monkeypatch.setattr(machine, "_products", lambda *_: 1.0)
    assert main(["bench", "--machine", "--again", "--json", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["machine"]["fp32"] == 1.0
    assert main(["bench", "--device", "tpu"]) == 2
    assert "no device 'tpu'" in capsys.readouterr().err


def test_measuring_in_a_separate_process_takes_no_memory_here(monkeypatch: pytest.MonkeyPatch) -> None:
    before = resident_bytes()
    found = machine.measure_in_subprocess(CPU)
    after = resident_bytes()
    assert found and found.fp32 and found.threads == torch.get_num_threads() and found == machine.known(CPU)
    assert before and after and after - before < 50e6
    monkeypatch.setattr("sys.executable", "/no/python")
    assert machine.measure_in_subprocess(CPU) is None
