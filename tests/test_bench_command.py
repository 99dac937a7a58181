"""`tui-llm bench`: its output, its counts, and that both sides do the same work."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from tui_llm.cli import main
from tui_llm.commands.shared import bench_reading
from tui_llm.llm.learn import speed
from tui_llm.llm.learn.speed import Amounts, OwnBackend, Transformers
from tui_llm.llm.model import checkpoint, device, machine
from tui_llm.llm.model.machine import Machine
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.model.shape import GPTConfig as Shape
from tui_llm.training.plan.step_time import Measurement, Rate

CPU = torch.device("cpu")
FAST = Machine("test", torch.__version__, 2, 1e11, 2e11, 1e10, 1e10)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "machine", lambda _: FAST)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(3)
    model = GPT(GPTConfig(97, 32, 2, 2, 16))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    checkpoint.save(model, path)
    return path


def test_both_sides_write_and_read_the_same(folder: Path) -> None:
    ours, theirs = OwnBackend(folder, CPU, "fp32"), Transformers(folder, CPU, torch.float32)
    prompt = [5, 7, 11, 13]
    made = ours.write(prompt, 12)
    assert made == theirs.write(prompt, 12) and len(made) == 12
    for ids in (prompt, [*prompt, 2], [*prompt, 3], prompt[:2], prompt[:2], [9, *prompt]):
        assert ours.read(ids) == theirs.read(ids)


def test_the_benchmark_times_the_stated_work(folder: Path) -> None:
    ours = OwnBackend(folder, CPU, "fp32")
    amounts, ids = Amounts.of(32, prompt=5, written=4, context=20), list(range(40))
    fed: list[int] = []
    feed = ours.window.feed
    ours.window.feed = lambda *given: fed.append(feed(*given)) or fed[-1]  # type: ignore[method-assign]
    counted = {}
    for kind in ("decode", "typing"):
        for name, work in speed.works(ours, ids, amounts, kind, lambda: float(sum(fed))).items():
            work()
            counted[name] = work()  # the fake clock counts fed tokens as seconds
    assert counted == {"decode": (8.0, 4), "first token": (5.0, 1), "typed token": (1.0, 1), "changed token": (5.0, 1)}


def test_amounts_fit_the_context() -> None:
    assert Amounts.of(1024) == Amounts(64, 128, 200, 50)
    for most in range(8, 300):
        a = Amounts.of(most)
        assert a.prompt + a.written <= most and a.context < most and 1 <= a.changed < a.context


def test_least_time_of_gpt2() -> None:
    shape = Shape()
    one = speed.least_seconds(shape, 1, 0, "fp32", FAST)
    weights = shape.parameters() - shape.context * shape.width  # except biases and LayerNorms
    assert one == pytest.approx(4 * weights / 1e10, rel=2e-3)  # memory-bound
    half = speed.least_seconds(shape, 1, 0, "half", FAST)
    assert half is not None and half == pytest.approx(one / 2, rel=2e-3)
    many = speed.least_seconds(shape, 200, 0, "fp32", FAST)
    blocks = 12 * 12 * 768**2
    assert many == pytest.approx((2 * blocks * 200 + 2 * 50257 * 768 + 4 * 12 * 768 * 20100) / 1e11)  # compute-bound
    assert speed.least_seconds(shape, 1, 0, "fp32", Machine("", "", 1, None, None, None, None)) is None


def test_nothing_is_compared_with_a_rate_that_was_disturbed_or_exceeded() -> None:
    shape, least = Shape(), speed.least_seconds(Shape(), 1, 0, "fp32", FAST)
    slow_products, slow_memory = (dataclasses.replace(FAST, disturbed=(name,)) for name in ("fp32", "read"))
    assert speed.least_seconds(shape, 1, 0, "fp32", slow_products) is None
    assert speed.least_seconds(shape, 1, 0, "int8", slow_products) == speed.least_seconds(shape, 1, 0, "int8", FAST)
    assert speed.least_seconds(shape, 1, 0, "int8", slow_memory) is None
    assert least is not None and speed.roofline_share(least, 2 * least) == 0.5
    assert speed.roofline_share(least, 0.9 * least) is None and speed.roofline_share(None, 1.0) is None


@pytest.mark.parametrize(
    ("found", "said"),
    [(dataclasses.replace(FAST, disturbed=("fp32", "bf16")), "beside other programs"),
     (dataclasses.replace(FAST, fp32=1e3, bf16=1e3), "faster than its measured peak"), (FAST, "of the machine (MFU)")],
)  # fmt: skip
def test_training_has_no_share_of_a_wrong_peak(
    found: Machine, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    discarded = []
    monkeypatch.setattr(machine, "machine", lambda _: found)
    monkeypatch.setattr(machine, "discard", lambda _, name: discarded.append(name))
    monkeypatch.setattr(Measurement, "__init__", lambda self, *_: None)
    monkeypatch.setattr(Measurement, "take", lambda self: Rate(100.0, 3, 4, "cpu"))
    monkeypatch.setattr(Measurement, "cancel", lambda self: None)
    assert main(["bench", "training", "--preset", "toy"]) == 0
    out = capsys.readouterr().out
    assert said in out and ("%" in out) is (found is FAST) and bool(discarded) is (found.fp32 == 1e3)


def test_sides_take_turns() -> None:
    order: list[str] = []

    def side(name: str, seconds: float) -> speed.Work:
        return lambda: (order.append(name) or seconds, 2)  # type: ignore[func-returns-value]

    taken = list(speed.in_turn({"a": side("a", 1.0), "b": side("b", 4.0)}, 3))
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
    assert speed.medians(taken) == {"a": 0.5, "b": 2.0} and speed.ratio(taken, "a", "b") == 4.0


def test_as_typed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    typed = ["bench", "decode", "typing", "--model", str(folder), "--rounds", "1", "--tokens", "3"]
    assert main([*typed, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [row["work"] for row in said["decode"]["rows"]] == ["decode", "first token"]
    assert [row["work"] for row in said["typing"]["rows"]] == ["typed token", "changed token"]
    assert all(row["seconds"] > 0 and row["share"] > 0 and row["rival"] is None for row in said["decode"]["rows"])
    assert main([*typed, "--against", "transformers", "--weights", "fp32,int8"]) == 0
    out = capsys.readouterr().out
    assert "tokens/s" in out and "transformers fp32" in out and "×" in out and "int8 results differ" in out


def test_goals_are_printed_for_gpt2s_shape(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.setattr(bench_reading, "_is_gpt2", lambda _: True)
    typed = ["bench", "decode", "--model", str(folder), "--rounds", "1", "--tokens", "2", "--against", "transformers"]
    assert main(typed) == 0
    out = capsys.readouterr().out
    assert all(goal in out for goal in ("≥ 1.3×", "≥ 2.0×", "≥ 3.5×"))


def test_threads_can_be_chosen(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.get_num_threads()
    try:
        assert main(["bench", "decode", "--model", str(folder), "--rounds", "1", "--tokens", "2", "--threads", "1", "--cpu-time"]) == 0  # fmt: skip
        assert torch.get_num_threads() == 1 and "cpu time" in capsys.readouterr().out
    finally:
        device.use_threads(before)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["nonsense"], "no part 'nonsense'"),
        (["--against", "[red]\x1b"], "[red]"),
        (["--weights", "fp8"], "fp32, half, int8"),
        (["--rounds", "0"], "--rounds is 0"),
        (["--model", "nano", "--preset", "gpt2"], "not both"),
        (["--preset", "huge"], "no preset 'huge'"),
        (["decode", "--model", "missing"], "missing"),
    ],
)
def test_wrong_input_is_one_line(typed: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *typed]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1 and "\x1b" not in err
