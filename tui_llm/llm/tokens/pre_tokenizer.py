"""The pre-tokenizer of a `tokenizer.json`: how text is split into words before bytes are merged.

Supported are GPT-2's ByteLevel, alone or after `Digits` and `Split` with a known pattern. `UnknownRule` names anything
else: the `tokenizers` library may know it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import regex

from tui_llm.common.errors import UserError

# GPT-2's pre-tokenization pattern (openai/gpt-2, src/encoder.py).
GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


class UnknownRule(UserError):
    """A rule of a tokenizer's files that this package does not implement. The message names file and rule."""


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """splits: patterns whose matches become words of their own, one after the other; pattern: the last one, which
    tiktoken applies; prefix_space: a space is put before each part that has none."""

    splits: tuple[str, ...] = ()
    pattern: str = GPT2_PATTERN
    prefix_space: bool = False

    def parts(self, text: str, prefix: bool = True) -> list[str]:
        """`text` after all but the last pattern, with the space in front unless `prefix` is false."""
        parts = [text] if text else []
        for pattern in self.splits:
            parts = [piece for part in parts for piece in _isolated(pattern, part)]
        if self.prefix_space and prefix:
            parts = [part if part.startswith(" ") else " " + part for part in parts]
        return parts


PLAIN = PreTokenizer()

# Patterns of well-known vocabularies, in a syntax that Oniguruma (tokenizers), fancy-regex (tiktoken) and Python's regex
# module read alike.
_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_KNOWN = frozenset({
    GPT2_PATTERN,
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s",
    _LETTERS + r"\p{N}{1,3}" + _REST,  # Llama 3, cl100k_base
    _LETTERS + r"\p{N}" + _REST,  # Qwen 2
    r"\p{N}", r"\p{N}+", r"\p{N}{1,3}", r"\d", r"\d+", r"\s+",
})  # fmt: skip


def read_pre_tokenizer(raw: Any, where: object) -> PreTokenizer:
    """Raises `UnknownRule` if it has a step that is not supported."""
    steps = _steps(raw)
    if not steps or steps[-1].get("type") != "ByteLevel":
        raise UnknownRule(f"{where} has the pre-tokenizer {_named(steps[-1] if steps else raw)}, not GPT-2's ByteLevel")
    splits = [_pattern(step, where) for step in steps[:-1]]
    prefix = _flag(steps[-1], "add_prefix_space", True, where)
    if _flag(steps[-1], "use_regex", True, where):
        return PreTokenizer(tuple(splits), GPT2_PATTERN, prefix)
    if prefix or not splits:  # the space is put in front after the last split
        return PreTokenizer(tuple(splits), r"[\s\S]+", prefix)
    last = splits.pop()
    return PreTokenizer(tuple(splits), last if last in _COVERING else rf"{last}|(?:(?!{last})[\s\S])+")


_COVERING = frozenset(one for one in _KNOWN if r"\s+(?!\S)" in one)  # they match every character


def _steps(raw: Any) -> list[dict[str, Any]]:
    if not isinstance(raw, dict):
        return []
    inner = raw.get("pretokenizers")
    if raw.get("type") == "Sequence" and isinstance(inner, list):
        return [step for one in inner for step in _steps(one)]
    return [raw]


def _pattern(step: dict[str, Any], where: object) -> str:
    """The pattern whose matches the step makes words of their own."""
    kind = step.get("type")
    if kind == "Digits":
        return r"\p{N}" if _flag(step, "individual_digits", False, where) else r"\p{N}+"
    pattern = step.get("pattern")
    written = pattern.get("Regex") if isinstance(pattern, dict) else None
    if kind != "Split" or not isinstance(written, str) or written not in _KNOWN:
        shown = f"Split by {str(pattern)[:100]}" if kind == "Split" else _named(step)
        raise UnknownRule(f"{where} has the pre-tokenizer {shown}")
    behavior, invert = step.get("behavior"), _flag(step, "invert", False, where)
    kept = behavior == "Removed" and invert and written in _COVERING  # what lies between matches is left out: nothing
    if not kept and (behavior != "Isolated" or invert):
        raise UnknownRule(f"{where} has a pre-tokenizer Split with the behavior {str(behavior)[:40]}")
    return written


def _named(step: Any) -> str:
    return str(step.get("type"))[:60] if isinstance(step, dict) else "none"


def _flag(step: dict[str, Any], name: str, default: bool, where: object) -> bool:
    value = step.get(name, default)
    if not isinstance(value, bool):
        raise UserError(f"{where}: {name} of its pre-tokenizer is neither true nor false; get the file again")
    return value


def _isolated(pattern: str, text: str) -> list[str]:
    """`text` as matches and the stretches between them."""
    parts, done = [], 0
    for match in _compiled(pattern).finditer(text):
        if done < match.start():
            parts.append(text[done : match.start()])
        if match[0]:
            parts.append(match[0])
        done = match.end()
    return [*parts, text[done:]] if done < len(text) else parts


@lru_cache(8)
def _compiled(pattern: str) -> Any:
    return regex.compile(pattern)
