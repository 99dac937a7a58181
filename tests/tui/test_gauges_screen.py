"""The machine's gauges: a line of the Training pane, the screen of all, and the command."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import fake_run
import pytest
from helpers import make_app, text, unsafe, until
from test_training_pane import HOSTILE, PaneApp

from tests.fake_nvml import Card, FakeNvml, install
from tui_llm.cli import main
from tui_llm.facts.machine_reading import CpuReading, GpuReading, MachineReading, as_json, parse_machine
from tui_llm.llm.model import device_names
from tui_llm.tui.runs import gauges as screens
from tui_llm.tui.runs.gauges import GaugeLines, MachineScreen

GPU = GpuReading("NVIDIA H100", 3, "GPU-1", "cuda:0", int(3.1e9), int(3.4e9), int(4.2e9), int(6e9), int(85e9), 0.97, 61, 412.3, 700.0, 1980, 2619, 1, "9.0")  # fmt: skip
CPU = CpuReading("Some CPU", 2, None, 8, 4, 2600.0, None, 0.93, 1.9, int(16e9), int(5.1e9), int(312e6))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUI_LLM_HOME", str(tmp_path))
    return tmp_path


def run_with(*gpus: GpuReading, problem: str = "", cpu: CpuReading | None = CPU) -> Any:
    run = fake_run.make("tales", state="running", done=20)
    reading = MachineReading(time.time(), gpus, cpu, problem)
    fake_run.add(run, 21, 21, memory_bytes=312.4e6, gpu_use=0.5, machine=as_json(reading))
    fake_run.add(run, 22, 23)
    return run


def plain(app: Any) -> str:
    return text(app).replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("gpus", "shown"),
    [
        ((GPU,), "GPU 97 %  allocated 3.1 GB  reserved 4.2 GB  on the card 6.0 GB of 85.0 GB  61 °C  power 412 W of 700 W"),
        ((GpuReading(device="cuda:0", mig=True),), "GPU N/A  allocated N/A  reserved N/A  on the card N/A  N/A  power N/A"),
        ((GPU, GpuReading(device="cuda:1", use=0.95)), "GPUs 97 %, 95 %  allocated 3.1 GB"),
        ((GpuReading(device="mps", allocated=10**9),), "GPU N/A  allocated 1.0 GB  reserved N/A  recommended N/A"),
        ((), "CPU 93 % of 2 cores  this run 1.9 cores  2.60 GHz  memory 312 MB  free 5.1 GB of 16.0 GB"),
    ],
    ids=["gpu", "mig", "two", "mps", "cpu"],
)  # fmt: skip
async def test_the_pane_has_a_line_of_gauges_while_the_run_trains(gpus: tuple[GpuReading, ...], shown: str) -> None:
    run = run_with(*gpus)
    app = PaneApp()
    with fake_run.alive(run):
        async with app.run_test(size=(130, 30)) as pilot:
            await until(pilot, lambda: shown in plain(app))
            assert "GPU 50 %" not in plain(app)  # once, not twice
    app = PaneApp()  # the run has died: its gauges are of the past
    async with app.run_test(size=(130, 30)) as pilot:
        await until(pilot, lambda: app.state == "died")
        assert shown not in plain(app)


async def test_a_lost_gpu_is_a_line_and_the_key_shows_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screens, "is_cpu", lambda _name: True)
    lost = GpuReading(name=HOSTILE, device="cuda:0", problem=f"the GPU is lost {HOSTILE}", capability="7.5")
    run = run_with(lost, problem="no driver")
    app = make_app()
    with fake_run.alive(run):
        async with app.run_test(size=(120, 40)) as pilot:
            await pilot.press("escape", "4")
            await until(pilot, lambda: "! no driver  M: all 2" in plain(app))
            await pilot.press("M")
            await until(pilot, lambda: isinstance(app.screen, MachineScreen) and "This machine now" in plain(app))
            shown = plain(app)
            assert "! cuda:0: the GPU is lost" in shown and "has no bf16" in shown and "utilization N/A" in shown
            assert not unsafe(shown.split("\n"))
            rows = list(app.screen.table())
            assert ("allocated", "N/A") in [row[1:3] for row in rows] and rows[0] == ("of", "gauge", "value", "meaning")
            await pilot.press("escape")
            await until(pilot, lambda: app.screen is app.lab_screen)


async def test_without_a_run_the_screen_reads_the_machine_on_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pynvml", reason="nvidia-ml-py, a dependency, is not installed")
    monkeypatch.setattr(screens, "is_cpu", lambda _name: False)
    install(monkeypatch, FakeNvml([Card("GPU-1"), Card("GPU-2", use=5, temperature=33)]))
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        app.push_screen(MachineScreen(lambda: None))
        await until(pilot, lambda: "GPU 1 · NVIDIA H100" in plain(app) and "utilization 5 %" in plain(app))
        assert "There is no run" in plain(app)
        assert app.screen.query_one(GaugeLines).now.driver == "570.86.15"  # type: ignore[union-attr]


@pytest.mark.parametrize("damaged", [None, 7, "x", [], {"gpus": 5}, {"gpus": [1, {"use": "x", "name": 3}], "cpu": []},
                                     {"gpus": [{"use": float("inf"), "power": -1, "index": 10**400, "mig": "no"}] * 99}])  # fmt: skip
def test_damaged_gauges_count_as_not_read(damaged: Any) -> None:
    found = parse_machine(damaged)
    assert found is None or all(gpu == GpuReading() for gpu in found.gpus)


def test_what_is_written_is_read_again() -> None:
    reading = MachineReading(12.5, (GPU, GpuReading(problem="lost")), CPU, "a problem", "570", "12.8")
    assert parse_machine(json.loads(json.dumps(as_json(reading)))) == reading


def test_the_command_prints_every_gpu_with_torchs_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pynvml", reason="nvidia-ml-py, a dependency, is not installed")
    monkeypatch.setattr(device_names, "is_cpu", lambda _name: False)
    install(monkeypatch, FakeNvml([Card("GPU-1"), Card("GPU-2", use=5)]))
    assert main(["device", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(gpu["index"], gpu["use"], gpu["power_limit"], gpu["allocated"]) for gpu in found["gpus"]] == [(0, 0.97, 700.0, None), (1, 0.05, 700.0, None)]  # fmt: skip
    assert found["device"] == "cpu" and found["driver"] == "570.86.15" and len(found["notes"]) == 1
    assert main(["device"]) == 0
    out = capsys.readouterr().out
    assert "GPU 1 · NVIDIA H100 80GB HBM3" in out and "412 W of 700 W" in out and out.count("! NVIDIA H100") == 1
