"""Tokenized prompts, with pairs of answers or without, and the order in which a run takes them. No torch here.

A run keeps them as one file of tokens: it trains on what was checked when it was made, whatever becomes of the text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tui_llm.common import memory, storage
from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import open_foreign
from tui_llm.facts.chat import ChatMessage
from tui_llm.llm.data.preference_pairs import MOST, PreferencePair
from tui_llm.llm.data.prompts import Prompt
from tui_llm.llm.tokens.tokenizer import Tokenizer

Ints = npt.NDArray[np.int64]


class Template(Protocol):
    """What is used of a model's chat template (`llm/adapters/chat.py`)."""

    def encode_conversation(self, messages: Sequence[ChatMessage], tokenizer: Tokenizer) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Rows of different lengths: row i is `ids[ends[i − 1]:ends[i]]`."""

    ids: npt.NDArray[np.uint32]
    ends: Ints

    def __len__(self) -> int:
        return len(self.ends)

    def row(self, index: int) -> list[int]:
        start = int(self.ends[index - 1]) if index else 0
        found: list[int] = self.ids[start : int(self.ends[index])].tolist()
        return found

    @property
    def lengths(self) -> Ints:
        return np.diff(self.ends, prepend=0)


@dataclass(frozen=True, slots=True)
class AnswerRows:
    """Row i of each field belongs together. `chosen` and `rejected` have no rows where only prompts were given.

    `lines` are the rows' lines in their file. Equal rows have the same number in `groups`, so that none is both trained on
    and held out.
    """

    prompts: TokenRows
    chosen: TokenRows
    rejected: TokenRows
    lines: Ints
    groups: Ints

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def longest(self) -> int:
        """The most tokens of a prompt with an answer, or of a prompt alone."""
        both = [self.prompts.lengths + side.lengths for side in (self.chosen, self.rejected) if len(side)]
        return int(np.max(np.stack(both or [self.prompts.lengths])))

    def split(self, fraction: float, seed: int) -> tuple[Ints, Ints]:
        """The numbers of the rows to train on, and of those held out: about `fraction` of the rows, at least one; equal rows
        together. It depends on the seed, the fraction and the rows alone. Raises `UserError` if nothing would be left."""
        names, counts = np.unique(self.groups, return_counts=True)
        if len(names) < 2:
            raise UserError("give 2 different rows or more: at least one is held out, and the others are trained on")
        order = _random(seed, _SPLIT).permutation(len(names))
        wanted, held = max(1, round(fraction * len(self))), np.cumsum(counts[order])
        take = min(int(np.searchsorted(held, wanted)) + 1, len(names) - 1)
        out = np.isin(self.groups, names[order[:take]])
        return np.flatnonzero(~out), np.flatnonzero(out)

    def prompts_split(self, fraction: float, seed: int) -> tuple[Ints, Ints]:
        """Like `split`; a single prompt is both trained on and evaluated, on other answers."""
        if len(np.unique(self.groups)) > 1:
            return self.split(fraction, seed)
        every = np.arange(len(self))
        return every, every[:1]

    def save(self, path: Path) -> None:
        """Raises OSError."""
        from safetensors.numpy import save_file

        arrays = {f"{name}.{part}": array for name, part, array in self._arrays()}
        storage.by_library(path, lambda file: save_file(arrays, file))
        storage.sync_path(path)

    def _arrays(self) -> Iterable[tuple[str, str, npt.NDArray[np.generic]]]:
        for name in _COLUMNS:
            rows: TokenRows = getattr(self, name)
            yield name, "ids", rows.ids
            yield name, "ends", rows.ends
        yield "row", "lines", self.lines
        yield "row", "groups", self.groups


_COLUMNS = ("prompts", "chosen", "rejected")
_SPLIT, _ORDER = 2**63, 0  # keys of the random numbers: the split's is no epoch's


def load(path: Path, vocabulary: int) -> AnswerRows:
    """Raises `UserError` if the file can't be read, or is no file of answers in a vocabulary of that size."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as parse

    with open_foreign(path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        memory.check(2 * size, memory.free_bytes(), f"reading {path}")
        data = file.read(size)
    try:
        found = parse(data)
        columns = [TokenRows(found[f"{name}.ids"], found[f"{name}.ends"]) for name in _COLUMNS]
        rows = AnswerRows(columns[0], columns[1], columns[2], found["row.lines"], found["row.groups"])
        for one in columns:
            whole = not len(one) or (int(one.ends[-1]) == len(one.ids) and bool((one.lengths >= 0).all()))
            if not whole or (len(one.ids) and int(one.ids.max()) >= vocabulary):
                raise ValueError("its rows don't fit its tokens")
        if not len(rows) or {len(rows.lines), len(rows.groups)} != {len(rows)}:
            raise ValueError("it has too few rows")
        return rows
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); start a new run") from error


class RowOrder:
    """The order in which rows are trained on: reshuffled each epoch. Place k depends on (seed, k) alone, so that a resumed run
    needs no saved state."""

    def __init__(self, rows: Ints, seed: int) -> None:
        self.rows, self.seed = rows, seed
        self._epoch: tuple[int, Ints] | None = None

    def row(self, place: int) -> int:
        """The number of the row at `place`, from 0."""
        epoch, at = divmod(place, len(self.rows))
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, _random(self.seed, _ORDER + epoch).permutation(len(self.rows))
        return int(self.rows[self._epoch[1][at]])


