"""`--minutes`: what is picked for a time, what is refused, and what text presets promise."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.training.run_helpers import words
from tui_llm.cli import main
from tui_llm.common.errors import UserError
from tui_llm.llm.data import corpora
from tui_llm.llm.data.formats import AUTO
from tui_llm.llm.hub import hub
from tui_llm.llm.model.model import GPT
from tui_llm.training.plan import budget, cost, loss_law
from tui_llm.training.plan.fields import resolve_settings
from tui_llm.training.plan.loss_law import LAW
from tui_llm.training.run import time_plan
from tui_llm.training.run.promises import PROMISES, expected_text, promise_of, usual_corpus
from tui_llm.training.run.run import find
from tui_llm.training.run.settings import BUDGET, PRESETS, TrainingSettings
from tui_llm.training.worker.budget import text_facts

MB = 1_000_000


class FakeMeasurement:
    """A machine of `flops` operations per second."""

    flops = 50e9
    text: dict[str, Any] = {"bytes": MB, "bytes_per_token": {"nano": 3.2, "byte": 1.0}}

    def __init__(self, shapes: Any, corpus: Any, settings: TrainingSettings, tokenizers: Any, device: str) -> None:
        self.shapes, self.tokenizers, self.started, self.seconds, self.left = shapes, tokenizers, 1.0, 0.0, 0

    def __enter__(self) -> FakeMeasurement:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def results(self) -> Iterator[dict[str, Any]]:
        if self.tokenizers:
            yield {"text": self.text}
        for at, (settings, shape) in enumerate(self.shapes):
            self.seconds += 0.5
            rate = self.flops / cost.flops_per_token(shape, settings.block_size)
            yield {"shape": at, "tokens_per_second": rate, "device": "cpu"}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> type[FakeMeasurement]:
    class Machine(FakeMeasurement):
        pass

    monkeypatch.setattr(budget, "BudgetMeasurement", Machine)
    return Machine


def plan(minutes: float, pick: bool = True, preset: str = BUDGET, **given: Any) -> budget.Plan:
    settings, shape, _ = resolve_settings({"minutes": minutes, **given}, PRESETS[preset], ["text"])
    return budget.plan(settings, shape, ["text"], "cpu", pick=pick, own_tokenizer="tokenizer" in given)


def test_the_law_is_chinchillas_and_repeated_text_counts_less() -> None:
    by_hand = LAW.e + LAW.a / 1e6**LAW.alpha + LAW.b / 3.2**LAW.gamma / 3e6**LAW.beta
    assert LAW.bits_per_byte(1_000_000, 3e6, 1e7, 3.2) == pytest.approx(by_hand, rel=1e-12)
    assert loss_law.effective(5.0, 10.0) == 5.0
    # Muennighoff et al. 2023, equation 5, and their limit: 1 + R times the text
    assert loss_law.effective(40.0, 10.0) == pytest.approx(10 + 10 * 15.4 * (1 - math.exp(-3 / 15.4)))
    assert loss_law.effective(1e9, 10.0) == pytest.approx(10 * 16.4)


def test_the_law_expects_what_was_measured_within_its_spread() -> None:
    """The runs on bytes in docs/training.md, of which a token is a byte: millions of them, and held-out bits per byte."""
    lines = (Path(__file__).parents[2] / "docs" / "training.md").read_text().splitlines()
    table = lines[lines.index("## The law of parameters and tokens") :]
    read, row = (
        next(line for line in table if name in line).split("|")[3:-1] for name in ("M tokens", "2 × 128, byte: 0.43 M")
    )
    measured = {float(m.split()[0]): float(bits) for m, bits in zip(read, row, strict=True) if bits.strip()}
    assert measured.keys() == {0.26, 0.52, 1.05, 2.10}
    for millions, bits in measured.items():
        expected = LAW.bits_per_byte(
            430_000, millions * 1e6, 1_115_394 * 0.95, 1.0
        )  # tinyshakespeare, its held-out part left out
        assert expected == pytest.approx(bits, rel=LAW.spread)


@pytest.mark.parametrize("arch", ["", "rope", "modern"])
def test_the_laws_n_is_all_weights_but_the_position_embedding(arch: str) -> None:
    """Rotary positions have none, so that nothing is left out there."""
    settings, shape, _ = resolve_settings({"arch": arch}, PRESETS["toy"])
    weights = {name: p.numel() for name, p in GPT(shape).named_parameters()}
    n = sum(weights.values()) - weights.get("positions.weight", 0)
    text = {"bytes": MB, "bytes_per_token": {"byte": 1.0}}
    made = budget.option((settings, shape), 1000.0, 60.0, text, None)
    wanted = LAW.bits_per_byte(n, 60_000.0, MB * (1 - settings.validation_fraction), 1.0)
    assert made.bits_per_byte == pytest.approx(wanted, rel=1e-12)


def test_more_time_and_a_faster_machine_pick_larger_models(machine: type[FakeMeasurement]) -> None:
    machine.text = {"bytes": 10_000 * MB, "bytes_per_token": {"nano": 3.2, "byte": 1.0}}
    sizes = []
    for minutes, flops in ((1, 20e9), (10, 20e9), (10, 2e12), (600, 2e13)):
        machine.flops = flops
        made = plan(minutes)
        sizes.append(made.picked.shape.parameters())
        assert made.picked.bits_per_byte == min(one.bits_per_byte for one in made.options)
        assert made.settings.steps == made.picked.steps >= budget.PICKED.steps / 2
        assert made.settings.learning_rate == pytest.approx(budget.RATE / made.settings.width)
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]


def test_measuring_stops_in_time_and_larger_models_are_extrapolated(machine: type[FakeMeasurement]) -> None:
    machine.flops = 2e12
    made = plan(0.5)  # 8 % of half a minute is five measurements
    assert made.measured == 5 and len(made.options) > 5
    given = {one.name: one.tokens_per_second for one in made.options}
    assert given["4 × 256, nano"] < given["4 × 128, nano"] < given["2 × 64, nano"]


def test_a_vocabulary_that_does_not_fit_the_text_loses(machine: type[FakeMeasurement]) -> None:
    machine.text = {"bytes": 100 * MB, "bytes_per_token": {"nano": 1.05, "byte": 1.0}}
    assert plan(2).settings.tokenizer == "byte"
    assert plan(2, tokenizer="nano").settings.tokenizer == "nano"


def test_a_fixed_preset_keeps_its_model(machine: type[FakeMeasurement]) -> None:
    made = plan(1, pick=False, preset="small")
    small = PRESETS["small"]
    assert dataclasses.replace(made.settings, steps=small.steps, minutes=0.0, warmup_steps=50) == small
    assert len(made.options) == 1
    machine.flops = 1e9
    with pytest.raises(
        UserError, match=r"1 minutes on cpu are enough for 1 step of .* of this model; give more minutes"
    ):
        plan(1, pick=False, preset="gpt2")


def test_a_plan_says_why(machine: type[FakeMeasurement]) -> None:
    rows = dict(budget.rows(plan(5), BUDGET))
    assert rows["time"].startswith("5 min 0 s, with the") and "parameters" in rows["picked"]
    assert "bits per byte" in rows["expected"] and "+" in rows["because"] and rows["text"]
    fixed = dict(budget.rows(plan(5, pick=False, preset="toy"), "toy"))
    assert "expected" not in fixed and fixed["text"] == PROMISES["toy"].text


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--minutes", "5", "--steps", "100"], "minutes and steps both say when the run ends"),
        (["--minutes", "5", "--layers", "3"], "the minutes pick the layers; leave that out, or name a preset too"),
        (["--minutes", "0.1"], "0.1 minutes are too few"),
        (["--minutes", "0", "--preset", "budget"], "the preset budget needs a time: --minutes 5"),
        (["--minutes", "five"], "minutes is 'five'; give a number"),
        (["--minutes", "-5"], "minutes is -5.0; give a number from 0 up"),
        (["--minutes", "5", "--from", "nano", "--preference"], "minutes has no effect"),
    ],
)
def test_what_contradicts_a_budget_is_refused_in_one_line(
    options: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text(words(2000))
    assert main(["train", str(text), "--run", "five", *options]) == 2
    error = capsys.readouterr().err
    assert why in error and error.count("\n") == 1


def test_minutes_make_a_run_with_a_first_plan(
    machine: type[FakeMeasurement], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text(words(20000))
    assert main(["train", str(text), "--run", "five", "--minutes", "5", "--no-start", "--json"]) == 0
    run = find("five")
    config, (first,) = run.config(), time_plan.read(run)
    assert config.preset == BUDGET and config.settings.minutes == 5 and first.steps == config.settings.steps
    assert main(["train", "--resume", "--run", "five", "--steps", "10", "--no-start"]) == 2
    assert "give --minutes instead of --steps" in capsys.readouterr().err
    assert main(["train", "--resume", "--run", "five", "--minutes", "8", "--no-start", "--json"]) == 0
    assert run.config().settings.minutes == 8 and time_plan.read(run)[-1].steps == run.config().settings.steps


def test_cost_says_what_would_be_picked(
    machine: type[FakeMeasurement], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text(words(20000))
    assert main(["train", str(text), "--minutes", "5", "--cost"]) == 0
    shown = capsys.readouterr().out
    assert "picked" in shown and "expected" in shown
    assert main(["train", "--preset", "shakespeare", "--cost"]) == 0
    assert PROMISES["shakespeare"].text in " ".join(capsys.readouterr().out.split())


def test_every_preset_promises_a_text() -> None:
    assert PROMISES.keys() == PRESETS.keys()
    documented = (Path(__file__).parents[2] / "docs/training.md").read_text()
    assert [name for name, one in PROMISES.items() if f"| `{name}` | {one.text} |" not in documented] == []
    assert all(one.text and one.corpus in ("", *corpora.NAMES) for one in PROMISES.values())
    assert usual_corpus("shakespeare") == "tinyshakespeare"
    texts = [expected_text(loss) for loss in (1.0, 1.7, 2.2, 4.0)]
    assert len(set(texts)) == 4


def test_a_promise_is_the_presets_own_size_and_length() -> None:
    toy = PRESETS["toy"]
    assert promise_of("toy", toy) == promise_of("toy", dataclasses.replace(toy, seed=9)) == PROMISES["toy"].text
    shorter = promise_of("toy", dataclasses.replace(toy, steps=9))
    assert shorter == f"{PROMISES['toy'].text} (with the preset's own size and 400 steps)"
    assert promise_of("later", toy) == "" and promise_of(BUDGET, toy) == PROMISES[BUDGET].text


def test_shakespeare_starts_with_nanos_weights() -> None:
    settings, shape, found = resolve_settings({}, PRESETS["shakespeare"])
    assert found is not None and found.name == "nano" and settings.from_model == "nano"
    assert (shape.layers, shape.width) == (settings.layers, settings.width)
    assert resolve_settings({"from_model": ""}, PRESETS["shakespeare"])[2] is None


def test_the_text_is_read_as_a_run_reads_it(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text(words(800, seed=number))
    found = text_facts([str(tmp_path)], AUTO, ["nano", "byte"])
    text = "".join((tmp_path / f"{number}.txt").read_text() for number in range(3))
    assert found["bytes"] == len(text)
    assert found["bytes_per_token"]["byte"] == 1.0
    tokens = len(hub.training_tokenizer("nano").encode(text))
    assert found["bytes_per_token"]["nano"] == pytest.approx(len(text) / tokens, rel=0.01)


def test_only_shapes_that_can_have_the_switches_are_considered() -> None:
    """Not the shape of the form, which is another one, decides."""
    sizes = {"nano": 4096, "byte": 257}
    base = PRESETS[BUDGET]
    assert len(budget._candidates(base, sizes)) == len(budget.SHAPES) * len(sizes)
    found = budget._candidates(dataclasses.replace(base, heads=8, arch="rope,gqa=4"), sizes)
    assert found and {shape.heads for _, shape in found} == {8, 12} and all(shape.key_heads == 4 for _, shape in found)
    with pytest.raises(UserError, match=r"gqa=16: \d+ heads can't share 16"):
        budget._candidates(dataclasses.replace(base, width=192, heads=32, arch="rope,gqa=16"), sizes)


@pytest.mark.parametrize("kind", ["gz", "jsonl"])
def test_the_bytes_of_the_text_are_those_it_is_decoded_to(kind: str, tmp_path: Path) -> None:
    text = words(4000)
    if kind == "gz":
        (tmp_path / "book.txt.gz").write_bytes(gzip.compress(text.encode()))
    else:
        rows = [json.dumps({"text": line, "other": "x" * 300}) for line in text.splitlines()]
        (tmp_path / "book.jsonl").write_text("\n".join(rows))
        text = "".join(text.splitlines())
    found = text_facts([str(tmp_path)], AUTO, ["byte"])
    assert found["bytes"] == pytest.approx(len(text), rel=0.02)
