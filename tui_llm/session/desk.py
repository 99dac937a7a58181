"""What an instrument may use of the engine."""

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
    """The open model and its vocabulary. Instruments change neither: who trains, trains a copy."""

    device: torch.device

    forward_tokens: int  # how many tokens were run through the model so far, to read texts

    @property
    def ours(self) -> bool:
        """Whether there is a `model`."""
        ...

    @property
    def model(self) -> GPT:
        """Our own GPT-2. Raises `UserError`, which says so, where the open model runs through transformers."""
        ...

    @property
    def embedding(self) -> Tensor:
        """(V, C): the vector of each token, of any model; ids that only pad it included."""
        ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def remembered(self) -> dict[str, Any]:
        """What instruments keep from one question to the next, by a key of their own. Emptied with every new model."""
        ...

    def weights(self) -> Weights: ...

    def token(self, id: int) -> Token: ...

    def ids(self, request: Request) -> list[int]:
        """All that stands before the prediction: start token, prompt, continuation."""
        ...

    def read(self, request: Request, overtaken: Callable[[], bool] = ...) -> Reading: ...

    def target(self, request: Request) -> tuple[list[int], list[int]]:
        """The ids before the request's position, and the ids of its target. Raises `UserError` where it has none."""
        ...

    def target_logits(self, request: Request, overtaken: Callable[[], bool] = ...) -> tuple[list[int], Tensor]:
        """The target's T ids, and the logits (T, V) for each of them after the true ones before it; float32, on the CPU,
        from the cache as far as they are there. Raises `UserError` where there is no target or nothing before it."""
        ...

    def logits(self, request: Request, overtaken: Callable[[], bool] = ...) -> Tensor:
        """(V,): the logits after the request's last token, from the cache where they are there already; float32, on the
        CPU, without ids that only pad the embedding. Raises `UserError` where there is no token."""
        ...

    def target_ids(self, target: Target, request: Request, following: Sequence[int] = ()) -> list[int]:
        """The target's tokens; `following` are the text's own after the position. Raises `UserError` where it has none."""
        ...

    def prediction(self, request: Request, overtaken: Callable[[], bool] = ...) -> Processed:
        """The distribution that the request reads: at its position, what-if, repetition penalty and sampler included.
        Raises `UserError` where nothing is predicted."""
        ...
