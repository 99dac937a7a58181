"""`tokenizer.json` as a Tokenizer: the `tokenizers` library encodes; this module adds the bytes of each token.

A token's bytes are what the file's decoder adds for it to a text. Two notations are read here: GPT-2's byte alphabet (a
space is `Ġ`) and SentencePiece's (a space is `▁`, a byte outside of any piece is `<0xE2>`). For any other, such as
WordPiece's `##ing`, the library decodes each token after another one.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from tui_llm.common.errors import UserError, message_line
from tui_llm.common.foreign_files import TOKENIZER, read_foreign_text, whole_number
from tui_llm.llm.adapters.tokenizer_steps import check_growth, parts
from tui_llm.llm.tokens.folder_files import FILE, parse_tokenizer, read_files
from tui_llm.llm.tokens.text import END_OF_TEXT, clean
from tui_llm.llm.tokens.tokenizer import Tokenizer, byte_characters
from tui_llm.llm.tokens.vocab_json import MOST_IDS

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class JsonTokenizer(Tokenizer):
    """A tokenizer of the `tokenizers` library.

    text: the content of a `tokenizer.json`.
    rows: number of ids that the model knows; ids beyond are left out.
    begin: the token that can precede a text (BOS); ends: those that end one (EOS). Ids, or the tokens' text.

    Raises `UserError` if the file is invalid.
    """

    def __init__(
        self,
        name: str,
        text: str,
        where: Path,
        rows: int | None = None,
        begin: str | int | None = None,
        ends: Collection[str | int] = (),
    ) -> None:
        library, raw = _library(), parse_tokenizer(text.encode("utf-8", "surrogatepass"), where)
        check_growth(raw, where)
        _check_ids(raw, where, rows)  # before anything is allocated per id
        try:
            self._whole = library.Tokenizer.from_str(text)
            self._after = library.Tokenizer.from_str(json.dumps(_without_front(raw)))
            for cutter in (self._whole, self._after):
                cutter.no_truncation()
                cutter.no_padding()
            ids = self._whole.get_vocab(with_added_tokens=True)
            added = {int(token["id"]): token for token in raw.get("added_tokens") or ()}
            self._bytes = _token_bytes(self._whole, raw, ids, added)
            self._pieces = _pieces(raw, ids, self._bytes)
            self._suffix = _suffix(raw)
            probe = self._whole.encode("a", add_special_tokens=True).ids
            bare = self._whole.encode("a", add_special_tokens=False).ids
        except UserError:
            raise
        except BaseException as error:  # the library raises plain Exception on invalid input, or panics
            if not is_failure(error):
                raise
            raise UserError(f"{where} can't be read ({message_line(error)}); get it again") from error
        self.name = name
        self.special = frozenset(id for id, token in added.items() if token.get("special"))
        self.special_texts = tuple(str(token["content"]) for token in added.values() if token.get("special"))
        self.size = len(self._bytes) if rows is None else min(rows, len(self._bytes))
        self._ids = ids
        front = probe[0] if len(probe) > len(bare) and probe[0] in self.special and probe[:1] != bare[:1] else None
        self._starts = front is not None
        self._begin = self._id(begin) if begin is not None and front is None else front
        self._ends = frozenset(id for one in ends if (id := self._id(one)) is not None)
        self.end_of_text = min(self._ends, default=None)
        if self._begin is None:
            self._begin = self.end_of_text

    def _id(self, token: str | int) -> int | None:
        id = self._ids.get(token) if isinstance(token, str) else token
        return id if id is not None and 0 <= id < self.size and self._bytes[id] is not None else None

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        return self._cut(self._whole, text, allow_special)

    def encode_after(self, text: str, *, allow_special: bool = False) -> list[int]:
        return self._cut(self._after, text, allow_special)

    def _cut(self, cutter: Any, text: str, allow_special: bool) -> list[int]:
        cutter.encode_special_tokens = not allow_special
        try:
            ids: list[int] = cutter.encode(clean(text), add_special_tokens=False).ids
        except Exception as error:  # no token for the text, and no unknown token
            raise UserError(f"the vocabulary of {self.name} can't encode this text: {message_line(error)}") from error
        if ids and max(ids) >= self.size:
            unknown = next(id for id in ids if id >= self.size)
            raise UserError(f"the token {cutter.id_to_token(unknown)!r} is not in the model's vocabulary; leave it out")
        return ids

    def token_bytes(self, id: int) -> bytes:
        data = self._bytes[id] if 0 <= id < self.size else None
        if data is None:
            raise KeyError(id)
        return data

    def bytes_after(self, previous: int | None, id: int) -> bytes:
        data = self.token_bytes(id)
        if self._suffix and previous is not None and str(self._whole.id_to_token(previous)).endswith(self._suffix):
            return b" " + data
        return data

    def piece(self, id: int) -> str | None:
        return self._pieces.get(id)

    def is_special(self, id: int) -> bool:
        return id in self.special

    @property
    def start(self) -> int | None:
        return self._begin

    @property
    def starts(self) -> bool:
        return self._starts

    def ends(self, id: int) -> bool:
        return id in self._ends


def load_json(folder: Path, name: str, rows: int | None = None, begin: int | None = None,
              ends: Collection[int] = (), *, gpt2: bool = False) -> JsonTokenizer:  # fmt: skip
    """The vocabulary of a folder with a `tokenizer.json`, and what the files beside it add. `begin` and `ends`: the
    start token and the end tokens of the model's config; those of the tokenizer's files take precedence. `gpt2`: as in
    `read_files`. Raises `UserError` if it is damaged or the library is missing."""
    files = read_files(folder, gpt2=gpt2)
    files.check_numbers()
    text = json.dumps(files.raw) if files.changed else read_foreign_text(files.where, TOKENIZER)
    end = files.special.get("eos_token", END_OF_TEXT if gpt2 else None)
    every: list[str | int] = [*ends, *([end] if end else [])]
    return JsonTokenizer(name, text, files.where, rows, files.special.get("bos_token", begin), every)


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise UserError(f"{FILE} needs the tokenizers library: pip install 'tui-llm[transformers]'") from error
    return tokenizers


def is_failure(error: BaseException) -> bool:
    """Whether it is a failure of the `tokenizers` library. A panic in its Rust code is no subclass of Exception."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _check_ids(raw: dict[str, Any], where: Path, rows: int | None) -> None:
    """Raises `UserError` if an id is no integer, is used twice, or is beyond the model's `rows`."""
    vocab, added = raw["model"].get("vocab"), raw.get("added_tokens") or []
    for token in added:
        if whole_number(token.get("id"), 0, MOST_IDS - 1) is None:
            raise UserError(
                f"{where}: an added token has the id {str(token.get('id'))[:40]}; ids go from 0 to {MOST_IDS - 1:,}"
            )
    if isinstance(vocab, dict):
        known = {token["id"] for token in added}
        size = 1 + max((id for id in vocab.values() if id not in known), default=-1)
    else:
        size = len(vocab) if isinstance(vocab, list) else 0
    if rows is not None and size > rows:
        raise UserError(
            f"{where}: its vocabulary has {size} tokens, its model only {rows}; they are of different models"
        )


