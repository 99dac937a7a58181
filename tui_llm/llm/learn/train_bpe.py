"""Train a BPE vocabulary on text, with the `tokenizers` library (extra `[vocabulary]`)."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tui_llm.common.errors import UserError
from tui_llm.llm.data import corpora, texts
from tui_llm.llm.data.formats import AUTO, TextFormat
from tui_llm.llm.tokens.text import END_OF_TEXT
from tui_llm.llm.tokens.tokenizer import BPETokenizer, byte_characters, from_merges

# The library allocates for all tokens first, and ends the process where memory is short. Published vocabularies have at most 262,144.
LARGEST = 10_000_000


def train(
    places: Sequence[str | Path],
    size: int,
    name: str,
    progress: Callable[[str], None] = lambda _: None,
    how: TextFormat = AUTO,
) -> BPETokenizer:
    """Train a byte-level BPE vocabulary of `size` tokens, `<|endoftext|>` (the last id) included, with GPT-2's word
    pattern, on the files and folders (or names in `corpora.NAMES`) in `places`.

    Raises `UserError` if the library is missing, the size is too small or above `LARGEST`, or there is too little text.
    """
    if size < 257:
        raise UserError(f"a vocabulary of {size} is too small: 256 bytes and {END_OF_TEXT} are 257")
    if size > LARGEST:
        raise UserError(f"a vocabulary of {size:,} is too large: at most {LARGEST:,} tokens; 50,257 is GPT-2's size")
    try:
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    except ImportError as error:
        raise UserError(
            "learning a vocabulary needs the tokenizers library: pip install 'tui-llm[vocabulary]'"
        ) from error

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    alphabet = list(byte_characters().values())
    trainer = trainers.BpeTrainer(
        vocab_size=size - 1,
        initial_alphabet=alphabet,
        min_frequency=2,
        show_progress=False,
        special_tokens=[],
    )
    learner.train_from_iterator(_texts(places, progress, how), trainer)
    progress("")
    learned = json.loads(learner.to_str())["model"]["merges"]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in learned]
    vocab = {character: i for i, character in enumerate(alphabet)}
    for left, right in merges:
        vocab.setdefault(left + right, len(vocab))
    vocab[END_OF_TEXT] = len(vocab)
    if len(vocab) < size:
        raise UserError(
            f"the text is too small for {size} tokens: it gives {len(vocab)}; give more text or a smaller size"
        )
    stand_ins = {c: b for b, c in byte_characters().items()}
    as_bytes = [(bytes(stand_ins[c] for c in a), bytes(stand_ins[c] for c in b)) for a, b in merges]
    return from_merges(name, as_bytes, vocab, {END_OF_TEXT: vocab[END_OF_TEXT]}, Path(name))


def _texts(places: Sequence[str | Path], progress: Callable[[str], None], how: TextFormat) -> Iterator[list[str]]:
    """The lines of every document, in large lists: handing them over one by one would take longer than counting them.
    Holds one block of a file at a time."""
    names = corpora.files(places)
    total, read, reported = sum(map(texts.size_on_disk, names)), 0, 0.0
    for path in names:
        for lines in _lines(path, how):
            read += sum(map(len, lines))
            if time.monotonic() - reported > 0.2:
                reported = time.monotonic()
                progress(f"counting words: {read / 1e6:,.0f} of about {total / 1e6:,.0f} MB")
            yield lines
    progress("merging")


def _lines(path: Path, how: TextFormat = AUTO) -> Iterator[list[str]]:
    """Lines with their line breaks, a block at a time, without document separators and the blank lines around them."""
    rest, first = "", True  # first: at the beginning of a document, where blank lines are dropped
    for block in texts.blocks(path, how=how):
        # Hold back what the next block may change: the last line, and lines before a separator or a possible one.
        text = rest + block
        cut = text.rstrip("\n").rfind("\n") + 1
        while cut and (text.startswith(END_OF_TEXT, cut) or END_OF_TEXT.startswith(text[cut:])):
            cut = text[:cut].rstrip("\n").rfind("\n") + 1
        rest = text[cut:]
        if cut:
            lines, first = _documents(text[:cut], first)
            yield lines
    ends, _ = _documents(rest + END_OF_TEXT, first)
    yield ends


def _documents(text: str, first: bool) -> tuple[list[str], bool]:
    lines: list[str] = []
    parts = text.split(END_OF_TEXT)
    for number, part in enumerate(parts):
        if first or number:
            part = part.lstrip("\n")
        if number < len(parts) - 1:
            part = part.rstrip("\n")
        first = not part and (first or number > 0)
        for line in part.splitlines(keepends=True):
            lines += _PIECE.findall(line) if len(line) > _LONGEST and _RUN.search(line) else [line]
    return lines, first


# Merging takes time quadratic in the length of a word, so a longer word is counted as several. A piece begins with the
# white space before its word, as the words themselves do, so that all other words are split as in the whole line.
_LONGEST = 1000
_RUN = re.compile(rf"\S{{{_LONGEST + 1}}}|\s{{{_LONGEST + 1}}}")
_PIECE = re.compile(rf"\s{{0,{_LONGEST}}}\S{{1,{_LONGEST}}}|\s{{1,{_LONGEST}}}")
