"""Learning a BPE vocabulary from text. The `tokenizers` library counts and merges (extra `[vocabulary]`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from tui_llm.errors import UserError
from tui_llm.llm import corpus
from tui_llm.llm.tokenizer import END_OF_TEXT, BPETokenizer, byte_characters, from_merges


def train(places: Sequence[str | Path], size: int, name: str) -> BPETokenizer:
    """A byte-level BPE vocabulary of `size` tokens, `<|endoftext|>` (the last id) included, learned from the files and
    folders (or names of `corpora.NAMES`) in `places` with GPT-2's word pattern.

    Raises `UserError` where the library is missing, the size is too small, or the text is too little for it.
    """
    if size < 257:
        raise UserError(f"a vocabulary of {size} is too small: 256 bytes and {END_OF_TEXT} are 257")
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
    learner.train_from_iterator(_texts(places), trainer)
    learned = json.loads(learner.to_str())["model"]["merges"]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in learned]
    vocab = {character: i for i, character in enumerate(alphabet)}
    for left, right in merges:
        vocab.setdefault(left + right, len(vocab))
    vocab[END_OF_TEXT] = len(vocab)
    if len(vocab) < size:
        raise UserError(
            f"the text is too little for {size} tokens: it gives {len(vocab)}; give more text or a smaller size"
        )
    stand_ins = {c: b for b, c in byte_characters().items()}
    as_bytes = [(bytes(stand_ins[c] for c in a), bytes(stand_ins[c] for c in b)) for a, b in merges]
    return from_merges(name, as_bytes, vocab, {END_OF_TEXT: vocab[END_OF_TEXT]}, Path(name))


def _texts(places: Sequence[str | Path]) -> Iterator[str]:
    for path in corpus.files(places):
        for document in corpus.documents(corpus.read_text(path)):
            yield from document.splitlines(keepends=True)