def _without_front(raw: dict[str, Any]) -> dict[str, Any]:
    """The same tokenizer without the space that it prepends to a text."""
    changed = copy.deepcopy({key: value for key, value in raw.items() if key != "model"})
    changed["model"] = raw["model"]
    normalizers = parts(changed.get("normalizer"))
    if any(part.get("type") == "Prepend" for part in normalizers):
        changed["normalizer"] = {
            "type": "Sequence",
            "normalizers": [part for part in normalizers if part.get("type") != "Prepend"],
        }
    for part in parts(changed.get("pre_tokenizer")):
        if part.get("type") == "Metaspace":
            part["prepend_scheme"] = "never"
            part.pop("add_prefix_space", None)
        elif part.get("type") == "ByteLevel":
            part["add_prefix_space"] = False
    return changed


def _suffix(raw: dict[str, Any]) -> str:
    """What ends a word's last token (`</w>` in GPT-1), so that a space follows it; empty: the decoder knows none."""
    suffixes = [str(part.get("suffix", "")) for part in parts(raw.get("decoder")) if part.get("type") == "BPEDecoder"]
    return suffixes[0] if suffixes else ""


def _pieces(raw: dict[str, Any], ids: dict[str, int], table: list[bytes | None]) -> dict[int, str]:
    """The tokens as the vocabulary writes them, where that is not their text; bytes and spaces have signs anyway."""
    if _is_byte_level(raw):
        return {}
    shown = {id: token.replace("▁", " ") for token, id in ids.items() if not _BYTE.fullmatch(token)}
    return {id: token for id, token in shown.items() if token.encode("utf-8", "replace") != table[id]}


