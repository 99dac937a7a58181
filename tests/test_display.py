"""`display.visible`: for any input text, the output contains nothing that a terminal interprets."""

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tui_llm.common.display import fit, truncate, visible, visible_token

EVERY = [chr(code) for code in range(sys.maxunicode + 1)]
any_text = st.text(st.characters(exclude_categories=()))  # lone surrogates too


def hidden(char: str) -> bool:
    return unicodedata.category(char)[0] == "C" or char in "\u2028\u2029"


@pytest.fixture(scope="module")
def shown():
    """Returns each Unicode character with the result of `visible` for it alone."""
    return {char: visible(char) for char in EVERY}


def test_no_hidden_character_of_all_unicode_passes(shown):
    assert not [char for char in set("".join(shown.values())) if hidden(char)]
    # it applies `visible`, then further replacements
    assert not [char for char in set(visible_token("".join(EVERY))) if hidden(char)]


def test_every_hidden_character_shows_and_no_other_changes(shown):
    assert not [char for char, text in shown.items() if not text or (text != char) != hidden(char)]


def test_different_hidden_characters_look_different(shown):
    looks = [text for char, text in shown.items() if hidden(char)]
    assert len(set(looks)) == len(looks)


def test_escapes_are_pythons_own(shown):
    escapes = {char: text for char, text in shown.items() if text != char and text[0] == "\\"}
    assert len(escapes) > 900_000
    assert "".join(escapes.values()).encode("ascii").decode("unicode_escape") == "".join(escapes)
    assert all(len(text) in (4, 6, 10) for text in escapes.values())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\n", "␊"),
        ("\r\n", "␍␊"),
        ("a\tb", "a␉b"),
        ("\x00", "␀"),
        ("\x7f", "␡"),
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("\x1b]52;c;aGk=\x07", "␛]52;c;aGk=␇"),
        ("\x9b2J", "\\x9b2J"),
        ("\u200b", "\\u200b"),
        ("user\u202egnp.exe", "user\\u202egnp.exe"),
        ("\u2066x\u2069", "\\u2066x\\u2069"),
        ("\ufeff", "\\ufeff"),
        ("\U000e0001", "\\U000e0001"),
        ("\ud83d", "\\ud83d"),
        ("\ue000", "\\ue000"),
        ("\u2028", "\\u2028"),
        ("👩\u200d🚀", "👩\\u200d🚀"),
    ],
)
def test_how_it_looks(text, shown):
    assert visible(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[/]",
        "[red]x",
        "[link='x",
        "[/usr/bin]",
        "\\[",
        "😀 ❤️ 🇫🇷",
        "e\u0301",
        "日本語",
        "שלום",
        "a\u00a0b",
    ],
)
def test_ordinary_and_markup_like_text_passes_unchanged(text):
    assert visible(text) == text


def test_newlines_stay_where_asked_for_and_nothing_else_does():
    assert visible("a\nb\r\n\x1b\x85\u2028", newlines=True) == "a\nb␍\n␛\\x85\\u2028"


@given(any_text)
def test_visible_is_idempotent_and_its_output_can_be_encoded(text):
    shown = visible(text)
    assert visible(shown) == shown
    shown.encode()


def test_a_token_shows_its_spaces():
    assert visible_token(" cat") == "·cat"
    assert visible_token("cat") == "cat"
    assert visible_token("  \n") == "··␊"
    assert visible_token("\u00a0x\u3000") == "\\xa0x\\u3000"


def test_a_combining_mark_does_not_sit_on_what_is_left_of_the_token():
    assert visible_token("\u0301") == "◌\u0301"
    assert cell_len(visible_token("\u0301")) == 1
    assert visible_token("e\u0301") == "e\u0301"


wide_text = st.text(st.sampled_from("ab ·漢字😀❤\ufe0f\u0301é🇫🇷👍🏽…[/]"), max_size=30)


@given(wide_text | any_text.map(visible), st.integers(-1, 20))
def test_truncated_text_is_a_start_of_the_text_and_never_too_wide(text, cells):
    short = truncate(text, cells)
    assert cell_len(short) <= max(cells, 0)
    if short != text and cells > 0:
        assert short.endswith("…")
        assert text.startswith(short[:-1])
    elif cells > 0:
        assert cell_len(text) <= cells


@given(st.text(st.sampled_from("abc漢😀"), max_size=12), st.integers(1, 12))
def test_truncating_leaves_out_no_more_than_it_must(text, cells):
    short = truncate(text, cells)
    if short == text:
        return
    assert cell_len(text) > cells
    more = text[: len(short)]  # one more character than was kept
    assert cell_len(more) + 1 > cells


@given(wide_text | any_text.map(visible), st.integers(0, 20))
def test_fitted_text_has_exactly_the_width(text, cells):
    assert cell_len(fit(text, cells)) == cells


def test_fit_by_example():
    assert fit("cat", 5) == "cat  "
    assert fit("catalogue", 5) == "cata…"
    assert fit("漢字漢字", 4) == "漢… "
    assert fit("cat", 0) == ""


def test_a_stack_of_combining_marks_is_cut():
    assert len(truncate("e" + "\u0301" * 100_000, 10)) < 100
