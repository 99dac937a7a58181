"""The band of the end's loss: against curves of a known law, at the edges, and with earlier runs."""

from __future__ import annotations

import math
import random
import re

import pytest

from tui_llm.training.run.changes import LearningRateChange
from tui_llm.training.run.curve import Envelope, Sum
from tui_llm.training.run.health import Health
from tui_llm.training.run.loss_band import (
    FALL_ERROR,
    LEAST,
    LEFT_ERROR,
    SHARE,
    Earlier,
    LossBand,
    LossBandReader,
    Schedule,
    band,
    end_window,
    error_of,
    forecast,
    mean_of_last,
    missing,
)
from tui_llm.training.run.settings import TrainingSettings, from_fields, learning_rate
from tui_llm.tui.runs.alarms import band_words

COSINE = from_fields({"steps": 400, "warmup_steps": 20, "learning_rate": 3e-3, "min_learning_rate": 3e-4})
WSD = from_fields({"schedule": "wsd", "decay_fraction": 0.3}, COSINE)


def law(settings: TrainingSettings, seed: int, noise: float = 0.03) -> list[float]:
    """L₀ + A (S ÷ S_end)^−α − C D with S and D summed step by step, and normal noise."""
    draw = random.Random(seed)
    floor, height, exponent, drop = (
        draw.uniform(1, 2.5),
        draw.uniform(0.1, 0.4),
        draw.uniform(0.3, 0.8),
        draw.uniform(0.05, 0.25),
    )
    rates = [learning_rate(settings, step) for step in range(1, settings.steps + 1)]
    total, reached, losses = sum(rates), 0.0, []
    for step, rate in enumerate(rates, 1):
        reached += rate
        decay = 1 - rate / settings.learning_rate if step > settings.warmup_steps else 0.0
        losses.append(floor + height * (reached / total) ** -exponent - drop * decay + draw.gauss(0, noise))
    return losses


def sums(losses: list[float]) -> list[Sum]:
    curve = Envelope()
    for step, loss in enumerate(losses, 1):
        curve.add(step, loss)
    return curve.sums()


@pytest.mark.parametrize("settings", [COSINE, WSD], ids=["cosine", "wsd"])
@pytest.mark.parametrize("share", [0.5, 0.75])
def test_the_band_holds_the_ends_of_a_known_law(settings: TrainingSettings, share: float) -> None:
    held, widths = 0, []
    for seed in range(20):
        losses = law(settings, seed)
        end = sum(losses[-20:]) / 20
        found = band(sums(losses[: round(share * settings.steps)]), settings)
        held += found.low <= end <= found.high
        widths.append((found.high - found.low) / end)
    assert held >= 16
    assert sorted(widths)[10] < 0.35  # a band that holds everything says nothing


@pytest.mark.parametrize("settings", [COSINE, WSD], ids=["cosine", "wsd"])
@pytest.mark.parametrize("share", [0.5, 0.75])
def test_the_band_holds_as_many_ends_as_it_says_where_runs_depart_from_the_law(settings: TrainingSettings, share: float) -> None:  # fmt: skip
    """By as much as the band allows for: `FALL_ERROR` × the fall and `LEFT_ERROR` × the loss × the steps left. The ends of runs
    that follow the law exactly, as above, are held more often."""
    held, count = 0, 100
    for seed in range(count):
        losses, done = law(settings, seed), round(share * settings.steps)
        now, end = sum(losses[done - 20 : done]) / 20, sum(losses[-20:]) / 20
        departs = math.hypot(FALL_ERROR * (now - end), LEFT_ERROR * (1 - share) * now)
        end += random.Random(1000 + seed).gauss(0, departs)
        found = band(sums(losses[:done]), settings)
        held += found.low <= end <= found.high
    # Three standard deviations of a binomial share, and 5 % for the fit, whose own uncertainty is in the band too.
    assert SHARE - 0.12 <= held / count <= SHARE + 0.05 + 0.12


def test_the_schedule_is_that_of_the_run() -> None:
    for settings in (COSINE, WSD, from_fields({"steps": 5000}, COSINE)):
        schedule, rates = Schedule(settings), [learning_rate(settings, step) for step in range(1, settings.steps + 1)]
        for step in (10, 100, 250, settings.steps):
            share, decay = schedule.at(step)
            assert share == pytest.approx(sum(rates[:step]) / sum(rates), rel=0.02, abs=1e-3)
            assert decay == pytest.approx(
                0.0 if step < settings.warmup_steps else 1 - rates[step - 1] / settings.learning_rate, abs=0.03
            )


