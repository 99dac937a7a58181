"""The BPE trace equals tiktoken's result for any text; each step merges the pair with the lowest rank."""

from __future__ import annotations

import random
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from tui_llm.instruments.merges.answer import merges
from tui_llm.llm.hub import lookup
from tui_llm.llm.learn.train_bpe import train
from tui_llm.llm.tokens import bpe
from tui_llm.llm.tokens.tokenizer import BPETokenizer
from tui_llm.llm.tokens.vocabulary_folder import load_folder

# cl100k_base's pattern (tiktoken_ext/openai_public.py): possessive quantifiers, case-insensitive contractions.
CL100K = r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"""


@cache
def nano() -> BPETokenizer:
    return load_folder(lookup.find("nano").folder, "nano")


@cache
def odd() -> BPETokenizer:
    """A vocabulary with tokens that no merges lead to, as in cl100k_base: only a whole word becomes such a token."""
    ranks = {bytes([b]): b for b in range(256)}
    chance = random.Random(7)
    for _ in range(400):
        ranks.setdefault(bytes(chance.choices(b"abcde 'LL12\r\n", k=chance.randint(2, 6))), len(ranks))
    return BPETokenizer(
        "odd", tiktoken.Encoding("odd", pat_str=CL100K, mergeable_ranks=ranks, special_tokens={}), 0, None
    )


TEXT = (
    st.text(max_size=60) | st.text("abcde 'LL12\r\n\t", max_size=60) | st.text("the cat’sé漢👩‍👧 \u0301", max_size=40)
)


@pytest.mark.parametrize("vocabulary", [nano, odd])
@given(text=TEXT)
@settings(max_examples=150)
def test_it_gives_the_tokenizers_ids(vocabulary: object, text: str) -> None:
    own: BPETokenizer = vocabulary()  # type: ignore[operator]
    parts = own.words(text)
    assert "".join(parts).encode() == b"".join(own.token_bytes(id) for id in own.encode(text))
    found = merges(own, text)
    assert [token.id for word in found.words for token in word.tokens] == own.encode(text)
    for word in found.words:
        assert word.replay is not None
        assert list(word.replay.tokens) == [token.bytes for token in word.tokens]


@given(TEXT)
def test_each_step_merges_the_lowest_rank_and_nothing_else(text: str) -> None:
    for word in merges(nano(), text).words:
        assert word.replay is not None
        for before, after in pairwise(word.replay.states):
            assert before.best is not None
            known = [rank for rank in before.ranks if rank is not None]
            assert before.ranks[before.best] == min(known) == before.ranks[before.ranks.index(min(known))]
            assert before.ranks.index(min(known)) == before.best  # the leftmost of equal ranks
            assert len(after.parts) == len(before.parts) - 1
            assert b"".join(after.parts) == b"".join(before.parts) == word.text.encode()
        assert word.replay.states[-1].best is None


def test_ranks_are_the_places_in_merges_txt() -> None:
    own = nano()
    assert own.merges is not None
    for place in (0, 1, 500, len(own.merges) - 1):
        assert own.rank(b"".join(own.merges[place])) == place
    assert own.rank(b"<|endoftext|>") is None and own.rank(b"\xff\xfe\xfd") is None


def test_a_word_that_is_a_token_only_as_a_whole() -> None:
    ranks = {bytes([b]): b for b in range(256)} | {b"abc": 256}
    own = BPETokenizer(
        "whole", tiktoken.Encoding("w", pat_str=CL100K, mergeable_ranks=ranks, special_tokens={}), 257, None
    )
    (word,) = merges(own, "abc").words
    assert word.replay is not None and word.replay.whole and word.replay.tokens == (b"abc",)
    assert [token.id for token in word.tokens] == [256]


def test_a_very_long_word_is_refused() -> None:
    with pytest.raises(ValueError, match="too long to show"):
        bpe.replay(b"x" * (bpe.LONGEST + 1), nano().rank)
    (word,) = merges(nano(), "x" * 5000).words
    assert word.replay is None and "too long" in word.problem and word.tokens


def test_a_learned_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the cat sat on the mat, the cat\n" * 50)
    own = train([tmp_path / "text.txt"], 265, "own")
    assert own.merges is not None
    found = merges(own, "the cat")
    assert found.merges == len(own.merges)
    assert [token.id for word in found.words for token in word.tokens] == own.encode("the cat")


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=12), st.text("abc", max_size=14))
@settings(max_examples=400, deadline=None)
def test_merges_in_order_are_those_of_the_tokenizers_library(parts: list[tuple[int, int]], text: str) -> None:
    """tiktoken knows only ranks; where `out_of_order` finds nothing, its ids are those of the merges."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    from tui_llm.llm.tokens import bpe
    from tui_llm.llm.tokens.tokenizer import as_written, byte_characters, from_merges

    known, merges = [b"a", b"b", b"c"], []
    for first, second in parts:
        pair = known[first % len(known)], known[second % len(known)]
        if pair not in merges:
            merges.append(pair)
            known.append(pair[0] + pair[1])
    alphabet = [bytes([byte]) for byte in byte_characters()]
    vocab = {as_written(token): id for id, token in enumerate(dict.fromkeys([*alphabet, *known]))}
    pairs = [(as_written(a), as_written(b)) for a, b in merges]
    theirs = Tokenizer(models.BPE(vocab=vocab, merges=pairs))
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if bpe.out_of_order(merges, alphabet) is None:
        assert from_merges("x", merges, vocab, {}, Path("x")).encode(text) == theirs.encode(text).ids


def test_merges_out_of_order_are_found() -> None:
    from tui_llm.llm.tokens import bpe

    alphabet = [bytes([byte]) for byte in range(256)]
    assert bpe.out_of_order([(b"a", b"b"), (b"b", b"c"), (b"ab", b"c")], alphabet) is None
    # "abc" is [ab, c]: the merge of a with bc never happens in it, but tiktoken makes one token of it.
    assert bpe.out_of_order([(b"a", b"b"), (b"b", b"c"), (b"a", b"bc")], alphabet) == (b"a", b"bc")
    assert bpe.out_of_order([(b"a", b"b"), (b"a", b"b")], alphabet) == (b"a", b"b")
    assert bpe.out_of_order([(b"ab", b"c"), (b"a", b"b")], alphabet) == (b"ab", b"c")
