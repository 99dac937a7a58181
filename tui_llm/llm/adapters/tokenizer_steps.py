"""The steps of a tokenizer.json before and after its model, and how much longer they can make a text."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from tui_llm.common.errors import UserError

MOST_REPLACES = 32  # in a row; the most known are about ten
MOST_GROWTH = 1000  # how many times as long a row of steps may make a text
# A regular expression that may match nothing, and so put its content between all characters: by what could do so in it.
_MATCHES_NOTHING = re.compile(r"\A\Z|[*?|^$]|\{[0,]|\(\)|\\[bByYAzZGK]")
# The other steps that grow with each repetition. A Precompiled map can make many characters of one: two are too many.
_GROWTH = {"ByteLevel": 2.0, "BPEDecoder": 2.0, "CTC": 2.0, "Precompiled": math.sqrt(MOST_GROWTH) + 1}


def parts(step: Any) -> list[dict[str, Any]]:
    """A normalizer, pre-tokenizer or decoder as a list; a sequence is flattened."""
    if not isinstance(step, dict):
        return []
    lists = [step[key] for key in ("normalizers", "pretokenizers", "decoders") if isinstance(step.get(key), list)]
    if lists and step.get("type", "Sequence") == "Sequence":  # older files have no types
        return [part for inner in lists for one in inner for part in parts(one)]
    return [step]


def check_growth(raw: dict[str, Any], where: Path) -> None:
    """Raises `UserError` if the steps could make a text so long that it fills the memory: each Replace may double it."""
    for name in ("normalizer", "pre_tokenizer", "decoder"):
        steps = parts(raw.get(name))
        count = sum("pattern" in step and "content" in step for step in steps)
        growth = math.prod(map(_growth, steps))
        if count > MOST_REPLACES or growth > MOST_GROWTH:
            what = (
                f"{count} Replace steps"
                if count > MOST_REPLACES
                else f"steps that make a text {growth:,.0f} times as long"
            )
            raise UserError(
                f"{where}: its {name} has {what}, which could fill the memory; {MOST_REPLACES} and {MOST_GROWTH:,} at most are run"
            )


def _growth(step: dict[str, Any]) -> float:
    pattern, content = step.get("pattern"), step.get("content")
    if not isinstance(content, str) or pattern is None:
        return _GROWTH.get(str(step.get("type")), 1.0)
    if isinstance(pattern, dict) and isinstance(text := pattern.get("String"), str) and text:
        return max(1.0, len(content) / len(text))
    regex = pattern.get("Regex") if isinstance(pattern, dict) else ""
    between = not isinstance(regex, str) or _MATCHES_NOTHING.search(regex) is not None
    return max(1.0, float(len(content) + between))
