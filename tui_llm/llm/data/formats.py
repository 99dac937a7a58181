"""The formats of text files, and which field of a record is the text. Standard library only, and quick to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tui_llm.common.errors import UserError

FORMATS = ("auto", "text", "jsonl", "json", "csv", "tsv", "parquet")
FIELDS = ("text", "messages")  # the text's field where none is named: the first of them that the first record has
LONGEST = 64 << 20  # bytes of a line or record: the longest books have about a tenth of it
PACKED = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
_BY_SUFFIX = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TextFormat:
    """How files are read as text.

    name: one of `FORMATS`; `auto` goes by the suffix, before `.gz` or `.zst`.
    field: the column or key that has the text; empty: the first of `FIELDS` that the file has.
    """

    name: str = "auto"
    field: str = ""

    def __post_init__(self) -> None:
        if self.name not in FORMATS:
            raise UserError(f"format is {self.name[:80]!r}; give one of {', '.join(FORMATS)}")

    def of(self, path: Path) -> str:
        """The format of the file at `path`: one of `FORMATS` but `auto`."""
        return _BY_SUFFIX.get(suffix(path), "text") if self.name == "auto" else self.name

    def key(self, path: Path) -> str:
        """What of this changes the text that is read from `path`; empty for plain text."""
        kind = self.of(path)
        return "" if kind == "text" else f"{kind}\0{self.field}"


AUTO = TextFormat()


def suffix(path: Path) -> str:
    """The suffix in lower case, without that of a compression: `.jsonl` of `a.jsonl.gz`."""
    found = path.suffix.lower()
    return Path(path.stem).suffix.lower() if found in PACKED else found


def data_suffixes(name: str) -> str:
    """The suffixes of `name` if a format or a compression goes by them, such as `.jsonl.gz`, else empty."""
    path = Path(name)
    packed = path.suffix.lower() if path.suffix.lower() in PACKED else ""
    inner = suffix(path)
    return (inner if inner in _BY_SUFFIX else ".txt" if packed else "") + packed
