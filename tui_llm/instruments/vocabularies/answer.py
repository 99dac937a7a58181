"""Tokenize one text with several vocabularies, and check which of its words a word vocabulary would lack."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from tui_llm.common import paths
from tui_llm.common.errors import Overtaken, UserError
from tui_llm.common.foreign_files import read_json
from tui_llm.instruments.answers import answers
from tui_llm.instruments.vocabularies.question import Vocabularies, VocabulariesQuestion, VocabularyTokens, WordCoverage
from tui_llm.llm.data import corpora, texts
from tui_llm.llm.data.formats import AUTO, TextFormat
from tui_llm.llm.tokens import catalog
from tui_llm.llm.tokens import text as tokens_text
from tui_llm.llm.tokens.tokenizer import Tokenizer, WordTokenizer
from tui_llm.llm.tokens.words import only_words
from tui_llm.session.open_model import OpenModel
from tui_llm.session.tokenization import tokenization

SHOWN = 300  # tokens of each vocabulary in the answer
READ = 5_000_000  # characters of the training text that are scanned for words
FALLBACK = "python-reference"


@answers(VocabulariesQuestion)
def answer(open_model: OpenModel, question: VocabulariesQuestion, overtaken: Callable[[], bool]) -> Vocabularies:
    """Raises `UserError` if a vocabulary can't be loaded, and `Overtaken`."""
    request, own = question.request, open_model.tokenizer
    ids = open_model.ids(dataclasses.replace(request, start_token=False, chat=False))
    before = ids[: len(ids) - len(request.continuation)]
    text = request.prompt + own.decode(request.continuation, before[-1] if before else None)
    return compare(text, own, ids, open_model.weights().name, open_model.remembered, overtaken)


def compare(
    text: str, own: Tokenizer, own_ids: list[int], model: str, remembered: dict[str, Any], overtaken: Callable[[], bool]
) -> Vocabularies:
    """`own_ids` are the text's ids in the model's vocabulary; `remembered` caches the words of its training text."""
    text = tokens_text.clean(text)
    sides = [
        _vocabulary_tokens(WordTokenizer(), text),
        *(_vocabulary_tokens(catalog.load_named(name), text) for name in ("char", "byte")),
    ]
    sides.append(_vocabulary_tokens(own, text, own_ids))
    for name in catalog.NAMED:
        if overtaken():
            raise Overtaken
        if name == own.name:
            continue
        if catalog.is_local(name):
            sides.append(_vocabulary_tokens(catalog.load_named(name), text))
        else:
            why = (
                f"not on this machine: `tui-llm tokens hi --tokenizer {name}` downloads it; without a network get "
                f"{name}.tiktoken elsewhere, then `tui-llm vocabulary add FILE`"
            )
            sides.append(VocabularyTokens(name, False, None, 0, 0.0, 0.0, None, why))
    coverage = _coverage(text, model, remembered, overtaken)
    return Vocabularies(len(text), len(text.encode()), tuple(sides), coverage)


def _vocabulary_tokens(vocabulary: Tokenizer, text: str, own: list[int] | None = None) -> VocabularyTokens:
    ids = vocabulary.encode(text) if own is None else own
    size = None if isinstance(vocabulary, WordTokenizer) else vocabulary.size
    count = max(1, len(ids))
    return VocabularyTokens(
        vocabulary.name,
        own is not None,
        size,
        len(ids),
        len(text) / count,
        len(text.encode()) / count,
        tokenization(vocabulary, ids[:SHOWN]),
    )


def _coverage(text: str, model: str, remembered: dict[str, Any], overtaken: Callable[[], bool]) -> WordCoverage:
    if "training words" not in remembered:
        remembered["training words"] = _training_words(model, overtaken)
    source, trained, known, problem = remembered["training words"]
    words = only_words(text)
    missing = [word for word in words if word not in known] if not problem else []
    return WordCoverage(source, trained, len(known), len(words), len(missing), tuple(dict.fromkeys(missing)), problem)


def _training_words(model: str, overtaken: Callable[[], bool]) -> tuple[str, bool, frozenset[str], str]:
    """(name of the text, whether the model was trained on it, its words, why there are none)."""
    (places, how), trained = _corpus(model), True
    if places is None or not all(map(corpora.is_local, places)):
        places, trained = [FALLBACK], False
    try:
        words, whole = _words(places, how, overtaken)
    except UserError as error:
        if not trained:
            return FALLBACK, False, frozenset(), str(error)
        places, trained = [FALLBACK], False
        try:
            words, whole = _words(places, AUTO, overtaken)
        except UserError as second:
            return FALLBACK, False, frozenset(), str(second)
    return ("" if whole else f"the first {READ:,} characters of ") + ", ".join(places), trained, words, ""


def _corpus(model: str) -> tuple[list[str] | None, TextFormat]:
    """The corpus that a run was trained on, and how it is read; None if unknown."""
    name = model.removeprefix(paths.RUN)
    if not name or "/" in name or name in (".", ".."):
        return None, AUTO
    path = paths.runs_dir() / name / "config.json"
    if not path.is_file():
        return None, AUTO
    try:
        raw = read_json(path)
        settings = raw.get("settings", {})
        how = TextFormat(str(settings.get("format", AUTO.name)), str(settings.get("field", AUTO.field)))
        return [str(place) for place in raw["corpus"]], how
    except (UserError, KeyError, TypeError, AttributeError):
        return None, AUTO


def _words(places: list[str], how: TextFormat, overtaken: Callable[[], bool]) -> tuple[frozenset[str], bool]:
    """The distinct words of the texts, and whether the texts were read to the end."""
    words: set[str] = set()
    read = 0
    for block in _blocks(places, how):
        if overtaken():
            raise Overtaken
        words.update(only_words(block))
        read += len(block)
        if read >= READ:
            return frozenset(words), False
    return frozenset(words), True


def _blocks(places: list[str], how: TextFormat) -> Iterator[str]:
    for file in corpora.files(places):
        yield from texts.blocks(file, how=how)
