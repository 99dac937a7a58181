"""llama2.c's `tokenizer.bin`: SentencePiece's BPE, whose pieces have scores instead of merges.

    uint32 length of the longest piece, then for each id: float32 score, uint32 length, bytes

Of all neighbours whose concatenation is a piece, the one with the highest score is merged first, the leftmost of
equals (SentencePiece, bpe_model.cc). A character that is no piece becomes its UTF-8 bytes, ids 3 to 258.
"""

from __future__ import annotations

import heapq
import math
import re
import struct
from pathlib import Path

from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import VOCABULARY, read_foreign
from tui_llm.llm.tokens.text import clean
from tui_llm.llm.tokens.tokenizer import Tokenizer

UNKNOWN, BEGIN, END, BYTES = 0, 1, 2, 3  # ids: the first three are special, then 256 bytes
_BYTE = re.compile(rb"<0x([0-9A-F]{2})>")


class ScoredBPETokenizer(Tokenizer):
    """SentencePiece's BPE from pieces (bytes, a space is a space) and their scores."""

    def __init__(self, name: str, pieces: list[bytes], scores: list[float]) -> None:
        self.name, self.size, self.end_of_text = name, len(pieces), END
        self._pieces, self._scores = pieces, scores
        self._ids: dict[bytes, int] = {}
        for id, piece in enumerate(pieces):
            self._ids.setdefault(piece, id)
        self.special_texts = ("<unk>", "<s>", "</s>")

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        text = clean(text)
        return self._merged(self._pieces_of(" " + text)) if text else []

    def encode_after(self, text: str, *, allow_special: bool = False) -> list[int]:
        return self._merged(self._pieces_of(clean(text)))

    def _pieces_of(self, text: str) -> list[int]:
        ids: list[int] = []
        for character in text:
            data = character.encode()
            known = self._ids.get(data)
            ids += [known] if known is not None else [BYTES + byte for byte in data]
        return ids

    def _merged(self, ids: list[int]) -> list[int]:
        """Merge neighbours, by a heap of the possible merges; outdated ones are dropped when they come up."""
        after = [*range(1, len(ids)), -1]
        before = [-1, *range(len(ids) - 1)]
        heap: list[tuple[float, int, int, int, int]] = []

        def offer(left: int, right: int) -> None:
            if left < 0 or right < 0:
                return
            made = self._ids.get(self._pieces[ids[left]] + self._pieces[ids[right]])
            if made is not None:
                heapq.heappush(heap, (-self._scores[made], left, right, ids[left], ids[right]))

        for at in range(len(ids) - 1):
            offer(at, at + 1)
        while heap:
            _, left, right, first, second = heapq.heappop(heap)
            if ids[left] != first or ids[right] != second or after[left] != right:
                continue
            ids[left] = self._ids[self._pieces[first] + self._pieces[second]]
            ids[right] = -1
            after[left] = after[right]
            if after[left] >= 0:
                before[after[left]] = left
            offer(before[left], left)
            offer(left, after[left])
        return [id for id in ids if id >= 0]

    def token_bytes(self, id: int) -> bytes:
        if not 0 <= id < self.size:
            raise KeyError(id)
        if id < BYTES:
            return self._pieces[id].strip()
        byte = _BYTE.fullmatch(self._pieces[id])
        return bytes([int(byte[1], 16)]) if byte else self._pieces[id]

    def is_special(self, id: int) -> bool:
        return id < BYTES

    @property
    def start(self) -> int | None:
        return BEGIN

    @property
    def starts(self) -> bool:
        return True

    def ends(self, id: int) -> bool:
        return id in (BEGIN, END)  # llama2.c's run.c stops at BEGIN, which separates its training texts


def load(path: Path, name: str, size: int) -> ScoredBPETokenizer:
    """The vocabulary in `path`, for a model with `size` ids. Raises `UserError` if it is damaged or of another size."""
    data = read_foreign(path, VOCABULARY)
    pieces: list[bytes] = []
    scores: list[float] = []
    at = 4
    while at < len(data) and len(pieces) <= size:
        if at + 8 > len(data):
            raise UserError(f"{path} is damaged or cut short; get it again")
        score, length = struct.unpack_from("<fI", data, at)
        at += 8 + length
        if at > len(data) or not math.isfinite(score):
            raise UserError(f"{path} is not llama2.c's tokenizer.bin, or is damaged; get it again")
        pieces.append(data[at - length : at])
        scores.append(score)
    if len(pieces) != size:
        more = "more than " if len(pieces) > size else ""
        raise UserError(
            f"{path} has {more}{min(len(pieces), size):,} tokens, its model {size:,}; they are of different models"
        )
    if size < BYTES + 256 or any(pieces[BYTES + byte] != f"<0x{byte:02X}>".encode() for byte in range(256)):
        raise UserError(f"{path} has no 256 byte tokens after the first three; it is another kind of vocabulary")
    return ScoredBPETokenizer(name, pieces, scores)
