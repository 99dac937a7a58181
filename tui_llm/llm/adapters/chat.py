"""Chat templates: a message as the model was taught to see one. Applied only when asked.

A template is a Jinja program from the model's folder. It runs in Jinja's sandbox, as transformers runs it, and sees nothing
but the message and the names of the special tokens.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import SETTINGS, read_foreign_text, read_json
from tui_llm.llm.tokens.text import END_OF_TEXT
from tui_llm.llm.tokens.tokenizer import Tokenizer

_LONGEST = 200_000  # characters of a template
_MOST_STEPS = 500_000  # lines of a template that are run for a message; a usual one takes some tens


class ChatTemplate:
    """`special` are the texts of the tokens that a template may name: bos_token, eos_token …"""

    def __init__(self, template: str, special: dict[str, str], where: str) -> None:
        self._template, self._special, self._where = template, special, where

    def parts(self, message: str) -> tuple[str, str, str]:
        """What is fed for a user's `message`: (before it, the message as the template writes it, after it), up to where the
        model's answer begins. Together they are what `apply_chat_template(add_generation_prompt=True)` gives; a template
        that writes the message changed or not at all gives it all as the message. Raises `UserError`."""
        whole = self._rendered(message)
        # Where the message stands is seen from another one: what the two have in common is the template's.
        mark = "\ue000tui\ue001"
        before, found, after = self._rendered(mark).partition(mark)
        if found and whole.startswith(before) and whole.endswith(after) and len(whole) >= len(before) + len(after):
            return before, whole[len(before) : len(whole) - len(after)], after
        return "", whole, ""

    def encode(self, message: str, tokenizer: Tokenizer, allow_special: bool) -> list[int]:
        """The ids of what is fed. The template's special tokens are special; those typed in the message are text, unless
        `allow_special`."""
        before, own, after = self.parts(message)
        typed = getattr(tokenizer, "special_texts", (END_OF_TEXT,))
        if allow_special or not any(text in message for text in typed):
            return tokenizer.encode(before + own + after, allow_special=True)
        # The message by itself, so that nothing in it is taken for the template's.
        ids = tokenizer.encode(before, allow_special=True) if before else []
        ids += (tokenizer.encode_after if before else tokenizer.encode)(own, allow_special=False)
        return ids + (tokenizer.encode_after(after, allow_special=True) if after else [])

    def _rendered(self, message: str) -> str:
        try:
            from transformers.utils.chat_template_utils import render_jinja_template
        except ImportError as error:
            raise UserError("a chat template needs the extra: pip install 'tui-llm[transformers]'") from error
        try:
            with _bounded():
                made: Any = render_jinja_template(
                    conversations=[[{"role": "user", "content": message}]],
                    chat_template=self._template,
                    add_generation_prompt=True,
                    **self._special,
                )
            rendered = made[0][0] if isinstance(made, tuple) else made
            return str(rendered)
        except Exception as error:  # a template can fail in any way that a program can
            line = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(f"the chat template of {self._where} fails: {line}; J feeds the plain text") from error


@contextmanager
def _bounded() -> Iterator[None]:
    """Ends a template that takes too many steps: Jinja's sandbox bounds a loop, not loops inside each other."""
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
    """The chat template in a model folder: `chat_template.jinja`, else in `tokenizer_config.json`. None where it has none."""
    config = settings_of(folder / "tokenizer_config.json")
    text: Any = None
    path = folder / "chat_template.jinja"
    if path.exists():
        text = read_foreign_text(path, SETTINGS)
    if text is None:
        text = config.get("chat_template")
    if isinstance(text, list):  # several, by name
        named = {str(one.get("name")): one.get("template") for one in text if isinstance(one, dict)}
        text = named.get("default")
    return made(text, config, name)


def made(text: Any, config: dict[str, Any], name: str) -> ChatTemplate | None:
    """A template from its text and a tokenizer's config. None where there is no text."""
    if not isinstance(text, str) or not text.strip() or len(text) > _LONGEST:
        return None
    special = {}
    for key in ("bos_token", "eos_token", "unk_token", "pad_token"):
        if (written := written_token(config.get(key))) is not None:
            special[key] = written
    return ChatTemplate(text, special, name)


def written_token(value: Any) -> str | None:
    """A special token's text: a string, or an object with its content."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and value else None


def settings_of(path: Path) -> dict[str, Any]:
    """A JSON object of settings; empty where there is no such file. Raises `UserError` where it is damaged."""
    if not path.exists():
        return {}
    raw = read_json(path)
    if not isinstance(raw, dict):
        raise UserError(f"{path} is not a JSON object of settings; get it again")
    return raw
