"""`scripts/gpu.py` on a CPU, with tiny shapes, and in an environment as GPU machines have it: no textual, tiktoken, platformdirs or
rich."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import HANG
from tests.instruments.test_answers import questions
from tui_llm.llm.model import data_sheets

SCRIPTS = Path(__file__).parents[1] / "scripts"
MISSING = ("textual", "rich", "tiktoken", "platformdirs", "plotext", "textual_plotext", "shtab", "transformers")
BLOCKED = f"""
import runpy, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {MISSING!r}:
            raise ImportError("no module named " + name)

sys.meta_path.insert(0, Missing())
sys.argv = {{argv!r}}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))


def test_it_runs_on_a_cpu_without_what_gpu_machines_lack(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    patient = ("--minutes", "60")  # on a busy machine, too
    argv = [str(SCRIPTS / "gpu.py"), "--device", "cpu", "--small", *patient, "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED.format(argv=argv)], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""},
    )  # fmt: skip
    content = json.loads(out.read_text("utf-8"))
    verdicts = {(row["part"], row["what"]): row["verdict"] for row in content["rows"]}
    bad = {row: verdict for row, verdict in verdicts.items() if verdict.startswith(("NOT MET", "FAILED"))}
    log = out.with_suffix(".log").read_text("utf-8")
    assert not bad and done.returncode == 0, f"{bad}\n{done.stdout}\n{done.stderr}\n{log[-2000:]}"
    assert {part for part, _ in verdicts} == {
        "machine", "logits", "decode", "instruments", "training", "decoding", "run", "memory", "compile", "gauges",
    }  # fmt: skip
    skipped = {what for (_, what), verdict in verdicts.items() if verdict.startswith("not measured")}
    assert skipped == {
        "÷ nanoGPT, compiled", "÷ transformers", "decode, fp32 ÷ transformers", "decode, half ÷ transformers", "out of memory",
        "torch.compile", "use of the GPU beside nvidia-smi",
        "RoundQuestion",  # guessing plays against nano, whose vocabulary tiktoken encodes
    }  # fmt: skip
    assert sum(row["verdict"] == "met" for row in content["rows"]) >= 12
    assert all(row["part"] in done.stdout and row["what"] in done.stdout for row in content["rows"])


@pytest.mark.usefixtures("scripts")
def test_every_instrument_is_asked() -> None:
    import gpu_questions

    made = gpu_questions.questions("the cat", "the dog", Path(), Path(), "run:r")
    named = {kind.__name__ for kind in questions()}
    assert made.keys() | gpu_questions.LEFT_OUT == named and not made.keys() & gpu_questions.LEFT_OUT


@pytest.mark.usefixtures("scripts")
def test_a_part_that_fails_hangs_or_crashes_leaves_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    import gpu_report
    from gpu_report import PartReport, run_apart

    def fails(report: Any) -> None:
        report.put("seen", 2.0, "s", "≤", 3)
        report.put("too much", 4.0, "s", "≤", 3)
        report.put("broken", float("nan"))
        raise ValueError("a reason\nof two lines")

    def hangs(report: Any) -> None:
        report.put("before")
        signal.pause()

    def crashes(report: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def over_with(report: PartReport) -> SimpleNamespace:
        """A clock by which the time of a part is over once its first row is there."""
        return SimpleNamespace(sleep=time.sleep, monotonic=lambda: 2.0 * HANG if report.rows() else 0.0)

    made = {}
    for work in (fails, hangs, crashes):
        report = PartReport(work.__name__, tmp_path / work.__name__)
        with monkeypatch.context() as patch:
            if work is hangs:
                patch.setattr(gpu_report, "time", over_with(report))
            made[work.__name__] = [row.verdict for row in run_apart(report, work, HANG, tmp_path / "log")]
    assert made["fails"] == ["met", "NOT MET", "FAILED: it is nan", "FAILED: ValueError: a reason of two lines"]
    assert made["hangs"][0] == "stated" and f"ended after {HANG:.0f} s, its limit" in made["hangs"][1]
    assert "ended by SIGKILL" in made["crashes"][0]


@pytest.mark.usefixtures("scripts")
def test_a_device_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import gpu
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert gpu.main(["--out", str(tmp_path / "gpu.json")]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: there is no cuda device that torch can use: ")
    assert told.count("\n") == 1 and not (tmp_path / "gpu.json").exists()


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA H200", 989), ("NVIDIA H200 NVL", 836),
        ("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA A100 80GB PCIe", 312), ("NVIDIA A100-PCIE-40GB", 312), ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362), ("NVIDIA L40", 181), ("NVIDIA A10", 125), ("Tesla T4", 65), ("NVIDIA GeForce RTX 4090", 165),
        ("Tesla V100-SXM2-16GB", 125), ("NVIDIA GH200 480GB", 990),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None), ("NVIDIA GeForce RTX 4090 Laptop GPU", None), ("NVIDIA A10G", None),
        ("NVIDIA GeForce RTX 4090 D", None), ("AMD Instinct MI300X", None),
    ],
)  # fmt: skip
def test_a_cards_peak_is_that_of_its_data_sheet(name: str, teraflops: float | None) -> None:
    found = data_sheets.data_sheet(name)
    assert (None if found is None else found.flops / 1e12) == teraflops
