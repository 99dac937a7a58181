"""An open model and everything cached for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tui_llm.facts.model import ModelChoices, Weights
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

    def weights(self, device: str, dtype: str) -> Weights:
        """What a reading says of the model. `device`: where it runs; `dtype`: its weight format."""
        predictor = self.model.predictor
        return Weights(
            self.found.name,
            self.found.step,
            predictor.parameters,
            predictor.layers,
            predictor.heads,
            predictor.width,
            predictor.context,
            self.model.tokenizer.size,
            device,
            self.model.kind,
            self.choices,
            "; ".join(filter(None, (self.found.note, self.model.note))),
            dtype,
            self.model.reader,
            self.model.kernel,
        )
