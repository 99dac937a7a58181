"""A ladder: the settings of its rungs, what a budget pays for, its table against the runs' own metrics; killed, it goes on."""

from __future__ import annotations

import json
import math
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from tests.training.run_helpers import TINY, lines, words, work
from tui_llm.cli import main
from tui_llm.common.errors import UserError
from tui_llm.training.plan import climb, cost, ladder_results, ladder_rungs, ladder_text, launch
from tui_llm.training.plan import follow as following
from tui_llm.training.plan import ladder as ladders
from tui_llm.training.plan.ladder import Ladder
from tui_llm.training.plan.step_time import Rate
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import from_fields

GIVEN = {"layers": "1", "heads": "2", "width": "16", "block_size": "16", "batch_size": "4", "sample_tokens": "2"}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(words(2000))
    return path


def made(text: Path | str = "/text.txt", **fields: Any) -> Ladder:
    return Ladder(
        **{"name": "up", "corpus": (str(text),), "preset": "toy", "unit": "steps", "amount": 20.0, "given": GIVEN,
           "rungs": ("gpt2", "muon", "ema"), "device": "cpu"} | fields
    )  # fmt: skip


@pytest.fixture
def trained_here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs are trained in processes of the tests; returns the names of those that were."""
    names: list[str] = []

    def follow(run: Run, **_more: Any) -> int:
        names.append(run.name)
        assert work(run) == 0, run.log_path.read_text()
        return 0

    monkeypatch.setattr(launch, "resume", lambda run: None)
    monkeypatch.setattr(following, "follow", follow)
    return names


# ── settings and budgets ─────────────────────────────────────────────────────────────────────────────────────────────


def test_each_rung_adds_to_those_before_it() -> None:
    ladder = made(rungs=ladder_rungs.DEFAULT)
    found = [ladders.settings_of(ladder, at, 200) for at in range(5)]
    assert [s.optimizer for s in found] == ["adamw", *["muon"] * 4]
    assert [s.learning_rate for s in found] == [3e-3, *[7.5e-3] * 4]  # Muon bears more
    assert [s.momentum_warmup_steps for s in found] == [0, 0, 40, 40, 40]
    assert [s.cautious_decay for s in found] == [*["off"] * 3, "on", "on"]
    assert [s.ema_decay for s in found] == [0, 0, 0, 0, 0.8333]
    assert {(s.steps, s.width, s.eval_every, s.checkpoint_every, s.seed) for s in found} == {(200, 16, 5, 20, 1)}
    assert ladder_rungs.momentum_warmup(10_000) == 300 and ladder_rungs.ema_decay(10**6) == 0.999
    for rung in ladder_rungs.RUNGS:
        assert rung.sentence.endswith(".") and rung.source


def test_a_budget_pays_for_so_many_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    ladder = made()
    settings = ladders.settings_of(ladder, 1, 1000)
    one = cost.cost(settings, cost.shape(settings, 257)).flops / 1000
    assert ladders.steps_of(made(unit="flops", amount=one * 77.5), 1) == 77

    class Measured:
        def __init__(self, *_: Any) -> None: ...
        def cancel(self) -> None: ...
        def take(self) -> Rate:
            return Rate(640.0, 8, 4, "cpu")  # ten steps of 64 tokens a second

    monkeypatch.setattr(ladders, "Measurement", Measured)
    assert ladders.steps_of(made(unit="minutes", amount=0.5), 1) == 300
    with pytest.raises(UserError, match=r"0.01 minutes are 6.0 steps of muon, too few to say anything; give more"):
        ladders.steps_of(made(unit="minutes", amount=0.01), 1)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"amount": 0.0}, "give more than 0"),
        ({"amount": math.nan}, "give more than 0"),
        ({"amount": 9.0}, "the budget is 9 steps; give a whole number from 10"),
        ({"amount": 20.5}, "the budget is 20.5 steps; give a whole number"),
        (
            {"preset": "modern"},
            "the rung gpt2 is GPT-2's recipe with AdamW, but here all rungs have optimizer muon, cautious decay on, arch modern",
        ),
        ({"given": {"optimizer": "muon"}}, "all rungs have optimizer muon; leave that out"),
        ({"given": {"arch": "relu2"}}, "all rungs have arch relu2"),
        ({"preset": "modern", "rungs": ("muon",)}, "the rung muon changes nothing: the preset modern or"),
        ({"preset": "modern", "rungs": ("ema", "rope")}, "the rung rope changes nothing"),
        ({"rungs": ("gpt2", "softcap")}, "softcap is saved as NanoChat, which also needs"),
        ({"preset": "budget"}, "the preset budget picks model and steps by its time"),
        ({"rungs": ()}, "name rungs"),
        ({"rungs": ("gpt2", "gpt2")}, "named twice"),
        ({"rungs": ("gpt3",)}, "no rung 'gpt3'|rung"),
        ({"name": "../up"}, "can't name a run"),
        ({"corpus": ()}, "name a text file"),
        ({"given": {"width": "nine"}}, "width is 'nine'"),
        ({"given": {"objective": "preference", "from_model": "nano"}}, "learn text"),
        ({"preset": "huge"}, "preset"),
    ],
)
def test_what_can_not_be_made_is_named(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=why):
        ladders.keep(made(**fields))


@pytest.mark.parametrize(
    ("typed", "given"),
    [
        ("", {}),
        ("width=64, seed=2", {"width": "64", "seed": "2"}),
        ("arch=rope,gqa=2,width=64", {"arch": "rope,gqa=2", "width": "64"}),
        ("batch-size=4,arch=rmsnorm, rope,", {"batch_size": "4", "arch": "rmsnorm,rope"}),
    ],
)
def test_settings_of_the_form_may_contain_commas(typed: str, given: dict[str, str]) -> None:
    assert ladder_text.parse_settings(typed) == given


def test_a_setting_without_a_value_is_named() -> None:
    with pytest.raises(UserError, match="'width' is not NAME=VALUE"):
        ladder_text.parse_settings("width")


def test_a_text_without_documents_is_named_before_the_first_rung(tmp_path: Path) -> None:
    """Else the rung shuffle would fail after all others were trained, and could not be taken out."""
    one, several = tmp_path / "one.txt", tmp_path / "several.txt"
    one.write_text("the cat sat on the mat.\n" * 400)
    several.write_text("the cat sat on the mat.\n<|endoftext|>\n" * 400)
    rungs = ("gpt2", "shuffle", "muon")
    with pytest.raises(UserError, match="is a single document"):
        ladders.keep(made(one, rungs=rungs))
    assert not ladders.names()
    for text in (several, tmp_path):  # a folder's files are documents
        ladders.keep(made(text, name=f"up-{text.stem[:4]}", rungs=rungs))
    with pytest.raises(UserError, match="no documents to shuffle"):
        launch.create("run", [str(one)], from_fields({"shuffle_documents": "on"}, TINY), preset="toy", device="cpu")


def test_a_ladder_is_kept_once_and_a_damaged_file_says_so() -> None:
    ladders.keep(made(amount=21.0))
    ladder = made()
    ladders.keep(ladder)  # nothing of the other one was trained: its budget may have been too small
    ladders.keep(ladder)
    assert ladders.find("up") == ladder and ladders.names() == ["up"]
    with ladders.held("up"), pytest.raises(UserError, match="started with other settings"):
        ladders.keep(made(amount=21.0))
    fake(ladder, 1, [3.0], 64.0)
    ladders.keep(ladder)
    with pytest.raises(UserError, match="started with other settings"):
        ladders.keep(made(amount=21.0))
    path = ladders.path_of("up")
    raw = json.loads(path.read_text())
    for damage, why in (("{", "not valid JSON"), ("[1]", "is not a ladder"), (json.dumps({**raw, "version": 9}), "newer tui-llm"),
                        (json.dumps({**raw, "rungs": 3}), "is not a ladder"), (json.dumps({**raw, "unit": "years"}), "give --steps"),
                        (json.dumps({**raw, "rungs": ["moe"]}), "a newer tui-llm may have others; delete it")):  # fmt: skip
        path.write_text(damage)
        with pytest.raises(UserError, match=why):
            ladders.find("up")
    with pytest.raises(UserError, match="there is no ladder down"):
        ladders.find("down")


# ── climbing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_killed_ladder_goes_on_and_leaves_finished_rungs_alone(text: Path, trained_here: list[str]) -> None:
    ladder = made(text)
    begun: list[int] = []

    def die(run: Run) -> int:
        if run.name == "up-0-gpt2":
            return following.follow(run)
        assert work(run, ("half a line", 16)) == -9  # the worker is killed, and the ladder too
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        climb.climb(ladder, lambda at, _: begun.append(at), die)
    assert begun == [0, 1] and trained_here == ["up-0-gpt2"] and not ladders.climbed("up")
    first, second = ladder.run(0), ladder.run(1)
    before, kept = first.metrics_path.read_bytes(), [step for step, _ in second.checkpoints()]
    assert kept
    assert climb.climb(ladder, lambda at, _: begun.append(at), following.follow) == 0
    assert begun == [0, 1, 1, 2] and trained_here == ["up-0-gpt2", "up-1-muon", "up-2-ema"]
    assert first.metrics_path.read_bytes() == before
    assert [ladder.run(at).status().state for at in range(3)] == ["finished"] * 3
    assert climb.climb(ladder, lambda at, _: begun.append(at), following.follow) == 0 and len(begun) == 4

    results = ladder_results.read(ladder)
    for at, one in enumerate(results.rungs):
        logged = [line for line in lines(ladder.run(at).metrics_path) if line["val_loss"] is not None]
        assert [(e.step, e.tokens, e.loss) for e in one.evaluations] == [
            (line["step"], line["step"] * 64, line["val_loss"]) for line in logged
        ]
        assert len(logged) == 20 and one.last is not None and one.last.flops
    assert results.target == lines(first.metrics_path)[-1]["val_loss"]

    # a run of the name that is another one is not continued
    config = second.config()
    second.write_config(type(config)(config.corpus, config.preset, config.device, ladders.settings_of(ladder, 0, 20)))
    with pytest.raises(UserError, match="is not of this ladder"):
        ladders.prepare(ladder, 1)


def test_only_one_process_climbs_and_a_stopped_run_ends_it(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ladder = made(text)
    monkeypatch.setattr(launch, "resume", lambda run: None)
    monkeypatch.setattr(ladders, "PATIENCE", 0)
    begun: list[int] = []

    def follow(run: Run) -> int:
        assert ladders.climbed("up")
        with pytest.raises(UserError, match="climbed by another process"), ladders.held("up", 0):
            pass
        run.write_status("stopped" if begun == [0, 1] else "failed", "so it ended")
        run.metrics_path.write_text(
            json.dumps({"step": 1, "loss": 3.0, "lr": 0.1, "grad_norm": 1.0, "tokens_per_second": 9.0}) + "\n"
        )
        return 0

    ladders.keep(ladder)
    assert climb.climb(ladder, lambda at, _: begun.append(at), follow) == 0
    assert begun == [0, 1]  # the first one failed, the second was stopped


def test_a_rung_that_fails_before_its_first_step_ends_the_ladder(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a full disk: the rungs after it would fail in the same way, and leave as many runs."""
    ladder, begun = made(text), list[int]()
    monkeypatch.setattr(launch, "resume", lambda run: None)

    def follow(run: Run) -> int:
        run.write_status("failed", "no space left on device")
        return 2

    assert climb.climb(ladder, lambda at, _: begun.append(at), follow) == 1
    assert begun == [0] and not ladder.run(1).exists()


