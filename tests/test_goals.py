"""`scripts/goals.py`: its table; which figures it prints depends on the machine."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def goals(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import goals

    yield goals
    for name in ("goals", "start", "figures", "figures_growth", "figures_memory", "figures_screen"):
        sys.modules.pop(name, None)


OPTIONS = argparse.Namespace(
    quick=True, nanogpt="nanoGPT", nanochat="nanochat", gguf="smol.gguf", weights=["int8"], capability="AVX512"
)
KEYS = [{"name": "letter", "app": [0.02] * 18 + [0.05] * 2, "static": [0.004] * 20}]
PEERS = {"peers": {"kinds": [{"weights": "int8", "sides": {}, "rows": [
    {"work": "decode", "prompt": 64, "seconds": {"here": 0.02, "ctranslate2": 0.03, "llama.cpp": 0.01}},
    {"work": "prompt", "prompt": 64, "seconds": {"here": 0.02, "ctranslate2": 0.03, "llama.cpp": 0.01}}]}]}}  # fmt: skip
GROWTH = [{"step": "sort", "size": n, "seconds": n * n / 1e3, "units": n} for n in (10, 100)]
MEMORY = [{"name": "app", "part": 3.0, "whole": 2.0, "goal": 1.3}]
OUTPUTS = {
    "start.py": {"app: first paint": 2.0, "tui-llm logits": 0.3},
    "figures_screen.py": KEYS,
    "figures_memory.py": MEMORY,
    "figures_growth.py": GROWTH,
    "bench": PEERS,
    "figures_gguf.py": {"ratio": 1.05},
    "figures_int8.py": {"top-1": 0.989, "KL": 2e-4},
    "bench_nanochat.py": {"ratio": 3.9},
}


def test_each_group_turns_its_measurements_into_verdicts(goals: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(*command: str) -> str:
        name = next((name for name in OUTPUTS if any(name == Path(word).name for word in command)), None)
        if name is None:
            raise goals.NotMeasured("nanoGPT is no folder")
        return json.dumps(OUTPUTS[name])

    monkeypatch.setattr(goals, "measured", measured)
    found = {goal.name: goal for group in goals.GROUPS.values() for goal in group(OPTIONS)}
    verdicts = {name: (goal.figure, goal.verdict) for name, goal in found.items() if goal.figure is not None}
    assert verdicts == {
        "app: first paint ÷ import textual.app": (2.0, "met"),
        "tui-llm logits ÷ import torch": (0.3, "NOT MET"),
        "letter: processor time ÷ redrawing a Static": (5.0, "met"),
        "letter: its 95th percentile ÷ its median": (2.5, "NOT MET"),
        "app": (1.5, "NOT MET"),
        "growth: steps that grow faster than bytes or operations: sort, 100": (1, "NOT MET"),
        "decode, int8, 64 tokens ÷ llama.cpp": (0.5, "NOT MET"),
        "prompt, int8, 64 tokens ÷ ctranslate2": (1.5, "met"),
        "GGUF, quantized: decode ÷ llama.cpp alone": (1.05, "met"),
        "int8, nano's held-out text: top-1 as fp32, %": (98.9, "NOT MET"),
        "int8, nano's held-out text: KL, in 1/1000 nats": (0.2, "met"),
        "training d4: tokens/s ÷ nanochat": (3.9, "met"),
    }
    training = found["training baby: tokens/s ÷ nanoGPT's recipe"]
    assert training.verdict == "not measured: nanoGPT is no folder" and training.goal == 2.0


def test_what_grows_no_faster_passes(goals: Any) -> None:
    import figures_growth

    points = [figures_growth.GrowthPoint("read", n, 0.01 + n / 1e3, n) for n in (10, 100, 1000)]
    brief = [figures_growth.GrowthPoint("brief", n, n / 1e6, 1) for n in (1, 1000)]  # noise
    assert figures_growth.grows_faster(points + brief) == []


def test_the_script_prints_the_machine_a_table_and_why_something_is_not_measured(
    goals: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in goals.AVX2:
        monkeypatch.setenv(name, "")  # it sets them; the test puts them back
    monkeypatch.setattr(sys, "argv", ["goals.py", "--avx2", "--only", "training"])
    goals.main()
    machine, *lines, last = capsys.readouterr().out.splitlines()
    assert " CPUs, torch " in machine and "AVX512" not in machine
    assert len(lines) == 4 and all("not measured: give a clone of" in line for line in lines)
    assert "≥ 1.6" in lines[0] and last == "0 met, 0 not met, 4 not measured"
