"""A learning rate for a run: the search against losses in closed form, and the trials against a run itself."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from tui_llm.cli import main
from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.training.plan import lr_search
from tui_llm.training.plan.find_lr import RateFinder, RateResult, basis, parse, tried_settings
from tui_llm.training.plan.lr_search import RateSearch, RateTrial, TooSlow
from tui_llm.training.run.settings import PRESETS
from tui_llm.training.worker.find_lr import scaled

TEXT = "the cat sat on the mat and the dog sat on the log. " * 400
SMALL = ["--preset", "toy", "--width", "16", "--block-size", "16", "--batch-size", "4", "--device", "cpu"]


class Valley:
    """The loss of a run: a parabola in ln rate around `best`, which falls with the steps as steps^−drift; above `cliff` × the best
    rate it diverges."""

    def __init__(self, best: float, drift: float = 0.0, steps: int = 1000, cliff: float = math.inf) -> None:
        self.best, self.drift, self.steps, self.cliff, self.asked = best, drift, steps, cliff, 0

    def __call__(self, rate: float, steps: int) -> float | None:
        self.asked += steps
        best = self.best * (steps / self.steps) ** -self.drift
        return None if rate > self.cliff * best else 2.0 + 0.1 * math.log(rate / best) ** 2

    def room(self, total: float) -> float:
        return total - self.asked


@pytest.mark.parametrize("best", [1e-5, 1e-4, 7e-4, 3e-3, 4e-2, 0.3])
@pytest.mark.parametrize("cliff", [math.inf, 1.3])
def test_with_time_for_the_run_itself_the_pick_is_within_a_percent_of_the_best(best: float, cliff: float) -> None:
    loss = Valley(best, cliff=cliff)
    pick = RateSearch(3e-3, 1000, loss, lambda: loss.room(20_000)).run()
    assert pick.whole and pick.steps == 1000
    found = loss(pick.rate, 1000)
    assert found is not None and found <= 2.0 * 1.01
    assert found == min(one.loss for one in pick.best if one.loss is not None)  # it was tried
    assert pick.diverges_above is None if cliff == math.inf else best / 4 < pick.diverges_above <= best * cliff  # type: ignore[operator]


def test_shorter_trials_find_the_vertex_and_lower_it_only_for_far_longer_runs() -> None:
    for steps, part in ((8000, 1.0), (400_000, (8 * 2000 / 400_000) ** 0.32)):
        loss = Valley(1e-3)
        pick = RateSearch(1e-3, steps, loss, lambda loss=loss: loss.room(20_000), trial_steps=2000).run()  # type: ignore[misc]
        assert not pick.whole and pick.steps == 2000 and pick.bracketed
        assert pick.rate == pytest.approx(1e-3 * part, rel=0.01)
        assert ("an estimate" in " ".join(basis(pick))) == (part < 1)


def test_the_trials_take_the_time_that_there_is() -> None:
    for room in (10_000, 20_000, 10**6):
        loss = Valley(1e-3)
        pick = RateSearch(1e-3, 8000, loss, lambda loss=loss, room=room: loss.room(room)).run()  # type: ignore[misc]
        assert loss.asked <= room + 2 * pick.steps and pick.rate == pytest.approx(1e-3, rel=0.3)


def test_the_vertex_is_that_of_the_parabola_through_three_points() -> None:
    for x in ((0.0, 1.0, 3.0), (-9.2, -6.9, -6.2)):
        y = [2 + 0.3 * (one + 7.5) ** 2 for one in x]
        a, b, _ = np.polyfit(x, y, 2)
        assert lr_search.vertex(list(zip(x, y, strict=True))) == pytest.approx(-b / (2 * a)) == pytest.approx(-7.5)
    assert lr_search.vertex([(0, 1), (1, 2), (2, 1)]) is None


def test_a_search_without_time_says_how_many_steps_it_takes() -> None:
    with pytest.raises(TooSlow) as found:
        RateSearch(1e-3, 1000, Valley(1e-3), lambda: 50.0).run()
    assert found.value.needed == RateSearch.needed(1000) == 14 * lr_search.SHORTEST


def test_where_every_rate_diverges_there_is_no_pick() -> None:
    with pytest.raises(UserError, match="every rate"):
        RateSearch(1e-3, 100, lambda _rate, _steps: None, lambda: 1e6).run()


@pytest.mark.parametrize(
    ("steps", "most", "halved"), [(400, 1e9, 400), (400, 399, 200), (400, 100, 100), (5, 2, 2), (7, 0, 1)]
)
def test_the_steps_of_trials_are_a_power_of_two_less_than_the_run(steps: int, most: float, halved: int) -> None:
    assert lr_search.halved(steps, most) == halved


def test_a_trial_keeps_the_shape_of_the_schedule() -> None:
    run = PRESETS["nano"]
    made = scaled(run, 1e-2, run.steps // 4)
    assert (made.learning_rate, made.steps, made.min_learning_rate) == (1e-2, run.steps // 4, run.min_learning_rate)
    assert made.warmup_steps == run.steps // 40  # a tenth, since the run's own warm-up is that long
    assert scaled(run, 1e-2, run.steps).warmup_steps == run.warmup_steps
    muon = dataclasses.replace(run, optimizer="muon", steps=1000, momentum_warmup_steps=300)
    assert scaled(muon, 1e-2, 100).momentum_warmup_steps == 30
    assert scaled(dataclasses.replace(muon, steps=100_000), 1e-2, 100).momentum_warmup_steps == 20  # a fifth
    assert scaled(muon, 1e-2, 1000).momentum_warmup_steps == 300


@pytest.mark.parametrize("more", [[], ["--ema-decay", "0.9"]], ids=["weights", "their-average"])
def test_the_trials_are_the_run_itself(more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With as many steps, the losses are those that the training worker logs; and nothing is left of the search."""
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    args = [str(text), *SMALL, "--steps", "12", "--eval-every", "12", *more]
    assert main(["find-lr", *args, "--trial-steps", "12", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["rates"]) == len(found["losses"]) >= 3 and found["rates"] == sorted(found["rates"])
    losses = dict(zip(found["rates"], found["losses"], strict=True))
    assert losses[found["pick"]] == min(loss for loss in found["losses"] if loss is not None)
    assert found["steps"] == found["run_steps"] == 12 and len(found["trials"]) > len(found["rates"])
    assert list((paths.cache_dir() / "scratch").iterdir()) == [] and not paths.runs_dir().exists()
    assert main(["train", *args, "--run", "one", "--learning-rate", str(found["pick"])]) == 0
    from tui_llm.training.run.run import find

    last = find("one").last_metric()
    assert last is not None and last.val_loss == losses[found["pick"]]


def test_cancelling_kills_the_process_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    settings, model = tried_settings({}, "toy", [str(tmp_path / "text.txt")])
    finder = RateFinder(settings, [str(tmp_path / "text.txt")], "cpu", model)
    finder.cancel()
    assert list(finder.records()) == [] and finder.process.returncode == -9
    assert list((paths.cache_dir() / "scratch").iterdir()) == []


def test_bad_input_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    for args, words in (
        (["missing.txt"], "missing.txt"),
        ([str(tmp_path / "text.txt"), "--seconds", "nan"], "seconds"),
        ([str(tmp_path / "text.txt"), "--seconds", "0"], "more than 0"),
        ([str(tmp_path / "text.txt"), "--learning-rate", "0"], "the one to search around"),
    ):
        assert main(["find-lr", *args, *SMALL]) != 0
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1
    with pytest.raises(UserError, match="preference pairs"):
        RateFinder(dataclasses.replace(PRESETS["toy"], objective="preference", from_model="nano"), ["x"], "cpu")


def test_records_are_parsed_and_what_is_not_one_is_skipped() -> None:
    result = RateResult()
    for raw in (
        {"doing": "loading"}, {"begin": {"steps": 4, "rate": 1e-3, "device": "cpu", "step_seconds": 0.1}},
        {"at": {"rate": 1e-3, "steps": 4, "step": 1, "loss": None}}, {"trial": {"rate": 1e-3, "steps": 4, "loss": 2.0}},
        {"trial": {"rate": 1e-2, "steps": 4, "loss": None}},
    ):  # fmt: skip
        record = parse(raw)
        assert record is not None
        result.add(record)
    assert result.rounds() == [[RateTrial(1e-3, 4, 2.0), RateTrial(1e-2, 4, None)]]
    assert parse({"trial": {"other": 1}}) is None and parse({"problem": "x"}) is None
    pick = parse(
        {"pick": {"rate": 1e-3, "steps": 2, "run_steps": 40, "trials": [], "bracketed": False, "diverges_above": 1e-2}}
    )
    assert isinstance(pick, lr_search.RatePick)
    result.add(pick)
    words = " ".join(basis(pick))
    assert result.progress is None and "may lie beyond" in words and "an estimate" in words and "above 0.01" in words


def test_a_rate_that_learned_nothing_is_no_edge_below_the_best_one() -> None:
    def edge(*losses: float | None) -> float | None:
        return lr_search._edge(
            [RateTrial(rate, 8, loss) for rate, loss in zip((1e-4, 1e-3, 1e-2, 1e-1), losses, strict=True)]
        )

    assert edge(None, 2.0, 1.0, None) == 1e-2
    assert edge(3.0, 2.0, 2.5, None) == 1e-2
    assert edge(3.0, 2.0, None, None) == 1e-3
    assert edge(None, 2.0, 1.0, 3.0) is None
    assert edge(None, None, None, None) is None
