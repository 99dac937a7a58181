"""Preference pairs as JSON Lines: a prompt, the chosen answer, the rejected one. No torch here.

The format is the one that TRL's and most other trainers read: `{"prompt": …, "chosen": …, "rejected": …}` with strings, or
with chat messages, `[{"role": …, "content": …}]`, for a model that has a chat template. In a row of messages the prompt can
also be called `messages`, or be left out: then it is what both conversations begin with.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tui_llm.common import storage
from tui_llm.common.errors import UserError
from tui_llm.common.files import cannot_write
from tui_llm.common.foreign_files import open_regular
from tui_llm.facts.chat import ChatMessage
from tui_llm.llm.data.records import objects
from tui_llm.llm.tokens.text import clean

FORM = '{"prompt": …, "chosen": …, "rejected": …}'
MOST = 1_000_000  # pairs of a file: all are in memory
_ROLES = ("system", "user", "assistant")
_FIELDS = ("prompt", "messages", "chosen", "rejected")
_BEGIN = b'{"prompt": '  # of a row that `append` writes
_LONGEST = 8 << 20  # bytes of a row that is looked at


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """`prompt` is plain text, or the messages before the answer, which need the model's chat template. The answers are
    plain text in both cases. Raises `UserError` if nothing can be learned from the pair."""

    prompt: str | tuple[ChatMessage, ...]
    chosen: str
    rejected: str

    def __post_init__(self) -> None:
        if not self.prompt:
            raise UserError("the prompt is empty; an answer needs something to follow")
        for name in ("chosen", "rejected"):
            if not getattr(self, name).strip():
                raise UserError(f"the {name} answer is empty; write one, or leave the pair out")
        if self.chosen == self.rejected:
            raise UserError("the chosen and the rejected answer are the same; nothing can be learned from that")

    @property
    def needs_template(self) -> bool:
        return not isinstance(self.prompt, str)


def read(path: Path) -> tuple[PreferencePair, ...]:
    """Read all pairs of a file. Raises `UserError` at the first row that is not one, with its line; if there is none, or
    there are more than `MOST`."""
    found: list[PreferencePair] = []
    for _, pair in rows(path):
        if len(found) == MOST:
            raise UserError(f"{path} has more than {MOST:,} pairs; give a part of it")
        found.append(pair)
    if not found:
        raise UserError(f"{path} has no pairs; give one per line, each as {FORM}")
    return tuple(found)


def rows(path: Path) -> Iterator[tuple[int, PreferencePair]]:
    """Yield (line number, pair), a line at a time: UTF-8 with or without a byte order mark, any line endings, empty lines
    skipped, also packed by gzip. Raises `UserError` with the line and what is wrong with it."""
    for line, value in objects(path):
        try:
            yield line, pair_of(value)
        except UserError as error:
            raise UserError(f"{path} line {line}: {error}") from error


def pair_of(value: Any) -> PreferencePair:
    """The pair of a parsed row. Raises `UserError` without the row's place."""
    if not isinstance(value, dict):
        raise UserError(f"this is not a pair; write it as {FORM}")
    for name in ("chosen", "rejected"):
        if name not in value:
            raise UserError(f"there is no field {name!r}{_has(value)}; write a pair as {FORM}")
    chosen, rejected = (messages_or_text(value[name], name) for name in ("chosen", "rejected"))
    key = "messages" if "messages" in value and "prompt" not in value else "prompt"
    if key in value:
        prompt = messages_or_text(value[key], key)
        if isinstance(prompt, str) and isinstance(chosen, tuple) and isinstance(rejected, tuple):
            # such as HuggingFaceH4/ultrafeedback_binarized: the prompt's text beside whole conversations
            prompt = _common(chosen, rejected) or (ChatMessage("user", prompt),)
    elif isinstance(chosen, tuple) and isinstance(rejected, tuple):
        prompt = _common(chosen, rejected)
    else:
        raise UserError(f"there is no field 'prompt'{_has(value)}; write a pair as {FORM}")
    return PreferencePair(prompt, _answer(chosen, prompt, "chosen"), _answer(rejected, prompt, "rejected"))