def _is_byte_level(raw: dict[str, Any]) -> bool:
    kinds = {part.get("type") for part in parts(raw.get("decoder"))}
    return "ByteLevel" in kinds or (
        not kinds and "ByteLevel" in {p.get("type") for p in parts(raw.get("pre_tokenizer"))}
    )


def _token_bytes(
    library: Any, raw: dict[str, Any], ids: dict[str, int], added: dict[int, dict[str, Any]]
) -> list[bytes | None]:
    """Each id's bytes inside a text; None for a gap. The bytes of added tokens are their text."""
    decoders = parts(raw.get("decoder"))
    kinds = {part.get("type") for part in decoders}
    table: list[bytes | None] = [None] * (max(ids.values(), default=-1) + 1)
    if _is_byte_level(raw):
        alphabet = {character: byte for byte, character in byte_characters().items()}
        for token, id in ids.items():
            if id in added or any(character not in alphabet for character in token):
                table[id] = token.encode("utf-8", "replace")
            else:
                table[id] = bytes(alphabet[character] for character in token)
        return table
    replaced = [
        (str(part["pattern"]["String"]), str(part.get("content", "")))
        for part in decoders
        if part.get("type") == "Replace" and isinstance(part.get("pattern"), dict) and "String" in part["pattern"]
    ]
    known = (
        bool(kinds) and kinds <= _SENTENCE_PIECE and len(replaced) == sum(p.get("type") == "Replace" for p in decoders)
    )
    if not known:
        _decode_each(library, ids, table)
    replaced += [(str(part.get("replacement", "▁")), " ") for part in decoders if part.get("type") == "Metaspace"]
    for token, id in ids.items():
        byte = _BYTE.fullmatch(token) if "ByteFallback" in kinds and id not in added else None
        if byte is not None:
            table[id] = bytes([int(byte[1], 16)])
        elif known:
            if not added.get(id, {}).get("special"):
                for old, new in replaced:
                    token = token.replace(old, new)
            table[id] = token.encode("utf-8", "replace")
    return table


_SENTENCE_PIECE = {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}


def _decode_each(library: Any, ids: dict[str, int], table: list[bytes | None]) -> None:
    """Fill `table` with what the library's decoder adds for each token after another one."""
    decode = library.decode_batch
    anchor, front = next(
        ((id, text) for token, id in ids.items() if token.isalpha() and (text := library.decode([id]))), (None, "")
    )
    listed = list(ids.items())
    pairs = [[id] if anchor is None else [anchor, id] for _, id in listed]
    for (token, id), text in zip(listed, decode(pairs, skip_special_tokens=False), strict=True):
        whole = text[len(front) :] if text.startswith(front) else token
        table[id] = whole.encode("utf-8", "replace")
