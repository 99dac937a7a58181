"""The open model, and the models that can be opened."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Weights:
    """Identifies the weights that a reading was computed with: the model's name, its shape and, for a run's checkpoint,
    the training step."""

    name: str
    step: int | None
    parameters: int
    layers: int
    heads: int
    width: int
    context: int  # context length in tokens
    vocabulary: int  # number of token ids it can predict (padding rows not counted)
    device: str
    kind: str = "gpt2"  # the architecture; any other than gpt2 does not run in our own GPT-2
    start: str = "<|endoftext|>"  # the token that can precede a text, as text; empty: there is none
    starts: bool = False  # whether training texts mostly began with that token
    chat: bool = False  # whether it has a chat template
    note: str = ""  # newer checkpoints of the run that were skipped, and why; what was assumed to open the file
    dtype: str = "fp32"  # or half, int8: the weight format (`weight_names.WEIGHTS`)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that can be opened.

    kind: shipped, run, model (the user's own, or pulled), cache (in the Hugging Face Hub cache) or folder.
    size: bytes on disk.
    origin: where the model comes from; pulled: whether it can be pulled again.
    problem: why it can't be opened, or None; note: what is assumed to open it, or empty.
    """

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
    note: str = ""
