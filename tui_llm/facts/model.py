"""The open model, and the models that could be opened."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Weights:
    """Whose numbers these are: the model's name and, for a run's checkpoint, its training step."""

    name: str
    step: int | None
    parameters: int
    layers: int
    heads: int
    width: int
    context: int  # tokens that the model can see at once
    vocabulary: int  # tokens that it can predict (padding ids not counted)
    device: str
    kind: str = "gpt2"  # the architecture; what is not GPT-2's layout runs through transformers
    start: str = "<|endoftext|>"  # the token that can stand in front of a text, as text; empty: there is none
    starts: bool = False  # the model has mostly seen that token in front of its texts
    chat: bool = False  # it has a chat template
    note: str = ""  # which newer checkpoints of the run were passed over, and why
    kept_as: str = "fp32"  # or half, int8: how the weights are kept (`weight_names.WEIGHTS`)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that could be opened. `kind` is one of shipped, run, model (the user's, or pulled), cache (the hub's library
    has it), folder. `size` is in bytes on disk; `origin` says where it is from, `pulled` whether it can be pulled again."""

    name: str
    kind: str
    path: str
    parameters: int | None
    context: int | None
    vocabulary: int | None
    step: int | None = None
    problem: str | None = None
    size: int | None = None
    origin: str = ""
    pulled: bool = False
