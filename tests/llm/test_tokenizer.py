"""Vocabularies, against tiktoken and transformers."""

from __future__ import annotations

import base64
import hashlib
import json
import random
from pathlib import Path

import pytest
import regex
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Tokenizer

from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.llm.learn import train_bpe
from tui_llm.llm.tokens import add_vocabulary, catalog, vocabulary_files, vocabulary_folder
from tui_llm.llm.tokens import text as tokens_text
from tui_llm.llm.tokens import tokenizer as tk

REPOSITORY = Path(__file__).resolve().parents[2]
NANO = REPOSITORY / "models" / "nano"


def mixed_text(size: int = 200_000) -> str:
    """Returns prose, code, many scripts, emoji, all kinds of white space, and digits."""
    import pydoc_data.topics

    prose = "\n".join(pydoc_data.topics.topics.values())
    source = Path(random.__file__).read_text()
    scripts = "Žluťoučký kůň 漢字かな交じり文 مرحبا بالعالم हिन्दी 한국어 👩‍🚀🇫🇷é́ ﷽ \u202e\u200b\x1b[31m ½²ⅷ"
    spaces = "a  b   c\t\td\n\n\n  e \r\n f\u00a0g\u3000h " + " " * 40 + "x"
    dice = random.Random(1)
    noise = "".join(
        chr(dice.choice([dice.randrange(32, 127), dice.randrange(0xD7FF), dice.randrange(0x1F300, 0x1FAFF)]))
        for _ in range(5000)
    )
    words = "I'll you're DON'T it's 12345 3.14 www.example.org/a?b=c#d foo_bar $£€ <|endoftext|> [/] [red]x"
    parts = [scripts, spaces, noise, words, source[:20000], prose]
    return "\n".join(parts)[:size]


@pytest.fixture(scope="module")
def nano() -> tk.BPETokenizer:
    return vocabulary_folder.load_folder(NANO)


def test_ids_equal_transformers_on_a_large_mixed_text(nano: tk.BPETokenizer) -> None:
    text = mixed_text().replace("<|endoftext|>", "")  # transformers always parses it as the special token
    reference = GPT2Tokenizer.from_pretrained(NANO)
    ids = nano.encode(text)
    assert ids == reference.encode(text)
    assert nano.decode(ids) == text


@pytest.mark.skipif(
    not (REPOSITORY.parent / "shared/vocab/gpt2.tiktoken").is_file() and not catalog.vocabulary_file("gpt2").is_file(),
    reason="GPT-2's vocabulary is not on this machine",
)
def test_gpt2_from_merges_equals_tiktokens_own(tmp_path: Path) -> None:
    """tiktoken's file → vocab.json + merges.txt → our tokenizer: the ids equal those of tiktoken's own encoding."""
    source = REPOSITORY.parent / "shared/vocab/gpt2.tiktoken"
    catalog.load_named.cache_clear()
    if source.is_file():
        add_vocabulary.add(source)
    gpt2 = catalog.load_named("gpt2")
    assert isinstance(gpt2, tk.BPETokenizer)
    vocabulary_folder.save_folder(gpt2, tmp_path)
    ours = vocabulary_folder.load_folder(tmp_path, "gpt2")

    ranks = {
        base64.b64decode(a): int(b)
        for a, b in (line.split() for line in catalog.vocabulary_file("gpt2").read_bytes().splitlines())
    }
    from tiktoken_ext.openai_public import r50k_pat_str

    own = tiktoken.Encoding(
        "gpt2", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256}
    )
    text = mixed_text(1_000_000)
    wanted = own.encode(text, disallowed_special=())
    assert ours.encode(text) == wanted == gpt2.encode(text)
    assert ours.size == gpt2.size == 50257
    assert ours.end_of_text == gpt2.end_of_text == 50256
    assert GPT2Tokenizer.from_pretrained(tmp_path).encode("Hello 🙂 world") == ours.encode("Hello 🙂 world")
    alone = sum(1 for id in range(50257) if _is_not_utf8(ours.token_bytes(id)))
    assert alone == 344  # number of GPT-2's tokens that are not valid UTF-8


def _is_not_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return True
    return False


def test_much_text_at_once_gives_the_same_ids(nano: tk.BPETokenizer, tmp_path: Path) -> None:
    text = mixed_text() + "\ud800 half" + "\n \t" * 3000 + "end"
    for tokenizer in (nano, tk.byte_level(), tk.ByteTokenizer(), tk.CharTokenizer()):
        assert tokenizer.encode_array(text).tolist() == tokenizer.encode(text), tokenizer.name
        assert tokenizer.encode_array("").tolist() == []


