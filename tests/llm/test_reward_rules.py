"""Rules for rewards: what each gives, and that no input hangs or gives a number that is not finite."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hostile import TEXTS
from tui_llm.common.errors import UserError
from tui_llm.llm.learn import reward
from tui_llm.llm.learn.reward import KINDS, by_hand, finite, parse

SCORES = [
    ("contains:happy", "She was so Happy!", 1),
    ("contains:happy", "She was unhappy.", 0),
    ("contains:the  end", "It was the\nend.", 1),
    ("contains:!", "Oh!", 1),
    ("never:sad", "She was sad.", 0),
    ("never:sad", "A sadder day", 1),
    (r"matches:^\s*[A-Z]", " She ran", 1),
    ("matches:a:b", "a:b", 1),
    ("matches:zzz", "She ran", 0),
    ("length:10", "ten chars!", 1),
    ("length:10", "twelve chars", 0.8),
    ("length:10", "x" * 40, 0),
    ("full-stop", 'She said "yes." \n', 1),
    ("full-stop", "She said yes", 0),
    ("full-stop", "", 0),
    ("count:e", "Eee, the end", 5),
    (" COUNT:e", "e", 1),
]


@pytest.mark.parametrize("spec, answer, wanted", SCORES)
def test_scores(spec: str, answer: str, wanted: float) -> None:
    rule = parse(spec)
    assert rule.score(answer) == pytest.approx(wanted)
    assert parse(rule.spec) == rule


def test_each_kind_has_an_example_that_is_read_back() -> None:
    for kind in KINDS.values():
        assert parse(kind.example).spec == kind.example and kind.help
    assert set(KINDS) == set(reward._MAKERS)


@pytest.mark.parametrize(
    "spec, part",
    [
        ("", "there is no reward"),
        ("contain:happy", "did you mean contains"),
        ("contains", "such as contains:happy"),
        ("contains:  ", "only spaces"),
        ("full-stop:x", "write full-stop"),
        ("length:many", "characters"),
        ("length:0", "1 to"),
        ("matches:(", "not a regular expression"),
        ("matches:a{1000000000}", "repeats"),
        ("matches:((a{100}){100}){100}", "repeats"),
        ("count:" + "e" * 1000, "up to 200"),
    ],
)
def test_a_wrong_rule_is_one_line(spec: str, part: str) -> None:
    with pytest.raises(UserError, match=part) as error:
        parse(spec)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(.*)*(.*)*(.*)*\d", r"^(([a-z])+.)+[A-Z]$"])
def test_a_regular_expression_that_takes_for_ever_is_stopped(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reward, "SECONDS", 0.05)
    try:
        assert parse("matches:" + pattern).score("a" * 3000 + "!") in (0, 1)
    except UserError as error:
        assert "takes longer than" in str(error)
    with pytest.raises(UserError, match="takes longer than"):
        parse("matches:(a+)+$").score("a" * 3000 + "!")


def test_scores_by_hand() -> None:
    assert parse("hand").by_hand and by_hand([0, 9, 4.5], 3) == [0, 9, 4.5]
    for scores in ([1, 2], [1, 2, 10], [1, 2, -1], [1, 2, math.nan]):
        with pytest.raises(UserError):
            by_hand(scores, 3)
    with pytest.raises(UserError, match="by hand"):
        parse("hand").score("x")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e9])
def test_a_reward_is_finite(value: float) -> None:
    with pytest.raises(UserError, match="finite"):
        finite(value)


@pytest.mark.parametrize("text", TEXTS)
def test_hostile_text(text: str) -> None:
    for name in KINDS:
        try:
            rule = parse(f"{name}:{text}")
        except UserError as error:
            assert str(error).isprintable()
            continue
        assert math.isfinite(rule.score(text))


@given(st.text(max_size=40))
def test_every_text_has_a_finite_reward(text: str) -> None:
    for spec in ("contains:a", "never:a", "length:7", "full-stop", "count:a", "matches:.a"):
        assert 0 <= parse(spec).score(text) <= 40
