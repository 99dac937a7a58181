"""Counting letters across tokens: the sum is the count in the text, wherever the token boundaries are."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui_llm.common.errors import UserError
from tui_llm.llm.tokens.letters import count, one_letter


def test_strawberry() -> None:
    found = count([b"st", b"raw", b"berry"], "r")
    assert (found.total, found.inside, found.split) == (3, (0, 1, 2), 0)
    assert count([b"St", b"RAW", b"berry"], "R").total == 3


def test_a_letter_split_over_tokens() -> None:
    found = count([b"caf\xc3", b"\xa9 e\xcc", b"\x81"], "é")  # precomposed é, and e with a combining accent
    assert (found.total, found.inside, found.split) == (2, (1, 1, 0), 2)
    assert count(["👩\u200d👧".encode()], "👩").total == 0  # a family emoji is one grapheme


@given(st.text("abRr é漢\u0301", max_size=40).map(str.encode), st.lists(st.integers(0, 80), max_size=8))
def test_token_boundaries_change_only_the_place_of_a_letter(data: bytes, cuts: list[int]) -> None:
    ends = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    tokens = [data[a:b] for a, b in pairwise(ends)]
    for letter in ("r", "é", "漢"):
        found = count(tokens, letter)
        assert found.total == sum(found.inside) == count([data], letter).total
        assert len(found.inside) == len(tokens) and found.split <= found.total


@pytest.mark.parametrize("text", ["", "rr", "ab"])
def test_one_letter(text: str) -> None:
    with pytest.raises(UserError, match="one letter"):
        one_letter(text)


def test_bytes_that_are_no_text() -> None:
    assert count([b"\xff", b"r\xc3"], "r").inside == (0, 1)
    assert one_letter("e\u0301") == "e\u0301"
