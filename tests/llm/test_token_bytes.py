"""Converting bytes to text where a token need not contain whole characters, against Python's UTF-8 decoder."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui_llm.llm.tokens.token_bytes import TextStream, pieces, token_text

# Near-valid UTF-8: whole characters, fragments of them, and invalid sequences (overlong forms, surrogates).
whole = [b"a", b" cat", "é".encode(), "€".encode(), "😀".encode(), b""]
broken = [b"\xe2", b"\x82", b"\xac", b"\xf0", b"\x9f\x98", b"\x80", b"\xf5", b"\xff"]
forbidden = [b"\xc0\x80", b"\xed\xa0\x80", b"\xe0\x80", b"\xf4\x90"]
fragment = st.sampled_from(whole + broken + forbidden)
many_bytes = st.lists(fragment | st.binary(max_size=4), max_size=12).map(b"".join)


@st.composite
def tokens(draw):
    """Generates a byte string, split anywhere."""
    data = draw(many_bytes)
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=10)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def reference(data: bytes) -> str:
    """Decodes with Python: each undecodable byte 0xNN becomes the lone surrogate U+DCNN."""
    decoded = data.decode("utf-8", "surrogateescape")
    return "".join(f"<0x{ord(c) - 0xDC00:02X}>" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in decoded)


def character_spans(data: bytes) -> list[tuple[int, int]]:
    spans, at = [], 0
    for char in data.decode("utf-8", "surrogateescape"):
        size = len(char.encode("utf-8", "surrogateescape"))
        spans.append((at, at + size))
        at += size
    return spans


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (b" cat", " cat"),
        (b"\xe2", "<0xE2>"),
        (b"\xe2\x82\xac", "€"),
        (b"a\xe2\x82", "a<0xE2><0x82>"),
        (b"\xff\xe2\x82\xacb", "<0xFF>€b"),
        (b"\xed\xa0\x80", "<0xED><0xA0><0x80>"),  # a surrogate, invalid in UTF-8
        (b"\xc0\xaf", "<0xC0><0xAF>"),  # `/`, overlong
        (b"\x1b", "\x1b"),  # a valid character, made safe elsewhere (`display.visible`)
    ],
)
def test_token_text(data, text):
    assert token_text(data) == text


@given(many_bytes | st.binary())
def test_token_text_is_pythons_decoding(data):
    assert token_text(data) == reference(data)


def test_pieces_by_example():
    assert pieces([]) == []
    assert pieces([b"The", b" cat"]) == [(0, 1, "The"), (1, 2, " cat")]
    assert pieces([b"x", b"\xe2", b"\x82", b"\xac", b"y"]) == [(0, 1, "x"), (1, 4, "€"), (4, 5, "y")]
    assert pieces([b"\xe2", b"\x82"]) == [(0, 1, "<0xE2>"), (1, 2, "<0x82>")]
    assert pieces([b"\xe2", b"x"]) == [(0, 1, "<0xE2>"), (1, 2, "x")]
    assert pieces([b"\xff\xe2", b"\x82\xac!"]) == [(0, 2, "<0xFF>€!")]
    assert pieces([b"a\xc3", b"\xa9\xc3", b"\xa9"]) == [(0, 3, "aéé")]
    assert pieces([b"\xe2\x82", b"\xe2\x82\xac"]) == [(0, 1, "<0xE2><0x82>"), (1, 2, "€")]


@given(tokens())
def test_pieces_cover_all_tokens_and_their_texts_are_the_whole_text(parts):
    found = pieces(parts)
    assert [i for start, stop, _ in found for i in range(start, stop)] == list(range(len(parts)))
    assert all(start < stop for start, stop, _ in found)
    assert "".join(text for *_, text in found) == token_text(b"".join(parts))


@given(tokens())
def test_pieces_split_no_character_and_are_the_shortest_that_do_not(parts):
    spans = character_spans(b"".join(parts))
    ends = [len(b"".join(parts[:stop])) for stop in range(1, len(parts) + 1)]
    allowed = [stop for stop, end in enumerate(ends, 1) if not any(a < end < b for a, b in spans)]
    assert [stop for _, stop, _ in pieces(parts)] == allowed


@given(tokens())
def test_a_stream_gives_the_same_text_and_never_half_a_character(parts):
    stream = TextStream()
    so_far, fed = "", b""
    for part in parts:
        so_far += stream.feed(part)
        fed += part
        # Everything has been returned except an incomplete character of at most three bytes.
        held = [fed[max(len(fed) - size, 0) :] if size else b"" for size in range(4)]
        assert token_text(fed) in [so_far + token_text(rest) for rest in held]
    assert so_far + stream.flush() == token_text(b"".join(parts))


def test_a_stream_gives_a_character_with_its_last_byte():
    stream = TextStream()
    assert [stream.feed(bytes([b])) for b in "é😀!".encode()] == ["", "é", "", "", "", "😀", "!"]
    assert stream.feed(b"\xe2\x82") == ""
    assert stream.feed(b"x") == "<0xE2><0x82>x"
    assert stream.feed(b"\xf0\x9f") == ""
    assert stream.flush() == "<0xF0><0x9F>"
    assert stream.flush() == ""
    assert stream.feed(b"\xac") == "<0xAC>"  # no state is left from before the flush