@given(st.integers(0, 5000), st.integers(4000, 4200), st.integers(0, 5000))
def test_every_long_run_of_white_space_is_found(before: int, run: int, after: int) -> None:
    text = "a" * before + " " * run + "b" * after
    parts = tk._without_long_runs(text)
    assert "".join(parts) == text
    assert max(part.count(" ") for part in parts) <= 4096 and (len(parts) > 1) == (run > 4096)


@given(st.text(st.characters(exclude_categories=[])))
@settings(deadline=None)
@pytest.mark.parametrize("name", ["nano", "byte", "char", "word", "byte level"])
def test_any_text_survives_a_round_trip(name: str, text: str) -> None:
    made = {"nano": lambda: vocabulary_folder.load_folder(NANO), "byte level": tk.byte_level}.get(
        name, lambda: catalog.load_named(name)
    )()
    ids = made.encode(text)
    assert made.decode_bytes(ids) == tokens_text.clean(text).encode()
    assert all(0 <= id < max(made.size, 0x110000) for id in ids)


def test_special_tokens_typed_are_text(nano: tk.BPETokenizer) -> None:
    assert nano.end_of_text == 4095
    assert nano.end_of_text not in nano.encode("a<|endoftext|>b")
    assert nano.encode("a<|endoftext|>b", allow_special=True)[1] == nano.end_of_text
    assert nano.decode(nano.encode("a<|endoftext|>b")) == "a<|endoftext|>b"


def test_half_characters() -> None:
    assert tokens_text.clean("a\ud83d") == "a\ufffd"
    assert tokens_text.clean("\ud83d\ude42") == "🙂"  # a surrogate pair is joined
    assert tokens_text.clean("ordinary") == "ordinary"


@pytest.mark.parametrize("unit", ["a", " ", "ab", "\n", "é", "🙂", "1", "a b"])
def test_a_megabyte_in_one_line(nano: tk.BPETokenizer, unit: str) -> None:
    """No stack overflow, no quadratic time (the tests' timeout would end it), and decoding returns the text."""
    text = unit * (1_000_000 // len(unit))
    assert nano.decode(nano.encode(text)) == text


def test_ids_that_differ_from_ranks(tmp_path: Path, nano: tk.BPETokenizer) -> None:
    """A vocabulary may assign ids in any order; the tokenizers library puts special tokens first."""
    vocab = json.loads((NANO / "vocab.json").read_text())
    shifted = {token: (id + 1) % len(vocab) for token, id in vocab.items()}
    (tmp_path / "vocab.json").write_text(json.dumps(shifted))
    (tmp_path / "merges.txt").write_bytes((NANO / "merges.txt").read_bytes())
    other = vocabulary_folder.load_folder(tmp_path)
    text = "Once upon a time, 🙂 there was"
    assert other.encode(text) == [(id + 1) % len(vocab) for id in nano.encode(text)]
    assert other.encode_array(text).tolist() == other.encode(text)
    assert other.decode(other.encode(text)) == text
    assert other.end_of_text == 0
    assert other.encode("<|endoftext|>", allow_special=True) == [0]


@pytest.mark.parametrize(
    ("vocab", "merges", "message"),
    [
        ("{", "", "not valid JSON"),
        ("[1]", "", "not a vocabulary"),
        ('{"a": "x"}', "", "not a vocabulary"),
        ("{}", "", "not a vocabulary"),
        ('{"a": true}', "", "not a vocabulary"),
        ('{"a": 1.0}', "", "not a vocabulary"),
        ('{"a": 1e999}', "", "not a vocabulary"),
        ('{"a": 400000000}', "", "the id of 'a' is 400000000"),
        ('{"a": 9223372036854775808}', "", "the id of 'a' is 9223372036854775808"),
        ('{"a": 0, "b": 1, "c": 0}', "", "'a' and 'c' have the same id 0"),
        ('{"a": 1}', "", "has no id"),
        (None, "a b c\n", "line 1"),
        (None, "a\n", "line 1"),
        (None, "漢 字\n", "byte alphabet"),
        (None, "z z\nq z\nzz qz\n", "has no id"),
    ],
)
def test_damaged_vocabularies(tmp_path: Path, vocab: str | None, merges: str, message: str) -> None:
    (tmp_path / "vocab.json").write_text(vocab if vocab is not None else (NANO / "vocab.json").read_text())
    (tmp_path / "merges.txt").write_text(merges)
    with pytest.raises(UserError, match=message):
        vocabulary_folder.load_folder(tmp_path)


def test_a_folder_without_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no vocabulary"):
        vocabulary_folder.load_folder(tmp_path)


@pytest.mark.parametrize("name", ["gpt2", "cl100k_base", "o200k_base"])
def test_a_vocabulary_that_needs_a_network_where_there_is_none(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TUI_LLM_HOME", str(tmp_path))
    monkeypatch.setenv("TUI_LLM_VOCABULARY_MIRROR", "http://127.0.0.1:9/closed")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "none"))
    monkeypatch.setattr(vocabulary_files, "packaged", lambda _: None)
    catalog.load_named.cache_clear()
    with pytest.raises(UserError, match=r"downloaded \([^<\[\]]+\); .*vocabulary add"):  # the reason in words alone
        catalog.load_named(name)
    assert not list(paths.cache_dir().rglob("*"))