def test_a_change_of_the_learning_rate_is_in_the_schedule() -> None:
    slower = Schedule(COSINE, [LearningRateChange(100, 3e-4, 1)])
    assert slower.total < 0.6 * Schedule(COSINE).total


def test_a_rate_that_was_changed_to_0_before_the_first_step_gives_no_band() -> None:
    never = (LearningRateChange(1, 0.0, 1),)
    curve = sums([2.0 + step % 2 / 100 for step in range(400)])
    assert band(curve[:200], COSINE, never).words == "no band of the end's loss: the learning rate is 0"
    assert error_of(Earlier("still", COSINE, never, tuple(curve), 2.0), 0.5) is None


def test_before_enough_steps_it_says_what_is_missing() -> None:
    losses = law(COSINE, 1)
    for done in (0, 1, 30, 59):
        found = band(sums(losses[:done]), COSINE)
        assert (
            math.isnan(found.low)
            and found.words == missing(COSINE, done) == f"the band of the end's loss needs {60 - done} more steps"
        )
    assert COSINE.warmup_steps + max(LEAST, 40) == 60
    assert not band(sums(losses[:60]), COSINE).missing
    assert "learning rate is 0" in missing(from_fields({"learning_rate": 0.0, "min_learning_rate": 0.0}, COSINE), 300)
    assert "too short" in missing(from_fields({"steps": 30}, COSINE), 29)


def test_a_branch_needs_steps_of_its_own() -> None:
    losses = law(COSINE, 1)
    for own in (1, 3, 39):
        found = band(branched(losses, 200, own), COSINE)
        assert found.words == f"the band of the end's loss needs {40 - own} more steps"
    assert not band(branched(losses, 200, 40), COSINE).missing
    assert "branch has too few steps" in band(branched(losses, 370, 20), COSINE).words


def branched(losses: list[float], step: int, own: int) -> list[Sum]:
    curve = Envelope()
    for number in range(step + 1, step + own + 1):
        curve.add(number, losses[number - 1])
    return curve.sums()


def test_losses_that_say_nothing_give_no_number_that_is_none() -> None:
    for losses in ([2.0] * 200, [0.0] * 200, [1e-12] * 200, [1e30 * (i % 2) for i in range(200)], [math.nan] * 200):
        found = band(sums(losses), COSINE)
        assert found.missing or (0 <= found.low <= found.expected <= found.high < math.inf)
    flat = band(sums([2.0] * 200), COSINE)
    assert flat.low <= 2.0 <= flat.high + 0.3


def earlier(seed: int, offset: float) -> Earlier:
    losses = law(COSINE, seed)
    return Earlier(f"run-{seed}", COSINE, (), tuple(sums(losses)), mean_of_last(sums(losses), end_window(400)) + offset)


def test_earlier_runs_shift_the_band_by_their_errors() -> None:
    curve = sums(law(COSINE, 99)[:200])
    alone = band(curve, COSINE)
    runs = [earlier(seed, -0.3) for seed in range(6)]  # all ended lower than their curves said
    errors = [error for one in runs if (error := error_of(one, 0.5)) is not None]
    with_them = band(curve, COSINE, errors=errors)
    assert with_them.earlier == len(errors) == 6
    assert with_them.expected < alone.expected - 0.05
    reader, asked = LossBandReader(COSINE, lambda: asked.append(1) or runs), []  # type: ignore[func-returns-value, var-annotated]
    assert reader.read(curve[:30]).missing and not asked  # the other runs are read once there is a band to give
    assert reader.read(curve) == with_them and reader.read(curve) == with_them and asked == [1]


def test_the_words() -> None:
    found = band(sums(law(COSINE, 2)[:300]), COSINE)
    assert found.words == f"ends between {found.low:.2f} and {found.high:.2f} (80 %)"
    assert forecast([], COSINE) is None


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.2371, 0.2432, "ends between 0.237 and 0.243 (80 %)"),
        (0.23712, 0.23728, "ends between 0.2371 and 0.2373 (80 %)"),
        (0.237121, 0.237122, "ends at about 0.24 (80 %)"),
        (2.31, 2.44, "ends between 2.31 and 2.44 (80 %)"),
        (0.0, 0.004, "ends between 0.000 and 0.004 (80 %)"),
    ],
)
def test_the_bounds_are_two_numbers_or_one(low: float, high: float, words: str) -> None:
    """With two decimal places those of a low loss are often equal."""
    found = LossBand(low, (low + high) / 2, high, 10)
    assert found.words == words
    health = Health(band=found)
    expected = re.search(r"expected (\S+);", band_words(health))
    assert expected is not None and float(expected[1]) == pytest.approx((low + high) / 2, abs=0.51 * 10**-found.places)
