"""Printed terms add up to the printed sum."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

from hypothesis import given
from hypothesis import strategies as st

from tui_llm.common.numbers import (
    COLUMN,
    MOST_DIGITS,
    SENTENCE,
    adding,
    at_most,
    counted,
    p_equals,
    percent,
    plain,
    precise_percent,
)

finite = st.floats(-1e7, 1e7) | st.floats(allow_nan=False, allow_infinity=False)


def value(text: str) -> Decimal:
    return Decimal(text.replace(",", "").replace("−", "-"))


@given(st.lists(finite, min_size=1, max_size=20), st.integers(0, 4))
def test_the_printed_terms_sum_to_the_printed_total(terms: list[float], digits: int) -> None:
    try:
        total = math.fsum(terms)
    except OverflowError:
        return
    parts, whole = adding(terms, total, digits)
    with localcontext(prec=700):
        assert sum(map(value, parts), Decimal()) == value(whole)
        places = len(whole.partition(".")[2])
        assert digits <= places <= max(digits, MOST_DIGITS)
        unit = Decimal(1).scaleb(-places)
        assert abs(value(whole) - Decimal(total)) <= unit / 2
        # Rounded terms can miss the rounded sum by n ÷ 2 units: a change of one each suffices, but for float64 errors.
        if all(abs(term) < 1e6 for term in terms):
            assert all(abs(value(part) - Decimal(term)) <= 2 * unit for part, term in zip(parts, terms, strict=True))


@given(st.floats(-60, 60, width=32), st.floats(0, 40, width=32))
def test_a_loss_line_adds_up_with_numbers_rounded_as_usual_or_a_unit_off(logit: float, loss: float) -> None:
    total = logit + loss
    (first, second), whole = adding([total, -logit], loss)
    assert value(first) + value(second) == value(whole)
    unit = Decimal(1).scaleb(-len(whole.partition(".")[2]))
    for text, number in ((first, total), (second, -logit), (whole, loss)):
        assert abs(value(text) - Decimal(number)) <= unit


def test_the_line_that_did_not_add_up() -> None:
    assert adding([14.0249, 0.7749], 14.7998) == (["14.025", "0.775"], "14.800")
    assert adding([1.0, 2.0], 3.0) == (["1.00", "2.00"], "3.00")
    assert adding([-0.001], -0.001) == (["0.00"], "0.00")
    assert adding([5.0, math.inf], math.inf) == (["5.00", "∞"], "∞")
    assert adding([5.0, math.nan, -math.inf], math.nan) == (["5.00", "NaN", "−∞"], "NaN")
    assert adding([0.5] * 3, 1.5, 0) == (["0.5", "0.5", "0.5"], "1.5")
    assert adding([1 / 3] * 3, 1.0) == (["0.34", "0.33", "0.33"], "1.00")


shares = st.floats(0, 1) | st.floats(-50, 0).map(lambda power: 10.0**power)  # of any magnitude


@given(shares, st.sampled_from([COLUMN, SENTENCE]))
def test_a_percentage_is_rounded_correctly_and_never_0_for_a_positive_share(share: float, places: int) -> None:
    text = percent(share, places)
    assert len(text) <= places + 5 and text.strip("<0123456789.") == " %"  # no exponent
    number = Decimal(text.removesuffix(" %").removeprefix("<"))
    assert (share == 0) == (number == 0)
    unit = Decimal(1).scaleb(-len(str(number).partition(".")[2]) if "." in str(number) else 0)
    if text.startswith("<"):
        assert number == Decimal(1).scaleb(-places) and 0 < 100 * Decimal(share) < number
    else:
        assert abs(number - 100 * Decimal(share)) <= unit * Decimal("0.5001")
    assert p_equals(share) == ("p < " + text[1:] if text.startswith("<") else f"p = {text}") or places != SENTENCE


@given(st.lists(shares, min_size=2, max_size=2).map(sorted))
def test_shares_are_printed_in_their_order(two: list[float]) -> None:
    less, more = (percent(share) for share in two)
    assert float(less.strip("<% ")) <= float(more.strip("<% "))
    assert not more.startswith("<") or less.startswith("<") or less == "0 %"


@given(shares)
def test_an_upper_bound_of_a_share_is_rounded_up(bound: float) -> None:
    text = at_most(bound)
    number = Decimal(text.removesuffix(" %")[1:])
    assert text[0] in "≤<" and len(text) <= 9
    assert number >= 100 * Decimal(bound) - Decimal("1e-9")
    assert number - 100 * Decimal(bound) <= Decimal(1).scaleb(
        number.as_tuple().exponent
    )  # by less than one unit of the last digit


@given(shares | st.floats(allow_nan=False, allow_infinity=False), st.integers(1, 9))
def test_a_plain_decimal_has_its_digits_and_no_exponent(value: float, figures: int) -> None:
    text = plain(value, figures)
    assert "e" not in text.lower()
    assert float(text) == float(f"{value:.{figures}g}")


def test_percentages_by_example() -> None:
    shares = [1, 0.866, 0.0999, 0.0042, 0.00003, 8e-8, 0, math.nan]
    assert list(map(percent, shares)) == ["100.0 %", "86.6 %", "9.99 %", "0.42 %", "0.003 %", "<0.001 %", "0 %", "NaN"]
    assert list(map(precise_percent, shares[4:6])) == ["0.003 %", "0.000008 %"]
    assert [p_equals(0.0042), p_equals(1e-12)] == ["p = 0.42 %", "p < 0.00000001 %"]
    assert [at_most(p) for p in (1, 0.00424, 1e-9, 0)] == ["≤100.0 %", "≤0.43 %", "<0.001 %", "≤0 %"]


def test_counts_have_the_right_plural() -> None:
    assert [counted(n, "token") for n in (0, 1, 2, 2048)] == ["0 tokens", "1 token", "2 tokens", "2,048 tokens"]
