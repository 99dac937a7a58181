"""Compute the BPE merges of a text's words with `llm.tokens.bpe`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from tui_llm.common.errors import Overtaken, UserError
from tui_llm.instruments.answers import answers
from tui_llm.instruments.merges.question import Merges, MergesQuestion, Word
from tui_llm.llm.tokens import bpe, catalog
from tui_llm.llm.tokens.token_bytes import token_text
from tui_llm.llm.tokens.tokenizer import BPETokenizer
from tui_llm.session.open_model import OpenModel
from tui_llm.session.tokenization import bytes_of, token_of

NONE = "the vocabulary {} has no list of merges to show; choose nano's own, or gpt2"


@answers(MergesQuestion)
def answer(open_model: OpenModel, question: MergesQuestion, overtaken: Callable[[], bool]) -> Merges:
    """Raises `UserError` if the vocabulary has no merges."""
    vocabulary = open_model.tokenizer if question.tokenizer is None else catalog.load_named(question.tokenizer)
    if not isinstance(vocabulary, BPETokenizer):
        raise UserError(NONE.format(vocabulary.name))
    request = question.request
    if question.text is not None:
        return merges(vocabulary, question.text, question.first or 0, question.count, overtaken)
    text = request.prompt + vocabulary.decode(request.continuation)
    first = question.first
    if first is None:
        ids = open_model.ids(dataclasses.replace(request, start_token=False, chat=False))
        whole = request.position is None or request.chat  # with a chat template, positions count the template's tokens
        place = len(ids) if whole else max(0, (request.position or 0) - int(request.start_token))
        before = sum(len(bytes_of(open_model.tokenizer, id)) for id in ids[:place])
        first = _word_at(vocabulary.words(text), before)
    return merges(vocabulary, text, first, question.count, overtaken)


def _word_at(words: list[str], byte: int) -> int:
    end = 0
    for number, word in enumerate(words):
        end += len(word.encode())
        if byte < end:
            return number
    return max(0, len(words) - 1)


def merges(
    vocabulary: BPETokenizer, text: str, first: int = 0, count: int | None = None,
    overtaken: Callable[[], bool] = lambda: False,
) -> Merges:  # fmt: skip
    """The merges of `count` words (None: all) of `text` from word number `first`. Raises `Overtaken`."""
    words = vocabulary.words(text)
    first = max(0, min(first, len(words) - 1))
    found = []
    for number, word in enumerate(words[first : None if count is None else first + count], first):
        if overtaken():
            raise Overtaken
        found.append(_word(vocabulary, number, word))
    made = len(vocabulary.merges) if vocabulary.merges is not None else vocabulary.merge_count
    return Merges(vocabulary.name, vocabulary.size, made, vocabulary.pattern, len(words), tuple(found))


def _word(vocabulary: BPETokenizer, number: int, word: str) -> Word:
    tokens = tuple(token_of(vocabulary, id) for id in vocabulary.encode(word))
    data = word.encode()
    try:
        return Word(number, word, bpe.replay(data, vocabulary.rank), tokens)
    except ValueError as error:
        return Word(number, token_text(data), None, tokens, str(error))
