"""Checks of the vocabulary: round trip, ids, rows of the embedding, special tokens."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from tui_llm.common.errors import UserError, message_line
from tui_llm.common.foreign_files import whole_number
from tui_llm.facts.check import CheckStatus, Finding
from tui_llm.llm.adapters.foreign import EXTRA
from tui_llm.llm.check.checked_model import CheckedModel, listed, unchecked
from tui_llm.llm.tokens.folder_files import written_token
from tui_llm.llm.tokens.tokenizer import Tokenizer
from tui_llm.llm.tokens.vocab_json import MOST_IDS

# White space, digits, accents (composed and not), CJK, emoji with joiners, code, control characters.
TEXT = (
    "The cat sat on the mat.  Two  spaces,\ttab,\r\nnew line\n\n  and 1234567 or 3.14!\n"
    "na\u00efve cafe\u0301 \u00dcbung \u0416\u0443\u043a \u65e5\u672c\u8a9e\u3002 \ud55c\uad6d\uc5b4 \U0001f642 "
    "\U0001f469\u200d\U0001f4bb\n"
    "def f(x):\n    return x**2  # it's `ok`\n\x00\x07\x1b[0m \u00a0end"
)
NO_TRANSFORMERS = f"transformers is not installed: {EXTRA}"


def round_trip(model: CheckedModel) -> Finding:
    """Whether decoding gives the text that was encoded."""
    name = "round trip"
    try:
        vocabulary = model.vocabulary
    except UserError as error:
        return model.fault(name, error)
    try:
        ids = vocabulary.encode(TEXT)
        back = vocabulary.decode(ids)
    except UserError as error:  # such as a vocabulary of the characters of one book
        return Finding(name, CheckStatus.WARNING, f"it can't write every text: {error}")
    if back == TEXT:
        return Finding(name, CheckStatus.OK, f"{len(TEXT)} characters → {len(ids)} tokens → the same text")
    if back.lstrip(" ") == TEXT:
        return Finding(name, CheckStatus.OK, "the same text, with a space in front that the vocabulary adds")
    if back == unicodedata.normalize("NFC", TEXT):
        return Finding(
            name, CheckStatus.OK, "the same text with composed accents (NFC), as the vocabulary normalizes it"
        )
    at = next((at for at, (a, b) in enumerate(zip(TEXT, back, strict=False)) if a != b), min(len(TEXT), len(back)))
    found = f"the text changes: {TEXT[at : at + 12]!r} comes back as {back[at : at + 12]!r}"
    return Finding(name, CheckStatus.WARNING, found, "the vocabulary normalizes text or lacks characters; ids show it")


def ids(model: CheckedModel) -> Finding:
    """Whether text gives the ids that transformers gives."""
    name = "ids"
    if find_spec("transformers") is None:
        return unchecked(name, NO_TRANSFORMERS)
    if not model.path.is_dir():
        return unchecked(name, "transformers' conversion of this format is no reference for ids")
    try:
        vocabulary = model.vocabulary
    except UserError as error:
        return model.fault(name, error)
    try:
        theirs = model.reference_tokenizer
    except UserError as error:
        return unchecked(name, str(error))
    special = "".join(_names(theirs))
    for text, allow in ((TEXT, False), (f"a{special}b {special} c", True)):
        try:
            wanted = [int(id) for id in _encoded(theirs, text, allow)]
        except Exception as error:  # of another library
            return unchecked(name, f"transformers' tokenizer fails: {message_line(error)}")
        try:
            got = vocabulary.encode(text, allow_special=allow)
        except UserError as error:
            return Finding(name, CheckStatus.BROKEN, str(error))
        if got != wanted:
            return _other_ids(model, text, allow, got, wanted)
    return Finding(name, CheckStatus.OK, f"as transformers' {type(theirs).__name__}, also for special tokens")


def _other_ids(model: CheckedModel, text: str, allow: bool, got: list[int], wanted: list[int]) -> Finding:
    """Since version 5, AutoTokenizer takes a class of the model's type for some types, with rules of its own, whatever
    tokenizer.json says: then the ids here are right by the file."""
    line = _difference(got, wanted)
    try:
        by_file = list(_encoded(model.file_tokenizer, text, allow))
    except Exception:  # no tokenizer.json, or another library's failure
        by_file = None
    if by_file == got:
        kind = type(model.reference_tokenizer).__name__
        found = f"as tokenizer.json says, but transformers takes its {kind} for this type of model: {line}"
        return Finding("ids", CheckStatus.WARNING, found, "compare with the ids that the model was trained on")
    return Finding("ids", CheckStatus.BROKEN, line, "a rule of the tokenizer is read differently; report it")


def _names(theirs: Any) -> list[str]:
    return [str(token) for token in dict.fromkeys(theirs.all_special_tokens)][:8]


def _encoded(theirs: Any, text: str, special: bool) -> Sequence[int]:
    encoded: Sequence[int] = theirs.encode(text, add_special_tokens=False, split_special_tokens=not special)
    return encoded


def _difference(got: list[int], wanted: list[int]) -> str:
    at = next((at for at, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b), min(len(got), len(wanted)))
    return f"token {at}: {_few(got[at:])} here, {_few(wanted[at:])} in transformers"


def _few(ids: list[int]) -> str:
    return " ".join(map(str, ids[:5])) + (" …" if len(ids) > 5 else "") if ids else "no more tokens"


def rows(model: CheckedModel) -> Finding:
    """Whether each id has a row of the embedding, and each row up to the last id a token."""
    name = "vocabulary"
    try:
        vocabulary = model.whole_vocabulary
    except UserError as error:
        return model.fault(name, error)
    count = _rows(model)
    if count is not None and vocabulary.size > count:
        found = f"ids go up to {vocabulary.size - 1:,}, but the embedding has only {count:,} rows"
        status = CheckStatus.BROKEN if model.refusal is not None else CheckStatus.WARNING
        return Finding(name, status, found, "resize the embedding, or take the vocabulary that belongs to the model")
    holes = _holes(vocabulary)
    if holes:
        advice = "the model can predict these ids, which have no text; get the vocabulary again"
        return Finding(name, CheckStatus.BROKEN, f"ids without a token: {listed([str(id) for id in holes])}", advice)
    if count is None:
        return Finding(name, CheckStatus.OK, f"{vocabulary.size:,} tokens")
    if (padding := count - vocabulary.size) > 0:
        found = (
            f"{vocabulary.size:,} tokens, and {padding:,} padding rows of the embedding, which the softmax leaves out"
        )
        return Finding(name, CheckStatus.OK, f"{found} (transformers' keeps them in)")
    return Finding(name, CheckStatus.OK, f"{vocabulary.size:,} tokens, each with its row of the embedding")


def _rows(model: CheckedModel) -> int | None:
    if model.refusal is None:
        return int(model.loaded.predictor.embedding().shape[0])
    return whole_number(model.config.get("vocab_size"), 1, MOST_IDS)


def _holes(vocabulary: Tokenizer) -> list[int]:
    holes = []
    for id in range(vocabulary.size):
        try:
            vocabulary.token_bytes(id)
        except KeyError:
            holes.append(id)
    return holes


def special_tokens(model: CheckedModel) -> Finding:
    """Whether the ids of bos, eos and pad are in the vocabulary, and the same wherever they are given."""
    name = "special tokens"
    try:
        vocabulary = model.whole_vocabulary
    except UserError as error:
        return model.fault(name, error)
    count = _rows(model) or vocabulary.size
    said: list[str] = []
    wrong: list[str] = []
    odd: list[str] = []
    for kind in ("bos", "eos", "pad"):
        sources = _sources(model, vocabulary, kind, wrong)
        for source, found in sources.items():
            outside = [str(id) for id in sorted(found) if not 0 <= id < count]
            if outside:
                line = f"{source} gives {kind} the id {listed(outside)}, but ids go from 0 to {count - 1:,}"
                (odd if kind == "pad" else wrong).append(line)
        (wrong if kind == "eos" else odd).extend(_disagreements(kind, sources))
        said.append(f"{kind} {_named(vocabulary, sources)}")
    if wrong:
        advice = "generation ends at another token than it should; correct the settings"
        return Finding(name, CheckStatus.BROKEN, "; ".join(wrong + odd), advice)
    if odd:
        return Finding(name, CheckStatus.WARNING, "; ".join(odd))
    return Finding(name, CheckStatus.OK, ", ".join(said))


def _sources(model: CheckedModel, vocabulary: Tokenizer, kind: str, wrong: list[str]) -> dict[str, set[int]]:
    """Where a special token is given → its ids. Adds to `wrong` what names no token."""
    given = {
        "config.json": model.config.get(f"{kind}_token_id"),
        "generation_config.json": model.settings("generation_config.json").get(f"{kind}_token_id"),
        "the GGUF file": model.gguf.get(f"tokenizer.ggml.{'padding' if kind == 'pad' else kind}_token_id"),
    }
    sources: dict[str, set[int]] = {}
    for source, value in given.items():
        found = {id for id in (value if isinstance(value, list) else [value]) if type(id) is int}
        if found:
            sources[source] = found
    written = written_token(model.settings("tokenizer_config.json").get(f"{kind}_token"))
    if written is not None:
        try:
            encoded = vocabulary.encode(written, allow_special=True)
        except UserError:
            encoded = []
        if len(encoded) == 1:
            sources["tokenizer_config.json"] = set(encoded)
        else:
            wrong.append(f"tokenizer_config.json calls {kind} {written!r}, which is no token of the vocabulary")
    return sources


def _disagreements(kind: str, sources: dict[str, set[int]]) -> list[str]:
    """Empty if the sources agree: each shares an id with generation_config.json, which generation follows; without it,
    each with each."""
    leader = sources.get("generation_config.json") or next(iter(sources.values()), set())
    if all(found & leader for found in sources.values()):
        return []
    given = ", ".join(f"{' and '.join(map(str, sorted(found)))} in {source}" for source, found in sources.items())
    return [f"{kind} is {given}"]


def _named(vocabulary: Tokenizer, sources: dict[str, set[int]]) -> str:
    every = sorted(set().union(*sources.values())) if sources else []
    shown = []
    for id in every:
        try:
            shown.append(f"{vocabulary.token_bytes(id).decode('utf-8', 'replace')} ({id})")
        except KeyError:
            shown.append(f"({id})")
    return " ".join(shown) or "none"
