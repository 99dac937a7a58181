"""An open model and everything cached for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tui_llm.facts.model import ModelChoices
from tui_llm.facts.tokens import Tokenization
from tui_llm.llm.hub import lookup, open_model
from tui_llm.llm.predict import distribution
from tui_llm.llm.predict.window import Window


@dataclass
class OpenedModel:
    """An open model and everything cached for it."""

    found: lookup.LocalModel
    model: open_model.LoadedModel
    window: Window
    choices: ModelChoices
    remembered: dict[str, Any] = field(default_factory=dict)  # the instruments' cache
    screen_cache: dict[str, Any] = field(default_factory=dict)  # the same, until their screens have closed
    tokens: dict[Any, Tokenization] = field(default_factory=dict)  # of the last text, which most readings share
    sorted: dict[Any, distribution.Sorted] = field(default_factory=dict)
    processed: dict[Any, distribution.Processed] = field(default_factory=dict)