@pytest.mark.parametrize(("unit", "amount"), [("flops", 3e9), ("minutes", 1.0)])
def test_a_rung_that_was_continued_with_more_steps_is_of_its_ladder_still(
    unit: str, amount: float, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ladder = made(text, unit=unit, amount=amount, rungs=("gpt2", "muon", "warm-momentum", "ema"))
    monkeypatch.setattr(ladders, "steps_of", lambda *_: 40)
    ladders.keep(ladder)
    for at in range(4):
        run = ladders.prepare(ladder, at)
        before = run.config().settings
        launch.set_steps(run, 400)
        wanted = ladders.settings_of(ladder, at, 400)
        assert before.eval_every < wanted.eval_every and before.warmup_steps < wanted.warmup_steps
        assert ladders.prepare(ladder, at).path == run.path
    assert [run.name for run in ladders.runs_of(ladder)] == [ladder.run(at).name for at in range(4)]


def test_a_run_that_only_has_the_name_of_a_rung_is_none(text: Path) -> None:
    ladder = made(text)
    fake(made(text, given={**GIVEN, "seed": "7"}), 1, [1.0], 64.0)  # finished, with another seed
    with pytest.raises(UserError, match="run up-1-muon exists already and is not of this ladder"):
        ladders.keep(ladder)
    ladder.run(1).delete()
    ladders.keep(ladder)
    fake(made(text, given={**GIVEN, "seed": "7"}), 1, [1.0], 64.0)
    with pytest.raises(UserError, match="run up-1-muon is not of this ladder"):
        climb.climb(ladder, lambda *_: None, lambda run: pytest.fail(run.name))
    fake(ladder, 0, [3.0] * 10, 64.0)
    assert [run.name for run in ladders.runs_of(ladder)] == ["up-0-gpt2"]
    assert ladders.delete("up") == 1 and not ladder.run(0).exists() and ladder.run(1).exists()


def test_a_ladder_is_deleted_with_its_runs(
    text: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ladder = made(text)
    ladders.keep(ladder)
    for at in (0, 1):
        fake(ladder, at, [3.0] * 10, 64.0)
    other = made(text, name="other")
    ladders.keep(other)
    fake(other, 0, [3.0] * 10, 64.0)
    text.unlink()  # its runs are known without it
    assert main(["ladder", "--name", "up", "--delete"]) == 2
    assert "this deletes ladder up and its 2 runs with all checkpoints; add --yes" in capsys.readouterr().err
    monkeypatch.setattr(ladders, "PATIENCE", 0)
    with ladders.held("up"):
        assert main(["ladder", "--name", "up", "--delete", "--yes"]) == 2
    assert "climbed by another process" in capsys.readouterr().err
    with ladder.run(1).held(1):
        assert main(["ladder", "--name", "up", "--delete", "--yes"]) == 2
    assert "run up-1-muon is being trained; stop it first" in capsys.readouterr().err
    assert ladder.run(0).exists() and ladders.names() == ["other", "up"]
    assert main(["ladder", "--name", "up", "--delete", "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ladder": "up", "deleted": True, "runs": ["up-0-gpt2", "up-1-muon"]}
    assert ladders.names() == ["other"] and other.run(0).exists() and not ladder.run(0).path.exists()
    assert not list(ladders.path_of("up").parent.glob("up.*"))
    ladders.path_of("other").write_text("{")  # damaged: its runs can't be told, and stay
    assert main(["ladder", "--name", "other", "--delete", "--yes"]) == 0 and other.run(0).exists()
    assert main(["ladder", "--name", "up", "--delete", "--yes"]) == 2
    assert "there is no ladder up" in capsys.readouterr().err


# ── results ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def fake(ladder: Ladder, at: int, losses: list[float], rate: float) -> None:
    """A finished run with a validation loss at every second step."""
    run = ladder.run(at)
    run.path.mkdir(parents=True)
    settings = ladders.settings_of(ladder, at, 2 * len(losses))
    from tui_llm.training.run.config import RunConfig

    run.write_config(RunConfig(ladder.corpus, "toy", "cpu", settings))
    run.write_status("finished", "done", flops_per_token=10.0)
    with run.metrics_path.open("w") as file:
        for step in range(1, 2 * len(losses) + 1):
            value = {"step": step, "loss": 3.0, "lr": 1e-3, "grad_norm": 1.0, "tokens_per_second": rate}
            file.write(json.dumps({**value, "val_loss": None if step % 2 else losses[step // 2 - 1]}) + "\n")


def test_tokens_and_time_to_the_first_rungs_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ladder = made()
    ladders.keep(ladder)
    fake(ladder, 0, [5.0, 4.0, 3.5, 3.0], 640.0)  # a step of 64 tokens takes 0.1 s
    fake(ladder, 1, [4.0, 3.0, 2.5, 2.4], 320.0)
    results = ladder_results.read(ladder)
    first, muon, ema = results.rungs
    assert results.target == 3.0 and not ema.state and not ema.evaluations
    assert (muon.reached(3.0), muon.reached(2.0)) == (muon.evaluations[1], None)
    assert results.ratios(first) == (1.0, 1.0) and results.ratios(ema) == (None, None)
    assert results.ratios(muon) == (pytest.approx(4 / 8), pytest.approx(0.8 / 0.8))
    assert first.last is not None and first.last.seconds == pytest.approx(0.8) and first.last.flops == 8 * 64 * 10

    # read again and again, as the screen does: lines that are added, and a run that begins anew
    reader = ladder_results.LadderReader()
    assert reader.read(ladder) == results == reader.read(ladder)
    path = ladder.run(1).metrics_path
    data = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(data[:4]))
    assert reader.read(ladder) == ladder_results.read(ladder) != results
    with path.open("ab") as file:
        file.write(b"".join(data[4:]))
    assert reader.read(ladder) == results

    svg = tmp_path / "chart.svg"
    assert (
        main(["ladder", "--name", "up", "--show", "--json", "--target", "4", "--out", str(svg), "--by", "flops"]) == 0
    )
    value = json.loads(capsys.readouterr().out)
    assert value["target"] == 4.0 and value["chart"] == str(svg)
    assert [one["tokens_to_target"] for one in value["rungs"]] == [4 * 64, 2 * 64, None]
    assert [one["tokens_ratio"] for one in value["rungs"]] == [1.0, 0.5, None]
    picture = "".join(ET.parse(svg).getroot().itertext())
    assert "gpt2" in picture and "muon" in picture and "ema" not in picture and "FLOPs" in picture
    assert main(["ladder", "--name", "up", "--show"]) == 0
    out = capsys.readouterr().out
    assert "tokens to 3.0000" in out and "time to 3.0000" in out and "0.50" in out
    assert "×: needed to loss 3.0000, the first rung's last" in out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["ladder", "--name", "up", "--show", "--target", "4"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80 and "0.50" in shown and "×: needed to loss 4.0000, as" in shown
    assert main(["ladder", "--name", "up", "--show", "--out", str(svg)]) == 2
    assert "exists" in capsys.readouterr().err


def test_the_command(text: Path, trained_here: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    settings = [part for name, value in GIVEN.items() for part in ("--set", f"{name}={value}")]
    command = ["ladder", str(text), "--name", "two", "--preset", "toy", "--steps", "12", "--device", "cpu", "--rungs", "cautious,gpt2", *settings]  # fmt: skip
    assert main([*command, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert [one["run"] for one in value["rungs"]] == trained_here == ["two-0-gpt2", "two-1-cautious"]
    assert all(one["state"] == "finished" and one["tokens"] == 12 * 64 for one in value["rungs"])
    assert value["target"] == value["rungs"][0]["loss"] > 0
    assert main(command) == main(["ladder", "--name", "two"]) == 0 and len(trained_here) == 2
    assert capsys.readouterr().out.count("two-0-gpt2") == 0  # nothing is taken again
    for more, why in (
        (["ladder", str(text), "--name", "x"], "give one budget"),
        (["ladder", str(text), "--name", "x", "--steps", "9", "--minutes", "1"], "give one budget"),
        (["ladder", "--name", "x"], "there is no ladder x"),
        (["ladder", "--name", "two", "--show", "--steps", "9"], "--name alone"),
        (["ladder", str(text), "--name", "two", "--steps", "90"], "other settings"),
        (["ladder", str(text), "--name", "x", "--steps", "1"], "the budget is 1 steps; give a whole number from 10"),
        (["ladder", str(text), "--name", "x", "--steps", "90", "--set", "minutes=3"], "sets minutes itself"),
        (
            ["ladder", str(text), "--name", "x", "--steps", "90", "--detach", "--out", "x.svg"],
            "--out is for the results, which --detach does not print",
        ),
        (["ladder", "--name", "two", "--show", "--by", "time"], "name its file: --out FILE.svg"),
        (["ladder", "--name", "two", "--show", "--delete"], "--show and --delete are two things to do"),
        (["ladder", "--name", "two", "--yes"], "--yes answers what --delete asks"),
        (["ladder", str(text), "--list"], "--list takes no text, budget or settings"),
        (["ladder", str(text), "--name", "x", "--steps", "9", "--set", "width"], "give NAME=VALUE"),
        (["ladder", str(text), "--name", "x", "--steps", "9", "--set", "steps=3"], "sets steps itself"),
        (["ladder", str(text), "--name", "x", "--steps", "90", "--rungs", "no"], "rung"),
        (["ladder", "/nowhere.txt", "--name", "x", "--steps", "90", "--preset", "toy"], "nowhere"),
        (["ladder", "--name", "two", "--show", "--target", "-1"], "loss above 0"),
    ):
        assert main(more) == 2, more
        error = capsys.readouterr().err
        assert why in error and error.count("\n") == 1, error
    assert main(["ladder", "--list", "--json"]) == 0
    assert [one["rung"] for one in json.loads(capsys.readouterr().out)["rungs"]][:2] == ["gpt2", "muon"]


def test_the_target_of_a_first_rung_that_is_not_finished_says_so() -> None:
    ladder = made()
    fake(ladder, 0, [5.0, 4.0], 640.0)
    assert ladder_results.read(ladder).targets_run == "the first rung's last"
    ladder.run(0).write_status("failed", "no space left on device")
    assert ladder_results.read(ladder).targets_run == "the first rung's last so far"
