"""Corpora by name, path or URL. No torch.

A corpus (on the command line, in the form and in a run's config) is a path, an http(s) URL or a name in `NAMES`. An
existing path takes precedence: a file `./stories` is never shadowed. A run's config stores absolute paths, so that it
does not depend on the worker's current directory; names are stored as they are.
"""

from __future__ import annotations

import hashlib
import re
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.common.files import write_bytes
from tui_llm.llm.data import downloads, repeats, stories, texts
from tui_llm.llm.data.formats import AUTO, TextFormat, data_suffixes
from tui_llm.llm.tokens.text import END_OF_TEXT, clean

NAMES = {
    "python-reference": "the language reference that ships inside Python",
    "repeats": "random letters, repeated once, for induction heads",
    "stories": "simple stories from a grammar whose exact entropy is known",
    "tinyshakespeare": "a megabyte of Shakespeare, downloaded once",
}
_GENERATED: dict[str, tuple[Callable[[int, int], Iterator[str]], Callable[..., float | None], int, int, str]] = {
    # name → generator, its entropy, seed, bytes, SHA-256
    "stories": (stories.text, stories.floor, 1, 5_000_000, "835e0aae3abe06a37d48e2089e6cf4de779cf2068de50f0d3d417b43d0003668"),
    "repeats": (repeats.text, repeats.floor, 1, 2_000_000, "6c1494e081374a2fb726c68d6fb605fd58b30b348054b22207aa35dc271f0f28"),
}  # fmt: skip
Progress = Callable[[str], None]
_DOWNLOADS = {  # name → URL, SHA-256
    "tinyshakespeare": (
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
}
GLANCED = 64  # blocks of a text that are searched for documents before a run is made
_REPEATED = 60  # paragraphs of at least this many characters are deduplicated


def place(text: str) -> str:
    """Normalize a corpus as the user wrote it: to an absolute path, a URL unchanged, or a name in `NAMES` if there is
    no such path.

    Raises `UserError` if the path is invalid.
    """
    if is_address(text):
        return text
    try:
        path = paths.expand(text)
        return text if text in NAMES and not path.exists() else str(path.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # no home directory, a zero byte in the name
        raise UserError(f"can't read {text}: {getattr(error, 'strerror', None) or error}; give another text") from error


def is_address(text: str) -> bool:
    return text.lower().startswith(("http://", "https://"))


def is_named(text: str) -> bool:
    """Whether `text`, as returned by `place`, is a name or a URL, not a path."""
    return text in NAMES or is_address(text)


def files(places: Sequence[str | Path], progress: Progress = lambda _: None) -> list[Path]:
    """The text files of `places`, as returned by `place`. Named and downloaded texts are put into the cache first.

    Raises `UserError` if there is nothing to read.
    """
    return [
        file
        for one in places
        for file in ([named(str(one), progress)] if is_named(str(one)) else texts.files([Path(one)]))
    ]


def check(places: Sequence[str], how: TextFormat = AUTO, *, documents: bool = False) -> None:
    """Check the beginning of every file. Raises `UserError` if one can't be trained on, or all are empty; with `documents`, also as
    `check_documents` does."""
    if not any(map(is_named, places)):
        texts.check([Path(one) for one in places], how)
    elif others := [Path(one) for one in places if not is_named(one)]:
        texts.files(others)
    for one in places:
        if one == "python-reference":
            python_reference()
        if is_address(one):
            _path(one)
    if documents:
        check_documents(places, how)


def held_out(count: int, fraction: float) -> int:
    """How many of a file's `count` tokens are held out, at its end."""
    return max(1, round(count * fraction)) if count else 0


def too_small(train: int, validation: int, block_size: int, most: str = "") -> UserError:
    return UserError(
        f"the corpus is too small: {most}{train + validation:,} tokens, of which {validation:,} are held out; a block of {block_size} needs "
        f"more than {block_size} in each: give more text or a smaller block size"
    )


def check_counts(files: Sequence[Iterable[int]], fraction: float, block_size: int, most: str = "") -> None:
    """Raises `UserError` if the tokens of `files`, given as counts of parts, are too few for one block of `block_size` in
    each of training and validation data. Takes no more of the parts than needed."""
    train = validation = 0
    for parts in files:
        count = held = 0
        for part in parts:
            count += part
            held = held_out(count, fraction)
            if min(train + count - held, validation + held) > block_size:
                return
        train, validation = train + count - held, validation + held
    raise too_small(train, validation, block_size, most)


def check_size(places: Sequence[str], fraction: float, block_size: int, how: TextFormat = AUTO) -> None:
    """Raises `UserError` if the corpus is too small for any vocabulary, whose tokens have a byte at least. Texts that
    would be written or downloaded first are not checked."""
    if not any(map(is_named, places)):
        found = texts.files([Path(one) for one in places])
        check_counts([_most_tokens(path, how) for path in found], fraction, block_size, "at most ")


def check_documents(places: Sequence[str], how: TextFormat = AUTO) -> None:
    """Raises `UserError` if a run can't shuffle the corpus's documents, because it is one plain text without `<|endoftext|>`. Only
    its first `GLANCED` blocks are read; in what is longer, and in texts that would be written or downloaded first, the worker looks."""
    found = [] if any(map(is_named, places)) else texts.files([Path(one) for one in places])
    if len(found) != 1 or how.of(found[0]) != "text":
        return
    for number, block in enumerate(texts.blocks(found[0], how=how)):
        if END_OF_TEXT in block or number == GLANCED:
            return
    raise UserError(
        f"{found[0]} is a single document, with no {END_OF_TEXT} in it: there are no documents to shuffle; leave that off, or put a "
        f"line of {END_OF_TEXT} between its documents"
    )


def _most_tokens(path: Path, how: TextFormat) -> Iterator[int]:
    yield 1  # the separator at the end
    for block in texts.blocks(path, how=how):
        yield len(clean(block).encode()) - block.count(END_OF_TEXT) * (len(END_OF_TEXT) - 1)


def _path(address: str) -> str:
    try:
        parts = urllib.parse.urlsplit(address)
    except ValueError:  # such as an IPv6 host without its closing bracket
        parts = urllib.parse.SplitResult("", "", "", "", "")
    if not parts.hostname:
        raise UserError(f"{address} is not an address; write it like https://example.org/text.txt")
    return parts.path


def named(name: str, progress: Progress = lambda _: None) -> Path:
    """The cached file of a corpus in `NAMES` or of a URL; created or downloaded if it is missing or has the wrong
    SHA-256."""
    if name in _DOWNLOADS or is_address(name):
        path, address, digest = _download(name)
        if not downloads.whole(path, digest):
            downloads.fetch(address, path, digest, progress)
        return path
    progress(f"writing the corpus {name}")
    if name in _GENERATED:
        make, _, seed, size, digest = _GENERATED[name]
        return _cached(name, digest, lambda: "".join(make(seed, size)).encode())
    data = python_reference().encode()
    return _cached(name, hashlib.sha256(data).hexdigest(), lambda: data)


def is_local(place: str) -> bool:
    """Whether `place` is available offline."""
    return not (place in _DOWNLOADS or is_address(place)) or _download(place)[0].is_file()


def _download(name: str) -> tuple[Path, str, str | None]:
    """The cache path of a downloaded text, its URL, and its SHA-256 if known."""
    address, digest = _DOWNLOADS.get(name, (name, None))
    kept = f"{name}-{digest[:12]}" if digest else f"download-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    suffix = (data_suffixes(_path(name)) if name not in _DOWNLOADS else "") or ".txt"
    return paths.cache_dir() / "texts" / f"{kept}{suffix}", address, digest


def floor(places: Sequence[str | Path], encode: Callable[[str], list[int]], *, separator: bool) -> float | None:
    """The entropy rate of the process that generates `places`, in nats per token; None unless it is known, see
    `stories.floor` and `repeats.floor`."""
    known = set(map(str, places))
    if len(known) != 1 or (name := known.pop()) not in _GENERATED:
        return None
    return _GENERATED[name][1](encode, separator=separator)


def _cached(name: str, digest: str, make: Callable[[], bytes]) -> Path:
    """The cache file with exactly this text. Its name contains the digest, so that versions for different Pythons
    coexist."""
    path = paths.cache_dir() / "texts" / f"{name}-{digest[:12]}.txt"
    if not downloads.whole(path, digest):
        data = make()
        write_bytes(path, data)
    return path


def python_reference() -> str:
    """The topics of Python's own help (`pydoc_data.topics`, from The Python Language Reference and The Python Standard
    Library), one document each.

    Some topics repeat sections of others, so each paragraph is kept once: otherwise held-out text would also be trained
    on. The order is shuffled but fixed, so that the held-out part covers all kinds of topics.

    Raises `UserError` if this Python does not include the topics.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise UserError(
            "this Python comes without its help topics (pydoc_data); give a text file or a folder instead"
        ) from error
    seen: set[str] = set()
    documents = []
    for name in sorted(topics, key=lambda name: hashlib.sha256(name.encode()).digest()):
        kept = []
        for paragraph in re.split(r"\n[ \t]*\n", topics[name].strip("\n")):
            words = " ".join(paragraph.split())
            if len(words) < _REPEATED or words not in seen:
                kept.append(paragraph.rstrip())
                seen.add(words)
        documents.append("\n\n".join(kept).strip("\n"))
    return f"\n{END_OF_TEXT}\n".join(documents) + "\n"
