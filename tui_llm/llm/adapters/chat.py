"""Chat templates: format a message as in the model's fine-tuning data. Applied only on request.

A template is a Jinja program from the model's folder. It is run in Jinja's sandbox, as transformers does, with access
to the message and the names of the special tokens only.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from tui_llm.common.errors import UserError, message_line
from tui_llm.common.foreign_files import SETTINGS, read_foreign_text
from tui_llm.facts.chat import ChatMessage
from tui_llm.llm.tokens.folder_files import settings_of, written_token
from tui_llm.llm.tokens.text import END_OF_TEXT
from tui_llm.llm.tokens.tokenizer import Tokenizer

INSTRUCT = (  # of this project's instruct copies: a question, a line break, the answer, its end
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'user' %}{{ '\\n' }}{% else %}{{ eos_token }}{% endif %}{% endfor %}"
)
_LONGEST = 200_000  # characters of a template
_MOST_STEPS = 500_000  # executed template lines per message; typically some tens


class ChatTemplate:
    """`special` maps the names that a template may use (bos_token, eos_token …) to the tokens' text."""

    def __init__(self, template: str, special: dict[str, str], where: str) -> None:
        self._template, self._special, self._where = template, special, where

    @property
    def text(self) -> str:
        """The template itself, as in chat_template.jinja."""
        return self._template

    def parts(self, message: str) -> tuple[str, str, str]:
        """Split what is fed for a user's `message` into (text before it, the message as the template writes it, text
        after it, up to where the answer begins). Their concatenation equals
        `apply_chat_template(add_generation_prompt=True)`. If the template changes or omits the message, everything is
        in the second part. Raises `UserError`."""
        whole = self._rendered(message)
        # Render a marker instead of the message: what both results have in common at the start and the end is the
        # template's.
        mark = "\ue000tui\ue001"
        before, found, after = self._rendered(mark).partition(mark)
        if found and whole.startswith(before) and whole.endswith(after) and len(whole) >= len(before) + len(after):
            return before, whole[len(before) : len(whole) - len(after)], after
        return "", whole, ""

    def encode(self, message: str, tokenizer: Tokenizer, allow_special: bool) -> list[int]:
        """The ids to feed. The template's special tokens are special; those typed in the message are plain text unless
        `allow_special`."""
        before, own, after = self.parts(message)
        if allow_special or not any(text in message for text in _special_texts(tokenizer)):
            return tokenizer.encode(before + own + after, allow_special=True)
        # Encode the message separately, so that no part of it becomes a special token.
        ids = tokenizer.encode(before, allow_special=True) if before else []
        ids += (tokenizer.encode_after if before else tokenizer.encode)(own, allow_special=False)
        return ids + (tokenizer.encode_after(after, allow_special=True) if after else [])

    def conversation(self, messages: Sequence[ChatMessage]) -> list[tuple[str, bool]]:
        """Split what is fed for a conversation, up to where the next answer begins, into pieces (text, whether it is a
        message's), a message as the template writes it: with or without the spaces around it. If the template changes
        messages in another way, all is one piece. Raises `UserError`."""
        whole = self._rendered_all(messages)
        marked = [ChatMessage(one.role, f"\ue000{at}\ue001") for at, one in enumerate(messages)]
        pieces = re.split("\ue000([0-9]+)\ue001", self._rendered_all(marked))
        made, end = [(pieces[0], False)], len(pieces[0])
        for number, after in zip(pieces[1::2], pieces[2::2], strict=True):
            text = messages[int(number)].text if int(number) < len(messages) else ""
            written = (one for one in (text, text.strip()) if whole.startswith(one + after, end))
            own = next(written, "")
            made += [(own, True), (after, False)]
            end += len(own + after)
        return made if "".join(text for text, _ in made) == whole else [(whole, True)]

    def typed_special(self, messages: Sequence[ChatMessage], tokenizer: Tokenizer) -> tuple[str, ...]:
        """The special tokens whose text occurs in messages. `encode_conversation` reads them as plain text; transformers'
        `apply_chat_template(tokenize=True)` reads them as special tokens."""
        return tuple(text for text in _special_texts(tokenizer) if any(text in one.text for one in messages))

    def encode_conversation(self, messages: Sequence[ChatMessage], tokenizer: Tokenizer) -> list[int]:
        """The ids to feed. The template's special tokens are special; those in messages are plain text."""
        pieces = self.conversation(messages)
        if not self.typed_special(messages, tokenizer):
            return tokenizer.encode("".join(text for text, _ in pieces), allow_special=True)
        ids: list[int] = []
        for text, inside in pieces:
            if text:
                ids += (tokenizer.encode_after if ids else tokenizer.encode)(text, allow_special=not inside)
        return ids

    def _rendered(self, message: str) -> str:
        return self._rendered_all((ChatMessage("user", message),))

    def _rendered_all(self, messages: Sequence[ChatMessage]) -> str:
        if self._template == INSTRUCT:  # ours: needs no extra
            end = self._special.get("eos_token", "")
            return "".join(one.text + ("\n" if one.role == "user" else end) for one in messages)
        try:
            from transformers.utils.chat_template_utils import render_jinja_template
        except ImportError as error:
            raise UserError("a chat template needs the extra: pip install 'tui-llm[transformers]'") from error
        try:
            with _bounded():
                made: Any = render_jinja_template(
                    conversations=[[{"role": one.role, "content": one.text} for one in messages]],
                    chat_template=self._template,
                    add_generation_prompt=True,
                    **self._special,
                )
            rendered = made[0][0] if isinstance(made, tuple) else made
            return str(rendered)
        except Exception as error:  # a template can raise anything
            line = message_line(error)
            raise UserError(f"the chat template of {self._where} fails: {line}; J feeds the plain text") from error


