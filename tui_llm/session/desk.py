"""The interface to the open model that instruments use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from tui_llm.facts.model import Weights
from tui_llm.facts.reading import Reading
from tui_llm.facts.request import Request, Target
from tui_llm.facts.tokens import Token
from tui_llm.llm.model.model import GPT
from tui_llm.llm.predict.distribution import Processed
from tui_llm.llm.tokens.tokenizer import Tokenizer


class Desk(Protocol):
    """The open model and its vocabulary. Instruments must not modify either; to train, they make a copy."""

    device: torch.device

    forward_tokens: int  # number of tokens run so far to read texts

    @property
    def ours(self) -> bool:
        """Whether the model is our own GPT, so that `model` is available."""
        ...

    @property
    def model(self) -> GPT:
        """Our own GPT. Raises `UserError` if the open model runs through transformers."""
        ...

    @property
    def embedding(self) -> Tensor:
        """The token embedding (V, C) of any model, padding rows included."""
        ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def remembered(self) -> dict[str, Any]:
        """The instruments' cache between questions; each uses its own key. Cleared when a model is opened."""
        ...

    def weights(self) -> Weights: ...

    def token(self, id: int) -> Token: ...

    def ids(self, request: Request) -> list[int]:
        """All ids before the prediction: start token, prompt, continuation."""
        ...

    def read(self, request: Request, overtaken: Callable[[], bool] = ...) -> Reading: ...

    def target(self, request: Request) -> tuple[list[int], list[int]]:
        """The ids before the request's position, and the ids of its target. Raises `UserError` if it has none."""
        ...

    def target_logits(self, request: Request, overtaken: Callable[[], bool] = ...) -> tuple[list[int], Tensor]:
        """The T ids of the target, and the logits (T, V) for each, given the true tokens before it; float32, on the
        CPU, from the cache if possible. Raises `UserError` if there is no target, or no token before it."""
        ...

    def logits(self, request: Request, overtaken: Callable[[], bool] = ...) -> Tensor:
        """The logits (V,) after the request's last token, from the cache if possible; float32, on the CPU, without
        padding ids. Raises `UserError` if there is no token."""
        ...

    def target_ids(self, target: Target, request: Request, following: Sequence[int] = ()) -> list[int]:
        """The ids of the target; `following` are the text's own after the position. Raises `UserError` if it has
        none."""
        ...

    def prediction(self, request: Request, overtaken: Callable[[], bool] = ...) -> Processed:
        """The distribution at the request's position, after overrides, repetition penalty and sampler. Raises
        `UserError` if there is nothing to predict from."""
        ...