def _random(seed: int, key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed % 2**64, key % 2**64]))


# ── text to tokens ───────────────────────────────────────────────────────────────────────────────────────────────


class _Column:
    def __init__(self) -> None:
        self.ids: list[npt.NDArray[np.uint32]] = []
        self.lengths: list[int] = []

    def add(self, ids: list[int]) -> None:
        self.ids.append(np.array(ids, np.uint32))
        self.lengths.append(len(ids))

    def rows(self) -> TokenRows:
        ids = np.concatenate(self.ids) if self.ids else np.zeros(0, np.uint32)
        return TokenRows(ids, np.cumsum(self.lengths, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class AnswerEncoder:
    """Tokenizes rows of the file `where` for a model that sees `context` tokens at once.

    Prompt and answer are tokenized one after the other: the answer's tokens are those that follow the prompt's. A text row
    is taken as it is; an answer of a chat row ends with the vocabulary's end token.
    """

    tokenizer: Tokenizer
    template: Template | None
    context: int
    model: str
    where: str
    progress: Callable[[int], object] = lambda _: None  # gets the number of rows that are done

    def pairs(self, pairs: Iterable[tuple[int, PreferencePair]]) -> AnswerRows:
        """Raises `UserError` at the first pair that is not valid or does not fit: its line, and what is wrong."""
        columns = [_Column() for _ in _COLUMNS]
        lines, groups, known = list[int](), list[int](), dict[object, int]()
        for count, (line, pair) in enumerate(pairs, 1):
            at = f"{self.where} line {line}"
            self._few(count, "pairs")
            prompt = self._prompt(pair.prompt, at)
            sides = [self._answer(text, chat=pair.needs_template) for text in (pair.chosen, pair.rejected)]
            for name, ids in zip(("chosen", "rejected"), sides, strict=True):
                self._fit(len(prompt) + len(ids), f"{at}: the prompt with its {name!r} answer", 1)
            if sides[0] == sides[1]:
                raise UserError(f"{at} has the same tokens as 'chosen' and 'rejected'; change one, or remove the line")
            for column, ids in zip(columns, (prompt, *sides), strict=True):
                column.add(ids)
            key = (pair.prompt, *sorted((pair.chosen, pair.rejected)))
            lines.append(line)
            groups.append(known.setdefault(key, len(known)))
            self.progress(count)
        if not lines:
            raise UserError(f"{self.where} is empty; give 2 pairs or more")
        prompts, chosen, rejected = (column.rows() for column in columns)
        return AnswerRows(prompts, chosen, rejected, np.array(lines, np.int64), np.array(groups, np.int64))

    def prompts(self, prompts: Iterable[Prompt], answer_tokens: int) -> AnswerRows:
        """Raises `UserError` at the first prompt that leaves no room for `answer_tokens` tokens."""
        column, lines, groups, known = _Column(), list[int](), list[int](), dict[object, int]()
        for count, one in enumerate(prompts, 1):
            at = f"{self.where} line {one.line}" if one.line else self.where
            self._few(count, "prompts")
            ids = self._prompt(one.content, at)
            self._fit(len(ids) + answer_tokens, f"{at}: the prompt with an answer of {answer_tokens} tokens", 1)
            column.add(ids)
            lines.append(one.line)
            groups.append(known.setdefault(one.content, len(known)))
            self.progress(count)
        if not lines:
            raise UserError(f"{self.where} is empty; give a prompt in each line")
        nothing = _Column().rows()
        return AnswerRows(column.rows(), nothing, nothing, np.array(lines, np.int64), np.array(groups, np.int64))

    def _prompt(self, content: str | tuple[ChatMessage, ...], at: str) -> list[int]:
        if isinstance(content, str):
            ids = self.tokenizer.encode(content)
        elif self.template is None:
            raise UserError(
                f"{at} has chat messages, and {self.model} has no chat template: make an instruct copy of it first (--instruct), "
                "or write 'prompt' and the answers as text"
            )
        else:
            try:
                ids = self.template.encode_conversation(content, self.tokenizer)
            except UserError as error:
                raise UserError(f"{at}: {error}") from error
        if not ids:
            raise UserError(f"{at} has an empty prompt; an answer's first token is predicted from it")
        return ids

    def _few(self, count: int, what: str) -> None:
        if count > MOST:
            raise UserError(f"{self.where} has more than {MOST:,} {what}; give a part of it")

    def _answer(self, text: str, *, chat: bool) -> list[int]:
        ids = self.tokenizer.encode_after(text)
        end = self.tokenizer.end_of_text
        return [*ids, end] if chat and end is not None else ids

    def _fit(self, tokens: int, what: str, spare: int) -> None:
        if tokens - spare > self.context:
            raise UserError(
                f"{what} has {tokens:,} tokens; rows of this run have {self.context:,} at most: shorten or remove the line"
            )
