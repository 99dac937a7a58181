"""`tui-llm bench --against`: what it compares, that it compares the same model, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tui_llm.cli import main
from tui_llm.commands.shared import bench_peers
from tui_llm.common.errors import UserError
from tui_llm.llm.adapters import peers
from tui_llm.llm.model import checkpoint, device
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(bench_peers, "PAUSE", 0)
    before = device.most_threads()
    yield
    device.use_threads(before)


@pytest.fixture(scope="module")
def made() -> GPT:
    torch.manual_seed(3)
    model = GPT(GPTConfig(300, 80, 2, 2, 32))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


@pytest.fixture(scope="module")
def folder(made: GPT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    checkpoint.save(made, path)
    return path


def missing(name: str) -> bool:
    return importlib.util.find_spec(peers.MODULES[name]) is None


def test_a_side_in_its_process_gives_one_table_and_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    typed = ["bench", "--model", str(folder), "--against", "transformers", "--weights", "fp32", "--rounds", "2", "--tokens", "5", "--threads", "1"]  # fmt: skip
    assert main([*typed, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["peers"]
    (kind,) = found["kinds"]
    assert [(row["work"], row["prompt"]) for row in kind["rows"]] == [("decode", 26), ("prompt", 64)]
    theirs = kind["sides"]["transformers"]
    assert theirs["type"] == "float32" and theirs["greedy_same"] == 5 and theirs["logits_off"] < 1e-4
    assert kind["sides"]["here"]["logits_off"] == 0
    for row in kind["rows"]:
        low, high = row["spread"]["transformers"]
        assert 0 < low <= row["seconds"]["transformers"] <= high and row["fastest_peer"] == "transformers"
        assert row["ratio_spread"][0] <= row["ratio"] <= row["ratio_spread"][1]
    bench_peers.show(found)
    out = capsys.readouterr().out
    assert "decode after 26" in out and "tokens/s" in out and "× transformers" in out and "instructions: here" in out


@pytest.mark.parametrize("name", ["here", "transformers", "ctranslate2", "llama.cpp"])
def test_each_side_computes_the_model_of_the_folder(name: str, made: GPT, tmp_path: Path) -> None:
    """Against our model in float64."""
    if name in peers.MODULES and missing(name):
        pytest.skip(f"{name} is not installed: it is not part of the extra dev")
    ids = list(range(7, 40))
    with torch.no_grad():
        right = made.double()(torch.tensor([ids]))[0, -1].tolist()
    made.float()
    peers.write_source(tmp_path / "model", made)
    for ours, theirs in peers.TYPES[name].items():
        side = peers.SIDES[name](tmp_path / "model", theirs, 1)
        assert bench_peers.distance(side.logits(ids).tolist(), right) < bench_peers.BOUNDS[ours]
        assert side.logits(ids).shape == (300,)
        first = side.write(ids, 3)
        assert len(first) == 3 and first == side.write(ids, 3)  # the cache of an earlier call leaves no trace
        assert side.version and side.instructions()


class WrongSide(bench_peers.RemoteSide):
    """In this process; transformers' logits are in another order."""

    def __init__(self, name: str, source: Path, kind: str, threads: int, clock: str) -> None:
        self.name, self.facts, self.side = name, {}, peers.SIDES[name](source, kind, threads)

    def wait(self) -> None: ...
    def close(self) -> None: ...

    def ask(self, work: str, ids: list[int], count: int = 0) -> dict[str, Any]:
        assert work != "prompt"  # nothing is timed
        found = peers.answer(self.side, {"work": work, "ids": ids, "count": count}, time.perf_counter)
        return {**found, "logits": found["logits"][::-1]} if self.name == "transformers" and work == "logits" else found


def test_another_model_is_refused_before_it_is_timed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_peers, "RemoteSide", WrongSide)
    assert main(["bench", "--model", str(folder), "--against", "transformers", "--rounds", "1", "--tokens", "2"]) == 2
    err = capsys.readouterr().err
    assert "transformers computes another model in float32" in err and err.count("\n") == 1


def test_distance_is_that_of_what_a_softmax_sees() -> None:
    a = np.random.default_rng(0).normal(size=500)
    assert bench_peers.distance((a + 3).tolist(), a.tolist()) == pytest.approx(0, abs=1e-12)
    assert bench_peers.distance((a * 1.1).tolist(), a.tolist()) == pytest.approx(0.1)
    assert bench_peers.distance(a[::-1].tolist(), a.tolist()) > 1


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--against", "vllm"], "ctranslate2, llama.cpp, transformers"),
        (["peers"], "needs --against"),
        (["--against", "transformers", "--model", "missing"], "missing"),
    ],
)
def test_wrong_input_is_one_line(typed: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *typed]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_a_side_that_is_not_there_or_fails_is_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(peers.MODULES, "ctranslate2", "no_such_module")
    assert main(["bench", "--model", str(folder), "--against", "transformers,ctranslate2"]) == 2
    err = capsys.readouterr().err
    assert "pip install 'tui-llm[peers]'" in err and err.count("\n") == 1
    side = bench_peers.RemoteSide("ctranslate2", tmp_path / "model", "float99", 1, "wall")
    with pytest.raises(UserError, match=r"ctranslate2 can't run this model: .*install"):
        side.wait()
    side.close()
    torch.manual_seed(0)
    checkpoint.save(GPT(GPTConfig(97, 32, 2, 2, 16)), tmp_path / "small")
    assert main(["bench", "--model", str(tmp_path / "small"), "--against", "transformers"]) == 2
    assert "257 or more" in capsys.readouterr().err


def test_under_avx2_each_side_that_can_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert bench_peers.limited_to_avx2()
    side = {"type": "f32", "logits_off": 0.0, "greedy_same": 1, "greedy": 1, "version": "1"}
    sides = {"here": {**side, "instructions": "AVX2"}, "llama.cpp": {**side, "instructions": "AVX512"}}
    lines = list(bench_peers.notes({"kinds": [{"weights": "fp32", "sides": sides}]}))
    assert any("llama.cpp ran with AVX-512, here without" in line for line in lines)
    sides["llama.cpp"]["instructions"] = "AVX2"
    assert not any(
        "not the same" in line for line in bench_peers.notes({"kinds": [{"weights": "fp32", "sides": sides}]})
    )
