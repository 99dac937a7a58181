"""The places of training tokens in the corpus's files, against the files' own bytes."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import tiktoken

from tests.training.run_helpers import words
from tui_llm.llm.data import chunks, corpus
from tui_llm.llm.data.formats import AUTO, TextFormat
from tui_llm.llm.data.token_places import TokenPlaces
from tui_llm.llm.tokens.closed import ClosedTokenizer
from tui_llm.llm.tokens.tokenizer import Tokenizer, byte_level, from_merges

END = "<|endoftext|>"
HARD = "\n\nÄpfel\r\nund 日本語 🙂\r\n\r\n" + END + "\n\n\n" + END + "zwei\n" + "x" * 300 + "\n" + END + "\r\nend\n\n"


def found(files: list[Path], tokenizer: Tokenizer, how: TextFormat = AUTO, fraction: float = 0.1):  # type: ignore[no-untyped-def]
    text = corpus.load(list(map(str, files)), tokenizer, fraction, block_size=4, how=how)
    return text, TokenPlaces(list(map(str, files)), text, tokenizer, fraction, how)


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    """A byte-level BPE with merges, which tiktoken applies."""
    merges = [
        (b"t", b"h"),
        (b"th", b"e"),
        (b" ", b"the"),
        (b"a", b"t"),
        (b" ", b"c"),
        (b" c", b"at"),
        (b"\xc3", b"\x84"),
        (b"x", b"x"),
        (b"xx", b"xx"),
    ]
    try:
        return from_merges("tiny", merges)
    except TypeError:
        return byte_level()


def check(files: list[Path], text: corpus.Corpus, places: TokenPlaces, tokenizer: Tokenizer) -> int:
    """Compares every token's bytes with those of its file at its offset. Returns how many separators there were."""
    assert not places.problem
    every = places.find(range(len(text.train)))
    assert len(every) == len(text.train)
    data = {str(path): path.read_bytes() for path in files}
    separators = 0
    for token, id in enumerate(text.train.tolist()):
        place, there = every[token], data[every[token].file]
        assert place.offset is not None and place.record is None
        if id == tokenizer.end_of_text:
            separators += 1
            assert there[place.offset :].startswith(END.encode()) or place.offset == len(there)
        else:
            mine = tokenizer.token_bytes(id)
            assert there[place.offset :].replace(b"\r\n", b"\n").startswith(mine), (token, place)
    return separators


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_every_token_stands_in_its_file_at_its_offset(tmp_path: Path, bpe: Tokenizer, bom: bytes) -> None:
    texts = {
        "a.txt": bom + (HARD * 3).encode(),
        "b.txt": words(400).encode(),
        "c.md": HARD.encode() * 9,
        "empty.txt": b"",
    }
    for name, data in texts.items():
        (tmp_path / name).write_bytes(data)
    files = [tmp_path / name for name in texts]
    for tokenizer in (byte_level(), bpe):
        text, places = found(files, tokenizer)
        assert check(files, text, places, tokenizer) > 10


def test_a_file_that_is_given_twice_is_found_twice(tmp_path: Path) -> None:
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    first.write_text(words(80))
    second.write_text(words(80, seed=2))
    text, places = found([first, second, first], byte_level())
    check([first, second], text, places, byte_level())
    order = [place.file for _, place in sorted(places.find(range(len(text.train))).items())]
    assert [name for at, name in enumerate(order) if not at or order[at - 1] != name] == [
        str(first),
        str(second),
        str(first),
    ]
    border = order.index(str(second))
    assert places.parts(border - 3, border + 3) == [border - 3, border]


def test_long_texts_are_cut_and_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tui_llm.llm.data import texts, token_places

    monkeypatch.setattr(texts, "BLOCK", 7)  # so that line ends and characters fall on the blocks' borders
    monkeypatch.setattr(chunks, "CHUNK", 40)
    monkeypatch.setattr(corpus, "_CHUNK", 40)
    monkeypatch.setattr(token_places, "_BLOCK", 16)
    path = tmp_path / "text.txt"
    path.write_bytes((HARD + words(64)).encode() * 4)
    text, places = found([path], byte_level())
    check([path], text, places, byte_level())


def test_places_are_those_of_tiktokens_tokens(tmp_path: Path) -> None:
    """GPT-2's split and tiktoken's BPE with a part of its merges: the byte before a token is the sum of tiktoken's tokens."""
    ranks = {bytes([b]): b for b in range(256)} | {b"th": 256, b"the": 257, b" c": 258, b" ca": 259, b" cat": 260}
    encoding = tiktoken.Encoding(
        "tiny", pat_str=r" ?\p{L}+| ?[^\s\p{L}]+|\s+", mergeable_ranks=ranks, special_tokens={END: 261}
    )
    from tui_llm.llm.tokens.tokenizer import BPETokenizer

    tokenizer = BPETokenizer("tiny", encoding, 262, 261)
    path = tmp_path / "text.txt"
    path.write_text(words(200).strip("\n"))
    text, places = found([path], tokenizer)
    ids = encoding.encode(path.read_text(), disallowed_special=())
    assert text.train.tolist() == ids[: len(text.train)]
    before = [0]
    for id in ids:
        before.append(before[-1] + len(encoding.decode_single_token_bytes(id)))
    assert [place.offset for _, place in sorted(places.find(range(len(text.train))).items())] == before[
        : len(text.train)
    ]


def test_records_have_a_number_and_lines_of_json_a_byte(tmp_path: Path) -> None:
    draw = random.Random(1)
    lines = [{"text": "".join(draw.choices("abc ", k=draw.randint(5, 30))).strip() or "x"} for _ in range(60)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, lines[:30])) + "\n\n" + "\n".join(map(json.dumps, lines[30:])) + "\n")
    data = path.read_bytes()
    text, places = found([path], byte_level())
    ends, record = 0, 0
    for token, place in sorted(places.find(range(len(text.train))).items()):
        assert place.record == record + 1 and place.offset is not None
        line = data[place.offset :].split(b"\n")[0]
        assert json.loads(line) == lines[record]
        if text.train[token] == byte_level().end_of_text:
            record, ends = record + 1, ends + 1
    assert ends > 40
    table = tmp_path / "rows.csv"
    table.write_text("text\n" + "\n".join(line["text"] for line in lines) + "\n")
    text, places = found([table], byte_level())
    place = places.find([0])[0]
    assert (place.offset, place.record) == (None, 1)


def test_characters_and_words_are_places_too(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("Äpfel und Birnen 🙂\n" * 30)
    for kind in ("char", "word"):
        from tui_llm.llm.data import closed_vocabulary

        tokenizer = ClosedTokenizer(kind, kind, closed_vocabulary.tokens([str(path)], kind, AUTO, lambda _: None))
        text, places = found([path], tokenizer)
        check([path], text, places, tokenizer)


def test_tokens_that_do_not_spell_the_text_have_no_place(tmp_path: Path) -> None:
    class Lower(type(byte_level())):  # type: ignore[misc]
        name = "doubled"

        def encode_array(self, text: str):  # type: ignore[no-untyped-def]
            return super().encode_array(text + text[:1])

    inner = byte_level()
    path = tmp_path / "text.txt"
    path.write_text(words(80))
    changed = Lower.__new__(Lower)
    changed.__dict__.update(inner.__dict__)
    changed.name = "doubled"
    _, places = found([path], changed)
    assert "don't spell the text out" in places.problem and places.find([0]) == {}
