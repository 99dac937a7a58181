"""The engine that a command asks, with the model that it names."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tui_llm.engine import PipelineEngine
    from tui_llm.llm.tokens.tokenizer import Tokenizer


def open_engine(model: str, device: str = "auto", weights: str = "fp32") -> PipelineEngine:
    """Raises `UserError`. torch is imported here, not before."""
    from tui_llm.engine import PipelineEngine

    engine = PipelineEngine(device, weights)
    engine.open(model)
    return engine


def engine_of(options: argparse.Namespace) -> PipelineEngine:
    """`options.model` opened on `options.device`, its weights as `options.weights` says."""
    return open_engine(options.model, options.device, getattr(options, "weights", "fp32"))


def tokenizer_of(name: str) -> Tokenizer:
    from tui_llm.llm.hub import lookup, open_model
    from tui_llm.llm.tokens import catalog

    if catalog.is_known(name):
        return catalog.load_named(name)
    return open_model.load_vocabulary(lookup.find(name).folder, name)
