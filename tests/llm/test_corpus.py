"""Corpora: how files are read, split into documents and held out, and the errors for files that are not text."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import HANG
from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.common.files import write_json
from tui_llm.common.foreign_files import read_json
from tui_llm.llm.data import corpora, corpus, texts
from tui_llm.llm.hub import hub
from tui_llm.llm.learn import train_bpe
from tui_llm.llm.tokens.tokenizer import byte_level

BYTE = byte_level()
END = BYTE.end_of_text
assert END is not None


def ids(text: str) -> list[int]:
    return BYTE.encode(text)


def load(*places: Path, fraction: float = 0.1, block_size: int = 4) -> corpus.Corpus:
    return corpus.load(list(places), BYTE, fraction, block_size=block_size)


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_documents_become_ids_with_a_separator_after_each(tmp_path: Path) -> None:
    a = write(tmp_path / "a.txt", "\ufeffone\r\ntwo\n\n<|endoftext|>\n\n<|endoftext|>three\n")
    b = write(tmp_path / "b.txt", "four four four")
    made = load(a, b, fraction=0.25)
    first = [*ids("one\ntwo"), END, *ids("three"), END]  # 14 tokens: the last 4 are held out
    second = [*ids("four four four"), END]  # 15 tokens: the last 4
    assert made.train.tolist() == first[:-4] + second[:-4]
    assert made.validation.tolist() == first[-4:] + second[-4:]
    assert made.train.dtype == np.uint16
    counts = np.unique(made.train, return_counts=True)[1] / len(made.train)
    assert made.unigram_entropy == pytest.approx(-(counts * np.log(counts)).sum())
    assert made.bytes_per_token == pytest.approx(len("one\ntwo" + "three" + "four four four") / 29)


def test_bytes_per_token_are_those_of_the_tokens(tmp_path: Path) -> None:
    """The same for CRLF as for LF, whatever separators and blank lines the file has, and for a cache of an earlier version."""
    text = "one two\nthree 日本\n" * 40
    plain = load(write(tmp_path / "lf.txt", text))
    assert plain.bytes_per_token == pytest.approx(len(text.strip("\n").encode()) / (len(ids(text.strip("\n"))) + 1))
    assert load(write(tmp_path / "crlf.txt", text.replace("\n", "\r\n"))).bytes_per_token == plain.bytes_per_token
    many = write(tmp_path / "many.txt", "<|endoftext|>\n\n".join(["one two three four"] * 50))
    assert load(many).bytes_per_token == pytest.approx(18 / (len(ids("one two three four")) + 1))
    for cached in paths.cache_dir().rglob("corpus.json"):
        facts = json.loads(cached.read_text())
        del facts["bytes"]
        cached.write_text(json.dumps({**facts, "bytes_per_token": 99.0}))
    assert load(many).bytes_per_token == pytest.approx(18 / (len(ids("one two three four")) + 1))


@given(
    parts=st.lists(st.text("ab\n\r é😀", max_size=40), max_size=6),
    chunk=st.integers(1, 30),
    block=st.integers(1, 9),
)
def test_reading_in_pieces_changes_nothing(
    parts: list[str], chunk: int, block: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = "<|endoftext|>".join(parts)
    path = write(tmp_path_factory.mktemp("pieces") / "text.txt", text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "BLOCK", block)
        patch.setattr(corpus, "_CHUNK", chunk)
        assert texts.read_text(path) == text.replace("\r\n", "\n")
        chunks = list(corpus._chunks(texts.blocks(path)))
    assert all(piece is None or (piece and len(piece) <= 2 * chunk + block + 26) for piece in chunks)
    documents = ["".join(piece for piece in document if piece is not None) for document in _split(chunks)]
    wanted = list(corpus.documents(text.replace("\r\n", "\n")))
    # Long runs of blank lines may become a chunk of their own; otherwise the documents are the same.
    assert [d.rstrip("\n") for d in documents if d.strip("\n")] == [d for d in wanted if d.strip("\n")]


@pytest.mark.parametrize("name", ["byte", "nano"])
def test_tokenised_side_by_side_or_in_turn_it_is_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = hub.training_tokenizer(name)
    monkeypatch.setattr(corpus, "_CHUNK", 500)
    monkeypatch.setattr(corpus, "cores", lambda: 3)
    text = "".join(f"Story {i}: once upon a time.\n" * (i % 40) + "<|endoftext|>" * (i % 3) for i in range(120))
    a, b = write(tmp_path / "a.txt", text + " " * 9000 + "é😀"), write(tmp_path / "b.txt", text[::-1])
    cut = [list(corpus._chunks(texts.blocks(path))) for path in (a, b)]
    serial = [
        i for c in cut for piece in c for i in ([tokenizer.end_of_text] if piece is None else tokenizer.encode(piece))
    ]

    threads = set()

    def encode(self: object, piece: str) -> object:
        threads.add(threading.get_ident())
        return whole(self, piece)

    whole = type(tokenizer).encode_array
    monkeypatch.setattr(type(tokenizer), "encode_array", encode)
    made = corpus.load([a, b], tokenizer, 0.25, block_size=4)
    halves = [(len(made.train), made.train.tolist()), (len(made.validation), made.validation.tolist())]
    first = sum(1 if p is None else len(tokenizer.encode(p)) for p in cut[0])
    held = [max(1, round(n * 0.25)) for n in (first, len(serial) - first)]
    wanted_train = serial[: first - held[0]] + serial[first : len(serial) - held[1]]
    wanted_held = serial[first - held[0] : first] + serial[len(serial) - held[1] :]
    assert halves == [(len(wanted_train), wanted_train), (len(wanted_held), wanted_held)]
    assert threading.get_ident() not in threads


def test_reading_ahead_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "_CHUNK", 100)
    monkeypatch.setattr(corpus, "cores", lambda: 2)
    made = corpus._TokenWriter(tmp_path, BYTE, 0.1, lambda _: None)
    read = 0

    def chunks() -> Iterator[str | None]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield "a" * 100

    for written, _ in enumerate(made._encoded(chunks())):
        assert read <= written + 4


def test_an_interruption_stops_the_threads(tmp_path: Path) -> None:
    path = write(tmp_path / "text.txt", "word " * 100_000 + "\n")

    def stop(message: str) -> None:
        if message.startswith("tokenizing"):
            raise LookupError

    before = set(threading.enumerate())
    with pytest.raises(LookupError):
        corpus.load([path], BYTE, 0.1, block_size=4, progress=stop)
    assert set(threading.enumerate()) <= before


def _split(chunks: list[str | None]) -> list[list[str | None]]:
    documents: list[list[str | None]] = [[]]
    for piece in chunks:
        documents.append([]) if piece is None else documents[-1].append(piece)
    assert documents.pop() == []  # a separator follows the last document too
    return documents


def test_a_large_file_is_never_held_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "all work and no play\n"
    path = write(tmp_path / "large.txt", line * 20_000)
    monkeypatch.setattr(texts, "BLOCK", 4096)
    monkeypatch.setattr(corpus, "_CHUNK", 4096)
    longest = []
    encode = BYTE.encode_array
    monkeypatch.setattr(BYTE, "encode_array", lambda text: longest.append(len(text)) or encode(text))
    made = load(path)
    assert max(longest) <= 3 * 4096
    whole = [*encode(line * 20_000)[:-1], END]  # without the last newline, plus a separator
    assert [*made.train.tolist(), *made.validation.tolist()] == whole
    assert len(made.validation) == round(len(whole) * 0.1)


def test_a_file_named_twice_is_trained_on_twice_and_held_out_once(tmp_path: Path) -> None:
    a, b = (
        write(tmp_path / "a.txt", "abcdefghijklmnopqrs" * 2 + "!"),
        write(tmp_path / "b.txt", "0123456789" * 2),
    )
    once, twice = load(a, b), load(a, b, a)
    assert twice.validation.tolist() == once.validation.tolist()
    assert twice.train.tolist() == [*once.train.tolist(), *ids("abcdefghijklmnopqrs" * 2 + "!")[:36]]
    copy = write(tmp_path / "copy.txt", a.read_bytes())  # a copy of a held-out text must not leak into training
    assert load(a, b, copy).validation.tolist() == once.validation.tolist()


def test_the_held_out_part_is_the_end_of_every_file(tmp_path: Path) -> None:
    places = [write(tmp_path / f"{i}.txt", bytes([65 + i]) * 99) for i in range(3)]
    made = load(*places, fraction=0.2)
    assert made.train.tolist() == ids("A" * 80 + "B" * 80 + "C" * 80)
    assert made.validation.tolist() == [*ids("A" * 19), END, *ids("B" * 19), END, *ids("C" * 19), END]


def test_a_folder_is_walked_for_texts(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    (tmp_path / "dir.txt").mkdir()
    for name in ("b.txt", "in/a.md", "in/deep/README", "photo.png", ".hidden.txt", ".git/x.txt"):
        write(tmp_path / name, name)
    (tmp_path / "dangling.txt").symlink_to("nowhere")
    assert [str(p.relative_to(tmp_path)) for p in corpora.files([tmp_path])] == [
        "b.txt",
        "in/a.md",
        "in/deep/README",
    ]
    with pytest.raises(UserError, match="no text files in"):
        corpora.files([tmp_path / "dir.txt"])


@pytest.mark.parametrize(
    ("data", "why"),
    [(b"", "is empty"), (b"\n\n<|endoftext|>\n", "is empty"), (b"abc\0def", "zero bytes"), (b"abc\xff", "not UTF-8 text .byte 3"),
     (b"\xef\xbb\xbfab\xe2\x82", "not UTF-8 text .byte 5"), (b"abcdef", "too small: 7 tokens"), (b"a" * 40, "too small: 41 tokens, of which 4")],
)  # fmt: skip
def test_unusable_training_texts_are_reported(data: bytes, why: str, tmp_path: Path) -> None:
    path = write(tmp_path / "bad.txt", data)
    with pytest.raises(UserError, match=why) as told:
        load(path)
    assert "\n" not in str(told.value)
    assert not list(paths.cache_dir().rglob(".tokens-*"))


def test_the_position_of_an_invalid_byte_is_counted_from_the_files_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "BLOCK", 16)
    path = write(tmp_path / "bad.txt", "é".encode() * 50 + b"\xff" + b"a" * 50)
    with pytest.raises(UserError, match="byte 100"):
        texts.read_text(path)


@pytest.mark.parametrize("place", ["missing.txt", "x" * 300, "nul\0.txt", "a\x1b[31m[/]\n.txt"])
def test_unreadable_texts_are_reported(place: str, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        load(tmp_path / place)


def test_pipes_and_unreadable_files_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="neither a file nor a folder"):
        load(tmp_path / "pipe")
    secret = write(tmp_path / "secret.txt", "x" * 100)
    real = os.open

    def refuse(path: object, *more: object, **most: object) -> object:
        if path == secret:
            raise PermissionError(13, "Permission denied")
        return real(path, *more, **most)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)  # root ignores permissions
    with pytest.raises(UserError, match=r"can't read .*secret.txt: Permission denied"):
        load(secret)


def test_a_file_that_changes_while_it_is_read_is_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "live.txt", "x" * 100)
    real = corpus.blocks

    def grow(*arguments: object) -> object:
        write(path, "y" * 100)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(corpus, "blocks", grow)
    with pytest.raises(UserError, match="changed while"):
        load(path)
    assert not list(paths.cache_dir().rglob("*.bin"))


def test_the_cache_is_used_and_repaired(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "some text to cache, " * 10)
    first = load(path)
    (folder,) = (paths.cache_dir() / "corpora").iterdir()
    stamp = (folder / "train.bin").stat().st_ino
    moved = write(tmp_path / "moved.txt", path.read_bytes())
    assert load(moved).digest == first.digest and (folder / "train.bin").stat().st_ino == stamp
    assert load(path, fraction=0.2).digest != first.digest
    for damage in (
        (folder / "train.bin").unlink,
        lambda: os.truncate(folder / "validation.bin", 3),
        lambda: write(folder / "corpus.json", "{"),
    ):
        damage()
        (folder / ".tokens-of-a-killed-one").mkdir()
        again = load(path)
        assert again.train.tolist() == first.train.tolist() and again.validation.tolist() == first.validation.tolist()
        assert not list(folder.glob(".tokens-*"))


def test_a_cache_from_before_bigrams_were_counted_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.txt", "some text to cache, " * 10)
    first = load(path)
    (folder,) = (paths.cache_dir() / "corpora").iterdir()
    facts = read_json(folder / "corpus.json")
    assert facts.pop("bigram_entropy") == first.bigram_entropy
    write_json(folder / "corpus.json", facts)
    stamp = (folder / "train.bin").stat().st_ino
    again = load(path)
    assert again.bigram_entropy == first.bigram_entropy and again.digest == first.digest
    assert (folder / "train.bin").stat().st_ino == stamp
    assert read_json(folder / "corpus.json")["bigram_entropy"] == first.bigram_entropy
    monkeypatch.setattr(corpus, "bigram_entropy", lambda *_: pytest.fail("it is there already"))
    assert load(path).bigram_entropy == first.bigram_entropy

    def refuse(*_: object) -> None:
        raise UserError("can't write there")

    write_json(folder / "corpus.json", facts)  # a read-only cache
    monkeypatch.setattr(corpus, "write_json", refuse)
    monkeypatch.setattr(corpus, "bigram_entropy", lambda *_: 1.25)
    assert load(path).bigram_entropy == 1.25


def test_two_processes_at_once_tokenize_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.txt", "some text, " * 1000)
    begun, told, waiting = [], [], threading.Event()
    real = corpus._TokenWriter.run

    def run(self: corpus._TokenWriter, *arguments: object) -> object:
        begun.append(1)
        assert waiting.wait(HANG)  # until the other process waits for the lock
        return real(self, *arguments)  # type: ignore[arg-type]

    def progress(message: str) -> None:
        told.append(message)
        if message.startswith("waiting"):
            waiting.set()

    monkeypatch.setattr(corpus._TokenWriter, "run", run)
    made: list[corpus.Corpus] = []
    threads = [
        threading.Thread(target=lambda: made.append(corpus.load([path], BYTE, 0.1, block_size=4, progress=progress)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(begun) == 1 and len(made) == 2
    assert made[0].train.tolist() == made[1].train.tolist() == ids("some text, " * 1000)[: len(made[0].train)]


def test_the_progress_callback_can_cancel_and_no_files_are_left(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "some text, " * 1000)

    def stop(message: str) -> None:
        if message.startswith("tokenizing"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        corpus.load([path], BYTE, 0.1, block_size=4, progress=stop)
    assert [p.name for p in paths.cache_dir().rglob("*") if p.is_file()] == ["lock"]
    assert len(load(path).train)


def test_a_text_that_is_deleted_once_it_was_found_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program may delete it meanwhile, such as a run its older checkpoints."""
    gone = tmp_path / "gone.txt"
    monkeypatch.setattr(corpora, "files", lambda places: [gone])
    with pytest.raises(UserError, match=r"can't read .*gone\.txt: No such file or directory; give another text"):
        train_bpe.train([tmp_path], 300, "small")
    with pytest.raises(UserError, match=r"can't read .*gone\.txt"):
        texts.size_on_disk(gone)