def _special_texts(tokenizer: Tokenizer) -> Sequence[str]:
    texts: Sequence[str] = getattr(tokenizer, "special_texts", (END_OF_TEXT,))
    return texts


@contextmanager
def _bounded() -> Iterator[None]:
    """Abort a template that runs too many steps. Jinja's sandbox limits single loops, but not nested ones."""
    steps = 0

    def inside(frame: FrameType, event: str, value: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps > _MOST_STEPS:
            raise RuntimeError(f"it takes more than {_MOST_STEPS:,} steps")
        return inside

    def called(frame: FrameType, event: str, value: Any) -> Any:
        return inside if frame.f_code.co_filename == "<template>" else None

    before = sys.gettrace()
    sys.settrace(called)
    try:
        yield
    finally:
        sys.settrace(before)


def template_of(folder: Path, name: str) -> ChatTemplate | None:
    """The chat template of a model folder; None if it has none."""
    return made(template_text(folder), settings_of(folder / "tokenizer_config.json"), name)


def template_text(folder: Path) -> str | None:
    """The template as text: `chat_template.jinja`, else from `tokenizer_config.json`; None if the folder has none."""
    path = folder / "chat_template.jinja"
    if path.exists():
        return read_foreign_text(path, SETTINGS)
    text: Any = settings_of(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(text, list):  # several named templates
        named = {str(one.get("name")): one.get("template") for one in text if isinstance(one, dict)}
        text = named.get("default")
    return text if isinstance(text, str) and text.strip() else None


def made(text: Any, config: dict[str, Any], name: str) -> ChatTemplate | None:
    """A template from its text and a tokenizer's config; None if there is no text, or it is too long."""
    if not isinstance(text, str) or not text.strip() or len(text) > _LONGEST:
        return None
    special = {}
    for key in ("bos_token", "eos_token", "unk_token", "pad_token"):
        if (written := written_token(config.get(key))) is not None:
            special[key] = written
    return ChatTemplate(text, special, name)
