"""The scratch table: softmax of tokens and logits that the user typed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import ClassVar

from tui_llm.common.errors import UserError
from tui_llm.facts.prediction import Distribution
from tui_llm.facts.request import Question
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.instruments.temperatures.question import Temperatures

EXAMPLE = "mat=3.2 rug=1.3 moon=-2.1"
MOST = 10_000  # tokens


@dataclass(frozen=True, slots=True)
class ScratchQuestion(Question["Scratch"]):
    """A distribution from typed logits.

    words: TOKEN=LOGIT each.
    temperatures: shown side by side, if any.
    seen: names of the tokens that the repetition penalty applies to.
    """

    uses_parts: ClassVar[bool] = False
    words: tuple[str, ...] = ()
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    temperatures: tuple[float, ...] = ()
    seen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scratch:
    distribution: Distribution
    temperatures: Temperatures | None


def split(text: str) -> tuple[str, ...]:
    """Split a typed line into TOKEN=LOGIT words; a token with spaces is quoted: `" mat"=3.2`."""
    found = re.finditer(r'"(?P<token>[^"]*)"(?P<logit>=\S*)|\S+', text)
    return tuple(match["token"] + match["logit"] if match["token"] is not None else match[0] for match in found)


def parse(words: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    """(token, logit) of each word. Raises `UserError` at the first word that is not TOKEN=LOGIT."""
    if not words:
        raise UserError(f"there are no logits yet; type some, such as {EXAMPLE}")
    if len(words) > MOST:
        raise UserError(f"{len(words):,} tokens are too many for the scratch table; give at most {MOST:,}")
    typed = []
    for word in words:
        name, equals, number = word.rpartition("=")
        try:
            typed.append((name, float(number.replace("−", "-"))))
        except ValueError:
            equals = ""
        if not equals or not name:
            raise UserError(f"{word!r} is not TOKEN=LOGIT, such as mat=3.2")
    return tuple(typed)
