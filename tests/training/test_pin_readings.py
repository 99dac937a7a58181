"""A run's pinned prompts: the worker records what the engine reads from the same checkpoint."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.near_ties import possible_ranks
from tests.training.run_helpers import begin, contents, lines, losses, make, wait, words, work
from tui_llm.cli import main
from tui_llm.common.errors import UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.pin import Pin
from tui_llm.facts.request import Request, Target
from tui_llm.training.plan import launch
from tui_llm.training.run import pin_readings, pins
from tui_llm.training.run.pin_readings import PinCandidate, PinEvaluation, PinReading, PinTargetToken, ProbabilityChange
from tui_llm.training.run.run import Run

HOSTILE = "a\x1b[31m[red]b[/]\u202e\x9b1m[link='x \x07漢e\u0301"
PINS = [
    Pin("the cat sat on ", "a mat"),
    Pin("the cat"),
    Pin("x" * 40, "the slept and sat"),  # fills the context of 16: the window slides
    Pin("the cat sat ", "on the mat"),  # the context has room for part of the target
    Pin(HOSTILE, HOSTILE),
]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(words(2000))
    return path


def recorded(run: Run) -> list[PinEvaluation]:
    return pin_readings.evaluations(run)


def test_they_equal_the_engines_reading_of_the_checkpoint(text: Path) -> None:
    run = make("run", text, layers=2, steps=20)
    pins.write(run.pins_path, PINS)
    assert work(run) == 0, run.log_path.read_text()
    found = recorded(run)
    assert [evaluation.step for evaluation in found] == [0, 1, 10, 20]
    assert [ours.pin for ours in found[0].readings] == PINS
    untrained = found[0].readings[0]  # small random weights: a nearly uniform prediction
    assert untrained.entropy == pytest.approx(math.log(257), abs=0.05)
    engine = PipelineEngine("cpu")
    engine.open(str(run.path))
    for ours in found[-1].readings:
        target = Target(text=ours.pin.target) if ours.pin.target else None
        reading = engine.read(Request(prompt=ours.pin.prompt, target=target))
        distribution = reading.distribution
        assert distribution is not None and ours.entropy == pytest.approx(distribution.entropy, abs=1e-5)
        known = {row.id: row.raw_probability for row in distribution.candidates}
        assert len(ours.candidates) == 10
        for candidate, row in zip(ours.candidates, distribution.candidates, strict=False):
            assert candidate.probability == pytest.approx(row.raw_probability, abs=1e-5)
            # the order of nearly equal ones may differ
            assert candidate.probability == pytest.approx(known[candidate.id], abs=1e-5)
        if reading.loss is None:
            assert ours.tokens == () and ours.loss is None
            continue
        assert [t.id for t in ours.tokens] == [t.token.id for t in reading.loss.tokens]
        for at, (mine, theirs) in enumerate(zip(ours.tokens, reading.loss.tokens, strict=True)):
            given = tuple(token.id for token in ours.tokens[:at])
            whole = engine.read(Request(prompt=ours.pin.prompt, continuation=given, top=257)).distribution
            assert whole is not None
            by_id = torch.tensor([row.logit for row in sorted(whole.candidates, key=lambda row: row.id)])
            assert {mine.rank, theirs.loss.rank} <= set(possible_ranks(by_id, mine.id))
            assert mine.loss == pytest.approx(theirs.loss.nats, abs=1e-4, rel=1e-5)
            assert mine.probability == pytest.approx(theirs.loss.probability, abs=1e-5)
            assert mine.bytes == theirs.token.bytes
        assert ours.loss == pytest.approx(reading.loss.sum, abs=1e-3)
        assert ours.probability == pytest.approx(math.exp(-reading.loss.sum), abs=1e-5)
    assert "it sees the last 16 of the prompt's 40" in found[-1].readings[2].problem


def test_pins_change_nothing_and_a_killed_run_has_no_line_twice(text: Path) -> None:
    plain = make("plain", text)
    assert work(plain) == 0
    # without pins: the samples' prompt
    assert [p.pin for p in recorded(plain)[-1].readings] == [Pin("Once upon a time")]
    unbroken, broken = make("unbroken", text), make("broken", text)
    for run in (unbroken, broken):
        pins.write(run.pins_path, PINS)
    assert work(unbroken) == 0
    assert losses(unbroken) == losses(plain)
    weights = [contents(run.checkpoints()[-1][1])["model.safetensors"] for run in (unbroken, plain)]
    assert weights[0] == weights[1]
    for moment in (("half a line", 1), ("half a line", 3), ("half a line", 8), ("half a line", 22)):
        assert work(broken, moment) == -9
    assert work(broken) == 0
    assert lines(broken.pin_readings_path) == lines(unbroken.pin_readings_path)
    assert [line["step"] for line in lines(broken.pin_readings_path)] == [0, 1, 10, 20, 30]


def test_a_pin_that_is_added_while_it_runs_is_read_from_then_on(text: Path) -> None:
    run = make("run", text, steps=100_000, eval_every=5, checkpoint_every=1000)
    process = begin(run)
    try:
        wait(lambda: len(recorded(run)) > 2)
        assert main(["control", "run", "--pin", "the cat=> sat", "--pin", "a "]) == 0
        wait(lambda: recorded(run)[-1].of(Pin("the cat", " sat")))
        assert main(["control", "run", "--unpin", "a "]) == 0
        wait(lambda: len(recorded(run)[-1].readings) == 1)
        run.pins_path.write_text("{")
        wait(lambda: "pins.json is not valid JSON" in recorded(run)[-1].readings[0].problem)
    finally:
        launch.stop(run)
        process.join()
    assert process.exitcode == 0 and run.status().state == "stopped"
    saved = pin_readings.of_pin(recorded(run), Pin("the cat", " sat"))
    assert saved[0][0] > 1 and all(len(ours.tokens) == 4 for _, ours in saved)


def test_pins_that_cannot_be_read_report_why_and_training_continues(text: Path) -> None:
    run = make("run", text, steps=2)
    bad = [{"prompt": ""}, {"prompt": "a" * 5000, "target": "b"}, {"prompt": "the", "target": "c" * 100},
           {"prompt": "\ud800", "target": "\udfff"}, {"prompt": "the"}]  # fmt: skip
    run.pins_path.write_text(json.dumps({"version": 1, "pins": bad}))
    assert work(run) == 0, run.log_path.read_text()
    empty, long, target, surrogate, good = recorded(run)[-1].readings
    assert "needs a prompt" in empty.problem and empty.candidates == ()
    assert "5,000 characters" in long.problem and len(long.pin.prompt) == pins.LONGEST
    assert "the target has 100 tokens" in target.problem and target.tokens == () and len(target.candidates) == 10
    assert surrogate.problem == "" and [t.bytes for t in surrogate.tokens] == [b"\xef", b"\xbf", b"\xbd"]
    assert good.problem == "" and good.candidates


# ── lists of pins ────────────────────────────────────────────────────────────────────────────────────────────────


pin_texts = st.text(max_size=9) | st.text("=> a", max_size=5)


@settings(max_examples=40)
@given(st.lists(st.tuples(pin_texts, st.none() | pin_texts), max_size=20))
@example([("0", "=>")])
@example([("=>b", None), ("a=>b", None), ("a", "b"), ("a", "b=>c")])
def test_pins_survive_a_round_trip(tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str]]) -> None:
    path = tmp_path_factory.mktemp("pins") / "pins.json"
    wanted = []
    for prompt, target in texts:
        try:
            wanted.append(pins.check(Pin(prompt, target)))
        except UserError:
            assert not prompt
    wanted = list(dict.fromkeys(wanted))
    if len(wanted) > pins.MOST:
        with pytest.raises(UserError, match="16 prompts can be pinned"):
            pins.write(path, wanted)
        assert not path.exists()
        return
    pins.write(path, wanted)
    assert pins.read(path) == wanted
    for pin in wanted:
        assert pin in pins.matching(pins.text_of(pin) if pin.target else pin.prompt + "=>", wanted)
        assert pin in pins.matching(pins.text_of(pin), [pin])
        assert pin not in pins.change(path, unpin=[pin])


@pytest.mark.parametrize(
    ("words", "pin"),
    [("a", Pin("a")), ("a=> b", Pin("a", " b")), ("x => y=>z", Pin("x => y", "z")), ("x => y=>", Pin("x => y"))],
)
def test_a_pin_is_described_in_words(words: str, pin: Pin) -> None:
    assert pins.parse(words) == pin


# ── reading the log ───────────────────────────────────────────────────────────────────────────────────────────


def pin_reading(*p: float, first: int = 0, target: float | None = None) -> PinReading:
    candidates = tuple(PinCandidate(first + at, b"%d" % (first + at), value) for at, value in enumerate(p))
    tokens = () if target is None else (PinTargetToken(99, b"t", -math.log(target), target, 3),)
    return PinReading(Pin("p", "t" if tokens else None), 1.0, candidates, tokens)


def test_a_difference_states_bounds_for_unstored_tokens() -> None:
    found = pin_readings.difference(pin_reading(0.5, 0.1, target=0.01), pin_reading(0.6, 0.2, first=1, target=0.15))
    assert [(c.id, c.before, c.after, c.exact) for c in found] == [
        (1, 0.1, 0.6, True),
        (0, 0.5, None, False),
        (99, 0.01, 0.15, True),
        (2, None, 0.2, False),
    ]
    assert found[0].change == pytest.approx(0.5) and found[2].change == pytest.approx(0.14)
    assert found[1].change == pytest.approx(-0.3)  # token 0 is at most as probable as the last one recorded: 0.2
    assert found[3].change == pytest.approx(0.1)
    assert ProbabilityChange(1, b"", None, 0.1, 0.2, 0.1).change == 0  # it may have increased or decreased


finite = st.floats(0, 1)


@given(st.lists(st.tuples(st.integers(0, 9), st.binary(max_size=4), finite), max_size=4), st.text(), st.text())
def test_a_line_survives_a_round_trip(tops: list[tuple[int, bytes, float]], prompt: str, problem: str) -> None:
    one = PinReading(Pin(prompt, "x"), 0.5, tuple(PinCandidate(*top) for top in tops), (PinTargetToken(1, b"\xff", math.inf, 0.0, 7),), problem)  # fmt: skip
    evaluation = PinEvaluation(3, (one, PinReading(Pin("y"), problem="no")))
    assert pin_readings.parse(json.dumps(pin_readings.line(evaluation), allow_nan=False).encode()) == evaluation


@given(st.binary(max_size=40) | st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda x: st.lists(x, max_size=3) | st.dictionaries(st.sampled_from(["step", "probes", "top", "tokens", "prompt"]), x)).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_damaged_lines_are_skipped(data: bytes) -> None:
    assert isinstance(pin_readings.parse(data), PinEvaluation | None)


# ── the command line ─────────────────────────────────────────────────────────────────────────────────────────────


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_probes_command(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make("run", text)
    assert main(["control", "run", "--pin", "the cat=> sat", "--pin", HOSTILE]) == 0
    assert pins.read(run.pins_path) == [Pin("the cat", " sat"), Pin(HOSTILE)]
    code, _, err = said(capsys, "probes", "run")
    assert code == 2 and "has no readings of its pins yet" in err
    assert work(run) == 0
    code, out, _ = said(capsys, "probes", "run")
    assert code == 0 and "the cat → ·sat" in out and not set(out) & set("\x1b\x9b\x07\u202e")
    assert [row.split()[0] for row in out.split("\n")[2:7]] == ["0", "1", "10", "20", "30"]
    last = recorded(run)[-1].readings[0]
    code, out, _ = said(capsys, "probes", "run", "--pin", "the cat", "--at", "29")
    assert "at step 20" in out and "the whole target" in out
    code, out, _ = said(capsys, "probes", "run", "--pin", "the cat", "--at", "99", "--json")
    (pin,) = json.loads(out)["pins"]
    assert pin["step"] == 30 and pin["loss"] == last.loss and len(pin["candidates"]) == 10
    assert [t["rank"] for t in pin["target_tokens"]] == [t.rank for t in last.tokens]
    code, out, _ = said(capsys, "probes", "run", "--between", "0", "30")
    assert "the target's loss:" in out and "step 0" in out and "≤" in out
    code, out, _ = said(capsys, "probes", "run", "--between", "0", "30", "--json")
    changes = [abs(c["change"]) for c in json.loads(out)["pins"][0]["candidates"] if c["change"] is not None]
    assert changes == sorted(changes, reverse=True)
    assert said(capsys, "probes", "run", "--at", "-1")[0] == 2
    code, _, err = said(capsys, "probes", "run", "--pin", "dog")
    assert code == 2 and "'dog' is not pinned" in err and err.count("\n") == 1
    code, _, err = said(capsys, "control", "run", "--unpin", "dog")
    assert code == 2 and "is not pinned" in err
    code, _, err = said(capsys, "control", "run", "--pin", "")
    assert code == 2 and "needs a prompt" in err


def test_train_takes_pins(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = ["--preset", "toy", "--layers", "1", "--heads", "2", "--width", "16", "--block-size", "16", "--steps", "1", "--device", "cpu"]  # fmt: skip
    code, _, err = said(capsys, "train", str(text), "--run", "no", *shape, "--pin", "=> mat")
    assert code == 2 and "needs a prompt" in err
    assert main(["train", str(text), "--run", "r", *shape, "--pin", "the cat=> sat", "--pin", "a"]) == 0
    code, out, _ = said(capsys, "probes", "r", "--json")
    found = json.loads(out[out.index("{") :])["pins"]
    assert [(p["prompt"], p["target"], len(p["moments"])) for p in found] == [("the cat", " sat", 2), ("a", None, 2)]