def test_a_download_with_different_content_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TUI_LLM_HOME", str(tmp_path / "home"))
    (tmp_path / "gpt2.tiktoken").write_bytes(b"IQ== 0\n")
    monkeypatch.setenv("TUI_LLM_VOCABULARY_MIRROR", tmp_path.as_uri())
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(vocabulary_files, "packaged", lambda _: None)
    catalog.load_named.cache_clear()
    with pytest.raises(UserError, match="SHA-256"):
        catalog.load_named("gpt2")
    with pytest.raises(UserError, match="not one of gpt2"):
        add_vocabulary.add(tmp_path / "gpt2.tiktoken")
    with pytest.raises(UserError, match="can't read"):
        add_vocabulary.add(tmp_path / "nothing")
    assert not list(paths.cache_dir().rglob("*tiktoken*"))


def test_cached_files_are_named_as_tiktokens_own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TUI_LLM_HOME", str(tmp_path))
    address = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"
    assert catalog.vocabulary_file("cl100k_base").name == hashlib.sha1(address.encode()).hexdigest()


def test_unknown_names() -> None:
    with pytest.raises(UserError, match="choose one of: gpt2"):
        catalog.load_named("gpt5")


def test_word_vocabulary_counts_distinct_words() -> None:
    word = tk.WordTokenizer()
    ids = word.encode("the cat and the dog's dog")
    assert [word.token_bytes(i).decode() for i in ids] == [
        "the",
        " ",
        "cat",
        " ",
        "and",
        " ",
        "the",
        " ",
        "dog's",
        " ",
        "dog",
    ]
    assert ids[0] == ids[6]
    assert word.size == 6


def test_a_learned_vocabulary_equals_one_by_the_tokenizers_library(tmp_path: Path) -> None:
    """Its merges tokenize like the library itself, and the last id is the special token."""
    from tokenizers import ByteLevelBPETokenizer

    text = tmp_path / "text.txt"
    text.write_text(mixed_text(60_000).replace("<|endoftext|>", ""))
    made = train_bpe.train([text], 500, "small")
    assert made.size == 500
    assert made.end_of_text == 499
    vocabulary_folder.save_folder(made, tmp_path / "out")
    assert vocabulary_folder.load_folder(tmp_path / "out").encode("hello world") == made.encode("hello world")
    library = ByteLevelBPETokenizer(str(tmp_path / "out/vocab.json"), str(tmp_path / "out/merges.txt"))
    sample = text.read_text()[:5000]
    assert library.encode(sample).ids == made.encode(sample)


def test_too_little_text_for_a_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("hello hello")
    with pytest.raises(UserError, match="too small"):
        train_bpe.train([tmp_path / "t.txt"], 400, "x")
    with pytest.raises(UserError, match="too small"):
        train_bpe.train([tmp_path / "t.txt"], 100, "x")


def test_words_of_any_length_are_learned_from(tmp_path: Path) -> None:
    """Merging a word takes quadratic time, so long words are split before training; others are not changed."""
    ordinary = "One endless line, with 12 words.  And spaces, \t and (brackets) " * 100 + "\n"
    assert train_bpe._documents(ordinary, True)[0] == [ordinary]
    for text in ("字" * 5000, " " * 5000, ordinary + "x" * 5000 + " and on" + "\u3000" * 3000 + "end"):
        pieces, _ = train_bpe._documents(text, False)
        assert "".join(pieces) == text and all(len(piece) <= 2000 for piece in pieces if piece != ordinary)
    # Splits keep white space before its word, as the pattern does, so that the counts equal those of the whole line.
    pieces, _ = train_bpe._documents(ordinary.strip() + "x" * 5000, False)
    whole = tk.GPT2_PATTERN
    words = [word for piece in pieces[:-6] for word in regex.findall(whole, piece)]
    assert words == regex.findall(whole, ordinary.strip() + "x" * 5000)[: len(words)] and len(words) > 1000
