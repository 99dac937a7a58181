"""From a command's options to the engine, the tokenizer and the request that they name."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tui_llm.engine import PipelineEngine
    from tui_llm.facts.request import Request, Target
    from tui_llm.facts.sampler import SamplerSettings
    from tui_llm.llm.tokens.tokenizer import Tokenizer


def open_engine(
    model: str, device: str = "auto", weights: str = "fp32", *, numpy_first: bool = False
) -> PipelineEngine:
    """Imports torch, unless `numpy_first` and the model is small. What was assumed to open the model goes to standard
    error. Raises `UserError`."""
    from tui_llm.llm.model.blas_threads import import_numpy

    import_numpy()
    from tui_llm.commands.shared.streams import print_error
    from tui_llm.common.display import visible
    from tui_llm.engine import PipelineEngine

    engine = PipelineEngine(device, weights, numpy_first=numpy_first)
    if note := engine.open(model).note:
        print_error(visible(note))
    return engine


def engine_of(options: argparse.Namespace, *, numpy_first: bool = False) -> PipelineEngine:
    """`options.model` opened on `options.device`, its weights in the dtype `options.weights`."""
    return open_engine(options.model, options.device, options.weights, numpy_first=numpy_first)


def tokenizer_of(name: str) -> Tokenizer:
    """A named vocabulary, or that of a model. Raises `UserError`."""
    from tui_llm.llm.hub import hub, lookup
    from tui_llm.llm.tokens import catalog

    if catalog.is_known(name):
        return catalog.load_named(name)
    return hub.load_vocabulary(lookup.find(name).folder, name)


def request_of(options: argparse.Namespace, **fields: Any) -> Request:
    """The request for `options.prompt`, as the options of `prompt_options` ask, with more fields of `Request`."""
    from tui_llm.facts.request import Request

    return Request(
        prompt=options.prompt,
        allow_special=options.allow_special,
        start_token=options.bos,
        chat=options.chat,
        **fields,
    )


def target_of(text: str | None) -> Target | None:
    """The target that an option gives, if it was given."""
    from tui_llm.facts.request import Target

    return None if text is None else Target(text=text)


def sampler_of(options: argparse.Namespace, temperature: float | None = None) -> SamplerSettings:
    """The settings that the options of `sampler_options` give; `temperature` replaces theirs."""
    from tui_llm.facts.sampler import SamplerSettings

    return SamplerSettings(
        temperature=options.temperature if temperature is None else temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        repetition_penalty=options.repetition_penalty,
        sequential_cuts=options.sequential_cuts,
    )