def _has(row: dict[str, Any]) -> str:
    others = [name for name in row if name not in _FIELDS][:8]
    return f" (it has {', '.join(repr(name[:40]) for name in others)})" if others else ""


def messages_or_text(value: Any, name: str) -> str | tuple[ChatMessage, ...]:
    """The text or the messages in the field `name` of a row. Raises `UserError` without the row's place."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):  # a single message
        value = [value]
    if not isinstance(value, list) or not value:
        raise UserError(f"{name!r} is neither text nor a list of messages")
    return tuple(_message(one, f"message {number} of {name!r}") for number, one in enumerate(value, 1))


def _message(value: Any, where: str) -> ChatMessage:
    role, content = (value.get("role"), value.get("content")) if isinstance(value, dict) else (None, None)
    if not (isinstance(role, str) and isinstance(content, str)):
        raise UserError(f'{where} is not {{"role": …, "content": text}}')
    if role not in _ROLES:
        raise UserError(f"{where} has the role {role[:40]!r}; only {', '.join(_ROLES)} are read")
    return ChatMessage(role, clean(content))


def _common(one: tuple[ChatMessage, ...], two: tuple[ChatMessage, ...]) -> tuple[ChatMessage, ...]:
    """The messages that both conversations begin with, as far as an answer remains of each."""
    count = 0
    while count < min(len(one), len(two)) - 1 and one[count] == two[count]:
        count += 1
    return one[:count]


def _answer(value: str | tuple[ChatMessage, ...], prompt: str | tuple[ChatMessage, ...], name: str) -> str:
    """The answer's text: itself, or the one message after the prompt's."""
    if isinstance(value, str):
        return value
    if isinstance(prompt, str):
        raise UserError(f"{name!r} has messages, but the prompt is plain text; give both in one form")
    own = value[len(prompt) :] if value[: len(prompt)] == prompt else value
    if len(own) != 1 or own[0].role != "assistant":
        raise UserError(f"{name!r} must have one message of the assistant after the prompt; it has {len(own)} messages")
    return own[0].text


def as_json(pair: PreferencePair) -> dict[str, Any]:
    """The pair as a row of the file, in the form in which its prompt is: answers to messages are messages."""
    if isinstance(pair.prompt, str):
        return {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected}
    said = [{"role": one.role, "content": one.text} for one in pair.prompt]
    chosen, rejected = ([{"role": "assistant", "content": text}] for text in (pair.chosen, pair.rejected))
    return {"prompt": said, "chosen": chosen, "rejected": rejected}


def append(path: Path, pair: PreferencePair) -> None:
    """Add a pair to a file, which is made if it does not exist. The row is written whole and synced to disk before this
    returns: a process killed afterwards keeps it. A row without a line break at the file's end gets one first; half a
    row, which a process left that was killed while it wrote, is removed: no reader would accept the file.

    Raises `UserError` if the file can't be written or the disk is full: what was there is unchanged.
    """
    row = json.dumps(as_json(pair), ensure_ascii=False).encode() + b"\n"
    try:
        storage.make_folders(path.parent)
        last = _open_row(path)
        torn = len(last) if _is_torn(last) else 0
        row = b"\n" + row if last and not torn else row
        with storage.open_file(path, "ab", buffering=0) as file:
            before = file.seek(0, os.SEEK_END) - torn
            if torn:
                file.truncate(before)
            try:
                if file.write(row) != len(row):
                    raise OSError("there is no space for a whole pair")
                storage.sync(file)
            except OSError:
                file.truncate(before)
                raise
    except (OSError, ValueError) as error:
        raise UserError(cannot_write(path, error)) from error


def _open_row(path: Path) -> bytes:
    """The bytes after the file's last line break; a longer row than `_LONGEST` without its beginning."""
    if not path.exists():
        return b""
    with open_regular(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LONGEST))
        return file.read().rpartition(b"\n")[2].rpartition(b"\r")[2]


def _is_torn(row: bytes) -> bool:
    """Whether this is the beginning of a row as `append` writes it, and no whole one."""
    if not row or not (row.startswith(_BEGIN) or _BEGIN.startswith(row)):
        return False
    try:
        json.loads(row)
    except ValueError:
        return True
    return False
